//! Mounts as users write them: `--mount`, `--volume` and `--tmpfs`.

use std::str::FromStr;

use serde_json::{Value, json};

/// A value that a flag cannot have, or not beside the others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{flag}: {reason}")]
pub struct OptionError {
    flag: &'static str,
    reason: String,
}

impl OptionError {
    pub(super) fn new(flag: &'static str, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self { flag, reason }
    }
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    /// A file or directory of the host's.
    Bind(String),
    Tmpfs,
}

/// A mount that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOption {
    /// The flag that it was asked by.
    pub(super) flag: &'static str,
    source: Source,
    /// Where, in the container.
    pub(super) destination: String,
    options: Vec<String>,
}

/// A mount in the words of `--mount`: `type=bind,src=DIR,dst=DIR,ro`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountFlag(pub MountOption);

/// A mount in the words of `--volume`: `SOURCE:DESTINATION[:OPTIONS]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeFlag(pub MountOption);

/// A mount in the words of `--tmpfs`: `DESTINATION[:OPTIONS]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TmpfsFlag(pub MountOption);

impl FromStr for MountFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut kind, mut source, mut destination) = ("bind", None, None);
        let mut options = Vec::new();
        let mut recursive = true;
        for field in text.split(',') {
            let (key, value) = field.split_once('=').unwrap_or((field, "true"));
            match key {
                "type" => kind = value,
                "source" | "src" => source = Some(value),
                "destination" | "dst" | "target" => destination = Some(value),
                "ro" | "readonly" => {
                    options.push(if switch(key, value)? { "ro" } else { "rw" }.to_owned())
                }
                "bind-propagation" => options.push(checked(value, &PROPAGATIONS)?),
                "bind-nonrecursive" => recursive = !switch(key, value)?,
                "tmpfs-size" => options.push(format!("size={value}")),
                "tmpfs-mode" => options.push(format!("mode={value}")),
                _ if field.contains('=') => return Err(format!("it has no field {key:?}")),
                word => options.push(checked(word, &WORDS)?),
            }
        }
        let source = match (kind, source) {
            ("bind", Some(source)) => Source::Bind(source.to_owned()),
            ("bind", None) => return Err("src=PATH is missing".to_owned()),
            ("tmpfs", None) => Source::Tmpfs,
            ("tmpfs", Some(_)) => return Err("a tmpfs has no src".to_owned()),
            _ => return Err(format!("the types are bind and tmpfs, not {kind:?}")),
        };
        let destination = destination.ok_or("dst=PATH is missing")?;
        if !recursive {
            options.push("bind".to_owned());
        }
        Ok(Self(mount("--mount", source, destination, options)?))
    }
}

impl FromStr for VolumeFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let (source, destination, options) = match parts[..] {
            [source, destination] => (source, destination, ""),
            [source, destination, options] => (source, destination, options),
            _ => return Err("write SOURCE:DESTINATION or SOURCE:DESTINATION:OPTIONS".to_owned()),
        };
        if !source.starts_with(['/', '.']) {
            return Err(format!(
                "there are no volumes with names: {source:?} is no path (./{source} is)"
            ));
        }
        let words = options.split(',').filter(|word| !word.is_empty());
        let known: Vec<&str> = WORDS.iter().chain(&PROPAGATIONS).copied().collect();
        let options = words
            .map(|word| checked(word, &known))
            .collect::<Result<_, _>>()?;
        let source = Source::Bind(source.to_owned());
        Ok(Self(mount("--volume", source, destination, options)?))
    }
}

impl FromStr for TmpfsFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (destination, options) = text.split_once(':').unwrap_or((text, ""));
        let words = options.split(',').filter(|word| !word.is_empty());
        let words = words.map(|word| match word.split_once('=') {
            Some(("size" | "mode" | "nr_inodes" | "uid" | "gid", value)) if !value.is_empty() => {
                Ok(word.to_owned())
            }
            _ => checked(word, &WORDS),
        });
        let options = words.collect::<Result<_, _>>()?;
        Ok(Self(mount("--tmpfs", Source::Tmpfs, destination, options)?))
    }
}

/// Options of a mount that are one word.
const WORDS: [&str; 10] = [
    "ro", "rw", "bind", "rbind", "exec", "noexec", "suid", "nosuid", "dev", "nodev",
];
/// How mounts below pass between the host and the container.
const PROPAGATIONS: [&str; 6] = [
    "private", "rprivate", "shared", "rshared", "slave", "rslave",
];

fn checked(word: &str, known: &[&str]) -> Result<String, String> {
    match word {
        "z" | "Z" | "U" | "O" => Err(format!(
            "option {word:?} is not served: files of the host stay as they are"
        )),
        word if known.contains(&word) => Ok(word.to_owned()),
        word => Err(format!("it has no option {word:?}")),
    }
}

fn switch(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("{key} is true or false, not {value:?}")),
    }
}

fn mount(
    flag: &'static str,
    source: Source,
    destination: &str,
    options: Vec<String>,
) -> Result<MountOption, String> {
    let is_below = destination.split('/').all(|part| part != "..");
    let plain = format!("/{}", destination.trim_matches('/'));
    if !destination.starts_with('/') || !is_below || plain == "/" || destination.contains('\0') {
        return Err(format!(
            "the destination {destination:?} is not an absolute path below the root"
        ));
    }
    let is_empty_bind = matches!(&source, Source::Bind(source) if source.is_empty());
    if is_empty_bind {
        return Err("the source is empty".to_owned());
    }
    Ok(MountOption {
        flag,
        source,
        destination: plain,
        options,
    })
}

impl MountOption {
    /// The mount in config.json. What is not asked for otherwise is safe: no devices, no
    /// set-user-id programs, and nothing that is mounted later comes in or goes out.
    pub(super) fn to_json(&self) -> Result<Value, OptionError> {
        let has = |words: &[&str]| {
            self.options
                .iter()
                .any(|option| words.contains(&option.as_str()))
        };
        let mut options: Vec<&str> = Vec::new();
        let mut unless = |words: &[&str], option| {
            if !has(words) {
                options.push(option);
            }
        };
        unless(&["suid", "nosuid"], "nosuid");
        unless(&["dev", "nodev"], "nodev");
        let (kind, source) = match &self.source {
            Source::Bind(source) => {
                unless(&["bind", "rbind"], "rbind");
                unless(&PROPAGATIONS, "rprivate");
                let path = super::host_path(self.flag, source)?;
                let path = path.into_os_string().into_string();
                let text = path
                    .map_err(|_| OptionError::new(self.flag, format!("{source:?} is not UTF-8")))?;
                ("bind", text)
            }
            Source::Tmpfs => {
                unless(&["exec", "noexec"], "noexec");
                ("tmpfs", "tmpfs".to_owned())
            }
        };
        options.extend(self.options.iter().map(String::as_str));
        Ok(json!({
            "destination": self.destination, "type": kind, "source": source, "options": options,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json_of(mount: &MountOption) -> Value {
        mount.to_json().unwrap()
    }

    #[test]
    fn mounts_are_read_in_three_forms() {
        let volume = |text: &str| json_of(&text.parse::<VolumeFlag>().unwrap().0);
        let written = |text: &str| json_of(&text.parse::<MountFlag>().unwrap().0);
        let tmpfs = |text: &str| json_of(&text.parse::<TmpfsFlag>().unwrap().0);
        let bind = |options: Value| json!({"destination": "/data", "type": "bind", "source": "/etc", "options": options});
        let safe = ["nosuid", "nodev", "rbind", "rprivate"];
        assert_eq!(volume("/etc:/data"), bind(json!(safe)));
        assert_eq!(
            volume("/etc/:/data/:ro,rslave,dev"),
            bind(json!(["nosuid", "rbind", "ro", "rslave", "dev"]))
        );
        assert_eq!(written("type=bind,src=/etc,dst=/data"), bind(json!(safe)));
        assert_eq!(
            written("src=/etc,target=/data,readonly,bind-propagation=slave,bind-nonrecursive=true"),
            bind(json!(["nosuid", "nodev", "ro", "slave", "bind"]))
        );
        let memory = |options: Value| json!({"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": options});
        assert_eq!(tmpfs("/run"), memory(json!(["nosuid", "nodev", "noexec"])));
        assert_eq!(
            tmpfs("/run:size=1m,exec"),
            memory(json!(["nosuid", "nodev", "size=1m", "exec"]))
        );
        assert_eq!(
            written("type=tmpfs,dst=/run,tmpfs-size=1m,tmpfs-mode=700"),
            memory(json!(["nosuid", "nodev", "noexec", "size=1m", "mode=700"]))
        );
    }

    #[test]
    fn what_is_no_mount_is_refused() {
        for bad in [
            "",
            "/a",
            "name:/b",
            "/a:b",
            "/a:/",
            "/a:/b/../c",
            "/a:/b:x",
            "/a:/b:ro:z",
            "/a:/b:Z",
        ] {
            assert!(bad.parse::<VolumeFlag>().is_err(), "{bad:?}");
        }
        for bad in [
            "",
            "type=bind,dst=/a",
            "src=/a",
            "type=volume,src=a,dst=/a",
            "type=tmpfs,src=/a,dst=/a",
            "src=/a,dst=/b,ro=maybe",
            "src=/a,dst=/b,x=y",
            "src=/a,dst=/b,bind-propagation=x",
        ] {
            assert!(bad.parse::<MountFlag>().is_err(), "{bad:?}");
        }
        for bad in ["", "run", "/", "/a:size=", "/a:x=1", "/a:relatime2"] {
            assert!(bad.parse::<TmpfsFlag>().is_err(), "{bad:?}");
        }
        let missing = "/nowhere/at/all:/x".parse::<VolumeFlag>().unwrap();
        let error = missing.0.to_json().unwrap_err().to_string();
        assert!(
            error.starts_with("--volume: \"/nowhere/at/all\": no such file"),
            "{error}"
        );
    }
}
