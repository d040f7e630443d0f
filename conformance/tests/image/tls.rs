//! TLS: authorities of the user's own, client certificates, and what is not believed.
//!
//! Spec: containers-certs.d(5), containers-registries.conf(5), containerd's docs/hosts.md

use std::fs;
use std::path::{Path, PathBuf};

use conformance::{HostileRegistry, Registry, StoreRoot};
use tempfile::TempDir;

use super::{made_store, openssl, small_image};

/// An authority, with certificates of its own for a server and for a client.
pub(super) struct Authority {
    directory: TempDir,
}

impl Authority {
    pub(super) fn new() -> Self {
        let authority = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        let (key, certificate) = (authority.file("ca.key"), authority.file("ca.crt"));
        openssl(|command| {
            let command = command.args(["req", "-x509", "-newkey", "ec"]);
            let command = command.args(["-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
            let command = command.args(["-days", "2", "-subj", "/CN=authority"]);
            command.arg("-keyout").arg(key).arg("-out").arg(certificate)
        });
        authority.issue(
            "server",
            "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n",
        );
        authority.issue("client", "extendedKeyUsage=clientAuth\n");
        authority
    }

    /// One of its files: `ca.crt`, `server.cert`, `server.key`, ….
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn issue(&self, name: &str, extensions: &str) {
        let file = |end: &str| self.file(&format!("{name}{end}"));
        fs::write(file(".ext"), extensions).unwrap();
        openssl(|command| {
            let command = command.args(["req", "-newkey", "ec", "-nodes"]);
            let command = command.args(["-pkeyopt", "ec_paramgen_curve:P-256"]);
            let command = command.args(["-subj", &format!("/CN={name}")]);
            command
                .arg("-keyout")
                .arg(file(".key"))
                .arg("-out")
                .arg(file(".csr"))
        });
        openssl(|command| {
            let command = command.args(["x509", "-req", "-days", "2", "-set_serial", "1"]);
            let command = command.arg("-CA").arg(self.file("ca.crt"));
            let command = command.arg("-CAkey").arg(self.file("ca.key"));
            let command = command
                .arg("-extfile")
                .arg(file(".ext"))
                .arg("-in")
                .arg(file(".csr"));
            command.arg("-out").arg(file(".cert"))
        });
    }

    /// docker-registry's settings for TLS, with or without certificates of clients.
    fn settings(&self, asks_clients: bool) -> serde_json::Value {
        let mut tls = serde_json::json!({
            "certificate": self.file("server.cert"),
            "key": self.file("server.key"),
        });
        if asks_clients {
            tls["clientcas"] = serde_json::json!([self.file("ca.crt")]);
        }
        serde_json::json!({"http": {"tls": tls}})
    }

    /// Copies files to the user's certificates for `host`.
    pub(super) fn give(&self, store: &StoreRoot, host: &str, names: &[&str]) -> PathBuf {
        let dir = store.beside("home/.config/containers/certs.d").join(host);
        fs::create_dir_all(&dir).unwrap();
        for name in names {
            fs::copy(self.file(name), dir.join(name)).unwrap();
        }
        dir
    }
}

/// A registry with one image, over http and, with the authority's certificate, over https.
pub(super) fn registries(authority: &Authority, asks_clients: bool) -> (Registry, Registry) {
    let plain = Registry::start().unwrap();
    plain
        .push(&small_image("image"), "image", "latest")
        .unwrap();
    let closed = plain.beside(authority.settings(asks_clients)).unwrap();
    (plain, closed)
}

fn write_conf(store: &StoreRoot, host: &str, line: &str) -> String {
    let file = store.beside("registries.conf");
    fs::write(
        &file,
        format!("[[registry]]\nlocation = \"{host}\"\n{line}\n"),
    )
    .unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn a_certificate_by_a_known_authority_is_believed() {
    let (authority, store) = (Authority::new(), made_store());
    let (_plain, registry) = registries(&authority, false);
    let reference = registry.reference("image");
    // loopback is reached by http, unless the user says otherwise
    let conf = write_conf(&store, registry.host(), "insecure = false");
    let output = store.run(&["--registries-conf", &conf, "pull", "--quiet", &reference]);
    let line = output.one_line_failure();
    assert!(line.contains("certificate"), "{line}");
    assert!(output.stderr.contains("certs.d"), "{output}");
    authority.give(&store, registry.host(), &["ca.crt"]);
    store.run(&["pull", "--quiet", &reference]).success();
}

#[test]
fn a_certificate_by_another_authority_is_not_believed() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (store, (_plain, registry)) = (made_store(), registries(&authority, false));
    other.give(&store, registry.host(), &["ca.crt"]);
    let output = store.run(&["pull", "--quiet", &registry.reference("image")]);
    assert!(
        output.one_line_failure().contains("certificate"),
        "{output}"
    );
}

#[test]
fn an_authority_vouches_for_its_host_only() {
    let (authority, store) = (Authority::new(), made_store());
    let (_plain, registry) = registries(&authority, false);
    authority.give(&store, "other.example:5000", &["ca.crt"]);
    let conf = write_conf(&store, registry.host(), "insecure = false");
    let reference = registry.reference("image");
    let output = store.run(&["--registries-conf", &conf, "pull", "--quiet", &reference]);
    assert!(
        output.one_line_failure().contains("certificate"),
        "{output}"
    );
}

#[test]
fn a_client_shows_the_certificate_that_a_registry_asks_for() {
    let (authority, store) = (Authority::new(), made_store());
    let (_plain, registry) = registries(&authority, true);
    let reference = registry.reference("image");
    let dir = authority.give(&store, registry.host(), &["ca.crt"]);
    store
        .run(&["pull", "--quiet", &reference])
        .one_line_failure();
    authority.give(&store, registry.host(), &["client.cert", "client.key"]);
    store.run(&["pull", "--quiet", &reference]).success();
    fs::remove_file(dir.join("client.key")).unwrap();
    let output = store.run(&["pull", "--quiet", &reference]);
    assert!(
        output.one_line_failure().contains("client.cert"),
        "{output}"
    );
}

#[test]
fn a_directory_of_certificates_can_be_given() {
    let (authority, store) = (Authority::new(), made_store());
    let (_plain, registry) = registries(&authority, true);
    let dir = store.beside("certs");
    fs::create_dir(&dir).unwrap();
    for name in ["ca.crt", "client.cert", "client.key"] {
        fs::copy(authority.file(name), dir.join(name)).unwrap();
    }
    let reference = registry.reference("image");
    let args = [
        "--cert-dir",
        dir.to_str().unwrap(),
        "pull",
        "--quiet",
        &reference,
    ];
    store.run(&args).success();
    fs::write(dir.join("ca.crt"), "no certificate").unwrap();
    assert!(store.run(&args).one_line_failure().contains("ca.crt"));
}

/// `hosts.toml` for a host, in a directory that is given as `--hosts-dir`.
fn write_hosts(store: &StoreRoot, host: &str, text: &str) -> String {
    let dir = store.beside("hosts.d");
    fs::create_dir_all(dir.join(host)).unwrap();
    fs::write(dir.join(host).join("hosts.toml"), text).unwrap();
    dir.to_str().unwrap().to_owned()
}

#[test]
fn hosts_toml_names_authorities_and_client_certificates() {
    let (authority, store) = (Authority::new(), made_store());
    let (_plain, registry) = registries(&authority, true);
    let pair = |name: &str| authority.file(name).to_str().unwrap().to_owned();
    let text = format!(
        "server = \"https://{}\"\nca = {:?}\nclient = [[{:?}, {:?}]]\n",
        registry.host(),
        pair("ca.crt"),
        pair("client.cert"),
        pair("client.key"),
    );
    let dir = write_hosts(&store, registry.host(), &text);
    let reference = registry.reference("image");
    store
        .run(&["--hosts-dir", &dir, "pull", "--quiet", &reference])
        .success();
}

#[test]
fn any_certificate_is_believed_only_where_the_user_says_so() {
    let (authority, store) = (Authority::new(), made_store());
    let (_plain, registry) = registries(&authority, false);
    let reference = registry.reference("image");
    let text = format!("server = \"https://{}\"\n", registry.host());
    let dir = write_hosts(&store, registry.host(), &text);
    let output = store.run(&["--hosts-dir", &dir, "pull", "--quiet", &reference]);
    assert!(
        output.one_line_failure().contains("certificate"),
        "{output}"
    );
    write_hosts(
        &store,
        registry.host(),
        &format!("{text}skip_verify = true\n"),
    );
    store
        .run(&["--hosts-dir", &dir, "pull", "--quiet", &reference])
        .success();
    store.run(&["rm", &reference]).success();
    let conf = write_conf(&store, registry.host(), "insecure = true");
    store
        .run(&["--registries-conf", &conf, "pull", "--quiet", &reference])
        .success();
}

#[test]
fn an_insecure_registry_may_speak_http() {
    let (server, store) = (HostileRegistry::honest().unwrap(), made_store());
    let reference = server.serve(&small_image("image"), "image", "latest");
    let conf = write_conf(&store, server.host(), "insecure = true");
    store
        .run(&["--registries-conf", &conf, "pull", "--quiet", &reference])
        .success();
}

#[test]
fn https_does_not_fall_back_to_http() {
    let (server, store) = (HostileRegistry::honest().unwrap(), made_store());
    let reference = server.serve(&small_image("image"), "image", "latest");
    let conf = write_conf(&store, server.host(), "insecure = false");
    let output = store.run(&["--registries-conf", &conf, "pull", "--quiet", &reference]);
    assert!(output.one_line_failure().contains("not TLS"), "{output}");
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn https_leads_to_no_realm_over_http() {
    let (authority, store) = (Authority::new(), made_store());
    let realm = HostileRegistry::honest().unwrap();
    let plain = Registry::start().unwrap();
    plain
        .push(&small_image("image"), "image", "latest")
        .unwrap();
    let mut settings = authority.settings(false);
    settings["auth"]["token"] = serde_json::json!({
        "realm": format!("http://{}/token", realm.host()),
        "service": "s",
        "issuer": "i",
        "rootcertbundle": authority.file("ca.crt"),
    });
    let registry = plain.beside(settings).unwrap();
    authority.give(&store, registry.host(), &["ca.crt"]);
    let output = store.run(&["pull", "--quiet", &registry.reference("image")]);
    assert!(output.one_line_failure().contains("not https"), "{output}");
    assert_eq!(realm.requests().len(), 0);
    assert!(Path::new(&plain.data()).exists());
}
