//! No cgroup of the container's own: what a rootless container has whose user may make none. It
//! stays where the runtime is.

use std::path::PathBuf;

use bundles::FieldError;
use bundles::config::linux::resources::Resources;

use super::refusals::{demands, refuse};

/// The lack of a cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shared {
    /// The directory that this user may not make; None for a container of an earlier command.
    pub(super) refused: Option<PathBuf>,
}

impl Shared {
    /// Without a cgroup nothing can be limited. Device rules are no limit that is missed: who may
    /// make no cgroup may make no device nodes either.
    pub(super) fn check(&self, resources: &Resources) -> Result<(), FieldError> {
        let why = match &self.refused {
            Some(dir) => cannot_make(dir),
            None => "the container has no cgroup of its own".into(),
        };
        if let Some(demand) = demands(resources).first() {
            return Err(refuse(demand.field, why));
        }
        match resources.unified.keys().next() {
            Some(name) => Err(refuse(&format!("unified[{name:?}]"), why)),
            None => Ok(()),
        }
    }
}

/// Why a limit cannot be set.
pub(super) fn cannot_make(dir: &std::path::Path) -> String {
    format!("cannot be limited: this user may not make the cgroup {dir:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_needs_a_cgroup() {
        let shared = Shared {
            refused: Some("/sys/fs/cgroup/web".into()),
        };
        let check = |json: &str| {
            let spec = serde_json::from_str(json).expect(json);
            let resources = Resources::from_spec(Some(&spec)).expect(json);
            shared.check(&resources).map_err(|error| error.to_string())
        };
        assert_eq!(
            check(r#"{"devices":[{"allow":false,"access":"rwm"}]}"#),
            Ok(())
        );
        for (json, field) in [
            (
                r#"{"memory":{"limit":5}}"#,
                "linux.resources.memory.limit: ",
            ),
            (
                r#"{"unified":{"pids.max":"5"}}"#,
                "linux.resources.unified[\"pids.max\"]: ",
            ),
        ] {
            let error = check(json).expect_err(json);
            assert!(error.starts_with(field), "{error}");
            assert!(error.contains("/sys/fs/cgroup/web"), "{error}");
        }
    }
}
