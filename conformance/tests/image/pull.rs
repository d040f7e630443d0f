//! `pull` from honest registries: what is fetched, how often, and what is said.
//!
//! Spec: distribution-spec spec.md#pull, image-spec image-index.md.

use std::fs;
use std::process::Command;
use std::time::Duration;

use conformance::hostile::{Answer, Delivery};
use conformance::images::{self, Documents, ImageBuilder, Index};
use conformance::{HostileRegistry, Registry, StoreRoot, run_command};

use super::{made_store, small_image};

fn setup() -> (Registry, StoreRoot) {
    (Registry::start().unwrap(), StoreRoot::new().unwrap())
}

#[test]
fn oci_and_docker_manifests_are_pulled() {
    let (registry, store) = setup();
    let layer = images::filler_layer("f", 3, 300);
    for (name, builder) in [
        ("oci", ImageBuilder::new()),
        ("docker", ImageBuilder::new().docker()),
    ] {
        let reference = registry
            .push(&builder.layer(&layer).build(), name, "latest")
            .unwrap();
        store.run(&["pull", &reference]).success();
        assert!(
            store.bundle(&reference, name).join("rootfs/f/0/2").exists(),
            "{name}"
        );
    }
}

#[test]
fn an_index_is_pulled_for_the_platform_of_this_machine() {
    let (registry, store) = setup();
    for (name, documents) in [("oci", Documents::Oci), ("docker", Documents::Docker)] {
        let index = images::multi_architecture(documents).unwrap();
        let reference = registry.push_index(&index, name, "latest").unwrap();
        store.run(&["pull", &reference]).success();
        let arch = store.bundle(&reference, name).join("rootfs/etc/arch");
        assert_eq!(fs::read_to_string(arch).unwrap(), "amd64", "{name}");
    }
    // Only the image of this platform was fetched: one config and two layers,
    // of which the second index needs only the config, if at all.
    assert!(registry.fetched_blobs().unwrap().len() <= 4);
}

#[test]
fn attestations_in_an_index_are_passed_over() {
    let (registry, store) = setup();
    let attestation = small_image("attestation").with_manifest(|manifest| {
        manifest["config"]["mediaType"] = "application/vnd.oci.empty.v1+json".into();
    });
    let index = Index::of(Documents::Oci, vec![attestation, small_image("image")]);
    let index = index.with_document(|document| {
        document["manifests"][0]["platform"] =
            serde_json::json!({"os": "unknown", "architecture": "unknown"});
    });
    let reference = registry.push_index(&index, "attested", "latest").unwrap();
    store.run(&["pull", &reference]).success();
    let content = fs::read_to_string(store.bundle(&reference, "one").join("rootfs/name")).unwrap();
    assert_eq!(content, "image");
}

#[test]
fn a_platform_that_an_index_lacks_is_refused_with_those_that_it_has() {
    let (registry, store) = setup();
    let index = images::multi_architecture(Documents::Oci).unwrap();
    let reference = registry.push_index(&index, "multi", "latest").unwrap();
    let output = store.run(&["pull", "--quiet", "--platform", "linux/riscv64", &reference]);
    let line = output.failure();
    for word in ["linux/riscv64", "linux/amd64", "linux/arm64"] {
        assert!(line.contains(word), "{word}: {line}");
    }
}

#[test]
fn a_digest_names_the_same_image_as_its_tag() {
    let (registry, store) = setup();
    let image = small_image("image");
    let by_tag = registry.push(&image, "image", "v1").unwrap();
    let by_digest = format!("{}@{}", registry.reference("image"), image.manifest.digest);
    store.run(&["pull", &by_digest]).success();
    let first = registry.fetched_blobs().unwrap().len();
    store.run(&["pull", &by_tag]).success();
    assert_eq!(
        registry.fetched_blobs().unwrap().len(),
        first,
        "the tag fetches nothing more"
    );
    assert!(
        store
            .bundle(&by_digest, "by-digest")
            .join("rootfs/name")
            .exists()
    );
    assert!(store.bundle(&by_tag, "by-tag").join("rootfs/name").exists());
}

#[test]
fn with_a_tag_and_a_digest_the_digest_decides() {
    let (registry, store) = setup();
    let (wanted, other) = (small_image("wanted"), small_image("other"));
    registry.push(&wanted, "image", "wanted").unwrap();
    registry.push(&other, "image", "v1").unwrap();
    let both = format!(
        "{}:v1@{}",
        registry.reference("image"),
        wanted.manifest.digest
    );
    store.run(&["pull", &both]).success();
    let content = fs::read_to_string(store.bundle(&both, "one").join("rootfs/name")).unwrap();
    assert_eq!(content, "wanted");
}

#[test]
fn a_second_pull_fetches_no_blob() {
    let (registry, store) = setup();
    let reference = registry
        .push(&images::multi_layer().unwrap(), "multi", "latest")
        .unwrap();
    store.run(&["pull", &reference]).success();
    let first = registry.fetched_blobs().unwrap();
    assert_eq!(first.len(), 5, "a config and four layers: {first:?}");
    store.run(&["pull", &reference]).success();
    assert_eq!(registry.fetched_blobs().unwrap(), first);
}

#[test]
fn layers_that_two_images_share_are_fetched_once() {
    let (registry, store) = setup();
    let (base, more) = (
        images::filler_layer("base", 20, 500),
        images::filler_layer("more", 5, 50),
    );
    let one = ImageBuilder::new().layer(&base).build();
    let two = ImageBuilder::new().layer(&base).layer(&more).build();
    for (image, name) in [(&one, "one"), (&two, "two")] {
        let reference = registry.push(image, name, "latest").unwrap();
        store.run(&["pull", &reference]).success();
    }
    let fetched = registry.fetched_blobs().unwrap();
    let times = fetched
        .iter()
        .filter(|digest| **digest == one.layers[0].digest)
        .count();
    assert_eq!(times, 1, "{fetched:?}");
}

#[test]
fn a_tag_that_moved_is_pulled_anew() {
    let (registry, store) = setup();
    for name in ["first", "second"] {
        let reference = registry
            .push(&small_image(name), "image", "latest")
            .unwrap();
        store.run(&["pull", &reference]).success();
        let content =
            fs::read_to_string(store.bundle(&reference, name).join("rootfs/name")).unwrap();
        assert_eq!(content, name);
    }
}

#[test]
fn quiet_says_at_most_the_digest() {
    let registry = Registry::start().unwrap();
    let image = small_image("image");
    let reference = registry.push(&image, "image", "latest").unwrap();
    let store = made_store();
    let output = store.run(&["pull", "--quiet", &reference]);
    output.success();
    assert_eq!(output.stderr, "");
    let said = output.stdout.trim();
    assert!(
        said.is_empty() || said.ends_with(&image.manifest.digest),
        "{said}"
    );
}

#[test]
fn json_on_standard_output_has_the_digest_in_it() {
    let (registry, store) = setup();
    let image = images::multi_layer().unwrap();
    let reference = registry.push(&image, "multi", "latest").unwrap();
    let output = store.run(&["pull", "--format", "json", &reference]);
    let answer: serde_json::Value = serde_json::from_str(output.success()).unwrap();
    let text = answer.to_string();
    assert!(text.contains(&image.manifest.digest), "{text}");
    assert!(text.contains(&image.config.digest), "{text}");
}

#[test]
fn without_a_terminal_there_are_plain_lines() {
    let (registry, store) = setup();
    let reference = registry
        .push(&images::multi_layer().unwrap(), "multi", "latest")
        .unwrap();
    let output = store.run(&["pull", &reference]);
    output.success();
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(!said.contains(['\r', '\u{1b}']), "{said:?}");
    assert!(said.lines().count() >= 4, "a line for each layer: {said}");
}

#[test]
fn on_a_terminal_there_is_a_bar_while_a_layer_comes() {
    let layer = images::filler_layer("f", 100, 4000);
    let image = ImageBuilder::new().layer(&layer).build();
    let digest = image.layers[0].digest.clone();
    let blob = image.layers[0].bytes.to_vec();
    let server = HostileRegistry::start(move |request| {
        let slowly = Delivery::Slowly(Duration::from_millis(20));
        request
            .target
            .ends_with(&digest)
            .then(|| Answer::document("application/octet-stream", blob.clone()).delivery(slowly))
    })
    .unwrap();
    let store = made_store();
    let reference = server.serve(&image, "image", "latest");
    let pull = store.command(&["pull", &reference]);
    let words = pull.get_args().map(|word| word.to_str().unwrap());
    let line = [pull.get_program().to_str().unwrap()]
        .into_iter()
        .chain(words);
    let line = line.collect::<Vec<_>>().join(" ");
    // util-linux's script gives it a terminal.
    let mut script = Command::new("script");
    let output = run_command(script.args(["-qec", &line, "/dev/null"]));
    output.success();
    let short = &image.layers[0].digest["sha256:".len()..][..12];
    assert!(
        output.stdout.contains('\u{1b}') && output.stdout.contains(short),
        "{output}"
    );
    assert!(output.stdout.contains("KiB"), "how much has come: {output}");
}

#[test]
fn a_loop_backed_store_is_announced_in_one_line_once() {
    let (registry, store) = setup();
    let reference = registry
        .push(&small_image("image"), "image", "latest")
        .unwrap();
    let root = store.path().to_string_lossy().into_owned();
    let announced = |output: &conformance::Output| {
        output
            .stderr
            .lines()
            .filter(|line| line.contains("btrfs") && line.contains(&root))
            .count()
    };
    let first = store.run(&["pull", &reference]);
    first.success();
    assert_eq!(announced(&first), 1, "{first}");
    let second = store.run(&["pull", &reference]);
    second.success();
    assert_eq!(announced(&second), 0, "{second}");
}

#[test]
fn plain_http_is_for_loopback_and_for_registries_named_insecure() {
    let (server, store) = (
        HostileRegistry::honest().unwrap(),
        StoreRoot::new().unwrap(),
    );
    let hosts = store.beside("hosts");
    fs::write(&hosts, "127.0.0.1 localhost registry.example\n").unwrap();
    // In this test's own mount namespace.
    nix::mount::mount(
        Some(&hosts),
        "/etc/hosts",
        None::<&str>,
        nix::mount::MsFlags::MS_BIND,
        None::<&str>,
    )
    .unwrap();
    let port = server.host().rsplit(':').next().unwrap().to_owned();
    server.serve(&small_image("image"), "image", "latest");
    let host = format!("registry.example:{port}");
    let reference = format!("{host}/image:latest");

    let output = store.run(&["pull", "--quiet", &reference]);
    assert!(
        output.failure().contains("--insecure-registry"),
        "the hint says how: {output}"
    );
    assert!(
        server
            .requests()
            .iter()
            .all(|request| request.target.is_empty()),
        "nothing in plain text"
    );

    store
        .run(&["--insecure-registry", &host, "pull", &reference])
        .success();
    store
        .run(&["pull", &format!("localhost:{port}/image:latest")])
        .success();
}

#[test]
fn many_images_are_pulled_at_once_into_one_store() {
    let registry = Registry::start().unwrap();
    let base = images::busybox_layer().unwrap();
    let references: Vec<String> = (0..4)
        .map(|number| {
            let own = images::filler_layer(&format!("own{number}"), 10, 1000);
            let image = ImageBuilder::new().layer(&base).layer(&own).build();
            registry
                .push(&image, &format!("image{number}"), "latest")
                .unwrap()
        })
        .collect();
    let store = made_store();
    let children: Vec<_> = references
        .iter()
        .map(|name| store.command(&["pull", "--quiet", name]).spawn().unwrap())
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    for (number, reference) in references.iter().enumerate() {
        let rootfs = store
            .bundle(reference, &format!("b{number}"))
            .join("rootfs");
        assert!(rootfs.join(format!("own{number}/0/9")).exists());
        assert!(rootfs.join("bin/busybox").exists());
    }
}
