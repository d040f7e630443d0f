//! CRI, which is how Kubernetes uses a runtime: the messages of the kubelet to
//! containerd's plugin, with the runtime under test as the RuntimeClass
//! handler `gocker`.
//!
//! Exec and Attach, which lead to an HTTP stream between the kubelet and the
//! engine, ask no more of a runtime than `ctr tasks exec` and `attach` do.

mod api;
mod grpc;
mod lifecycle;
mod namespaces;
mod probes;
mod resources;
mod security;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use conformance::test_bundle::unique_id;
use conformance::{leftovers, runtime, wait_until};

use self::api::{
    ContainerConfig, ContainerMetadata, ContainerStatus, ContainerStatusResponse,
    CreateContainerRequest, Empty, ExecSyncRequest, ExecSyncResponse, Id, ImageSpec,
    LinuxContainerConfig, LinuxSandboxConfig, Metadata, NamespaceOption, RunPodSandboxRequest,
    SandboxConfig, SandboxSecurityContext, SecurityContext, namespace, state,
};
use self::grpc::{Client, Status};
use super::super::IMAGE;
use super::{Containerd, DISABLED, SOON};

/// A containerd with the CRI plugin.
struct Cri {
    containerd: Containerd,
    client: Client,
}

impl Cri {
    fn start() -> Self {
        let containerd =
            Containerd::with_config("k8s.io", &format!("conformance-{}", unique_id()), config);
        let client = Client::new(&containerd.directory.path().join("socket"));
        let cri = Self { containerd, client };
        cri.wait_up();
        cri
    }

    /// CRI answers some time after containerd does.
    fn wait_up(&self) {
        let up = || self.call::<Empty>("Status", &Empty {}).is_ok();
        assert!(wait_until(SOON, up), "{}", self.containerd.log());
    }

    fn call<Answer: prost::Message + Default>(
        &self,
        method: &str,
        request: &impl prost::Message,
    ) -> Result<Answer, Status> {
        self.client.call(method, request)
    }

    /// A call that must succeed.
    #[track_caller]
    fn must<Answer: prost::Message + Default>(
        &self,
        method: &str,
        request: &impl prost::Message,
    ) -> Answer {
        self.call(method, request).unwrap_or_else(|status| {
            panic!("{method}: {status:?}\n{}", self.containerd.log());
        })
    }

    /// A pod in the node's network.
    #[track_caller]
    fn pod(&self) -> Pod<'_> {
        self.pod_with(NamespaceOption {
            network: namespace::NODE,
            pid: namespace::CONTAINER,
            ..NamespaceOption::default()
        })
    }

    #[track_caller]
    fn pod_with(&self, options: NamespaceOption) -> Pod<'_> {
        self.run_pod(self.sandbox(options))
            .unwrap_or_else(|status| panic!("{status:?}\n{}", self.containerd.log()))
    }

    fn sandbox(&self, options: NamespaceOption) -> SandboxConfig {
        let uid = unique_id();
        let logs = self.containerd.directory.path().join("logs").join(&uid);
        SandboxConfig {
            metadata: Some(Metadata {
                name: format!("pod-{uid}"),
                uid: uid.clone(),
                namespace: "default".to_owned(),
            }),
            log_directory: logs.display().to_string(),
            linux: Some(LinuxSandboxConfig {
                cgroup_parent: format!("/{}/pod{uid}", self.containerd.cgroup),
                security_context: Some(SandboxSecurityContext {
                    namespace_options: Some(options),
                    ..SandboxSecurityContext::default()
                }),
                ..LinuxSandboxConfig::default()
            }),
            ..SandboxConfig::default()
        }
    }

    fn run_pod(&self, config: SandboxConfig) -> Result<Pod<'_>, Status> {
        let request = RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: "gocker".to_owned(),
        };
        let Id { id } = self.call("RunPodSandbox", &request)?;
        Ok(Pod {
            cri: self,
            id,
            config,
        })
    }
}

/// The part of config.toml that is about CRI.
fn config(directory: &Path) -> String {
    let at = |name: &str| directory.join(name).display().to_string();
    let cri = "[plugins.\"io.containerd.grpc.v1.cri\"";
    format!(
        "disabled_plugins = [{DISABLED}]\n\
         {cri}]\nsandbox_image = {IMAGE:?}\nstream_server_address = \"127.0.0.1\"\n\
         restrict_oom_score_adj = true\ndisable_apparmor = true\n\
         disable_hugetlb_controller = true\nnetns_mounts_under_state_dir = true\n\
         {cri}.cni]\nbin_dir = \"/usr/lib/cni\"\nconf_dir = {net:?}\n\
         {cri}.containerd]\nsnapshotter = \"native\"\n\
         default_runtime_name = \"gocker\"\n\
         {cri}.containerd.runtimes.gocker]\nruntime_type = \"io.containerd.runc.v2\"\n\
         {cri}.containerd.runtimes.gocker.options]\nBinaryName = {program:?}\nRoot = {root:?}\n",
        net = at("net.d"),
        program = runtime().program,
        root = at("runtime"),
    )
}

/// A sandbox.
struct Pod<'c> {
    cri: &'c Cri,
    id: String,
    config: SandboxConfig,
}

impl Pod<'_> {
    /// A container that runs this script, for the caller to change.
    fn script(&self, script: &str) -> ContainerConfig {
        let name = unique_id();
        ContainerConfig {
            log_path: format!("{name}.log"),
            metadata: Some(ContainerMetadata { name }),
            image: Some(ImageSpec {
                image: IMAGE.to_owned(),
            }),
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            ..ContainerConfig::default()
        }
    }

    /// A container that sleeps.
    fn sleeper(&self) -> ContainerConfig {
        self.script("trap 'exit 0' TERM; sleep 1000 & wait")
    }

    #[track_caller]
    fn create(&self, config: ContainerConfig) -> Container<'_> {
        let log = Path::new(&self.config.log_directory).join(&config.log_path);
        let request = CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        let Id { id } = self.cri.must("CreateContainer", &request);
        Container {
            cri: self.cri,
            id,
            log,
        }
    }

    #[track_caller]
    fn start(&self, config: ContainerConfig) -> Container<'_> {
        let container = self.create(config);
        container.start();
        container
    }

    /// Runs a container to its end; its exit code and what it wrote.
    #[track_caller]
    fn run(&self, config: ContainerConfig) -> (i32, String) {
        let container = self.start(config);
        let status = container.wait();
        let text = container.output();
        container.remove();
        (status.exit_code, text)
    }

    /// As [`Pod::run`], in a security context.
    #[track_caller]
    fn run_in(&self, context: SecurityContext, script: &str) -> (i32, String) {
        self.run(in_context(self.script(script), context))
    }

    /// Stops and removes the pod; nothing may be left of it.
    #[track_caller]
    fn remove(self) {
        let id = Id {
            id: self.id.clone(),
        };
        let Empty {} = self.cri.must("StopPodSandbox", &id);
        let Empty {} = self.cri.must("RemovePodSandbox", &id);
        let cgroup = &self.config.linux.as_ref().expect("linux").cgroup_parent;
        let states = self.cri.containerd.runtime_root().join("k8s.io");
        let left = || -> Vec<PathBuf> {
            let below = leftovers::cgroups(cgroup).into_iter().flat_map(|parent| {
                let entries = fs::read_dir(parent).into_iter().flatten().flatten();
                entries
                    .map(|entry| entry.path())
                    .filter(|path| path.is_dir())
            });
            let states = leftovers::states(&states, &self.id);
            below.chain(states).collect()
        };
        let gone = || left().is_empty() && self.cri.containerd.shims(&self.id).is_empty();
        assert!(
            wait_until(Duration::from_secs(10), gone),
            "left: {:?}\n{}",
            left(),
            self.cri.containerd.log()
        );
    }
}

/// A container of a pod.
struct Container<'c> {
    cri: &'c Cri,
    id: String,
    log: PathBuf,
}

impl Container<'_> {
    fn id(&self) -> Id {
        Id {
            id: self.id.clone(),
        }
    }

    #[track_caller]
    fn start(&self) {
        let Empty {} = self.cri.must("StartContainer", &self.id());
    }

    #[track_caller]
    fn status(&self) -> ContainerStatus {
        let answer: ContainerStatusResponse = self.cri.must("ContainerStatus", &self.id());
        answer.status.expect("a status")
    }

    /// Waits for its end.
    #[track_caller]
    fn wait(&self) -> ContainerStatus {
        let ended = || self.status().state == state::EXITED;
        assert!(wait_until(SOON, ended), "{:?}", self.status());
        self.status()
    }

    /// What its log holds, without the time and the stream of each line.
    fn output(&self) -> String {
        let text = fs::read_to_string(&self.log).expect("read the log");
        let lines = text.lines().map(|line| {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            assert!(words.len() == 4 && words[2] == "F", "a line of CRI: {line}");
            format!("{}\n", words[3])
        });
        lines.collect()
    }

    fn try_exec(&self, command: &[&str], timeout: i64) -> Result<ExecSyncResponse, Status> {
        let request = ExecSyncRequest {
            container_id: self.id.clone(),
            cmd: command.iter().map(|&word| word.to_owned()).collect(),
            timeout,
        };
        self.cri.call("ExecSync", &request)
    }

    /// Exit code, stdout and stderr of a command in the container.
    #[track_caller]
    fn exec(&self, command: &[&str]) -> (i32, String, String) {
        let answer = self
            .try_exec(command, 30)
            .unwrap_or_else(|status| panic!("{status:?}\n{}", self.cri.containerd.log()));
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (answer.exit_code, text(answer.stdout), text(answer.stderr))
    }

    /// What a script in the container prints; it must succeed.
    #[track_caller]
    fn sh(&self, script: &str) -> String {
        let (code, stdout, stderr) = self.exec(&["/bin/sh", "-c", script]);
        assert_eq!(code, 0, "{stdout}{stderr}");
        stdout
    }

    #[track_caller]
    fn stop(&self, timeout: i64) {
        let container_id = self.id.clone();
        let request = api::StopContainerRequest {
            container_id,
            timeout,
        };
        let Empty {} = self.cri.must("StopContainer", &request);
    }

    #[track_caller]
    fn remove(&self) {
        let Empty {} = self.cri.must("RemoveContainer", &self.id());
    }
}

/// A container's configuration in a security context.
fn in_context(mut config: ContainerConfig, context: SecurityContext) -> ContainerConfig {
    let linux = config
        .linux
        .get_or_insert_with(LinuxContainerConfig::default);
    linux.security_context = Some(with_node_network(context));
    config
}

/// A container in the network of a pod that is in the node's says so, too.
fn with_node_network(mut context: SecurityContext) -> SecurityContext {
    context.namespace_options.get_or_insert(NamespaceOption {
        network: namespace::NODE,
        pid: namespace::CONTAINER,
        ..NamespaceOption::default()
    });
    context
}
