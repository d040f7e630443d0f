//! What may be mounted where, of what, and with which options: config.md#mounts,
//! config.md#linux-mount-options.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use conformance::host::is_root;
use conformance::mount_table::{self, Mount};
use conformance::{Kind, TestBundle, gocker_only, needs, peer_differs, runtime};
use nix::mount::{MsFlags, mount, umount};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};

fn bind(source: &Path, destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": "bind", "source": source, "options": options})
}

fn tmpfs(destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options})
}

fn volume(bundle: &TestBundle) -> PathBuf {
    let volume = bundle.scratch().join("volume");
    fs::create_dir(&volume).expect("mkdir");
    fs::write(volume.join("file"), "from the volume\n").expect("write");
    volume
}

/// The mounts at a place and below it, as the container's process sees them.
#[track_caller]
fn mounts_at(bundle: &TestBundle, place: &str) -> Vec<Mount> {
    let output = bundle.run();
    let all = mount_table::parse(output.success());
    all.into_iter()
        .filter(|mount| mount.point.starts_with(place))
        .collect()
}

/// Every word that concerns a mount and all below it, and how it shows.
#[test]
fn recursive_options_set_and_clear_what_they_name() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "Debian's know some of them only");
    let all = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    for (word, shown, before) in [
        ("rro", Some("ro"), MsFlags::empty()),
        ("rnosuid", Some("nosuid"), MsFlags::empty()),
        ("rnodev", Some("nodev"), MsFlags::empty()),
        ("rnoexec", Some("noexec"), MsFlags::empty()),
        ("rnodiratime", Some("nodiratime"), MsFlags::empty()),
        ("rnoatime", Some("noatime"), MsFlags::empty()),
        ("rrelatime", Some("relatime"), MsFlags::MS_NOATIME),
        ("rnosymfollow", Some("nosymfollow"), MsFlags::empty()),
        ("rrw", None, all),
        ("rsuid", None, all),
        ("rdev", None, all),
        ("rexec", None, all),
        ("rdiratime", None, MsFlags::MS_NODIRATIME),
        ("ratime", None, MsFlags::MS_NOATIME),
        ("rstrictatime", None, MsFlags::MS_NOATIME),
    ] {
        let bundle = TestBundle::new().args(&["/bin/cat", "/proc/self/mountinfo"]);
        let volume = volume(&bundle);
        let kind = Some("tmpfs");
        mount(kind, &volume, kind, MsFlags::empty(), None::<&str>).expect("mount");
        fs::create_dir(volume.join("sub")).expect("mkdir");
        mount(kind, &volume.join("sub"), kind, before, None::<&str>).expect("mount");
        let bundle = bundle.mount(bind(&volume, "/data", &["rbind", word]));
        let mounts = mounts_at(&bundle, "/data");
        conformance::leftovers::remove_mounts(&volume);
        assert_eq!(mounts.len(), 2, "{mounts:?}");
        let gone = match word {
            "rrw" => "ro",
            "ratime" | "rstrictatime" => "noatime",
            "rdiratime" => "nodiratime",
            other => &format!("no{}", &other[1..]),
        };
        for mount in &mounts {
            match shown {
                Some(shown) => assert!(mount.has(shown), "{word}: {mount:?}"),
                None => assert!(!mount.has(gone), "{word}: {mount:?}"),
            }
        }
    }
}

#[test]
fn options_of_the_file_system_itself_reach_it() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it knows not all of them");
    for (word, shown) in [
        ("sync", "sync"),
        ("dirsync", "dirsync"),
        ("lazytime", "lazytime"),
    ] {
        let bundle = TestBundle::new()
            .args(&["/bin/cat", "/proc/self/mountinfo"])
            .mount(tmpfs("/data", &[word]));
        // Debian's runc does not know the word, and the file system refuses it.
        if word == "lazytime" && runtime().kind != Kind::Gocker {
            continue;
        }
        let mounts = mounts_at(&bundle, "/data");
        assert!(mounts[0].file_system_has(shown), "{word}: {mounts:?}");
    }
}

#[test]
fn several_propagations_of_one_mount_are_applied_in_order() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it forgets some");
    let bundle = TestBundle::new().args(&["/bin/cat", "/proc/self/mountinfo"]);
    let volume = volume(&bundle);
    let none = None::<&str>;
    mount(Some(&volume), &volume, none, MsFlags::MS_BIND, none).expect("bind");
    mount(none, &volume, none, MsFlags::MS_SHARED, none).expect("share");
    let bundle = bundle.mount(bind(&volume, "/data", &["bind", "rslave", "shared"]));
    let mounts = mounts_at(&bundle, "/data");
    umount(&volume).expect("umount");
    let words = mounts[0].propagation.join(" ");
    assert!(words.contains("shared:"), "{words}");
}

/// Sources of every kind that a path may name.
#[test]
fn sockets_pipes_devices_and_links_are_bound() {
    needs!(is_root(), "needs root");
    let bundle =
        TestBundle::shell("stat -c %F /socket /pipe /dev/bound /link-to-file; cat /link-to-file");
    let volume = volume(&bundle);
    let _listener = UnixListener::bind(volume.join("socket")).expect("bind");
    mkfifo(&volume.join("pipe"), Mode::S_IRWXU).expect("mkfifo");
    symlink("file", volume.join("link")).expect("symlink");
    let bundle = bundle
        .mount(bind(&volume.join("socket"), "/socket", &["bind"]))
        .mount(bind(&volume.join("pipe"), "/pipe", &["bind"]))
        .mount(bind(Path::new("/dev/zero"), "/dev/bound", &["bind"]))
        .mount(bind(&volume.join("link"), "/link-to-file", &["bind"]));
    assert_eq!(
        bundle.run_ok(),
        "socket\nfifo\ncharacter special file\nregular file\nfrom the volume\n"
    );
}

#[test]
fn an_overlay_is_mounted_with_its_data() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell("cat /merged/file /merged/low; echo new > /merged/file");
    let volume = volume(&bundle);
    // The machine's own file system may be an overlay, which cannot be the upper layer.
    let kind = Some("tmpfs");
    mount(kind, &volume, kind, MsFlags::empty(), None::<&str>).expect("mount");
    for name in ["low", "up", "work"] {
        fs::create_dir(volume.join(name)).expect("mkdir");
    }
    fs::write(volume.join("low/file"), "below\n").expect("write");
    fs::write(volume.join("low/low"), "low\n").expect("write");
    let option = |name: &str, dir: &str| format!("{name}={}", volume.join(dir).display());
    let options = [
        option("lowerdir", "low"),
        option("upperdir", "up"),
        option("workdir", "work"),
    ];
    let bundle = bundle.mount(json!({"destination": "/merged", "type": "overlay",
        "source": "overlay", "options": options}));
    let output = bundle.run();
    let written = fs::read_to_string(volume.join("up/file"));
    umount(&volume).expect("umount");
    assert_eq!(output.success(), "below\nlow\n");
    assert_eq!(written.expect("read"), "new\n");
}

#[test]
fn the_kernels_file_systems_are_mounted_in_a_user_namespace() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::new()
        .args(&["/bin/cat", "/proc/self/mountinfo"])
        .user_namespace();
    let mounts = mounts_at(&bundle, "/");
    for (point, kind) in [
        ("/proc", "proc"),
        ("/sys", "sysfs"),
        ("/dev/pts", "devpts"),
        ("/dev/mqueue", "mqueue"),
        ("/dev/shm", "tmpfs"),
    ] {
        let found = mounts.iter().rfind(|mount| mount.point == Path::new(point));
        assert_eq!(found.expect(point).kind, kind, "{point}");
    }
}

#[test]
fn what_cannot_be_mounted_is_refused_by_name() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let here = Path::new("/etc");
    for (entry, field) in [
        (
            bind(Path::new("/not/there"), "/data", &["bind"]),
            "mounts[7].source",
        ),
        (
            bind(Path::new("/etc/passwd/x"), "/data", &["bind"]),
            "mounts[7].source",
        ),
        (
            bind(here, "/data", &["bind", "no-such-option"]),
            "mounts[7].options",
        ),
        (
            bind(here, "/data", &["rbind", "tmpcopyup"]),
            "mounts[7].options",
        ),
        (
            bind(here, "/data", &["bind", "copy-symlink"]),
            "\"copy-symlink\"",
        ),
        (
            tmpfs("/data", &["idmap=uids=0-1-1"]),
            "mounts[7].options[0]",
        ),
        (bind(here, "/", &["rbind"]), "mounts[7].destination"),
        (tmpfs("/", &[]), "mounts[7].destination"),
        (tmpfs("/a/..", &[]), "mounts[7].destination"),
        (tmpfs("/..", &[]), "mounts[7].destination"),
        (tmpfs("", &[]), "mounts[7].destination"),
        (
            json!({"destination": "/data", "source": "/etc"}),
            "mounts[7].type",
        ),
        (
            json!({"destination": "/data", "type": "bind"}),
            "mounts[7].source",
        ),
    ] {
        let bundle = TestBundle::new().mount(entry.clone());
        let output = bundle.run();
        assert!(
            output.one_line_failure().contains(field),
            "{entry}: {output}"
        );
        // Before anything is made: not even the directory of the state's root.
        assert!(!bundle.rootfs().join("data").exists(), "{entry}");
        bundle.assert_nothing_left();
    }
}

/// What is mounted on the root itself would be hidden from the container, which is below it.
#[test]
fn a_destination_that_a_link_leads_to_the_root_is_refused() {
    needs!(is_root(), "needs root");
    gocker_only!();
    for entry in [
        tmpfs("/link", &[]),
        bind(Path::new("/etc"), "/link/etc/..", &["bind"]),
    ] {
        let bundle = TestBundle::new().mount(entry);
        symlink("/", bundle.rootfs().join("link")).expect("symlink");
        let output = bundle.run();
        assert!(
            output.one_line_failure().contains("to the root itself"),
            "{output}"
        );
        bundle.assert_nothing_left();
    }
    // The same directory, mounted elsewhere, is another place.
    let bundle = TestBundle::shell("ls /self; ls / | wc -l");
    let rootfs = bundle.rootfs();
    let bundle = bundle
        .mount(bind(&rootfs, "/self", &["bind"]))
        .mount(tmpfs("/self", &[]));
    let names = bundle.run_ok();
    assert_ne!(names.trim(), "0", "/ is still the rootfs");
    assert_eq!(names.lines().count(), 1, "/self is empty: {names}");
}

#[test]
fn a_mount_label_without_selinux_is_refused_by_name() {
    needs!(is_root(), "needs root");
    gocker_only!();
    needs!(
        !Path::new("/sys/fs/selinux/enforce").exists(),
        "this machine runs SELinux"
    );
    let bundle = TestBundle::new().set("/linux/mountLabel", json!("system_u:object_r:x:s0"));
    let output = bundle.run();
    assert!(
        output.one_line_failure().contains("linux.mountLabel"),
        "{output}"
    );
    bundle.assert_nothing_left();
}

/// Only what lxcfs and the like replace may cover a part of procfs.
#[test]
fn parts_of_proc_are_covered_by_known_files_only() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it allows more");
    let bundle = TestBundle::shell("cat /proc/uptime /proc/meminfo");
    let file = volume(&bundle).join("file");
    let bundle = bundle
        .mount(bind(&file, "/proc/uptime", &["bind"]))
        .mount(bind(&file, "/proc/meminfo", &["bind"]));
    assert_eq!(bundle.run_ok(), "from the volume\nfrom the volume\n");
    for place in [
        "/proc/sys/kernel/hostname",
        "/proc/self/attr/exec",
        "/proc/1/attr",
        "/proc/../proc/version",
    ] {
        let bundle = TestBundle::new();
        let volume = volume(&bundle);
        let source = if place.ends_with("attr") {
            volume
        } else {
            volume.join("file")
        };
        let bundle = bundle.mount(bind(&source, place, &["bind"]));
        let output = bundle.run();
        assert!(
            output.one_line_failure().contains("proc"),
            "{place}: {output}"
        );
        bundle.assert_nothing_left();
    }
}

#[test]
fn a_destination_in_a_loop_of_links_is_an_error() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::new().mount(tmpfs("/loop/x", &[]));
    symlink("loop", bundle.rootfs().join("loop")).expect("symlink");
    bundle.run().one_line_failure();
    bundle.assert_nothing_left();
}

/// The container's own root, and what holds it, may be bound into it.
#[test]
fn a_tree_that_holds_the_destination_is_bound() {
    needs!(is_root(), "needs root");
    let bundle =
        TestBundle::shell("ls /self /around | sort | uniq -c | grep -c .; ls /around/rootfs");
    let (rootfs, path) = (bundle.rootfs(), bundle.path());
    let bundle =
        bundle
            .mount(bind(&rootfs, "/self", &["rbind"]))
            .mount(bind(&path, "/around", &["rbind"]));
    let output = bundle.run_ok();
    assert!(output.contains("bin\n"), "{output}");
}

#[test]
fn masked_directories_share_one_tmpfs() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "Debian's mount one for each");
    let bundle = TestBundle::shell("stat -c %d /a /b /c | sort -u | wc -l; touch /a/x")
        .set("/linux/maskedPaths", json!(["/a", "/b", "/c"]));
    for name in ["a", "b", "c"] {
        fs::create_dir(bundle.rootfs().join(name)).expect("mkdir");
    }
    let output = bundle.run();
    assert_eq!(output.stdout, "1\n", "{output}");
    assert!(output.stderr.contains("ead-only file system"), "{output}");
}

/// config.md#root: wherever it lies and however it is named.
#[test]
fn the_root_may_lie_on_any_file_system_and_be_named_by_a_link() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc, "it refuses a root that is named by a link");
    for kind in ["tmpfs", "overlay"] {
        for options in [[].as_slice(), &["--no-pivot"]] {
            let bundle = TestBundle::shell(
                "cat /marker; touch /written; grep -c ' / / ' /proc/self/mountinfo",
            )
            .set("/root/path", json!("link"));
            let root = bundle.path().join("root");
            fs::create_dir(&root).expect("mkdir");
            symlink("root", bundle.path().join("link")).expect("symlink");
            let scratch = bundle.scratch().join("layers");
            fs::create_dir(&scratch).expect("mkdir");
            let (source, none) = (Some("x"), None::<&str>);
            mount(source, &scratch, Some("tmpfs"), MsFlags::empty(), none).expect("mount");
            for name in ["up", "work"] {
                fs::create_dir(scratch.join(name)).expect("mkdir");
            }
            let layers = format!(
                "lowerdir={},upperdir={},workdir={}",
                bundle.rootfs().display(),
                scratch.join("up").display(),
                scratch.join("work").display()
            );
            let data = Some(layers.as_str()).filter(|_| kind == "overlay");
            mount(source, &root, Some(kind), MsFlags::empty(), data).expect("mount");
            if kind == "tmpfs" {
                conformance::test_bundle::make_rootfs(&root);
            }
            fs::write(root.join("marker"), "found\n").expect("write");
            let output = bundle.container().run(options);
            umount(&root).expect("umount");
            umount(&scratch).expect("umount");
            assert_eq!(output.success(), "found\n1\n", "{kind} {options:?}");
        }
    }
}

/// runc passes such words to the kernel, which passes them over.
#[test]
fn a_bind_mount_takes_no_parameters_of_a_filesystem_and_says_so() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell("ls /mnt");
    fs::write(bundle.scratch().join("seen"), "").expect("write");
    let source = bundle.scratch().to_owned();
    let bundle = bundle.mount(bind(&source, "/mnt", &["bind", "mode=755"]));
    let output = bundle.run();
    assert!(output.success().contains("seen"), "{output}");
    let told = output
        .stderr
        .contains("mounts[7].options: \"mode\" means nothing");
    assert!(told || runtime().kind != Kind::Gocker, "{output}");
}
