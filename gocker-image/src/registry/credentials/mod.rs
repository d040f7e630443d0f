//! The credentials that users of docker and podman already have.
//!
//! ```text
//! { "auths":       { "HOST[/NAMESPACE…]": { "auth": base64("user:password"),
//!                                           "identitytoken": "…" } },
//!   "credHelpers": { "HOST": "NAME" },   docker-credential-NAME answers
//!   "credsStore":  "NAME" }              for every other host
//! ```
//!
//! Read: the file that the user names or `$REGISTRY_AUTH_FILE` alone, else the
//! first that knows the registry of `$XDG_RUNTIME_DIR/containers/auth.json`
//! (`/run/containers/UID/auth.json` without that variable),
//! `~/.config/containers/auth.json`, `~/.docker/config.json`. Written: the
//! first of them. A file that cannot be read and a helper that fails are
//! errors: nothing falls back to being anonymous unseen.
//!
//! Spec: containers-auth.json(5), docker-credential-helpers

mod file;
mod helper;

use std::fmt;
use std::path::PathBuf;

use crate::environment::path_in;
use crate::errno::CallError;
use crate::reference::DEFAULT_REGISTRY;
use file::AuthFile;

/// The key under which Docker Hub's credentials are kept.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// The auth files, among the helpers that registries.conf lists.
const AUTH_FILE_HELPER: &str = "containers-auth.json";

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
    /// No file is named, and there is no home to keep one in.
    #[error("there is no place for an auth file: neither $REGISTRY_AUTH_FILE nor $HOME is set")]
    NoPlace,
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
        if let Some(only) = path_in("REGISTRY_AUTH_FILE") {
            return Self {
                paths: vec![only],
                must_exist: true,
            };
        }
        let home = path_in("HOME");
        let below = |base: Option<PathBuf>, path: &str| base.map(|base| base.join(path));
        let config = path_in("XDG_CONFIG_HOME").or_else(|| below(home.clone(), ".config"));
        let docker = path_in("DOCKER_CONFIG").or_else(|| below(home, ".docker"));
        let runtime = below(path_in("XDG_RUNTIME_DIR"), "containers").unwrap_or_else(|| {
            let user = nix::unistd::geteuid();
            PathBuf::from(format!("/run/containers/{user}"))
        });
        let paths = [
            Some(runtime.join("auth.json")),
            below(config, "containers/auth.json"),
            below(docker, "config.json"),
        ];
        Self {
            paths: paths.into_iter().flatten().collect(),
            must_exist: false,
        }
    }

    /// The file `path` alone.
    #[must_use]
    pub fn only(path: PathBuf) -> Self {
        Self {
            paths: vec![path],
            must_exist: true,
        }
    }

    /// The credential for a repository of `registry`. `helpers` are those that registries.conf
    /// lists: they come in its order.
    ///
    /// # Errors
    /// If a file is malformed, or a helper fails.
    pub fn find(
        &self,
        registry: &str,
        repository: &str,
        helpers: &[String],
    ) -> Result<Option<Credential>, CredentialsError> {
        let keys = keys(registry, repository);
        let only_files = [AUTH_FILE_HELPER.to_owned()];
        let helpers = if helpers.is_empty() {
            &only_files
        } else {
            helpers
        };
        for helper in helpers {
            let found = if helper == AUTH_FILE_HELPER {
                self.find_in_files(&keys)?
            } else {
                helper::get(helper, server(registry))?
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn find_in_files(&self, keys: &[String]) -> Result<Option<Credential>, CredentialsError> {
        for path in &self.paths {
            let Some(file) = AuthFile::read(path, self.must_exist)? else {
                continue;
            };
            if let Some(credential) = file.find(keys)? {
                return Ok(Some(credential));
            }
        }
        Ok(None)
    }

    /// Keeps a credential for `key`, a registry or a repository at one. Returns where.
    ///
    /// # Errors
    /// If the file cannot be written, or the helper that keeps secrets fails.
    pub fn keep(&self, key: &str, credential: &Credential) -> Result<PathBuf, CredentialsError> {
        let path = self.paths.first().ok_or(CredentialsError::NoPlace)?;
        let mut file = AuthFile::read(path, false)?.unwrap_or_else(|| AuthFile::empty(path));
        file.keep(key, credential)?;
        Ok(path.clone())
    }

    /// Forgets what is kept for `key`, or for every registry. Says where it was.
    ///
    /// # Errors
    /// If the file cannot be written, or the helper that keeps secrets fails.
    pub fn forget(&self, key: Option<&str>) -> Result<Option<PathBuf>, CredentialsError> {
        for path in &self.paths {
            if let Some(mut file) = AuthFile::read(path, false)?
                && file.forget(key)?
            {
                return Ok(Some(path.clone()));
            }
        }
        Ok(None)
    }
}

/// The keys that an entry for a repository may have, the most specific first.
fn keys(registry: &str, repository: &str) -> Vec<String> {
    let mut keys = vec![];
    let mut path = repository;
    while !path.is_empty() {
        keys.push(format!("{registry}/{path}"));
        path = path.rsplit_once('/').map_or("", |(front, _)| front);
    }
    keys.push(registry.to_owned());
    if registry == DEFAULT_REGISTRY {
        keys.extend([HUB_KEY, "index.docker.io", "https://index.docker.io"].map(str::to_owned));
    }
    keys.extend(
        ["", "/", "/v1/", "/v2/"]
            .iter()
            .map(|end| format!("https://{registry}{end}")),
    );
    keys
}

/// What helpers know a registry by.
fn server(registry: &str) -> &str {
    if registry == DEFAULT_REGISTRY {
        HUB_KEY
    } else {
        registry
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::Reference;

    fn find(json: &str, reference: &str) -> Result<Option<Credential>, CredentialsError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.json");
        std::fs::write(&path, json).unwrap();
        let files = AuthFiles {
            paths: vec![dir.path().join("missing"), path],
            must_exist: false,
        };
        let reference: Reference = reference.parse().unwrap();
        files.find(reference.registry(), reference.repository(), &[])
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
        assert!(files.find("a.io", "x", &[]).is_err());
    }

    #[test]
    fn what_is_kept_is_found_and_forgotten_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/auth.json");
        let files = AuthFiles {
            paths: vec![path.clone()],
            must_exist: false,
        };
        let credential = Credential::Password {
            user: "u".into(),
            password: "p:q".into(),
        };
        for key in ["a.io", "a.io/team", "docker.io"] {
            files.keep(key, &credential).unwrap();
        }
        let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let mut text: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        text["HttpHeaders"] = "kept".into();
        std::fs::write(&path, text.to_string()).unwrap();
        assert_eq!(
            files.find("a.io", "x", &[]).unwrap(),
            Some(credential.clone())
        );
        assert!(files.forget(Some("a.io")).unwrap().is_some());
        assert!(files.forget(Some("a.io")).unwrap().is_none());
        assert_eq!(files.find("a.io", "x", &[]).unwrap(), None);
        assert_eq!(files.find("a.io", "team/x", &[]).unwrap(), Some(credential));
        assert!(files.forget(None).unwrap().is_some());
        assert_eq!(files.find("docker.io", "library/x", &[]).unwrap(), None);
        assert!(std::fs::read_to_string(&path).unwrap().contains("kept"));
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
