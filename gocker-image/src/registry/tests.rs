//! The client against a registry of a few lines, which answers each request by
//! a function.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use super::{AuthFiles, Client, ClientConfig, RegistryError, SettingsPaths};
use crate::digest::Digest;
use crate::image::{Descriptor, media_type};
use crate::reference::Reference;

/// The head of a request, one line each, in lower case.
type Head = Vec<String>;

struct FakeRegistry {
    address: String,
    heads: Arc<Mutex<Vec<Head>>>,
}

impl FakeRegistry {
    /// Answers each request by `answer`, which gets its number from 0 on, its
    /// head, and this registry's address, and gives the raw answer.
    fn start(answer: impl Fn(usize, &Head, &str) -> Vec<u8> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (log, own) = (Arc::clone(&heads), address.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(&stream).lines();
                let head: Head = lines
                    .by_ref()
                    .map_while(Result::ok)
                    .take_while(|line| !line.is_empty())
                    .map(|line| line.to_ascii_lowercase())
                    .collect();
                let number = log.lock().unwrap().len();
                log.lock().unwrap().push(head.clone());
                // the client may have gone, as some tests want it to
                drop(stream.write_all(&answer(number, &head, &own)));
            }
        });
        Self { address, heads }
    }

    fn reference(&self) -> Reference {
        format!("{}/a/b:1", self.address).parse().unwrap()
    }

    fn heads(&self) -> Vec<Head> {
        self.heads.lock().unwrap().clone()
    }
}

fn client() -> Client {
    let auth_files = AuthFiles::default();
    Client::new(ClientConfig {
        auth_files,
        settings: SettingsPaths::default(),
        ..ClientConfig::default()
    })
    .unwrap()
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn is_sent(head: &Head, text: &str) -> bool {
    head.iter().any(|line| line.contains(text))
}

fn layer(content: &[u8]) -> Descriptor {
    Descriptor::new(
        "application/octet-stream",
        Digest::of(content),
        content.len() as u64,
    )
}

const EMPTY_INDEX: &str = r#"{"schemaVersion":2,"manifests":[]}"#;

#[test]
fn a_token_is_fetched_once_and_sent_to_the_registry_only() {
    let registry = FakeRegistry::start(|_, head, own| {
        if is_sent(head, "get /token?service=s&scope=repository%3aa%2fb%3apull") {
            return answer("200 OK", "", br#"{"token":"secret"}"#);
        }
        if !is_sent(head, "authorization: bearer secret") {
            let challenge = format!(
                "WWW-Authenticate: Bearer realm=\"http://{own}/token\",service=\"s\",scope=\"repository:a/b:pull\"\r\n"
            );
            return answer("401 Unauthorized", &challenge, b"");
        }
        let content_type = format!("Content-Type: {}\r\n", media_type::OCI_INDEX);
        answer("200 OK", &content_type, EMPTY_INDEX.as_bytes())
    });
    let client = client();
    for _ in 0..2 {
        let fetched = client.resolve(&registry.reference()).unwrap();
        assert_eq!(fetched.digest, Digest::of(EMPTY_INDEX.as_bytes()));
    }
    let paths: Vec<_> = registry.heads().iter().map(|head| head[0].len()).collect();
    assert_eq!(paths.len(), 4, "401, token, and two manifests");
}

#[test]
fn redirects_carry_no_authorization() {
    let other = FakeRegistry::start(|_, _, _| answer("200 OK", "", b"content"));
    let target = other.address.clone();
    let registry = FakeRegistry::start(move |_, head, own| {
        if is_sent(head, "get /token") {
            return answer("200 OK", "", br#"{"token":"secret"}"#);
        }
        if !is_sent(head, "authorization") {
            let challenge = format!("WWW-Authenticate: Bearer realm=\"http://{own}/token\"\r\n");
            return answer("401 Unauthorized", &challenge, b"");
        }
        answer(
            "307 Temporary Redirect",
            &format!("Location: http://{target}/x?sig=1\r\n"),
            b"",
        )
    });
    let reference = registry.reference();
    let bytes = client()
        .blob_bytes(&reference, &layer(b"content"), 100)
        .unwrap();
    assert_eq!(bytes, b"content");
    let heads = other.heads();
    assert_eq!(heads.len(), 1);
    assert!(!is_sent(&heads[0], "authorization"));
    assert!(is_sent(&heads[0], "accept-encoding: identity"));
}

#[test]
fn a_broken_blob_goes_on_where_it_stopped() {
    let content: Vec<u8> = (0..200_000_u32)
        .map(|number| number.to_le_bytes()[0])
        .collect();
    for serves_ranges in [true, false] {
        let whole = content.clone();
        let registry = FakeRegistry::start(move |number, head, _| {
            let range = head
                .iter()
                .find_map(|line| line.strip_prefix("range: bytes="));
            let from: usize = range.map_or(0, |range| range.trim_end_matches('-').parse().unwrap());
            let (status, headers, body) = if serves_ranges && from > 0 {
                let range = format!(
                    "Content-Range: bytes {from}-{}/{}\r\n",
                    whole.len() - 1,
                    whole.len()
                );
                ("206 Partial Content", range, &whole[from..])
            } else {
                ("200 OK", String::new(), &whole[..])
            };
            let mut raw = answer(status, &headers, body);
            if number < 3 {
                raw.truncate(raw.len() - body.len() / 2);
            }
            raw
        });
        let descriptor = layer(&content);
        let mut reader = client().blob(&registry.reference(), &descriptor).unwrap();
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        assert!(read == content, "ranges: {serves_ranges}");
        let heads = registry.heads();
        assert!(is_sent(&heads[1], "range: bytes="), "asked for the rest");
    }
}

#[test]
fn a_range_that_was_not_asked_for_is_no_part_of_a_blob() {
    let content = b"0123456789".repeat(1000);
    let whole = content.clone();
    let registry = FakeRegistry::start(move |number, head, _| {
        if is_sent(head, "range: bytes=") {
            let range = format!("Content-Range: bytes 0-{}/{0}\r\n", whole.len());
            return answer("206 Partial Content", &range, &whole);
        }
        let mut raw = answer("200 OK", "", &whole);
        if number == 0 {
            raw.truncate(raw.len() - whole.len() / 2);
        }
        raw
    });
    let bytes = client().blob_bytes(&registry.reference(), &layer(&content), 1 << 20);
    assert!(bytes.unwrap() == content);
    let ranges = registry.heads().into_iter();
    let ranges: Vec<bool> = ranges.map(|head| is_sent(&head, "range: ")).collect();
    assert_eq!(ranges, [false, true, false], "then all is asked for");
}

#[test]
fn what_is_not_the_blob_is_an_error() {
    let cases: [(&str, &[u8], &str); 4] = [
        ("Content-Length: 7\r\n", b"contend", "digest"),
        (
            "Content-Length: 9\r\n",
            b"content!!",
            "announces 9 bytes instead of 7",
        ),
        (
            "Transfer-Encoding: chunked\r\n",
            b"4\r\ncont\r\n0\r\n\r\n",
            "ended after 4 of 7 bytes",
        ),
        (
            "Transfer-Encoding: chunked\r\n",
            b"8\r\ncontent!\r\n0\r\n\r\n",
            "longer than its 7 bytes",
        ),
    ];
    for (headers, body, expected) in cases {
        let registry = FakeRegistry::start(move |_, _, _| {
            let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{headers}\r\n");
            [head.as_bytes(), body].concat()
        });
        let error = client()
            .blob_bytes(&registry.reference(), &layer(b"content"), 100)
            .unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn overload_is_waited_out_and_failure_is_told() {
    let registry = FakeRegistry::start(|number, _, _| match number {
        0 => answer("429 Too Many Requests", "Retry-After: 0\r\n", b""),
        1 => answer("503 Service Unavailable", "", b""),
        _ => {
            let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
            answer("404 Not Found", "", body)
        }
    });
    let error = client().resolve(&registry.reference()).unwrap_err();
    let expected = "GET /v2/a/b/manifests/1: MANIFEST_UNKNOWN: manifest unknown (404)";
    assert_eq!(error.to_string(), expected);
    assert_eq!(registry.heads().len(), 3);
}

#[test]
fn documents_have_a_limit_and_their_own_digest() {
    let registry = FakeRegistry::start(|_, _, _| {
        let content_type = format!("Content-Type: {}\r\n", media_type::OCI_INDEX);
        answer("200 OK", &content_type, &vec![b' '; 5 << 20])
    });
    let error = client().resolve(&registry.reference()).unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { .. }), "{error}");

    let registry = FakeRegistry::start(|_, _, _| {
        let content_type = format!("Content-Type: {}\r\n", media_type::OCI_INDEX);
        answer("200 OK", &content_type, EMPTY_INDEX.as_bytes())
    });
    let pinned = registry
        .reference()
        .with_digest(Digest::of(b"something else"));
    let error = client().resolve(&pinned).unwrap_err();
    assert!(matches!(error, RegistryError::Digest { .. }), "{error}");
    let right = Digest::of(EMPTY_INDEX.as_bytes());
    let size = EMPTY_INDEX.len() as u64;
    let descriptor = Descriptor::new(media_type::DOCKER_LIST, right, size);
    let error = client()
        .manifest(&registry.reference(), &descriptor)
        .unwrap_err();
    assert!(matches!(error, RegistryError::MediaType { .. }), "{error}");
}
