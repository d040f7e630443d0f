//! Users, namespaces and rights of Podman's containers.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Stdio;

use conformance::host::is_root;
use conformance::{Kind, needs, run_command, runtime};
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

use super::{Podman, SLEEPER, is_here};

const NAMESPACES: &str = "for n in ipc pid uts net; do readlink /proc/self/ns/$n; done";

/// Gives Podman ids to share out, in this test's view of the machine only.
fn share_ids(podman: &Podman) {
    for file in ["/etc/subuid", "/etc/subgid"] {
        if !Path::new(file).exists() {
            continue;
        }
        let own = podman.path().join(file.trim_start_matches("/etc/"));
        fs::write(&own, "containers:300000:65536\n").expect("write");
        let bind = MsFlags::MS_BIND;
        mount(Some(&own), file, None::<&str>, bind, None::<&str>).expect("bind");
    }
}

#[test]
fn podman_maps_the_ids_of_a_container() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package podman");
    needs!(Path::new("/etc/subuid").exists(), "needs an /etc/subuid");
    let podman = Podman::new();
    share_ids(&podman);
    let script =
        "cat /proc/self/uid_map /proc/self/gid_map; touch /tmp/x; stat -c %u:%g /tmp/x /bin/sh";
    let numbers = |text: &str| {
        let words = text.split_whitespace().map(str::to_owned);
        words.collect::<Vec<_>>().join(" ")
    };
    let automatic = podman.shell(&["--userns", "auto:size=1000"], script);
    let expected = "0 300000 1000 0 300000 1000 0:0 0:0";
    assert_eq!(numbers(&automatic), expected);
    let maps = ["--uidmap", "0:200000:5000", "--gidmap", "0:400000:6000"];
    let given = podman.shell(&maps, script);
    assert_eq!(numbers(&given), "0 200000 5000 0 400000 6000 0:0 0:0");
    let user = podman.shell(
        &[&maps, ["--user", "web"].as_slice()].concat(),
        "id -u; id -g",
    );
    assert_eq!(user, "33\n44\n");

    // As two containers get ranges of their own, and a process may join.
    podman.start("one", &["--userns", "auto:size=1000"], SLEEPER);
    podman.start("two", &["--userns", "auto:size=1000"], SLEEPER);
    let map = |name: &str| numbers(&podman.ok(&["exec", name, "cat", "/proc/self/uid_map"]));
    assert_eq!(map("one"), "0 300000 1000");
    assert_eq!(map("two"), "0 301000 1000");
    podman.ok(&["rm", "--force", "--time", "0", "one", "two"]);
    podman.assert_nothing_left();
}

/// Debian's runc does not know the option, and shows the ids as they are.
#[test]
fn podman_maps_the_ids_of_a_volume() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package podman");
    conformance::peer_differs!(Runc, "Debian's ignores the option");
    let podman = Podman::new();
    let volume = podman.path().join("volume");
    fs::create_dir(&volume).expect("mkdir");
    fs::write(volume.join("file"), "").expect("write");
    chown(volume.join("file"), Some(7), Some(8)).expect("chown");
    let volume = format!("{}:/data:idmap", volume.display());
    let maps = ["--uidmap", "0:200000:5000", "--volume", &volume];
    let output = podman.run(&maps, &["stat", "-c", "%u:%g", "/data/file"]);
    let refused = output.code() != 0 && output.stderr.contains("idmap");
    needs!(!refused, "the file system of /tmp has no id-mapped mounts");
    assert_eq!(output.success(), "7:8\n");
    podman.assert_nothing_left();
}

#[test]
fn podman_shares_namespaces_with_the_host_and_with_containers() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package podman");
    let podman = Podman::with_a_network();
    let names = ["ipc", "pid", "uts", "net"];
    let own: String = names
        .iter()
        .map(|name| fs::read_link(format!("/proc/thread-self/ns/{name}")).expect("a namespace"))
        .map(|link| format!("{}\n", link.display()))
        .collect();
    let shared = |with: &str| {
        let options = ["ipc", "pid", "uts", "network"].map(|kind| format!("--{kind}={with}"));
        let mut options: Vec<_> = options.iter().map(String::as_str).collect();
        options.push("--rm");
        let mut command = podman.run_command(&options, &["sh", "-c", NAMESPACES]);
        run_command(command.stdin(Stdio::null()))
            .success()
            .to_owned()
    };
    assert_eq!(shared("host"), own);
    podman.start("c", &["--hostname", "first"], SLEEPER);
    let of_first = podman.ok(&["exec", "c", "sh", "-c", NAMESPACES]);
    assert!(
        own.lines().all(|link| !of_first.contains(link)),
        "{of_first}"
    );
    assert_eq!(shared("container:c").trim_end(), of_first);
    podman.ok(&["rm", "--force", "--time", "0", "c"]);

    for (how, private) in [("host", false), ("private", true)] {
        let cgroupns = format!("--cgroupns={how}");
        let link = podman.shell(&[&cgroupns], "readlink /proc/self/ns/cgroup");
        let host = fs::read_link("/proc/self/ns/cgroup").expect("a namespace");
        assert_eq!(Path::new(link.trim_end()) != host, private, "{how}: {link}");
    }
    podman.assert_nothing_left();
}

#[test]
fn podman_sets_rights_limits_and_parameters_of_a_container() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package podman");
    let podman = Podman::new();
    let options = [
        ["--ulimit", "nofile=100:200"],
        ["--ulimit", "core=0"],
        // Podman raises what is not named, for which this process may lack the right.
        ["--ulimit", "nproc=300:300"],
        ["--sysctl", "net.ipv4.ip_forward=1"],
        ["--sysctl", "kernel.shmmax=12345"],
        ["--cap-drop", "all"],
        ["--cap-add", "net_raw,chown"],
        ["--security-opt", "no-new-privileges"],
        ["--security-opt", "mask=/proc/version"],
        ["--oom-score-adj", "500"],
        ["--shm-size", "1m"],
        ["--umask", "0077"],
        ["--group-add", "2000"],
    ]
    .concat();
    let script = "ulimit -n; ulimit -Hn; ulimit -c; umask; id -G
        cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax /proc/self/oom_score_adj
        grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status
        wc -c < /proc/version; df -k /dev/shm | tail -n 1 | awk '{print $2}'";
    let expected = "100\n200\n0\n0077\n0 2000\n1\n12345\n500\nCapEff:\t0000000000002001\n\
                    CapBnd:\t0000000000002001\nNoNewPrivs:\t1\n0\n1024\n";
    assert_eq!(podman.shell(&options, script), expected);

    let devices = [
        ["--device", "/dev/kmsg:/dev/mine:r"],
        ["--device", "/dev/zero:/dev/both"],
        ["--cap-add", "syslog"],
    ]
    .concat();
    let script = "stat -c %t:%T /dev/mine; : < /dev/mine && echo read
        (: >> /dev/mine) 2> /dev/null || echo refused
        head -c 3 /dev/both | wc -c; echo x > /dev/both && echo written";
    let seen = podman.shell(&devices, script);
    assert_eq!(seen, "1:b\nread\nrefused\n3\nwritten\n");
    let script =
        "mknod /tmp/kmsg c 1 11; (: >> /tmp/kmsg) 2> /dev/null && echo opened || echo refused";
    assert_eq!(podman.shell(&[], script), "refused\n");
    let rule = ["--device-cgroup-rule", "c 1:11 rw"];
    assert_eq!(podman.shell(&rule, script), "opened\n");
    podman.assert_nothing_left();
}

/// The state that a hook reads on its stdin names the container and has its
/// annotations.
#[test]
fn podman_has_hooks_run() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package podman");
    let podman = Podman::new();
    let hooks = podman.path().join("hooks");
    fs::create_dir(&hooks).expect("mkdir");
    for stage in [
        "prestart",
        "createRuntime",
        "createContainer",
        "poststart",
        "poststop",
    ] {
        let file = podman.path().join(stage);
        let hook = json!({
            "version": "1.0.0",
            "hook": {"path": "/bin/sh", "args": ["sh", "-c", format!("cat > {}", file.display())]},
            "when": {"annotations": {"^hook$": "^yes$"}},
            "stages": [stage],
        });
        fs::write(hooks.join(format!("{stage}.json")), hook.to_string()).expect("write");
    }
    let hooks = hooks.to_string_lossy().into_owned();
    let options = ["--rm", "--network", "none", "--annotation", "hook=yes"];
    let mut command = podman.run_image(&["--hooks-dir", &hooks], &options, &["true"]);
    run_command(&mut command).success();
    for (stage, status) in [
        ("prestart", "creating"),
        ("createRuntime", "creating"),
        ("createContainer", "creating"),
        ("poststart", "running"),
        ("poststop", "stopped"),
    ] {
        let state = fs::read_to_string(podman.path().join(stage)).expect(stage);
        let state: Value = serde_json::from_str(&state).expect("JSON");
        assert_eq!(state["annotations"]["hook"], "yes", "{stage}: {state}");
        // Others call some of these states otherwise.
        let as_specified = runtime().kind != Kind::Gocker || state["status"] == status;
        assert!(as_specified, "{stage}: {state}");
    }
    let failing = json!({
        "version": "1.0.0",
        "hook": {"path": "/bin/sh", "args": ["sh", "-c", "echo the hook says no >&2; exit 1"]},
        "when": {"always": true},
        "stages": ["createRuntime"],
    });
    fs::write(
        podman.path().join("hooks/failing.json"),
        failing.to_string(),
    )
    .expect("write");
    let mut command = podman.run_image(&["--hooks-dir", &hooks], &options, &["true"]);
    let output = run_command(&mut command);
    assert_eq!(output.code(), 126, "{output}");
    podman.assert_nothing_left();
}
