//! Where a registry's interface is, and which hosts are close to us.

use std::net::IpAddr;

use reqwest::Url;

use crate::reference::{DEFAULT_REGISTRY, Reference};

/// The scheme and host of a registry's interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    base: Url,
}

impl Endpoint {
    /// The interface of `reference`'s registry: https, but http for a registry
    /// on loopback and for one that the user listed in `insecure`. Never both
    /// in turn.
    pub(super) fn of(reference: &Reference, insecure: &[String]) -> Option<Self> {
        let registry = reference.registry();
        let host = if registry == DEFAULT_REGISTRY {
            "registry-1.docker.io"
        } else {
            registry
        };
        let base = Url::parse(&format!("https://{host}/")).ok()?;
        let is_listed = insecure
            .iter()
            .any(|entry| entry == registry || entry == host);
        if !is_listed && closeness(&base) != Closeness::Loopback {
            return Some(Self { base });
        }
        let base = Url::parse(&format!("http://{host}/")).ok()?;
        Some(Self { base })
    }

    /// The address of `path` below `/v2/REPOSITORY/`.
    pub(super) fn url(&self, reference: &Reference, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("/v2/{}/{path}", reference.repository()));
        url
    }

    /// The registry's own address, to compare others with.
    pub(super) fn base(&self) -> &Url {
        &self.base
    }
}

/// How far a host is, as far as its address shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    fn http_is_for_loopback_and_listed_registries() {
        let cases = [
            ("alpine", "https://registry-1.docker.io/v2/library/alpine/x"),
            ("a.io/b", "https://a.io/v2/b/x"),
            ("localhost/b", "http://localhost/v2/b/x"),
            ("localhost:5000/b", "http://localhost:5000/v2/b/x"),
            ("127.0.0.1:5000/b", "http://127.0.0.1:5000/v2/b/x"),
            ("127.9.0.1/b", "http://127.9.0.1/v2/b/x"),
            ("[::1]:5000/b", "http://[::1]:5000/v2/b/x"),
            ("127.0.0.1.evil.io/b", "https://127.0.0.1.evil.io/v2/b/x"),
            ("localhost.evil.io/b", "https://localhost.evil.io/v2/b/x"),
            ("10.0.0.1:5000/b", "https://10.0.0.1:5000/v2/b/x"),
            ("listed.io:80/b", "http://listed.io/v2/b/x"),
            ("listed.io/b", "https://listed.io/v2/b/x"),
        ];
        for (text, expected) in cases {
            let reference = text.parse().unwrap();
            let endpoint = Endpoint::of(&reference, &["listed.io:80".to_owned()]).unwrap();
            assert_eq!(endpoint.url(&reference, "x").as_str(), expected, "{text}");
        }
    }

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
