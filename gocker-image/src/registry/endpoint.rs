//! Where a repository's interface is, and which hosts are close to us.

use std::net::IpAddr;

use reqwest::Url;
use reqwest::header::HeaderMap;

use super::error::RegistryError;
use super::settings::Tls;
use crate::reference::DEFAULT_REGISTRY;

/// A repository at a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// `host[:port]`.
    pub(super) registry: String,
    /// The path within it.
    pub(super) repository: String,
    /// What the user says of TLS, if anything.
    pub(super) insecure: Option<bool>,
}

/// What is asked of a mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Serves {
    /// Whatever it has.
    All,
    /// What is named by its digest.
    Digests,
    /// What is named by a tag, and then its blobs.
    Tags,
    /// Nothing that is pulled.
    Nothing,
}

impl Serves {
    /// What both allow.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, other) | (other, Self::All) => other,
            (one, other) if one == other => one,
            _ => Self::Nothing,
        }
    }
}

/// What an endpoint is among those of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The last word.
    Registry,
    /// Asked first; whatever it does not answer is asked of the next.
    Mirror,
}

/// A repository's interface at one address.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    /// `https://host/v2/`.
    api: Url,
    /// What the repository is called there.
    repository: String,
    /// What credentials are kept under: `host[:port]`.
    registry: String,
    pub(super) role: Role,
    /// Whether it may speak http instead of https, by the user's word; then the next one does.
    pub(super) is_guess: bool,
    /// The registry that the user named, if this is the one.
    pub(super) named: Option<String>,
    serves: Serves,
    pub(super) tls: Tls,
    /// Header fields that the user wants to be sent to it.
    pub(super) headers: HeaderMap,
    /// The registry that it stands for, told in the query as containerd does.
    stands_for: Option<String>,
}

impl Endpoint {
    /// `place` at the address `api`, which ends in a slash.
    pub(super) fn new(api: Url, place: &Place, role: Role) -> Self {
        Self {
            api,
            repository: place.repository.clone(),
            registry: place.registry.clone(),
            role,
            is_guess: false,
            named: None,
            serves: Serves::All,
            tls: Tls::default(),
            headers: HeaderMap::new(),
            stands_for: None,
        }
    }

    pub(super) fn serving(self, serves: Serves) -> Self {
        Self { serves, ..self }
    }

    pub(super) fn with_tls(self, tls: Tls) -> Self {
        Self { tls, ..self }
    }

    /// The same at a host that is not the registry's own: credentials are those of that host.
    pub(super) fn of_another_host(self) -> Self {
        let port = self.api.port().map(|port| format!(":{port}"));
        let host = self.api.host_str().unwrap_or_default();
        Self {
            registry: format!("{host}{}", port.unwrap_or_default()),
            stands_for: Some(self.registry),
            ..self
        }
    }

    /// Whether the next endpoint is to be asked after `error`.
    pub(super) fn passes(&self, error: &RegistryError) -> bool {
        if self.is_guess && matches!(error, RegistryError::Transport { .. }) {
            return true;
        }
        match self.role {
            Role::Mirror => error.falls_through(),
            Role::Registry => false,
        }
    }

    /// The address of `path` below `/v2/REPOSITORY/`.
    pub(super) fn url(&self, path: &str) -> Url {
        self.api_url(&format!("{}/{path}", self.repository))
    }

    /// The address of `path` below `/v2/`.
    pub(super) fn api_url(&self, path: &str) -> Url {
        let mut url = self.api.clone();
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        url.set_path(&format!("{}{path}", self.api.path()));
        if !query.is_empty() {
            url.set_query(Some(query));
        }
        if let Some(registry) = &self.stands_for {
            url.query_pairs_mut().append_pair("ns", registry);
        }
        url
    }

    /// Whether it is to be asked for what is named by a digest, or by a tag.
    pub(super) fn serves(&self, named: Named) -> bool {
        match (self.serves, named) {
            (Serves::All, _)
            | (Serves::Digests, Named::Digest | Named::Blob)
            | (Serves::Tags, Named::Tag | Named::Blob) => true,
            (Serves::Nothing | Serves::Digests | Serves::Tags, _) => false,
        }
    }

    /// The registry's own address, to compare others with.
    pub(super) fn base(&self) -> &Url {
        &self.api
    }

    /// `host[:port]`, as users write it.
    pub(super) fn registry(&self) -> &str {
        &self.registry
    }

    /// What the repository is called there.
    pub(super) fn repository(&self) -> &str {
        &self.repository
    }

    /// `scheme://host[:port]`, which tells endpoints apart.
    pub(super) fn origin(&self) -> String {
        self.api.origin().ascii_serialization()
    }
}

/// How something is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// A manifest by its tag.
    Tag,
    /// A manifest by its digest.
    Digest,
    /// A blob.
    Blob,
}

/// The host whose interface `registry` has.
pub(super) fn api_host(registry: &str) -> &str {
    if registry == DEFAULT_REGISTRY {
        "registry-1.docker.io"
    } else {
        registry
    }
}

/// How far a host is, as far as its address shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Closeness {
    /// This machine.
    Loopback,
    /// A network of its own: private and link-local addresses, single names.
    Private,
    /// Anywhere.
    Public,
}

/// Judges a host by its name alone; nothing is looked up.
pub(super) fn closeness(url: &Url) -> Closeness {
    let host = url
        .host_str()
        .unwrap_or_default()
        .trim_end_matches('.')
        .to_ascii_lowercase();
    if host == "localhost" || host.ends_with(".localhost") {
        return Closeness::Loopback;
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let Ok(address) = bare.parse::<IpAddr>() else {
        let internal = [".local", ".internal", ".lan", ".home.arpa"];
        let single = !host.contains('.') || internal.iter().any(|end| host.ends_with(end));
        return if single {
            Closeness::Private
        } else {
            Closeness::Public
        };
    };
    match address.to_canonical() {
        address if address.is_loopback() => Closeness::Loopback,
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            let shared = first == 100 && (64..128).contains(&second);
            let private = v4.is_private() || v4.is_link_local() || first == 0 || shared;
            if private {
                Closeness::Private
            } else {
                Closeness::Public
            }
        }
        IpAddr::V6(v6) => {
            let private = v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_unspecified();
            if private {
                Closeness::Private
            } else {
                Closeness::Public
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closeness_is_judged_by_name_and_address() {
        let cases = [
            ("http://[::1]:5/", Closeness::Loopback),
            ("http://[::ffff:127.0.0.1]/", Closeness::Loopback),
            ("http://2130706433/", Closeness::Loopback),
            ("http://a.localhost./", Closeness::Loopback),
            ("http://169.254.169.254/", Closeness::Private),
            ("http://192.168.1.1/", Closeness::Private),
            ("http://[fd00::1]/", Closeness::Private),
            ("http://0.0.0.0/", Closeness::Private),
            ("http://100.100.1.1/", Closeness::Private),
            ("http://metadata/", Closeness::Private),
            ("http://metadata.google.internal/", Closeness::Private),
            ("http://auth.docker.io/", Closeness::Public),
            ("http://8.8.8.8/", Closeness::Public),
        ];
        for (url, expected) in cases {
            assert_eq!(closeness(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }
}
