//! The root file system that the process sees: config.md#root,
//! config-linux.md#default-filesystems, #default-devices, #masked-paths,
//! #readonly-paths, #rootfs-mount-propagation.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use conformance::host::{CgroupLayout, cgroup_layout, is_root, set_propagation};
use conformance::mount_table::{self, Mount};
use conformance::{Kind, TestBundle, needs, peer_differs};
use nix::mount::MsFlags;
use serde_json::json;

/// The mounts that a process with this bundle sees.
fn mounts_inside(bundle: &TestBundle) -> Vec<Mount> {
    mount_table::parse(bundle.container().run(&[]).success())
}

fn cat_mountinfo() -> TestBundle {
    TestBundle::new().args(&["/bin/cat", "/proc/self/mountinfo"])
}

#[track_caller]
fn at<'m>(mounts: &'m [Mount], point: &str) -> &'m Mount {
    mounts
        .iter()
        .rfind(|mount| mount.point == Path::new(point))
        .unwrap_or_else(|| panic!("nothing is mounted at {point}: {mounts:#?}"))
}

#[test]
fn the_mounts_of_the_config_are_made_with_their_options() {
    needs!(is_root(), "needs root");
    let mounts = mounts_inside(&cat_mountinfo());
    for (point, kind, options) in [
        ("/proc", "proc", ["rw", "relatime"].as_slice()),
        ("/dev", "tmpfs", &["rw", "nosuid"]),
        ("/dev/pts", "devpts", &["rw", "nosuid", "noexec"]),
        ("/dev/shm", "tmpfs", &["rw", "nosuid", "nodev", "noexec"]),
        (
            "/dev/mqueue",
            "mqueue",
            &["rw", "nosuid", "nodev", "noexec"],
        ),
        ("/sys", "sysfs", &["ro", "nosuid", "nodev", "noexec"]),
    ] {
        let mount = at(&mounts, point);
        assert_eq!(mount.kind, kind, "{mount:?}");
        for option in options {
            assert!(mount.has(option), "{option}: {mount:?}");
        }
    }
    assert!(at(&mounts, "/dev").file_system_has("mode=755"));
    assert!(at(&mounts, "/dev").file_system_has("size=65536k"));
    assert!(at(&mounts, "/dev/pts").file_system_has("ptmxmode=666"));
    assert!(at(&mounts, "/dev/pts").file_system_has("gid=5"));
    assert!(
        !at(&mounts, "/dev").has("relatime"),
        "strictatime means no relatime"
    );
}

#[test]
fn cgroups_are_mounted_read_only() {
    needs!(is_root(), "needs root");
    let mounts = mounts_inside(&cat_mountinfo());
    let top = at(&mounts, "/sys/fs/cgroup");
    let all = mounts
        .iter()
        .filter(|mount| mount.point.starts_with("/sys/fs/cgroup"));
    for mount in all {
        // Debian's runc and crun leave the tmpfs above the v1 hierarchies writable.
        if mount.kind == "tmpfs" && conformance::runtime().kind != Kind::Gocker {
            continue;
        }
        assert!(
            mount.has("ro") && mount.has("nosuid") && mount.has("noexec"),
            "{mount:?}"
        );
    }
    match cgroup_layout() {
        CgroupLayout::V2 => assert_eq!(top.kind, "cgroup2"),
        CgroupLayout::V1 => {
            assert_eq!(top.kind, "tmpfs");
            let memory = at(&mounts, "/sys/fs/cgroup/memory");
            assert_eq!(memory.kind, "cgroup");
        }
    }
}

#[test]
fn nothing_of_the_host_is_mounted() {
    needs!(is_root(), "needs root");
    for options in [[].as_slice(), &["--no-pivot"]] {
        let bundle = TestBundle::shell("cat /proc/self/mountinfo; ls -a / >&2");
        let output = bundle.container().run(options);
        let mounts = mount_table::parse(output.success());
        for mount in &mounts {
            let own = ["/", "/proc", "/dev", "/sys"];
            let known = own.iter().any(|&top| {
                mount.point == Path::new(top) || (top != "/" && mount.point.starts_with(top))
            });
            assert!(known, "{options:?}: {mount:?}");
        }
        let mut names: Vec<&str> = output.stderr.split_whitespace().collect();
        names.sort_unstable();
        let expected = [
            ".", "..", "bin", "dev", "etc", "home", "proc", "root", "sys", "tmp",
        ];
        assert_eq!(names, expected, "{options:?}");
    }
}

/// With `--no-pivot` the root is moved and entered by chroot.
#[test]
fn without_pivot_the_root_is_the_rootfs_too() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell("cat /marker; ls /proc/1/root/marker; cd ..; pwd");
    fs::write(bundle.rootfs().join("marker"), "inside\n").expect("write");
    let output = bundle.container().run(&["--no-pivot"]);
    assert_eq!(output.success(), "inside\n/proc/1/root/marker\n/\n");
}

/// config-linux.md#default-devices
#[test]
fn the_default_devices_are_there_and_work() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell(
        "for d in null zero full random urandom tty; do stat -c '%n %F %t:%T %a %u:%g' /dev/$d; done
         echo x > /dev/null && head -c 2 /dev/zero | od -An -tx1 && head -c 9 /dev/urandom | wc -c
         echo x > /dev/full",
    );
    let output = bundle.run();
    let expected = "/dev/null character special file 1:3 666 0:0\n\
                    /dev/zero character special file 1:5 666 0:0\n\
                    /dev/full character special file 1:7 666 0:0\n\
                    /dev/random character special file 1:8 666 0:0\n\
                    /dev/urandom character special file 1:9 666 0:0\n\
                    /dev/tty character special file 5:0 666 0:0\n 00 00\n9\n";
    assert_eq!(output.stdout, expected, "{output}");
    assert!(output.stderr.contains("No space left"), "{output}");
}

/// config-linux.md#dev-symbolic-links
#[test]
fn the_default_links_in_dev_are_there() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell(
        "for l in fd stdin stdout stderr; do readlink /dev/$l; done; echo ok > /dev/stderr
         readlink -f /dev/ptmx",
    );
    let links = "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\n";
    let output = bundle.run();
    assert_eq!(
        output.success(),
        format!("{links}/dev/pts/ptmx\n"),
        "{output}"
    );
    assert_eq!(output.stderr, "ok\n");
}

#[test]
fn a_device_of_the_config_is_made() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell(
        "stat -c '%n %F %t:%T %a %u:%g' /dev/own /dev/deep/er/own /dev/pipe /dev/zero",
    )
    .set(
        "/linux/devices",
        json!([
            {"path": "/dev/own", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640,
             "uid": 7, "gid": 8},
            {"path": "/dev/deep/er/own", "type": "b", "major": 7, "minor": 200, "fileMode": 0o600,
             "uid": 0, "gid": 0},
            {"path": "/dev/pipe", "type": "p", "fileMode": 0o622, "uid": 1, "gid": 2},
            {"path": "/dev/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o600,
             "uid": 3, "gid": 4},
        ]),
    );
    let expected = "/dev/own character special file 1:5 640 7:8\n\
                    /dev/deep/er/own block special file 7:c8 600 0:0\n\
                    /dev/pipe fifo 0:0 622 1:2\n\
                    /dev/zero character special file 1:5 600 3:4\n";
    assert_eq!(bundle.run_ok(), expected);
}

/// config-linux.md#masked-paths
#[test]
fn masked_paths_read_as_empty() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell(
        "cat /secret; ls /secrets; touch /secrets/x; echo x > /secret; cat /secret",
    )
    .set(
        "/linux/maskedPaths",
        json!(["/secret", "/secrets", "/not/there"]),
    );
    fs::write(bundle.rootfs().join("secret"), "secret\n").expect("write");
    fs::create_dir(bundle.rootfs().join("secrets")).expect("mkdir");
    fs::write(bundle.rootfs().join("secrets/file"), "secret\n").expect("write");
    let output = bundle.run();
    assert_eq!(output.success(), "", "{output}");
    assert!(
        output
            .stderr
            .contains("touch: /secrets/x: Read-only file system"),
        "{output}"
    );
    assert_eq!(
        fs::read_to_string(bundle.rootfs().join("secret")).expect("read"),
        "secret\n"
    );
}

/// What lies in what is masked, what is masked twice, and the two ends of a link.
#[test]
fn masked_paths_may_overlap_and_be_links() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell("find /secrets /inside; cat /inside /link").set(
        "/linux/maskedPaths",
        json!([
            "/secrets/deep/file",
            "/secrets/deep",
            "/secrets",
            "/secrets",
            "/link",
            "/inside",
            "/secrets/deep/file",
            "/secrets/not/there"
        ]),
    );
    fs::create_dir_all(bundle.rootfs().join("secrets/deep")).expect("mkdir");
    fs::write(bundle.rootfs().join("secrets/deep/file"), "secret\n").expect("write");
    fs::write(bundle.rootfs().join("inside"), "secret\n").expect("write");
    std::os::unix::fs::symlink("inside", bundle.rootfs().join("link")).expect("symlink");
    assert_eq!(bundle.run_ok(), "/secrets\n/inside\n");
}

/// A file that is not there is left out; a link is not a way out of the rootfs.
#[test]
fn a_masked_path_through_a_link_stays_inside() {
    needs!(is_root(), "needs root");
    let bundle =
        TestBundle::shell("cat /link/secret").set("/linux/maskedPaths", json!(["/link/secret"]));
    let outside = bundle.scratch().join("outside");
    fs::create_dir(&outside).expect("mkdir");
    fs::write(outside.join("secret"), "outside\n").expect("write");
    let inside = bundle
        .rootfs()
        .join(outside.strip_prefix("/").expect("absolute"));
    fs::create_dir_all(&inside).expect("mkdir");
    fs::write(inside.join("secret"), "inside\n").expect("write");
    std::os::unix::fs::symlink(&outside, bundle.rootfs().join("link")).expect("symlink");
    assert_eq!(bundle.run_ok(), "");
}

/// config-linux.md#readonly-paths
#[test]
fn readonly_paths_cannot_be_written() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell(
        "echo x > /file; touch /directory/x; echo 1 > /proc/sys/vm/swappiness; cat /file; echo ok > /free",
    )
    .set("/linux/readonlyPaths", json!(["/file", "/directory", "/proc/sys", "/not/there"]));
    fs::write(bundle.rootfs().join("file"), "kept\n").expect("write");
    fs::create_dir(bundle.rootfs().join("directory")).expect("mkdir");
    let output = bundle.run();
    assert_eq!(output.success(), "kept\n", "{output}");
    assert_eq!(
        output.stderr.matches("ead-only file system").count(),
        3,
        "{output}"
    );
}

/// One in another, one by a link, with a mount below: none of them can be written.
#[test]
fn readonly_paths_may_overlap_and_reach_the_mounts_below() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "the mounts below stay writable");
    let script = "for d in /a /a/b /a/b/mount /real; do touch $d/x && echo $d; done; touch /a-free";
    let bundle = TestBundle::shell(script)
        .mount(json!({"destination": "/a/b/mount", "type": "tmpfs", "source": "tmpfs"}))
        .set(
            "/linux/readonlyPaths",
            json!(["/a/b", "/a", "/link", "/link"]),
        );
    fs::create_dir(bundle.rootfs().join("real")).expect("mkdir");
    std::os::unix::fs::symlink("/real", bundle.rootfs().join("link")).expect("symlink");
    let output = bundle.run();
    assert_eq!(output.success(), "", "{output}");
    assert_eq!(output.stderr.matches("ead-only").count(), 4, "{output}");
}

#[test]
fn readonly_paths_keep_the_other_options_of_their_mount() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it drops them");
    let bundle = cat_mountinfo()
        .mount(
            json!({"destination": "/safe", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "nodev", "noexec"]}),
        )
        .set("/linux/readonlyPaths", json!(["/safe"]));
    let mounts = mounts_inside(&bundle);
    let mount = at(&mounts, "/safe");
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(mount.has(option), "{option}: {mount:?}");
    }
}

/// config.md#root: `readonly`
#[test]
fn a_readonly_root_cannot_be_written_but_its_mounts_can() {
    needs!(is_root(), "needs root");
    for options in [[].as_slice(), &["--no-pivot"]] {
        let bundle = TestBundle::shell("touch /x /tmp/x; touch /dev/shm/x && echo ok")
            .set("/root/readonly", json!(true));
        let output = bundle.container().run(options);
        assert_eq!(output.success(), "ok\n", "{output}");
        assert_eq!(
            output.stderr.matches("Read-only file system").count(),
            2,
            "{output}"
        );
    }
}

#[test]
fn mount_points_are_made_below_a_readonly_root() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell("touch /a/b/c/x && echo ok")
        .set("/root/readonly", json!(true))
        .mount(json!({"destination": "/a/b/c", "type": "tmpfs", "source": "tmpfs"}));
    assert_eq!(bundle.run_ok(), "ok\n");
}

#[test]
fn the_root_may_be_named_absolutely() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell("cat /marker");
    let elsewhere = bundle.scratch().join("elsewhere");
    fs::rename(bundle.rootfs(), &elsewhere).expect("rename");
    fs::write(elsewhere.join("marker"), "elsewhere\n").expect("write");
    let bundle = bundle.set("/root/path", json!(elsewhere));
    assert_eq!(bundle.run_ok(), "elsewhere\n");
}

#[test]
fn a_root_that_only_its_owner_may_enter_is_served() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell("echo ok");
    fs::set_permissions(bundle.scratch(), Permissions::from_mode(0o700)).expect("chmod");
    assert_eq!(bundle.run_ok(), "ok\n");
}

/// config-linux.md#rootfs-mount-propagation
#[test]
fn the_root_has_the_propagation_that_the_config_names() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc, "Debian's sets it before it enters the rootfs");
    for (name, expected) in [
        ("shared", "shared:"),
        ("private", ""),
        ("rshared", "shared:"),
        ("rprivate", ""),
        ("slave", "master:"),
        ("rslave", "master:"),
        ("unbindable", "unbindable"),
        ("runbindable", "unbindable"),
    ] {
        let bundle = cat_mountinfo().set("/linux/rootfsPropagation", json!(name));
        set_propagation(Path::new("/"), MsFlags::MS_SHARED);
        let mounts = mounts_inside(&bundle);
        let root = at(&mounts, "/");
        let found = root.propagation.join(" ");
        assert!(
            if expected.is_empty() {
                found.is_empty()
            } else {
                found.contains(expected)
            },
            "{name}: {found:?}"
        );
        set_propagation(Path::new("/"), MsFlags::MS_PRIVATE);
    }
}

#[test]
fn an_unknown_propagation_is_refused() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "they take it for none");
    let bundle = TestBundle::new().set("/linux/rootfsPropagation", json!("sideways"));
    let output = bundle.run();
    output.one_line_failure();
    bundle.assert_nothing_left();
}

/// Whatever the container mounts, even where the host's mounts are shared,
/// stays with it.
#[test]
fn no_mount_of_the_container_reaches_a_host_whose_mounts_are_shared() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    set_propagation(Path::new("/"), MsFlags::MS_SHARED);
    let before = mount_table::current();
    let container = bundle.running();
    assert_eq!(mount_table::current().len(), before.len());
    drop(container);
    assert_eq!(mount_table::current().len(), before.len());
}
