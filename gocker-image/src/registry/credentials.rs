//! The credentials that users of docker and podman already have.
//!
//! ```text
//! { "auths":       { "HOST[/NAMESPACE…]": { "auth": base64("user:password"),
//!                                           "identitytoken": "…" } },
//!   "credHelpers": { "HOST": "NAME" },   docker-credential-NAME answers
//!   "credsStore":  "NAME" }              for every other host
//! ```
//!
//! Read: `$REGISTRY_AUTH_FILE` alone if it is set, else the first that knows
//! the registry of `$XDG_RUNTIME_DIR/containers/auth.json`,
//! `~/.config/containers/auth.json`, `~/.docker/config.json`. A file that
//! cannot be read and a helper that fails are errors: nothing falls back to
//! being anonymous unseen.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use serde::Deserialize;

use crate::errno::CallError;
use crate::reference::{DEFAULT_REGISTRY, Reference};

/// The key under which Docker Hub's credentials are kept.
const HUB_KEY: &str = "https://index.docker.io/v1/";
const FILE_LIMIT: u64 = 4 << 20;
const ANSWER_LIMIT: u64 = 1 << 20;

/// Who we are to a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user and a password.
    Password {
        /// The user's name.
        user: String,
        /// The password.
        password: String,
    },
    /// A refresh token, to be changed into an access token.
    IdentityToken(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Password({user:?})"),
            Self::IdentityToken(_) => f.write_str("IdentityToken"),
        }
    }
}

/// Why credentials cannot be read. Says nothing of their content.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file is there but cannot be read.
    #[error(transparent)]
    Read(#[from] CallError),
    /// The file is not what it should be.
    #[error("{0:?}: is not an auth file in JSON")]
    Malformed(PathBuf),
    /// An entry's `auth` is not base64 of `user:password`.
    #[error("{path:?}: auths.{key:?}.auth: is not the base64 of user:password")]
    Auth {
        /// The file.
        path: PathBuf,
        /// The entry.
        key: String,
    },
    /// The helper cannot be started, or does not answer as it should.
    #[error("credential helper {name:?}: {reason}")]
    Helper {
        /// The name after `docker-credential-`.
        name: String,
        /// What it said, or why it does not run.
        reason: String,
    },
}

/// Where credentials are looked for, the first that knows the registry wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthFiles {
    paths: Vec<PathBuf>,
    /// Whether a missing file is an error.
    must_exist: bool,
}

impl AuthFiles {
    /// The places that docker and podman use.
    #[must_use]
    pub fn from_environment() -> Self {
        let variable = |name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        if let Some(only) = variable("REGISTRY_AUTH_FILE") {
            return Self {
                paths: vec![only],
                must_exist: true,
            };
        }
        let home = variable("HOME");
        let below = |base: Option<PathBuf>, path: &str| base.map(|base| base.join(path));
        let config = variable("XDG_CONFIG_HOME").or_else(|| below(home.clone(), ".config"));
        let docker = variable("DOCKER_CONFIG").or_else(|| below(home, ".docker"));
        let paths = [
            below(variable("XDG_RUNTIME_DIR"), "containers/auth.json"),
            below(config, "containers/auth.json"),
            below(docker, "config.json"),
        ];
        Self {
            paths: paths.into_iter().flatten().collect(),
            must_exist: false,
        }
    }

    /// The credential for the registry and repository of `reference`.
    ///
    /// # Errors
    /// If a file is malformed, or a helper fails.
    pub fn find(&self, reference: &Reference) -> Result<Option<Credential>, CredentialsError> {
        for path in &self.paths {
            if let Some(file) = self.read(path)?
                && let Some(credential) = file.find(path, reference)?
            {
                return Ok(Some(credential));
            }
        }
        Ok(None)
    }

    fn read(&self, path: &Path) -> Result<Option<AuthFile>, CredentialsError> {
        let mut text = Vec::new();
        let read =
            std::fs::File::open(path).and_then(|file| file.take(FILE_LIMIT).read_to_end(&mut text));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.must_exist => Ok(None),
            Err(error) => Err(CallError::new("open", path, error).into()),
            Ok(_) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|_| CredentialsError::Malformed(path.to_owned())),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct AuthFile {
    auths: HashMap<String, Entry>,
    cred_helpers: HashMap<String, String>,
    creds_store: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: String,
    identitytoken: String,
}

impl AuthFile {
    fn find(
        &self,
        path: &Path,
        reference: &Reference,
    ) -> Result<Option<Credential>, CredentialsError> {
        let keys = keys(reference);
        let host = reference.registry();
        let server = if host == DEFAULT_REGISTRY {
            HUB_KEY
        } else {
            host
        };
        if let Some(name) = keys.iter().find_map(|key| self.cred_helpers.get(key)) {
            return ask_helper(name, server);
        }
        for key in &keys {
            if let Some(entry) = self.auths.get(key)
                && let Some(credential) = entry.credential(path, key)?
            {
                return Ok(Some(credential));
            }
        }
        if self.creds_store.is_empty() {
            Ok(None)
        } else {
            ask_helper(&self.creds_store, server)
        }
    }
}

impl Entry {
    /// None if the entry is empty, as those are whose secret a helper keeps.
    fn credential(&self, path: &Path, key: &str) -> Result<Option<Credential>, CredentialsError> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credential::IdentityToken(self.identitytoken.clone())));
        }
        if self.auth.is_empty() {
            return Ok(None);
        }
        let wrong = || CredentialsError::Auth {
            path: path.to_owned(),
            key: key.to_owned(),
        };
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(self.auth.trim())
            .map_err(|_| wrong())?;
        let text = String::from_utf8(bytes).map_err(|_| wrong())?;
        let (user, password) = text.split_once(':').ok_or_else(wrong)?;
        // Docker pads with NULs
        let password = password.trim_end_matches('\0').to_owned();
        Ok(Some(Credential::Password {
            user: user.to_owned(),
            password,
        }))
    }
}

/// The keys that an entry for `reference` may have, the most specific first.
fn keys(reference: &Reference) -> Vec<String> {
    let host = reference.registry();
    let mut keys = vec![];
    let mut name = reference.name();
    while name.len() > host.len() {
        keys.push(name.clone());
        name.truncate(name.rfind('/').unwrap_or(0));
    }
    keys.push(host.to_owned());
    if host == DEFAULT_REGISTRY {
        keys.extend([HUB_KEY, "index.docker.io", "https://index.docker.io"].map(str::to_owned));
    }
    keys.extend(
        ["", "/", "/v1/", "/v2/"]
            .iter()
            .map(|end| format!("https://{host}{end}")),
    );
    keys
}

/// Asks `docker-credential-NAME`, by its protocol: the server's name on its
/// standard input, JSON on its standard output.
fn ask_helper(name: &str, server: &str) -> Result<Option<Credential>, CredentialsError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let wrong = |reason: String| CredentialsError::Helper {
        name: name.to_owned(),
        reason,
    };
    if name.contains('/') {
        return Err(wrong("a helper's name has no slash".to_owned()));
    }
    let failed = |error: io::Error| wrong(error.to_string());
    let mut helper = Command::new(format!("docker-credential-{name}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(failed)?;
    let mut output = Vec::new();
    let talk = (|| {
        if let Some(mut stdin) = helper.stdin.take() {
            stdin.write_all(server.as_bytes())?;
        }
        match helper.stdout.take() {
            Some(stdout) => stdout.take(ANSWER_LIMIT).read_to_end(&mut output),
            None => Ok(0),
        }
    })();
    let status = helper.wait().map_err(failed)?;
    if status.success() {
        talk.map_err(failed)?;
        let answer: Answer = serde_json::from_slice(&output)
            .map_err(|_| wrong("its answer is not JSON with Username and Secret".to_owned()))?;
        return Ok(Some(match answer.username.as_str() {
            "<token>" => Credential::IdentityToken(answer.secret),
            _ => Credential::Password {
                user: answer.username,
                password: answer.secret,
            },
        }));
    }
    let said = super::error::printable(&String::from_utf8_lossy(&output));
    if said.contains("credentials not found") {
        return Ok(None);
    }
    Err(wrong(if said.is_empty() {
        status.to_string()
    } else {
        said
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(json: &str, reference: &str) -> Result<Option<Credential>, CredentialsError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.json");
        std::fs::write(&path, json).unwrap();
        let files = AuthFiles {
            paths: vec![dir.path().join("missing"), path],
            must_exist: false,
        };
        files.find(&reference.parse().unwrap())
    }

    #[test]
    fn the_most_specific_entry_wins() {
        // u:p, v:q, w:r
        let json = r#"{"auths":{"a.io":{"auth":"dTpw"},"a.io/team":{"auth":"djpx"},
            "https://index.docker.io/v1/":{"auth":"dzpy"},"c.io":{},"d.io":{"identitytoken":"t"}}}"#;
        let password = |user: &str, password: &str| Credential::Password {
            user: user.into(),
            password: password.into(),
        };
        let cases = [
            ("a.io/other/x", Some(password("u", "p"))),
            ("a.io/team/x", Some(password("v", "q"))),
            ("a.io/teams/x", Some(password("u", "p"))),
            ("alpine", Some(password("w", "r"))),
            ("b.io/x", None),
            ("c.io/x", None),
            ("d.io/x", Some(Credential::IdentityToken("t".into()))),
        ];
        for (reference, expected) in cases {
            assert_eq!(find(json, reference).unwrap(), expected, "{reference}");
        }
    }

    #[test]
    fn what_cannot_be_read_fails_closed() {
        let cases = [
            ("{", "auth.json"),
            (r#"{"auths":{"a.io":{"auth":"?"}}}"#, "a.io"),
            (r#"{"auths":{"a.io":{"auth":"dQ=="}}}"#, "a.io"),
            (
                r#"{"credHelpers":{"a.io":"gocker-test-missing"}}"#,
                "gocker-test-missing",
            ),
            (r#"{"credsStore":"../x"}"#, "slash"),
        ];
        for (json, expected) in cases {
            let error = find(json, "a.io/x").unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let files = AuthFiles {
            paths: vec!["/nonexistent/auth.json".into()],
            must_exist: true,
        };
        assert!(files.find(&"a.io/x".parse().unwrap()).is_err());
    }

    #[test]
    fn secrets_are_not_shown() {
        let secret = Credential::Password {
            user: "u".into(),
            password: "hidden".into(),
        };
        assert!(!format!("{secret:?}").contains("hidden"));
    }
}
