//! Namespaces and mappings that cannot be had are refused by name, before anything is made:
//! config-linux.md#namespaces, #user-namespace-mappings.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use conformance::host::{enter_private_mounts, is_root};
use conformance::namespaces::{Holder, KINDS, path_of};
use conformance::{TestBundle, gocker_only, needs, peer_differs, run_command};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};

/// A bundle whose last namespace is this one. One with a user namespace has no mappings.
fn joining(kind: &str, path: &Path) -> TestBundle {
    let bundle = TestBundle::shell("echo ran").edit(|config| {
        config
            .as_object_mut()
            .expect("an object")
            .remove("hostname");
    });
    bundle.namespace(kind, Some(json!({"type": kind, "path": path})))
}

/// How errors name the last entry of the list.
fn field(bundle: &TestBundle, name: &str) -> String {
    let all = bundle.config()["linux"]["namespaces"].as_array();
    let last = all.expect("namespaces").len() - 1;
    format!("linux.namespaces[{last}].{name}: ")
}

#[test]
fn a_namespace_of_another_kind_is_refused_for_every_kind() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "Debian's do not know all kinds");
    let others = KINDS.iter().cycle().skip(1);
    for ((kind, _), (other, _)) in KINDS.iter().zip(others) {
        let path = path_of("self", other);
        let bundle = joining(kind, Path::new(&path));
        let why = format!("{path:?} is a {other} namespace, not a {kind} namespace");
        bundle.assert_refused(&[&field(&bundle, "path"), &why]);
    }
}

/// A fifo without a writer is not waited for, and nothing that a device does when it is opened is
/// done.
#[test]
fn a_path_that_is_no_namespace_is_refused() {
    needs!(is_root(), "needs root");
    let places = TestBundle::new();
    let place = |name: &str| places.scratch().join(name);
    fs::write(place("file"), "").expect("write");
    mkfifo(&place("fifo"), Mode::from_bits_truncate(0o644)).expect("make a fifo");
    let _listener = UnixListener::bind(place("socket")).expect("bind");
    symlink(place("nowhere"), place("dangling")).expect("link");
    symlink(place("loop"), place("loop")).expect("link");
    symlink(place("file"), place("link")).expect("link");
    let is_none = "is not a namespace";
    let missing = "no such file or directory";
    let cases = [
        (place("file"), is_none),
        (place("fifo"), is_none),
        (place("socket"), is_none),
        (place("link"), is_none),
        (places.rootfs(), is_none),
        ("/dev/null".into(), is_none),
        ("/proc/self/status".into(), is_none),
        (place("nowhere"), missing),
        (place("dangling"), missing),
        (place("file").join("below"), "not a directory"),
        (place("loop"), "too many symbolic links"),
    ];
    for ((path, why), kind) in cases
        .iter()
        .zip(["network", "ipc", "uts", "pid"].iter().cycle())
    {
        // runc opens it, and waits for somebody to write.
        if path.ends_with("fifo") {
            peer_differs!(Runc | Crun, "they wait for a writer of the fifo");
        }
        let bundle = joining(kind, path);
        bundle.assert_refused(&[&field(&bundle, "path"), &format!("{path:?}"), why]);
    }
}

#[test]
fn a_relative_path_is_refused() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it takes it from where it was started");
    let bundle = joining("network", Path::new("proc/self/ns/net"));
    bundle.assert_refused(&[&field(&bundle, "path"), "is not an absolute path"]);
}

#[test]
fn a_link_to_a_namespace_is_followed() {
    needs!(is_root(), "needs root");
    let first = TestBundle::sleeper();
    let pod = first.running();
    let link = first.scratch().join("link");
    symlink(path_of(&pod.pid().to_string(), "network"), &link).expect("link");
    let entry = json!({"type": "network", "path": link});
    let second = TestBundle::sleeper().namespace("network", Some(entry));
    assert_eq!(
        second.running().namespace("network"),
        pod.namespace("network")
    );
}

#[test]
fn every_kind_is_refused_the_second_time() {
    needs!(is_root(), "needs root");
    gocker_only!();
    for (kind, _) in KINDS {
        let joined = json!({"type": kind, "path": path_of("self", kind)});
        for again in [json!({"type": kind}), joined] {
            let bundle = TestBundle::new().user_namespace();
            let bundle = bundle.namespace(kind, Some(json!({"type": kind})));
            let bundle = bundle.edit(|config| {
                let all = config["linux"]["namespaces"].as_array_mut();
                all.expect("namespaces").push(again);
            });
            bundle.assert_refused(&[&field(&bundle, "type"), "is given twice"]);
        }
    }
}

/// The root of every process in it would become the container's: the host's, too.
#[test]
fn the_mount_namespace_of_the_runtime_is_not_joined() {
    needs!(is_root(), "needs root");
    gocker_only!();
    enter_private_mounts();
    let before = fs::read_to_string("/proc/thread-self/mountinfo").expect("mounts");
    let bundle = joining("mount", Path::new("/proc/self/ns/mnt"));
    bundle.assert_refused(&[&field(&bundle, "path"), "leave the entry out"]);
    let after = fs::read_to_string("/proc/thread-self/mountinfo").expect("mounts");
    assert_eq!(after, before);
}

#[test]
fn the_mount_namespace_of_the_first_process_is_not_joined() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = joining("mount", Path::new("/proc/1/ns/mnt"));
    let runtime = bundle.runtime();
    // Of a machine of its own, for the sake of the one that the test runs on.
    let mut command = std::process::Command::new("unshare");
    command.args([
        "--pid",
        "--mount-proc",
        "--fork",
        "--kill-child",
        "sh",
        "-c",
    ]);
    command.args(["unshare --mount \"$@\"; exit $?", "sh"]);
    command.arg(runtime.get_program()).args(runtime.get_args());
    command.args(["run", "--bundle"]).arg(bundle.path());
    let output = run_command(command.arg(bundle.id()));
    let line = output.one_line_failure();
    assert!(line.contains(&field(&bundle, "path")), "{output}");
    assert!(line.contains("leave the entry out"), "{output}");
}

#[test]
fn a_mount_namespace_that_a_new_user_namespace_does_not_own_cannot_be_mounted_in() {
    needs!(is_root(), "needs root");
    let holder = Holder::new(&["unshare", "--mount", "sleep", "1000"]);
    let bundle = joining("mount", Path::new(&path_of(&holder.pid(), "mount"))).user_namespace();
    bundle.assert_refused(&["(EPERM)"]);
    let root = fs::read_link(format!("/proc/{}/root", holder.pid())).expect("a root");
    assert_eq!(root, Path::new("/"));
}

#[test]
fn a_pid_namespace_whose_first_process_has_ended_is_refused() {
    needs!(is_root(), "needs root");
    enter_private_mounts();
    let places = TestBundle::new();
    let path = places.scratch().join("pid");
    fs::write(&path, "").expect("write");
    let mut unshare = std::process::Command::new("unshare");
    unshare.arg(format!("--pid={}", path.display()));
    run_command(unshare.args(["--fork", "true"])).success();
    let bundle = joining("pid", &path);
    let words = [
        &field(&bundle, "path"),
        "first process has ended",
        "(ENOMEM)",
    ];
    bundle.assert_refused(&words);
    // Root in a new user namespace, and with a process in between.
    for more in [
        None,
        Some(json!({"type": "network", "path": "/proc/self/ns/net"})),
    ] {
        let bundle = joining("pid", &path).user_namespace();
        let bundle = match more {
            Some(entry) => bundle.namespace("network", Some(entry)),
            None => bundle,
        };
        bundle.assert_refused(&["].path: ", "first process has ended"]);
    }
    umount2(&path, MntFlags::MNT_DETACH).expect("unmount");
}

#[test]
fn a_user_namespace_without_a_root_is_refused() {
    needs!(is_root(), "needs root");
    let holder = Holder::new(&["unshare", "--user", "sleep", "1000"]);
    let bundle = joining("user", Path::new(&path_of(&holder.pid(), "user")));
    bundle.assert_refused(&["take root's ids in user namespace", "(EINVAL)"]);
}

fn mapped(field: &str, value: Value) -> TestBundle {
    TestBundle::shell("echo ran")
        .user_namespace()
        .set(&format!("/linux/{field}"), value)
}

fn line(inside: u64, outside: u64, size: u64) -> Value {
    json!({"containerID": inside, "hostID": outside, "size": size})
}

/// `count` mappings of one id each, none of which goes on where another ends.
fn lines(count: u64, outside: u64) -> Value {
    let line = |at| line(2 * at, outside + 2 * at, 1);
    (0..count).map(line).collect()
}

#[test]
fn mappings_that_cannot_be_are_refused_by_name() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let last = u64::from(u32::MAX);
    for name in ["uidMappings", "gidMappings"] {
        let all = format!("linux.{name}: ");
        let first = format!("linux.{name}[0]");
        let second = format!("linux.{name}[1]");
        let cases: &[(Value, &[&str])] = &[
            (json!([line(0, 100_000, 0)]), &[&first, "size is 0"]),
            (json!([line(0, last, 1)]), &[&first, "pass the last id"]),
            (json!([line(0, 1, last)]), &[&first, "pass the last id"]),
            (
                json!([line(0, 100_000, 10), line(last - 5, 200_000, 6)]),
                &[&second, "pass the last id"],
            ),
            (
                json!([line(0, 100_000, 10), line(9, 200_000, 1)]),
                &[&second, "overlaps with entry 0"],
            ),
            (
                json!([line(0, 100_000, 10), line(10, 100_009, 1)]),
                &[&second, "overlaps with entry 0"],
            ),
            (lines(341, 0), &[&all, "341 entries, the kernel takes 340"]),
            // Their text is what the kernel takes at most a page of.
            (
                lines(340, 100_000),
                &[&all, "bytes", "the kernel takes 4095"],
            ),
            (json!([line(last + 1, 100_000, 1)]), &[name, "4294967296"]),
            (json!([line(0, last + 1, 1)]), &[name, "4294967296"]),
            (json!([line(0, 100_000, last + 1)]), &[name, "4294967296"]),
            (
                json!([{"containerID": -1, "hostID": 100_000, "size": 1}]),
                &[name, "-1"],
            ),
            (
                json!([{"containerID": 0, "hostID": 100_000}]),
                &[name, "size"],
            ),
            (json!({"0": "100000"}), &[name]),
        ];
        for (value, words) in cases {
            mapped(name, value.clone()).assert_refused(words);
        }
    }
}

#[test]
fn as_many_mappings_as_the_kernel_takes_are_served() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell("wc -l < /proc/self/uid_map; wc -l < /proc/self/gid_map")
        .namespace("user", Some(json!({"type": "user"})))
        .set("/linux/uidMappings", lines(340, 0))
        .set("/linux/gidMappings", lines(340, 0))
        .edit(|config| {
            let mounts = config["mounts"].as_array_mut().expect("mounts");
            // It names group 5, which the mappings leave out.
            mounts.retain(|mount| mount["destination"] != "/dev/pts");
        });
    assert_eq!(bundle.run_ok(), "340\n340\n");
}
