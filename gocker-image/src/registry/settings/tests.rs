//! Settings in temporary directories.

use std::fs;
use std::path::Path;

use super::super::endpoint::Named;
use super::*;

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn paths(root: &Path) -> SettingsPaths {
    SettingsPaths {
        registries_conf: vec![root.join("registries.conf")],
        certs_dirs: vec![root.join("certs.d")],
        cert_dir: None,
        hosts_dirs: vec![root.join("hosts.d")],
    }
}

fn load(root: &Path) -> Result<Settings, SettingsError> {
    Settings::load(&paths(root), &["listed.io:80".to_owned()])
}

/// The addresses that `reference` is asked for at.
fn urls(settings: &Settings, reference: &str) -> Vec<String> {
    let route = settings.route(&reference.parse().unwrap()).unwrap();
    route
        .iter()
        .map(|endpoint| endpoint.url("x").to_string())
        .collect()
}

#[test]
fn http_is_for_loopback_and_listed_registries() {
    let root = tempfile::tempdir().unwrap();
    write(&root.path().join("certs.d/127.0.0.1:6000/ca.crt"), "");
    let settings = load(root.path()).unwrap();
    let cases = [
        ("alpine", "https://registry-1.docker.io/v2/library/alpine/x"),
        ("a.io/b", "https://a.io/v2/b/x"),
        ("localhost/b", "http://localhost/v2/b/x"),
        ("localhost:5000/b", "http://localhost:5000/v2/b/x"),
        ("127.0.0.1:5000/b", "http://127.0.0.1:5000/v2/b/x"),
        ("127.0.0.1:6000/b", "https://127.0.0.1:6000/v2/b/x"),
        ("127.9.0.1/b", "http://127.9.0.1/v2/b/x"),
        ("[::1]:5000/b", "http://[::1]:5000/v2/b/x"),
        ("127.0.0.1.evil.io/b", "https://127.0.0.1.evil.io/v2/b/x"),
        ("localhost.evil.io/b", "https://localhost.evil.io/v2/b/x"),
        ("10.0.0.1:5000/b", "https://10.0.0.1:5000/v2/b/x"),
        ("listed.io:80/b", "http://listed.io/v2/b/x"),
        ("listed.io/b", "https://listed.io/v2/b/x"),
    ];
    for (text, expected) in cases {
        assert_eq!(urls(&settings, text), [expected], "{text}");
    }
}

#[test]
fn the_longest_prefix_decides() {
    let root = tempfile::tempdir().unwrap();
    let text = r#"
        [[registry]]
        location = "a.io"
        [[registry.mirror]]
        location = "m.io/a"
        [[registry]]
        prefix = "a.io/team"
        location = "b.io/other"
        [[registry]]
        prefix = "*.wild.io"
        insecure = true
        [[registry]]
        prefix = "docker.io/library"
        location = "hub.io/lib"
        [[registry]]
        location = "closed.io"
        blocked = true
    "#;
    write(&root.path().join("registries.conf"), text);
    let settings = load(root.path()).unwrap();
    let cases: [(&str, &[&str]); 6] = [
        ("a.io/x", &["https://m.io/v2/a/x/x", "https://a.io/v2/x/x"]),
        ("a.io/team/x", &["https://b.io/v2/other/x/x"]),
        (
            "a.io/teams/x",
            &["https://m.io/v2/a/teams/x/x", "https://a.io/v2/teams/x/x"],
        ),
        (
            "r.wild.io/x",
            &["https://r.wild.io/v2/x/x", "http://r.wild.io/v2/x/x"],
        ),
        ("alpine", &["https://hub.io/v2/lib/alpine/x"]),
        ("a.io:5000/x", &["https://a.io:5000/v2/x/x"]),
    ];
    for (reference, expected) in cases {
        assert_eq!(urls(&settings, reference), expected, "{reference}");
    }
    let error = settings.route(&"closed.io/x".parse().unwrap()).unwrap_err();
    assert!(matches!(error, SettingsError::Blocked { .. }), "{error}");
}

#[test]
fn mirrors_are_asked_for_what_they_serve() {
    let root = tempfile::tempdir().unwrap();
    let text = r#"
        [[registry]]
        location = "a.io"
        [[registry.mirror]]
        location = "tags.io"
        pull-from-mirror = "tag-only"
        [[registry.mirror]]
        location = "digests.io"
        pull-from-mirror = "digest-only"
        [[registry]]
        location = "b.io"
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "digests.io"
    "#;
    write(&root.path().join("registries.conf"), text);
    let settings = load(root.path()).unwrap();
    let asked = |reference: &str, named| -> Vec<String> {
        let route = settings.route(&reference.parse().unwrap()).unwrap();
        let serving = route.iter().filter(|endpoint| endpoint.serves(named));
        serving.map(|one| one.registry().to_owned()).collect()
    };
    assert_eq!(asked("a.io/x", Named::Tag), ["tags.io", "a.io"]);
    assert_eq!(asked("a.io/x", Named::Digest), ["digests.io", "a.io"]);
    assert_eq!(asked("b.io/x", Named::Tag), ["b.io"]);
    assert_eq!(asked("b.io/x", Named::Digest), ["digests.io", "b.io"]);
}

#[test]
fn short_names_have_aliases_or_one_registry() {
    let root = tempfile::tempdir().unwrap();
    let conf = root.path().join("registries.conf");
    write(
        &conf,
        r#"aliases = { tool = "q.io/team/tool", gone = "q.io/gone" }"#,
    );
    let drop_in = root.path().join("registries.conf.d/10.conf");
    write(
        &drop_in,
        "unqualified-search-registries = ['s.io']\n[aliases]\ngone = ''\n",
    );
    let whole = |reference: &str| {
        let qualified = load(root.path())
            .unwrap()
            .qualify(&reference.parse().unwrap());
        qualified.map(|reference| reference.to_string())
    };
    let cases = [
        ("tool:3", "q.io/team/tool:3"),
        ("gone", "s.io/gone:latest"),
        ("a/b", "s.io/a/b:latest"),
        ("docker.io/tool", "docker.io/library/tool:latest"),
    ];
    for (reference, expected) in cases {
        assert_eq!(whole(reference).unwrap(), expected, "{reference}");
    }
    write(
        &drop_in,
        "unqualified-search-registries = ['s.io', 't.io']\n",
    );
    let error = whole("a/b").unwrap_err();
    assert_eq!(error.hint().unwrap(), "say which: s.io/a/b, t.io/a/b");
    write(&drop_in, "unqualified-search-registries = []\n");
    assert_eq!(whole("a/b").unwrap(), "docker.io/a/b:latest");
}

#[test]
fn hosts_toml_has_mirrors_in_its_order() {
    let root = tempfile::tempdir().unwrap();
    let text = r#"
        server = "https://real.io"
        [host."https://z.io"]
          capabilities = ["pull"]
          ca = "z.crt"
          [host."https://z.io".header]
            x-test = ["a", "b"]
        [host."http://y.io:80/proxy/v2"]
          override_path = true
          client = [["c.cert", "c.key"]]
        [host."x.io"]
          skip_verify = true
    "#;
    write(&root.path().join("hosts.d/a.io_5000_/hosts.toml"), text);
    let settings = load(root.path()).unwrap();
    let expected = [
        "https://z.io/v2/b/x?ns=a.io%3A5000",
        "http://y.io/proxy/v2/b/x?ns=a.io%3A5000",
        "https://x.io/v2/b/x?ns=a.io%3A5000",
        "https://real.io/v2/b/x?ns=a.io%3A5000",
    ];
    assert_eq!(urls(&settings, "a.io:5000/b"), expected);
    let route = settings.route(&"a.io:5000/b".parse().unwrap()).unwrap();
    assert!(!route[0].serves(Named::Tag) && route[1].serves(Named::Tag));
    assert_eq!(route[0].headers.get_all("x-test").iter().count(), 2);
    assert_eq!(route[2].tls.trust, Trust::Any);
    assert!(route[0].tls.authorities[0].ends_with("a.io_5000_/z.crt"));
    assert_eq!(
        route[0].registry(),
        "z.io",
        "credentials are those of the mirror"
    );
}

/// A file, what is in it, and what is said of it.
const WRONG: [(&str, &str, &str); 13] = [
    ("registries.conf", "[[registry]]\nlocation = 5", "line 2"),
    (
        "registries.conf",
        "[[registry]]\nlocaton = 'a'",
        "unknown field",
    ),
    (
        "registries.conf",
        "[[registry]]\nblocked = true",
        "registry[0].prefix",
    ),
    (
        "registries.conf",
        "[[registry]]\nprefix = 'a.*.io'",
        "wildcard",
    ),
    (
        "registries.conf",
        "[[registry]]\nlocation = 'https://a.io'",
        "registry[0].location",
    ),
    (
        "registries.conf",
        "[registries.search]\nregistries = ['a']",
        "registries",
    ),
    (
        "registries.conf",
        "short-name-mode = 'lax'",
        "short-name-mode",
    ),
    ("registries.conf", "[aliases]\na = 'b'", "aliases"),
    (
        "registries.conf",
        "[[registry]]\nlocation = 'a.io'\n[[registry.mirror]]\nlocation = 'b.io'\npull-from-mirror = 'some'",
        "pull-from-mirror",
    ),
    ("hosts.d/a.io/hosts.toml", "server = 'ftp://x'", "server"),
    (
        "hosts.d/a.io/hosts.toml",
        "[host.'b.io']\ncapabilities = ['fly']",
        "capabilities",
    ),
    (
        "hosts.d/a.io/hosts.toml",
        "[host.'b.io']\nskip_verfy = true",
        "skip_verfy",
    ),
    ("certs.d/a.io/x.cert", "", "x.cert"),
];

#[test]
fn what_cannot_be_followed_is_named() {
    for (path, text, expected) in WRONG {
        let root = tempfile::tempdir().unwrap();
        write(&root.path().join(path), text);
        let error = load(root.path())
            .and_then(|settings| settings.route(&"a.io/x".parse().unwrap()))
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
        assert!(
            error.contains(
                path.rsplit('/')
                    .nth(usize::from(path.ends_with("cert")))
                    .unwrap()
            ),
            "{error}"
        );
    }
}
