//! What `bundle` and `gocker run` take beside the image's config: mounts, confinement, limits.

use std::fs;

use conformance::HostileRegistry;
use conformance::images;
use conformance::test_bundle::unique_id;
use serde_json::{Value, json};

use super::bundle::Bundles;
use super::state;

/// Bundles the small system with `args` to run `script`; returns what the container writes.
#[track_caller]
fn run(bundles: &mut Bundles, args: &[&str], script: &str) -> String {
    let args = [args, &["--", "/bin/sh", "-ec", script]].concat();
    bundles.try_bundle(json!({"Cmd": ["x"]}), &args).success();
    let output = bundles.store.run_bundle(&bundles.directory(), &unique_id());
    output.success().to_owned()
}

#[test]
fn mounts_of_all_forms_are_in_the_container() {
    let mut bundles = Bundles::new();
    let host = bundles.store.beside("host");
    fs::create_dir_all(host.join("sub")).unwrap();
    fs::write(host.join("f"), "of the host").unwrap();
    let path = host.to_str().unwrap();
    let args = [
        "-v",
        &format!("{path}:/writable"),
        "--volume",
        &format!("{path}/f:/etc/one:ro"),
        "--mount",
        &format!("type=bind,src={path},dst=/fields,ro"),
        "--mount",
        "type=tmpfs,dst=/memory,tmpfs-size=64k,tmpfs-mode=700",
        "--tmpfs",
        "/scratch:size=1m",
        "--read-only",
    ];
    let script = "cat /etc/one /fields/f; echo new > /writable/new; echo x > /scratch/x
        for path in /fields/x /x /etc/one; do
            if (echo x > $path) 2>/dev/null; then echo $path is writable; fi
        done
        echo; stat -c %a /memory; df -k /memory | tail -1 | tr -s ' ' | cut -d' ' -f2";
    let output = run(&mut bundles, &args, script);
    assert_eq!(output, "of the hostof the host\n700\n64\n");
    assert_eq!(fs::read_to_string(host.join("new")).unwrap(), "new\n");
}

#[test]
fn confinement_and_limits_reach_the_process() {
    let mut bundles = Bundles::new();
    let file = bundles.store.beside("env");
    fs::write(&file, "# a comment\n\nFROM_FILE=a b\nOVER=file\nLC_ALL\n").unwrap();
    let args = [
        "--cap-drop",
        "ALL",
        "--cap-add",
        "cap_kill",
        "--ulimit",
        "nofile=100:200",
        "--ulimit",
        "core=0",
        "--sysctl",
        "net.ipv4.ip_default_ttl=33",
        "--group-add",
        "audio",
        "--group-add",
        "1234",
        "--security-opt",
        "no-new-privileges",
        "--device",
        "/dev/null:/dev/nothing:rw",
        "--env-file",
        file.to_str().unwrap(),
        "-e",
        "OVER=line",
        "--shm-size",
        "1m",
        "--oom-score-adj",
        "500",
        "--hostname",
        "named",
    ];
    let script = "grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status | tr -d '\\t'
        ulimit -Sn; ulimit -Hn; cat /proc/sys/net/ipv4/ip_default_ttl; id -G
        stat -c %t:%T /dev/nothing; echo x > /dev/nothing; echo $FROM_FILE $OVER $LC_ALL
        df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2
        cat /proc/self/oom_score_adj; hostname";
    let expected = "CapBnd:0000000000000020\nCapEff:0000000000000020\nNoNewPrivs:1\n100\n200\n33\n\
                    0 66 1234\n1:3\na b line C.UTF-8\n1024\n500\nnamed\n";
    let mut lines: Vec<String> = run(&mut bundles, &args, script)
        .lines()
        .map(str::to_owned)
        .collect();
    lines[..2].sort();
    assert_eq!(lines.join("\n") + "\n", expected);
}

#[test]
fn a_capability_that_another_user_is_given_can_be_used() {
    let mut bundles = Bundles::new();
    let script = "grep -E '^Cap(Eff|Amb)' /proc/self/status | tr -d '\\t'";
    let args = ["-u", "33", "--cap-add", "NET_BIND_SERVICE"];
    let output = run(&mut bundles, &args, script);
    assert_eq!(output, "CapEff:0000000000000400\nCapAmb:0000000000000400\n");
}

/// Bundles with each row's flags, and looks for its value at its place in config.json.
#[track_caller]
fn assert_configs(bundles: &mut Bundles, table: &[(&[&str], &str, Value)]) {
    for (args, pointer, expected) in table {
        let config = bundles.config(json!({"Cmd": ["x"]}), args);
        assert_eq!(config.pointer(pointer), Some(expected), "{args:?}");
    }
}

#[test]
fn limits_are_in_the_config_where_engines_put_them() {
    let memory = |field: &str| format!("/linux/resources/memory/{field}");
    let (swap, reservation) = (memory("swap"), memory("reservation"));
    let table: [(&[&str], &str, Value); 6] = [
        (&["-m", "1m", "--memory-swap", "2m"], &swap, json!(2 << 20)),
        (&["-m", "1m", "--memory-swap", "-1"], &swap, json!(-1)),
        (
            &["--memory-reservation", "1m"],
            &reservation,
            json!(1 << 20),
        ),
        (
            &["--cpu-shares", "512"],
            "/linux/resources/cpu/shares",
            json!(512),
        ),
        (
            &["--cpus", "2", "--cpuset-cpus", "0-1"],
            "/linux/resources/cpu/cpus",
            json!("0-1"),
        ),
        (
            &["--cpuset-mems", "0"],
            "/linux/resources/cpu/mems",
            json!("0"),
        ),
    ];
    assert_configs(&mut Bundles::new(), &table);
}

#[test]
fn annotations_and_confinement_are_in_the_config_where_engines_put_them() {
    let mut bundles = Bundles::new();
    let profile = bundles.store.beside("seccomp.json");
    let rules = json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]});
    fs::write(&profile, rules.to_string()).unwrap();
    let seccomp = format!("seccomp={}", profile.display());
    let signal = "/annotations/org.opencontainers.image.stopSignal";
    let table: [(&[&str], &str, Value); 6] = [
        (&["--annotation", "a=b=c"], "/annotations/a", json!("b=c")),
        (
            &["--label", "run.oci.x=1"],
            "/annotations/run.oci.x",
            json!("1"),
        ),
        (&["--stop-signal", "SIGINT"], signal, json!("SIGINT")),
        (
            &["--security-opt", &seccomp],
            "/linux/seccomp/syscalls/0/names/0",
            json!("mkdir"),
        ),
        (
            &["--security-opt", "apparmor=own"],
            "/process/apparmorProfile",
            json!("own"),
        ),
        (
            &["--security-opt", "unmask=ALL"],
            "/linux/maskedPaths",
            json!([]),
        ),
    ];
    assert_configs(&mut bundles, &table);
}

#[test]
fn a_bad_value_names_its_flag_and_leaves_nothing() {
    let mut bundles = Bundles::new();
    let reference = bundles.pull(&images::busybox().unwrap());
    let before = state(&bundles.store);
    let table: [(&[&str], &str); 17] = [
        (&["-v", "name:/x"], "--volume"),
        (&["-v", "/nowhere:/x"], "--volume"),
        (&["--mount", "type=bind,dst=/x"], "--mount"),
        (&["--mount", "type=volume,src=a,dst=/x"], "--mount"),
        (&["--mount", "type=bind,src=/nowhere,dst=/x"], "--mount"),
        (&["--tmpfs", "/x:sise=1"], "--tmpfs"),
        (&["--tmpfs", "/x", "--tmpfs", "/x"], "--tmpfs"),
        (&["--device", "/dev"], "--device"),
        (&["--device", "/dev/null:x"], "--device"),
        (&["--cap-add", "SYS_NOTHING"], "--cap-add"),
        (&["--security-opt", "seccomp=/nowhere"], "--security-opt"),
        (&["--ulimit", "nofile=2:1"], "--ulimit"),
        (&["--sysctl", "a"], "--sysctl"),
        (&["--memory-swap", "1m"], "--memory-swap"),
        (&["--group-add", "nobody-has-it"], "--group-add"),
        (&["--env-file", "/nowhere"], "--env-file"),
        (&["--cpuset-cpus", "all"], "--cpuset-cpus"),
    ];
    for (args, flag) in table {
        let args = [&["bundle", &reference, "--name", "x"], args, &["--", "x"]].concat();
        let output = bundles.store.run(&args);
        let line = output
            .failure()
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned();
        assert!(
            line.starts_with("gocker-image: ") && line.contains(flag),
            "{args:?}: {line}"
        );
        assert_eq!(state(&bundles.store), before, "{args:?}");
    }
}

#[test]
fn gocker_run_takes_the_same_options() {
    let server = HostileRegistry::honest().unwrap();
    let store = conformance::StoreRoot::new().unwrap();
    let reference = server.serve(&images::busybox().unwrap(), "busybox", "latest");
    let host = store.beside("host");
    fs::create_dir(&host).unwrap();
    let volume = format!("{}:/data", host.display());
    let output = store.run_gocker(&[
        "run", "--rm", "-v", &volume, "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "-w",
        "/data", &reference, "/bin/sh", "-c",
        "echo x > new; echo y > /tmp/new; (echo z > /new) 2>/dev/null || grep CapEff /proc/self/status",
    ]);
    assert_eq!(output.success(), "CapEff:\t0000000000000000\n");
    assert_eq!(fs::read_to_string(host.join("new")).unwrap(), "x\n");
}
