//! `ps`: the container's processes, by their ids on the host.

use conformance::host::is_root;
use conformance::{Container, Output, TestBundle, needs, peer_differs, run_command, wait_until};
use serde_json::Value;

fn ps(container: &Container<'_>, options: &[&str], ps_options: &[&str]) -> Output {
    run_command(container.command("ps", options).args(ps_options))
}

fn ids(container: &Container<'_>) -> Value {
    let output = ps(container, &["--format", "json"], &[]);
    serde_json::from_str(output.success()).expect("JSON")
}

fn with_two_processes() -> TestBundle {
    TestBundle::shell("sleep 1001 & exec sleep 1002")
}

fn wait_for_both(container: &Container<'_>) {
    let both = || {
        let text = ps(container, &[], &["-eo", "pid,args"]).stdout;
        text.contains("sleep 1001") && text.contains("sleep 1002")
    };
    assert!(wait_until(std::time::Duration::from_secs(10), both));
}

#[test]
fn json_is_an_array_of_host_pids() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it takes no options for ps(1)");
    let bundle = with_two_processes();
    let container = bundle.running();
    wait_for_both(&container);
    let ids = ids(&container);
    let ids = ids.as_array().expect("an array");
    assert_eq!(ids.len(), 2);
    assert!(ids.contains(&container.pid().into()), "{ids:?}");
}

#[test]
fn the_table_is_that_of_ps_without_strangers() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it takes no options for ps(1)");
    let bundle = with_two_processes();
    let container = bundle.running();
    wait_for_both(&container);
    let text = ps(&container, &[], &[]).success().to_owned();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(
        lines[0].starts_with("UID") && lines[0].contains("PID"),
        "{text}"
    );
    let own = container.pid().to_string();
    assert!(
        lines
            .iter()
            .any(|line| line.split_whitespace().nth(1) == Some(&own))
    );
}

#[test]
fn what_follows_the_id_goes_to_ps() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it takes no options for ps(1)");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let output = ps(&container, &[], &["-e", "-o", "pid,comm"]);
    let text = output.success().to_owned();
    assert!(
        text.starts_with("    PID COMMAND\n") || text.starts_with("  PID COMMAND\n"),
        "{text:?}"
    );
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words[2..], [container.pid().to_string().as_str(), "sleep"]);
}

#[test]
fn ps_options_that_hide_the_pid_or_are_wrong_are_an_error() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it has no table");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let output = ps(&container, &[], &["-o", "comm"]);
    assert!(output.one_line_failure().contains("PID"), "{output}");
    ps(&container, &[], &["--no-such-option"]).failure();
    ps(&container, &["--format", "xml"], &[]).failure();
}

#[test]
fn a_stopped_container_has_no_processes_and_a_missing_one_is_an_error() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it prints an empty array");
    let bundle = TestBundle::new();
    let container = bundle.running();
    container.wait_for("stopped");
    assert_eq!(ids(&container), Value::Null);
    let output = ps(&container, &[], &[]);
    assert_eq!(output.success().lines().count(), 1, "{output}");
    let output = ps(&bundle.container_named("nobody"), &[], &[]);
    assert!(output.failure().contains("does not exist"), "{output}");
}

/// Whatever ps(1) can print, with the container's lines alone.
#[test]
fn every_style_of_ps_options_is_taken() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it takes no options for ps(1)");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let pid = container.pid().to_string();
    for options in [
        &["aux"][..],
        &["-ef"],
        &["-e", "-T"],
        &["-e", "-o", "pid,cmd"],
        &["-eo", "user,pid,comm"],
        &["axo", "pid,args"],
    ] {
        let output = ps(&container, &[], options);
        let lines: Vec<&str> = output.success().lines().collect();
        assert_eq!(lines.len(), 2, "{output}");
        assert!(
            lines[1].contains(&pid) && lines[1].contains("sleep"),
            "{output}"
        );
    }
}
