//! A directory with the certificates of one host.
//!
//! ```text
//! *.crt           authorities that vouch for the host
//! NAME.cert       a client certificate, with its key in NAME.key
//! ```
//!
//! Spec: containers-certs.d(5)

use std::fs;
use std::path::{Path, PathBuf};

use super::{SettingsError, Tls};
use crate::errno::CallError;

/// Reads what lies in `dir`.
pub(super) fn read(dir: &Path) -> Result<Tls, SettingsError> {
    let failed = |error| CallError::new("read", dir, error);
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(failed)?
        .into_iter()
        .map(|entry| entry.path())
        .collect();
    files.sort();
    let mut tls = Tls::default();
    let ends = |path: &Path, end: &str| path.extension().is_some_and(|found| found == end);
    for path in &files {
        let missing = |other: &str| {
            let problem = format!("there is no {other:?} beside it");
            let field = path.file_name().unwrap_or_default().to_string_lossy();
            SettingsError::Value {
                path: dir.to_owned(),
                field: field.into_owned(),
                problem,
            }
        };
        if ends(path, "crt") {
            tls.authorities.push(path.clone());
        } else if ends(path, "cert") {
            let key = path.with_extension("key");
            if !files.contains(&key) {
                return Err(missing("key"));
            }
            if tls.client.is_none() {
                tls.client = Some((path.clone(), Some(key)));
            }
        } else if ends(path, "key") && !files.contains(&path.with_extension("cert")) {
            return Err(missing("cert"));
        }
    }
    Ok(tls)
}
