//! A client of registries: resolves references, fetches documents and blobs,
//! and verifies all that it hands out.
//!
//! ```text
//! GET /v2/REPOSITORY/manifests/TAG|DIGEST   resolve, manifest
//! GET /v2/REPOSITORY/blobs/DIGEST           blob, blob_bytes
//! GET /v2/REPOSITORY/tags/list              tags
//! POST, PATCH, PUT /v2/REPOSITORY/…         push
//! GET /v2/                                  login
//!   mirrors before the registry itself                       settings, endpoint
//!   401  -> a token by its challenge, then once more         auth, authorize, bearer
//!   3xx  -> followed without credentials                     transport
//!   a layer it has not -> the addresses that the manifest names    foreign
//!   429, 5xx, a broken connection -> again after a pause     retry
//! ```
//!
//! Spec: distribution-spec spec.md#pull

mod answer;
mod auth;
mod authorize;
mod bearer;
mod blob;
mod credentials;
mod endpoint;
mod error;
mod foreign;
mod login;
mod push;
mod reason;
mod request;
mod retry;
mod settings;
mod tags;
#[cfg(test)]
mod tests;
mod transport;

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;

pub use blob::{BlobReader, Kept};
pub use credentials::{AuthFiles, Credential, CredentialsError};
pub use error::{ErrorDetail, RegistryError, StatusAnswer, TransportReason};
pub use push::{OpenContent, Upload};
pub use settings::{SettingsError, SettingsPaths};

use crate::digest::{Algorithm, Digest, VerifyReader};
use crate::image::{Descriptor, Document, media_type};
use crate::reference::Reference;
use authorize::Granted;
use endpoint::{Endpoint, Named};
use retry::RetryPolicy;
use settings::Settings;
use transport::{Get, Transport};

/// The most bytes that a manifest, an index or a config may have.
pub const DOCUMENT_LIMIT: u64 = 4 << 20;

/// How registries are reached.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Registries, as `host` or `host:port`, that are reached by http. Those on
    /// loopback always are.
    pub insecure_registries: Vec<String>,
    /// Where credentials are looked for.
    pub auth_files: AuthFiles,
    /// A credential that the user gave, and the registry that it is for.
    pub credential: Option<(String, Credential)>,
    /// Where mirrors, certificates and the like are looked for.
    pub settings: SettingsPaths,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// How long nothing may arrive.
    pub stall_timeout: Duration,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            insecure_registries: Vec::new(),
            auth_files: AuthFiles::from_environment(),
            credential: None,
            settings: SettingsPaths::from_environment(),
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
        }
    }
}

/// A client of all registries. Clones share connections and tokens.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    config: ClientConfig,
    settings: Arc<Settings>,
    transport: Transport,
    retry: RetryPolicy,
    /// By endpoint and scope.
    authorizations: Mutex<HashMap<String, Granted>>,
    /// By the name of the repository.
    routes: Mutex<HashMap<String, Arc<[Endpoint]>>>,
    /// The origins of mirrors that are not asked again.
    dead: Mutex<HashSet<String>>,
}

/// A document as the registry sent it.
#[derive(Clone, Debug)]
pub struct FetchedManifest {
    /// The bytes that the digest is of.
    pub bytes: Vec<u8>,
    /// What it is.
    pub media_type: String,
    /// The digest, computed here.
    pub digest: Digest,
    /// The bytes, understood.
    pub document: Document,
}

impl FetchedManifest {
    /// The descriptor that points at this document.
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(
            &self.media_type,
            self.digest.clone(),
            self.bytes.len() as u64,
        )
    }
}

impl Client {
    /// A client that has no connection yet.
    ///
    /// # Errors
    /// If the user's settings cannot be followed, or the TLS library is not usable.
    pub fn new(config: ClientConfig) -> Result<Self, RegistryError> {
        let settings = Settings::load(&config.settings, &config.insecure_registries)?;
        let settings = Arc::new(settings);
        Ok(Self {
            inner: Arc::new(Inner {
                transport: Transport::new(&config, Arc::clone(&settings))?,
                config,
                settings,
                retry: RetryPolicy::default(),
                authorizations: Mutex::default(),
                routes: Mutex::default(),
                dead: Mutex::default(),
            }),
        })
    }

    /// The whole name of an image that was named without its registry, by the user's settings.
    ///
    /// # Errors
    /// If it may mean several.
    pub fn qualify(&self, reference: &Reference) -> Result<Reference, RegistryError> {
        Ok(self.inner.settings.qualify(reference)?)
    }

    /// Fetches what a reference names: an index or a manifest. By tag, the
    /// digest is computed from the bytes; what the registry says it is counts
    /// for nothing.
    ///
    /// # Errors
    /// If it cannot be fetched, or is no document of an image.
    pub fn resolve(&self, reference: &Reference) -> Result<FetchedManifest, RegistryError> {
        let path = format!("manifests/{}", reference.target());
        let fetched = self.document(reference, &path, DOCUMENT_LIMIT)?;
        let algorithm = reference
            .digest()
            .map_or(Algorithm::Sha256, Digest::algorithm);
        let digest = Digest::with(algorithm, &fetched.bytes);
        if let Some(expected) = reference.digest()
            && *expected != digest
        {
            let (path, expected) = (fetched.path, expected.clone());
            return Err(RegistryError::Digest {
                path,
                expected,
                actual: digest,
            });
        }
        fetched.understand(digest)
    }

    /// Fetches the index or manifest that a descriptor points at, and verifies
    /// its size, digest and media type.
    ///
    /// # Errors
    /// If it cannot be fetched, or is not what the descriptor promises.
    pub fn manifest(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
    ) -> Result<FetchedManifest, RegistryError> {
        let digest = &descriptor.digest;
        let path = format!("manifests/{digest}");
        check_limit(descriptor, DOCUMENT_LIMIT)?;
        let embedded = descriptor.embedded();
        let embedded = embedded.map_err(|source| RegistryError::Document {
            path: path.clone(),
            source,
        })?;
        let fetched = match embedded {
            Some(bytes) => Fetched {
                bytes,
                path,
                content_type: Some(descriptor.media_type.clone()),
            },
            None => self.document(reference, &path, descriptor.size)?,
        };
        let mut verified = VerifyReader::new(&fetched.bytes[..], digest.clone(), descriptor.size);
        std::io::copy(&mut verified, &mut std::io::sink()).map_err(blob::content_error)?;
        let fetched = fetched.understand(digest.clone())?;
        if fetched.media_type != descriptor.media_type {
            let (expected, actual) = (descriptor.media_type.clone(), fetched.media_type);
            return Err(RegistryError::MediaType {
                digest: digest.clone(),
                expected,
                actual,
            });
        }
        Ok(fetched)
    }

    /// Fetches a manifest of whatever kind, such as that of an image's signatures.
    ///
    /// # Errors
    /// If it cannot be fetched.
    pub fn raw_manifest(&self, reference: &Reference) -> Result<Vec<u8>, RegistryError> {
        let path = format!("manifests/{}", reference.target());
        Ok(self.document(reference, &path, DOCUMENT_LIMIT)?.bytes)
    }

    /// Opens a blob. The reader goes on after a broken connection where it
    /// stood, and fails at the last byte if size or digest are wrong.
    ///
    /// # Errors
    /// If the registry does not answer with the blob.
    pub fn blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
    ) -> Result<BlobReader, RegistryError> {
        self.blob_from(reference, descriptor, None)
    }

    /// As [`Client::blob`], going on behind the bytes that are here already.
    ///
    /// # Errors
    /// If the registry does not answer with the blob.
    pub fn blob_from(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        kept: Option<Kept>,
    ) -> Result<BlobReader, RegistryError> {
        BlobReader::open(self.clone(), reference.clone(), descriptor.clone(), kept)
    }

    /// Fetches a small blob whole, such as a config, and verifies it.
    ///
    /// # Errors
    /// If it has more than `limit` bytes, cannot be fetched, or is not what the
    /// descriptor promises.
    pub fn blob_bytes(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        check_limit(descriptor, limit)?;
        let mut bytes = Vec::new();
        self.blob(reference, descriptor)?
            .read_to_end(&mut bytes)
            .map_err(blob::content_error)?;
        Ok(bytes)
    }

    fn document(
        &self,
        reference: &Reference,
        path: &str,
        limit: u64,
    ) -> Result<Fetched, RegistryError> {
        let accept = media_type::accepted_documents();
        let named = if path.contains(':') {
            Named::Digest
        } else {
            Named::Tag
        };
        let get = Get::document(named, &accept);
        self.inner.retry.run(|| {
            let response = self.inner.get(reference, path, &get)?;
            let url = response.url().clone();
            let content_type = response.headers().get(CONTENT_TYPE);
            let content_type = content_type
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned);
            let mut bytes = Vec::new();
            let read = response.take(limit + 1).read_to_end(&mut bytes);
            read.map_err(|error| transport::broken("GET", &url, &error))?;
            if bytes.len() as u64 > limit {
                return Err(RegistryError::TooLarge {
                    what: path.to_owned(),
                    limit,
                });
            }
            Ok(Fetched {
                bytes,
                path: path.to_owned(),
                content_type,
            })
        })
    }
}

/// The raw answer to a request for a document.
struct Fetched {
    bytes: Vec<u8>,
    path: String,
    content_type: Option<String>,
}

impl Fetched {
    fn understand(self, digest: Digest) -> Result<FetchedManifest, RegistryError> {
        let document =
            Document::parse(&self.bytes, self.content_type.as_deref()).map_err(|source| {
                RegistryError::Document {
                    path: self.path,
                    source,
                }
            })?;
        let media_type = document.media_type().to_owned();
        Ok(FetchedManifest {
            bytes: self.bytes,
            media_type,
            digest,
            document,
        })
    }
}

fn check_limit(descriptor: &Descriptor, limit: u64) -> Result<(), RegistryError> {
    if descriptor.size <= limit {
        return Ok(());
    }
    Err(RegistryError::TooLarge {
        what: descriptor.digest.to_string(),
        limit,
    })
}
