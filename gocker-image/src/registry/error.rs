//! What a registry, or the way to it, answers instead of content.
//!
//! Spec: distribution-spec spec.md#error-codes

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::digest::Digest;
use crate::image::ImageError;

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
    /// An address that a manifest names for a layer must not be asked.
    #[error("{digest}: the foreign address {url:?} is not asked: {reason}")]
    ForeignAddress {
        /// The layer.
        digest: Digest,
        /// Where it is to lie.
        url: String,
        /// Why it is not asked.
        reason: &'static str,
    },
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
    #[error("{source}; before it {}", told(passed))]
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

/// The failures of mirrors in one line.
fn told(passed: &[(String, RegistryError)]) -> String {
    let mut texts = Vec::new();
    for (mirror, error) in passed {
        let cause = std::error::Error::source(error);
        let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
        texts.push(format!("mirror {mirror:?}: {error}{cause}"));
    }
    texts.join("; ")
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
        match self {
            Self::Transport { .. }
            | Self::Status { .. }
            | Self::Unauthorized { .. }
            | Self::Token { .. } => true,
            Self::Mirrors { source, .. } => source.is_of_the_network(),
            _ => false,
        }
    }

    /// Whether there is no such thing at the registry.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// The status that the registry answered with.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Status { answer, .. } => Some(answer.status),
            Self::Mirrors { source, .. } => source.status(),
            _ => None,
        }
    }

    /// Whether the endpoint is not worth another request.
    pub(super) fn is_of_the_dead(&self) -> bool {
        match self {
            Self::Transport { .. } => true,
            Self::Status { answer, .. } => answer.status >= 500 || answer.status == 429,
            _ => false,
        }
    }

    /// The usual cause and its remedy, where there is one.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
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
            Self::Token { source, .. } | Self::Mirrors { source, .. } => source.hint(),
            Self::Settings(error) => error.hint(),
            _ => None,
        }
    }

    /// How long the registry asks to wait before the next request.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { answer, .. } => answer.retry_after,
            Self::Token { source, .. } | Self::Mirrors { source, .. } => source.retry_after(),
            _ => None,
        }
    }

    /// Whether nobody listens there: rarely a matter of waiting.
    pub(super) fn is_refused(&self) -> bool {
        let refused = TransportReason::Errno(nix::errno::Errno::ECONNREFUSED);
        match self {
            Self::Transport { reason, .. } => *reason == refused,
            Self::Mirrors { source, .. } => source.is_refused(),
            _ => false,
        }
    }

    /// Whether the same request may succeed if it is sent again.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Transport { reason, .. } => reason.is_transient(),
            Self::Status { answer, .. } => is_transient_status(answer.status),
            Self::Token { source, .. } | Self::Mirrors { source, .. } => source.is_transient(),
            _ => false,
        }
    }
}

/// Overload and failures of a moment, not of the request.
pub(super) fn is_transient_status(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

/// What came with a status that is no success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusAnswer {
    /// The HTTP status.
    pub status: u16,
    /// What the body says. Empty if it is not the JSON that registries send.
    pub errors: Vec<ErrorDetail>,
    /// How long the registry asks to wait.
    pub retry_after: Option<Duration>,
}

/// One entry of the JSON that registries send.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ErrorDetail {
    /// `MANIFEST_UNKNOWN`, ….
    #[serde(default)]
    pub code: String,
    /// A sentence for people.
    #[serde(default)]
    pub message: String,
    /// Whatever the registry adds.
    #[serde(default)]
    pub detail: serde_json::Value,
}

impl StatusAnswer {
    /// Reads the body of an answer, as far as it can be understood.
    #[must_use]
    pub fn parse(status: u16, body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Body {
            errors: Vec<ErrorDetail>,
        }
        // token servers and proxies send one entry without the list around it
        #[derive(Deserialize)]
        struct Plain {
            #[serde(alias = "error")]
            code: Option<String>,
            #[serde(alias = "details", alias = "error_description")]
            message: Option<String>,
        }
        let errors = if let Ok(body) = serde_json::from_slice::<Body>(body) {
            body.errors
        } else if let Ok(Plain { code, message }) = serde_json::from_slice(body) {
            let (code, message) = (code.unwrap_or_default(), message.unwrap_or_default());
            vec![ErrorDetail {
                code,
                message,
                detail: serde_json::Value::Null,
            }]
        } else {
            Vec::new()
        };
        let is_said = |error: &ErrorDetail| !(error.code.is_empty() && error.message.is_empty());
        let errors = errors.into_iter().filter(is_said).collect();
        Self {
            status,
            errors,
            retry_after: None,
        }
    }
}

impl fmt::Display for StatusAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.errors.iter().map(ErrorDetail::to_string).collect();
        if texts.is_empty() {
            let status = reqwest::StatusCode::from_u16(self.status).ok();
            let reason = status.and_then(|status| status.canonical_reason());
            let reason = reason.unwrap_or("unknown status").to_ascii_lowercase();
            return write!(f, "{reason} ({})", self.status);
        }
        write!(f, "{} ({})", texts.join("; "), self.status)
    }
}

impl fmt::Display for ErrorDetail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, message) = (printable(&self.code), printable(&self.message));
        match (code.is_empty(), message.is_empty()) {
            (false, false) => write!(f, "{code}: {message}"),
            (false, true) => f.write_str(&code),
            _ => f.write_str(&message),
        }
    }
}

/// A stranger's text for a terminal: one line, no control characters, not
/// without end.
pub(super) fn printable(text: &str) -> String {
    const MOST: usize = 300;
    let mut short: String = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MOST)
        .collect();
    if text.trim().chars().count() > MOST {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_in_one_line() {
        let cases: [(u16, &str, &str); 7] = [
            (
                404,
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"1"}}]}"#,
                "MANIFEST_UNKNOWN: manifest unknown (404)",
            ),
            (
                403,
                r#"{"errors":[{"code":"DENIED"},{"message":"go away"}]}"#,
                "DENIED; go away (403)",
            ),
            (
                401,
                r#"{"details":"incorrect username or password"}"#,
                "incorrect username or password (401)",
            ),
            (502, "<html>", "bad gateway (502)"),
            (404, "", "not found (404)"),
            (500, r#"{"errors":[]}"#, "internal server error (500)"),
            (
                400,
                "{\"errors\":[{\"message\":\"a\\u001b[31mb\\nc\"}]}",
                "a [31mb c (400)",
            ),
        ];
        for (status, body, expected) in cases {
            assert_eq!(
                StatusAnswer::parse(status, body.as_bytes()).to_string(),
                expected
            );
        }
    }
}
