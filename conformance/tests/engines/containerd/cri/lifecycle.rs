//! From RunPodSandbox to RemovePodSandbox.

use std::fs;

use conformance::{leftovers, wait_until};

use super::super::{SOON, needs_containerd};
use super::api::{
    Empty, ListContainersResponse, PodSandboxStatusResponse, RunPodSandboxRequest, VersionResponse,
    state,
};
use super::{Cri, Id};

#[test]
fn a_pod_goes_from_its_sandbox_to_its_removal() {
    needs_containerd!();
    let cri = Cri::start();
    let version: VersionResponse = cri.must("Version", &Empty {});
    assert_eq!(
        (
            version.runtime_name.as_str(),
            version.runtime_api_version.as_str()
        ),
        ("containerd", "v1")
    );
    let pod = cri.pod();
    let answer: PodSandboxStatusResponse = cri.must("PodSandboxStatus", &id(&pod.id));
    let status = answer.status.expect("a status");
    assert_eq!(
        (status.state, status.runtime_handler.as_str()),
        (0, "gocker")
    );

    let script = "echo hello; echo bad >&2; trap 'echo asked; exit 3' TERM; sleep 1000 & wait";
    let container = pod.create(pod.script(script));
    assert_eq!(container.status().state, state::CREATED);
    container.start();
    assert_eq!(container.status().state, state::RUNNING);
    let said = || container.output().lines().count() == 2;
    assert!(wait_until(SOON, said), "{}", container.output());
    // The kubelet has moved the log away: further lines go to a new file.
    let moved = container.log.with_extension("1");
    fs::rename(&container.log, &moved).expect("rename");
    let Empty {} = cri.must("ReopenContainerLog", &container.id());
    container.stop(10);
    let status = container.status();
    assert_eq!((status.state, status.exit_code), (state::EXITED, 3));
    assert_eq!(container.output(), "asked\n");
    let before = fs::read_to_string(moved).expect("read");
    assert!(before.contains("stdout F hello") && before.contains("stderr F bad"));
    container.remove();
    let list: ListContainersResponse = cri.must("ListContainers", &Empty {});
    assert_eq!(list.containers, []);
    // What is stopped already is stopped.
    let Empty {} = cri.must("StopPodSandbox", &id(&pod.id));
    let answer: PodSandboxStatusResponse = cri.must("PodSandboxStatus", &id(&pod.id));
    assert_eq!(answer.status.expect("a status").state, 1);
    pod.remove();
}

#[test]
fn a_container_that_does_not_stop_is_killed() {
    needs_containerd!();
    let cri = Cri::start();
    let pod = cri.pod();
    let stubborn = "trap '' TERM; while :; do sleep 0.1; done";
    let container = pod.start(pod.script(stubborn));
    container.stop(1);
    let status = container.status();
    assert_eq!((status.state, status.exit_code), (state::EXITED, 137));
    container.remove();
    // Without any time to end by itself.
    let container = pod.start(pod.sleeper());
    container.stop(0);
    assert_eq!(container.status().exit_code, 137);
    // StopPodSandbox ends what still runs, and RemovePodSandbox what is left.
    let left = pod.start(pod.sleeper());
    let created = pod.create(pod.sleeper());
    let Empty {} = cri.must("StopPodSandbox", &id(&pod.id));
    assert_eq!(left.status().state, state::EXITED);
    assert_eq!(created.status().state, state::CREATED);
    pod.remove();
    let list: ListContainersResponse = cri.must("ListContainers", &Empty {});
    assert_eq!(list.containers, []);
    let processes = leftovers::processes(&leftovers::cgroups(&cri.containerd.cgroup));
    assert!(processes.is_empty(), "{processes:?}");
}

#[test]
fn what_cannot_start_says_why() {
    needs_containerd!();
    let cri = Cri::start();
    let request = RunPodSandboxRequest {
        config: Some(cri.sandbox(super::NamespaceOption {
            network: super::namespace::NODE,
            ..super::NamespaceOption::default()
        })),
        runtime_handler: "other".to_owned(),
    };
    let status = cri
        .call::<Id>("RunPodSandbox", &request)
        .expect_err("no such handler");
    assert!(status.message.contains("\"other\""), "{status:?}");

    let pod = cri.pod();
    for (command, reason) in [
        ("nosuchprogram", "executable file not found in $PATH"),
        ("/bin/nosuchprogram", "no such file or directory"),
        ("/etc/passwd", "permission denied"),
    ] {
        let mut config = pod.script("");
        config.command = vec![command.to_owned()];
        let container = pod.create(config);
        let status = cri
            .call::<Empty>("StartContainer", &container.id())
            .expect_err("a command that is not there");
        assert!(status.message.contains(reason), "{status:?}");
        let status = container.status();
        assert_eq!(
            (status.state, status.exit_code, status.reason.as_str()),
            (state::EXITED, 128, "StartError"),
        );
        assert!(status.message.contains(reason), "{status:?}");
        container.remove();
    }
    pod.remove();
}

#[test]
fn a_pod_outlives_its_engine() {
    needs_containerd!();
    let mut cri = Cri::start();
    let ids = {
        let pod = cri.pod();
        (pod.start(pod.sleeper()).id, pod.id, pod.config)
    };
    cri.containerd.restart();
    cri.wait_up();
    let pod = super::Pod {
        cri: &cri,
        id: ids.1,
        config: ids.2,
    };
    let container = super::Container {
        cri: &cri,
        id: ids.0,
        log: std::path::PathBuf::new(),
    };
    assert_eq!(container.status().state, state::RUNNING);
    assert_eq!(container.sh("echo still here"), "still here\n");
    container.stop(10);
    assert_eq!(container.status().exit_code, 0);
    container.remove();
    pod.remove();
}

fn id(id: &str) -> Id {
    Id { id: id.to_owned() }
}
