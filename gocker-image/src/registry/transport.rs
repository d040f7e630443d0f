//! HTTP as registries are spoken to: no credentials behind a redirect, no way
//! back from https to http, no decompression, no wait without end.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::blocking::{Client as Http, ClientBuilder, Response};
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderValue, LOCATION, RANGE};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Identity, Url};

use super::ClientConfig;
use super::endpoint::{Closeness, Endpoint, Named, closeness};
use super::error::{RegistryError, TransportReason};
use super::settings::{Settings, Tls, Trust};
use crate::errno::CallError;

const MOST_REDIRECTS: u32 = 10;
/// Layers are big: the default window of 64 KiB would wait for each round trip.
const HTTP2_WINDOW: u32 = 4 << 20;

/// What a GET asks for besides its address.
pub(super) struct Get<'a> {
    pub(super) named: Named,
    accept: Option<&'a str>,
    /// The first byte that is wanted.
    offset: u64,
}

impl<'a> Get<'a> {
    pub(super) fn document(named: Named, accept: &'a str) -> Self {
        Self {
            named,
            accept: Some(accept),
            offset: 0,
        }
    }

    pub(super) fn blob(offset: u64) -> Self {
        Self {
            named: Named::Blob,
            accept: None,
            offset,
        }
    }
}

/// The HTTP clients. Each is made when it is first needed: by the certificates that it shows and
/// believes, and apart for hosts on loopback, which are never reached through a proxy.
pub(super) struct Transport {
    config: ClientConfig,
    settings: Arc<Settings>,
    clients: Mutex<HashMap<(Tls, Closeness), Http>>,
}

impl Transport {
    pub(super) fn new(
        config: &ClientConfig,
        settings: Arc<Settings>,
    ) -> Result<Self, RegistryError> {
        let provider = rustls::crypto::ring::default_provider();
        if rustls::crypto::CryptoProvider::get_default().is_none()
            && provider.install_default().is_err()
            && rustls::crypto::CryptoProvider::get_default().is_none()
        {
            let text = TransportReason::Text("no TLS provider".to_owned());
            return Err(RegistryError::Setup(text));
        }
        Ok(Self {
            config: config.clone(),
            settings,
            clients: Mutex::default(),
        })
    }

    /// The client that reaches the host of `url`, which `endpoint` has led to.
    pub(super) fn http(&self, endpoint: &Endpoint, url: &Url) -> Result<Http, RegistryError> {
        let tls = if url.host() == endpoint.base().host() {
            endpoint.tls.clone()
        } else {
            let port = url.port().map(|port| format!(":{port}"));
            let host = url.host_str().unwrap_or_default();
            let tls = self
                .settings
                .tls(&format!("{host}{}", port.unwrap_or_default()))?;
            tls.unwrap_or_default()
        };
        let closeness = match closeness(url) {
            Closeness::Loopback => Closeness::Loopback,
            Closeness::Private | Closeness::Public => Closeness::Public,
        };
        let key = (tls, closeness);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(http) = clients.get(&key) {
            return Ok(http.clone());
        }
        let http = self.make(&key.0, closeness)?;
        clients.insert(key, http.clone());
        Ok(http)
    }

    fn make(&self, tls: &Tls, closeness: Closeness) -> Result<Http, RegistryError> {
        let mut builder = Http::builder()
            .user_agent(concat!("gocker-image/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .connect_timeout(self.config.connect_timeout)
            // of a blocking client: for the answer's head, and for each read
            .timeout(self.config.stall_timeout)
            .http2_initial_stream_window_size(HTTP2_WINDOW)
            .http2_initial_connection_window_size(HTTP2_WINDOW * 4);
        if closeness == Closeness::Loopback {
            builder = builder.no_proxy();
        }
        with_tls(builder, tls)?
            .build()
            .map_err(|error| RegistryError::Setup(TransportReason::of(&error)))
    }

    /// Sends a GET and follows redirects. The authorization and the user's header fields go to
    /// `url` only.
    pub(super) fn get(
        &self,
        endpoint: &Endpoint,
        url: &Url,
        authorization: Option<&HeaderValue>,
        get: &Get<'_>,
    ) -> Result<Response, RegistryError> {
        let mut target = url.clone();
        for hop in 0..=MOST_REDIRECTS {
            // blobs as they are: decompressed on the way they had another digest
            let mut request = self
                .http(endpoint, &target)?
                .get(target.clone())
                .header(ACCEPT_ENCODING, "identity");
            if let Some(accept) = get.accept {
                request = request.header(ACCEPT, accept);
            }
            if get.offset > 0 {
                request = request.header(RANGE, format!("bytes={}-", get.offset));
            }
            if hop == 0 {
                request = request.headers(endpoint.headers.clone());
            }
            if let Some(value) = authorization.filter(|_| hop == 0) {
                request = request.header(AUTHORIZATION, value);
            }
            let response = request
                .send()
                .map_err(|error| broken("GET", &target, &error))?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            target = next_hop(url, &target, &response)?;
        }
        Err(redirect_error(url, &target, "there are too many of them"))
    }
}

/// Shows and believes the certificates of `tls`, besides those that the system trusts.
fn with_tls(mut builder: ClientBuilder, tls: &Tls) -> Result<ClientBuilder, RegistryError> {
    let wrong = |path: &Path| RegistryError::Certificate(path.to_owned());
    let read = |path: &Path| {
        std::fs::read(path)
            .map_err(|error| RegistryError::Settings(CallError::new("open", path, error).into()))
    };
    for path in &tls.authorities {
        let found = Certificate::from_pem_bundle(&read(path)?).map_err(|_| wrong(path))?;
        if found.is_empty() {
            return Err(wrong(path));
        }
        builder = builder.tls_certs_merge(found);
    }
    if let Some((certificate, key)) = &tls.client {
        let mut pem = read(certificate)?;
        if let Some(key) = key {
            pem.push(b'\n');
            pem.extend(read(key)?);
        }
        let identity = Identity::from_pem(&pem).map_err(|_| wrong(certificate))?;
        builder = builder.identity(identity);
    }
    Ok(match tls.trust {
        Trust::Verified => builder,
        Trust::Any => builder.tls_danger_accept_invalid_certs(true),
    })
}

/// A broken request as an error.
pub(super) fn broken(
    method: &'static str,
    url: &Url,
    error: &(dyn std::error::Error + 'static),
) -> RegistryError {
    let (url, reason) = (
        super::request::without_query(url),
        TransportReason::of(error),
    );
    RegistryError::Transport {
        method,
        url,
        reason,
    }
}

pub(super) fn redirect_error(url: &Url, target: &Url, reason: &'static str) -> RegistryError {
    let (path, target) = (url.path().to_owned(), super::request::without_query(target));
    RegistryError::Redirect {
        method: "GET",
        path,
        target,
        reason,
    }
}

fn next_hop(first: &Url, current: &Url, response: &Response) -> Result<Url, RegistryError> {
    let location = response
        .headers()
        .get(LOCATION)
        .and_then(|value| value.to_str().ok());
    let Some(target) = location.and_then(|location| current.join(location).ok()) else {
        return Err(redirect_error(first, current, "it names no address"));
    };
    check_hop(first, current, &target)?;
    Ok(target)
}

/// A registry's redirect leads to its blob store, not from https to http, and
/// not to networks that are closer to us than the registry is.
pub(super) fn check_hop(first: &Url, current: &Url, target: &Url) -> Result<(), RegistryError> {
    let refuse = |reason| Err(redirect_error(first, target, reason));
    if !matches!(target.scheme(), "http" | "https") || target.host().is_none() {
        return refuse("it is no address of the web");
    }
    if current.scheme() == "https" && target.scheme() == "http" {
        return refuse("it leads from https to http");
    }
    if !target.username().is_empty() || target.password().is_some() {
        return refuse("it holds a user name");
    }
    if closeness(target) == Closeness::Loopback && closeness(first) != Closeness::Loopback {
        return refuse("it leads to this machine");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_keep_https_and_stay_off_this_machine() {
        let cases = [
            ("https://a.io/", "https://cdn.io/x?sig=1", true),
            ("https://a.io/", "http://cdn.io/x", false),
            ("https://a.io/", "https://127.0.0.1/x", false),
            ("https://a.io/", "https://u:p@cdn.io/x", false),
            ("https://a.io/", "file:///etc/passwd", false),
            ("http://127.0.0.1:5000/", "http://127.0.0.1:5001/x", true),
            ("http://10.0.0.1/", "http://10.0.0.2/x", true),
        ];
        for (from, to, good) in cases {
            let (from, to) = (Url::parse(from).unwrap(), Url::parse(to).unwrap());
            assert_eq!(check_hop(&from, &from, &to).is_ok(), good, "{from} -> {to}");
        }
    }
}
