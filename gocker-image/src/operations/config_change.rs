//! Changes of an image's config in the words of a Dockerfile, as `commit --change` takes them.

use std::str::FromStr;

use serde_json::{Map, Value, json};

use super::options::parse_signal;

/// One change: `CMD=/bin/sh`, `ENV NAME=value`, `EXPOSE 80/tcp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigChange {
    field: Field,
    value: Value,
}

/// What of a config can be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    /// Replaced as a whole.
    Value(&'static str),
    /// `NAME=value` items, one of each name.
    Env,
    /// The keys of an object whose values are empty.
    Set(&'static str),
    /// Keys and values.
    Labels,
}

/// A text is no change of a config.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?}: {reason}")]
pub struct ConfigChangeError {
    text: String,
    reason: String,
}

impl FromStr for ConfigChange {
    type Err = ConfigChangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text.trim()).map_err(|reason| ConfigChangeError {
            text: text.to_owned(),
            reason,
        })
    }
}

fn parse(text: &str) -> Result<ConfigChange, String> {
    let split = text.find(|c: char| c == '=' || c.is_whitespace());
    let (word, value) = split.map_or((text, ""), |at| (&text[..at], text[at + 1..].trim()));
    let word = word.to_ascii_uppercase();
    let change = |field, value| Ok(ConfigChange { field, value });
    match word.as_str() {
        "CMD" => change(Field::Value("Cmd"), arguments(value)?),
        "ENTRYPOINT" => change(Field::Value("Entrypoint"), arguments(value)?),
        "USER" => change(Field::Value("User"), json!(value)),
        "WORKDIR" if !value.starts_with('/') => Err("the directory is not absolute".to_owned()),
        "WORKDIR" => change(Field::Value("WorkingDir"), json!(value)),
        "STOPSIGNAL" if value.is_empty() => Err("the signal is missing".to_owned()),
        "STOPSIGNAL" => change(Field::Value("StopSignal"), json!(parse_signal(value)?)),
        "ENV" => change(Field::Env, pair(value)?),
        "LABEL" => change(Field::Labels, pair(value)?),
        "EXPOSE" => change(Field::Set("ExposedPorts"), ports(value)?),
        "VOLUME" => change(Field::Set("Volumes"), directories(value)?),
        _ => Err(format!(
            "{word:?} is none of CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME \
             and WORKDIR"
        )),
    }
}

/// An array of JSON, or a line for the shell; nothing takes the image's away.
fn arguments(value: &str) -> Result<Value, String> {
    if value.starts_with('[') {
        let list: Result<Vec<String>, _> = serde_json::from_str(value);
        return list
            .map(|list| json!(list))
            .map_err(|error| format!("its array: {error}"));
    }
    Ok(match value {
        "" => json!([]),
        line => json!(["/bin/sh", "-c", line]),
    })
}

/// `name=value`, or a name and what follows the space.
fn pair(value: &str) -> Result<Value, String> {
    let split = value.split_once('=').or_else(|| value.split_once(' '));
    let (name, value) = split.ok_or("it has no value")?;
    let unquoted = value.trim();
    let unquoted = (unquoted
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"')))
    .unwrap_or(unquoted);
    match name.trim() {
        "" => Err("it has no name".to_owned()),
        name => Ok(json!([name, unquoted])),
    }
}

fn ports(value: &str) -> Result<Value, String> {
    let mut ports = Vec::new();
    for port in value.split_whitespace() {
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        let is_known = matches!(protocol, "tcp" | "udp" | "sctp");
        let is_number = number.parse::<u16>().is_ok_and(|number| number > 0);
        if !is_known || !is_number {
            return Err(format!(
                "{port:?} is no port: write NUMBER or NUMBER/PROTOCOL"
            ));
        }
        ports.push(format!("{number}/{protocol}"));
    }
    match ports.as_slice() {
        [] => Err("the port is missing".to_owned()),
        ports => Ok(json!(ports)),
    }
}

fn directories(value: &str) -> Result<Value, String> {
    let list: Vec<String> = if value.starts_with('[') {
        serde_json::from_str(value).map_err(|error| format!("its array: {error}"))?
    } else {
        value.split_whitespace().map(str::to_owned).collect()
    };
    match list.iter().find(|directory| !directory.starts_with('/')) {
        Some(directory) => Err(format!("{directory:?} is not absolute")),
        None if list.is_empty() => Err("the directory is missing".to_owned()),
        None => Ok(json!(list)),
    }
}

impl ConfigChange {
    pub(super) fn is_entrypoint(&self) -> bool {
        self.field == Field::Value("Entrypoint")
    }

    /// Makes the change in `config`, the part of an image's config that says what to run.
    pub(super) fn apply(&self, config: &mut Map<String, Value>) {
        let texts = || {
            let items = self.value.as_array().into_iter().flatten();
            items.filter_map(Value::as_str)
        };
        match self.field {
            Field::Value(key) => {
                if self.is_entrypoint() {
                    // the command was meant for the old one
                    config.remove("Cmd");
                }
                config.insert(key.to_owned(), self.value.clone());
            }
            Field::Env => {
                let name = texts().next().unwrap_or_default();
                let item = texts().collect::<Vec<_>>().join("=");
                let env = part(config, "Env", json!([]));
                if let Some(env) = env.as_array_mut() {
                    let is_other = |old: &Value| {
                        let old = old.as_str().unwrap_or_default();
                        old.split('=').next() != Some(name)
                    };
                    env.retain(is_other);
                    env.push(json!(item));
                }
            }
            Field::Set(key) => {
                let set = part(config, key, json!({}));
                for text in texts() {
                    set[text] = json!({});
                }
            }
            Field::Labels => {
                let labels = part(config, "Labels", json!({}));
                let mut texts = texts();
                if let (Some(name), Some(value)) = (texts.next(), texts.next()) {
                    labels[name] = json!(value);
                }
            }
        }
    }
}

/// The part `key`; what it is without one, or with null for it, is `empty`.
fn part<'a>(config: &'a mut Map<String, Value>, key: &str, empty: Value) -> &'a mut Value {
    let part = config.entry(key).or_insert(Value::Null);
    if part.is_null() {
        *part = empty;
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_laid_over_a_config() {
        let base = || json!({"Cmd": ["old"], "Env": ["A=1", "B=2"], "Labels": null});
        let table = [
            (
                "CMD=/bin/ls -l",
                json!({"Cmd": ["/bin/sh", "-c", "/bin/ls -l"]}),
            ),
            (r#"cmd ["a", "b"]"#, json!({"Cmd": ["a", "b"]})),
            ("CMD=", json!({"Cmd": []})),
            (
                r#"ENTRYPOINT=["e"]"#,
                json!({"Cmd": null, "Entrypoint": ["e"]}),
            ),
            ("ENV=A=x=y", json!({"Env": ["B=2", "A=x=y"]})),
            ("ENV C \"d e\"", json!({"Env": ["A=1", "B=2", "C=d e"]})),
            ("ENV A=", json!({"Env": ["B=2", "A="]})),
            (
                "EXPOSE=80 53/udp",
                json!({"ExposedPorts": {"80/tcp": {}, "53/udp": {}}}),
            ),
            ("LABEL a.b=c", json!({"Labels": {"a.b": "c"}})),
            ("VOLUME=/data", json!({"Volumes": {"/data": {}}})),
            (
                r#"VOLUME ["/a","/b"]"#,
                json!({"Volumes": {"/a": {}, "/b": {}}}),
            ),
            ("USER 1:2", json!({"User": "1:2"})),
            ("WORKDIR=/srv", json!({"WorkingDir": "/srv"})),
            ("STOPSIGNAL SIGINT", json!({"StopSignal": "SIGINT"})),
        ];
        for (text, expected) in table {
            let mut config = base();
            let change: ConfigChange = text.parse().unwrap();
            change.apply(config.as_object_mut().unwrap());
            for (key, value) in expected.as_object().unwrap() {
                assert_eq!(config[key], *value, "{text}: {config}");
            }
        }
    }

    #[test]
    fn what_is_no_change_is_refused() {
        for text in [
            "",
            "CMD=[\"a\"",
            "CMD=[1]",
            "ENV A",
            "ENV",
            "ENV ==",
            "EXPOSE",
            "EXPOSE 0",
            "EXPOSE 70000",
            "EXPOSE 80/x",
            "LABEL =x",
            "VOLUME",
            "VOLUME data",
            "WORKDIR srv",
            "STOPSIGNAL",
            "STOPSIGNAL SIGNOTHING",
            "HEALTHCHECK CMD true",
            "FROM x",
        ] {
            assert!(text.parse::<ConfigChange>().is_err(), "{text:?}");
        }
    }
}
