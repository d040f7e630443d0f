//! containerd's settings of one registry: where it is, and what mirrors it has.
//!
//! ```toml
//! server = "https://registry.example"        # the registry itself
//! [host."https://mirror.example"]            # in the order of the file
//!   capabilities = ["pull", "resolve"]
//!   ca = "mirror.crt"                        # one or several
//!   client = [["client.cert", "client.key"]] # or one file with both
//!   skip_verify = false
//!   override_path = false                    # true: "/v2" is part of the address already
//!   [host."https://mirror.example".header]
//!     x-name = "value"
//! ```
//!
//! A directory without the file is a `certs.d` directory.
//!
//! Spec: containerd's docs/hosts.md

use std::path::{Path, PathBuf};

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use toml::Table;

use super::{SettingsError, Tls, Trust, certs_d, read_toml};
use crate::registry::endpoint::{Serves, api_host};

/// What one registry's directory says.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    pub(super) mirrors: Vec<Host>,
    /// The registry itself, where the file says how it is reached.
    pub(super) server: Option<Host>,
    /// The certificates of a directory without the file.
    pub(super) tls: Option<Tls>,
}

/// One address.
#[derive(Debug)]
pub(super) struct Host {
    /// Ends in a slash.
    pub(super) api: Url,
    pub(super) serves: Serves,
    pub(super) tls: Tls,
    pub(super) headers: HeaderMap,
}

#[derive(Deserialize)]
struct File {
    server: Option<String>,
    #[serde(default)]
    host: Table,
    #[serde(flatten)]
    own: Section,
}

#[derive(Deserialize, Default, PartialEq)]
struct Section {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMore>,
    client: Option<Client>,
    #[serde(default)]
    skip_verify: bool,
    #[serde(default)]
    override_path: bool,
    #[serde(default)]
    header: Table,
    #[serde(flatten)]
    others: Table,
}

#[derive(Deserialize, PartialEq)]
#[serde(untagged)]
enum OneOrMore {
    One(PathBuf),
    More(Vec<PathBuf>),
}

#[derive(Deserialize, PartialEq)]
#[serde(untagged)]
enum Client {
    One(PathBuf),
    Files(Vec<PathBuf>),
    Pairs(Vec<Vec<PathBuf>>),
}

/// Looks for `registry` in the first of `roots` that has it, or has a default.
pub(super) fn find(roots: &[PathBuf], registry: &str) -> Result<Hosts, SettingsError> {
    let with_port = match registry.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => format!("{host}_{port}_"),
        _ => registry.to_owned(),
    };
    for root in roots {
        for name in [with_port.as_str(), registry, "_default"] {
            let dir = root.join(name);
            if dir.is_dir() {
                return read(&dir, registry);
            }
        }
    }
    Ok(Hosts::default())
}

fn read(dir: &Path, registry: &str) -> Result<Hosts, SettingsError> {
    let path = dir.join("hosts.toml");
    let Some(file) = read_toml::<File>(&path)? else {
        return Ok(Hosts {
            tls: Some(certs_d::read(dir)?),
            ..Hosts::default()
        });
    };
    let at = Source { path: &path, dir };
    let mut hosts = Hosts::default();
    for (address, section) in file.host {
        let field = format!("host.{address:?}");
        let section: Section = section
            .try_into()
            .map_err(|error: toml::de::Error| at.wrong(&field, error.message()))?;
        hosts.mirrors.push(at.host(&field, &address, section)?);
    }
    if file.server.is_some() || file.own != Section::default() {
        let server = file.server.unwrap_or_else(|| api_host(registry).to_owned());
        hosts.server = Some(at.host("server", &server, file.own)?);
    }
    Ok(hosts)
}

struct Source<'a> {
    path: &'a Path,
    dir: &'a Path,
}

impl Source<'_> {
    fn wrong(&self, field: &str, problem: &str) -> SettingsError {
        SettingsError::Value {
            path: self.path.to_owned(),
            field: field.to_owned(),
            problem: problem.replace('\n', " "),
        }
    }

    fn host(&self, field: &str, address: &str, section: Section) -> Result<Host, SettingsError> {
        if let Some((other, _)) = section.others.iter().next() {
            return Err(self.wrong(&format!("{field}.{other}"), "is not known"));
        }
        let serves = self.serves(field, section.capabilities.as_deref())?;
        let within = |path: PathBuf| self.dir.join(path);
        let authorities = match section.ca {
            None => Vec::new(),
            Some(OneOrMore::One(path)) => vec![within(path)],
            Some(OneOrMore::More(paths)) => paths.into_iter().map(within).collect(),
        };
        let client = match section.client {
            None => None,
            Some(Client::One(path)) => Some((within(path), None)),
            Some(Client::Files(paths)) => paths.into_iter().next().map(|path| (within(path), None)),
            Some(Client::Pairs(pairs)) => match pairs.into_iter().next().as_deref() {
                None => None,
                Some([both]) => Some((within(both.clone()), None)),
                Some([cert, key]) => Some((within(cert.clone()), Some(within(key.clone())))),
                Some(_) => return Err(self.wrong(&format!("{field}.client"), "has no pairs")),
            },
        };
        let trust = if section.skip_verify {
            Trust::Any
        } else {
            Trust::Verified
        };
        Ok(Host {
            api: self.address(field, address, section.override_path)?,
            serves,
            tls: Tls {
                authorities,
                client,
                trust,
            },
            headers: self.headers(field, &section.header)?,
        })
    }

    /// The address of the interface: `/v2` comes behind it unless it is there.
    fn address(&self, field: &str, text: &str, is_whole: bool) -> Result<Url, SettingsError> {
        let with_scheme = if text.contains("://") {
            text.to_owned()
        } else {
            format!("https://{text}")
        };
        let parsed = Url::parse(&with_scheme).ok();
        let good = parsed.filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.host().is_some()
                && url.username().is_empty()
                && url.password().is_none()
        });
        let Some(mut url) = good else {
            return Err(self.wrong(field, "is no address of http or https"));
        };
        let path = url.path().trim_end_matches('/').to_owned();
        let path = if is_whole || path.ends_with("/v2") {
            format!("{path}/")
        } else {
            format!("{path}/v2/")
        };
        url.set_path(&path);
        url.set_query(None);
        Ok(url)
    }

    fn serves(&self, field: &str, names: Option<&[String]>) -> Result<Serves, SettingsError> {
        let Some(names) = names else {
            return Ok(Serves::All);
        };
        let known = ["pull", "resolve", "push", "referrers"];
        if let Some(other) = names.iter().find(|name| !known.contains(&name.as_str())) {
            let problem = format!("{other:?} is none of {}", known.join(", "));
            return Err(self.wrong(&format!("{field}.capabilities"), &problem));
        }
        let has = |name: &str| names.iter().any(|found| found == name);
        Ok(match (has("pull"), has("resolve")) {
            (true, true) => Serves::All,
            (true, false) => Serves::Digests,
            (false, true) => Serves::Tags,
            (false, false) => Serves::Nothing,
        })
    }

    fn headers(&self, field: &str, table: &Table) -> Result<HeaderMap, SettingsError> {
        let mut headers = HeaderMap::new();
        for (name, value) in table {
            let wrong = || self.wrong(&format!("{field}.header.{name}"), "is no header");
            let texts = match value {
                toml::Value::String(text) => vec![text.as_str()],
                toml::Value::Array(list) => list.iter().filter_map(toml::Value::as_str).collect(),
                _ => return Err(wrong()),
            };
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
            for text in texts {
                let mut value = HeaderValue::from_str(text).map_err(|_| wrong())?;
                value.set_sensitive(true);
                headers.append(name.clone(), value);
            }
        }
        Ok(headers)
    }
}
