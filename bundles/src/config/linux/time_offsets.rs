//! `linux.timeOffsets`: how far the clocks of a new time namespace are from the host's.
//!
//! Spec: config-linux.md#offset-for-time-namespace; time_namespaces(7)

use std::collections::HashMap;

use oci_spec::runtime::LinuxTimeOffset;

use super::namespaces::{Kind, Namespaces};
use crate::validate::FieldError;

/// The clocks that a time namespace has of its own, by the names that the specification and
/// the kernel use.
const CLOCKS: &[&str] = &["monotonic", "boottime"];

/// The offset of one clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeOffset {
    /// `monotonic` or `boottime`.
    pub clock: &'static str,
    /// Seconds, forwards or backwards.
    pub secs: i64,
    /// Nanoseconds in addition, below a second.
    pub nanosecs: u32,
}

/// The kernel's clocks count nanoseconds in 64 bits.
const MAX_SECS: u64 = i64::MAX.unsigned_abs() / NANOSECS;
const NANOSECS: u64 = 1_000_000_000;

/// Resolves the map; the offsets are in the order of [`CLOCKS`].
///
/// # Errors
/// A clock that has no offset, one that is out of range, or offsets without a new time namespace.
pub(super) fn from_spec(
    offsets: Option<&HashMap<String, LinuxTimeOffset>>,
    namespaces: &Namespaces,
) -> Result<Vec<TimeOffset>, FieldError> {
    let Some(offsets) = offsets.filter(|offsets| !offsets.is_empty()) else {
        return Ok(Vec::new());
    };
    if !namespaces.is_new(Kind::Time) {
        let problem = if namespaces.has(Kind::Time) {
            "is given, and the time namespace that is joined has its own"
        } else {
            "is given without a new time namespace"
        };
        return Err(FieldError::new("linux.timeOffsets", problem));
    }
    let mut names: Vec<_> = offsets.keys().collect();
    names.sort_unstable();
    if let Some(name) = names
        .into_iter()
        .find(|name| !CLOCKS.contains(&name.as_str()))
    {
        let problem = "no such clock: monotonic or boottime";
        return Err(FieldError::new(
            format!("linux.timeOffsets[{name:?}]"),
            problem,
        ));
    }
    let given = CLOCKS
        .iter()
        .filter_map(|clock| Some((*clock, offsets.get(*clock)?)));
    given
        .map(|(clock, offset)| resolve(clock, offset))
        .collect()
}

fn resolve(clock: &'static str, offset: &LinuxTimeOffset) -> Result<TimeOffset, FieldError> {
    let secs = offset.secs().unwrap_or(0);
    let nanosecs = offset.nanosecs().unwrap_or(0);
    let refuse = |name: &str, problem: String| {
        Err(FieldError::new(
            format!("linux.timeOffsets.{clock}.{name}"),
            problem,
        ))
    };
    if secs.unsigned_abs() > MAX_SECS {
        return refuse("secs", format!("{secs} is beyond {MAX_SECS}"));
    }
    if u64::from(nanosecs) >= NANOSECS {
        return refuse("nanosecs", format!("{nanosecs} is a second or more"));
    }
    Ok(TimeOffset {
        clock,
        secs,
        nanosecs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = r#"[{"type":"time"}]"#;

    fn resolved(namespaces: &str, offsets: &str) -> Result<Vec<TimeOffset>, FieldError> {
        let list: Vec<_> = serde_json::from_str(namespaces).expect(namespaces);
        let offsets = serde_json::from_str(offsets).expect(offsets);
        from_spec(Some(&offsets), &Namespaces::from_spec(&list)?)
    }

    #[test]
    fn offsets_come_in_one_order_and_lack_nothing() {
        let text = r#"{"boottime":{"nanosecs":7},"monotonic":{"secs":-5}}"#;
        let offset = |clock, secs, nanosecs| TimeOffset {
            clock,
            secs,
            nanosecs,
        };
        let expected = vec![offset("monotonic", -5, 0), offset("boottime", 0, 7)];
        assert_eq!(resolved(NEW, text), Ok(expected));
        assert_eq!(resolved("[]", "{}"), Ok(Vec::new()));
    }

    #[test]
    fn bad_offsets_are_named() {
        let joined = r#"[{"type":"time","path":"/x"}]"#;
        let cases = [
            (
                "[]",
                r#"{"monotonic":{}}"#,
                "linux.timeOffsets: is given without",
            ),
            (
                joined,
                r#"{"monotonic":{}}"#,
                "linux.timeOffsets: is given, and",
            ),
            (
                NEW,
                r#"{"realtime":{}}"#,
                "linux.timeOffsets[\"realtime\"]: ",
            ),
            (
                NEW,
                r#"{"boottime":{"nanosecs":1000000000}}"#,
                "linux.timeOffsets.boottime.nanosecs: ",
            ),
            (
                NEW,
                r#"{"monotonic":{"secs":-9223372037}}"#,
                "linux.timeOffsets.monotonic.secs: ",
            ),
        ];
        for (namespaces, offsets, expected) in cases {
            let error = resolved(namespaces, offsets)
                .expect_err(offsets)
                .to_string();
            assert!(error.starts_with(expected), "{offsets}: {error}");
        }
    }
}
