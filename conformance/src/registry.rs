//! A real registry (Debian's `docker-registry`) on loopback, with a directory
//! and a port of its own, for as long as a test lasts.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::{Request, Response};
use crate::images::{Blob, Image, Index};

/// How long the registry may take until it listens.
const START: Duration = Duration::from_secs(20);

/// A running registry; dropping it ends it.
#[derive(Debug)]
pub struct Registry {
    host: String,
    process: Child,
    directory: TempDir,
}

/// One line of the registry's access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// `GET`, `HEAD` and so on.
    pub method: String,
    /// The path, without a query.
    pub path: String,
    /// The status that was answered.
    pub status: u16,
}

impl Registry {
    /// Starts an empty registry.
    ///
    /// # Errors
    /// When `docker-registry` is missing or does not come up.
    pub fn start() -> Result<Self> {
        Self::start_as(None, json!({}))
    }

    /// Starts another registry over the same data, with these settings besides: such as TLS or
    /// users. It is not to outlive the first.
    ///
    /// # Errors
    /// As [`Registry::start`].
    pub fn beside(&self, settings: Value) -> Result<Self> {
        Self::start_as(Some(&self.data()), settings)
    }

    fn start_as(data: Option<&Path>, settings: Value) -> Result<Self> {
        // Another process may take the port between the probe and the start.
        let mut last = String::new();
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            let mut registry = Self::spawn(port, data, &settings)?;
            match registry.wait_until_it_listens() {
                Ok(()) => return Ok(registry),
                Err(error) => last = format!("{error:#}"),
            }
        }
        bail!("docker-registry does not start: {last}")
    }

    fn spawn(port: u16, data: Option<&Path>, settings: &Value) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("gocker-registry-")
            .tempdir()?;
        let host = format!("127.0.0.1:{port}");
        let config = directory.path().join("config.yml");
        let storage = data.map_or_else(|| directory.path().join("data"), Path::to_owned);
        // JSON is YAML; no upload purging, no debug server, no auth.
        let mut document = json!({
            "version": 0.1,
            "storage": {
                "filesystem": {"rootdirectory": storage},
                "maintenance": {"uploadpurging": {"enabled": false}},
            },
            "http": {"addr": host},
        });
        merge(&mut document, settings);
        fs::write(&config, document.to_string())?;
        let log = fs::File::create(directory.path().join("log"))?;
        // A test that is killed cannot drop anything: the kernel ends the
        // registry with the thread that started it.
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "docker-registry", "serve"])
            .arg(&config)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("run setpriv docker-registry (Debian package docker-registry)")?;
        Ok(Self {
            host,
            process,
            directory,
        })
    }

    fn wait_until_it_listens(&mut self) -> Result<()> {
        let start = Instant::now();
        while TcpStream::connect(&self.host).is_err() {
            if let Some(status) = self.process.try_wait()? {
                bail!("{status}: {}", self.log());
            }
            ensure!(
                start.elapsed() < START,
                "no answer within {START:?}: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// `127.0.0.1:PORT/NAME`, as a user would type it.
    #[must_use]
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    /// The directory that holds the registry's data.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Pushes an image; returns the reference to pull it by.
    ///
    /// # Errors
    /// When the registry refuses it.
    pub fn push(&self, image: &Image, repository: &str, tag: &str) -> Result<String> {
        for blob in image.blobs() {
            self.push_blob(repository, blob)?;
        }
        self.push_manifest(repository, tag, &image.manifest)?;
        Ok(format!("{}/{repository}:{tag}", self.host))
    }

    /// Pushes all images of an index and the index; returns its reference.
    ///
    /// # Errors
    /// When the registry refuses it.
    pub fn push_index(&self, index: &Index, repository: &str, tag: &str) -> Result<String> {
        for image in &index.images {
            self.push(image, repository, &image.manifest.digest)?;
        }
        self.push_manifest(repository, tag, &index.document)?;
        Ok(format!("{}/{repository}:{tag}", self.host))
    }

    fn push_blob(&self, repository: &str, blob: &Blob) -> Result<()> {
        let there = Request::new("HEAD", &format!("/v2/{repository}/blobs/{}", blob.digest));
        if there.send(&self.host)?.status == 200 {
            return Ok(());
        }
        let upload = Request::new("POST", &format!("/v2/{repository}/blobs/uploads/"));
        let answer = expect(upload.send(&self.host)?, 202)?;
        let location = answer
            .field("location")
            .context("an upload without a Location")?;
        let target = location.trim_start_matches(&format!("http://{}", self.host));
        let joint = if target.contains('?') { '&' } else { '?' };
        let upload = Request::new("PUT", &format!("{target}{joint}digest={}", blob.digest))
            .body("application/octet-stream", &blob.bytes);
        expect(upload.send(&self.host)?, 201)?;
        Ok(())
    }

    fn push_manifest(&self, repository: &str, reference: &str, manifest: &Blob) -> Result<()> {
        // An image by digest is pushed under that digest; a digest is no tag.
        let request = Request::new("PUT", &format!("/v2/{repository}/manifests/{reference}"))
            .body(&manifest.media_type, &manifest.bytes);
        expect(request.send(&self.host)?, 201)?;
        Ok(())
    }

    /// What has been asked of the registry so far, pushes included, in order.
    ///
    /// # Errors
    /// When the registry has died, or its log cannot be read.
    pub fn accesses(&self) -> Result<Vec<Access>> {
        // A line is written after its answer is sent. A request of our own, seen
        // in the log, and a moment's rest say that the others are there too.
        static MARKERS: AtomicU64 = AtomicU64::new(0);
        let marker = format!(
            "/v2/marker-{}/tags/list",
            MARKERS.fetch_add(1, Ordering::Relaxed)
        );
        Request::new("GET", &marker).send(&self.host)?;
        let end = Instant::now() + Duration::from_secs(5);
        while !self.log().contains(&marker) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(50));
        Ok(self
            .log()
            .lines()
            .filter_map(parse_access)
            .filter(|access| !access.path.contains("/marker-"))
            .collect())
    }

    /// How often blobs were fetched so far, by digest and in the log's order.
    ///
    /// # Errors
    /// As [`Registry::accesses`].
    pub fn fetched_blobs(&self) -> Result<Vec<String>> {
        let fetched = self
            .accesses()?
            .into_iter()
            .filter(|access| access.method == "GET");
        Ok(fetched
            .filter_map(|access| Some(access.path.split_once("/blobs/")?.1.to_owned()))
            .collect())
    }

    fn log(&self) -> String {
        let log = fs::read(self.directory.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Damages a stored blob in place: `change` gets its path.
    ///
    /// # Errors
    /// When the registry has no such blob, or `change` fails.
    pub fn damage(
        &self,
        digest: &str,
        change: impl FnOnce(&Path) -> std::io::Result<()>,
    ) -> Result<()> {
        let hex = digest.trim_start_matches("sha256:");
        let path = self
            .data()
            .join("docker/registry/v2/blobs/sha256")
            .join(&hex[..2])
            .join(hex)
            .join("data");
        change(&path).with_context(|| format!("damage {path:?}"))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait()) {
            eprintln!("end docker-registry: {error}");
        }
    }
}

/// Lets `more` override and extend `document`.
fn merge(document: &mut Value, more: &Value) {
    match (document, more) {
        (Value::Object(document), Value::Object(more)) => {
            for (key, value) in more {
                merge(document.entry(key).or_insert(Value::Null), value);
            }
        }
        (document, more) => *document = more.clone(),
    }
}

fn expect(response: Response, status: u16) -> Result<Response> {
    let said = String::from_utf8_lossy(&response.body);
    ensure!(
        response.status == status,
        "the registry answers {}: {said}",
        response.status
    );
    Ok(response)
}

/// Reads a line of Apache's combined form: `… "GET /v2/ HTTP/1.1" 200 …`.
fn parse_access(line: &str) -> Option<Access> {
    let mut quoted = line.split('"');
    if quoted.next()?.contains("level=") {
        return None;
    }
    let mut words = quoted.next()?.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let status = quoted.next()?.split_whitespace().next()?.parse().ok()?;
    let path = target.split('?').next()?.to_owned();
    Some(Access {
        method: method.to_owned(),
        path,
        status,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_lines_are_told_from_others() {
        let line = r#"127.0.0.1 - - [23/Nov/2026:13:00:00 +0000] "GET /v2/a/blobs/sha256:00?x=1 HTTP/1.1" 200 5 "" "reqwest""#;
        let want = Access {
            method: "GET".into(),
            path: "/v2/a/blobs/sha256:00".into(),
            status: 200,
        };
        assert_eq!(parse_access(line), Some(want));
        assert_eq!(
            parse_access(r#"time="2026" level=info msg="listening on x""#),
            None
        );
        assert_eq!(parse_access(""), None);
    }
}
