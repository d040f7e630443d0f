//! Uploads: blobs first, then the manifest that names them.
//!
//! ```text
//! HEAD  blobs/DIGEST                   has_blob
//! POST  blobs/uploads/?mount=&from=    mount_blob
//! POST  blobs/uploads/                 push_blob
//!   PUT LOCATION?digest=               whole
//!   PATCH LOCATION …, PUT              in chunks; after a failure from where the registry stands
//! PUT   manifests/TAG|DIGEST           push_manifest
//! ```
//!
//! Spec: distribution-spec spec.md#push

use std::io::{self, Read};
use std::time::Duration;

use reqwest::blocking::{Body, RequestBuilder, Response};
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, LOCATION, RANGE,
};
use reqwest::{Method, StatusCode, Url};

use super::authorize::{Access, Scope};
use super::endpoint::Endpoint;
use super::request::refusal;
use super::retry::{chance, spread};
use super::transport::{broken, check_hop};
use super::{Client, Inner, RegistryError};
use crate::digest::Digest;
use crate::image::{Descriptor, media_type};
use crate::reference::Reference;

/// The least speed that an upload may have, in bytes a second.
const SLOWEST: u64 = 32 << 10;

/// Opens a blob's content from a byte on.
pub type OpenContent<'a> = dyn Fn(u64) -> io::Result<Box<dyn Read + Send>> + 'a;

/// A blob to upload.
pub struct Upload<'a> {
    /// What it is.
    pub descriptor: &'a Descriptor,
    /// Its content, which may be read more than once.
    pub open: &'a OpenContent<'a>,
    /// How many bytes go in one request. None: all.
    pub chunk_bytes: Option<u64>,
}

impl Client {
    /// Whether the repository of `reference` has this blob.
    ///
    /// # Errors
    /// If the registry does not say it.
    pub fn has_blob(&self, reference: &Reference, digest: &Digest) -> Result<bool, RegistryError> {
        self.has(reference, &format!("blobs/{digest}"))
    }

    /// Whether the repository of `reference` has this manifest.
    ///
    /// # Errors
    /// If the registry does not say it.
    pub fn has_manifest(
        &self,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<bool, RegistryError> {
        self.has(reference, &format!("manifests/{digest}"))
    }

    /// Takes a blob over from another repository of the same registry; false if the registry
    /// does not do that, and then it is to be uploaded.
    ///
    /// # Errors
    /// If the registry does not answer.
    pub fn mount_blob(
        &self,
        reference: &Reference,
        from: &str,
        digest: &Digest,
    ) -> Result<bool, RegistryError> {
        self.pushing(reference, Some(from), |session| {
            let path = format!("blobs/uploads/?mount={digest}&from={from}");
            let url = session.endpoint.url(&path);
            let response = match session.send("POST", &url, &|request| Ok(request.body(""))) {
                Ok(response) => response,
                // a repository that may not be read is none to take from
                Err(RegistryError::Status { answer, .. }) if matches!(answer.status, 403..=405) => {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            };
            if response.status() == StatusCode::CREATED {
                return Ok(true);
            }
            // an upload was begun instead; the registry may keep it if it does not cancel any
            let location = location(&url, &response)?;
            match session.send("DELETE", &location, &Ok) {
                Ok(_) | Err(RegistryError::Status { .. } | RegistryError::Unauthorized { .. }) => {
                    Ok(false)
                }
                Err(error) => Err(error),
            }
        })
    }

    /// Uploads a blob. The registry verifies its digest.
    ///
    /// # Errors
    /// If the content cannot be read, or the registry does not take it.
    pub fn push_blob(
        &self,
        reference: &Reference,
        upload: &Upload<'_>,
    ) -> Result<(), RegistryError> {
        self.pushing(reference, None, |session| {
            let url = session.endpoint.url("blobs/uploads/");
            let response = session.send("POST", &url, &|request| Ok(request.body("")))?;
            let location = location(&url, &response)?;
            match upload.chunk_bytes {
                None => session.put_blob(location, upload, 0),
                Some(chunk) => session.put_chunks(location, upload, chunk.max(1)),
            }
        })
    }

    /// Uploads a manifest or an index, under the tag or digest of `reference`. Returns its digest.
    ///
    /// # Errors
    /// If the registry does not take it, or says that it has another digest.
    pub fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        let path = format!("manifests/{}", reference.target());
        let digest = reference.digest().map_or_else(
            || Digest::of(bytes),
            |digest| Digest::with(digest.algorithm(), bytes),
        );
        self.pushing(reference, None, |session| {
            let url = session.endpoint.url(&path);
            let response = session.send("PUT", &url, &|request| {
                Ok(request
                    .header(CONTENT_TYPE, media_type)
                    .body(bytes.to_vec()))
            })?;
            let said = text(response.headers(), "docker-content-digest");
            match said.and_then(|said| said.parse::<Digest>().ok()) {
                Some(said) if said.algorithm() == digest.algorithm() && said != digest => {
                    Err(RegistryError::Digest {
                        path: url.path().to_owned(),
                        expected: digest.clone(),
                        actual: said,
                    })
                }
                _ => Ok(digest.clone()),
            }
        })
    }

    fn has(&self, reference: &Reference, path: &str) -> Result<bool, RegistryError> {
        self.pushing(reference, None, |session| {
            let url = session.endpoint.url(path);
            let accept = media_type::accepted_documents();
            let head = session.send("HEAD", &url, &|request| Ok(request.header(ACCEPT, &accept)));
            match head {
                Ok(_) => Ok(true),
                Err(RegistryError::Status { answer, .. }) => match answer.status {
                    404 => Ok(false),
                    // where it lies does not matter
                    301..=308 => Ok(true),
                    _ => Err(RegistryError::Status {
                        method: "HEAD",
                        path: url.path().to_owned(),
                        answer,
                    }),
                },
                Err(error) => Err(error),
            }
        })
    }

    /// Does something at the registry itself, again after failures of a moment.
    fn pushing<T>(
        &self,
        reference: &Reference,
        from: Option<&str>,
        mut act: impl FnMut(&Session<'_>) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let inner = &self.inner;
        let endpoints = inner.settings.own_endpoints(reference)?;
        inner.retry.run(|| {
            inner.at_registry(&endpoints, |endpoint| {
                let scope = Scope::Push(from);
                act(&Session {
                    inner,
                    endpoint,
                    scope,
                })
            })
        })
    }
}

/// Requests that write to one repository.
struct Session<'a> {
    inner: &'a Inner,
    endpoint: &'a Endpoint,
    scope: Scope<'a>,
}

impl Session<'_> {
    /// Sends what `build` makes of a request to `url`. Only the registry's own host gets
    /// credentials.
    fn send(
        &self,
        method: &'static str,
        url: &Url,
        build: &dyn Fn(RequestBuilder) -> Result<RequestBuilder, RegistryError>,
    ) -> Result<Response, RegistryError> {
        let base = self.endpoint.base();
        let is_own = url.origin() == base.origin();
        if !is_own {
            check_hop(base, base, url)?;
        }
        let http = self.inner.transport.http(self.endpoint, url)?;
        let once = |header: Option<&_>| {
            let verb = Method::from_bytes(method.as_bytes()).unwrap_or_default();
            let mut request = http.request(verb, url.clone());
            if is_own {
                request = request.headers(self.endpoint.headers.clone());
                if let Some(header) = header {
                    request = request.header(AUTHORIZATION, header);
                }
            }
            let sent = build(request)?.send();
            sent.map_err(|error| broken(method, url, &error))
        };
        if is_own {
            let access = Access {
                endpoint: self.endpoint,
                scope: self.scope,
            };
            return self.inner.authorized(access, url, method, once);
        }
        let response = once(None)?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(refusal((method, url), response, false))
    }

    /// Sends all from `offset` on, and ends the upload.
    fn put_blob(
        &self,
        mut location: Url,
        upload: &Upload<'_>,
        offset: u64,
    ) -> Result<(), RegistryError> {
        let digest = upload.descriptor.digest.to_string();
        location.query_pairs_mut().append_pair("digest", &digest);
        let left = upload.descriptor.size - offset;
        self.send("PUT", &location, &|request| {
            let request = request.header(CONTENT_TYPE, "application/octet-stream");
            self.with_content(request, upload, (offset, left))
        })?;
        Ok(())
    }

    fn put_chunks(
        &self,
        mut location: Url,
        upload: &Upload<'_>,
        chunk: u64,
    ) -> Result<(), RegistryError> {
        let (size, mut offset, mut failures) = (upload.descriptor.size, 0, 0);
        while offset < size {
            let count = chunk.min(size - offset);
            let sent = self.send("PATCH", &location, &|request| {
                let range = format!("{offset}-{}", offset + count - 1);
                let request = request
                    .header(CONTENT_TYPE, "application/octet-stream")
                    .header(CONTENT_RANGE, range);
                self.with_content(request, upload, (offset, count))
            });
            let error = match sent {
                Ok(response) => {
                    location = self::location(&location, &response)?;
                    (offset, failures) = (offset + count, 0);
                    continue;
                }
                Err(error) => error,
            };
            failures += 1;
            let Some(pause) = self.inner.retry.pause(failures, &error) else {
                return Err(error);
            };
            std::thread::sleep(spread(pause, chance()));
            (offset, location) = self.standing(&location, size)?;
        }
        self.put_blob(location, upload, size)
    }

    /// How many bytes of an upload the registry has, and where it goes on.
    fn standing(&self, location: &Url, size: u64) -> Result<(u64, Url), RegistryError> {
        let response = self.send("GET", location, &Ok)?;
        let range = text(response.headers(), RANGE.as_str());
        let end = range.and_then(|range| range.rsplit('-').next()?.parse::<u64>().ok());
        // nothing and one byte are both told as "0-0"
        let offset = end.map_or(0, |end| if end == 0 { 0 } else { end + 1 });
        if offset > size {
            return Err(RegistryError::Upload {
                method: "GET",
                path: location.path().to_owned(),
                reason: format!("the registry has {offset} bytes of {size}"),
            });
        }
        let next = self::location(location, &response).unwrap_or_else(|_| location.clone());
        Ok((offset, next))
    }

    /// Puts `count` bytes from `offset` on into a request.
    fn with_content(
        &self,
        request: RequestBuilder,
        upload: &Upload<'_>,
        (offset, count): (u64, u64),
    ) -> Result<RequestBuilder, RegistryError> {
        let timeout = self.inner.config.stall_timeout + Duration::from_secs(count / SLOWEST);
        let request = request.timeout(timeout);
        if count == 0 {
            return Ok(request.body(""));
        }
        let reader = (upload.open)(offset).map_err(RegistryError::Body)?;
        Ok(request.body(Body::sized(reader.take(count), count)))
    }
}

/// Where an upload goes on.
fn location(url: &Url, response: &Response) -> Result<Url, RegistryError> {
    let found = text(response.headers(), LOCATION.as_str());
    found
        .and_then(|text| url.join(text).ok())
        .ok_or_else(|| RegistryError::Upload {
            method: "POST",
            path: url.path().to_owned(),
            reason: "the registry does not say where to upload to".to_owned(),
        })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
