//! Annotations `org.systemd.property.NAME`, whose values are properties of the unit as text.

use std::collections::HashMap;

use bundles::FieldError;

use super::text;
use super::unit::Property;
use super::value::Value;

/// How the keys of these begin.
pub(crate) const ANNOTATION: &str = "org.systemd.property.";

/// The properties that annotations ask for.
pub(super) fn annotated(
    annotations: &HashMap<String, String>,
) -> Result<Vec<Property>, FieldError> {
    let mut properties = Vec::new();
    for (key, written) in annotations {
        let Some(name) = key.strip_prefix(ANNOTATION) else {
            continue;
        };
        let field = format!("annotations[{key:?}]");
        let refuse = |problem: String| FieldError::new(field.clone(), problem);
        if name.len() < 3 || !name.chars().all(|char| char.is_ascii_alphanumeric()) {
            return Err(refuse(format!("{name:?} is not the name of a property")));
        }
        let value = text::parse(written)
            .map_err(|problem| refuse(format!("{written:?} is not a value: {problem}")))?;
        let (name, value) = in_microseconds(name, value)
            .ok_or_else(|| refuse(format!("{written:?} is not a time in seconds")))?;
        properties.push(Property { name, value, field });
    }
    properties.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(properties)
}

/// Unit files have times in seconds, `TimeoutStopSec`; D-Bus has them as `TimeoutStopUSec`.
fn in_microseconds(name: &str, value: Value) -> Option<(String, Value)> {
    const SECOND: u64 = 1_000_000;
    let Some(stem) = name.strip_suffix("Sec").filter(|stem| !stem.ends_with('U')) else {
        return Some((name.to_owned(), value));
    };
    let whole = |seconds: Option<u64>| seconds?.checked_mul(SECOND);
    let microseconds = match value {
        Value::Byte(seconds) => whole(Some(seconds.into())),
        Value::Int16(seconds) => whole(seconds.try_into().ok()),
        Value::Uint16(seconds) => whole(Some(seconds.into())),
        Value::Int32(seconds) => whole(seconds.try_into().ok()),
        Value::Uint32(seconds) => whole(Some(seconds.into())),
        Value::Int64(seconds) => whole(seconds.try_into().ok()),
        Value::Uint64(seconds) => whole(Some(seconds)),
        Value::Double(seconds) => std::time::Duration::try_from_secs_f64(seconds)
            .ok()
            .and_then(|time| time.as_micros().try_into().ok()),
        _ => None,
    };
    Some((format!("{stem}USec"), Value::Uint64(microseconds?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    #[test]
    fn annotations_that_are_properties() {
        let of = |key: &str, value: &str| {
            let found = annotated(&HashMap::from([(key.to_owned(), value.to_owned())]));
            let found = found.map_err(|error| error.to_string())?;
            Ok(found
                .into_iter()
                .map(|p| (p.name, p.value))
                .collect::<Vec<_>>())
        };
        let key = |name: &str| format!("{ANNOTATION}{name}");
        assert_eq!(of("org.example.x", "?"), Ok(vec![]));
        for (name, value, expected_name, expected) in [
            ("CollectMode", "'inactive'", "CollectMode", text("inactive")),
            (
                "TimeoutStopUSec",
                "uint64 5",
                "TimeoutStopUSec",
                Value::Uint64(5),
            ),
            (
                "TimeoutStopSec",
                "5",
                "TimeoutStopUSec",
                Value::Uint64(5_000_000),
            ),
            (
                "RuntimeMaxSec",
                "1.5",
                "RuntimeMaxUSec",
                Value::Uint64(1_500_000),
            ),
        ] {
            let expected = vec![(expected_name.to_owned(), expected)];
            assert_eq!(of(&key(name), value), Ok(expected), "{name}");
        }
        for (name, value, problem) in [
            ("a/b", "1", "\"a/b\" is not the name of a property"),
            (
                "Foo",
                "x",
                "\"x\" is not a value: \"x\" is neither a value nor a type",
            ),
            ("FooSec", "'x'", "\"'x'\" is not a time in seconds"),
            ("FooSec", "-1", "\"-1\" is not a time in seconds"),
        ] {
            let error: Result<Vec<_>, String> = of(&key(name), value);
            let expected = format!("annotations[{:?}]: {problem}", key(name));
            assert_eq!(error, Err(expected));
        }
    }
}
