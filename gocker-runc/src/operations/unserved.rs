//! Fields of config.json that are for other platforms: refused by name, because a
//! container that silently lacks them is less confined than asked.

use bundles::FieldError;
use oci_spec::runtime::{Process, Spec};

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
    spec.process().as_ref().map_or(Ok(()), check_process)
}

/// As [`check`], for the `process` object alone.
///
/// # Errors
/// The field's name.
pub(super) fn check_process(process: &Process) -> Result<(), FieldError> {
    match process.command_line() {
        Some(text) if !text.is_empty() => Err(FieldError::new(
            "process.commandLine",
            "is for Windows: process.args says it here",
        )),
        _ => Ok(()),
    }
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
            (r#"{"vm":{"kernel":{"path":"/vmlinuz"}}}"#, "vm: "),
        ];
        for (text, expected) in cases {
            let spec: Spec = serde_json::from_str(text).expect(text);
            let error = check(&spec).expect_err(text).to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
        assert_eq!(check(&bundles::defaults::spec()), Ok(()));
    }
}
