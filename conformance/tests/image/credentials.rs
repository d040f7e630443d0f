//! Where credentials go, and where they must not.
//!
//! Spec: distribution's token specification; RFC 9110 section 11.

use std::collections::HashMap;
use std::fs;
use std::process::Command;

use conformance::command::run_within;
use conformance::hostile::{Answer, base64};
use conformance::http::Request;
use conformance::{HostileRegistry, Output, StoreRoot};

use super::mirrors::conf;
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

/// What whoever does not show the credentials is told.
fn challenge(request: &Request) -> Option<Answer> {
    let is_let_in = request.field("authorization") == Some(basic().as_str());
    let refusal = Answer::error(401, "UNAUTHORIZED", "who?");
    (!is_let_in).then_some(refusal.field("WWW-Authenticate", "Basic realm=\"r\""))
}

/// A registry that sends those who show the credentials to `host` for its blobs.
fn leading_to(host: &str) -> HostileRegistry {
    let host = host.to_owned();
    let led = move |request: &Request| {
        let target = format!("http://{host}{}", request.target);
        is_blob_request(request).then(|| Answer::redirect(&target))
    };
    HostileRegistry::start(move |request| challenge(request).or_else(|| led(request))).unwrap()
}

/// Asserts that a server was asked, and never with the credentials.
#[track_caller]
fn assert_got_no_credentials(server: &HostileRegistry) {
    let requests = server.requests();
    assert!(!requests.is_empty());
    for request in &requests {
        for (name, value) in &request.fields {
            assert!(!value.contains(&base64(USER.as_bytes())), "{name}: {value}");
        }
        let sent = [request.target.as_bytes(), &request.body].concat();
        let sent = String::from_utf8_lossy(&sent);
        assert!(!sent.contains("pass"), "{sent}");
    }
}

/// Asserts that a server was asked, and never with any authorization.
#[track_caller]
fn assert_got_no_authorization(server: &HostileRegistry) {
    assert_got_no_credentials(server);
    for request in server.requests() {
        assert_eq!(request.field("authorization"), None, "{}", request.target);
    }
}

#[test]
fn a_basic_challenge_is_answered_with_the_credentials_of_its_host() {
    let server = HostileRegistry::start(challenge).unwrap();
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
fn auth_files_are_read_in_the_order_of_podman_and_docker() {
    let (server, store) = (
        HostileRegistry::start(|request| {
            let refusal = Answer::error(401, "UNAUTHORIZED", "who?");
            let is_known = request.field("authorization").is_some();
            (!is_known).then_some(refusal.field("WWW-Authenticate", "Basic realm=\"r\""))
        })
        .unwrap(),
        made_store(),
    );
    let reference = server.serve(&small_image("image"), "image", "latest");
    let base = store.beside("files");
    let files = [
        "runtime/containers/auth.json",
        ".config/containers/auth.json",
        ".docker/config.json",
    ];
    for name in files {
        let file = base.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let auth = base64(format!("{name}:secret").as_bytes());
        let auths = serde_json::json!({"auths": {server.host(): {"auth": auth}}});
        fs::write(file, auths.to_string()).unwrap();
    }
    for name in files {
        let mut command: Command = store.command(&["pull", "--quiet", &reference]);
        command.env("HOME", &base);
        command.env("XDG_RUNTIME_DIR", base.join("runtime"));
        run_within(&mut command, std::time::Duration::from_secs(60)).success();
        let shown = format!("Basic {}", base64(format!("{name}:secret").as_bytes()));
        let requests = server.requests();
        let last = requests.last().unwrap().field("authorization");
        assert_eq!(last, Some(shown.as_str()), "{name}");
        fs::remove_file(base.join(name)).unwrap();
    }
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
    let (server, store) = (leading_to(elsewhere.host()), made_store());
    let reference = server.serve(&image, "image", "latest");
    pull_with_credentials(&store, server.host(), &reference).success();
    assert_got_no_authorization(&elsewhere);
}

#[test]
fn a_redirected_host_that_asks_for_credentials_gets_none() {
    let thief = HostileRegistry::start(challenge).unwrap();
    let (server, store) = (leading_to(thief.host()), made_store());
    let reference = server.serve(&small_image("image"), "image", "latest");
    pull_with_credentials(&store, server.host(), &reference).one_line_failure();
    assert_got_no_authorization(&thief);
}

#[test]
fn a_realm_that_leads_elsewhere_is_not_followed() {
    let thief = HostileRegistry::honest().unwrap();
    for status in [301, 302, 307, 308] {
        let target = format!("http://{}/token", thief.host());
        let server = HostileRegistry::start(move |request| {
            let is_token = request.target.starts_with("/token");
            is_token.then(|| Answer::status(status).field("Location", &target))
        })
        .unwrap();
        server.ask_for_token(Some(USER));
        let reference = server.serve(&small_image("image"), "image", "latest");
        let output = pull_with_credentials(&made_store(), server.host(), &reference);
        let line = output.one_line_failure();
        assert!(line.contains(&status.to_string()), "{line}");
    }
    assert_eq!(thief.requests().len(), 0);
}

#[test]
fn a_mirrors_realm_gets_no_credentials_of_the_registrys() {
    let [mirror, registry] = [(); 2].map(|()| HostileRegistry::honest().unwrap());
    let image = small_image("image");
    mirror.serve(&image, "image", "latest");
    mirror.ask_for_token(None);
    let (reference, store) = (registry.serve(&image, "image", "latest"), made_store());
    let file = store.beside("registries.conf");
    fs::write(&file, conf(registry.host(), &[(mirror.host(), "")])).unwrap();
    let settings = ["--registries-conf", file.to_str().unwrap()];
    let args = [&settings[..], &["pull", "--quiet", &reference]].concat();
    run_with_credentials(&store, &[registry.host()], &args).success();
    let asked = mirror.requests();
    let mut tokens = asked.iter().filter(|it| it.target.starts_with("/token"));
    assert!(tokens.next().is_some(), "it gave a token: {asked:?}");
    assert_got_no_credentials(&mirror);
    assert_eq!(registry.requests().len(), 0, "the mirror had all");
}

#[test]
fn an_upload_that_goes_on_elsewhere_takes_no_credentials_there() {
    let store = made_store();
    let from = HostileRegistry::honest().unwrap();
    let reference = from.serve(&small_image("image"), "image", "latest");
    store
        .run(&["pull", "--keep-blobs", "--quiet", &reference])
        .success();
    for (status, is_good) in [(201, true), (401, false)] {
        let elsewhere = HostileRegistry::start(move |request| {
            let taken = (status == 201).then(|| Answer::status(status));
            taken.or_else(|| challenge(request))
        })
        .unwrap();
        let location = format!("http://{}/upload", elsewhere.host());
        let taken = move |request: &Request| match request.method.as_str() {
            "POST" => Some(Answer::status(202).field("Location", &location)),
            "PUT" => Some(Answer::status(201)),
            _ => None,
        };
        let to =
            HostileRegistry::start(move |request| challenge(request).or_else(|| taken(request)));
        let to = to.unwrap();
        let destination = format!("{}/copy:1", to.host());
        let args = ["push", "--quiet", &reference, &destination];
        let output = run_with_credentials(&store, &[to.host()], &args);
        assert_eq!(output.code() == 0, is_good, "{output}");
        assert_got_no_authorization(&elsewhere);
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
