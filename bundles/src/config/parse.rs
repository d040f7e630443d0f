//! Text to [`Spec`], with the field's name where the text is wrong.

use oci_spec::runtime::{Capability, LinuxResources, Process, Spec};
use serde_json::{Value, json};

/// Why a text is not a configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not JSON, or a field is of another type than the specification's.
    #[error("{}{problem}", prefix(.field))]
    Field {
        /// The field's path, empty where the text as a whole is not JSON.
        field: String,
        /// What the reader met; for a text that is not JSON with its line and column.
        problem: String,
    },
}

/// `field: `, or nothing for the document as a whole.
fn prefix(field: &str) -> String {
    if field.is_empty() || field == "." {
        String::new()
    } else {
        format!("{field}: ")
    }
}

/// Reads `text`. Capabilities that this program does not know are passed over and named
/// in the second value, as runc does: a newer engine on an older runtime must still work.
///
/// # Errors
/// [`Error::Field`] names the first field that is wrong.
pub(crate) fn spec(text: &[u8]) -> Result<(Spec, Vec<String>), Error> {
    // The common case first: a good document is read once, without bookkeeping.
    if let Ok(spec) = serde_json::from_slice(text) {
        return Ok((spec, Vec::new()));
    }
    patiently(value(text)?)
}

/// Reads `text`, the `process` object alone, as `exec` is given it. Otherwise as config.json
/// is read.
///
/// # Errors
/// [`Error::Field`] names the first field that is wrong, from `process` on.
pub fn process(text: &[u8]) -> Result<(Process, Vec<String>), Error> {
    if let Ok(process) = serde_json::from_slice(text) {
        return Ok((process, Vec::new()));
    }
    let (spec, warnings) = patiently(json!({ "process": value(text)? }))?;
    match spec.process() {
        Some(process) => Ok((process.clone(), warnings)),
        None => Err(Error::Field {
            field: "process".into(),
            problem: "is missing".into(),
        }),
    }
}

/// Reads `text`, the `linux.resources` object alone, as `update` is given it.
///
/// # Errors
/// [`Error::Field`] names the first field that is wrong, from `linux` on.
pub fn resources(text: &[u8]) -> Result<LinuxResources, Error> {
    if let Ok(resources) = serde_json::from_slice(text) {
        return Ok(resources);
    }
    let (spec, _) = patiently(json!({ "linux": { "resources": value(text)? } }))?;
    let linux = spec.linux().as_ref();
    let resources = linux.and_then(|linux| linux.resources().clone());
    resources.ok_or_else(|| Error::Field {
        field: "linux.resources".into(),
        problem: "is missing".into(),
    })
}

fn value(text: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(text).map_err(|error| Error::Field {
        field: String::new(),
        problem: error.to_string(),
    })
}

/// Reads what the quick way did not take.
fn patiently(mut document: Value) -> Result<(Spec, Vec<String>), Error> {
    let mut warnings = Vec::new();
    drop_unknown_capabilities(&mut document, &mut warnings);
    drop_empty_affinities(&mut document);
    respell_scheduler_flags(&mut document);
    match serde_path_to_error::deserialize(&document) {
        Ok(spec) => Ok((spec, warnings)),
        Err(error) => Err(Error::Field {
            field: error.path().to_string(),
            problem: error.inner().to_string(),
        }),
    }
}

/// An empty list of `process.execCPUAffinity` is as good as none.
fn drop_empty_affinities(document: &mut Value) {
    let affinity = document.pointer_mut("/process/execCPUAffinity");
    if let Some(lists) = affinity.and_then(Value::as_object_mut) {
        lists.retain(|_, list| list != "");
    }
}

/// Two flags of `process.scheduler` have other names in [`Spec`] than in the specification.
fn respell_scheduler_flags(document: &mut Value) {
    let flags = document.pointer_mut("/process/scheduler/flags");
    for flag in flags.and_then(Value::as_array_mut).into_iter().flatten() {
        let name = match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => "SCHED_RESET_ON_FORK",
            Some("SCHED_FLAG_DL_OVERRUN") => "SCHED_FLAG_D_L_OVERRUN",
            // Its own names are nobody else's.
            Some("SCHED_RESET_ON_FORK" | "SCHED_FLAG_D_L_OVERRUN") => "unknown",
            _ => continue,
        };
        *flag = name.into();
    }
}

/// Takes the names that are no capability out of `process.capabilities`.
fn drop_unknown_capabilities(document: &mut Value, warnings: &mut Vec<String>) {
    let Some(sets) = document
        .pointer_mut("/process/capabilities")
        .and_then(Value::as_object_mut)
    else {
        return;
    };
    for (set, names) in sets {
        let Some(names) = names.as_array_mut() else {
            continue;
        };
        names.retain(|name| {
            let known =
                !name.is_string() || serde_json::from_value::<Capability>(name.clone()).is_ok();
            if !known {
                warnings.push(format!(
                    "process.capabilities.{set}: {name}: unknown, passed over"
                ));
            }
            known
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wrong_field_is_named() {
        let cases = [
            ("{", "EOF"),
            (
                r#"{"ociVersion":"1.0.0","process":{"cwd":"/","user":{"uid":-1}}}"#,
                "process.user.uid: ",
            ),
            (
                r#"{"linux":{"namespaces":[{"type":"pid"},{"type":"x"}]}}"#,
                "linux.namespaces[1].type: ",
            ),
        ];
        for (text, expected) in cases {
            let error = spec(text.as_bytes()).expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_process_alone() {
        let read = |text: &str| process(text.as_bytes()).map_err(|error| error.to_string());
        let (process, warnings) =
            read(r#"{"cwd":"/x","user":{},"capabilities":{"permitted":["CAP_NEW"]}}"#)
                .expect("read");
        assert_eq!(process.cwd(), std::path::Path::new("/x"));
        assert_eq!(warnings.len(), 1);
        let cases = [
            (r#"{"cwd":"/","user":{"uid":"0"}}"#, "process.user.uid: "),
            ("null", "process: is missing"),
            ("", "EOF"),
        ];
        for (text, expected) in cases {
            let error = read(text).expect_err(text);
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }

    #[test]
    fn resources_alone() {
        let read = |text: &str| resources(text.as_bytes()).map_err(|error| error.to_string());
        let limits = read(r#"{"pids":{"limit":5}}"#).expect("read");
        assert_eq!(limits.pids().as_ref().map(|pids| pids.limit()), Some(5));
        let cases = [
            (r#"{"cpu":{"quota":"x"}}"#, "linux.resources.cpu.quota: "),
            ("null", "linux.resources: is missing"),
            ("", "EOF"),
        ];
        for (text, expected) in cases {
            let error = read(text).expect_err(text);
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }

    #[test]
    fn scheduler_flags_have_the_specifications_names() {
        let names = [
            "SCHED_FLAG_RESET_ON_FORK",
            "SCHED_FLAG_RECLAIM",
            "SCHED_FLAG_DL_OVERRUN",
            "SCHED_FLAG_KEEP_POLICY",
            "SCHED_FLAG_KEEP_PARAMS",
            "SCHED_FLAG_UTIL_CLAMP_MIN",
            "SCHED_FLAG_UTIL_CLAMP_MAX",
        ];
        let of = |flags: &[&str]| {
            let text = json!({"cwd": "/", "user": {},
                "scheduler": {"policy": "SCHED_OTHER", "flags": flags}});
            process(text.to_string().as_bytes()).map_err(|error| error.to_string())
        };
        let (process, warnings) = of(&names).expect("read");
        assert!(warnings.is_empty());
        let flags = process
            .scheduler()
            .as_ref()
            .and_then(|it| it.flags().clone());
        assert_eq!(flags.map(|flags| flags.len()), Some(names.len()));
        let error = of(&["SCHED_FLAG_RECLAIM", "SCHED_X"]).expect_err("unknown");
        assert!(error.starts_with("process.scheduler.flags[1]: "), "{error}");
    }

    #[test]
    fn an_unknown_capability_is_a_warning() {
        let text = r#"{"process":{"cwd":"/","user":{},"capabilities":{"bounding":["CAP_KILL","CAP_NEW"]}}}"#;
        let (spec, warnings) = spec(text.as_bytes()).expect("read");
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("CAP_NEW"), "{warnings:?}");
        let capabilities = spec
            .process()
            .as_ref()
            .and_then(|p| p.capabilities().clone());
        assert_eq!(
            capabilities
                .and_then(|c| c.bounding().clone())
                .map(|set| set.len()),
            Some(1)
        );
    }
}
