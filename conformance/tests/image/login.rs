//! `login` and `logout`, the files and helpers that keep credentials, and identity tokens.
//!
//! Spec: containers-auth.json(5), docker-credential-helpers, distribution's oauth2 specification

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use conformance::command::{process_id, run_within, spawn_on};
use conformance::hostile::{Answer, base64};
use conformance::{HostileRegistry, Output, Registry, StoreRoot, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use serde_json::{Value, json};

use super::{made_store, small_image};

/// `pass word` as docker-registry keeps it.
const HASH: &str = "user:$2b$04$oZnS48tYiFrGFnPNKdbMH.aknzGe8hfidt8B4duFnAg0MJop9Tdzm\n";

/// A registry with one image, and the same one behind users and passwords.
fn closed(store: &StoreRoot) -> (Registry, Registry) {
    let plain = Registry::start().unwrap();
    plain
        .push(&small_image("image"), "team/image", "latest")
        .unwrap();
    let users = store.beside("users");
    fs::write(&users, HASH).unwrap();
    let settings = json!({"auth": {"htpasswd": {"realm": "r", "path": users}}});
    let closed = plain.beside(settings).unwrap();
    (plain, closed)
}

fn auth_file(store: &StoreRoot) -> PathBuf {
    store.beside("auth.json")
}

/// Runs `gocker-image` with an auth file of its own, and this on standard input.
#[track_caller]
fn run(store: &StoreRoot, args: &[&str], input: &str) -> Output {
    let mut command: Command = store.command(args);
    let file = store.beside("input");
    fs::write(&file, input).unwrap();
    command
        .env("REGISTRY_AUTH_FILE", auth_file(store))
        .env(
            "PATH",
            format!("{}:/usr/bin:/bin", store.beside("bin").display()),
        )
        .stdin(Stdio::from(fs::File::open(file).unwrap()));
    run_within(&mut command, Duration::from_secs(60))
}

fn login(store: &StoreRoot, registry: &str, password: &str) -> Output {
    let args = ["login", "--username", "user", "--password-stdin", registry];
    run(store, &args, password)
}

fn kept(store: &StoreRoot) -> Value {
    serde_json::from_slice(&fs::read(auth_file(store)).unwrap()).unwrap()
}

#[test]
fn a_good_password_is_kept_and_used_until_logout() {
    let store = made_store();
    let (_plain, registry) = closed(&store);
    let reference = registry.reference("team/image");
    fs::write(auth_file(&store), r#"{"auths":{},"HttpHeaders":{"x":"y"}}"#).unwrap();
    let refused = run(&store, &["pull", "--quiet", &reference], "");
    assert!(refused.one_line_failure().contains("401"), "{refused}");
    login(&store, registry.host(), "pass word\n").success();
    let entry = json!({"auth": base64(b"user:pass word")});
    assert_eq!(kept(&store)["auths"][registry.host()], entry);
    assert_eq!(
        kept(&store)["HttpHeaders"]["x"],
        "y",
        "what others keep stays"
    );
    let mode = fs::metadata(auth_file(&store))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    run(&store, &["pull", "--quiet", &reference], "").success();
    run(&store, &["logout", registry.host()], "").success();
    assert_eq!(kept(&store)["auths"], json!({}));
    let again = run(&store, &["logout", registry.host()], "");
    assert!(
        again.one_line_failure().contains("no credentials"),
        "{again}"
    );
}

#[test]
fn a_wrong_password_is_not_kept() {
    let store = made_store();
    let (_plain, registry) = closed(&store);
    let output = login(&store, registry.host(), "wrong");
    assert!(output.one_line_failure().contains("401"), "{output}");
    assert!(!auth_file(&store).exists());
    for text in [&output.stderr, &output.stdout] {
        assert!(!text.contains("wrong"), "{output}");
    }
}

#[test]
fn a_login_needs_a_registry_a_user_and_a_password() {
    let store = made_store();
    let cases: [(&[&str], &str); 5] = [
        (&["login", "--password-stdin", "a.example"], "--username"),
        (&["login", "-u", "user", "a.example"], "--password-stdin"),
        (
            &[
                "login",
                "-u",
                "user",
                "--password-stdin",
                "https://a.example",
            ],
            "not a registry",
        ),
        (
            &["login", "-u", "user", "--password-stdin", "a.example"],
            "empty",
        ),
        (
            &["login", "-u", "a:b", "--password-stdin", "a.example"],
            "a:b",
        ),
    ];
    for (args, words) in cases {
        let output = run(&store, args, "");
        assert!(output.one_line_failure().contains(words), "{output}");
    }
}

#[test]
fn a_repository_has_credentials_of_its_own() {
    let store = made_store();
    let (_plain, registry) = closed(&store);
    login(&store, &format!("{}/team", registry.host()), "pass word").success();
    run(
        &store,
        &["pull", "--quiet", &registry.reference("team/image")],
        "",
    )
    .success();
    let other = run(&store, &["tags", &registry.reference("other/image")], "");
    assert!(other.one_line_failure().contains("401"), "{other}");
}

#[test]
fn credentials_can_be_given_for_one_command() {
    let store = made_store();
    let (_plain, registry) = closed(&store);
    let name = registry.reference("team/image");
    let file = auth_file(&store);
    fs::write(&file, "{}").unwrap();
    run(
        &store,
        &["pull", "--quiet", "--creds", "user:pass word", &name],
        "",
    )
    .success();
    run(&store, &["tags", "--creds", "user:pass word", &name], "").success();
    assert_eq!(fs::read_to_string(&file).unwrap(), "{}");
    for (creds, words) in [("user", "--creds user:PASSWORD"), (":x", "name is missing")] {
        let refused = run(&store, &["tags", "--creds", creds, &name], "");
        assert!(refused.one_line_failure().contains(words), "{refused}");
    }
}

/// Starts `login` on a terminal of its own, and waits until it asks for the password.
fn login_on_terminal(store: &StoreRoot, registry: &str) -> (Child, fs::File, OwnedFd) {
    let pty = nix::pty::openpty(None, None).unwrap();
    let mut command = store.command(&["login", "--username", "user", registry]);
    command.env("REGISTRY_AUTH_FILE", auth_file(store));
    let child = spawn_on(pty.slave.as_fd(), &mut command);
    let mut master = fs::File::from(pty.master);
    let mut shown = Vec::new();
    while !shown.ends_with(b"password: ") {
        let mut byte = [0];
        master.read_exact(&mut byte).unwrap();
        shown.push(byte[0]);
    }
    // the prompt comes before the echo goes
    let is_hidden = || {
        let terminal = tcgetattr(&pty.slave).unwrap();
        !terminal.local_flags.contains(LocalFlags::ECHO)
    };
    assert!(wait_until(Duration::from_secs(10), is_hidden));
    (child, master, pty.slave)
}

#[test]
fn a_password_is_asked_for_and_not_shown() {
    let store = made_store();
    let (_plain, registry) = closed(&store);
    let (mut child, mut master, slave) = login_on_terminal(&store, registry.host());
    master.write_all(b"pass word\n").unwrap();
    assert!(child.wait().unwrap().success());
    let terminal = tcgetattr(&slave).unwrap();
    assert!(
        terminal.local_flags.contains(LocalFlags::ECHO),
        "the echo is back"
    );
    drop(slave);
    let mut shown = Vec::new();
    // a terminal whose other end is closed ends with an error
    drop(master.read_to_end(&mut shown));
    let shown = String::from_utf8_lossy(&shown);
    assert!(
        shown.contains("logged in") && !shown.contains("pass word"),
        "{shown}"
    );
}

#[test]
fn who_gives_up_at_the_password_gets_the_echo_back() {
    let store = made_store();
    let (mut child, _master, slave) = login_on_terminal(&store, "127.0.0.1:1");
    kill(process_id(child.id()), Signal::SIGINT).unwrap();
    assert!(child.wait().unwrap().code().is_none(), "ends by the signal");
    let terminal = tcgetattr(&slave).unwrap();
    assert!(terminal.local_flags.contains(LocalFlags::ECHO));
}

/// A helper of that name, which keeps what it is given in a file beside the store.
fn helper(store: &StoreRoot, name: &str, script: &str) {
    let dir = store.beside("bin");
    fs::create_dir_all(&dir).unwrap();
    let file = dir.join(format!("docker-credential-{name}"));
    fs::write(
        &file,
        format!("#!/bin/sh\nkept={}\n{script}", dir.join("kept").display()),
    )
    .unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
}

const KEEPER: &str = r#"
case $1 in
store) cat >"$kept" ;;
get) cat >/dev/null; [ -e "$kept" ] && cat "$kept" || { echo "credentials not found in native keychain"; exit 1; } ;;
erase) cat >/dev/null; rm "$kept" ;;
esac
"#;

#[test]
fn a_helper_keeps_the_secret_instead_of_the_file() {
    for key in ["credsStore", "credHelpers"] {
        let store = made_store();
        let (_plain, registry) = closed(&store);
        helper(&store, "test", KEEPER);
        let value = if key == "credsStore" {
            json!("test")
        } else {
            json!({registry.host(): "test"})
        };
        fs::write(auth_file(&store), json!({key: value}).to_string()).unwrap();
        login(&store, registry.host(), "pass word").success();
        let text = fs::read_to_string(auth_file(&store)).unwrap();
        assert!(!text.contains("\"auth\""), "{text}");
        run(
            &store,
            &["pull", "--quiet", &registry.reference("team/image")],
            "",
        )
        .success();
        run(&store, &["logout", registry.host()], "").success();
        assert!(!store.beside("bin/kept").exists());
    }
}

#[test]
fn a_helper_that_fails_stops_the_pull() {
    let store = made_store();
    let (server, scripts) = (
        HostileRegistry::honest().unwrap(),
        [
            "exit 3",
            "echo locked; exit 1",
            "echo no json",
            "kill -9 $$",
        ],
    );
    server.ask_for_token(None);
    let reference = server.serve(&small_image("image"), "image", "latest");
    fs::write(auth_file(&store), r#"{"credsStore":"bad"}"#).unwrap();
    for script in scripts {
        helper(&store, "bad", &format!("cat >/dev/null; {script}"));
        let output = run(&store, &["pull", "--quiet", &reference], "");
        let line = output.one_line_failure();
        assert!(line.contains("credential helper \"bad\""), "{line}");
    }
    let tokens = server.requests().into_iter();
    assert_eq!(
        tokens
            .filter(|request| request.target.starts_with("/token"))
            .count(),
        0
    );
}

/// A server whose tokens are had by POST only, for this form; or by GET for none at all.
fn by_post(form: &'static str) -> HostileRegistry {
    let server = HostileRegistry::start(move |request| {
        if !request.target.starts_with("/token") {
            return None;
        }
        let body = String::from_utf8_lossy(&request.body).into_owned();
        if request.method != "POST" || !form.split('&').all(|pair| body.contains(pair)) {
            return Some(Answer::error(401, "UNAUTHORIZED", "not so"));
        }
        let token = json!({"access_token": "secret-bearer-token", "expires_in": 300});
        Some(Answer::document("application/json", token.to_string()))
    })
    .unwrap();
    server.ask_for_token(None);
    server.serve(&small_image("image"), "image", "latest");
    server
}

#[test]
fn identity_tokens_and_passwords_are_changed_for_tokens_by_post() {
    let cases = [
        (
            json!({"identitytoken": "refresh"}),
            "grant_type=refresh_token&refresh_token=refresh",
        ),
        (
            json!({"auth": base64(b"user:pass word")}),
            "grant_type=password&username=user&password=pass+word",
        ),
    ];
    for (entry, form) in cases {
        let (server, store) = (by_post(form), made_store());
        let auths = json!({"auths": {server.host(): entry}});
        fs::write(auth_file(&store), auths.to_string()).unwrap();
        let reference = format!("{}/image", server.host());
        run(&store, &["pull", "--quiet", &reference], "").success();
        let requests = server.requests();
        let asked = requests
            .iter()
            .find(|request| request.method == "POST")
            .unwrap();
        let body = String::from_utf8_lossy(&asked.body);
        assert!(body.contains("scope=repository%3Aimage%3Apull"), "{body}");
        assert!(body.contains("client_id="), "{body}");
    }
}

#[test]
fn a_login_by_token_verifies_the_password() {
    let (server, store) = (HostileRegistry::honest().unwrap(), made_store());
    server.ask_for_token(Some("user:pass word"));
    login(&store, server.host(), "pass word").success();
    fs::remove_file(auth_file(&store)).unwrap();
    let output = login(&store, server.host(), "other");
    assert!(output.one_line_failure().contains("token"), "{output}");
    assert!(!auth_file(&store).exists());
}

#[test]
fn logout_from_all_forgets_all() {
    let store = made_store();
    let auths = json!({"auths": {"a.example": {"auth": "dTpw"}, "b.example/x": {"auth": "dTpw"}}});
    fs::write(auth_file(&store), auths.to_string()).unwrap();
    run(&store, &["logout", "b.example"], "").one_line_failure();
    run(&store, &["logout", "--all"], "").success();
    assert_eq!(kept(&store)["auths"], json!({}));
}
