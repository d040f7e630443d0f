//! Layers that lie elsewhere than at the registry: fetched by https from the addresses that the
//! manifest names, by nobody's credentials.
//!
//! Spec: image-spec descriptor.md (urls), layer.md#non-distributable-layers

use reqwest::Url;
use reqwest::blocking::Response;

use super::Inner;
use super::answer::printable;
use super::endpoint::{Closeness, Endpoint, Place, Role, closeness};
use super::error::RegistryError;
use super::request::refusal;
use super::transport::Get;
use crate::image::Descriptor;
use crate::reference::Reference;

/// Addresses of one layer that are asked at the most: a manifest may name very many, to have
/// somebody else asked by whoever pulls it.
const MOST_ADDRESSES: usize = 16;

impl Inner {
    /// One GET at the first of the layer's addresses that answers with a success.
    pub(super) fn get_foreign(
        &self,
        reference: &Reference,
        layer: &Descriptor,
        get: &Get<'_>,
    ) -> Result<Response, RegistryError> {
        let endpoints = self.settings.own_endpoints(reference)?;
        let is_local =
            (endpoints.iter()).any(|endpoint| closeness(endpoint.base()) == Closeness::Loopback);
        let mut failed = Vec::new();
        for text in layer.urls.iter().take(MOST_ADDRESSES) {
            let answer = match foreign_address(text, is_local) {
                Ok(url) => self.get_at(&url, get),
                Err(reason) => Err(RegistryError::ForeignAddress(reason)),
            };
            match answer {
                Ok(response) => return Ok(response),
                Err(error) => failed.push((printable(text), error)),
            }
        }
        if let Some(text) = layer.urls.get(MOST_ADDRESSES) {
            let error = RegistryError::ForeignAddress("there are too many");
            failed.push((printable(text), error));
        }
        Err(RegistryError::Foreign { failed })
    }

    fn get_at(&self, url: &Url, get: &Get<'_>) -> Result<Response, RegistryError> {
        let port = url.port().map(|port| format!(":{port}"));
        let host = url.host_str().unwrap_or_default();
        let place = Place {
            registry: format!("{host}{}", port.unwrap_or_default()),
            repository: String::new(),
            insecure: None,
        };
        let tls = self.settings.tls(&place.registry)?.unwrap_or_default();
        // neither a token nor a header field of the user's goes there
        let endpoint = Endpoint::new(url.clone(), &place, Role::Registry).with_tls(tls);
        let response = self.transport.get(&endpoint, url, None, get)?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(refusal(("GET", url), response, false))
    }
}

/// Reads an address that a manifest names. `is_local` says whether the registry is on this
/// machine, so that the layer may be, too.
fn foreign_address(text: &str, is_local: bool) -> Result<Url, &'static str> {
    let Ok(url) = text.parse::<Url>() else {
        return Err("it is no address");
    };
    if url.scheme() != "https" || url.host().is_none() {
        return Err("it is not https");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it holds a user name");
    }
    if !is_local && closeness(&url) == Closeness::Loopback {
        return Err("it leads to this machine");
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_addresses_are_https_and_elsewhere() {
        for (text, is_local, good) in [
            ("https://a.example/layer?sig=1", false, true),
            ("http://a.example/layer", false, false),
            ("https://user:word@a.example/layer", false, false),
            ("https://127.0.0.1/layer", false, false),
            ("https://127.0.0.1/layer", true, true),
            ("file:///etc/passwd", true, false),
            ("layer", true, false),
        ] {
            let read = foreign_address(text, is_local);
            assert_eq!(read.is_ok(), good, "{text} {is_local}: {read:?}");
        }
    }
}
