//! What goes wrong with a registry, or on the way to it.

use std::path::PathBuf;
use std::time::Duration;

use crate::digest::Digest;
use crate::image::ImageError;

pub use super::answer::{ErrorDetail, StatusAnswer};
pub use super::reason::TransportReason;

/// An error of a request to a registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No connection, or it broke.
    #[error("{method} {url}: {reason}")]
    Transport {
        /// `GET`, ….
        method: &'static str,
        /// The whole address, without its query.
        url: String,
        /// The innermost cause.
        reason: TransportReason,
    },
    /// An answer that is no success.
    #[error("{method} {path}: {answer}")]
    Status {
        /// `GET`, ….
        method: &'static str,
        /// The path of the address.
        path: String,
        /// What was answered.
        answer: StatusAnswer,
    },
    /// The registry wants a user that it does not let in, or any user.
    #[error("{method} {path}: {answer}")]
    Unauthorized {
        /// `GET`, ….
        method: &'static str,
        /// The path of the address.
        path: String,
        /// What was answered.
        answer: StatusAnswer,
        /// Whether credentials were sent.
        with_credentials: bool,
    },
    /// The way to a token is closed.
    #[error("token for {registry:?}")]
    Token {
        /// The registry that asks for the token.
        registry: String,
        /// What went wrong.
        source: Box<RegistryError>,
    },
    /// The challenge of a 401 cannot be met.
    #[error("{registry:?} asks for an authentication that is not served: {challenge:?}")]
    Challenge {
        /// The registry.
        registry: String,
        /// Its challenge.
        challenge: String,
    },
    /// The realm of a challenge must not be asked.
    #[error("{registry:?} sends to the token realm {realm:?}, {reason}")]
    Realm {
        /// The registry.
        registry: String,
        /// The realm that it names.
        realm: String,
        /// Why it is not asked.
        reason: &'static str,
    },
    /// A redirect must not be followed.
    #[error("{method} {path}: redirect to {target:?}: {reason}")]
    Redirect {
        /// `GET`, ….
        method: &'static str,
        /// The path of the address.
        path: String,
        /// Where it leads.
        target: String,
        /// Why it is not followed.
        reason: &'static str,
    },
    /// A layer lies neither at the registry nor where its manifest says.
    #[error("the registry does not have it; {}", told("foreign address", failed))]
    Foreign {
        /// The addresses that the manifest names, and what became of each.
        failed: Vec<(String, RegistryError)>,
    },
    /// An address that a manifest names for a layer must not be asked.
    #[error("not asked, for {0}")]
    ForeignAddress(&'static str),
    /// More bytes than such an answer may have.
    #[error("{what}: has more than {limit} bytes")]
    TooLarge {
        /// What was read.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// The length of an answer is not the one that was promised.
    #[error("{digest}: the registry announces {actual} bytes instead of {expected}")]
    Length {
        /// The blob.
        digest: Digest,
        /// The size of its descriptor.
        expected: u64,
        /// The Content-Length.
        actual: u64,
    },
    /// The content is not what its descriptor promises.
    #[error(transparent)]
    Content(#[from] crate::digest::VerifyError),
    /// The content has another digest than the one that it was asked for by.
    #[error("{path}: asked for {expected}, got {actual}")]
    Digest {
        /// The path of the request.
        path: String,
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// The content has another media type than its descriptor promises.
    #[error("{digest}: its descriptor says {expected:?}, the registry {actual:?}")]
    MediaType {
        /// The document.
        digest: Digest,
        /// The media type of its descriptor.
        expected: String,
        /// The Content-Type.
        actual: String,
    },
    /// A token answer is not one.
    #[error("the token answer is not JSON with a token")]
    TokenAnswer(#[source] serde_json::Error),
    /// The answer lacks a token.
    #[error("the token answer holds neither token nor access_token")]
    NoToken,
    /// A document that is not what an image is made of.
    #[error("{path}")]
    Document {
        /// The path of the request.
        path: String,
        /// Why it is refused.
        source: ImageError,
    },
    /// Credentials that cannot be read.
    #[error("credentials for {registry:?}")]
    Credentials {
        /// The registry that they are for.
        registry: String,
        /// What is wrong with them.
        source: super::credentials::CredentialsError,
    },
    /// How registries are reached is said in a way that cannot be followed.
    #[error(transparent)]
    Settings(#[from] super::settings::SettingsError),
    /// The registry's name makes no address.
    #[error("{0:?} is not the address of a registry")]
    Address(String),
    /// A list of tags is not one.
    #[error("{path}: {reason}")]
    Tags {
        /// The path of the request.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A registry does not take an upload as it should.
    #[error("{method} {path}: {reason}")]
    Upload {
        /// `POST`, ….
        method: &'static str,
        /// The path of the request.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A file with a certificate holds none.
    #[error("{0:?} holds no certificate, or no key for it, in PEM")]
    Certificate(PathBuf),
    /// The registry failed, and the mirrors before it.
    #[error("{source}; before it {}", told("mirror", passed))]
    Mirrors {
        /// The mirrors, and what became of each.
        passed: Vec<(String, RegistryError)>,
        /// What the registry itself said.
        source: Box<RegistryError>,
    },
    /// The body of an answer cannot be read.
    #[error("read the answer")]
    Body(#[source] std::io::Error),
    /// The HTTP client cannot be made.
    #[error("start an HTTP client: {0}")]
    Setup(TransportReason),
}

/// The failures of several places in one line.
fn told(what: &str, failed: &[(String, RegistryError)]) -> String {
    let texts = failed.iter().map(|(place, error)| {
        let cause = std::error::Error::source(error);
        let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("{what} {place:?}: {error}{cause}")
    });
    texts.collect::<Vec<_>>().join("; ")
}

impl RegistryError {
    /// The error together with those of the mirrors that were asked before.
    pub(super) fn after(self, passed: Vec<(String, Self)>) -> Self {
        if passed.is_empty() {
            return self;
        }
        let source = Box::new(self);
        Self::Mirrors { passed, source }
    }

    /// Of the failures of several places, the one that says what to do now: the registry's own,
    /// or of foreign addresses one that may pass, else the last.
    pub(crate) fn decisive(&self) -> &Self {
        match self {
            Self::Mirrors { source, .. } => source.decisive(),
            Self::Foreign { failed } => {
                let mut errors = failed.iter().map(|(_, error)| error);
                let passing = errors.clone().find(|error| error.is_transient());
                passing.or(errors.next_back()).unwrap_or(self)
            }
            _ => self,
        }
    }

    /// Whether another endpoint may do better: always, but where going on would hide that
    /// something is wrong here.
    pub(super) fn falls_through(&self) -> bool {
        match self {
            Self::Transport { .. }
            | Self::Status { .. }
            | Self::Unauthorized { .. }
            | Self::Challenge { .. }
            | Self::Realm { .. }
            | Self::TokenAnswer(_)
            | Self::NoToken
            | Self::Redirect { .. } => true,
            Self::Token { source, .. } => source.falls_through(),
            _ => false,
        }
    }

    /// Whether it is the network or the registry that failed, not the content that is wrong.
    #[must_use]
    pub fn is_of_the_network(&self) -> bool {
        matches!(
            self.decisive(),
            Self::Transport { .. }
                | Self::Status { .. }
                | Self::Unauthorized { .. }
                | Self::Token { .. }
        )
    }

    /// Whether there is no such thing at the registry.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// The status that the registry answered with.
    pub(crate) fn status(&self) -> Option<u16> {
        match self.decisive() {
            Self::Status { answer, .. } => Some(answer.status),
            _ => None,
        }
    }

    /// Whether the endpoint is not worth another request.
    pub(super) fn is_of_the_dead(&self) -> bool {
        match self.decisive() {
            Self::Transport { .. } => true,
            Self::Status { answer, .. } => answer.status >= 500 || answer.status == 429,
            _ => false,
        }
    }

    /// The usual cause and its remedy, where there is one.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self.decisive() {
            Self::Transport {
                reason: TransportReason::PlainText,
                url,
                ..
            } => {
                let host = url.split('/').nth(2).unwrap_or(url);
                Some(format!(
                    "the registry speaks http, not https; if that is meant, say --insecure-registry {host}"
                ))
            }
            Self::Unauthorized {
                with_credentials: false,
                ..
            } => Some(
                "the repository may not exist, or need credentials: login keeps them, and those of \
                 Podman and Docker are read"
                    .to_owned(),
            ),
            Self::Transport {
                reason: TransportReason::Certificate(_),
                url,
                ..
            } => {
                let host = url.split('/').nth(2).unwrap_or(url);
                Some(format!(
                    "put the certificate of the authority that vouches for it in \
                     /etc/containers/certs.d/{host}/ca.crt"
                ))
            }
            Self::Token { source, .. } => source.hint(),
            Self::Settings(error) => error.hint(),
            _ => None,
        }
    }

    /// How long the registry asks to wait before the next request.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self.decisive() {
            Self::Status { answer, .. } => answer.retry_after,
            Self::Token { source, .. } => source.retry_after(),
            _ => None,
        }
    }

    /// Whether nobody listens there: rarely a matter of waiting.
    pub(super) fn is_refused(&self) -> bool {
        let refused = TransportReason::Errno(nix::errno::Errno::ECONNREFUSED);
        match self.decisive() {
            Self::Transport { reason, .. } => *reason == refused,
            _ => false,
        }
    }

    /// Whether the same request may succeed if it is sent again.
    pub(super) fn is_transient(&self) -> bool {
        match self.decisive() {
            Self::Transport { reason, .. } => reason.is_transient(),
            Self::Status { answer, .. } => is_transient_status(answer.status),
            Self::Token { source, .. } => source.is_transient(),
            _ => false,
        }
    }
}

/// Overload and failures of a moment, not of the request.
pub(super) fn is_transient_status(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}
