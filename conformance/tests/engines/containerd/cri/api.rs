//! The messages of CRI's `runtime.v1` (k8s.io/cri-api, api.proto) that the
//! tests use, each with the fields that they use. Unknown fields of an answer
//! are passed over.

use std::collections::HashMap;

/// `NamespaceMode`.
pub(super) mod namespace {
    pub(in super::super) const POD: i32 = 0;
    pub(in super::super) const CONTAINER: i32 = 1;
    pub(in super::super) const NODE: i32 = 2;
    pub(in super::super) const TARGET: i32 = 3;
}

/// `ContainerState`.
pub(super) mod state {
    pub(in super::super) const CREATED: i32 = 0;
    pub(in super::super) const RUNNING: i32 = 1;
    pub(in super::super) const EXITED: i32 = 2;
}

/// `SecurityProfile.ProfileType`.
pub(super) mod profile {
    pub(in super::super) const RUNTIME_DEFAULT: i32 = 0;
    pub(in super::super) const UNCONFINED: i32 = 1;
    pub(in super::super) const LOCALHOST: i32 = 2;
}

/// `MountPropagation`.
pub(super) mod propagation {
    pub(in super::super) const PRIVATE: i32 = 0;
    pub(in super::super) const HOST_TO_CONTAINER: i32 = 1;
    pub(in super::super) const BIDIRECTIONAL: i32 = 2;
}

/// Declares messages: `NAME { TAG FIELD: KIND = TYPE, ... }`.
macro_rules! messages {
    ($($(#[$about:meta])* $name:ident { $($tag:literal $field:ident: ($($kind:tt)+) $type:ty),* $(,)? })+) => {$(
        $(#[$about])*
        #[derive(Clone, PartialEq, prost::Message)]
        pub(super) struct $name {
            $(#[prost($($kind)+, tag = $tag)] pub(super) $field: $type,)*
        }
    )+};
}

messages! {
    Empty {}
    /// Every request whose one field is an id, and every answer that is one.
    Id { "1" id: (string) String }
    VersionResponse { "2" runtime_name: (string) String, "4" runtime_api_version: (string) String }

    Metadata {
        "1" name: (string) String,
        "2" uid: (string) String,
        "3" namespace: (string) String,
    }
    SandboxConfig {
        "1" metadata: (message) Option<Metadata>,
        "2" hostname: (string) String,
        "3" log_directory: (string) String,
        "8" linux: (message) Option<LinuxSandboxConfig>,
    }
    LinuxSandboxConfig {
        "1" cgroup_parent: (string) String,
        "2" security_context: (message) Option<SandboxSecurityContext>,
        "3" sysctls: (map = "string, string") HashMap<String, String>,
    }
    SandboxSecurityContext {
        "1" namespace_options: (message) Option<NamespaceOption>,
        "6" privileged: (bool) bool,
        "9" seccomp: (message) Option<SecurityProfile>,
    }
    NamespaceOption {
        "1" network: (int32) i32,
        "2" pid: (int32) i32,
        "3" ipc: (int32) i32,
        "4" target_id: (string) String,
    }
    SecurityProfile { "1" profile_type: (int32) i32, "2" localhost_ref: (string) String }
    RunPodSandboxRequest {
        "1" config: (message) Option<SandboxConfig>,
        "2" runtime_handler: (string) String,
    }
    PodSandboxStatusResponse { "1" status: (message) Option<PodSandboxStatus> }
    PodSandboxStatus {
        "3" state: (int32) i32,
        "5" network: (message) Option<PodNetwork>,
        "9" runtime_handler: (string) String,
    }
    PodNetwork { "1" ip: (string) String }

    ContainerMetadata { "1" name: (string) String }
    ImageSpec { "1" image: (string) String }
    KeyValue { "1" key: (string) String, "2" value: (string) String }
    Mount {
        "1" container_path: (string) String,
        "2" host_path: (string) String,
        "3" readonly: (bool) bool,
        "5" propagation: (int32) i32,
    }
    Device {
        "1" container_path: (string) String,
        "2" host_path: (string) String,
        "3" permissions: (string) String,
    }
    ContainerConfig {
        "1" metadata: (message) Option<ContainerMetadata>,
        "2" image: (message) Option<ImageSpec>,
        "3" command: (string, repeated) Vec<String>,
        "5" working_dir: (string) String,
        "6" envs: (message, repeated) Vec<KeyValue>,
        "7" mounts: (message, repeated) Vec<Mount>,
        "8" devices: (message, repeated) Vec<Device>,
        "11" log_path: (string) String,
        "14" tty: (bool) bool,
        "15" linux: (message) Option<LinuxContainerConfig>,
    }
    LinuxContainerConfig {
        "1" resources: (message) Option<Resources>,
        "2" security_context: (message) Option<SecurityContext>,
    }
    Resources {
        "1" cpu_period: (int64) i64,
        "2" cpu_quota: (int64) i64,
        "3" cpu_shares: (int64) i64,
        "4" memory_limit_in_bytes: (int64) i64,
        "5" oom_score_adj: (int64) i64,
        "6" cpuset_cpus: (string) String,
        "7" cpuset_mems: (string) String,
    }
    Capability {
        "1" add_capabilities: (string, repeated) Vec<String>,
        "2" drop_capabilities: (string, repeated) Vec<String>,
    }
    Int64Value { "1" value: (int64) i64 }
    SecurityContext {
        "1" capabilities: (message) Option<Capability>,
        "2" privileged: (bool) bool,
        "3" namespace_options: (message) Option<NamespaceOption>,
        "5" run_as_user: (message) Option<Int64Value>,
        "12" run_as_group: (message) Option<Int64Value>,
        "6" run_as_username: (string) String,
        "7" readonly_rootfs: (bool) bool,
        "8" supplemental_groups: (int64, repeated) Vec<i64>,
        "11" no_new_privs: (bool) bool,
        "13" masked_paths: (string, repeated) Vec<String>,
        "14" readonly_paths: (string, repeated) Vec<String>,
        "15" seccomp: (message) Option<SecurityProfile>,
    }
    CreateContainerRequest {
        "1" pod_sandbox_id: (string) String,
        "2" config: (message) Option<ContainerConfig>,
        "3" sandbox_config: (message) Option<SandboxConfig>,
    }
    StopContainerRequest { "1" container_id: (string) String, "2" timeout: (int64) i64 }
    ContainerStatusResponse { "1" status: (message) Option<ContainerStatus> }
    ContainerStatus {
        "3" state: (int32) i32,
        "7" exit_code: (int32) i32,
        "10" reason: (string) String,
        "11" message: (string) String,
    }
    ListContainersResponse { "1" containers: (message, repeated) Vec<Id> }

    ExecSyncRequest {
        "1" container_id: (string) String,
        "2" cmd: (string, repeated) Vec<String>,
        "3" timeout: (int64) i64,
    }
    ExecSyncResponse {
        "1" stdout: (bytes = "vec") Vec<u8>,
        "2" stderr: (bytes = "vec") Vec<u8>,
        "3" exit_code: (int32) i32,
    }
    UpdateResourcesRequest {
        "1" container_id: (string) String,
        "2" linux: (message) Option<Resources>,
    }
    ContainerStatsResponse { "1" stats: (message) Option<ContainerStats> }
    ContainerStats {
        "2" cpu: (message) Option<CpuUsage>,
        "3" memory: (message) Option<MemoryUsage>,
    }
    CpuUsage { "2" usage_core_nano_seconds: (message) Option<UInt64Value> }
    MemoryUsage {
        "2" working_set_bytes: (message) Option<UInt64Value>,
        "5" rss_bytes: (message) Option<UInt64Value>,
    }
    UInt64Value { "1" value: (uint64) u64 }
}
