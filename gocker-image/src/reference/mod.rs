//! Image references: `[registry/]repository[:tag][@digest]`, with the defaults
//! that users of other tools expect.
//!
//! ```text
//! alpine                    docker.io/library/alpine:latest
//! arm64v8/alpine:3          docker.io/arm64v8/alpine:3
//! localhost:5000/a@sha256:… localhost:5000/a@sha256:…
//! ```
//!
//! Spec: distribution-spec spec.md#pulling-manifests

mod grammar;

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, DigestError};
pub(crate) use grammar::is_tag;
use grammar::{looks_like_host, split_name, split_tag};

/// The registry of names that do not say one.
pub const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
const OFFICIAL: &str = "library/";
const REPOSITORY_MAX: usize = 255;

/// A parsed reference. It has a tag, a digest, or both; with both the digest
/// decides and the tag is only shown.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
    short: Short,
}

/// The repository as it was typed, where the registry was left out. It says how
/// a name was written, not what it names: all values are equal.
#[derive(Clone, Debug, Default)]
struct Short(Option<String>);

impl PartialEq for Short {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Short {}

impl PartialOrd for Short {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Short {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}

impl Hash for Short {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl Reference {
    /// The registry's host, with its port if one was given: `docker.io`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path within the registry: `library/alpine`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag. None only if there is a digest.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that decides, if one was given.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What the manifest is asked for by: the digest, else the tag.
    #[must_use]
    pub fn target(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }

    /// The same repository, pinned to `digest`, without a tag.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self {
            tag: None,
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// The repository as it was typed, if no registry was.
    #[must_use]
    pub fn short_name(&self) -> Option<&str> {
        self.short.0.as_deref()
    }

    /// The digest that a user has typed without any name: `sha256:…`, which is also how a
    /// repository `sha256` would be typed.
    #[must_use]
    pub fn bare_digest(&self) -> Option<Digest> {
        let (name, tag) = (self.short_name()?, self.tag()?);
        format!("{name}:{tag}").parse().ok()
    }

    /// The same tag and digest of the repository `name`.
    ///
    /// # Errors
    /// If `name` is not the name of a repository.
    pub fn renamed(&self, name: &str) -> Result<Self, ReferenceError> {
        let mut text = name.to_owned();
        if let Some(tag) = &self.tag {
            text.push_str(&format!(":{tag}"));
        }
        if let Some(digest) = &self.digest {
            text.push_str(&format!("@{digest}"));
        }
        text.parse()
    }

    /// Reads the name of a repository, which has neither a tag nor a digest.
    ///
    /// # Errors
    /// If it is not one.
    pub fn repository_of(text: &str) -> Result<Self, ReferenceError> {
        let reference: Self = text.parse()?;
        // a tag behind a tag is part of no name
        let is_name = format!("{text}:{DEFAULT_TAG}").parse::<Self>().is_ok();
        is_name
            .then_some(reference)
            .ok_or_else(|| ReferenceError::NoName(text.to_owned()))
    }

    /// The same repository by another tag.
    ///
    /// # Errors
    /// If `tag` is not a tag.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        format!("{}:{tag}", self.name()).parse()
    }

    /// The registry and the repository, without tag and digest.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The short form that users type: without `docker.io/` and `library/`
    /// wherever it still means the same.
    #[must_use]
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let Some(short) = full.strip_prefix("docker.io/") else {
            return full;
        };
        let shorter = short.strip_prefix(OFFICIAL).unwrap_or(short);
        for candidate in [shorter, short] {
            if candidate.parse().is_ok_and(|parsed: Self| parsed == *self) {
                return candidate.to_owned();
            }
        }
        full
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Why a text is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The text is empty.
    #[error("an image reference is empty")]
    Empty,
    /// The text begins with a scheme or a transport, as `https://` or `docker://`.
    #[error("{reference:?}: a reference begins with the registry: leave {scheme:?} out")]
    Scheme {
        /// What was given.
        reference: String,
        /// What it begins with.
        scheme: String,
    },
    /// The registry's host or port is malformed.
    #[error("{reference:?}: {host:?} is not a registry's host name or its port is no number")]
    Host {
        /// What was given.
        reference: String,
        /// The part that is wrong.
        host: String,
    },
    /// A part of the repository is malformed.
    #[error(
        "{reference:?}: {component:?} is not a repository name: lower-case letters and digits, \
         joined by \".\", \"_\", \"__\" or dashes"
    )]
    Repository {
        /// What was given.
        reference: String,
        /// The part that is wrong.
        component: String,
    },
    /// There is a tag or a digest where there is to be none.
    #[error("{0:?}: it is to be a repository's name alone, without a tag or a digest")]
    NoName(String),
    /// The repository is too long.
    #[error("{0:?}: the repository's name is longer than {REPOSITORY_MAX} characters")]
    TooLong(String),
    /// The tag is malformed.
    #[error(
        "{reference:?}: {tag:?} is not a tag: at most 128 letters, digits, \"_\", \".\" and \"-\", \
         the first no \".\" or \"-\""
    )]
    Tag {
        /// What was given.
        reference: String,
        /// The part that is wrong.
        tag: String,
    },
    /// The digest is malformed.
    #[error("{reference:?}: {problem}")]
    Digest {
        /// What was given.
        reference: String,
        /// What is wrong with the digest.
        problem: DigestError,
    },
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(ReferenceError::Scheme {
                reference: text.to_owned(),
                scheme: format!("{scheme}://"),
            });
        }
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|problem| ReferenceError::Digest {
                    reference: text.to_owned(),
                    problem,
                })?;
                (rest, Some(digest))
            }
        };
        let (name, tag) = split_tag(rest);
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(ReferenceError::Tag {
                reference: text.to_owned(),
                tag: tag.to_owned(),
            });
        }
        let (registry, repository) = split_name(text, name)?;
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some(DEFAULT_TAG.to_owned()),
        };
        let is_short = !name
            .split_once('/')
            .is_some_and(|(first, _)| looks_like_host(first));
        Ok(Self {
            registry,
            repository,
            tag,
            digest,
            short: Short(is_short.then(|| name.to_owned())),
        })
    }
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// What is given, its whole and its familiar form; one a line.
    const DEFAULTS: &str = "
        alpine docker.io/library/alpine:latest alpine:latest
        alpine:3.20 docker.io/library/alpine:3.20 alpine:3.20
        arm64v8/alpine docker.io/arm64v8/alpine:latest arm64v8/alpine:latest
        docker.io/alpine docker.io/library/alpine:latest alpine:latest
        index.docker.io/a/b:c docker.io/a/b:c a/b:c
        docker.io/localhost/a docker.io/localhost/a:latest docker.io/localhost/a:latest
        library/a/b docker.io/library/a/b:latest library/a/b:latest
        localhost/a localhost/a:latest localhost/a:latest
        localhost:5000 docker.io/library/localhost:5000 localhost:5000
        localhost:5000/a localhost:5000/a:latest localhost:5000/a:latest
        127.0.0.1:5071/a/b:1 127.0.0.1:5071/a/b:1 127.0.0.1:5071/a/b:1
        [::1]:5000/a [::1]:5000/a:latest [::1]:5000/a:latest
        [::1]/a:b [::1]/a:b [::1]/a:b
        GHCR.io/a/b ghcr.io/a/b:latest ghcr.io/a/b:latest
        Host/a Host/a:latest Host/a:latest
        Localhost/a localhost/a:latest localhost/a:latest
        q.io/a_b/c__d/e---f.g q.io/a_b/c__d/e---f.g:latest q.io/a_b/c__d/e---f.g:latest
    ";

    #[test]
    fn references_get_their_defaults() {
        for line in DEFAULTS.trim().lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            let [text, full, familiar] = words[..] else {
                panic!("{line}")
            };
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), full, "{text}");
            assert_eq!(reference.familiar(), familiar, "{text}");
            assert_eq!(full.parse(), Ok(reference), "{text}");
        }
    }

    #[test]
    fn the_digest_decides_over_the_tag() {
        let text = format!("alpine:3@sha256:{HEX}");
        let reference: Reference = text.parse().unwrap();
        assert_eq!(reference.tag(), Some("3"));
        assert_eq!(reference.target(), format!("sha256:{HEX}"));
        let text = format!("alpine@sha256:{HEX}");
        let reference: Reference = text.parse().unwrap();
        assert_eq!(reference.tag(), None);
        assert_eq!(
            reference.to_string(),
            format!("docker.io/library/alpine@sha256:{HEX}")
        );
    }

    #[test]
    fn malformed_references_are_refused() {
        let long = "a".repeat(256);
        let long_tag = format!("a:{}", "t".repeat(129));
        let upper_digest = format!("a@sha256:{}", HEX.to_uppercase());
        let cases = [
            "",
            ":",
            "a:",
            "a:.b",
            "a:-b",
            "a:b c",
            "/a",
            "a/",
            "a//b",
            "a/../b",
            "../a",
            "a/B",
            "Alpine",
            "a_",
            "a___b",
            "a..b",
            "a._b",
            "-a",
            "a@sha256:12",
            "a@",
            "@",
            "a/b:c/d:",
            "docker://a",
            "https://a.io/b:c",
            "host:99999/a",
            "host:0/a",
            "host:x/a",
            "host:/a",
            "-h.io/a",
            "h-.io/a",
            "h..io/a",
            "[::1/a",
            "[zz]/a",
            "[::1]x/a",
            "http://a.io/b",
            "a.io/b?c",
            "a\n",
            "ä",
            &long,
            &long_tag,
            &upper_digest,
        ];
        for text in cases {
            assert!(text.parse::<Reference>().is_err(), "{text:?} parsed");
        }
    }
}
