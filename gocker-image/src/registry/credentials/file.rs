//! One auth file: read, and changed without losing what others keep in it.

use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::{Credential, CredentialsError, HUB_KEY, helper, keys, server};
use crate::errno::CallError;
use crate::reference::DEFAULT_REGISTRY;

const FILE_LIMIT: u64 = 4 << 20;

/// A file as it was read.
pub(super) struct AuthFile {
    path: PathBuf,
    content: Map<String, Value>,
}

impl AuthFile {
    /// Reads the file. None: there is none, and there need not be one.
    pub(super) fn read(path: &Path, must_exist: bool) -> Result<Option<Self>, CredentialsError> {
        let mut text = Vec::new();
        let read =
            std::fs::File::open(path).and_then(|file| file.take(FILE_LIMIT).read_to_end(&mut text));
        let malformed = || CredentialsError::Malformed(path.to_owned());
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => Ok(None),
            Err(error) => Err(CallError::new("open", path, error).into()),
            Ok(_) => {
                let content = serde_json::from_slice(&text).map_err(|_| malformed())?;
                let file = Self {
                    path: path.to_owned(),
                    content,
                };
                let is_object = |name| file.content.get(name).is_none_or(Value::is_object);
                let is_text = |name| file.content.get(name).is_none_or(Value::is_string);
                if !(is_object("auths") && is_object("credHelpers") && is_text("credsStore")) {
                    return Err(malformed());
                }
                Ok(Some(file))
            }
        }
    }

    /// A file that is yet to be written.
    pub(super) fn empty(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            content: Map::new(),
        }
    }

    /// The credential of the first of `keys` that the file has one for.
    pub(super) fn find(&self, keys: &[String]) -> Result<Option<Credential>, CredentialsError> {
        let asked = helper_key(keys);
        if let Some(name) = keys.iter().find_map(|key| self.helper_of(key)) {
            return helper::get(name, &asked);
        }
        for key in keys {
            if let Some(entry) = self.entry(key)
                && let Some(credential) = self.credential(key, entry)?
            {
                return Ok(Some(credential));
            }
        }
        match self.store() {
            Some(name) => helper::get(name, &asked),
            None => Ok(None),
        }
    }

    /// Keeps a credential: with the helper that the file names, else in the file.
    pub(super) fn keep(&mut self, key: &str, secret: &Credential) -> Result<(), CredentialsError> {
        let own_key = self.own_key(key);
        let mut entry = Map::new();
        if let Some(name) = self.helper_of(key).or_else(|| self.store()) {
            helper::store(name, server(key), secret)?;
        } else {
            match secret {
                Credential::Password { user, password } => {
                    let both = STANDARD.encode(format!("{user}:{password}"));
                    entry.insert("auth".to_owned(), both.into());
                }
                Credential::IdentityToken(token) => {
                    // Docker wants a user's name beside it
                    entry.insert("auth".to_owned(), STANDARD.encode("<token>:").into());
                    entry.insert("identitytoken".to_owned(), token.clone().into());
                }
            }
        }
        let auths = self
            .content
            .entry("auths")
            .or_insert_with(|| Map::new().into());
        if let Value::Object(auths) = auths {
            auths.insert(own_key, entry.into());
        }
        self.write()
    }

    /// Forgets the entry `key`, or all; false if there was none.
    pub(super) fn forget(&mut self, key: Option<&str>) -> Result<bool, CredentialsError> {
        let names = |value: Option<&Value>| -> Vec<String> {
            let object = value.and_then(Value::as_object);
            object.map_or_else(Vec::new, |object| object.keys().cloned().collect())
        };
        let mut kept = names(self.content.get("auths"));
        kept.extend(names(self.content.get("credHelpers")));
        kept.sort();
        kept.dedup();
        let matching: Vec<String> = match key {
            None => kept,
            Some(key) => {
                // an entry of a repository stands for itself, one of a registry has many forms
                let forms = if key.contains('/') {
                    vec![key.to_owned()]
                } else {
                    keys(key, "")
                };
                kept.into_iter()
                    .filter(|name| forms.contains(name))
                    .collect()
            }
        };
        let mut found = false;
        for name in &matching {
            if let Some(helper) = self.helper_of(name).or_else(|| self.store()) {
                found |= helper::erase(helper, name)?;
            }
            if let Some(Value::Object(auths)) = self.content.get_mut("auths") {
                found |= auths.remove(name).is_some();
            }
        }
        if let (Some(helper), Some(key)) = (self.store(), key)
            && matching.is_empty()
            && helper::get(helper, server(key))?.is_some()
        {
            found |= helper::erase(helper, server(key))?;
        }
        if found {
            self.write()?;
        }
        Ok(found)
    }

    /// Docker knows its hub by another name.
    fn own_key(&self, key: &str) -> String {
        let is_docker = self
            .path
            .file_name()
            .is_some_and(|name| name == "config.json");
        if key == DEFAULT_REGISTRY && is_docker {
            HUB_KEY.to_owned()
        } else {
            key.to_owned()
        }
    }

    fn helper_of(&self, key: &str) -> Option<&str> {
        self.content.get("credHelpers")?.get(key)?.as_str()
    }

    fn store(&self) -> Option<&str> {
        let name = self.content.get("credsStore")?.as_str()?;
        Some(name).filter(|name| !name.is_empty())
    }

    fn entry(&self, key: &str) -> Option<&Value> {
        self.content.get("auths")?.get(key)
    }

    /// None if the entry is empty, as those are whose secret a helper keeps.
    fn credential(&self, key: &str, entry: &Value) -> Result<Option<Credential>, CredentialsError> {
        let text = |name| entry.get(name).and_then(Value::as_str).unwrap_or_default();
        let token = text("identitytoken");
        if !token.is_empty() {
            return Ok(Some(Credential::IdentityToken(token.to_owned())));
        }
        let auth = text("auth").trim();
        if auth.is_empty() {
            return Ok(None);
        }
        let wrong = || CredentialsError::Auth {
            path: self.path.clone(),
            key: key.to_owned(),
        };
        let bytes = STANDARD.decode(auth).map_err(|_| wrong())?;
        let both = String::from_utf8(bytes).map_err(|_| wrong())?;
        let (user, password) = both.split_once(':').ok_or_else(wrong)?;
        Ok(Some(Credential::Password {
            user: user.to_owned(),
            // Docker pads with NULs
            password: password.trim_end_matches('\0').to_owned(),
        }))
    }

    /// Writes the file anew: others see the old one or the new one.
    fn write(&self) -> Result<(), CredentialsError> {
        // a file behind a link is replaced where it lies
        let path = self
            .path
            .canonicalize()
            .unwrap_or_else(|_| self.path.clone());
        let dir = path.parent().unwrap_or(Path::new("/"));
        let mut builder = std::fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|error| CallError::new("mkdir", dir, error))?;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let unfinished = path.with_file_name(name);
        let failed = |call| {
            let unfinished = &unfinished;
            move |error: io::Error| CallError::new(call, unfinished, error)
        };
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let written = options.open(&unfinished).and_then(|mut file| {
            let mut text = serde_json::to_vec_pretty(&self.content)?;
            text.push(b'\n');
            file.write_all(&text)?;
            file.sync_all()
        });
        let replaced = written
            .map_err(failed("write"))
            .and_then(|()| std::fs::rename(&unfinished, &path).map_err(failed("rename")));
        if let Err(error) = replaced {
            // the first error is the one to tell
            drop(std::fs::remove_file(&unfinished));
            return Err(error.into());
        }
        Ok(())
    }
}

/// What a helper is asked for, of all forms of a registry's name.
fn helper_key(keys: &[String]) -> String {
    let host = keys.iter().find(|key| !key.contains('/'));
    server(host.map_or("", String::as_str)).to_owned()
}
