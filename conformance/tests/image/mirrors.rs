//! `registries.conf` and `hosts.toml`: mirrors, other locations, short names.
//!
//! Spec: containers-registries.conf(5), containerd's docs/hosts.md

use std::fs;
use std::net::TcpListener;

use conformance::hostile::{Answer, base64};
use conformance::http::Request;
use conformance::{HostileRegistry, Output, StoreRoot};

use super::{made_store, small_image};

/// A registry that serves one image as `team/image:latest`.
fn serving() -> HostileRegistry {
    let server = HostileRegistry::honest().unwrap();
    server.serve(&small_image("image"), "team/image", "latest");
    server
}

/// `registries.conf` for the host `name` with these mirrors, each with a line of its own.
pub(super) fn conf(name: &str, mirrors: &[(&str, &str)]) -> String {
    let mut text = format!("[[registry]]\nlocation = \"{name}\"\n");
    for (host, line) in mirrors {
        text.push_str(&format!(
            "[[registry.mirror]]\nlocation = \"{host}\"\n{line}\n"
        ));
    }
    text
}

/// Runs `gocker-image` with a registries.conf of this content.
#[track_caller]
fn run_with(store: &StoreRoot, conf: &str, args: &[&str]) -> Output {
    let file = store.beside("registries.conf");
    fs::write(&file, conf).unwrap();
    let file = file.to_str().unwrap();
    store.run(&[&["--registries-conf", file], args].concat())
}

fn targets(server: &HostileRegistry, part: &str) -> Vec<Request> {
    let mut requests = server.requests();
    requests.retain(|request| request.target.contains(part));
    requests
}

#[test]
fn a_mirror_that_has_the_image_is_asked_alone() {
    let (mirror, registry, store) = (serving(), serving(), made_store());
    let conf = conf(registry.host(), &[(mirror.host(), "")]);
    let reference = format!("{}/team/image", registry.host());
    run_with(&store, &conf, &["pull", &reference]).success();
    assert_eq!(registry.requests().len(), 0);
    assert!(
        store
            .run(&["ls", "--quiet"])
            .success()
            .contains(registry.host())
    );
}

#[test]
fn what_a_mirror_lacks_comes_from_the_registry() {
    let (mirror, registry) = (HostileRegistry::honest().unwrap(), serving());
    let store = made_store();
    let conf = conf(registry.host(), &[(mirror.host(), "")]);
    let reference = format!("{}/team/image", registry.host());
    run_with(&store, &conf, &["pull", &reference]).success();
    assert!(!mirror.requests().is_empty() && !registry.requests().is_empty());
}

#[test]
fn a_mirror_that_fails_is_asked_once() {
    let mirror = HostileRegistry::start(|_| Some(Answer::status(503))).unwrap();
    let (registry, store) = (serving(), made_store());
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = closed.local_addr().unwrap().to_string();
    drop(closed);
    let conf = conf(registry.host(), &[(&nobody, ""), (mirror.host(), "")]);
    let reference = format!("{}/team/image", registry.host());
    run_with(&store, &conf, &["pull", &reference]).success();
    assert_eq!(mirror.requests().len(), 1, "{:?}", mirror.requests());
}

#[test]
fn when_all_fail_one_line_names_each() {
    let mirror = HostileRegistry::start(|_| Some(Answer::status(502))).unwrap();
    let registry = HostileRegistry::honest().unwrap();
    let conf = conf(registry.host(), &[(mirror.host(), "")]);
    let reference = format!("{}/team/image", registry.host());
    let output = run_with(&made_store(), &conf, &["pull", "--quiet", &reference]);
    let line = output.one_line_failure();
    assert!(
        line.contains("MANIFEST_UNKNOWN") && line.contains(mirror.host()),
        "{line}"
    );
    assert!(line.contains("bad gateway (502)"), "{line}");
}

#[test]
fn a_mirror_for_digests_resolves_no_tag() {
    for line in ["pull-from-mirror = \"digest-only\"", ""] {
        let (mirror, registry, store) = (serving(), serving(), made_store());
        let mut conf = conf(registry.host(), &[(mirror.host(), line)]);
        if line.is_empty() {
            conf = conf.replacen(
                "[[registry]]",
                "[[registry]]\nmirror-by-digest-only = true",
                1,
            );
        }
        let reference = format!("{}/team/image", registry.host());
        run_with(&store, &conf, &["pull", &reference]).success();
        assert_eq!(targets(&mirror, "/manifests/latest").len(), 0);
        assert!(!mirror.fetched_blobs().is_empty());
        assert_eq!(registry.fetched_blobs().len(), 0);
    }
}

#[test]
fn a_mirror_that_lies_about_a_blob_is_found_out() {
    let (registry, store) = (serving(), made_store());
    let mirror = HostileRegistry::start(|request| {
        let is_blob = request.target.contains("/blobs/");
        is_blob.then(|| Answer::document("application/octet-stream", "something else"))
    })
    .unwrap();
    mirror.serve(&small_image("image"), "team/image", "latest");
    let conf = conf(registry.host(), &[(mirror.host(), "")]);
    let reference = format!("{}/team/image", registry.host());
    run_with(&store, &conf, &["pull", "--quiet", &reference]).one_line_failure();
    assert!(!store.run(&["ls"]).success().contains("team/image"));
}

#[test]
fn a_mirror_gets_its_own_credentials_only() {
    let (registry, store) = (serving(), made_store());
    let mirror = HostileRegistry::start(|_| {
        let refusal = Answer::error(401, "UNAUTHORIZED", "who?");
        Some(refusal.field("WWW-Authenticate", "Basic realm=\"r\""))
    })
    .unwrap();
    let auths = serde_json::json!({"auths": {registry.host(): {"auth": base64(b"user:secret")}}});
    let file = store.beside("auth.json");
    fs::write(&file, auths.to_string()).unwrap();
    let conf = conf(registry.host(), &[(mirror.host(), "")]);
    let reference = format!("{}/team/image", registry.host());
    let args = ["--authfile", file.to_str().unwrap(), "pull", &reference];
    run_with(&store, &conf, &args).success();
    assert!(!mirror.requests().is_empty());
    for request in mirror.requests() {
        assert_eq!(request.field("authorization"), None, "{}", request.target);
    }
}

#[test]
fn a_blocked_registry_is_not_asked() {
    let (registry, store) = (serving(), made_store());
    let conf = format!(
        "[[registry]]\nlocation = \"{}\"\nblocked = true\n",
        registry.host()
    );
    let reference = format!("{}/team/image", registry.host());
    let output = run_with(&store, &conf, &["pull", "--quiet", &reference]);
    assert!(output.one_line_failure().contains("blocks"), "{output}");
    assert_eq!(registry.requests().len(), 0);
}

#[test]
fn another_location_is_asked_and_the_name_stays() {
    let (registry, store) = (serving(), made_store());
    let host = registry.host();
    let conf = format!("[[registry]]\nprefix = \"a.example/x\"\nlocation = \"{host}/team\"\n");
    run_with(&store, &conf, &["pull", "a.example/x/image"]).success();
    let listed = store.run(&["ls", "--quiet"]);
    assert!(
        listed.success().contains("a.example/x/image:latest"),
        "{listed}"
    );
}

#[test]
fn hosts_toml_has_mirrors_with_header_fields_of_their_own() {
    let (mirror, registry, store) = (serving(), serving(), made_store());
    let dir = store.beside("hosts.d");
    let own = dir.join(registry.host().replace(':', "_") + "_");
    fs::create_dir_all(&own).unwrap();
    let text = format!(
        "server = \"http://{}\"\n[host.\"http://{}\"]\ncapabilities = [\"pull\"]\n\
         [host.\"http://{}\".header]\nx-only-for = \"mirror\"\n",
        registry.host(),
        mirror.host(),
        mirror.host()
    );
    fs::write(own.join("hosts.toml"), text).unwrap();
    let reference = format!("{}/team/image", registry.host());
    let args = ["--hosts-dir", dir.to_str().unwrap(), "pull", &reference];
    store.run(&args).success();
    assert_eq!(
        targets(&registry, "/manifests/latest").len(),
        1,
        "tags are not the mirror's"
    );
    assert_eq!(registry.fetched_blobs().len(), 0, "blobs are");
    for request in mirror.requests() {
        assert_eq!(request.field("x-only-for"), Some("mirror"));
        assert!(
            request.target.contains("ns=127.0.0.1"),
            "{}",
            request.target
        );
    }
    for request in registry.requests() {
        assert_eq!(request.field("x-only-for"), None);
    }
}

#[test]
fn a_short_name_is_what_its_alias_says_for_every_command() {
    let (registry, store) = (serving(), made_store());
    let conf = format!(
        "[aliases]\n\"thing\" = \"{}/team/image\"\n",
        registry.host()
    );
    run_with(&store, &conf, &["pull", "thing"]).success();
    run_with(&store, &conf, &["inspect", "thing"]).success();
    run_with(&store, &conf, &["bundle", "thing", "--name", "one"]).success();
    run_with(&store, &conf, &["unbundle", "one"]).success();
    run_with(&store, &conf, &["rm", "thing"]).success();
}

#[test]
fn a_short_name_that_may_mean_several_images_is_refused_with_them() {
    let conf = "unqualified-search-registries = ['a.example', 'b.example']\n";
    let output = run_with(&made_store(), conf, &["pull", "--quiet", "thing"]);
    output.one_line_failure();
    assert!(
        output.stderr.contains("a.example/thing, b.example/thing"),
        "{output}"
    );
}

#[test]
fn settings_that_cannot_be_followed_stop_the_pull() {
    let (registry, store) = (serving(), made_store());
    let reference = format!("{}/team/image", registry.host());
    for conf in [
        "[[registry]]\nlocaton = 'a'\n",
        "not toml",
        "[[registry]]\nblocked = 3\n",
    ] {
        let output = run_with(&store, conf, &["pull", "--quiet", &reference]);
        assert!(
            output.one_line_failure().contains("registries.conf"),
            "{output}"
        );
    }
    assert_eq!(registry.requests().len(), 0);
}
