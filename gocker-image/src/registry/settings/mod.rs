//! How registries are reached, as users of other tools have said already.
//!
//! ```text
//! registries.conf   short names, blocked, other locations, mirrors    registries_conf
//!    hosts.toml     for each place: more mirrors, and its address     hosts_toml
//!       certs.d     for each host: authorities, client certificates   certs_d
//! ```
//!
//! All three are read as they are. Together they make the list of endpoints
//! that a repository is asked for at, mirrors first.
//!
//! Spec: containers-registries.conf(5), containers-certs.d(5), containerd's hosts.md

mod certs_d;
mod hosts_toml;
mod registries_conf;

use std::io;
use std::path::{Path, PathBuf};

use reqwest::Url;
use serde::de::DeserializeOwned;

use super::endpoint::{Closeness, Endpoint, Place, Role, Serves, api_host, closeness};
use crate::environment::path_in;
use crate::errno::CallError;
use crate::reference::Reference;
use hosts_toml::Host;
use registries_conf::RegistriesConf;

/// The most bytes of one file of settings.
const FILE_LIMIT: u64 = 4 << 20;

/// Why settings cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A file is there but cannot be read.
    #[error(transparent)]
    Read(#[from] CallError),
    /// A file is not what it should be.
    #[error("{path:?}: line {line}: {problem}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1 on.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// A value is none that can be followed.
    #[error("{path:?}: {field}: {problem}")]
    Value {
        /// The file.
        path: PathBuf,
        /// Which field.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The user has forbidden it.
    #[error("{path:?} blocks {prefix:?}")]
    Blocked {
        /// The file.
        path: PathBuf,
        /// The entry that matches.
        prefix: String,
    },
    /// A name without a registry that may mean several images.
    #[error("{name:?} says no registry, and registries.conf has several to search")]
    ShortName {
        /// The name.
        name: String,
        /// What it may mean.
        candidates: Vec<String>,
    },
}

impl SettingsError {
    /// What a user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::ShortName { candidates, .. } => {
                Some(format!("say which: {}", candidates.join(", ")))
            }
            _ => None,
        }
    }
}

/// Where settings are looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingsPaths {
    /// `registries.conf`, the first that is there; its drop-ins lie in `registries.conf.d`.
    pub registries_conf: Vec<PathBuf>,
    /// Directories like `certs.d`, with one directory per host in each.
    pub certs_dirs: Vec<PathBuf>,
    /// A directory with certificates for every registry.
    pub cert_dir: Option<PathBuf>,
    /// Directories with one directory per host, which holds a `hosts.toml`.
    pub hosts_dirs: Vec<PathBuf>,
}

impl SettingsPaths {
    /// The places that Podman, Docker and containerd use.
    #[must_use]
    pub fn from_environment() -> Self {
        let config =
            path_in("XDG_CONFIG_HOME").or_else(|| path_in("HOME").map(|home| home.join(".config")));
        let own = |path: &str| config.as_ref().map(|config| config.join(path));
        let places = |own: Option<PathBuf>, system: &[&str]| -> Vec<PathBuf> {
            own.into_iter()
                .chain(system.iter().map(PathBuf::from))
                .collect()
        };
        Self {
            registries_conf: match path_in("CONTAINERS_REGISTRIES_CONF") {
                Some(only) => vec![only],
                None => places(
                    own("containers/registries.conf"),
                    &["/etc/containers/registries.conf"],
                ),
            },
            certs_dirs: places(
                own("containers/certs.d"),
                &["/etc/containers/certs.d", "/etc/docker/certs.d"],
            ),
            cert_dir: None,
            hosts_dirs: places(own("containerd/certs.d"), &["/etc/containerd/certs.d"]),
        }
    }
}

/// Which certificates are shown to a host, and which of its are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Tls {
    /// Authorities besides those of the system, in PEM.
    pub(super) authorities: Vec<PathBuf>,
    /// The client's certificate and its key, which may lie in one file.
    pub(super) client: Option<(PathBuf, Option<PathBuf>)>,
    /// Whether any certificate is believed.
    pub(super) trust: Trust,
}

/// Which certificates of a host are believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Trust {
    /// Those that an authority vouches for.
    #[default]
    Verified,
    /// Any, because the user said so.
    Any,
}

/// All settings.
#[derive(Debug)]
pub(super) struct Settings {
    conf: RegistriesConf,
    paths: SettingsPaths,
    /// Registries that are reached by http, by the user's word.
    insecure: Vec<String>,
}

impl Settings {
    /// Reads `registries.conf`; what concerns single hosts is read when they are reached.
    pub(super) fn load(paths: &SettingsPaths, insecure: &[String]) -> Result<Self, SettingsError> {
        Ok(Self {
            conf: RegistriesConf::load(&paths.registries_conf)?,
            paths: paths.clone(),
            insecure: insecure.to_vec(),
        })
    }

    /// The whole name of an image that was named without its registry.
    pub(super) fn qualify(&self, reference: &Reference) -> Result<Reference, SettingsError> {
        self.conf.qualify(reference)
    }

    /// The helpers that keep credentials, in their order.
    pub(super) fn credential_helpers(&self) -> &[String] {
        self.conf.credential_helpers()
    }

    /// Where `reference` is asked for: mirrors first, its registry last.
    pub(super) fn route(&self, reference: &Reference) -> Result<Vec<Endpoint>, SettingsError> {
        let route = self.conf.route(reference)?;
        let mut endpoints = Vec::new();
        for mirror in &route.mirrors {
            endpoints.extend(self.endpoints(&mirror.place, Role::Mirror, mirror.serves)?);
        }
        endpoints.extend(self.endpoints(&route.primary, Role::Registry, Serves::All)?);
        name_own(&mut endpoints, reference.registry());
        Ok(endpoints)
    }

    /// The registry of `reference` itself, without mirrors.
    pub(super) fn own_endpoints(
        &self,
        reference: &Reference,
    ) -> Result<Vec<Endpoint>, SettingsError> {
        let mut endpoints = self.route(reference)?;
        endpoints.retain(|endpoint| endpoint.role != Role::Mirror);
        Ok(endpoints)
    }

    /// Where `registry` itself is, whatever repository is meant.
    pub(super) fn login_endpoints(&self, registry: &str) -> Result<Vec<Endpoint>, SettingsError> {
        let place = Place {
            registry: registry.to_owned(),
            repository: String::new(),
            insecure: self.conf.insecure(registry),
        };
        let mut endpoints = self.endpoints(&place, Role::Registry, Serves::All)?;
        endpoints.retain(|endpoint| endpoint.role != Role::Mirror);
        name_own(&mut endpoints, registry);
        Ok(endpoints)
    }

    /// What is configured for the certificates of `host`, as `host[:port]`.
    pub(super) fn tls(&self, host: &str) -> Result<Option<Tls>, SettingsError> {
        if let Some(dir) = &self.paths.cert_dir {
            return certs_d::read(dir).map(Some);
        }
        for dir in &self.paths.certs_dirs {
            let dir = dir.join(host);
            if dir.is_dir() {
                return certs_d::read(&dir).map(Some);
            }
        }
        Ok(None)
    }

    /// The endpoints of one place, with those that containerd's settings have for its host.
    fn endpoints(
        &self,
        place: &Place,
        role: Role,
        serves: Serves,
    ) -> Result<Vec<Endpoint>, SettingsError> {
        let mut endpoints = Vec::new();
        let hosts = hosts_toml::find(&self.paths.hosts_dirs, &place.registry)?;
        for host in hosts.mirrors {
            let serves = serves.and(host.serves);
            endpoints.push(of_host(host, place, Role::Mirror, serves));
        }
        match hosts.server {
            Some(server) => endpoints.push(of_host(server, place, role, serves)),
            None => endpoints.extend(self.plain_endpoints(place, role, serves, hosts.tls)?),
        }
        Ok(endpoints)
    }

    /// A place by its name alone: https, but http on loopback where nothing is said of
    /// certificates, and where the user wants it.
    fn plain_endpoints(
        &self,
        place: &Place,
        role: Role,
        serves: Serves,
        of_hosts_dir: Option<Tls>,
    ) -> Result<Vec<Endpoint>, SettingsError> {
        let host = api_host(&place.registry);
        let make = |scheme: &str, role, tls| {
            let api = Url::parse(&format!("{scheme}://{host}/v2/"));
            let api = api.map_err(|_| self.conf.value("location", &place.registry, "no host"))?;
            let endpoint = Endpoint::new(api, place, role);
            Ok::<_, SettingsError>(endpoint.serving(serves).with_tls(tls))
        };
        let is_listed = |entry: &String| *entry == place.registry || entry == host;
        if self.insecure.iter().any(is_listed) {
            return Ok(vec![make("http", role, Tls::default())?]);
        }
        let tls = match self.tls(&place.registry)? {
            None if host != place.registry => self.tls(host)?,
            found => found,
        };
        let tls = tls.or(of_hosts_dir);
        if place.insecure == Some(true) {
            let tls = Tls {
                trust: Trust::Any,
                ..tls.unwrap_or_default()
            };
            let mut guess = make("https", role, tls)?;
            guess.is_guess = true;
            return Ok(vec![guess, make("http", role, Tls::default())?]);
        }
        let url = Url::parse(&format!("http://{host}/"));
        let is_loopback = url.is_ok_and(|url| closeness(&url) == Closeness::Loopback);
        if is_loopback && tls.is_none() && place.insecure.is_none() {
            return Ok(vec![make("http", role, Tls::default())?]);
        }
        Ok(vec![make("https", role, tls.unwrap_or_default())?])
    }
}

/// Tells the registry itself, which gets what the user gives for it, from its mirrors.
fn name_own(endpoints: &mut [Endpoint], registry: &str) {
    for endpoint in endpoints {
        if endpoint.role == Role::Registry {
            endpoint.named = Some(registry.to_owned());
        }
    }
}

fn of_host(host: Host, place: &Place, role: Role, serves: Serves) -> Endpoint {
    let is_own = host.api.host_str().is_some_and(|name| {
        let port = host.api.port().map(|port| format!(":{port}"));
        format!("{name}{}", port.unwrap_or_default()) == api_host(&place.registry)
    });
    let mut endpoint = Endpoint::new(host.api, place, role)
        .serving(serves)
        .with_tls(host.tls);
    if !is_own {
        // credentials are those of the host that gets them
        endpoint = endpoint.of_another_host();
    }
    endpoint.headers = host.headers;
    endpoint
}

/// Reads a file of TOML. None: there is none.
fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, SettingsError> {
    use std::io::Read as _;
    let mut text = String::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(FILE_LIMIT).read_to_string(&mut text));
    match read {
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(CallError::new("open", path, error).into()),
        Ok(_) => {}
    }
    let parsed = toml::from_str(&text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        SettingsError::Syntax {
            path: path.to_owned(),
            line: text[..start.min(text.len())].matches('\n').count() + 1,
            problem: error.message().replace('\n', " "),
        }
    })?;
    Ok(Some(parsed))
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

#[cfg(test)]
mod tests;
