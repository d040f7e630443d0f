//! `process.scheduler`, `process.ioPriority` and `linux.personality`.

use conformance::host::{has_capability, is_root};
use conformance::{Output, TestBundle, needs, peer_differs};
use serde_json::{Value, json};

use super::exec::exec;

const CAP_SYS_NICE: u32 = 23;

/// A process that shows how it is scheduled.
const SHOW: [&str; 2] = ["/bin/cat", "/proc/self/stat"];

/// Nice value, realtime priority and policy of /proc/PID/stat, proc_pid_stat(5).
fn shown(output: &Output) -> (i32, i32, i32) {
    let (_, fields) = output.success().rsplit_once(')').expect("a name");
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // The first is the third of all.
    let field = |number: usize| fields[number - 3].parse().expect("a number");
    (field(19), field(40), field(41))
}

/// Whether the kernel gives this machine's cgroups no time at all in real time.
fn is_without_realtime(output: &Output) -> bool {
    output.code() != 0 && output.stderr.contains("EPERM")
}

#[test]
fn a_process_is_scheduled_as_its_configuration_says() {
    needs!(is_root(), "needs root");
    needs!(has_capability(CAP_SYS_NICE), "needs CAP_SYS_NICE");
    peer_differs!(Runc | Crun, "Debian's know no scheduler, or not all");
    let ms = 1_000_000_u64;
    let cases = [
        (json!({"policy": "SCHED_OTHER", "nice": -5}), (-5, 0, 0)),
        (json!({"policy": "SCHED_BATCH", "nice": 19}), (19, 0, 3)),
        (json!({"policy": "SCHED_IDLE"}), (0, 0, 5)),
        (json!({"policy": "SCHED_FIFO", "priority": 7}), (0, 7, 1)),
        (
            json!({"policy": "SCHED_RR", "priority": 1, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
            (0, 1, 2),
        ),
        (
            json!({"policy": "SCHED_DEADLINE", "runtime": ms, "deadline": 100 * ms,
                "period": 200 * ms, "flags": ["SCHED_FLAG_DL_OVERRUN"]}),
            (0, 0, 6),
        ),
    ];
    for (scheduler, expected) in cases {
        for user_namespace in [false, true] {
            let bundle = TestBundle::new()
                .args(&SHOW)
                .set("/process/scheduler", scheduler.clone());
            let bundle = if user_namespace {
                bundle.user_namespace()
            } else {
                bundle
            };
            let output = bundle.run();
            if expected.2 != 0 && is_without_realtime(&output) {
                let line = output.one_line_failure();
                assert!(line.contains("process.scheduler: "), "{output}");
                continue;
            }
            assert_eq!(shown(&output), expected, "{scheduler} {user_namespace}");
        }
    }
}

#[test]
fn exec_is_scheduled_as_its_file_or_else_the_container_says() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "Debian's know no scheduler");
    let bundle = TestBundle::sleeper().set("/process/scheduler", json!({"policy": "SCHED_BATCH"}));
    let container = bundle.running();
    assert_eq!(shown(&exec(&container, &[], &SHOW)), (0, 0, 3));
    let file = bundle.scratch().join("process.json");
    let path = file.to_str().expect("a path");
    for (scheduler, expected) in [
        (Value::Null, (0, 0, 3)),
        (json!({"policy": "SCHED_OTHER", "nice": 3}), (3, 0, 0)),
    ] {
        let process = json!({"args": SHOW, "cwd": "/", "user": {}, "scheduler": scheduler});
        std::fs::write(&file, process.to_string()).expect("write");
        let output = exec(&container, &["--process", path], &[]);
        assert_eq!(shown(&output), expected, "{scheduler}");
    }
}

#[test]
fn a_scheduler_that_contradicts_itself_is_refused_by_its_field() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "name no field");
    let cases = [
        (json!({"policy": "SCHED_ISO"}), "policy"),
        (json!({"policy": "SCHED_X"}), "policy"),
        (json!({"policy": "SCHED_OTHER", "nice": 20}), "nice"),
        (json!({"policy": "SCHED_OTHER", "priority": 5}), "priority"),
        (json!({"policy": "SCHED_FIFO", "priority": 100}), "priority"),
        (json!({"policy": "SCHED_BATCH", "runtime": 5}), "runtime"),
        (json!({"policy": "SCHED_DEADLINE"}), "runtime"),
        (
            json!({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_RECLAIM", "SCHED_FLAG_X"]}),
            "flags[1]",
        ),
    ];
    for (scheduler, field) in cases {
        let bundle = TestBundle::new().set("/process/scheduler", scheduler);
        let output = bundle.run();
        let line = output.one_line_failure();
        let expected = format!("config.json: process.scheduler.{field}: ");
        assert!(line.contains(&expected), "{expected}: {output}");
        bundle.assert_nothing_left();
    }
}

#[test]
fn an_io_priority_is_set_for_init_and_exec() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "Debian's know no I/O priority");
    let show = ["/bin/busybox", "ionice"];
    for (class, level, expected) in [
        ("IOPRIO_CLASS_RT", 0, "realtime: prio 0"),
        ("IOPRIO_CLASS_BE", 7, "best-effort: prio 7"),
        ("IOPRIO_CLASS_IDLE", 3, "idle"),
    ] {
        let priority = json!({"class": class, "priority": level});
        let bundle = TestBundle::new()
            .args(&show)
            .set("/process/ioPriority", priority.clone());
        assert_eq!(bundle.run_ok().trim_end(), expected);
        let bundle = TestBundle::sleeper().set("/process/ioPriority", priority);
        let container = bundle.running();
        let output = exec(&container, &[], &show);
        assert_eq!(output.success().trim_end(), expected);
    }
    for (priority, field) in [
        (
            json!({"class": "IOPRIO_CLASS_BE", "priority": 8}),
            "priority",
        ),
        (
            json!({"class": "IOPRIO_CLASS_BE", "priority": -1}),
            "priority",
        ),
        (json!({"class": "IOPRIO_CLASS_X", "priority": 1}), "class"),
    ] {
        let bundle = TestBundle::new().set("/process/ioPriority", priority);
        let output = bundle.run();
        let expected = format!("config.json: process.ioPriority.{field}: ");
        assert!(output.one_line_failure().contains(&expected), "{output}");
    }
}

#[test]
fn a_personality_is_that_of_init_and_exec() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc, "Debian's knows no personality");
    let show = ["/bin/cat", "/proc/self/personality"];
    for (domain, expected) in [("LINUX", "00000000\n"), ("LINUX32", "00000008\n")] {
        let personality = json!({"domain": domain});
        let bundle = TestBundle::new()
            .args(&show)
            .set("/linux/personality", personality.clone());
        assert_eq!(bundle.run_ok(), expected, "{domain}");
        let bundle = TestBundle::sleeper().set("/linux/personality", personality);
        let container = bundle.running();
        assert_eq!(exec(&container, &[], &show).success(), expected, "{domain}");
    }
}

#[test]
fn a_personality_has_one_of_two_domains_and_no_flags() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "name no field");
    for (personality, field) in [
        (json!({"domain": "SOLARIS"}), "domain"),
        (json!({"domain": "LINUX", "flags": ["x"]}), "flags[0]"),
    ] {
        let bundle = TestBundle::new().set("/linux/personality", personality);
        let output = bundle.run();
        let expected = format!("config.json: linux.personality.{field}: ");
        assert!(output.one_line_failure().contains(&expected), "{output}");
        bundle.assert_nothing_left();
    }
}
