//! `registries.conf` in its second version, with its drop-ins.
//!
//! ```toml
//! unqualified-search-registries = ["docker.io"]
//! [aliases]
//!   "name" = "registry.example/team/name"
//! [[registry]]
//!   prefix = "registry.example/team"     # or "*.example"
//!   location = "other.example/team"
//!   blocked = false
//!   insecure = false
//!   [[registry.mirror]]
//!     location = "mirror.example/team"
//!     pull-from-mirror = "digest-only"
//! ```
//!
//! Spec: containers-registries.conf(5), containers-registries.conf.d(5)

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{SettingsError, is_missing, read_toml};
use crate::errno::CallError;
use crate::reference::Reference;
use crate::registry::endpoint::{Place, Serves};

/// What all files together say.
#[derive(Debug, Default)]
pub(super) struct RegistriesConf {
    /// The main file, for messages.
    path: PathBuf,
    search: Vec<String>,
    aliases: BTreeMap<String, String>,
    registries: Vec<Registry>,
    credential_helpers: Vec<String>,
}

/// A repository's way.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) mirrors: Vec<Mirror>,
    pub(super) primary: Place,
}

/// A mirror's repository, and what it may be asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mirror {
    pub(super) place: Place,
    pub(super) serves: Serves,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    unqualified_search_registries: Option<Vec<String>>,
    #[serde(default)]
    aliases: BTreeMap<String, String>,
    #[serde(default)]
    registry: Vec<RawRegistry>,
    credential_helpers: Option<Vec<String>>,
    short_name_mode: Option<String>,
    // of a store that this program has no part in
    #[serde(rename = "additional-layer-store-auth-helper")]
    _layer_store_helper: Option<String>,
    /// The first version of the format.
    registries: Option<toml::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawRegistry {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    location: String,
    insecure: Option<bool>,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<RawMirror>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawMirror {
    location: String,
    insecure: Option<bool>,
    #[serde(default)]
    pull_from_mirror: String,
}

#[derive(Debug)]
struct Registry {
    path: PathBuf,
    prefix: String,
    /// Empty: what was asked for.
    location: String,
    insecure: Option<bool>,
    blocked: bool,
    mirrors: Vec<(String, Option<bool>, Serves)>,
}

impl RegistriesConf {
    /// Reads the first of `paths` that is there, and the drop-ins of all of them.
    pub(super) fn load(paths: &[PathBuf]) -> Result<Self, SettingsError> {
        let mut conf = Self {
            path: paths.first().cloned().unwrap_or_default(),
            ..Self::default()
        };
        for path in paths {
            if let Some(file) = read_toml::<File>(path)? {
                conf.path.clone_from(path);
                conf.add(path, file)?;
                break;
            }
        }
        // the system's first, so that the user's own override them
        for path in paths.iter().rev() {
            for drop_in in drop_ins(path)? {
                if let Some(file) = read_toml::<File>(&drop_in)? {
                    conf.add(&drop_in, file)?;
                }
            }
        }
        Ok(conf)
    }

    /// Lets a file override what is known.
    fn add(&mut self, path: &Path, file: File) -> Result<(), SettingsError> {
        if file.registries.is_some() {
            let problem = "the first version of this format is not served; write [[registry]]";
            return Err(wrong(path, "registries", problem));
        }
        let modes = ["", "enforcing", "permissive", "disabled"];
        if let Some(mode) = &file.short_name_mode
            && !modes.contains(&mode.as_str())
        {
            let problem = format!("{mode:?} is none of enforcing, permissive, disabled");
            return Err(wrong(path, "short-name-mode", &problem));
        }
        if let Some(search) = file.unqualified_search_registries {
            self.search = search;
        }
        if let Some(helpers) = file.credential_helpers {
            self.credential_helpers = helpers;
        }
        for (name, value) in file.aliases {
            if value.is_empty() {
                self.aliases.remove(&name);
                continue;
            }
            let is_short = |text: &str| {
                (text.parse::<Reference>()).is_ok_and(|reference| reference.short_name().is_some())
            };
            if !is_short(&name) || is_short(&value) || value.parse::<Reference>().is_err() {
                let problem = format!("{value:?} is no whole name for a short one");
                return Err(wrong(path, &format!("aliases.{name:?}"), &problem));
            }
            self.aliases.insert(name, value);
        }
        for (index, raw) in file.registry.into_iter().enumerate() {
            let registry = Registry::new(path, index, raw)?;
            self.registries
                .retain(|known| known.prefix != registry.prefix);
            self.registries.push(registry);
        }
        Ok(())
    }

    pub(super) fn credential_helpers(&self) -> &[String] {
        &self.credential_helpers
    }

    /// An error about a value of these files.
    pub(super) fn value(&self, field: &str, value: &str, problem: &str) -> SettingsError {
        wrong(&self.path, field, &format!("{value:?} is {problem}"))
    }

    /// The whole name of what was named without a registry.
    pub(super) fn qualify(&self, reference: &Reference) -> Result<Reference, SettingsError> {
        let Some(name) = reference.short_name() else {
            return Ok(reference.clone());
        };
        let whole = match (self.aliases.get(name), self.search.as_slice()) {
            (Some(whole), _) => whole.clone(),
            (None, []) => return Ok(reference.clone()),
            (None, [only]) => format!("{only}/{name}"),
            (None, several) => {
                let candidates = several.iter().map(|registry| format!("{registry}/{name}"));
                return Err(SettingsError::ShortName {
                    name: name.to_owned(),
                    candidates: candidates.collect(),
                });
            }
        };
        let found = reference.renamed(&whole);
        found.map_err(|_| self.value("unqualified-search-registries", &whole, "no name"))
    }

    /// What is said of the TLS of `registry`, if anything.
    pub(super) fn insecure(&self, registry: &str) -> Option<bool> {
        let best = (self.registries.iter())
            .filter_map(|known| Some((known.match_length(registry)?, known)))
            .max_by_key(|(length, _)| *length);
        best.and_then(|(_, known)| known.insecure)
    }

    /// Where a repository is: its mirrors, and its own place.
    pub(super) fn route(&self, reference: &Reference) -> Result<Route, SettingsError> {
        let name = reference.name();
        let best = (self.registries.iter())
            .filter_map(|registry| Some((registry.match_length(&name)?, registry)))
            .max_by_key(|(length, _)| *length);
        let as_it_is = Place {
            registry: reference.registry().to_owned(),
            repository: reference.repository().to_owned(),
            insecure: None,
        };
        let Some((length, registry)) = best else {
            return Ok(Route {
                mirrors: Vec::new(),
                primary: as_it_is,
            });
        };
        if registry.blocked {
            return Err(SettingsError::Blocked {
                path: registry.path.clone(),
                prefix: registry.prefix.clone(),
            });
        }
        let rest = &name[length..];
        let place = |location: &str, insecure| {
            let whole = format!("{location}{rest}");
            let Some((host, repository)) = whole.split_once('/') else {
                let problem = format!("{location:?} leaves no repository");
                return Err(wrong(&registry.path, "location", &problem));
            };
            Ok(Place {
                registry: host.to_owned(),
                repository: repository.to_owned(),
                insecure,
            })
        };
        let mut mirrors = Vec::new();
        for (location, insecure, serves) in &registry.mirrors {
            mirrors.push(Mirror {
                place: place(location, *insecure)?,
                serves: *serves,
            });
        }
        let primary = if registry.location.is_empty() {
            Place {
                insecure: registry.insecure,
                ..as_it_is
            }
        } else {
            place(&registry.location, registry.insecure)?
        };
        Ok(Route { mirrors, primary })
    }
}

impl Registry {
    fn new(path: &Path, index: usize, raw: RawRegistry) -> Result<Self, SettingsError> {
        let field = |name: &str| format!("registry[{index}].{name}");
        let clean = |text: &str, name: &str| {
            let text = text.trim_end_matches('/');
            let after_host = text.split_once('/').map_or("", |(_, rest)| rest);
            if text.contains("://") || after_host.contains([':', '@']) {
                let problem = format!("{text:?} is no host with a path behind it");
                return Err(wrong(path, &field(name), &problem));
            }
            Ok(text.to_owned())
        };
        let location = clean(&raw.location, "location")?;
        let prefix = clean(&raw.prefix, "prefix")?;
        let prefix = if prefix.is_empty() {
            location.clone()
        } else {
            prefix
        };
        if prefix.is_empty() {
            return Err(wrong(
                path,
                &field("prefix"),
                "is missing, and so is location",
            ));
        }
        let is_wildcard = prefix.starts_with("*.");
        if prefix.contains('*') && (!is_wildcard || prefix[2..].contains(['*', '/'])) {
            let problem =
                format!("{prefix:?}: a wildcard stands for the first part of a host only");
            return Err(wrong(path, &field("prefix"), &problem));
        }
        let mut mirrors = Vec::new();
        for mirror in raw.mirror {
            let by_digest = raw.mirror_by_digest_only;
            let serves = match (mirror.pull_from_mirror.as_str(), by_digest) {
                ("" | "all", false) => Serves::All,
                ("", true) | ("digest-only", false) => Serves::Digests,
                ("tag-only", false) => Serves::Tags,
                (other, _) => {
                    let problem = format!("{other:?} does not fit here");
                    return Err(wrong(path, &field("mirror.pull-from-mirror"), &problem));
                }
            };
            let location = clean(&mirror.location, "mirror.location")?;
            if location.is_empty() {
                return Err(wrong(path, &field("mirror.location"), "is empty"));
            }
            mirrors.push((location, mirror.insecure, serves));
        }
        Ok(Self {
            path: path.to_owned(),
            prefix,
            location: if is_wildcard { String::new() } else { location },
            insecure: raw.insecure,
            blocked: raw.blocked,
            mirrors,
        })
    }

    /// How much of `name` this entry's prefix covers, if it does.
    fn match_length(&self, name: &str) -> Option<usize> {
        if let Some(domain) = self.prefix.strip_prefix('*') {
            let host = name.split('/').next().unwrap_or(name);
            let bare = host.split(':').next().unwrap_or(host);
            let matches = host.ends_with(domain) || bare.ends_with(domain);
            return matches.then_some(host.len());
        }
        let rest = name.strip_prefix(&self.prefix)?;
        (rest.is_empty() || rest.starts_with('/')).then_some(self.prefix.len())
    }
}

fn wrong(path: &Path, field: &str, problem: &str) -> SettingsError {
    SettingsError::Value {
        path: path.to_owned(),
        field: field.to_owned(),
        problem: problem.to_owned(),
    }
}

/// The files of `PATH.d` whose names end in `.conf`, in their order.
fn drop_ins(path: &Path) -> Result<Vec<PathBuf>, SettingsError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".d");
    let dir = PathBuf::from(name);
    let entries = match fs::read_dir(&dir) {
        Err(error) if is_missing(&error) => return Ok(Vec::new()),
        entries => entries.and_then(Iterator::collect::<Result<Vec<_>, _>>),
    };
    let entries = entries.map_err(|error| CallError::new("read", &dir, error))?;
    let mut files: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "conf"));
    files.sort();
    Ok(files)
}
