//! HTTP as registries are spoken to: no credentials behind a redirect, no way
//! back from https to http, no decompression, no wait without end.

use std::sync::OnceLock;

use reqwest::Url;
use reqwest::blocking::{Client as Http, Response};
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderValue, LOCATION, RANGE};
use reqwest::redirect::Policy;

use super::ClientConfig;
use super::endpoint::{Closeness, closeness};
use super::error::{RegistryError, TransportReason};

const MOST_REDIRECTS: u32 = 10;
/// Layers are big: the default window of 64 KiB would wait for each round trip.
const HTTP2_WINDOW: u32 = 4 << 20;

/// What a GET asks for besides its address.
pub(super) struct Get<'a> {
    accept: Option<&'a str>,
    /// The first byte that is wanted.
    offset: u64,
}

impl<'a> Get<'a> {
    pub(super) fn document(accept: &'a str) -> Self {
        Self {
            accept: Some(accept),
            offset: 0,
        }
    }

    pub(super) fn blob(offset: u64) -> Self {
        Self {
            accept: None,
            offset,
        }
    }
}

/// The HTTP clients. Each is made when it is first needed: one for hosts on
/// loopback, which never goes through a proxy, and one for all others.
pub(super) struct Transport {
    config: ClientConfig,
    loopback: OnceLock<Http>,
    others: OnceLock<Http>,
}

impl Transport {
    pub(super) fn new(config: &ClientConfig) -> Result<Self, RegistryError> {
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
            loopback: OnceLock::new(),
            others: OnceLock::new(),
        })
    }

    /// The client that reaches the host of `url`.
    pub(super) fn http(&self, url: &Url) -> Result<&Http, RegistryError> {
        let is_loopback = closeness(url) == Closeness::Loopback;
        let cell = if is_loopback {
            &self.loopback
        } else {
            &self.others
        };
        if let Some(http) = cell.get() {
            return Ok(http);
        }
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
        if is_loopback {
            builder = builder.no_proxy();
        }
        let http = builder
            .build()
            .map_err(|error| RegistryError::Setup(TransportReason::of(&error)))?;
        Ok(cell.get_or_init(|| http))
    }

    /// Sends a GET and follows redirects. The authorization goes to `url` only.
    pub(super) fn get(
        &self,
        url: &Url,
        authorization: Option<&HeaderValue>,
        get: &Get<'_>,
    ) -> Result<Response, RegistryError> {
        let mut target = url.clone();
        for hop in 0..=MOST_REDIRECTS {
            // blobs as they are: decompressed on the way they had another digest
            let mut request = self
                .http(&target)?
                .get(target.clone())
                .header(ACCEPT_ENCODING, "identity");
            if let Some(accept) = get.accept {
                request = request.header(ACCEPT, accept);
            }
            if get.offset > 0 {
                request = request.header(RANGE, format!("bytes={}-", get.offset));
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

/// A broken request as an error.
pub(super) fn broken(
    method: &'static str,
    url: &Url,
    error: &(dyn std::error::Error + 'static),
) -> RegistryError {
    let (url, reason) = (super::without_query(url), TransportReason::of(error));
    RegistryError::Transport {
        method,
        url,
        reason,
    }
}

fn redirect_error(url: &Url, target: &Url, reason: &'static str) -> RegistryError {
    let (path, target) = (url.path().to_owned(), super::without_query(target));
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
fn check_hop(first: &Url, current: &Url, target: &Url) -> Result<(), RegistryError> {
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
