//! Limits: set at the start, changed later, measured, and what happens at them.

use conformance::host::{CgroupLayout, cgroup_layout};
use conformance::needs;

use super::{Docker, WANTED, is_here};

/// The files of a limit on memory and of a quota of the CPU, and how a quota of 50 ms, 25 ms is
/// written.
fn files() -> (&'static str, &'static str, [&'static str; 2]) {
    match cgroup_layout() {
        CgroupLayout::V1 => (
            "memory.limit_in_bytes",
            "cpu.cfs_quota_us",
            ["50000", "25000"],
        ),
        CgroupLayout::V2 => ("memory.max", "cpu.max", ["50000 100000", "25000 100000"]),
    }
}

#[test]
fn docker_limits_a_container_and_changes_its_limits() {
    needs!(is_here(), "{WANTED}");
    let docker = Docker::start();
    let options = [
        "--memory=64m",
        "--memory-swap=-1",
        "--cpus=0.5",
        "--pids-limit=50",
    ];
    docker.background("limited", &options, "sleep 1000");
    let (memory, cpu, quotas) = files();
    let told = |docker: &Docker| {
        [("memory", memory), ("cpu", cpu), ("pids", "pids.max")]
            .map(|(controller, file)| docker.cgroup_file("limited", controller, file))
    };
    assert_eq!(told(&docker), ["67108864", quotas[0], "50"]);
    let options = [
        "--memory=100m",
        "--memory-swap=-1",
        "--cpus=0.25",
        "--pids-limit=70",
    ];
    docker.ok(&[&["update"], &options[..], &["limited"]].concat());
    assert_eq!(told(&docker), ["104857600", quotas[1], "70"]);
    docker.ok(&["update", "--cpuset-cpus=0", "limited"]);
    assert_eq!(docker.cgroup_file("limited", "cpuset", "cpuset.cpus"), "0");
    let refused = docker.output(&["update", "--cpuset-cpus=4000", "limited"]);
    assert!(refused.failure().contains("4000"), "{refused}");
    docker.ok(&["rm", "--force", "limited"]);
    docker.end();
}

#[test]
fn docker_measures_a_container() {
    needs!(is_here(), "{WANTED}");
    let docker = Docker::start();
    let options = ["--memory=64m", "--pids-limit=50"];
    docker.background("measured", &options, "sleep 1000 & sleep 1001; :");
    let format = "{{.Name}} {{.MemUsage}} {{.PIDs}}";
    let stats = docker.ok(&["stats", "--no-stream", "--format", format, "measured"]);
    assert!(
        stats.starts_with("measured ") && stats.ends_with(" / 64MiB 3"),
        "{stats}"
    );
    assert!(!stats.contains(" 0B / "), "{stats}");
    let top = docker.ok(&["top", "measured", "-o", "pid,args"]);
    for process in ["/bin/sh -c", "sleep 1000", "sleep 1001"] {
        assert!(top.contains(process), "{top}");
    }
    assert_eq!(top.lines().count(), 4, "{top}");
    docker.ok(&["rm", "--force", "measured"]);
    docker.end();
}

#[test]
fn docker_hears_that_the_memory_was_exhausted() {
    needs!(is_here(), "{WANTED}");
    let docker = Docker::start();
    let options = ["--memory=16m", "--memory-swap=16m"];
    docker.background("greedy", &options, "tail /dev/zero; echo still here");
    assert_eq!(docker.ok(&["wait", "greedy"]), "0");
    assert_eq!(docker.inspect("greedy", ".State.OOMKilled"), "true");
    docker.background("whole", &options, "exec tail /dev/zero");
    assert_eq!(docker.ok(&["wait", "whole"]), "137");
    assert_eq!(docker.inspect("whole", ".State.OOMKilled"), "true");
    docker.background("modest", &options, "true");
    assert_eq!(docker.ok(&["wait", "modest"]), "0");
    assert_eq!(docker.inspect("modest", ".State.OOMKilled"), "false");
    docker.ok(&["rm", "greedy", "whole", "modest"]);
    docker.end();
}

#[test]
fn docker_limits_processes_files_and_processors() {
    needs!(is_here(), "{WANTED}");
    let docker = Docker::start();
    let script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done; echo all";
    let output = docker.run(&["--pids-limit=5"], &["/bin/sh", "-c", script]);
    assert!(output.failure().contains("can't fork"), "{output}");

    let options = [
        "--ulimit=nofile=100:200",
        "--ulimit=core=0",
        "--oom-score-adj=500",
    ];
    let script = "ulimit -n; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj";
    assert_eq!(docker.shell(&options, script), "100\n200\n0\n500\n");

    let text = docker.shell(
        &["--cpuset-cpus=0"],
        "grep Cpus_allowed_list /proc/self/status",
    );
    assert_eq!(text, "Cpus_allowed_list:\t0\n");
    docker.end();
}
