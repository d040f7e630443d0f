//! What `exec` runs: the container's own `process`, changed by flags, or that of a
//! process.json.
//!
//! Spec: config.md#process

use bundles::FieldError;
use bundles::config::process::Process;
use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, Process as SpecProcess};

use super::exec_user::UserFlag;
use super::unserved;

/// What the command line says of the process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    /// The program and its arguments.
    pub(crate) args: Vec<String>,
    /// `--env`: `NAME=value`, each replacing an earlier one of its name.
    pub(crate) env: Vec<String>,
    /// `--cwd`.
    pub(crate) cwd: Option<String>,
    /// `--user`.
    pub(crate) user: Option<UserFlag>,
    /// `--additional-gids`, in addition to the configuration's.
    pub(crate) additional_gids: Vec<u32>,
    /// `--cap`, in addition to the configuration's.
    pub(crate) capabilities: Vec<Capability>,
    /// `--no-new-privs`.
    pub(crate) no_new_privileges: Option<bool>,
    /// `--tty`.
    pub(crate) terminal: bool,
    /// `--apparmor`.
    pub(crate) apparmor_profile: Option<String>,
    /// `--process-label`.
    pub(crate) selinux_label: Option<String>,
}

/// The container's process as `changes` make it; `ids` are what `--user` means.
///
/// # Errors
/// The field that cannot be served.
pub(super) fn changed(
    template: &SpecProcess,
    changes: Changes,
    ids: Option<(u32, Option<u32>)>,
) -> Result<Process, FieldError> {
    let mut process = template.clone();
    process.set_terminal(Some(changes.terminal));
    process.set_args(Some(changes.args));
    let mut env = process.env().clone().unwrap_or_default();
    for pair in changes.env {
        let name = pair.split_once('=').map(|(name, _)| format!("{name}="));
        env.retain(|other| !name.as_ref().is_some_and(|name| other.starts_with(name)));
        env.push(pair);
    }
    process.set_env(Some(env));
    if let Some(cwd) = changes.cwd {
        process.set_cwd(cwd.into());
    }
    let user = process.user_mut();
    if let Some((uid, gid)) = ids {
        user.set_uid(uid);
        user.set_gid(gid.unwrap_or(user.gid()));
    }
    let mut gids = user.additional_gids().clone().unwrap_or_default();
    gids.extend(changes.additional_gids);
    user.set_additional_gids(Some(gids));
    if !changes.capabilities.is_empty() {
        add_capabilities(&mut process, &changes.capabilities);
    }
    if let Some(value) = changes.no_new_privileges {
        process.set_no_new_privileges(Some(value));
    }
    if changes.apparmor_profile.is_some() {
        process.set_apparmor_profile(changes.apparmor_profile);
    }
    if changes.selinux_label.is_some() {
        process.set_selinux_label(changes.selinux_label);
    }
    unserved::check_process(&process)?;
    Process::from_spec(&process)
}

/// The process of a process.json. What it does not say of capabilities, the OOM score, CPUs and
/// priorities is as the container's own process has it, as with runc.
///
/// # Errors
/// The field that cannot be served.
pub(super) fn completed(
    template: &SpecProcess,
    mut process: SpecProcess,
) -> Result<Process, FieldError> {
    if process.capabilities().is_none() {
        process.set_capabilities(template.capabilities().clone());
    }
    if process.oom_score_adj().is_none() {
        process.set_oom_score_adj(template.oom_score_adj());
    }
    if process.scheduler().is_none() {
        process.set_scheduler(template.scheduler().clone());
    }
    if process.io_priority().is_none() {
        process.set_io_priority(*template.io_priority());
    }
    if process.exec_cpu_affinity().is_none() {
        process.set_exec_cpu_affinity(template.exec_cpu_affinity().clone());
    }
    unserved::check_process(&process)?;
    Process::from_spec(&process)
}

/// Adds to the bounding, effective and permitted sets. Never to the inheritable one, from which
/// any program that the process executes would take them (CVE-2022-29162); so there are none
/// for the ambient set either.
fn add_capabilities(process: &mut SpecProcess, more: &[Capability]) {
    // All five are empty where nothing is said; the type's own default has some.
    let mut sets = process.capabilities().clone().unwrap_or_else(|| {
        let mut none = LinuxCapabilities::default();
        none.set_bounding(None)
            .set_effective(None)
            .set_inheritable(None)
            .set_permitted(None)
            .set_ambient(None);
        none
    });
    let with = |set: &Option<Capabilities>| {
        let all = set.iter().flatten().chain(more);
        Some(all.copied().collect())
    };
    let (bounding, effective, permitted) = (
        with(sets.bounding()),
        with(sets.effective()),
        with(sets.permitted()),
    );
    sets.set_bounding(bounding)
        .set_effective(effective)
        .set_permitted(permitted);
    process.set_capabilities(Some(sets));
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = r#"{"cwd":"/srv","terminal":true,"user":{"uid":5,"gid":6,
        "additionalGids":[7]},"env":["A=1","AB=2"],"noNewPrivileges":true,"oomScoreAdj":3,
        "capabilities":{"bounding":["CAP_KILL"],"inheritable":["CAP_KILL"]},
        "rlimits":[{"type":"RLIMIT_CORE","soft":1,"hard":2}]}"#;

    fn template() -> SpecProcess {
        serde_json::from_str(TEMPLATE).expect("is well-formed")
    }

    fn args() -> Vec<String> {
        vec!["true".into()]
    }

    #[test]
    fn without_flags_it_is_the_containers_process_but_for_the_terminal() {
        let changes = Changes {
            args: args(),
            ..Changes::default()
        };
        let process = changed(&template(), changes, None).expect("is served");
        assert_eq!((process.user.uid, process.user.gid), (5, 6));
        assert_eq!(process.user.additional_gids, [7]);
        assert_eq!(process.env, ["A=1", "AB=2"]);
        assert!(!process.terminal && process.no_new_privileges);
        assert_eq!((process.rlimits.len(), process.oom_score_adj), (1, Some(3)));
    }

    #[test]
    fn flags_change_it() {
        let changes = Changes {
            args: args(),
            env: vec!["A=3".into(), "C=4".into(), "A=5".into()],
            cwd: Some("/x".into()),
            additional_gids: vec![8],
            capabilities: vec![Capability::Chown],
            no_new_privileges: Some(false),
            terminal: true,
            ..Changes::default()
        };
        let process = changed(&template(), changes, Some((0, None))).expect("is served");
        assert_eq!((process.user.uid, process.user.gid), (0, 6));
        assert_eq!(process.user.additional_gids, [7, 8]);
        assert_eq!(process.env, ["AB=2", "C=4", "A=5"]);
        assert_eq!(process.cwd, std::path::Path::new("/x"));
        assert!(process.terminal && !process.no_new_privileges);
        let sets = process.capabilities.expect("are there");
        let count = |set: &Option<Capabilities>| set.as_ref().map_or(0, |set| set.iter().count());
        assert_eq!((count(sets.bounding()), count(sets.permitted())), (2, 1));
        assert_eq!((count(sets.inheritable()), count(sets.ambient())), (1, 0));
    }

    #[test]
    fn added_capabilities_are_the_only_ones_where_there_were_none() {
        let mut template = template();
        template.set_capabilities(None);
        let changes = Changes {
            args: args(),
            capabilities: vec![Capability::Chown],
            ..Changes::default()
        };
        let process = changed(&template, changes, None).expect("is served");
        let sets = process.capabilities.expect("are there");
        assert_eq!(sets.bounding(), sets.effective());
        assert!(sets.inheritable().is_none() && sets.ambient().is_none());
    }

    #[test]
    fn a_file_takes_over_what_it_does_not_say() {
        let file = serde_json::from_str(r#"{"cwd":"/","user":{},"args":["true"]}"#);
        let process = completed(&template(), file.expect("is well-formed")).expect("is served");
        assert_eq!((process.user.uid, process.env.len()), (0, 0));
        assert!(!process.no_new_privileges && process.capabilities.is_some());
        assert_eq!((process.rlimits.len(), process.oom_score_adj), (0, Some(3)));
    }

    #[test]
    fn labels_and_cpus_come_from_the_flags_the_file_or_the_container() {
        let mut template = template();
        let affinity = r#"{"initial":"0","final":"1"}"#;
        template.set_exec_cpu_affinity(serde_json::from_str(affinity).expect("well-formed"));
        template.set_apparmor_profile(Some("own".into()));
        let changes = Changes {
            args: args(),
            selinux_label: Some("label".into()),
            ..Changes::default()
        };
        let process = changed(&template, changes, None).expect("is served");
        assert_eq!(process.selinux_label.as_deref(), Some("label"));
        assert_eq!(process.apparmor_profile.as_deref(), Some("own"));
        assert!(process.exec_cpu_affinity.is_some());
        let file = serde_json::from_str(r#"{"cwd":"/","user":{},"args":["true"]}"#);
        let process = completed(&template, file.expect("well-formed")).expect("is served");
        assert!(process.exec_cpu_affinity.is_some());
    }

    #[test]
    fn what_is_not_served_is_named() {
        let cases = [
            (Changes::default(), "process.args: "),
            (
                Changes {
                    args: args(),
                    env: vec!["A".into()],
                    ..Changes::default()
                },
                "process.env[2]: ",
            ),
        ];
        for (changes, expected) in cases {
            let error = changed(&template(), changes, None).expect_err(expected);
            assert!(error.to_string().starts_with(expected), "{error}");
        }
    }
}
