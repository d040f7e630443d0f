//! `linux.uidMappings` and `linux.gidMappings`.
//!
//! Spec: config-linux.md#user-namespace-mappings; user_namespaces(7)

use oci_spec::runtime::LinuxIdMapping;

use crate::validate::FieldError;

/// `size` ids from `container_id` on are `host_id` on outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMapping {
    /// The first id inside.
    pub container_id: u32,
    /// The first id outside.
    pub host_id: u32,
    /// How many ids; never 0.
    pub size: u32,
}

/// The kernel takes so many lines in one map (user_namespaces(7)).
const MAX_LINES: usize = 340;

/// Resolves `list`, the value of `field`.
///
/// # Errors
/// The entry that is empty, passes the last id, or overlaps with another.
pub(crate) fn from_spec(
    field: &str,
    list: Option<&[LinuxIdMapping]>,
) -> Result<Vec<IdMapping>, FieldError> {
    let list = list.unwrap_or_default();
    if list.len() > MAX_LINES {
        return Err(FieldError::new(
            field,
            format!("{} entries, the kernel takes 340", list.len()),
        ));
    }
    let mut mappings: Vec<IdMapping> = Vec::with_capacity(list.len());
    for (index, entry) in list.iter().enumerate() {
        let field = || format!("{field}[{index}]");
        let mapping = IdMapping {
            container_id: entry.container_id(),
            host_id: entry.host_id(),
            size: entry.size(),
        };
        if mapping.size == 0 {
            return Err(FieldError::new(field(), "size is 0"));
        }
        for first in [mapping.container_id, mapping.host_id] {
            // The last id, 2^32-1, is no id at all.
            if first.checked_add(mapping.size).is_none() {
                let problem = format!("{} ids from {first} on pass the last id", mapping.size);
                return Err(FieldError::new(field(), problem));
            }
        }
        if let Some(other) = mappings
            .iter()
            .position(|earlier| overlap(earlier, &mapping))
        {
            return Err(FieldError::new(
                field(),
                format!("overlaps with entry {other}"),
            ));
        }
        mappings.push(mapping);
    }
    Ok(mappings)
}

fn overlap(a: &IdMapping, b: &IdMapping) -> bool {
    let meet =
        |a_first: u32, b_first: u32| a_first < b_first + b.size && b_first < a_first + a.size;
    meet(a.container_id, b.container_id) || meet(a.host_id, b.host_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_are_named() {
        let cases = [
            (
                r#"[{"containerID":0,"hostID":0,"size":0}]"#,
                "x[0]: size is 0",
            ),
            (
                r#"[{"containerID":4294967295,"hostID":0,"size":1}]"#,
                "x[0]: 1 ids from",
            ),
            (
                r#"[{"containerID":0,"hostID":1000,"size":10},{"containerID":9,"hostID":5000,"size":1}]"#,
                "x[1]: overlaps with entry 0",
            ),
            (
                r#"[{"containerID":0,"hostID":1000,"size":10},{"containerID":10,"hostID":1009,"size":1}]"#,
                "x[1]: overlaps with entry 0",
            ),
        ];
        for (text, expected) in cases {
            let list: Vec<LinuxIdMapping> = serde_json::from_str(text).expect(text);
            let error = from_spec("x", Some(&list)).expect_err(text).to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
