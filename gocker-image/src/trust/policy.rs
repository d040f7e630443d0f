//! `policy.json`: which images may be pulled, by their names.
//!
//! ```json
//! { "default": [{ "type": "reject" }],
//!   "transports": { "docker": {
//!     "registry.example/team": [{ "type": "sigstoreSigned", "keyPath": "/etc/team.pub",
//!                                 "signedIdentity": { "type": "matchRepository" } }],
//!     "*.example": [{ "type": "insecureAcceptAnything" }] } } }
//! ```
//!
//! The most specific entry decides, and all of its requirements must be met.
//!
//! Spec: containers-policy.json(5)

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Identity, PublicKey, TrustError};
use crate::environment::path_in;
use crate::errno::CallError;
use crate::image::refuse_duplicate_keys;
use crate::reference::Reference;

const FILE_LIMIT: u64 = 4 << 20;

/// Where a policy is looked for: the first that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyPaths {
    /// This one, which must be there.
    Only(PathBuf),
    /// The user's, else the system's; without one every image is let in.
    Default,
}

/// What must be true of an image.
#[derive(Debug)]
pub enum Requirement {
    /// Nothing.
    Accept,
    /// It must be signed.
    Signed(SignedBy),
}

/// By whom, and for which name, an image must be signed.
#[derive(Debug)]
pub struct SignedBy {
    /// Any of these.
    pub keys: Vec<PublicKey>,
    /// What the signature must name.
    pub identity: Identity,
}

/// A policy as it was read.
#[derive(Debug)]
pub struct Policy {
    path: PathBuf,
    file: File,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    default: Vec<Entry>,
    #[serde(default)]
    transports: BTreeMap<String, BTreeMap<String, Vec<Entry>>>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SigstoreSigned {
    key_path: Option<PathBuf>,
    #[serde(default)]
    key_paths: Vec<PathBuf>,
    key_data: Option<String>,
    #[serde(default)]
    key_datas: Vec<String>,
    #[serde(default)]
    signed_identity: Identity,
}

impl PolicyPaths {
    fn find(&self) -> Option<PathBuf> {
        match self {
            Self::Only(path) => Some(path.clone()),
            Self::Default => {
                let own = path_in("HOME").map(|home| home.join(".config/containers/policy.json"));
                let system = PathBuf::from("/etc/containers/policy.json");
                own.into_iter().chain([system]).find(|path| path.exists())
            }
        }
    }
}

impl Policy {
    /// Reads the policy. None: there is none.
    ///
    /// # Errors
    /// If it cannot be read, or is not one.
    pub fn load(paths: &PolicyPaths) -> Result<Option<Self>, TrustError> {
        let Some(path) = paths.find() else {
            return Ok(None);
        };
        let text = read(&path)?;
        // of two equal keys, readers differ in which one counts
        let file = refuse_duplicate_keys(&text).and_then(|()| serde_json::from_slice(&text));
        let file = file.map_err(|source| TrustError::Policy {
            path: path.clone(),
            source,
        })?;
        Ok(Some(Self { path, file }))
    }

    /// What must be true of `image`.
    ///
    /// # Errors
    /// If no image of that name is let in, or a requirement cannot be understood.
    pub fn requirements(&self, image: &Reference) -> Result<Vec<Requirement>, TrustError> {
        self.of_scope(self.entries(image))
    }

    /// What must be true of the images in an archive or directory, which `transport` reads.
    ///
    /// # Errors
    /// As [`Policy::requirements`].
    pub fn local_requirements(
        &self,
        transport: &str,
        path: Option<&Path>,
    ) -> Result<Vec<Requirement>, TrustError> {
        // a directory's entry is for all that is below it
        let parents = path.into_iter().flat_map(Path::ancestors);
        let named = parents.map(|path| path.to_string_lossy().into_owned());
        let candidates: Vec<String> = named.filter(|path| path != "/").collect();
        self.of_scope(self.most_specific(transport, &[&candidates[..], &[String::new()]].concat()))
    }

    fn of_scope(&self, found: (String, &[Entry])) -> Result<Vec<Requirement>, TrustError> {
        let (scope, entries) = found;
        if entries.is_empty() {
            let what = "an empty list of requirements".to_owned();
            return Err(self.unserved(&scope, what));
        }
        let requirements = entries.iter().map(|entry| self.requirement(&scope, entry));
        requirements.collect()
    }

    /// The entry of the first of `candidates` that there is, and what it is for.
    fn most_specific(&self, transport: &str, candidates: &[String]) -> (String, &[Entry]) {
        if let Some(scopes) = self.file.transports.get(transport) {
            for scope in candidates {
                if let Some(entries) = scopes.get(scope) {
                    return (format!("transports.{transport}.{scope:?}"), entries);
                }
            }
        }
        ("default".to_owned(), &self.file.default)
    }

    /// The most specific entry for `image`, and what it is for.
    fn entries(&self, image: &Reference) -> (String, &[Entry]) {
        let name = image.name();
        let mut candidates = vec![image.to_string(), name.clone()];
        let mut path = name.as_str();
        while let Some((front, _)) = path.rsplit_once('/') {
            candidates.push(front.to_owned());
            path = front;
        }
        let host = image.registry().split(':').next().unwrap_or_default();
        let mut domain = host;
        while let Some((_, rest)) = domain.split_once('.') {
            candidates.push(format!("*.{rest}"));
            domain = rest;
        }
        candidates.push(String::new());
        self.most_specific("docker", &candidates)
    }

    fn requirement(&self, scope: &str, entry: &Entry) -> Result<Requirement, TrustError> {
        let is_plain = entry.fields.is_empty();
        match entry.kind.as_str() {
            "insecureAcceptAnything" if is_plain => Ok(Requirement::Accept),
            "reject" if is_plain => Err(TrustError::Rejected {
                path: self.path.clone(),
                scope: scope.to_owned(),
            }),
            "sigstoreSigned" => self.signed(scope, &entry.fields).map(Requirement::Signed),
            kind => Err(self.unserved(scope, format!("the requirement {kind:?}"))),
        }
    }

    fn signed(&self, scope: &str, fields: &Map<String, Value>) -> Result<SignedBy, TrustError> {
        let known = [
            "keyPath",
            "keyPaths",
            "keyData",
            "keyDatas",
            "signedIdentity",
        ];
        if let Some(other) = fields.keys().find(|field| !known.contains(&field.as_str())) {
            return Err(self.unserved(scope, format!("sigstoreSigned by {other:?}")));
        }
        let parsed: SigstoreSigned = serde_json::from_value(Value::Object(fields.clone()))
            .map_err(|source| TrustError::Policy {
                path: self.path.clone(),
                source,
            })?;
        let mut keys = Vec::new();
        for path in parsed.key_path.iter().chain(&parsed.key_paths) {
            keys.push(PublicKey::read(path)?);
        }
        for data in parsed.key_data.iter().chain(&parsed.key_datas) {
            let name = format!("{:?}: {scope}: keyData", self.path);
            let pem = base64::engine::general_purpose::STANDARD.decode(data);
            let pem = pem.map_err(|_| TrustError::Key { name: name.clone() })?;
            keys.push(PublicKey::from_pem(&name, &pem)?);
        }
        if keys.is_empty() {
            return Err(self.unserved(scope, "sigstoreSigned without a key".to_owned()));
        }
        Ok(SignedBy {
            keys,
            identity: parsed.signed_identity,
        })
    }

    fn unserved(&self, scope: &str, what: String) -> TrustError {
        TrustError::Unserved {
            path: self.path.clone(),
            scope: scope.to_owned(),
            what,
        }
    }
}

impl PublicKey {
    /// Reads the key in the file `path`.
    ///
    /// # Errors
    /// If it cannot be read, or is no key.
    pub fn read(path: &Path) -> Result<Self, TrustError> {
        Self::from_pem(&format!("{path:?}"), &read(path)?)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TrustError> {
    let mut text = Vec::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(FILE_LIMIT).read_to_end(&mut text));
    read.map_err(|error| CallError::new("open", path, error))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirements(json: &str, image: &str) -> Result<Vec<Requirement>, TrustError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.json");
        std::fs::write(&path, json).unwrap();
        let policy = Policy::load(&PolicyPaths::Only(path))?.unwrap();
        policy.requirements(&image.parse().unwrap())
    }

    #[test]
    fn the_most_specific_entry_decides() {
        let json = r#"{"default":[{"type":"reject"}],"transports":{
            "docker":{"a.io":[{"type":"insecureAcceptAnything"}],
                      "a.io/closed":[{"type":"reject"}],
                      "a.io/closed/x:open":[{"type":"insecureAcceptAnything"}],
                      "*.wild.io":[{"type":"insecureAcceptAnything"}],
                      "docker.io/library":[{"type":"insecureAcceptAnything"}]},
            "docker-daemon":{"":[{"type":"insecureAcceptAnything"}]}}}"#;
        let cases = [
            ("a.io/x", true),
            ("a.io/closed/x", false),
            ("a.io/closed/x:open", true),
            ("a.io/closedx", true),
            ("r.wild.io:5000/x", true),
            ("wild.io/x", false),
            ("alpine", true),
            ("team/alpine", false),
        ];
        for (image, good) in cases {
            assert_eq!(requirements(json, image).is_ok(), good, "{image}");
        }
    }

    #[test]
    fn what_is_not_served_is_refused_by_name_where_it_applies() {
        let of = |entry: &str| format!(r#"{{"default":[{entry}]}}"#);
        let cases = [
            (
                of(r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/x"}"#),
                "signedBy",
            ),
            (of(r#"{"type":"sigstoreSigned","fulcio":{}}"#), "fulcio"),
            (of(r#"{"type":"sigstoreSigned"}"#), "without a key"),
            (
                of(r#"{"type":"sigstoreSigned","keyData":"eA=="}"#),
                "public key",
            ),
            (
                of(r#"{"type":"sigstoreSigned","keyPath":"/nonexistent"}"#),
                "nonexistent",
            ),
            (of(r#"{"type":"reject"}"#), "rejects"),
            (of(""), "empty"),
            (r#"{"defualt":[]}"#.to_owned(), "policy.json"),
            (r#"{"default":[],"default":[]}"#.to_owned(), "policy.json"),
        ];
        for (json, expected) in &cases {
            let error = requirements(json, "a.io/x").unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let elsewhere = r#"{"default":[{"type":"insecureAcceptAnything"}],
            "transports":{"docker":{"b.io":[{"type":"signedBy"}]}}}"#;
        assert!(requirements(elsewhere, "a.io/x").is_ok());
    }
}
