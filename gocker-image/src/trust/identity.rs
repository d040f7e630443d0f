//! Which name a signature must have been made for.
//!
//! Spec: containers-policy.json(5), signedIdentity

use serde::Deserialize;

use crate::reference::Reference;

/// What the name in a signature is compared with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", deny_unknown_fields)]
pub enum Identity {
    /// The image's whole name; of an image by digest, its repository.
    #[default]
    MatchRepoDigestOrExact,
    /// The image's whole name.
    MatchExact,
    /// The image's repository.
    MatchRepository,
    /// A name of its own.
    #[serde(rename_all = "camelCase")]
    ExactReference {
        /// The name.
        docker_reference: String,
    },
    /// A repository of its own.
    #[serde(rename_all = "camelCase")]
    ExactRepository {
        /// Its name.
        docker_repository: String,
    },
    /// The image's name, with another beginning.
    #[serde(rename_all = "camelCase")]
    RemapIdentity {
        /// What is replaced.
        prefix: String,
        /// By what.
        signed_prefix: String,
    },
    /// Any; what counts is the digest.
    #[serde(skip)]
    Any,
}

impl Identity {
    /// Whether `signed` is a name by which `image` may have been signed.
    #[must_use]
    pub fn matches(&self, image: &Reference, signed: &str) -> bool {
        let Ok(parsed) = signed.parse::<Reference>() else {
            return *self == Self::Any;
        };
        // a tag that is only a default is none that was signed
        let has_tag = Reference::repository_of(signed).is_err();
        let is_exact = |image: &Reference| has_tag && *image == parsed;
        let repo_digest_or_exact = |image: &Reference| match image.digest() {
            Some(_) => image.name() == parsed.name(),
            None => is_exact(image),
        };
        match self {
            Self::Any => true,
            Self::MatchRepoDigestOrExact => repo_digest_or_exact(image),
            Self::MatchExact => is_exact(image),
            Self::MatchRepository => image.name() == parsed.name(),
            Self::ExactReference { docker_reference } => {
                (docker_reference.parse::<Reference>()).is_ok_and(|wanted| is_exact(&wanted))
            }
            Self::ExactRepository { docker_repository } => {
                let wanted = Reference::repository_of(docker_repository);
                wanted.is_ok_and(|wanted| wanted.name() == parsed.name())
            }
            Self::RemapIdentity {
                prefix,
                signed_prefix,
            } => {
                let name = image.name();
                let rest = name.strip_prefix(prefix.as_str());
                let rest = rest.filter(|rest| rest.is_empty() || rest.starts_with('/'));
                let renamed = rest.map(|rest| image.renamed(&format!("{signed_prefix}{rest}")));
                match renamed {
                    None => repo_digest_or_exact(image),
                    Some(renamed) => renamed.is_ok_and(|image| repo_digest_or_exact(&image)),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_the_policy_says() {
        let hex = "0".repeat(64);
        let by_digest = format!("a.io/x@sha256:{hex}");
        let identity = |json: &str| -> Identity { serde_json::from_str(json).unwrap() };
        let exact = r#"{"type":"matchRepoDigestOrExact"}"#;
        let repository = r#"{"type":"matchRepository"}"#;
        let other = r#"{"type":"exactRepository","dockerRepository":"b.io/y"}"#;
        let reference = r#"{"type":"exactReference","dockerReference":"b.io/y:2"}"#;
        let remap = r#"{"type":"remapIdentity","prefix":"a.io","signedPrefix":"b.io/a"}"#;
        let cases = [
            (exact, "a.io/x:1", "a.io/x:1", true),
            (exact, "a.io/x:1", "a.io/x", false),
            (exact, "a.io/x", "a.io/x", false),
            (exact, "a.io/x:1", "a.io/x:2", false),
            (exact, &by_digest, "a.io/x", true),
            (exact, &by_digest, "a.io/y", false),
            (repository, "a.io/x:1", "a.io/x", true),
            (repository, "a.io/x:1", "a.io/x:2", true),
            (repository, "a.io/x:1", "a.io/y:1", false),
            (repository, "a.io/x:1", "not a name", false),
            (other, "a.io/x:1", "b.io/y", true),
            (other, "a.io/x:1", "a.io/x", false),
            (reference, "a.io/x:1", "b.io/y:2", true),
            (reference, "a.io/x:1", "b.io/y:3", false),
            (remap, "a.io/x:1", "b.io/a/x:1", true),
            (remap, "a.io/x:1", "a.io/x:1", false),
        ];
        for (json, image, signed, expected) in cases {
            let matches = identity(json).matches(&image.parse().unwrap(), signed);
            assert_eq!(matches, expected, "{json} {image} {signed}");
        }
        assert!(Identity::Any.matches(&"a.io/x".parse().unwrap(), ""));
        assert!(serde_json::from_str::<Identity>(r#"{"type":"any"}"#).is_err());
    }
}
