//! Clocks of the container's own: config-linux.md#offset-for-time-namespace.

use conformance::host::is_root;
use conformance::namespaces::link_of;
use conformance::{TestBundle, gocker_only, needs, peer_differs, run_command};
use serde_json::{Value, json};

/// Far from what any machine's clock shows.
const DAYS: u64 = 10_000 * 86_400;

/// With a new time namespace, in which the machine has run for long.
fn in_the_future(bundle: TestBundle) -> TestBundle {
    bundle
        .namespace("time", Some(json!({"type": "time"})))
        .set("/linux/timeOffsets/boottime", json!({"secs": DAYS}))
        .set(
            "/linux/timeOffsets/monotonic",
            json!({"secs": 5, "nanosecs": 7}),
        )
}

/// What /proc/uptime and /proc/self/timens_offsets say.
const CLOCKS: &str = "cat /proc/uptime /proc/self/timens_offsets";

fn assert_in_the_future(output: &str) {
    let uptime = output.split('.').next().expect("an uptime");
    let uptime: u64 = uptime.parse().unwrap_or_else(|_| panic!("{output}"));
    assert!((DAYS..2 * DAYS).contains(&uptime), "{output}");
    let words: Vec<&str> = output.split_whitespace().skip(2).collect();
    let days = DAYS.to_string();
    assert_eq!(
        words,
        ["monotonic", "5", "7", "boottime", days.as_str(), "0"],
        "{output}"
    );
}

#[test]
fn a_new_time_namespace_has_the_offsets_of_the_config() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "Debian's are older than the field");
    assert_in_the_future(&in_the_future(TestBundle::shell(CLOCKS)).run_ok());
    let in_user_namespace = in_the_future(TestBundle::shell(CLOCKS).user_namespace());
    assert_in_the_future(&in_user_namespace.run_ok());
}

#[test]
fn a_new_time_namespace_without_offsets_has_the_hosts_clocks() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc, "Debian's has no time namespaces");
    let bundle = TestBundle::sleeper().namespace("time", Some(json!({"type": "time"})));
    let container = bundle.running();
    assert_ne!(container.namespace("time"), link_of("self", "time"));
    let offsets = container.proc_file("timens_offsets");
    let words: Vec<&str> = offsets.split_whitespace().collect();
    assert_eq!(words, ["monotonic", "0", "0", "boottime", "0", "0"]);
}

#[test]
fn a_container_of_an_ordinary_user_has_clocks_of_its_own() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = in_the_future(TestBundle::shell(CLOCKS).of_ordinary_user());
    assert_in_the_future(&bundle.run_ok());
}

#[test]
fn a_further_process_has_the_containers_clocks() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "Debian's are older than the field");
    for bundle in [
        TestBundle::sleeper(),
        TestBundle::sleeper().user_namespace(),
    ] {
        let bundle = in_the_future(bundle);
        let container = bundle.running();
        let mut exec = container.command("exec", &[]);
        let output = run_command(exec.args(["/bin/sh", "-c", CLOCKS]));
        assert_in_the_future(output.success());
    }
}

#[test]
fn a_time_namespace_is_joined_by_its_path() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "Debian's are older than the field");
    let first = in_the_future(TestBundle::sleeper());
    let pod = first.running();
    for bundle in [
        TestBundle::sleeper(),
        TestBundle::sleeper().user_namespace(),
    ] {
        let second = bundle.namespace("time", Some(pod.joined("time")));
        let container = second.running();
        assert_eq!(container.namespace("time"), pod.namespace("time"));
        let mut exec = container.command("exec", &[]);
        let output = run_command(exec.args(["/bin/sh", "-c", CLOCKS]));
        assert_in_the_future(output.success());
    }
}

#[test]
fn a_new_time_namespace_belongs_to_the_user_namespace_that_is_joined() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let first = TestBundle::sleeper().user_namespace();
    let pod = first.running();
    let joining = |bundle: TestBundle| {
        in_the_future(bundle.user_namespace()).namespace("user", Some(pod.joined("user")))
    };
    assert_in_the_future(&joining(TestBundle::shell(CLOCKS)).run_ok());
}

#[test]
fn offsets_that_make_no_sense_are_refused_by_name() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let new = json!({"type": "time"});
    let joined = json!({"type": "time", "path": "/proc/self/ns/time"});
    let cases: &[(Option<&Value>, Value, &str)] = &[
        (
            None,
            json!({"monotonic": {"secs": 5}}),
            "linux.timeOffsets: ",
        ),
        (
            Some(&joined),
            json!({"monotonic": {"secs": 5}}),
            "linux.timeOffsets: ",
        ),
        (
            Some(&new),
            json!({"realtime": {"secs": 5}}),
            "linux.timeOffsets[\"realtime\"]: ",
        ),
        (
            Some(&new),
            json!({"boottime": {"nanosecs": 1_000_000_000}}),
            "linux.timeOffsets.boottime.nanosecs: ",
        ),
        // A clock that would begin before 0: the kernel knows.
        (
            Some(&new),
            json!({"boottime": {"secs": -1_000_000_000}}),
            "linux.timeOffsets",
        ),
    ];
    for (namespace, offsets, expected) in cases {
        let bundle = TestBundle::new()
            .namespace("time", namespace.cloned())
            .set("/linux/timeOffsets", offsets.clone());
        let output = bundle.run();
        assert!(
            output.one_line_failure().contains(expected),
            "{offsets}: {output}"
        );
        bundle.assert_nothing_left();
    }
}
