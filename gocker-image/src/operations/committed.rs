//! The documents of an image that is made on top of another: pure functions of the other's.
//!
//! Spec: image-spec config.md, manifest.md

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::commit::Squash;
use super::config_change::ConfigChange;
use crate::digest::Digest;
use crate::image::{Descriptor, Manifest, media_type};

/// What Docker's configs say of the container that an image was made of, and OCI's do not have.
const DOCKERS_OWN: [&str; 6] = [
    "container",
    "container_config",
    "docker_version",
    "id",
    "parent",
    "throwaway",
];

/// How the new image came to be.
pub(super) struct Step<'a> {
    /// When (RFC 3339).
    pub(super) created: String,
    /// What ran in the container.
    pub(super) created_by: String,
    pub(super) author: Option<String>,
    pub(super) comment: Option<String>,
    pub(super) changes: &'a [ConfigChange],
    pub(super) squash: Squash,
}

/// The time `timestamp`, or the present one, as RFC 3339.
pub(super) fn created(timestamp: Option<i64>) -> anyhow::Result<String> {
    let Some(seconds) = timestamp else {
        return Ok(crate::store::now());
    };
    let time = OffsetDateTime::from_unix_timestamp(seconds);
    let text = time
        .map_err(anyhow::Error::from)
        .and_then(|time| Ok(time.format(&Rfc3339)?));
    text.with_context(|| format!("timestamp {seconds}"))
}

/// The config: the base's with one more layer, `diff_id`, or without one more, and one more step.
/// Fields that this program does not know stay.
pub(super) fn config(
    base: &[u8],
    diff_id: Option<&Digest>,
    step: &Step<'_>,
) -> anyhow::Result<Vec<u8>> {
    let mut config: Map<String, Value> =
        serde_json::from_slice(base).context("the base's config")?;
    for field in DOCKERS_OWN {
        config.remove(field);
    }
    let Some(diff_ids) = config["rootfs"]["diff_ids"].as_array_mut() else {
        bail!("the base's config has no diff IDs");
    };
    let layers_below = diff_ids.len();
    if step.squash == Squash::Yes {
        diff_ids.clear();
    }
    diff_ids.extend(diff_id.map(|diff_id| json!(diff_id)));
    let history = history(
        config.remove("history"),
        layers_below,
        diff_id.is_none(),
        step,
    );
    config.insert("history".to_owned(), history);
    config.insert("created".to_owned(), json!(step.created));
    if let Some(author) = &step.author {
        config.insert("author".to_owned(), json!(author));
    }
    let run = config.entry("config").or_insert(Value::Null);
    if run.is_null() {
        *run = json!({});
    }
    let run = run.as_object_mut().context("the base's config is none")?;
    // a new entrypoint takes the base's command away, not the one that is given with it
    let (first, rest): (Vec<_>, Vec<_>) = (step.changes.iter()).partition(|it| it.is_entrypoint());
    for change in first.into_iter().chain(rest) {
        change.apply(run);
    }
    Ok(serde_json::to_vec(&config)?)
}

/// The base's steps and one more. Readers count the steps that made layers, so there have to be
/// as many as layers.
fn history(base: Option<Value>, layers_below: usize, is_empty: bool, step: &Step<'_>) -> Value {
    let mut steps = match base {
        Some(Value::Array(steps)) if step.squash == Squash::No => steps,
        _ => Vec::new(),
    };
    let made_layer = |step: &&Value| step["empty_layer"] != json!(true);
    if step.squash == Squash::No {
        let counted = steps.iter().filter(made_layer).count();
        steps.extend((counted..layers_below).map(|_| json!({})));
    }
    let mut last = json!({"created": step.created, "created_by": step.created_by});
    for (key, value) in [("author", &step.author), ("comment", &step.comment)] {
        if let Some(value) = value {
            last[key] = json!(value);
        }
    }
    if is_empty {
        last["empty_layer"] = json!(true);
    }
    steps.push(last);
    Value::Array(steps)
}

/// The manifest, OCI's, of the base's layers and the one that is `new`.
pub(super) fn manifest(
    base: &Manifest,
    new: Option<&Descriptor>,
    config: &[u8],
    step: &Step<'_>,
) -> anyhow::Result<Vec<u8>> {
    let mut layers = match step.squash {
        Squash::Yes => Vec::new(),
        Squash::No => base.layers.clone(),
    };
    for layer in &mut layers {
        layer.media_type = media_type::oci_layer(&layer.media_type);
    }
    layers.extend(new.cloned());
    let config = Descriptor::new(
        media_type::OCI_CONFIG,
        Digest::of(config),
        config.len() as u64,
    );
    Ok(serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": config,
        "layers": layers,
    }))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn step(squash: Squash) -> Step<'static> {
        Step {
            created: created(Some(0)).unwrap(),
            created_by: "sh".to_owned(),
            author: Some("me".to_owned()),
            comment: None,
            changes: &[],
            squash,
        }
    }

    #[test]
    fn there_are_as_many_steps_with_layers_as_layers() {
        let new = Digest::of(b"new");
        let mine = json!({"created": "1970-01-01T00:00:00Z", "created_by": "sh", "author": "me"});
        let base_steps = json!([{"created_by": "a"}, {"empty_layer": true}]);
        let mut no_layer = mine.clone();
        no_layer["empty_layer"] = json!(true);
        let table = [
            (
                base_steps.clone(),
                Squash::No,
                Some(&new),
                json!([{"created_by": "a"}, {"empty_layer": true}, {}, mine]),
            ),
            (Value::Null, Squash::No, Some(&new), json!([{}, {}, mine])),
            (
                base_steps.clone(),
                Squash::No,
                None,
                json!([{"created_by": "a"}, {"empty_layer": true}, {}, no_layer]),
            ),
            (base_steps, Squash::Yes, Some(&new), json!([mine])),
        ];
        for (steps, squash, diff_id, expected) in table {
            let base = json!({
                "os": "linux", "architecture": "amd64", "container_config": {}, "own": 1,
                "rootfs": {"type": "layers", "diff_ids": [DIGEST, DIGEST]}, "history": steps,
            });
            let config = config(base.to_string().as_bytes(), diff_id, &step(squash)).unwrap();
            let config: Value = serde_json::from_slice(&config).unwrap();
            assert_eq!(config["history"], expected);
            assert_eq!(
                (&config["own"], &config["container_config"]),
                (&json!(1), &Value::Null)
            );
            let below = if squash == Squash::Yes { 0 } else { 2 };
            let layers = config["rootfs"]["diff_ids"].as_array().unwrap().len();
            assert_eq!(layers, below + usize::from(diff_id.is_some()));
        }
    }
}
