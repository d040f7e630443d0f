//! Where credentials go, and where they must not.
//!
//! Spec: distribution's token specification; RFC 9110 section 11.

use std::collections::HashMap;
use std::fs;
use std::process::Command;

use conformance::command::run_within;
use conformance::hostile::{Answer, base64};
use conformance::{HostileRegistry, Output, StoreRoot};

use super::{is_blob_request, made_store, small_image};

pub(super) const USER: &str = "user:pass word";

/// `pull` with credentials for a host.
fn pull_with_credentials(store: &StoreRoot, host: &str, reference: &str) -> Output {
    run_with_credentials(store, &[host], &["pull", "--quiet", reference])
}

/// A command with credentials for hosts, in a file as `podman login` writes it.
pub(super) fn run_with_credentials(store: &StoreRoot, hosts: &[&str], args: &[&str]) -> Output {
    let file = store.beside("auth.json");
    let auth = serde_json::json!({"auth": base64(USER.as_bytes())});
    let auths: HashMap<_, _> = hosts.iter().map(|host| (host, &auth)).collect();
    let auths = serde_json::json!({"auths": auths});
    fs::write(&file, auths.to_string()).unwrap();
    let mut command: Command = store.command(args);
    run_within(
        command.env("REGISTRY_AUTH_FILE", file),
        std::time::Duration::from_secs(60),
    )
}

fn basic() -> String {
    format!("Basic {}", base64(USER.as_bytes()))
}

#[test]
fn a_basic_challenge_is_answered_with_the_credentials_of_its_host() {
    let server = HostileRegistry::start(|request| {
        let let_in = request.field("authorization") == Some(basic().as_str());
        (!let_in).then(|| {
            Answer::error(401, "UNAUTHORIZED", "who?")
                .field("WWW-Authenticate", "Basic realm=\"r\"")
        })
    })
    .unwrap();
    let store = made_store();
    let reference = server.serve(&small_image("image"), "image", "latest");
    pull_with_credentials(&store, server.host(), &reference).success();
    assert_eq!(
        server.requests()[0].field("authorization"),
        None,
        "not before it is asked for"
    );
}

#[test]
fn a_token_is_fetched_with_the_credentials_of_its_registry() {
    let (server, store) = (HostileRegistry::honest().unwrap(), made_store());
    server.ask_for_token(Some(USER));
    let reference = server.serve(&small_image("image"), "image", "latest");
    pull_with_credentials(&store, server.host(), &reference).success();
}

#[test]
fn credentials_of_another_host_are_not_sent() {
    let (server, store) = (HostileRegistry::honest().unwrap(), made_store());
    server.ask_for_token(Some(USER));
    let reference = server.serve(&small_image("image"), "image", "latest");
    pull_with_credentials(&store, "registry.example", &reference).one_line_failure();
    let sent = server
        .requests()
        .into_iter()
        .filter(|request| request.field("authorization").is_some());
    assert_eq!(sent.count(), 0);
}

#[test]
fn a_redirect_to_another_host_gets_no_credentials() {
    let elsewhere = HostileRegistry::honest().unwrap();
    let image = small_image("image");
    elsewhere.serve(&image, "image", "latest");
    let host = elsewhere.host().to_owned();
    let server = HostileRegistry::start(move |request| {
        if request.field("authorization") != Some(basic().as_str()) {
            let challenge = Answer::error(401, "UNAUTHORIZED", "who?");
            return Some(challenge.field("WWW-Authenticate", "Basic realm=\"r\""));
        }
        is_blob_request(request)
            .then(|| Answer::redirect(&format!("http://{host}{}", request.target)))
    })
    .unwrap();
    let store = made_store();
    pull_with_credentials(
        &store,
        server.host(),
        &server.serve(&image, "image", "latest"),
    )
    .success();
    let requests = elsewhere.requests();
    assert!(!requests.is_empty());
    for request in &requests {
        for (name, value) in &request.fields {
            assert!(!value.contains(&base64(USER.as_bytes())), "{name}: {value}");
            assert!(
                !name.eq_ignore_ascii_case("authorization"),
                "{name}: {value}"
            );
        }
    }
}

#[test]
fn a_redirected_host_that_asks_for_credentials_gets_none() {
    let thief = HostileRegistry::start(|_| {
        Some(
            Answer::error(401, "UNAUTHORIZED", "give")
                .field("WWW-Authenticate", "Basic realm=\"give\""),
        )
    })
    .unwrap();
    let host = thief.host().to_owned();
    let server = HostileRegistry::start(move |request| {
        if request.field("authorization").is_none() {
            let challenge = Answer::error(401, "UNAUTHORIZED", "who?");
            return Some(challenge.field("WWW-Authenticate", "Basic realm=\"r\""));
        }
        is_blob_request(request)
            .then(|| Answer::redirect(&format!("http://{host}{}", request.target)))
    })
    .unwrap();
    let store = made_store();
    let reference = server.serve(&small_image("image"), "image", "latest");
    pull_with_credentials(&store, server.host(), &reference).one_line_failure();
    assert!(!thief.requests().is_empty());
    for request in thief.requests() {
        assert_eq!(request.field("authorization"), None);
    }
}

#[test]
fn a_realm_on_another_scheme_or_with_a_user_in_it_is_not_asked() {
    let store = made_store();
    for realm in [
        "ftp://127.0.0.1/token",
        "http://user:password@127.0.0.1:1/token",
        "not an address",
        "",
    ] {
        let server = HostileRegistry::honest().unwrap();
        server.ask_for_token_of(realm, None);
        let reference = server.serve(&small_image("image"), "image", "latest");
        pull_with_credentials(&store, server.host(), &reference).one_line_failure();
        let sent = server
            .requests()
            .into_iter()
            .filter(|request| request.field("authorization").is_some());
        assert_eq!(sent.count(), 0, "{realm}");
    }
}

#[test]
fn credentials_are_in_no_message() {
    let server = HostileRegistry::start(|_| {
        Some(
            Answer::error(401, "UNAUTHORIZED", "no").field("WWW-Authenticate", "Basic realm=\"r\""),
        )
    })
    .unwrap();
    let store = made_store();
    let output = pull_with_credentials(
        &store,
        server.host(),
        &format!("{}/image:latest", server.host()),
    );
    let line = output.one_line_failure();
    assert!(line.contains("401"), "{line}");
    for secret in ["pass word", &base64(USER.as_bytes())] {
        assert!(
            !output.stderr.contains(secret) && !output.stdout.contains(secret),
            "{output}"
        );
    }
}

#[test]
fn a_credentials_file_that_cannot_be_read_is_an_error_not_an_anonymous_pull() {
    let (server, store) = (HostileRegistry::honest().unwrap(), made_store());
    server.ask_for_token(None);
    let reference = server.serve(&small_image("image"), "image", "latest");
    let file = store.beside("broken.json");
    fs::write(&file, "{ this is no JSON").unwrap();
    let mut command = store.command(&["pull", "--quiet", &reference]);
    command.env("REGISTRY_AUTH_FILE", &file);
    let output = run_within(&mut command, std::time::Duration::from_secs(60));
    assert!(output.failure().contains("broken.json"), "{output}");
}

/// Some servers of tokens know no POST, and say so in one of several ways.
#[test]
fn where_no_token_is_had_by_post_one_is_asked_for_by_get() {
    for status in [401, 404, 405] {
        let server = HostileRegistry::start(move |request| {
            let is_post = request.method == "POST" && request.target.starts_with("/token");
            is_post.then(|| Answer::status(status))
        })
        .unwrap();
        server.ask_for_token(Some(USER));
        let store = made_store();
        let reference = server.serve(&small_image("image"), "image", "latest");
        pull_with_credentials(&store, server.host(), &reference).success();
        let asked = server.requests().into_iter();
        let asked = asked.filter(|request| request.target.starts_with("/token"));
        let methods: Vec<_> = asked.map(|request| request.method).collect();
        assert_eq!(methods, ["POST", "GET"], "{status}");
    }
}

#[test]
fn every_field_with_challenges_is_read() {
    let server = HostileRegistry::start(|request| {
        let is_let_in = request.field("authorization") == Some("Bearer secret-bearer-token");
        let is_token = request.target.starts_with("/token");
        let host = request.field("host").unwrap_or_default();
        (!is_let_in && !is_token).then(|| {
            Answer::error(401, "UNAUTHORIZED", "who?")
                .field("WWW-Authenticate", "Negotiate")
                .field("WWW-Authenticate", "Basic realm=\"a, b\"")
                .field(
                    "WWW-Authenticate",
                    &format!("Bearer service=\"x, y\", realm=\"http://{host}/token\""),
                )
        })
    })
    .unwrap();
    server.ask_for_token(None);
    let store = made_store();
    let reference = server.serve(&small_image("image"), "image", "latest");
    store.run(&["pull", "--quiet", &reference]).success();
    let requests = server.requests();
    let token = requests
        .iter()
        .find(|request| request.target.starts_with("/token"));
    let target = &token.unwrap().target;
    assert!(target.contains("service=x%2C+y"), "{target}");
}
