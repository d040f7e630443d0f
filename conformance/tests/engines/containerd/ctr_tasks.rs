//! What `ctr tasks` does with a container that runs, and what `ctr events`
//! tells of it.

use std::fs::File;
use std::io::Write as _;
use std::process::{Child, Stdio};
use std::time::Duration;

use conformance::command::process_id;
use conformance::{run_command, wait_until};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use super::super::{run_on_a_terminal, wait_for};
use super::{Containerd, SOON, needs_containerd};

const SLEEP: &[&str] = &["/bin/sleep", "1000"];

#[test]
fn ctr_execs_in_a_container() {
    needs_containerd!();
    let containerd = Containerd::start();
    let id = containerd.detach(&["--env", "FROM=run"], SLEEP);
    let script = "echo out; echo err >&2; exit 7";
    let output = containerd.exec(&[&id, "/bin/sh", "-c", script]);
    assert_eq!(output.code(), 7, "{output}");
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str()),
        ("out\n", "err\n")
    );
    let script =
        "id -u; id -g; pwd; echo $FROM; grep NoNewPrivs /proc/self/status; cat /proc/1/comm";
    let options = ["--user", "33:44", "--cwd", "/tmp", &id];
    let output = containerd.exec(&[&options[..], &["/bin/sh", "-c", script]].concat());
    assert_eq!(
        output.success(),
        "33\n44\n/tmp\nrun\nNoNewPrivs:\t1\nsleep\n"
    );
    let output = containerd.exec(&["--user", "web", &id, "/bin/id", "-un"]);
    assert_eq!(output.success(), "web\n");

    let output = containerd.exec(&[&id, "nosuchprogram"]);
    let text = output.failure();
    assert!(
        text.contains("executable file not found in $PATH"),
        "{output}"
    );
    let output = containerd.exec(&["--cwd", "/nowhere", &id, "/bin/true"]);
    assert!(
        output.failure().contains("no such file or directory"),
        "{output}"
    );
    containerd.kill_and_remove(&id);
    let output = containerd.exec(&[&id, "/bin/true"]);
    assert!(output.failure().contains("not found"), "{output}");
}

#[test]
fn ctr_execs_on_a_terminal_and_in_the_background() {
    needs_containerd!();
    let containerd = Containerd::start();
    let id = containerd.detach(&[], SLEEP);
    let script = "tty; test -t 0 && test -t 2 && echo both; exit 5";
    let mut command = containerd.exec_command(&["--tty", &id, "/bin/sh", "-c", script]);
    let (code, text) = run_on_a_terminal(&mut command);
    // ctr sets the size of a terminal whose process may have ended by then.
    let text: Vec<&str> = text
        .lines()
        .filter(|line| !line.contains("resize pty"))
        .collect();
    assert_eq!((code, text), (5, vec!["/dev/pts/0", "both"]));

    let mut command = containerd.ctr();
    command.args(["tasks", "exec", "--detach", "--exec-id", "other"]);
    command
        .arg("--fifo-dir")
        .arg(containerd.directory.path().join("fifo"));
    run_command(command.args([&id, "/bin/sleep", "999"])).success();
    let listed = || run_command(&mut containerd.task("ps", &[&id])).stdout;
    let (pid, _) = containerd.status(&id).expect("a task");
    let ps = listed();
    assert_eq!(ps.lines().count(), 3, "a heading and two processes: {ps}");
    assert!(ps.contains(&format!("{pid} ")), "{ps}");
    assert!(ps.contains("other"), "{ps}");
    run_command(&mut containerd.task("kill", &["--exec-id", "other", "-s", "SIGTERM", &id]))
        .success();
    let one = wait_until(Duration::from_secs(10), || listed().lines().count() == 2);
    assert!(one, "{}", listed());
    containerd.kill_and_remove(&id);
}

#[test]
fn ctr_attaches_to_a_container() {
    needs_containerd!();
    let containerd = Containerd::start();
    let script = "while read -r line; do echo got $line; test $line = end && exit 9; done";
    let id = containerd.detach(&[], &["/bin/sh", "-c", script]);
    let mut child = containerd
        .task("attach", &[&id])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("spawn");
    let mut stdin = child.stdin.take().expect("stdin");
    stdin.write_all(b"hello\nend\n").expect("write");
    assert_eq!(wait_for(&mut child, SOON), 9);
    let text = std::io::read_to_string(child.stdout.take().expect("stdout")).expect("read");
    assert_eq!(text, "got hello\ngot end\n");
    run_command(containerd.ctr().args(["containers", "rm", &id])).success();
    containerd.assert_gone(&id);
}

#[test]
fn ctr_pauses_and_measures_a_container() {
    needs_containerd!();
    let containerd = Containerd::start();
    let script = "while :; do : $((i=i+1)); test $((i % 1000)) = 0 && echo $i >/count; done";
    let id = containerd.detach(&["--memory-limit", "67108864"], &["/bin/sh", "-c", script]);
    let count = || {
        let root = containerd.status(&id).expect("a task").0;
        std::fs::read_to_string(format!("/proc/{root}/root/count")).unwrap_or_default()
    };
    assert!(wait_until(SOON, || !count().is_empty()), "it should count");
    run_command(&mut containerd.task("pause", &[&id])).success();
    assert!(containerd.is(&id, "PAUSED"));
    let before = count();
    let output = containerd.exec(&[&id, "/bin/true"]);
    assert!(output.failure().contains("paused"), "{output}");
    let output = run_command(&mut containerd.task("metrics", &["--format", "json", &id]));
    let metrics: Value = serde_json::from_str(output.success()).expect("JSON");
    let figure = |pointer: &str| metrics.pointer(pointer).and_then(Value::as_u64);
    // v1's schema, or v2's.
    let limit = figure("/memory/usage/limit").or_else(|| figure("/memory/usage_limit"));
    assert_eq!(limit, Some(67_108_864), "{output}");
    let used = figure("/cpu/usage/total").or_else(|| figure("/cpu/usage_usec"));
    assert!(used > Some(0), "{output}");
    assert_eq!(figure("/pids/current"), Some(1), "{output}");
    assert_eq!(count(), before, "nothing goes on in a paused container");
    run_command(&mut containerd.task("resume", &[&id])).success();
    assert!(containerd.is(&id, "RUNNING"));
    assert!(wait_until(SOON, || count() != before), "it should go on");
    // A paused one can be killed.
    run_command(&mut containerd.task("pause", &[&id])).success();
    let output = run_command(&mut containerd.task("rm", &["--force", &id]));
    assert!([0, 137].contains(&output.code()), "{output}");
    run_command(containerd.ctr().args(["containers", "rm", &id])).success();
    containerd.assert_gone(&id);
}

#[test]
fn a_checkpoint_is_made_or_says_why_not_and_the_container_runs_on() {
    needs_containerd!();
    let containerd = Containerd::start();
    let id = containerd.detach(&[], SLEEP);
    let output = run_command(&mut containerd.task("checkpoint", &[&id]));
    // A runtime without checkpoints names the command, one whose CRIU does not
    // know this kernel names CRIU.
    let text = output.stderr.to_lowercase();
    assert!(
        output.code() == 0 || text.contains("checkpoint") || text.contains("criu"),
        "{output}"
    );
    assert!(containerd.is(&id, "RUNNING"), "{}", containerd.log());
    containerd.exec(&[&id, "/bin/true"]).success();
    containerd.kill_and_remove(&id);
}

/// `ctr events` while a test runs.
struct Events {
    client: Child,
    file: std::path::PathBuf,
}

impl Events {
    fn of(containerd: &Containerd) -> Self {
        let file = containerd.directory.path().join("events");
        let client = containerd
            .ctr()
            .arg("events")
            .stdin(Stdio::null())
            .stdout(File::create(&file).expect("create a file"))
            .spawn()
            .expect("start ctr events");
        let events = Self { client, file };
        // It is heard from then on when the first event that it caused is seen.
        let heard = wait_until(SOON, || {
            let mut label = containerd.ctr();
            label.args(["namespaces", "label", &containerd.namespace]);
            run_command(label.arg(format!("n={}", conformance::test_bundle::unique_id())))
                .success();
            events.text().contains("/namespaces/update")
        });
        assert!(heard, "events should come");
        events
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.file).expect("read the events")
    }

    /// The topics of tasks and their contents, in order.
    fn tasks(&self) -> Vec<(String, Value)> {
        let text = self.text();
        let lines = text
            .lines()
            .filter_map(|line| line.split_once(" /tasks/")?.1.split_once(' '));
        lines
            .map(|(topic, json)| (topic.to_owned(), serde_json::from_str(json).expect("JSON")))
            .collect()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if let Err(error) = kill(process_id(self.client.id()), Signal::SIGKILL) {
            eprintln!("clean-up: {error}");
        }
        self.client.wait().expect("wait");
    }
}

#[test]
fn containerd_hears_of_what_happens_to_a_task() {
    needs_containerd!();
    let containerd = Containerd::start();
    let events = Events::of(&containerd);
    let topics = || -> Vec<String> { events.tasks().into_iter().map(|(topic, _)| topic).collect() };
    let has_deleted = || topics().last().is_some_and(|topic| topic == "delete");
    let id = containerd.detach(&[], SLEEP);
    assert_eq!(containerd.exec(&[&id, "/bin/sh", "-c", "exit 4"]).code(), 4);
    run_command(&mut containerd.task("pause", &[&id])).success();
    run_command(&mut containerd.task("resume", &[&id])).success();
    containerd.kill_and_remove(&id);
    assert!(wait_until(SOON, has_deleted), "{:?}", topics());
    assert_eq!(
        topics(),
        [
            "create",
            "start",
            "exec-added",
            "exec-started",
            "exit",
            "paused",
            "resumed",
            "exit",
            "delete"
        ]
    );
    let statuses: Vec<Value> = events
        .tasks()
        .into_iter()
        .filter(|(topic, _)| topic == "exit")
        .map(|(_, event)| event["exit_status"].clone())
        .collect();
    assert_eq!(statuses, [4, 137]);

    let grow = "x=$(/bin/yes | /bin/head -c 100000000); echo $x";
    let output = containerd.run(&["--memory-limit", "16777216"], &["/bin/sh", "-c", grow]);
    assert_eq!(output.code(), 137, "{output}");
    assert!(wait_until(SOON, has_deleted), "{:?}", topics());
    assert!(topics().contains(&"oom".to_owned()), "{:?}", topics());
}
