//! Limits at the start and while a container runs, what it uses, and what
//! happens when it wants more.

use std::fs;

use conformance::host::{CgroupLayout, cgroup_directory, cgroup_layout};
use conformance::wait_until;

use super::super::{SOON, needs_containerd};
use super::api::{
    ContainerStatsResponse, Empty, LinuxContainerConfig, Resources, UpdateResourcesRequest,
};
use super::{Container, Cri, Pod};

/// Controller, file and content of each of these limits, in the kernel's words.
fn expected(shares: u64, quota: i64, memory: i64) -> Vec<(&'static str, &'static str, String)> {
    match cgroup_layout() {
        CgroupLayout::V1 => vec![
            ("cpu", "cpu.shares", shares.to_string()),
            ("cpu", "cpu.cfs_quota_us", quota.to_string()),
            ("cpu", "cpu.cfs_period_us", "100000".to_owned()),
            ("cpuset", "cpuset.cpus", "0".to_owned()),
            ("memory", "memory.limit_in_bytes", memory.to_string()),
        ],
        CgroupLayout::V2 => vec![
            ("cpu", "cpu.max", format!("{quota} 100000")),
            ("cpuset", "cpuset.cpus", "0".to_owned()),
            ("memory", "memory.max", memory.to_string()),
        ],
    }
}

#[track_caller]
fn assert_limits(pod: &Pod, container: &Container, wanted: &[(&str, &str, String)]) {
    let parent = &pod.config.linux.as_ref().expect("linux").cgroup_parent;
    for (controller, file, content) in wanted {
        let path = format!("{parent}/{}", container.id);
        let directory = cgroup_directory(controller, &path).expect("the controller");
        let found = fs::read_to_string(directory.join(file)).expect("read");
        assert_eq!(found.trim_end(), content, "{file}");
    }
}

fn resources(shares: i64, quota: i64, memory: i64) -> Resources {
    Resources {
        cpu_period: 100_000,
        cpu_quota: quota,
        cpu_shares: shares,
        memory_limit_in_bytes: memory,
        cpuset_cpus: "0".to_owned(),
        ..Resources::default()
    }
}

fn limited(pod: &Pod, script: &str, resources: Resources) -> super::ContainerConfig {
    let mut config = pod.script(script);
    config.linux = Some(LinuxContainerConfig {
        resources: Some(resources),
        security_context: Some(super::with_node_network(Default::default())),
    });
    config
}

#[test]
fn limits_reach_the_kernel_and_can_be_changed() {
    needs_containerd!();
    let cri = Cri::start();
    let pod = cri.pod();
    let script = "while :; do sleep 0.02; done";
    let container = pod.start(limited(&pod, script, resources(512, 50_000, 64 << 20)));
    assert_limits(&pod, &container, &expected(512, 50_000, 64 << 20));
    let request = UpdateResourcesRequest {
        container_id: container.id.clone(),
        linux: Some(resources(256, 20_000, 96 << 20)),
    };
    let Empty {} = cri.must("UpdateContainerResources", &request);
    assert_limits(&pod, &container, &expected(256, 20_000, 96 << 20));
    // One that is only created can be changed, too.
    let created = pod.create(limited(&pod, "true", resources(512, 50_000, 64 << 20)));
    let request = UpdateResourcesRequest {
        container_id: created.id.clone(),
        linux: Some(resources(1024, 70_000, 32 << 20)),
    };
    let Empty {} = cri.must("UpdateContainerResources", &request);
    created.start();
    assert_eq!(created.wait().exit_code, 0);

    let figures = || {
        let answer: ContainerStatsResponse = cri.must("ContainerStats", &container.id());
        let stats = answer.stats.expect("stats");
        let cpu = stats.cpu.and_then(|cpu| cpu.usage_core_nano_seconds);
        let memory = stats.memory.and_then(|memory| memory.working_set_bytes);
        (
            cpu.map_or(0, |value| value.value),
            memory.map_or(0, |value| value.value),
        )
    };
    let first = figures();
    assert!(
        first.0 > 0 && first.1 > 0 && first.1 < 96 << 20,
        "{first:?}"
    );
    let grows = || figures().0 > first.0;
    assert!(wait_until(SOON, grows), "{first:?} {:?}", figures());
    pod.remove();
}

#[test]
fn a_container_that_wants_too_much_memory_says_so_to_the_kubelet() {
    needs_containerd!();
    let cri = Cri::start();
    let pod = cri.pod();
    let grow = "x=$(yes | head -c 100000000); echo $x";
    let container = pod.start(limited(&pod, grow, resources(512, 100_000, 16 << 20)));
    let status = container.wait();
    assert_eq!(
        (status.exit_code, status.reason.as_str()),
        (137, "OOMKilled")
    );
    // The sandbox beside it is not to blame.
    let (code, text) = pod.run(pod.script("echo others live"));
    assert_eq!((code, text.as_str()), (0, "others live\n"));
    pod.remove();
}

#[test]
fn oom_scores_are_taken_over() {
    needs_containerd!();
    let cri = Cri::start();
    let pod = cri.pod();
    let wanted = Resources {
        oom_score_adj: 950,
        ..Resources::default()
    };
    let config = limited(&pod, "cat /proc/self/oom_score_adj", wanted);
    assert_eq!(pod.run(config), (0, "950\n".to_owned()));
    pod.remove();
}
