//! `bundle`: from an image's config to config.json.
//!
//! Spec: image-spec conversion.md, config.md#properties.

use std::fs;
use std::os::unix::fs::MetadataExt;

use conformance::images::{self, Entry, Image, ImageBuilder, Layer};
use conformance::{HostileRegistry, Output, StoreRoot};
use serde_json::{Value, json};

use super::{image_of, state};

/// A store, and images pulled into it.
pub(super) struct Bundles {
    pub(super) server: HostileRegistry,
    pub(super) store: StoreRoot,
    count: u32,
}

impl Bundles {
    pub(super) fn new() -> Self {
        Self::in_store(StoreRoot::new().unwrap())
    }

    pub(super) fn in_store(store: StoreRoot) -> Self {
        Self {
            server: HostileRegistry::honest().unwrap(),
            store,
            count: 0,
        }
    }

    /// Pulls an image under a name of its own; returns its reference.
    #[track_caller]
    pub(super) fn pull(&mut self, image: &Image) -> String {
        self.count += 1;
        let reference = self
            .server
            .serve(image, &format!("image{}", self.count), "latest");
        self.store.run(&["pull", "--quiet", &reference]).success();
        reference
    }

    /// Pulls the small system with this `config` and bundles it with `args`.
    #[track_caller]
    pub(super) fn try_bundle(&mut self, config: Value, args: &[&str]) -> Output {
        let image = ImageBuilder::new()
            .config(config)
            .layer(&images::busybox_layer().unwrap())
            .build();
        let reference = self.pull(&image);
        let id = self.id();
        self.store
            .run(&[&["bundle", &reference, "--name", &id], args].concat())
    }

    pub(super) fn id(&self) -> String {
        format!("b{}", self.count)
    }

    /// The same; returns config.json.
    #[track_caller]
    pub(super) fn config(&mut self, config: Value, args: &[&str]) -> Value {
        self.try_bundle(config, args).success();
        self.read_config()
    }

    pub(super) fn directory(&self) -> std::path::PathBuf {
        self.store.directory().join("bundles").join(self.id())
    }

    pub(super) fn read_config(&self) -> Value {
        let text = fs::read_to_string(self.directory().join("config.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

fn environment(config: &Value) -> Vec<&str> {
    config["process"]["env"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect()
}

#[test]
fn entrypoint_and_cmd_make_the_arguments() {
    let mut bundles = Bundles::new();
    let both = json!({"Entrypoint": ["/bin/echo", "one"], "Cmd": ["two"]});
    let table: [(Value, &[&str], Value); 7] = [
        (both.clone(), &[], json!(["/bin/echo", "one", "two"])),
        (json!({"Cmd": ["/bin/sh"]}), &[], json!(["/bin/sh"])),
        (
            json!({"Entrypoint": ["/bin/true"]}),
            &[],
            json!(["/bin/true"]),
        ),
        (
            both.clone(),
            &["--", "three", "-x"],
            json!(["/bin/echo", "one", "three", "-x"]),
        ),
        (
            json!({"Cmd": ["/bin/sh"]}),
            &["--", "/bin/ls", "-l"],
            json!(["/bin/ls", "-l"]),
        ),
        (
            both,
            &["--entrypoint", "/bin/cat", "--", "f"],
            json!(["/bin/cat", "f"]),
        ),
        (json!({}), &["--", "/bin/true"], json!(["/bin/true"])),
    ];
    for (config, args, want) in table {
        let got = bundles.config(config.clone(), args);
        assert_eq!(got["process"]["args"], want, "{config} {args:?}");
    }
}

#[test]
fn an_image_that_says_nothing_to_run_needs_a_command() {
    let mut bundles = Bundles::new();
    for config in [
        json!({}),
        json!({"Cmd": [], "Entrypoint": null}),
        Value::Null,
    ] {
        let line = bundles
            .try_bundle(config, &[])
            .one_line_failure()
            .to_owned();
        assert!(line.starts_with("gocker-image: bundle "), "{line}");
        assert!(
            !bundles.directory().exists(),
            "nothing is left of the bundle"
        );
    }
}

#[test]
fn the_environment_is_the_images_with_path_and_home_where_absent() {
    let mut bundles = Bundles::new();
    let config = bundles.config(
        json!({"Cmd": ["x"], "Env": ["A=1", "B=x=y", "EMPTY=", "PATH=/own", "HOME=/own/home"]}),
        &[],
    );
    assert_eq!(
        environment(&config),
        ["A=1", "B=x=y", "EMPTY=", "PATH=/own", "HOME=/own/home"]
    );

    let config = bundles.config(json!({"Cmd": ["x"], "Env": ["A=1"]}), &[]);
    let env = environment(&config);
    assert!(
        env.contains(&"A=1") && env.contains(&"HOME=/root"),
        "{env:?}"
    );
    assert!(env.iter().any(|item| item.starts_with("PATH=/")), "{env:?}");

    let config = bundles.config(json!({"Cmd": ["x"], "User": "web"}), &[]);
    assert!(
        environment(&config).contains(&"HOME=/var/www"),
        "{:?}",
        environment(&config)
    );
}

#[test]
fn an_environment_item_without_a_value_takes_none_from_the_host() {
    let bundles = Bundles::new();
    let image = ImageBuilder::new().config(json!({"Cmd": ["x"], "Env": ["LC_ALL", "A=1"]}));
    let image = image.layer(&images::busybox_layer().unwrap()).build();
    let reference = bundles.server.serve(&image, "image", "latest");
    let pulled = bundles.store.run(&["pull", "--quiet", &reference]);
    let output = bundles.store.run(&["bundle", &reference, "--name", "b0"]);
    // Kept as it is or refused; LC_ALL has a value in the tool's environment.
    if pulled.code() == 0 && output.code() == 0 {
        let config = bundles.read_config();
        assert!(
            !environment(&config)
                .iter()
                .any(|item| item.starts_with("LC_ALL=C")),
            "{config}"
        );
    }
}

#[test]
fn the_working_directory_is_the_images_or_the_root() {
    let mut bundles = Bundles::new();
    for (config, args, want) in [
        (json!({"Cmd": ["x"]}), &[][..], "/"),
        (json!({"Cmd": ["x"], "WorkingDir": ""}), &[], "/"),
        (
            json!({"Cmd": ["x"], "WorkingDir": "/var/www"}),
            &[],
            "/var/www",
        ),
        (
            json!({"Cmd": ["x"], "WorkingDir": "/var/www"}),
            &["--workdir", "/tmp"],
            "/tmp",
        ),
    ] {
        assert_eq!(bundles.config(config, args)["process"]["cwd"], want);
    }
}

#[test]
fn a_working_directory_that_is_missing_is_made_inside_the_root() {
    let (server, store) = (
        HostileRegistry::honest().unwrap(),
        StoreRoot::new().unwrap(),
    );
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    let layer = Layer::of([Entry::dir("."), Entry::symlink("out", target)]);
    let config = json!({"Cmd": ["x"], "WorkingDir": "/out/new/directory"});
    let image = ImageBuilder::new()
        .config(config)
        .layer(&layer.finish())
        .build();
    let reference = server.serve(&image, "image", "latest");
    store.run(&["pull", "--quiet", &reference]).success();
    store.run(&["bundle", &reference, "--name", "one"]);
    assert_eq!(
        fs::read_dir(outside.path()).unwrap().count(),
        0,
        "nothing is made on the host"
    );
}

#[test]
fn annotations_come_from_the_config_and_labels_win() {
    let mut bundles = Bundles::new();
    let config = json!({
        "Cmd": ["x"], "StopSignal": "SIGUSR1", "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "Labels": {"org.example.own": "label", "org.opencontainers.image.author": "by label"},
    });
    let image = ImageBuilder::new()
        .config(config)
        .layer(&images::busybox_layer().unwrap())
        .build();
    let image = image
        .with_manifest(|manifest| manifest["annotations"] = json!({"org.example.manifest": "no"}));
    let reference = bundles.pull(&image);
    bundles
        .store
        .run(&["bundle", &reference, "--name", "b1"])
        .success();
    let annotations = bundles.read_config()["annotations"].clone();
    for (name, want) in [
        ("org.opencontainers.image.os", json!("linux")),
        ("org.opencontainers.image.architecture", json!("amd64")),
        (
            "org.opencontainers.image.created",
            json!("2025-01-01T00:00:00Z"),
        ),
        ("org.opencontainers.image.author", json!("by label")),
        ("org.opencontainers.image.stopSignal", json!("SIGUSR1")),
        (
            "org.opencontainers.image.exposedPorts",
            json!("53/udp,80/tcp"),
        ),
        ("org.example.own", json!("label")),
        ("org.example.manifest", Value::Null),
    ] {
        assert_eq!(annotations[name], want, "{name}: {annotations}");
    }
}

#[test]
fn labels_that_would_steer_a_runtime_are_dropped_with_a_warning() {
    let mut bundles = Bundles::new();
    let names = [
        "run.oci.handler",
        "org.systemd.property.MemoryMax",
        "org.criu.config",
        "io.kubernetes.cri.x",
        "containerd.io/restart",
    ];
    let mut labels = json!({"org.example.kept": "1"});
    for name in names {
        labels[name] = "x".into();
    }
    let output = bundles.try_bundle(json!({"Cmd": ["x"], "Labels": labels}), &[]);
    output.success();
    let annotations = bundles.read_config()["annotations"].clone();
    for name in names {
        assert_eq!(annotations[name], Value::Null, "{name}");
        assert!(
            output.stderr.contains(name),
            "{name} should be warned of: {output}"
        );
    }
    assert_eq!(annotations["org.example.kept"], "1");
}

#[test]
fn limits_become_resources() {
    let mut bundles = Bundles::new();
    let args = ["-m", "64m", "--cpus", "0.5", "--pids-limit", "32"];
    let config = bundles.config(json!({"Cmd": ["x"]}), &args);
    let resources = &config["linux"]["resources"];
    assert_eq!(resources["memory"]["limit"], 64 << 20, "{resources}");
    assert_eq!(resources["pids"]["limit"], 32, "{resources}");
    let (quota, period) = (&resources["cpu"]["quota"], &resources["cpu"]["period"]);
    assert_eq!(
        quota.as_u64().map(|quota| quota * 2),
        period.as_u64(),
        "{resources}"
    );
}

#[test]
fn the_default_bundle_is_confined() {
    let config = Bundles::new().config(json!({"Cmd": ["x"]}), &[]);
    let namespaces: Vec<&str> = config["linux"]["namespaces"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|ns| ns["type"].as_str())
        .collect();
    for kind in ["pid", "network", "ipc", "uts", "mount"] {
        assert!(namespaces.contains(&kind), "{kind}: {namespaces:?}");
    }
    for (list, path) in [
        ("maskedPaths", "/proc/kcore"),
        ("readonlyPaths", "/proc/sys"),
    ] {
        let paths = config["linux"][list].as_array().unwrap();
        assert!(paths.iter().any(|own| own == path), "{list}: {paths:?}");
    }
    let capabilities = &config["process"]["capabilities"];
    assert!(
        !capabilities.to_string().contains("CAP_SYS_ADMIN"),
        "{capabilities}"
    );
    assert_eq!(
        capabilities["inheritable"].as_array().map_or(0, Vec::len),
        0,
        "{capabilities}"
    );
}

#[test]
fn a_bundle_is_made_in_any_directory_and_its_root_in_the_store() {
    let mut bundles = Bundles::new();
    let reference = bundles.pull(&image_of([vec![Entry::file("f", "1")]]));
    let before = state(&bundles.store);
    let directory = bundles.store.beside("elsewhere");
    let path = directory.to_str().unwrap();
    bundles
        .store
        .run(&["bundle", &reference, path, "--", "/bin/true"])
        .success();
    let text = fs::read_to_string(directory.join("config.json")).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    // An absolute path or one from the bundle: runtimes take both.
    let root = directory.join(config["root"]["path"].as_str().unwrap());
    assert_eq!(fs::read_to_string(root.join("f")).unwrap(), "1");
    assert_eq!(
        root.metadata().unwrap().ino(),
        256,
        "a subvolume of its own"
    );

    let again = bundles
        .store
        .run(&["bundle", &reference, path, "--", "/bin/true"]);
    assert!(again.one_line_failure().contains("elsewhere"), "{again}");
    bundles.store.run(&["unbundle", path]).success();
    assert!(!directory.join("config.json").exists());
    assert_eq!(state(&bundles.store), before);
}

#[test]
fn names_of_bundles_are_checked_and_taken_once() {
    let mut bundles = Bundles::new();
    let reference = bundles.pull(&image_of([vec![Entry::file("f", "1")]]));
    bundles.store.bundle(&reference, "one");
    let before = state(&bundles.store);
    for name in ["one", "../two", "a/b", "", ".", "..", "-x", "a b"] {
        let output = bundles
            .store
            .run(&["bundle", &reference, &format!("--name={name}")]);
        assert!(!output.failure().contains("panicked"), "{output}");
        assert_eq!(state(&bundles.store), before, "{name:?}");
    }
}

#[test]
fn an_image_that_was_not_pulled_has_no_bundle() {
    let bundles = Bundles::new();
    bundles.store.run(&["ls"]);
    let output = bundles
        .store
        .run(&["bundle", "127.0.0.1:1/never:pulled", "--name", "one"]);
    assert!(
        output
            .one_line_failure()
            .contains("127.0.0.1:1/never:pulled"),
        "{output}"
    );
}

#[test]
fn two_bundles_and_their_removal_leave_the_image_as_it_was() {
    let mut bundles = Bundles::new();
    let reference = bundles.pull(&images::busybox().unwrap());
    let before = state(&bundles.store);
    for id in ["one", "two"] {
        let rootfs = bundles.store.bundle(&reference, id).join("rootfs");
        fs::write(rootfs.join("written"), id).unwrap();
    }
    bundles.store.run(&["unbundle", "one", "two"]).success();
    assert_eq!(state(&bundles.store), before);
}

#[test]
fn removals_up_to_the_first_that_fails_are_told_as_json() {
    let mut bundles = Bundles::new();
    let reference = bundles.pull(&images::busybox().unwrap());
    bundles.store.bundle(&reference, "one");
    for (command, name, key) in [
        ("unbundle", "one", "/0/id"),
        ("rm", &reference, "/0/names/0"),
    ] {
        let args = [command, "--format", "json", name, "no-such"];
        let output = bundles.store.run(&args);
        assert!(output.one_line_failure().contains("no-such"), "{output}");
        let told: Value = serde_json::from_str(&output.stdout).unwrap();
        assert_eq!(told.pointer(key), Some(&json!(name)), "{told}");
        assert_eq!(told.as_array().map(Vec::len), Some(1));
    }
}

#[test]
fn an_image_in_use_by_a_bundle_keeps_its_bundle_working() {
    let mut bundles = Bundles::new();
    let reference = bundles.pull(&images::busybox().unwrap());
    let rootfs = bundles.store.bundle(&reference, "one").join("rootfs");
    bundles.store.run(&["rm", &reference]);
    bundles.store.run(&["prune"]).success();
    assert!(rootfs.join("bin/busybox").exists());
}

#[test]
fn inspect_shows_the_config_that_a_bundle_gets() {
    let mut bundles = Bundles::new();
    let image = json!({"Cmd": ["/bin/ls"], "User": "web", "Env": ["A=1"], "WorkingDir": "/tmp"});
    let mut written = bundles.config(image, &["--hostname", ""]);
    let reference = format!("{}/image1", bundles.server.host());
    let mut shown = bundles.store.run(&["inspect", &reference]).json();
    for config in [&mut written, &mut shown["runtime_config"]] {
        // a set, in any order
        let bounding = &mut config["process"]["capabilities"]["bounding"];
        let names = bounding.as_array_mut().unwrap();
        names.sort_by_key(Value::to_string);
    }
    assert_eq!(shown["runtime_config"], written);
    bundles.try_bundle(json!({}), &[]).one_line_failure();
    let reference = format!("{}/image2", bundles.server.host());
    let shown = bundles.store.run(&["inspect", &reference]).json();
    assert_eq!(
        shown["runtime_config"],
        Value::Null,
        "it has nothing to run"
    );
}

#[test]
fn inspect_and_ls_are_json_with_the_digest() {
    let mut bundles = Bundles::new();
    let image = images::multi_layer().unwrap();
    let reference = bundles.pull(&image);
    let inspected: Value =
        serde_json::from_str(bundles.store.run(&["inspect", &reference]).success()).unwrap();
    let text = inspected.to_string();
    assert!(
        text.contains(&image.manifest.digest) && text.contains(&image.layers[3].digest),
        "{text}"
    );
    let listed = bundles.store.run(&["ls", "--format", "json"]);
    assert!(
        listed.success().contains(&image.manifest.digest),
        "{listed}"
    );
    let rows: Value = serde_json::from_str(&listed.stdout).unwrap();
    assert_eq!(rows.as_array().map(Vec::len), Some(1), "{rows}");
    assert!(bundles.store.run(&["ls"]).success().contains("image1"));
    assert_eq!(
        bundles.store.run(&["ls", "--quiet"]).success().trim(),
        reference
    );
}
