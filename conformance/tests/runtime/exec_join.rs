//! `exec`: the process is where the container is, and brings nothing of the host's along.

use std::fs;
use std::path::Path;
use std::process::Command;

use conformance::host::{cgroup_directory, is_root};
use conformance::{Container, TestBundle, gocker_only, needs, peer_differs, run_command, runtime};
use nix::sys::prctl::set_child_subreaper;
use serde_json::json;

use super::exec::{exec, exec_shell};

const KINDS: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

/// The namespaces of a process that `exec` made, and those of the init.
fn compare_namespaces(container: &Container<'_>) {
    let script = "cd /proc/self/ns; for n in cgroup ipc mnt net pid user uts; do readlink $n; done";
    let output = exec_shell(container, &[], script);
    let found: Vec<&str> = output.success().lines().collect();
    let expected: Vec<String> = KINDS
        .iter()
        .map(|kind| {
            let path = format!("/proc/{}/ns/{kind}", container.pid());
            let target = fs::read_link(path).expect("readlink");
            target.to_string_lossy().into_owned()
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn an_exec_is_in_all_namespaces_of_the_container() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper().namespace("cgroup", Some(json!({"type": "cgroup"})));
    compare_namespaces(&bundle.running());
}

#[test]
fn an_exec_shares_what_the_container_shares() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper()
        .namespace("pid", None)
        .namespace("network", None)
        .namespace("ipc", None);
    let container = bundle.running();
    compare_namespaces(&container);
    container.kill("KILL").success();
}

#[test]
fn an_exec_joins_namespaces_that_the_container_joined() {
    needs!(is_root(), "needs root");
    // Nobody else would collect the second one's process, and the first one's PID namespace
    // would not end before that.
    set_child_subreaper(true).expect("become a subreaper");
    let first = TestBundle::sleeper();
    let pod = first.running();
    let path = |kind: &str| format!("/proc/{}/ns/{kind}", pod.pid());
    let mut second = TestBundle::sleeper();
    for (kind, file) in [("pid", "pid"), ("network", "net"), ("ipc", "ipc")] {
        second = second.namespace(kind, Some(json!({"type": kind, "path": path(file)})));
    }
    let container = second.running();
    let pid = container.pid();
    compare_namespaces(&container);
    container.kill("KILL").success();
    assert_eq!(container.wait_exit(pid), 137);
}

#[test]
fn an_exec_joins_a_user_namespace_as_its_root() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it sets no limits");
    let bundle = TestBundle::sleeper().user_namespace().set(
        "/process/rlimits",
        json!([{"type": "RLIMIT_CORE", "soft": 512, "hard": 1024}]),
    );
    let container = bundle.running();
    compare_namespaces(&container);
    let script = "id -u; id -g; ulimit -c; ulimit -Hc; cat /proc/self/uid_map | tr -s ' '";
    let output = exec_shell(&container, &[], script);
    assert_eq!(output.success(), "0\n0\n1\n2\n 0 100000 65536\n");
    let output = exec_shell(&container, &["--user", "1000:5"], "id -u; id -g; id -G");
    assert_eq!(output.success(), "1000\n5\n5\n");
}

/// Without a mount namespace the root directory is the container's all the same.
#[test]
fn an_exec_has_the_root_of_a_container_without_a_mount_namespace() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = TestBundle::sleeper()
        .namespace("mount", None)
        .set("/mounts", json!([]))
        .set("/linux/maskedPaths", json!([]))
        .set("/linux/readonlyPaths", json!([]));
    fs::write(bundle.rootfs().join("own"), "").expect("write");
    let container = bundle.running();
    let output = exec(&container, &[], &["ls", "/"]);
    assert!(output.success().contains("own\n"), "{output}");
    assert!(!output.stdout.contains("usr"), "{output}");
}

#[test]
fn the_oom_score_is_the_containers_or_the_files() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun | Runc, "they do not read the file's");
    let bundle = TestBundle::sleeper().set("/process/oomScoreAdj", json!(300));
    let container = bundle.running();
    let read = ["cat", "/proc/self/oom_score_adj"];
    assert_eq!(exec(&container, &[], &read).success(), "300\n");
    let file = bundle.scratch().join("process.json");
    let process = json!({"args": read, "cwd": "/", "user": {}, "env": ["PATH=/bin"],
        "oomScoreAdj": 400});
    fs::write(&file, process.to_string()).expect("write");
    let options = ["--process", file.to_str().expect("a path")];
    assert_eq!(exec(&container, &options, &[]).success(), "400\n");
}

#[test]
fn an_exec_is_under_the_containers_seccomp_filter() {
    needs!(is_root(), "needs root");
    for no_new_privileges in [true, false] {
        let bundle = TestBundle::sleeper()
            .set("/process/noNewPrivileges", json!(no_new_privileges))
            .set(
                "/linux/seccomp",
                json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                    {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
                ]}),
            );
        let container = bundle.running();
        let script = "mkdir /made; test -e /made && echo made; grep Seccomp: /proc/self/status";
        let output = exec_shell(&container, &[], script);
        assert_eq!(output.success(), "Seccomp:\t2\n");
        assert!(output.stderr.contains("not implemented"), "{output}");
    }
}

#[test]
fn an_exec_is_in_the_containers_cgroups() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let output = exec(&container, &[], &["cat", "/proc/self/cgroup"]);
    assert_eq!(output.success(), container.proc_file("cgroup"));
}

#[test]
fn an_exec_goes_into_a_cgroup_beneath_the_containers() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "its --cgroup is another");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let pids = cgroup_directory("pids", bundle.cgroups_path());
    let memory = cgroup_directory("memory", bundle.cgroups_path());
    needs!(pids.is_some() && memory.is_some(), "needs pids and memory");
    needs!(
        pids != memory,
        "needs hierarchies of their own for pids and memory"
    );
    for directory in [&pids, &memory].into_iter().flatten() {
        fs::create_dir(directory.join("sub")).expect("mkdir");
    }
    let place = |options: &[&str], controller: &str| {
        let script = format!("grep :{controller}: /proc/self/cgroup");
        let output = exec_shell(&container, options, &script);
        output.success().trim_end().to_owned()
    };
    let (top, sub) = (
        bundle.cgroups_path(),
        format!("{}/sub", bundle.cgroups_path()),
    );
    let one = ["--cgroup", "pids:sub"];
    assert!(place(&one, "pids").ends_with(&sub));
    assert!(place(&one, "memory").ends_with(top));
    let two = ["--cgroup", "pids,memory:/sub"];
    assert!(place(&two, "pids").ends_with(&sub) && place(&two, "memory").ends_with(&sub));
    assert!(place(&["--cgroup", "/"], "pids").ends_with(top));
    peer_differs!(Runc, "it takes .. away");
    for bad in ["..", "pids:..", "sub/../.."] {
        let output = exec(&container, &["--cgroup", bad], &["true"]);
        assert!(output.one_line_failure().contains("--cgroup"), "{output}");
    }
}

/// On v2 nobody can enter a cgroup that has handed controllers down; the init, which has
/// moved, shows the way.
#[test]
fn an_exec_follows_the_init_of_a_container_that_has_divided_its_cgroup() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "on v2 alone");
    let base = [
        Path::new("/sys/fs/cgroup"),
        Path::new("/sys/fs/cgroup/unified"),
    ]
    .into_iter()
    .find(|base| base.join("cgroup.controllers").exists());
    needs!(base.is_some(), "needs a cgroup2 hierarchy");
    let base = base.expect("a hierarchy");
    let controllers = fs::read_to_string(base.join("cgroup.controllers")).expect("read");
    let controller = controllers
        .split_whitespace()
        .next()
        .map(|name| format!("+{name}"));
    needs!(controller.is_some(), "needs a cgroup2 controller");
    let controller = controller.expect("a controller");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let top = base.join(bundle.cgroups_path().trim_start_matches('/'));
    let sub = top.join("init");
    fs::create_dir(&sub).expect("mkdir");
    fs::write(sub.join("cgroup.procs"), container.pid().to_string()).expect("move the init");
    let handed_down = fs::write(base.join("cgroup.subtree_control"), &controller)
        .and_then(|()| fs::write(top.join("cgroup.subtree_control"), &controller));
    needs!(
        handed_down.is_ok(),
        "needs a controller that can be handed down"
    );
    let output = exec(&container, &[], &["grep", "^0:", "/proc/self/cgroup"]);
    let expected = format!("0::{}/init\n", bundle.cgroups_path());
    assert_eq!(output.success(), expected);
    exec(&container, &["--cgroup", "/"], &["true"]).failure();
}

#[test]
fn an_exec_has_only_stdin_stdout_and_stderr() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let list = "cd /proc/self/fd; for f in *; do [ -e /proc/$$/fd/$f ] && echo $f; done; true";
    let shell = |redirections: &str, options: &[&str], script: &str| {
        bundle.write_config();
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", &format!("exec \"$@\" {redirections}"), "sh"])
            .arg(&runtime().program)
            .arg("--root")
            .arg(bundle.state_root())
            .arg("exec")
            .args(options)
            .args([container.id(), "sh", "-c", script]);
        run_command(&mut command).success().to_owned()
    };
    assert_eq!(shell("", &[], list), "0\n1\n2\n");
    let leaked = "3</etc/passwd 4</ 5</proc 7>/dev/null 9</etc";
    assert_eq!(shell(leaked, &[], list), "0\n1\n2\n");
    let file = bundle.scratch().join("file");
    fs::write(&file, "preserved\n").expect("write");
    let two = format!("3<{} 4</dev/null 5</dev/null", file.display());
    let script = format!("cat <&3; {list}");
    assert_eq!(
        shell(&two, &["--preserve-fds", "2"], &script),
        "preserved\n0\n1\n2\n3\n4\n"
    );
}

/// CVE-2024-21626: a working directory by way of a descriptor that leaked.
#[test]
fn the_working_directory_of_an_exec_cannot_be_a_leaked_descriptor() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let secret = bundle.scratch().join("secret");
    fs::write(&secret, "of the host\n").expect("write");
    let container = bundle.running();
    let climb = format!("../../../../../../../../..{}", secret.display());
    for number in 3..16 {
        for prefix in ["/proc/self/fd", "/dev/fd", "/proc/1/fd"] {
            let cwd = format!("{prefix}/{number}");
            let output = exec(&container, &["--cwd", &cwd], &["cat", &climb]);
            assert!(output.code() != 0, "{output}");
            assert!(!output.stdout.contains("of the host"), "{output}");
        }
    }
}

/// CVE-2019-5736: the program that is executed in the container must not be a way to the
/// file that the host runs next.
#[test]
fn an_exec_of_the_runtime_itself_cannot_overwrite_it() {
    needs!(is_root(), "needs root");
    let program_of = |bundle: &TestBundle| bundle.scratch().join("runtime");
    // It waits for whoever executes itself, and writes to that one's program.
    let script = "while :; do for p in /proc/[0-9]*; do
        case $(readlink $p/exe) in */busybox|'') ;; *) { echo overwritten > $p/exe; } 2>/dev/null
        esac; done; done";
    let bundle = TestBundle::shell(script);
    let program = program_of(&bundle);
    fs::copy(&runtime().program, &program).expect("copy the runtime");
    let before = fs::read(&program).expect("read");
    let container = bundle.running();
    for command in [&["/proc/self/exe", "--version"][..], &["true"]] {
        for _ in 0..20 {
            let mut exec = Command::new(&program);
            exec.arg("--root").arg(bundle.state_root()).arg("exec");
            let output = run_command(exec.arg(container.id()).args(command));
            assert!(!output.stderr.contains("panicked"), "{output}");
        }
    }
    assert!(
        fs::read(&program).expect("read") == before,
        "it was changed"
    );
}

/// CVE-2016-9962: a process that joins is, as long as it is the runtime's, not to be looked
/// into by one of the container, however capable.
#[test]
fn a_container_cannot_look_into_a_process_that_joins_it() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it is told apart by its name, which is another");
    let all = json!(["CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]);
    // As long as it is the runtime's, its name is the runtime's or a descriptor's number.
    let script = "while :; do for p in /proc/[0-9]*; do
        read name < $p/comm 2>/dev/null || continue
        case $name in [0-9]*|runc*|gocker*|memfd*) ;; *) continue;; esac
        echo tried > /tried
        ls -l $p/fd >> /seen; cat $p/environ >> /seen; readlink $p/exe >> /seen
        done; done 2>/dev/null";
    let bundle = TestBundle::shell(script).user_namespace().set(
        "/process/capabilities",
        json!({"bounding": all, "permitted": all, "effective": all, "inheritable": all}),
    );
    let container = bundle.running();
    let tried = || bundle.rootfs().join("tried").exists();
    for _ in 0..60 {
        let mut command = container.command("exec", &[]);
        command.env("SECRET_OF_THE_HOST", "1").arg("true");
        run_command(&mut command).success();
    }
    let seen = fs::read_to_string(bundle.rootfs().join("seen")).unwrap_or_default();
    // Of the program that it becomes everything may be seen.
    let is_own = |line: &&str| {
        let fd = line.split(" -> ").next().unwrap_or_default();
        let fd = fd.rsplit(' ').next().unwrap_or_default();
        line.starts_with("total ") || line.ends_with("/busybox") || ["0", "1", "2"].contains(&fd)
    };
    let others: Vec<&str> = seen.lines().filter(|line| !is_own(line)).collect();
    assert!(!seen.contains("SECRET_OF_THE_HOST"), "{seen}");
    assert!(
        others
            .iter()
            .all(|line| !line.contains("->") && !line.contains("runc")),
        "{seen}"
    );
    needs!(tried(), "no process was ever seen while it joined");
}
