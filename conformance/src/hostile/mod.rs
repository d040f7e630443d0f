//! A registry inside the test process that does as it is told: honestly serves
//! images, or answers as broken and hostile servers do.
//!
//! ```text
//! request -> the test's rule -> an Answer
//!                 | none
//!                 v
//!            bearer token asked for, where set
//!                 v
//!            manifests and blobs of the images it serves
//! ```
//!
//! Every request is kept, with its credentials, for the test to look at.

mod answer;

use std::collections::HashMap;
use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Result;
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::json;

pub use crate::http::base64;
use crate::http::{Request, read_request};
use crate::images::{Blob, Image, Index};
pub use answer::{Answer, Delivery};

/// What a test decides for single requests: `None` leaves it to the server.
pub type Rule = dyn Fn(&Request) -> Option<Answer> + Send + Sync;

/// What a test decides of the way in which answers go out that are to be whole.
pub type DeliveryRule = dyn FnMut(&Request, &Answer) -> Delivery + Send;

/// A token that the server asks for.
#[derive(Debug, Clone)]
struct Token {
    realm: String,
    token: String,
    credentials: Option<String>,
}

struct Shared {
    host: String,
    rule: Box<Rule>,
    delivery: Mutex<Box<DeliveryRule>>,
    token: Mutex<Option<Token>>,
    /// By `repository:reference`.
    manifests: Mutex<HashMap<String, Blob>>,
    blobs: Mutex<HashMap<String, Blob>>,
    seen: Mutex<Vec<Request>>,
    stopped: AtomicBool,
}

/// A server; dropping it stops it.
pub struct HostileRegistry {
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

impl HostileRegistry {
    /// A server without images that asks `rule` first, on a port of its own.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(
        rule: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let shared = Arc::new(Shared {
            host: listener.local_addr()?.to_string(),
            rule: Box::new(rule),
            delivery: Mutex::new(Box::new(|_, _| Delivery::Whole)),
            token: Mutex::new(None),
            manifests: Mutex::default(),
            blobs: Mutex::default(),
            seen: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        let listener = thread::spawn(move || accept(&listener, &accepting));
        Ok(Self {
            shared,
            listener: Some(listener),
        })
    }

    /// A server that only serves its images.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn honest() -> Result<Self> {
        Self::start(|_| None)
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.shared.host
    }

    /// Serves an image; returns its reference.
    pub fn serve(&self, image: &Image, repository: &str, tag: &str) -> String {
        for blob in image.blobs() {
            self.serve_blob(blob);
        }
        self.serve_manifest(repository, tag, &image.manifest)
    }

    /// Serves an index and its images; returns its reference.
    pub fn serve_index(&self, index: &Index, repository: &str, tag: &str) -> String {
        for image in &index.images {
            self.serve(image, repository, &image.manifest.digest);
        }
        self.serve_manifest(repository, tag, &index.document)
    }

    /// Serves a blob in every repository.
    pub fn serve_blob(&self, blob: &Blob) {
        lock(&self.shared.blobs).insert(blob.digest.clone(), blob.clone());
    }

    /// Serves a manifest of whatever kind; returns its reference.
    pub fn serve_manifest(&self, repository: &str, tag: &str, manifest: &Blob) -> String {
        for reference in [tag, &manifest.digest] {
            let key = format!("{repository}:{reference}");
            lock(&self.shared.manifests).insert(key, manifest.clone());
        }
        format!("{}/{repository}:{tag}", self.shared.host)
    }

    /// From now on asks `rule` how each answer goes out.
    pub fn deliver(&self, rule: impl FnMut(&Request, &Answer) -> Delivery + Send + 'static) {
        *lock(&self.shared.delivery) = Box::new(rule);
    }

    /// From now on asks for a bearer token, which `/token` of this server gives:
    /// to anyone, or for these `user:password` only.
    pub fn ask_for_token(&self, credentials: Option<&str>) {
        let realm = format!("http://{}/token", self.shared.host);
        self.ask_for_token_of(&realm, credentials);
    }

    /// As [`HostileRegistry::ask_for_token`], with a realm elsewhere.
    pub fn ask_for_token_of(&self, realm: &str, credentials: Option<&str>) {
        *lock(&self.shared.token) = Some(Token {
            realm: realm.into(),
            token: "secret-bearer-token".into(),
            credentials: credentials.map(|text| format!("Basic {}", base64(text.as_bytes()))),
        });
    }

    /// All requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared.seen).clone()
    }

    /// The digests of all blobs asked for with GET so far, in order.
    #[must_use]
    pub fn fetched_blobs(&self) -> Vec<String> {
        let requests = self
            .requests()
            .into_iter()
            .filter(|request| request.method == "GET");
        requests
            .filter_map(|request| Some(request.target.split_once("/blobs/")?.1.to_owned()))
            .collect()
    }
}

impl Drop for HostileRegistry {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let woken = TcpStream::connect(&self.shared.host).is_ok();
        if let (true, Some(listener)) = (woken, self.listener.take())
            && listener.join().is_err()
        {
            eprintln!("the hostile registry's thread panicked");
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming().flatten() {
        if shared.stopped.load(Ordering::SeqCst) {
            return;
        }
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            // A client that goes away in the middle is part of the play.
            if let Err(error) = serve_connection(&stream, &shared) {
                eprintln!("hostile registry: {error:#}");
            }
        });
    }
}

fn serve_connection(stream: &TcpStream, shared: &Shared) -> Result<()> {
    let request = match read_request(stream) {
        Ok(Some(request)) => request,
        Ok(None) => return Ok(()),
        // A TLS client, most likely, which is told so as real servers do.
        Err(_) => {
            let answer = Answer::status(400).body("this is plain HTTP");
            return Ok(send(stream, &answer, false, shared)?);
        }
    };
    lock(&shared.seen).push(request.clone());
    let mut answer = (shared.rule)(&request).unwrap_or_else(|| shared.answer(&request));
    if answer.delivery == Delivery::Whole {
        answer.delivery = lock(&shared.delivery)(&request, &answer);
    }
    match send(stream, &answer, request.method == "HEAD", shared) {
        Err(error)
            if !matches!(
                error.kind(),
                ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
            ) =>
        {
            Err(error.into())
        }
        _ => Ok(()),
    }
}

impl Shared {
    fn answer(&self, request: &Request) -> Answer {
        let path = request.target.split('?').next().unwrap_or_default();
        // whoever takes this server for a proxy asks by the whole address
        let path = match path.strip_prefix("http://") {
            Some(rest) => &rest[rest.find('/').unwrap_or(rest.len())..],
            None => path,
        };
        let token = lock(&self.token).clone();
        if let Some(token) = token {
            if path == "/token" {
                return give_token(&token, request);
            }
            if request.field("authorization") != Some(&format!("Bearer {}", token.token)) {
                let scope = path
                    .trim_start_matches("/v2/")
                    .split("/manifests/")
                    .next()
                    .unwrap_or_default();
                let challenge = format!(
                    r#"Bearer realm="{}",service="hostile, with a comma",scope="repository:{}:pull""#,
                    token.realm,
                    scope.split("/blobs/").next().unwrap_or_default()
                );
                return Answer::error(401, "UNAUTHORIZED", "authentication required")
                    .field("WWW-Authenticate", &challenge);
            }
        }
        self.content(path, request)
    }

    fn content(&self, path: &str, request: &Request) -> Answer {
        let path = path.trim_start_matches("/v2/");
        if let Some((repository, reference)) = path.split_once("/manifests/") {
            let manifests = lock(&self.manifests);
            return match manifests.get(&format!("{repository}:{reference}")) {
                Some(blob) => Answer::document(&blob.media_type, blob.bytes.to_vec())
                    .field("Docker-Content-Digest", &blob.digest),
                None => Answer::error(404, "MANIFEST_UNKNOWN", "manifest unknown"),
            };
        }
        if let Some((_, digest)) = path.split_once("/blobs/") {
            return match lock(&self.blobs).get(digest) {
                Some(blob) => Answer::document("application/octet-stream", blob.bytes.to_vec())
                    .range(request.field("range")),
                None => Answer::error(404, "BLOB_UNKNOWN", "blob unknown to registry"),
            };
        }
        Answer::status(if path.is_empty() { 200 } else { 404 })
    }
}

fn give_token(token: &Token, request: &Request) -> Answer {
    if token.credentials.is_some() && request.field("authorization") != token.credentials.as_deref()
    {
        return Answer::error(401, "UNAUTHORIZED", "incorrect username or password");
    }
    let body = json!({"token": "not this one", "access_token": token.token, "expires_in": 300});
    Answer::document("application/json", body.to_string())
}

fn send(
    mut stream: &TcpStream,
    answer: &Answer,
    is_head: bool,
    shared: &Shared,
) -> std::io::Result<()> {
    let mut head = format!(
        "HTTP/1.1 {} Whatever\r\nConnection: close\r\n",
        answer.status
    );
    for (name, value) in &answer.fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", answer.body.len()));
    if let Delivery::HeadCutAfter(count) = answer.delivery {
        stream.write_all(&head.as_bytes()[..count.min(head.len())])?;
        return stream.shutdown(Shutdown::Write);
    }
    stream.write_all(head.as_bytes())?;
    if is_head {
        return Ok(());
    }
    let body = &answer.body;
    match answer.delivery {
        Delivery::Whole | Delivery::HeadCutAfter(_) => stream.write_all(body)?,
        Delivery::ResetAfter(count) => {
            stream.write_all(&body[..count.min(body.len())])?;
            // Closing it then throws away what is on its way, and says so.
            let linger = libc::linger {
                l_onoff: 1,
                l_linger: 0,
            };
            setsockopt(&stream, sockopt::Linger, &linger)?;
            return Ok(());
        }
        Delivery::CutAfter(count) => stream.write_all(&body[..count.min(body.len())])?,
        Delivery::StallAfter(count) => {
            stream.write_all(&body[..count.min(body.len())])?;
            wait_for_the_end(stream, shared);
        }
        Delivery::Slowly(pause) => {
            for piece in body.chunks(4096) {
                stream.write_all(piece)?;
                thread::sleep(pause);
            }
        }
    }
    stream.shutdown(Shutdown::Write)
}

/// Waits until the client has gone or the server is to stop.
fn wait_for_the_end(stream: &TcpStream, shared: &Shared) {
    let mut byte = [0];
    let set = stream.set_read_timeout(Some(Duration::from_millis(100)));
    while set.is_ok() && !shared.stopped.load(Ordering::SeqCst) {
        match stream.peek(&mut byte) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}

/// A test that panicked while it held a lock has failed already.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::{Entry, ImageBuilder, Layer};

    #[test]
    fn it_serves_what_it_is_given_and_asks_for_its_token() {
        let image = ImageBuilder::new()
            .layer(&Layer::of([Entry::file("f", "x")]).finish())
            .build();
        let server = HostileRegistry::honest().unwrap();
        server.serve(&image, "a/b", "1");
        let get = |target: &str| Request::new("GET", target).send(server.host()).unwrap();
        assert_eq!(
            get("/v2/a/b/manifests/1").body,
            image.manifest.bytes.to_vec()
        );
        assert_eq!(get("/v2/a/b/manifests/2").status, 404);
        server.ask_for_token(None);
        let refused = get("/v2/a/b/manifests/1");
        assert_eq!(refused.status, 401);
        assert!(
            refused
                .field("www-authenticate")
                .unwrap()
                .contains("scope=\"repository:a/b:pull\"")
        );
        let mut request = Request::new("GET", "/v2/a/b/manifests/1");
        request
            .fields
            .push(("Authorization".into(), "Bearer secret-bearer-token".into()));
        assert_eq!(request.send(server.host()).unwrap().status, 200);
    }
}
