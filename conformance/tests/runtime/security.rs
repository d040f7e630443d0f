//! Attacks that a shipped runtime once fell for. Each test mounts the attack
//! and looks at what the attacker would have gained.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use conformance::command::spawn_on;
use conformance::host::is_root;
use conformance::{Container, Kind, TestBundle, needs, peer_differs, run_command, runtime};
use serde_json::json;

/// A directory of the host, with a file, that no container may reach.
fn outside(bundle: &TestBundle) -> PathBuf {
    let outside = bundle.scratch().join("outside");
    fs::create_dir(&outside).expect("mkdir");
    outside
}

#[track_caller]
fn assert_empty(directory: &Path, what: &dyn std::fmt::Display) {
    let names: Vec<_> = fs::read_dir(directory).expect("read").flatten().collect();
    assert!(names.is_empty(), "made on the host: {names:?}: {what}");
}

/// CVE-2019-5736: whoever gets hold of the init's program must not be able to
/// change the file that the host runs next.
#[test]
fn the_runtime_that_a_container_sees_cannot_be_overwritten() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let program = bundle.scratch().join("runtime");
    fs::copy(&runtime().program, &program).expect("copy the runtime");
    let before = fs::read(&program).expect("read");
    bundle.write_config();
    let call = |args: &[&str]| {
        let root = bundle.state_root();
        run_command(Command::new(&program).arg("--root").arg(root).args(args))
    };
    let path = bundle.path();
    call(&[
        "create",
        "--bundle",
        path.to_str().expect("a path"),
        bundle.id(),
    ])
    .success();
    let container: Container<'_> = bundle.container();
    // The init is still the runtime's program. What the container could take hold
    // of now it can write to as soon as nothing executes it.
    let exe = format!("/proc/{}/exe", container.pid());
    let held = File::open(&exe).expect("open the init's program");
    call(&["start", bundle.id()]).success();
    let held_path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held));
    let same_file = {
        let (held, file) = (
            held.metadata().expect("stat"),
            fs::metadata(&program).expect("stat"),
        );
        (held.dev(), held.ino()) == (file.dev(), file.ino())
    };
    let written = conformance::wait_until(std::time::Duration::from_millis(500), || {
        let file = OpenOptions::new().write(true).open(&held_path);
        file.is_ok_and(|mut file| file.write_all(b"overwritten").is_ok())
    });
    assert_eq!(
        fs::read(&program).expect("read"),
        before,
        "the runtime was changed"
    );
    assert!(!(written && same_file));
    drop(held);
}

/// CVE-2019-5736 in its first form: the container's program is a link to
/// whatever executes it.
#[test]
fn a_program_that_is_proc_self_exe_leaves_the_runtime_as_it_was() {
    needs!(is_root(), "needs root");
    let before = fs::read(&runtime().program).expect("read");
    for program in ["/proc/self/exe", "/evil"] {
        let bundle = TestBundle::new().args(&[program, "--version"]);
        let script = bundle.rootfs().join("evil");
        fs::write(&script, "#!/proc/self/exe\n").expect("write");
        fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("chmod");
        let output = bundle.run();
        assert!(!output.stderr.contains("panicked"), "{output}");
        bundle.assert_nothing_left();
    }
    assert_eq!(fs::read(&runtime().program).expect("read"), before);
}

/// CVE-2024-21626: a working directory by way of a descriptor that leaked.
#[test]
fn a_working_directory_cannot_be_a_leaked_descriptor() {
    needs!(is_root(), "needs root");
    for number in 3..16 {
        for prefix in ["/proc/self/fd", "/dev/fd", "/proc/1/fd"] {
            let bundle = TestBundle::new();
            let secret = outside(&bundle).join("secret");
            fs::write(&secret, "of the host\n").expect("write");
            let climb = format!("../../../../../../../../..{}", secret.display());
            let bundle = bundle
                .args(&["/bin/cat", &climb])
                .set("/process/cwd", json!(format!("{prefix}/{number}")));
            let output = bundle.run();
            assert!(
                !output.stdout.contains("of the host"),
                "{prefix}/{number}: {output}"
            );
            assert!(output.code() != 0, "{output}");
            bundle.assert_nothing_left();
        }
    }
}

/// CVE-2025-31133: a path is masked by whatever lies at /dev/null.
#[test]
fn a_path_is_not_masked_by_a_link_in_the_place_of_dev_null() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "Debian's are older than the repair");
    let bundle = TestBundle::shell("cat /secret; echo changed > /secret; cat /victim");
    fs::write(bundle.rootfs().join("secret"), "secret\n").expect("write");
    fs::write(bundle.rootfs().join("victim"), "victim\n").expect("write");
    let dev = bundle.scratch().join("dev");
    fs::create_dir(&dev).expect("mkdir");
    symlink("/victim", dev.join("null")).expect("symlink");
    let bundle = bundle
        .edit(|config| {
            let mounts = config["mounts"].as_array_mut().expect("mounts");
            mounts.retain(|mount| {
                !mount["destination"]
                    .as_str()
                    .expect("a path")
                    .starts_with("/dev")
            });
            mounts.push(json!({"destination": "/dev", "type": "bind", "source": dev,
                "options": ["rbind"]}));
        })
        .set("/linux/maskedPaths", json!(["/secret"]));
    let output = bundle.run();
    assert!(
        !output.stdout.contains("secret"),
        "the path is not masked: {output}"
    );
    assert!(
        !output.stdout.contains("changed"),
        "the mask is the victim: {output}"
    );
    assert_eq!(
        fs::read_to_string(bundle.rootfs().join("victim")).expect("read"),
        "victim\n"
    );
    bundle.assert_nothing_left();
}

/// CVE-2019-19921, CVE-2023-27561: with /proc elsewhere, what is written to
/// /proc goes elsewhere.
#[test]
fn a_rootfs_whose_proc_or_sys_is_a_link_is_refused() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it follows the link within the rootfs");
    for name in ["proc", "sys"] {
        let bundle = TestBundle::new();
        let place = bundle.rootfs().join(name);
        fs::remove_dir(&place).expect("rmdir");
        fs::create_dir(bundle.rootfs().join("elsewhere")).expect("mkdir");
        symlink("/elsewhere", &place).expect("symlink");
        let output = bundle.run();
        assert!(output.one_line_failure().contains(name), "{output}");
        bundle.assert_nothing_left();
    }
}

/// CVE-2019-16884, CVE-2025-52881: what is written to /proc meets what the container has laid
/// there.
#[test]
fn kernel_parameters_are_not_written_to_a_proc_of_the_containers() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "they refuse such a mount, or write there");
    let bundle = TestBundle::shell("cat /real/sys/net/ipv4/ip_forward")
        .set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
    let fake = bundle.scratch().join("fake");
    for name in ["sys/net/ipv4", "self/attr", "thread-self/attr", "1/attr"] {
        fs::create_dir_all(fake.join(name)).expect("mkdir");
    }
    let victim = outside(&bundle).join("victim");
    fs::write(&victim, "untouched").expect("write");
    symlink(&victim, fake.join("sys/net/ipv4/ip_forward")).expect("symlink");
    for name in [
        "self/attr/exec",
        "thread-self/attr/exec",
        "1/attr/exec",
        "self/oom_score_adj",
    ] {
        symlink(&victim, fake.join(name)).expect("symlink");
    }
    let bundle = bundle
        .set("/process/oomScoreAdj", json!(1000))
        .edit(|config| {
            let mounts = config["mounts"].as_array_mut().expect("mounts");
            mounts[0] = json!({"destination": "/proc", "type": "bind", "source": fake,
                "options": ["rbind"]});
            mounts.push(json!({"destination": "/real", "type": "proc", "source": "proc"}));
        })
        .set("/linux/maskedPaths", json!([]))
        .set("/linux/readonlyPaths", json!([]));
    let output = bundle.run();
    assert_eq!(
        fs::read_to_string(&victim).expect("read"),
        "untouched",
        "{output}"
    );
    // Refused, or done where it belongs.
    if output.code() == 0 {
        assert_eq!(output.stdout, "1\n");
    } else {
        output.one_line_failure();
    }
    bundle.assert_nothing_left();
}

/// CVE-2026-41579 and kin: a rootfs whose /dev leads out.
#[test]
fn a_rootfs_whose_dev_is_a_link_makes_nothing_on_the_host() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "Debian's fall for it");
    for with_mount in [true, false] {
        let bundle = TestBundle::new();
        let outside = outside(&bundle);
        let dev = bundle.rootfs().join("dev");
        fs::remove_dir(&dev).expect("rmdir");
        symlink(&outside, &dev).expect("symlink");
        let bundle = bundle.edit(|config| {
            let mounts = config["mounts"].as_array_mut().expect("mounts");
            mounts.retain(|mount| {
                with_mount
                    || !mount["destination"]
                        .as_str()
                        .expect("a path")
                        .starts_with("/dev")
            });
        });
        let output = bundle.run();
        assert_empty(&outside, &output);
        if output.code() != 0 {
            output.one_line_failure();
        }
        bundle.assert_nothing_left();
    }
}

/// CVE-2025-52565 and kin: every name that a runtime makes in /dev is a link
/// out of the rootfs already.
#[test]
fn device_names_that_are_links_make_nothing_on_the_host() {
    needs!(is_root(), "needs root");
    let names = [
        "null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "fd", "stdin",
        "stdout", "stderr", "pts", "shm", "mqueue",
    ];
    let bundle = TestBundle::shell("echo written > /dev/null");
    let outside = outside(&bundle);
    for name in names {
        symlink(outside.join(name), bundle.rootfs().join("dev").join(name)).expect("symlink");
    }
    let bundle = bundle.edit(|config| {
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|mount| mount["destination"] != "/dev");
    });
    let output = bundle.run();
    assert_empty(&outside, &output);
    bundle.assert_nothing_left();
}

/// CVE-2022-29162, CVE-2022-27650: inheritable capabilities that nobody asked
/// for come back with a file that has them.
#[test]
fn the_inheritable_set_is_empty_unless_configured() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::new().args(&["/bin/grep", "CapInh", "/proc/self/status"]);
    assert_eq!(bundle.run_ok(), "CapInh:\t0000000000000000\n");
}

/// CVE-2016-9962: the init, as long as it is the runtime, is not to be looked
/// into by a process of the namespaces that it has joined, however capable.
#[test]
fn a_process_of_joined_namespaces_cannot_look_into_the_init() {
    needs!(is_root(), "needs root");
    let all = json!([
        "CAP_SYS_PTRACE",
        "CAP_SYS_ADMIN",
        "CAP_DAC_OVERRIDE",
        "CAP_KILL"
    ]);
    let first = TestBundle::shell(
        "while ! [ -e /go ]; do sleep 0.05; done; p=$(cat /go)
         [ -d /proc/$p ] && echo sees the init
         ls /proc/$p/fd/ && echo fds; readlink /proc/$p/exe && echo exe
         ls /proc/$p/root/ && echo root; (: < /proc/$p/mem) && echo mem; exec sleep 1000",
    )
    .user_namespace()
    .set(
        "/process/capabilities",
        json!({"bounding": all, "permitted": all, "effective": all, "inheritable": all}),
    );
    let first_container = first.container();
    let attacker = first_container.create(&[]);
    attacker.success();
    first_container.start().success();
    let mut second = TestBundle::sleeper().user_namespace().edit(|config| {
        config
            .as_object_mut()
            .expect("an object")
            .remove("hostname");
    });
    for kind in ["user", "pid"] {
        let path = format!("/proc/{}/ns/{kind}", first_container.pid());
        second = second.namespace(kind, Some(json!({"type": kind, "path": path})));
    }
    let second = second.namespace("uts", Some(json!({"type": "uts"})));
    let second_container = second.created();
    let status = second_container.proc_file("status");
    let inside = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))
        .expect("NSpid");
    let inside = inside.split_whitespace().last().expect("a pid");
    fs::write(first.rootfs().join("go.new"), inside).expect("write");
    fs::rename(first.rootfs().join("go.new"), first.rootfs().join("go")).expect("rename");
    let done = || {
        let comm = fs::read_to_string(format!("/proc/{}/cmdline", first_container.pid()));
        comm.is_ok_and(|line| line.starts_with("sleep"))
    };
    assert!(conformance::wait_until(
        std::time::Duration::from_secs(10),
        done
    ));
    assert_eq!(attacker.stdout_now(), "sees the init\n");
}

/// A pty's name in the container is not to be trusted, nor what lies at
/// /dev/console.
#[test]
fn a_console_that_is_a_link_is_not_followed_to_the_host() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "Debian's falls for it");
    let bundle = TestBundle::shell("echo x").set("/process/terminal", json!(true));
    let outside = outside(&bundle);
    symlink(outside.join("console"), bundle.rootfs().join("dev/console")).expect("symlink");
    let bundle = bundle.edit(|config| {
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|mount| mount["destination"] != "/dev");
    });
    let pty = nix::pty::openpty(None, None).expect("openpty");
    let mut command = bundle.making("run", &[]);
    let mut child = spawn_on(pty.slave.as_fd(), &mut command);
    drop(pty.slave);
    let mut text = String::new();
    // EIO at the end, when the other side is closed.
    if let Err(error) = File::from(pty.master).read_to_string(&mut text) {
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
    }
    child.wait().expect("wait");
    assert_empty(&outside, &text);
    bundle.assert_nothing_left();
}

/// CVE-2023-25809, and what a container may do to cgroups that are not its own.
#[test]
fn the_cgroups_cannot_be_written() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell(
        "find /sys/fs/cgroup -maxdepth 2 -type d | while read d; do mkdir $d/x && echo made $d/x; done
         for f in $(find /sys/fs/cgroup -name cgroup.procs -o -name release_agent); do
           echo 1 > $f && echo wrote $f; done; true",
    );
    let output = bundle.run();
    let made: Vec<&str> = output
        .success()
        .lines()
        // Debian's runc and crun leave the tmpfs above the v1 hierarchies writable.
        .filter(|line| runtime().kind == Kind::Gocker || *line != "made /sys/fs/cgroup/x")
        .collect();
    assert!(made.is_empty(), "{made:?}");
}
