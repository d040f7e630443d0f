//! The mounts of the config: config.md#mounts, and that none of them is made
//! outside the rootfs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use conformance::host::{is_root, set_propagation};
use conformance::mount_table::{self, Mount};
use conformance::{TestBundle, needs, peer_differs, run_command, wait_until};
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

pub(super) fn bind(source: &Path, destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": "none", "source": source, "options": options})
}

pub(super) fn tmpfs(destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options})
}

/// A directory beside the bundle with one file in it.
pub(super) fn volume(bundle: &TestBundle, name: &str) -> PathBuf {
    let volume = bundle.scratch().join(name);
    fs::create_dir(&volume).expect("mkdir");
    fs::write(volume.join("file"), "from the volume\n").expect("write");
    volume
}

fn mount_tmpfs(point: &Path) {
    mount(
        Some("tmpfs"),
        point,
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .expect("mount");
}

#[track_caller]
pub(super) fn mount_inside(bundle: &TestBundle, point: &str) -> Mount {
    let output = bundle.run();
    let mounts = mount_table::parse(output.success());
    let found = mounts.iter().rfind(|mount| mount.point == Path::new(point));
    found
        .unwrap_or_else(|| panic!("nothing at {point}: {output}"))
        .clone()
}

#[test]
fn options_that_are_no_flags_go_to_the_file_system() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::new()
        .args(&["/bin/cat", "/proc/self/mountinfo"])
        .mount(tmpfs(
            "/mnt",
            &["size=128k", "mode=701", "uid=5", "gid=6", "nr_inodes=30"],
        ));
    let mount = mount_inside(&bundle, "/mnt");
    for option in ["size=128k", "mode=701", "uid=5", "gid=6", "nr_inodes=30"] {
        assert!(mount.file_system_has(option), "{option}: {mount:?}");
    }
}

#[test]
fn an_option_that_the_file_system_does_not_know_is_an_error() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it names the destination without its slash");
    let bundle = TestBundle::new().mount(tmpfs("/mnt", &["no-such-option=1"]));
    let output = bundle.run();
    assert!(output.one_line_failure().contains("/mnt"), "{output}");
    bundle.assert_nothing_left();
}

#[test]
fn a_file_system_that_the_kernel_does_not_know_is_an_error() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it names the destination without its slash");
    let bundle =
        TestBundle::new().mount(json!({"destination": "/mnt", "type": "nosuchfs", "source": "x"}));
    let output = bundle.run();
    assert!(output.one_line_failure().contains("/mnt"), "{output}");
    bundle.assert_nothing_left();
}

#[test]
fn a_directory_is_bound() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell("cat /data/file; echo written > /data/new");
    let volume = volume(&bundle, "volume");
    let bundle = bundle.mount(bind(&volume, "/data", &["bind"]));
    assert_eq!(bundle.run_ok(), "from the volume\n");
    assert_eq!(
        fs::read_to_string(volume.join("new")).expect("read"),
        "written\n"
    );
}

#[test]
fn a_file_is_bound_over_one_that_is_there_and_one_that_is_not() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell("cat /etc/passwd /new/place/file");
    let file = volume(&bundle, "volume").join("file");
    let bundle = bundle
        .mount(bind(&file, "/etc/passwd", &["bind"]))
        .mount(bind(&file, "/new/place/file", &["bind", "ro"]));
    assert_eq!(bundle.run_ok(), "from the volume\nfrom the volume\n");
    assert!(
        fs::metadata(bundle.rootfs().join("new/place/file"))
            .expect("stat")
            .is_file()
    );
    let passwd = fs::read_to_string(bundle.rootfs().join("etc/passwd")).expect("read");
    assert!(passwd.starts_with("root:"), "the file below stays as it is");
}

#[test]
fn a_bind_mount_takes_its_options() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::new().args(&["/bin/cat", "/proc/self/mountinfo"]);
    let volume = volume(&bundle, "volume");
    let bundle = bundle.mount(bind(
        &volume,
        "/data",
        &["bind", "ro", "nosuid", "nodev", "noexec"],
    ));
    let mount = mount_inside(&bundle, "/data");
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(mount.has(option), "{option}: {mount:?}");
    }
}

/// The options that a source already has must survive: in a user namespace
/// they could not be taken away at all.
#[test]
fn a_read_only_bind_keeps_the_options_of_its_source() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "newer ones only");
    let bundle = TestBundle::new().args(&["/bin/cat", "/proc/self/mountinfo"]);
    let volume = volume(&bundle, "volume");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), &volume, Some("tmpfs"), flags, None::<&str>).expect("mount");
    let bundle = bundle
        .mount(bind(&volume, "/data", &["bind", "ro"]))
        .user_namespace();
    let output = bundle.run();
    nix::mount::umount(&volume).expect("umount");
    let mounts = mount_table::parse(output.success());
    let mount = mounts
        .iter()
        .find(|mount| mount.point == Path::new("/data"))
        .expect("/data");
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(mount.has(option), "{option}: {mount:?}");
    }
}

#[test]
fn bind_takes_one_mount_and_rbind_the_whole_tree() {
    needs!(is_root(), "needs root");
    for (option, expected) in [("bind", ""), ("rbind", "deep\n")] {
        let bundle = TestBundle::shell("ls /data/sub");
        let volume = volume(&bundle, "volume");
        fs::create_dir(volume.join("sub")).expect("mkdir");
        mount_tmpfs(&volume.join("sub"));
        fs::write(volume.join("sub/deep"), "").expect("write");
        let bundle = bundle.mount(bind(&volume, "/data", &[option]));
        let output = bundle.run();
        nix::mount::umount(&volume.join("sub")).expect("umount");
        assert_eq!(output.success(), expected, "{option}");
    }
}

/// `rro` and the like: what containerd looks for in `features`.
#[test]
fn recursive_options_reach_the_mounts_below() {
    needs!(is_root(), "needs root");
    for (option, expected) in [("ro", false), ("rro", true), ("rnosuid", false)] {
        let bundle = TestBundle::shell("touch /data/x; touch /data/sub/x");
        let volume = volume(&bundle, "volume");
        fs::create_dir(volume.join("sub")).expect("mkdir");
        mount_tmpfs(&volume.join("sub"));
        let bundle = bundle.mount(bind(&volume, "/data", &["rbind", option]));
        let output = bundle.run();
        let written = volume.join("sub/x").exists();
        nix::mount::umount(&volume.join("sub")).expect("umount");
        assert_eq!(written, !expected, "{option}: {output}");
        assert_eq!(
            volume.join("x").exists(),
            option == "rnosuid",
            "{option}: {output}"
        );
    }
}

#[test]
fn a_relative_source_is_relative_to_the_bundle() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell("cat /data/file");
    fs::create_dir(bundle.path().join("volume")).expect("mkdir");
    fs::write(bundle.path().join("volume/file"), "relative\n").expect("write");
    let bundle = bundle.mount(bind(Path::new("volume"), "/data", &["bind"]));
    assert_eq!(bundle.run_ok(), "relative\n");
}

#[test]
fn a_missing_source_is_named() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::new();
    let missing = bundle.scratch().join("missing");
    let bundle = bundle.mount(bind(&missing, "/data", &["bind"]));
    let output = bundle.run();
    assert!(
        output
            .one_line_failure()
            .contains(missing.to_str().expect("a path")),
        "{output}"
    );
    bundle.assert_nothing_left();
    assert!(!missing.exists());
}

#[test]
fn mounts_are_made_in_the_order_of_the_config() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell("cat /a/b/file; ls /c");
    let volume = volume(&bundle, "volume");
    let bundle = bundle
        .mount(tmpfs("/a", &[]))
        .mount(bind(&volume, "/a/b", &["bind"]))
        .mount(bind(&volume, "/c", &["bind"]))
        .mount(tmpfs("/c", &[]));
    assert_eq!(bundle.run_ok(), "from the volume\n");
    assert!(
        !bundle.rootfs().join("a/b").exists(),
        "/a/b is made in the tmpfs"
    );
}

/// config.md#mounts: a missing destination is made, and only inside.
#[test]
fn a_destination_through_a_link_stays_inside_the_rootfs() {
    needs!(is_root(), "needs root");
    for up in ["", "/..", "/../../../../../../.."] {
        let bundle = TestBundle::shell("cat /link/new/file");
        let volume = volume(&bundle, "volume");
        let outside = bundle.scratch().join("outside");
        fs::create_dir(&outside).expect("mkdir");
        let target = format!("{up}{}", outside.display());
        symlink(&target, bundle.rootfs().join("link")).expect("symlink");
        let bundle = bundle.mount(bind(&volume, "/link/new", &["bind"]));
        let output = bundle.run();
        // Made inside, or refused; never made outside.
        assert!(
            fs::read_dir(&outside).expect("read").next().is_none(),
            "{output}"
        );
        if output.code() == 0 {
            assert_eq!(output.stdout, "from the volume\n");
        } else {
            output.one_line_failure();
        }
        bundle.assert_nothing_left();
    }
}

#[test]
fn a_destination_that_climbs_stays_inside_the_rootfs() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell("cat /escaped/file");
    let volume = volume(&bundle, "volume");
    let bundle = bundle.mount(bind(&volume, "/../../escaped", &["bind"]));
    let output = bundle.run();
    assert!(!bundle.path().join("escaped").exists(), "{output}");
    assert!(!bundle.scratch().join("escaped").exists(), "{output}");
    if output.code() == 0 {
        assert_eq!(output.stdout, "from the volume\n");
    } else {
        output.one_line_failure();
    }
    bundle.assert_nothing_left();
}

/// Mounts on a shared volume, made on either side once the container runs.
#[test]
fn a_volume_propagates_mounts_as_its_option_says() {
    needs!(is_root(), "needs root");
    for (option, to_container, to_host) in [
        ("rprivate", false, false),
        ("rslave", true, false),
        ("rshared", true, true),
    ] {
        let bundle = TestBundle::sleeper();
        let volume = volume(&bundle, "volume");
        for name in ["by-host", "by-container"] {
            fs::create_dir(volume.join(name)).expect("mkdir");
        }
        mount(
            Some(&volume),
            &volume,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .expect("bind");
        set_propagation(&volume, MsFlags::MS_SHARED);
        let bundle = bundle
            .mount(bind(&volume, "/data", &["rbind", option]))
            .set("/linux/rootfsPropagation", json!(option));
        {
            let container = bundle.running();
            mount_tmpfs(&volume.join("by-host"));
            let pid = container.pid().to_string();
            run_command(Command::new("nsenter").args([
                "-t",
                &pid,
                "-m",
                "mount",
                "-t",
                "tmpfs",
                "tmpfs",
                "/data/by-container",
            ]))
            .success();
            let seen = |point: &str| {
                let mounts = mount_table::parse(&container.proc_file("mountinfo"));
                mounts.iter().any(|mount| mount.point == Path::new(point))
            };
            assert!(seen("/data/by-container"), "{option}");
            assert_eq!(
                seen("/data/by-host"),
                to_container,
                "{option}: host to container"
            );
        }
        let by_container = volume.join("by-container");
        let here = mount_table::current()
            .iter()
            .any(|mount| mount.point == by_container);
        conformance::leftovers::remove_mounts(&volume);
        assert_eq!(here, to_host, "{option}: container to host");
    }
}

#[test]
fn a_bind_mount_may_be_unbindable() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it forgets it");
    let bundle = TestBundle::new().args(&["/bin/cat", "/proc/self/mountinfo"]);
    let volume = volume(&bundle, "volume");
    let bundle = bundle.mount(bind(&volume, "/data", &["bind", "unbindable"]));
    let mount = mount_inside(&bundle, "/data");
    assert!(
        mount.propagation.iter().any(|word| word == "unbindable"),
        "{mount:?}"
    );
}

/// With a cgroup namespace and without: on v1 its own cgroup is the top of what a container sees,
/// on v2 without the namespace it lies where /proc says.
#[test]
fn the_cgroup_mount_shows_the_own_cgroup() {
    needs!(is_root(), "needs root");
    let script = "own=$(sed -n 's/^0:://p' /proc/self/cgroup)
        [ -e /sys/fs/cgroup/memory ] && own=memory
        grep -x 1 /sys/fs/cgroup/$own/cgroup.procs; mkdir /sys/fs/cgroup/$own/new";
    for namespace in [None, Some(json!({"type": "cgroup"}))] {
        let bundle = TestBundle::shell(script).namespace("cgroup", namespace.clone());
        let output = bundle.run();
        assert_eq!(output.stdout, "1\n", "{namespace:?}: {output}");
        assert!(output.stderr.contains("Read-only"), "{output}");
    }
}

#[test]
fn in_a_cgroup_namespace_the_own_cgroup_is_the_root() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell("cat /proc/self/cgroup")
        .namespace("cgroup", Some(json!({"type": "cgroup"})));
    for line in bundle
        .run_ok()
        .lines()
        .filter(|line| !line.starts_with("0::"))
    {
        assert!(line.ends_with(":/"), "{line}");
    }
}

#[test]
fn a_mount_over_the_root_stays_in_the_container() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::new().mount(tmpfs("/", &[]));
    let output = bundle.run();
    if output.code() != 0 {
        output.one_line_failure();
    }
    bundle.assert_nothing_left();
}

/// config.md#mounts: a relative destination is deprecated, and one from the root.
#[test]
fn a_relative_destination_is_taken_from_the_root() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it takes the bundle's directory");
    let bundle = TestBundle::shell("touch /rel/ative/x && cat /proc/self/mountinfo")
        .mount(tmpfs("rel/ative", &[]));
    assert_eq!(mount_inside(&bundle, "/rel/ative").kind, "tmpfs");
}

/// An extension of runc's, which Podman asks for with each read-only container.
#[test]
fn tmpcopyup_fills_a_new_tmpfs_with_what_it_hides() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it keeps the mode of the new file system");
    let bundle = TestBundle::shell("cat /data/file; stat -c %a /data; echo x > /data/new")
        .mount(tmpfs("/data", &["tmpcopyup"]));
    let data = bundle.rootfs().join("data");
    fs::create_dir(&data).expect("mkdir");
    fs::write(data.join("file"), "copied\n").expect("write");
    assert_eq!(bundle.run_ok(), "copied\n755\n");
    assert!(!data.join("new").exists());
}

#[test]
fn a_container_that_joins_no_mount_namespace_keeps_its_mounts_until_it_ends() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper().mount(tmpfs("/mnt", &[]));
    let container = bundle.running();
    assert!(container.proc_file("mountinfo").contains(" /mnt "));
    container.kill("KILL").success();
    container.wait_for("stopped");
    let gone = || conformance::leftovers::mounts(bundle.scratch()).is_empty();
    assert!(wait_until(Duration::from_secs(5), gone));
}
