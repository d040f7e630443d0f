//! Fields of config.json that this version does not serve: refused by name, because a
//! container that silently lacks them is less confined than asked.

use bundles::FieldError;
use oci_spec::runtime::{Linux, Process, Spec};

/// Refuses the first field that is given and not served.
///
/// # Errors
/// Its name.
pub(super) fn check(spec: &Spec) -> Result<(), FieldError> {
    let foreign = [
        ("vm", spec.vm().is_some()),
        ("windows", spec.windows().is_some()),
        ("solaris", spec.solaris().is_some()),
        ("zos", spec.zos().is_some()),
    ];
    for (field, given) in foreign {
        if given {
            return Err(FieldError::new(
                field,
                "is for another platform than Linux containers",
            ));
        }
    }
    spec.process().as_ref().map_or(Ok(()), check_process)?;
    spec.linux().as_ref().map_or(Ok(()), check_linux)
}

fn refuse(fields: &[(&str, bool)]) -> Result<(), FieldError> {
    match fields.iter().find(|(_, given)| *given) {
        Some((field, _)) => Err(FieldError::new(*field, "is not served yet")),
        None => Ok(()),
    }
}

pub(super) fn check_process(process: &Process) -> Result<(), FieldError> {
    let text = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    refuse(&[("process.commandLine", text(process.command_line()))])
}

fn check_linux(linux: &Linux) -> Result<(), FieldError> {
    refuse(&[(
        "linux.netDevices",
        linux
            .net_devices()
            .as_ref()
            .is_some_and(|map| !map.is_empty()),
    )])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_served_is_named() {
        let cases = [
            (
                r#"{"process":{"cwd":"/","user":{},"commandLine":"x"}}"#,
                "process.commandLine: ",
            ),
            (
                r#"{"linux":{"netDevices":{"eth0":{"name":"eth1"}}}}"#,
                "linux.netDevices: ",
            ),
        ];
        for (text, expected) in cases {
            let spec: Spec = serde_json::from_str(text).expect(text);
            let error = check(&spec).expect_err(text).to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
        assert_eq!(check(&bundles::defaults::spec()), Ok(()));
    }
}
