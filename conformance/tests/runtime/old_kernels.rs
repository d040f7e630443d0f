//! Kernels back to Linux 5.4, and seccomp filters of engines around the runtime that are older
//! still: what a container gets is the same.

use std::fs;
use std::path::{Path, PathBuf};

use conformance::host::is_root;
use conformance::mount_table::{self, Mount};
use conformance::old_kernel::{
    Answer, CLONE3, CLOSE_RANGE, MOUNT_API, MOUNT_SETATTR, OPENAT2, as_on_5_4, newer_calls, without,
};
use conformance::{Output, TestBundle, gocker_only, needs};
use nix::mount::{MsFlags, mount};
use serde_json::json;

use super::console::{run_in_script, with_terminal};

/// A container that uses most of what is about mounts, and tells what it sees.
fn demanding() -> TestBundle {
    let script = "cat /proc/self/mountinfo; echo ==; cat /etc/bound /volume/file /copied/file
        stat -c '%n %F %t:%T %a %u:%g' /dev/null /dev/full /dev/fd; cat /masked-file; ls /masked; pwd; cat /link/there
        touch /volume/x /volume/sub/x /x /copied/x /sealed/x /protected/x; id -u";
    let bundle = TestBundle::shell(script);
    let volume = fill(&bundle);
    let bind = |destination: &str, source: &Path, options: &[&str]| json!({"destination": destination, "type": "bind", "source": source, "options": options});
    let tmpfs = |destination: &str, options: &[&str]| json!({"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options});
    bundle
        .mount(bind(
            "/etc/bound",
            &volume.join("file"),
            &["bind", "ro", "noexec"],
        ))
        .mount(bind(
            "/volume",
            &volume,
            &["rbind", "rro", "nosuid", "rslave"],
        ))
        .mount(bind("/link/there", &volume.join("file"), &["bind"]))
        .mount(tmpfs(
            "/copied",
            &["tmpcopyup", "size=1m", "noatime", "nodiratime"],
        ))
        .mount(tmpfs(
            "/sealed",
            &["ro", "mode=751", "strictatime", "unbindable"],
        ))
        .mount(tmpfs("/protected/below", &["nosymfollow", "dirsync"]))
        .set(
            "/linux/maskedPaths",
            json!(["/masked", "/masked-too", "/masked-file", "/proc/kcore"]),
        )
        .set("/linux/readonlyPaths", json!(["/protected", "/proc/sys"]))
        .set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}))
        .set(
            "/linux/devices",
            json!([{"path": "/dev/full", "type": "c", "major": 1, "minor": 7, "fileMode": 0o640}]),
        )
        .set("/root/readonly", json!(true))
        .set("/process/cwd", json!("/new/working/directory"))
}

/// A volume with a mount in it, and what the container masks, copies and protects.
fn fill(bundle: &TestBundle) -> PathBuf {
    let volume = bundle.scratch().join("volume");
    fs::create_dir_all(volume.join("sub")).expect("mkdir");
    fs::write(volume.join("file"), "of the volume\n").expect("write");
    for name in [
        "masked",
        "masked-too",
        "protected/below",
        "copied",
        "real/deep",
    ] {
        fs::create_dir_all(bundle.rootfs().join(name)).expect("mkdir");
    }
    fs::write(bundle.rootfs().join("masked/secret"), "").expect("write");
    fs::write(bundle.rootfs().join("masked-file"), "secret\n").expect("write");
    fs::write(bundle.rootfs().join("copied/file"), "copied\n").expect("write");
    std::os::unix::fs::symlink("../../../real/deep", bundle.rootfs().join("link")).expect("link");
    let kind = Some("tmpfs");
    mount(
        kind,
        &volume.join("sub"),
        kind,
        MsFlags::MS_NOSUID,
        None::<&str>,
    )
    .expect("mount");
    volume
}

/// What was told, without what differs from container to container.
fn told(text: &str) -> (Vec<Mount>, String) {
    let (table, rest) = text.split_once("==\n").expect("a table and the rest");
    let mut mounts = mount_table::parse(table);
    for mount in &mut mounts {
        mount
            .propagation
            .retain(|word| !word.starts_with("master:"));
        // mount(2) makes the file system read-only with its mount.
        mount
            .super_options
            .retain(|word| word != "ro" && word != "rw");
    }
    // The order is that of being made, which is nobody's affair.
    mounts.sort_by(|a, b| a.point.cmp(&b.point));
    (mounts, rest.to_owned())
}

/// Compares what two containers told.
#[track_caller]
fn compare(what: &str, output: &Output, expected: &Output) {
    let (mounts, rest) = told(output.success());
    let (all, expected_rest) = told(expected.success());
    assert_eq!(rest, expected_rest, "{what}");
    assert_eq!(output.stderr, expected.stderr, "{what}");
    for (mount, expected) in mounts.iter().zip(&all) {
        assert_eq!(mount, expected, "{what}");
    }
    assert_eq!(mounts.len(), all.len(), "{what}");
}

fn clean(bundle: &TestBundle) {
    conformance::leftovers::remove_mounts(&bundle.scratch().join("volume"));
}

#[test]
fn a_container_is_the_same_without_the_newer_calls() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let all = newer_calls();
    let no_clone3: Vec<i64> = all
        .iter()
        .copied()
        .filter(|call| !CLONE3.contains(call))
        .collect();
    let cases = [
        ("openat2", OPENAT2, Answer::NoSuchCall),
        ("close_range", CLOSE_RANGE, Answer::NoSuchCall),
        ("clone3", CLONE3, Answer::NoSuchCall),
        ("mount_setattr", MOUNT_SETATTR, Answer::NoSuchCall),
        ("mount_setattr, forbidden", MOUNT_SETATTR, Answer::Forbidden),
        ("the mount API", MOUNT_API, Answer::NoSuchCall),
        ("all", &all, Answer::NoSuchCall),
        ("all, forbidden", &no_clone3, Answer::Forbidden),
    ];
    for user_namespace in [false, true] {
        let bundle = demanding();
        let bundle = if user_namespace {
            bundle.user_namespace()
        } else {
            bundle
        };
        let expected = bundle.run();
        for (what, calls, answer) in cases {
            let what = format!("{what}, user namespace: {user_namespace}");
            compare(&what, &without(calls, answer, || bundle.run()), &expected);
        }
        compare("Linux 5.4", &as_on_5_4(|| bundle.run()), &expected);
        clean(&bundle);
    }
}

#[test]
fn without_pivot_it_is_the_same_too() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = demanding();
    let run = || bundle.container().run(&["--no-pivot"]);
    let output = without(&newer_calls(), Answer::NoSuchCall, run);
    compare("--no-pivot", &output, &run());
    clean(&bundle);
}

/// `exec` joins, and so does a container that joins another's namespaces.
#[test]
fn a_container_lives_its_life_without_the_newer_calls() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let life = || {
        for user_namespace in [false, true] {
            let bundle = TestBundle::sleeper();
            let bundle = if user_namespace {
                bundle.user_namespace()
            } else {
                bundle
            };
            let container = bundle.running();
            let mut exec = container.command("exec", &[]);
            exec.args([
                "/bin/sh",
                "-c",
                "echo $$; readlink /proc/self/ns/net; ls /proc/self/fd",
            ]);
            let output = conformance::run_command(&mut exec);
            let lines: Vec<&str> = output.success().lines().collect();
            assert!(lines[0].parse::<u32>().expect("a pid") < 100, "{output}");
            let net = fs::read_link(format!("/proc/{}/ns/net", container.pid())).expect("link");
            assert_eq!(Path::new(lines[1]), net, "{output}");
            // ls's own directory is 3.
            assert_eq!(lines[2..], ["0", "1", "2", "3"], "{output}");
            container.kill("KILL").success();
            container.wait_for("stopped");
            container.delete(&[]).success();
            bundle.assert_nothing_left();
        }
    };
    without(&newer_calls(), Answer::NoSuchCall, life);
    as_on_5_4(life);
}

#[test]
fn a_terminal_comes_without_the_newer_calls() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = with_terminal("tty; stat -c %t:%T /dev/console; readlink /proc/self/fd/0");
    let run = || run_in_script(&bundle);
    let expected = run();
    let output = without(&newer_calls(), Answer::NoSuchCall, run);
    // What script itself writes comes before; the end of its own input is echoed at any place.
    let told = |output: &Output| {
        let start = output.success().find("/dev/").expect("a terminal");
        output.stdout[start..].replace("^@", "")
    };
    assert_eq!(told(&output), told(&expected));
}

/// Where there is no other way to do it.
#[test]
fn what_an_old_kernel_cannot_do_is_refused_by_name() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = TestBundle::new();
    let volume = bundle.scratch().join("volume");
    fs::create_dir(&volume).expect("mkdir");
    let one = json!([{"containerID": 0, "hostID": 1, "size": 1}]);
    let bundle = bundle.mount(
        json!({"destination": "/data", "type": "bind", "source": volume,
        "options": ["bind"], "uidMappings": one, "gidMappings": one}),
    );
    for calls in [MOUNT_SETATTR, MOUNT_API] {
        let output = without(calls, Answer::NoSuchCall, || bundle.run());
        assert!(output.one_line_failure().contains("mounts[7]."), "{output}");
        bundle.assert_nothing_left();
    }
}
