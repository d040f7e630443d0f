//! `load`: what other tools write becomes what they meant, under names that are nobody else's.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use conformance::command::run_with_stdin;
use conformance::image_tools::{Podman, skopeo_copy};
use conformance::images::Image;
use conformance::{Registry, StoreRoot, run_command, umoci};
use serde_json::Value;

use super::{assert_same_trees, corpus, made_store, rootfs, small_image};

/// Loads a file or directory under the name `loaded`; returns what is said of it.
#[track_caller]
pub(super) fn load(store: &StoreRoot, path: &Path) -> Value {
    let input = path.to_str().unwrap();
    let args = [
        "load",
        "--format",
        "json",
        "--tag",
        "loaded",
        "--replace",
        "--input",
        input,
    ];
    store.run(&args).json()
}

/// The root file system of an image that is loaded.
#[track_caller]
fn loaded_tree(store: &StoreRoot, path: &Path, id: &str) -> PathBuf {
    load(store, path);
    store.bundle("loaded", id).join("rootfs")
}

/// A file with `image` in it, saved by our own tool.
#[track_caller]
pub(super) fn archive(store: &StoreRoot, image: &Image, form: &str) -> PathBuf {
    let registry = Registry::start().unwrap();
    let reference = registry.push(image, "saved", "1").unwrap();
    store.run(&["pull", "--keep-blobs", &reference]).success();
    let path = store.beside(&format!("saved-{form}"));
    let output = path.to_str().unwrap();
    store
        .run(&["save", "--as", form, "-o", output, &reference])
        .success();
    store.run(&["rm", &reference]).success();
    path
}

#[test]
fn what_was_saved_comes_back_as_it_was() {
    let registry = Registry::start().unwrap();
    for (name, image) in corpus() {
        let (from, to) = (StoreRoot::new().unwrap(), StoreRoot::new().unwrap());
        let reference = registry.push(&image, name, "1").unwrap();
        let before = rootfs(&from, &reference, "before");
        for form in ["oci-archive", "oci-dir", "docker-archive", "docker-dir"] {
            let path = from.beside(form);
            let output = path.to_str().unwrap();
            from.run(&["save", "-q", "--as", form, "-o", output, &reference])
                .success();
            let answer = load(&to, &path);
            // a docker-archive has no manifest
            assert_eq!(
                answer[0]["manifest"] == image.manifest.digest.as_str(),
                form != "docker-archive",
                "{name} as {form}"
            );
            assert_eq!(answer[0]["config"], image.config.digest.as_str());
            let tree = to.bundle("loaded", form).join("rootfs");
            assert_same_trees(&tree, &before, &format!("{name} as {form}"));
        }
    }
}

#[test]
fn what_skopeo_copies_is_read() {
    let registry = Registry::start().unwrap();
    for (name, image) in corpus() {
        let store = StoreRoot::new().unwrap();
        let reference = registry.push(&image, name, "1").unwrap();
        let before = rootfs(&store, &reference, "before");
        for transport in ["oci-archive", "oci", "docker-archive", "dir"] {
            // skopeo does not decompress zstd for a docker-archive
            if (name, transport) == ("zstd", "docker-archive") {
                continue;
            }
            let path = store.beside(transport);
            let tag = match transport {
                "dir" => "",
                "docker-archive" => ":localhost/x:1",
                _ => ":image",
            };
            let to = format!("{transport}:{}{tag}", path.display());
            skopeo_copy(&format!("docker://{reference}"), &to).unwrap();
            let tree = loaded_tree(&store, &path, transport);
            assert_same_trees(&tree, &before, &format!("{name} as {transport}"));
        }
    }
}

#[test]
fn what_podman_saves_is_read_with_its_names() {
    let (registry, podman) = (Registry::start().unwrap(), Podman::new().unwrap());
    let (name, image) = corpus().swap_remove(1);
    let store = StoreRoot::new().unwrap();
    let reference = registry.push(&image, name, "1").unwrap();
    let before = rootfs(&store, &reference, "before");
    podman
        .run(&["pull", "--quiet", "--tls-verify=false", &reference])
        .unwrap();
    podman
        .run(&["tag", &reference, "localhost/by-podman:2"])
        .unwrap();
    for form in ["oci-archive", "oci-dir", "docker-archive", "docker-dir"] {
        let path = store.beside(form);
        let output = path.to_str().unwrap();
        let save = [
            "save",
            "--quiet",
            "--format",
            form,
            "-o",
            output,
            "localhost/by-podman:2",
        ];
        podman.run(&save).unwrap();
        let tree = loaded_tree(&store, &path, form);
        assert_same_trees(&tree, &before, form);
        if form.ends_with("archive") {
            let fresh = StoreRoot::new().unwrap();
            let answer = fresh
                .run(&["load", "--format", "json", "-i", output])
                .json();
            assert_eq!(
                answer[0]["references"],
                serde_json::json!(["localhost/by-podman:2"])
            );
        }
    }
}

#[test]
fn what_umoci_repacks_is_read() {
    let (registry, store) = (Registry::start().unwrap(), StoreRoot::new().unwrap());
    let reference = registry
        .push(&small_image("repacked"), "image", "1")
        .unwrap();
    let layout = umoci::fetch(&reference, &store.beside("umoci")).unwrap();
    let (image, bundle) = (
        format!("{}:image", layout.display()),
        store.beside("bundle"),
    );
    run_command(
        Command::new("umoci")
            .args(["unpack", "--image", &image])
            .arg(&bundle),
    )
    .success();
    let tree = bundle.join("rootfs");
    fs::write(tree.join("added"), "by umoci").unwrap();
    fs::remove_file(tree.join("name")).unwrap();
    // umoci writes whole seconds
    let mut touch = Command::new("touch");
    touch
        .args(["-d", "@1700000000"])
        .arg(tree.join("added"))
        .arg(&tree);
    run_command(&mut touch).success();
    run_command(
        Command::new("umoci")
            .args(["repack", "--image", &image])
            .arg(&bundle),
    )
    .success();
    let tree = loaded_tree(&store, &layout, "repacked");
    assert_same_trees(&tree, &bundle.join("rootfs"), "repacked");
}

#[test]
fn a_stream_is_read_however_it_is_compressed() {
    let store = StoreRoot::new().unwrap();
    let image = small_image("stream");
    for form in ["oci-archive", "docker-archive"] {
        let path = archive(&store, &image, form);
        for program in ["cat", "gzip", "zstd"] {
            let packed = store.beside("packed");
            let mut pack = Command::new(program);
            let file = File::create(&packed).unwrap();
            let status = pack.stdin(File::open(&path).unwrap()).stdout(file).status();
            assert!(status.unwrap().success(), "{program}");
            for input in ["-", packed.to_str().unwrap()] {
                let mut command = store.command(&["load", "--quiet", "--tag", "x", "-i", input]);
                command.stdin(File::open(&packed).unwrap());
                let output = run_with_stdin(&mut command);
                let digest = output.success().trim();
                assert!(
                    digest.starts_with("sha256:"),
                    "{form} by {program}: {output}"
                );
            }
        }
    }
}

#[test]
fn an_archive_that_is_compressed_otherwise_is_refused_by_the_programs_name() {
    let store = made_store();
    let bytes: [(&str, &[u8]); 2] = [
        ("xz", b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4F"),
        ("bzip2", b"BZh91AY&SY\x10\x10"),
    ];
    for (program, start) in bytes {
        let path = store.beside("packed");
        fs::write(&path, start).unwrap();
        let output = store.run(&["load", "-i", path.to_str().unwrap()]);
        let expected = format!("compressed by {program}");
        assert!(output.one_line_failure().contains(&expected), "{output}");
    }
}

#[test]
fn only_an_image_that_has_no_name_at_all_is_said_to_have_none() {
    let store = StoreRoot::new().unwrap();
    let path = archive(&store, &small_image("nameless"), "docker-dir");
    let load = ["load", "-q", "-i", path.to_str().unwrap()];
    let first = store.run(&load);
    let digest = first.success().trim();
    let note = format!("image {digest} has no name");
    assert!(first.stderr.contains(&note), "{first}");
    store.run(&["tag", digest, "given"]).success();
    let second = store.run(&load);
    assert_eq!(second.success().trim(), digest);
    assert_eq!(second.stderr, "");
}

#[test]
fn a_name_that_another_image_has_is_left_alone_unless_it_is_asked_for() {
    let (registry, store) = (Registry::start().unwrap(), StoreRoot::new().unwrap());
    let (mine, other) = (small_image("mine"), small_image("other"));
    let reference = registry.push(&other, "name", "1").unwrap();
    store.run(&["pull", "--keep-blobs", &reference]).success();
    let path = store.beside("other.tar");
    let path = path.to_str().unwrap();
    store.run(&["save", "-o", path, &reference]).success();
    let again = store.run(&["load", "--format", "json", "-i", path]).json();
    assert_eq!(
        again[0]["references"],
        serde_json::json!([reference]),
        "it is its own"
    );
    // now the name is that of another image
    registry.push(&mine, "name", "1").unwrap();
    store.run(&["pull", &reference]).success();
    let of_name = || store.run(&["inspect", &reference]).json()["manifest"].clone();
    let output = store.run(&["load", "--format", "json", "-i", path]);
    assert!(output.stderr.contains("--replace"), "{output}");
    assert_eq!(
        output.json()[0]["refused_references"],
        serde_json::json!([reference])
    );
    assert_eq!(of_name(), mine.manifest.digest.as_str(), "left alone");
    store
        .run(&["load", "--tag", "localhost/new", "-i", path])
        .success();
    assert_eq!(of_name(), mine.manifest.digest.as_str(), "still");
    store.run(&["load", "--replace", "-i", path]).success();
    assert_eq!(of_name(), other.manifest.digest.as_str(), "taken");
}

#[test]
fn a_loaded_image_is_pushed_from_its_blobs_which_may_be_left_out() {
    let (registry, store) = (Registry::start().unwrap(), StoreRoot::new().unwrap());
    let image = small_image("pushed");
    let path = archive(&store, &image, "oci-archive");
    let path = path.to_str().unwrap();
    let destination = registry.reference("to:1");
    store
        .run(&["load", "--no-keep-blobs", "--tag", "x", "-i", path])
        .success();
    let output = store.run(&["push", "x", &destination]);
    let line = output.one_line_failure();
    assert!(line.contains("was not pulled from a registry"), "{line}");
    assert!(line.contains("without --no-keep-blobs"), "{line}");
    store.run(&["load", "--tag", "x", "-i", path]).success();
    store.run(&["push", "x", &destination]).success();
    let raw = umoci::raw_manifest(&destination).unwrap();
    assert!(raw == *image.manifest.bytes);
}

#[test]
fn the_policy_decides_on_archives_by_their_transport_and_path() {
    let store = StoreRoot::new().unwrap();
    let path = archive(&store, &small_image("policy"), "oci-archive");
    let accept = r#"[{"type":"insecureAcceptAnything"}]"#;
    let reject = r#"[{"type":"reject"}]"#;
    let place = store.beside("");
    let place = place.to_str().unwrap().trim_end_matches('/');
    for (default, scope, good) in [
        (accept, String::new(), true),
        (reject, String::new(), false),
        (reject, format!(r#""oci-archive":{{"":{accept}}}"#), true),
        (
            reject,
            format!(r#""oci-archive":{{"{place}":{accept}}}"#),
            true,
        ),
        (
            accept,
            format!(r#""oci-archive":{{"{place}":{reject}}}"#),
            false,
        ),
        (
            reject,
            format!(r#""docker-archive":{{"":{accept}}}"#),
            false,
        ),
        (
            r#"[{"type":"sigstoreSigned","keyData":"eA=="}]"#,
            String::new(),
            false,
        ),
    ] {
        let policy = store.beside("policy.json");
        let text = format!(r#"{{"default":{default},"transports":{{{scope}}}}}"#);
        fs::write(&policy, &text).unwrap();
        let policy = policy.to_str().unwrap();
        let input = path.to_str().unwrap();
        let output = store.run(&["load", "--tag", "x", "--policy", policy, "-i", input]);
        if good {
            output.success();
        } else {
            output.failure();
        }
    }
}
