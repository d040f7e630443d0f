//! The messages of CRIU's service, as far as they are needed: its rpc.proto in Rust.
//!
//! See <https://criu.org/RPC>.

use prost::{Enumeration, Message};

/// What is asked for, and what an answer answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub(crate) enum Kind {
    /// Nothing, as an answer to what was not understood.
    Empty = 0,
    /// Save processes.
    Dump = 1,
    /// Bring processes back.
    Restore = 2,
    /// Save memory alone.
    PreDump = 4,
    /// A turning point was reached; it waits for the answer.
    Notify = 6,
    /// Which features the machine has.
    FeatureCheck = 9,
    /// Which version it is.
    Version = 10,
}

/// `criu_req`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Request {
    #[prost(enumeration = "Kind", required, tag = 1)]
    pub(crate) kind: i32,
    #[prost(message, optional, tag = 2)]
    pub(crate) opts: Option<Options>,
    #[prost(bool, optional, tag = 3)]
    pub(crate) notify_success: Option<bool>,
    #[prost(message, optional, tag = 5)]
    pub(crate) features: Option<Features>,
}

/// `criu_opts`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Options {
    #[prost(int32, required, tag = 1)]
    pub(crate) images_dir_fd: i32,
    #[prost(int32, optional, tag = 2)]
    pub(crate) pid: Option<i32>,
    #[prost(bool, optional, tag = 3)]
    pub(crate) leave_running: Option<bool>,
    #[prost(bool, optional, tag = 4)]
    pub(crate) ext_unix_sk: Option<bool>,
    #[prost(bool, optional, tag = 5)]
    pub(crate) tcp_established: Option<bool>,
    #[prost(bool, optional, tag = 6)]
    pub(crate) evasive_devices: Option<bool>,
    #[prost(bool, optional, tag = 7)]
    pub(crate) shell_job: Option<bool>,
    #[prost(bool, optional, tag = 8)]
    pub(crate) file_locks: Option<bool>,
    #[prost(int32, optional, tag = 9)]
    pub(crate) log_level: Option<i32>,
    #[prost(string, optional, tag = 10)]
    pub(crate) log_file: Option<String>,
    #[prost(message, optional, tag = 11)]
    pub(crate) page_server: Option<PageServer>,
    #[prost(bool, optional, tag = 12)]
    pub(crate) notify_scripts: Option<bool>,
    #[prost(string, optional, tag = 13)]
    pub(crate) root: Option<String>,
    #[prost(string, optional, tag = 14)]
    pub(crate) parent_img: Option<String>,
    #[prost(bool, optional, tag = 15)]
    pub(crate) track_mem: Option<bool>,
    #[prost(bool, optional, tag = 16)]
    pub(crate) auto_dedup: Option<bool>,
    #[prost(int32, optional, tag = 17)]
    pub(crate) work_dir_fd: Option<i32>,
    #[prost(bool, optional, tag = 18)]
    pub(crate) link_remap: Option<bool>,
    #[prost(message, repeated, tag = 23)]
    pub(crate) ext_mnt: Vec<ExternalMount>,
    #[prost(message, repeated, tag = 25)]
    pub(crate) cg_root: Vec<CgroupRoot>,
    #[prost(bool, optional, tag = 26)]
    pub(crate) rst_sibling: Option<bool>,
    #[prost(message, repeated, tag = 27)]
    pub(crate) inherit_fd: Vec<InheritFd>,
    #[prost(enumeration = "CgroupsMode", optional, tag = 34)]
    pub(crate) manage_cgroups_mode: Option<i32>,
    #[prost(string, repeated, tag = 37)]
    pub(crate) external: Vec<String>,
    #[prost(uint32, optional, tag = 38)]
    pub(crate) empty_ns: Option<u32>,
    #[prost(message, repeated, tag = 39)]
    pub(crate) join_ns: Vec<JoinNamespace>,
    #[prost(string, optional, tag = 44)]
    pub(crate) freeze_cgroup: Option<String>,
    #[prost(bool, optional, tag = 46)]
    pub(crate) tcp_skip_in_flight: Option<bool>,
    #[prost(bool, optional, tag = 48)]
    pub(crate) lazy_pages: Option<bool>,
    #[prost(bool, optional, tag = 50)]
    pub(crate) orphan_pts_master: Option<bool>,
    #[prost(string, optional, tag = 51)]
    pub(crate) config_file: Option<String>,
    #[prost(string, optional, tag = 53)]
    pub(crate) lsm_profile: Option<String>,
    #[prost(string, optional, tag = 63)]
    pub(crate) lsm_mount_context: Option<String>,
}

/// `criu_cg_mode`: what becomes of cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub(crate) enum CgroupsMode {
    /// They are left alone.
    Ignore = 0,
    /// The properties of those are restored that are made anew.
    Soft = 3,
    /// The properties of all are restored.
    Full = 4,
    /// All are made anew, and none may be there.
    Strict = 5,
}

/// `criu_page_server_info`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct PageServer {
    #[prost(string, optional, tag = 1)]
    pub(crate) address: Option<String>,
    #[prost(int32, optional, tag = 2)]
    pub(crate) port: Option<i32>,
}

/// `ext_mount_map`: a mount that is not the container's own. When dumping, `val` is a name for
/// it; when restoring, `key` is that name, and `val` the path of what is to be mounted.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct ExternalMount {
    #[prost(string, required, tag = 1)]
    pub(crate) key: String,
    #[prost(string, required, tag = 2)]
    pub(crate) val: String,
}

/// `cgroup_root`: where the dumped cgroups of a controller, or of all, go.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct CgroupRoot {
    #[prost(string, optional, tag = 1)]
    pub(crate) ctrl: Option<String>,
    #[prost(string, required, tag = 2)]
    pub(crate) path: String,
}

/// `inherit_fd`: a descriptor of CRIU's own takes the place of what is called `key`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct InheritFd {
    #[prost(string, required, tag = 1)]
    pub(crate) key: String,
    #[prost(int32, required, tag = 2)]
    pub(crate) fd: i32,
}

/// `join_namespace`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct JoinNamespace {
    #[prost(string, required, tag = 1)]
    pub(crate) ns: String,
    #[prost(string, required, tag = 2)]
    pub(crate) ns_file: String,
}

/// `criu_features`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Features {
    #[prost(bool, optional, tag = 1)]
    pub(crate) mem_track: Option<bool>,
    #[prost(bool, optional, tag = 2)]
    pub(crate) lazy_pages: Option<bool>,
}

/// `criu_resp`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Response {
    #[prost(enumeration = "Kind", required, tag = 1)]
    pub(crate) kind: i32,
    #[prost(bool, required, tag = 2)]
    pub(crate) success: bool,
    #[prost(message, optional, tag = 4)]
    pub(crate) restore: Option<Restored>,
    #[prost(message, optional, tag = 5)]
    pub(crate) notify: Option<Notification>,
    #[prost(int32, optional, tag = 7)]
    pub(crate) cr_errno: Option<i32>,
    #[prost(message, optional, tag = 8)]
    pub(crate) features: Option<Features>,
    #[prost(string, optional, tag = 9)]
    pub(crate) cr_errmsg: Option<String>,
    #[prost(message, optional, tag = 10)]
    pub(crate) version: Option<VersionInfo>,
}

/// `criu_restore_resp`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Restored {
    #[prost(int32, required, tag = 1)]
    pub(crate) pid: i32,
}

/// `criu_notify`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Notification {
    #[prost(string, optional, tag = 1)]
    pub(crate) script: Option<String>,
    #[prost(int32, optional, tag = 2)]
    pub(crate) pid: Option<i32>,
}

/// `criu_version`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct VersionInfo {
    #[prost(int32, required, tag = 1)]
    pub(crate) major: i32,
    #[prost(int32, required, tag = 2)]
    pub(crate) minor: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_written_as_the_service_reads_them() {
        let request = Request {
            kind: Kind::PreDump.into(),
            opts: Some(Options {
                images_dir_fd: 5,
                leave_running: Some(true),
                cg_root: vec![CgroupRoot {
                    ctrl: None,
                    path: "/a".into(),
                }],
                lsm_mount_context: Some("c".into()),
                ..Options::default()
            }),
            ..Request::default()
        };
        let opts = [
            &[0x08, 5, 0x18, 1][..],
            &[0xca, 0x01, 4, 0x12, 2, b'/', b'a'],
            &[0xfa, 0x03, 1, b'c'],
        ]
        .concat();
        let length = u8::try_from(opts.len()).expect("is short");
        let expected = [&[0x08, 4, 0x12, length][..], &opts].concat();
        assert_eq!(request.encode_to_vec(), expected);
    }

    #[test]
    fn a_notification_is_understood() {
        let bytes = [
            0x08, 6, 0x10, 1, 0x2a, 7, 0x0a, 3, b'a', b'-', b'b', 0x10, 9,
        ];
        let response = Response::decode(&bytes[..]).expect("is one");
        assert_eq!(response.kind(), Kind::Notify);
        let notification = response.notify.expect("is there");
        assert_eq!((notification.script(), notification.pid()), ("a-b", 9));
    }
}
