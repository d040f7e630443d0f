//! The nodes of `linux.devices` and of every container, wherever something is in their way:
//! config-linux.md#devices, #default-devices, runtime-linux.md#dev-symbolic-links.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;

use conformance::host::is_root;
use conformance::{TestBundle, gocker_only, needs, peer_differs};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;
use serde_json::{Value, json};

fn zero(path: &str) -> Value {
    json!({"path": path, "type": "c", "major": 1, "minor": 5})
}

/// A bundle with these devices and this script.
fn with_devices(script: &str, devices: &[Value]) -> TestBundle {
    TestBundle::shell(script).set("/linux/devices", json!(devices))
}

/// The same with the image's own /dev, which no tmpfs hides.
fn on_own_dev(bundle: TestBundle) -> TestBundle {
    bundle.edit(|config| {
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|mount| mount["destination"] != "/dev");
    })
}

#[track_caller]
fn refuses(bundle: &TestBundle, words: &[&str]) {
    let output = bundle.run();
    let line = output.one_line_failure();
    assert!(words.iter().all(|word| line.contains(word)), "{output}");
    bundle.assert_nothing_left();
}

#[test]
fn every_type_of_node_is_made_wherever_it_is_wanted() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it sets another mode where none is given");
    let script = "stat -c '%n %F %t:%T %a %u:%g' /dev/u /srv/new/deep/c /dev/b /p /dev/plain";
    let bundle = with_devices(
        script,
        &[
            json!({"path": "/dev/u", "type": "u", "major": 1, "minor": 9, "fileMode": 0o604}),
            json!({"path": "/srv/new/deep/c", "type": "c", "major": 4095, "minor": 1_048_575,
                "fileMode": 0o400, "uid": 12, "gid": 34}),
            // As engines send it: with the bits of the type.
            json!({"path": "/dev/b", "type": "b", "major": 7, "minor": 0, "fileMode": 0o60_640}),
            json!({"path": "/p", "type": "p", "fileMode": 0o1622, "uid": 5}),
            json!({"path": "/dev/plain", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666}),
        ],
    );
    let expected = "/dev/u character special file 1:9 604 0:0\n\
                    /srv/new/deep/c character special file fff:fffff 400 12:34\n\
                    /dev/b block special file 7:0 640 0:0\n\
                    /p fifo 0:0 1622 5:0\n\
                    /dev/plain character special file 1:3 666 0:0\n";
    assert_eq!(bundle.run_ok(), expected);
}

#[test]
fn what_is_no_device_is_refused_by_its_field_before_anything_is_made() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let node = |kind: &str, major: i64, minor: i64| json!({"path": "/new/x", "type": kind, "major": major, "minor": minor});
    for (device, field) in [
        (node("c", 4096, 0), "linux.devices[1].major"),
        (node("c", 1, 1_048_576), "linux.devices[1].minor"),
        (node("b", -1, 0), "linux.devices[1].major"),
        (node("c", 0, 0), "linux.devices[1].major"),
        (node("a", 1, 3), "linux.devices[1].type"),
        (zero("dev/relative"), "linux.devices[1].path"),
        (zero("/dev/first"), "linux.devices[1].path"),
    ] {
        let bundle = with_devices("true", &[zero("/dev/first"), device]);
        refuses(&bundle, &[field]);
        assert!(!bundle.rootfs().join("new").exists());
    }
}

/// In a user namespace nobody makes nodes: the host's is bound, if it is the one that was meant.
#[test]
fn in_a_user_namespace_the_hosts_node_is_bound_if_it_is_the_same() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "they bind whatever has the name");
    let script = "stat -c '%F %t:%T' /dev/zero /dev/full; head -c 1 /dev/zero | wc -c
         stat -c '%F %a %u:%g' /dev/pipe";
    let pipe = json!({"path": "/dev/pipe", "type": "p", "fileMode": 0o640, "uid": 3, "gid": 4});
    let bundle = with_devices(script, &[zero("/dev/zero"), pipe]).user_namespace();
    let expected = "character special file 1:5\ncharacter special file 1:7\n1\nfifo 640 3:4\n";
    assert_eq!(bundle.run_ok(), expected);

    let other = |kind: &str, major: u32| json!({"path": "/dev/full", "type": kind, "major": major, "minor": 7});
    for (device, why) in [
        (other("c", 4), "is not the character device 4:7"),
        (other("b", 1), "is not the block device 1:7"),
        (zero("/dev/not-there"), "no such file or directory"),
    ] {
        let bundle = with_devices("true", &[zero("/dev/zero"), device]).user_namespace();
        refuses(&bundle, &["linux.devices[1]", why]);
    }
}

#[test]
fn a_node_that_is_there_already_is_kept_and_anything_else_is_in_the_way() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "they keep whatever is there");
    let there = |make: &dyn Fn(&Path)| {
        let bundle = with_devices("head -c 1 /dev/own | wc -c", &[zero("/dev/own")]);
        make(&bundle.rootfs().join("dev/own"));
        on_own_dev(bundle)
    };
    let character = |number| {
        move |path: &Path| {
            mknod(path, SFlag::S_IFCHR, Mode::S_IRUSR, number).expect("mknod");
        }
    };
    assert_eq!(there(&character(makedev(1, 5))).run_ok(), "1\n");
    let file = |path: &Path| drop(File::create(path).expect("create"));
    let directory = |path: &Path| fs::create_dir(path).expect("mkdir");
    let pipe = |path: &Path| mkfifo(path, Mode::S_IRWXU).expect("mkfifo");
    let link = |path: &Path| symlink("/dev/zero", path).expect("symlink");
    let all: [&dyn Fn(&Path); 5] = [&character(makedev(1, 3)), &file, &directory, &pipe, &link];
    for make in all {
        refuses(&there(make), &["linux.devices[0]", "file exists"]);
    }
}

/// A node is bound on a file that is there; not through a link, and not on a pipe, whose
/// opening would wait for ever.
#[test]
fn what_is_in_the_way_of_a_bound_node_is_neither_followed_nor_opened() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "they open what is there");
    let there = |make: &dyn Fn(&Path)| {
        let bundle = with_devices("head -c 1 /dev/zero | wc -c", &[zero("/dev/zero")]);
        make(&bundle.rootfs().join("dev/zero"));
        on_own_dev(bundle).user_namespace()
    };
    let file = |path: &Path| drop(File::create(path).expect("create"));
    assert_eq!(there(&file).run_ok(), "1\n");
    let pipe = |path: &Path| mkfifo(path, Mode::S_IRWXU).expect("mkfifo");
    let link = |path: &Path| symlink("/etc/passwd", path).expect("symlink");
    let directory = |path: &Path| fs::create_dir(path).expect("mkdir");
    let all: [&dyn Fn(&Path); 3] = [&pipe, &link, &directory];
    for make in all {
        refuses(&there(make), &["linux.devices[0]"]);
    }
}

#[test]
fn the_directory_of_a_node_may_be_a_link_inside_the_rootfs() {
    needs!(is_root(), "needs root");
    let bundle = with_devices("stat -c %t:%T /real/sub/own", &[zero("/link/sub/own")]);
    fs::create_dir(bundle.rootfs().join("real")).expect("mkdir");
    symlink("../../../real", bundle.rootfs().join("link")).expect("symlink");
    assert_eq!(bundle.run_ok(), "1:5\n");
}

/// With the host's /dev bound nothing is made in it.
#[test]
fn a_dev_that_is_bound_from_the_host_is_left_as_it_is() {
    needs!(is_root(), "needs root");
    let bundle = with_devices("ls /dev", &[]);
    let dev = bundle.scratch().join("dev");
    fs::create_dir(&dev).expect("mkdir");
    // runc and crun cannot do without it.
    mknod(
        &dev.join("null"),
        SFlag::S_IFCHR,
        Mode::all(),
        makedev(1, 3),
    )
    .expect("mknod");
    let bundle = bundle.edit(|config| {
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|mount| {
            let place = mount["destination"].as_str().expect("a path");
            !place.starts_with("/dev")
        });
        mounts.push(
            json!({"destination": "/dev", "type": "bind", "source": dev, "options": ["rbind"]}),
        );
    });
    assert_eq!(bundle.run_ok(), "null\n");
    let names: Vec<_> = fs::read_dir(&dev).expect("read").flatten().collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

/// Exactly what the specification lists, and what the configuration mounts.
#[test]
fn dev_holds_the_default_nodes_and_links_and_no_console_without_a_terminal() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it makes a console always");
    let bundle = TestBundle::shell("cd /dev; for name in *; do echo $name; done | sort");
    let core = if Path::new("/proc/kcore").exists() {
        "core\n"
    } else {
        ""
    };
    let expected = format!(
        "{core}fd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n"
    );
    assert_eq!(bundle.run_ok(), expected);
}
