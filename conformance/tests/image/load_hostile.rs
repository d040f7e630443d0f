//! Archives of images that are not what they should be: each is refused in one line, and leaves
//! the store as it was.

use std::fs;
use std::path::PathBuf;

use conformance::StoreRoot;
use conformance::images::{Compression, Entry, Image, ImageBuilder, Layer, digest_of};
use serde_json::{Value, json};

use super::{assert_unchanged, made_store, small_image, state};

/// The files of an OCI layout with one image.
fn layout(image: &Image) -> Vec<(String, Vec<u8>)> {
    let index = json!({"schemaVersion": 2, "manifests": [image.manifest.descriptor()]});
    let mut files = vec![
        (
            "oci-layout".to_owned(),
            br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
        ),
        ("index.json".to_owned(), index.to_string().into_bytes()),
    ];
    for blob in image.blobs().chain([&image.manifest]) {
        let name = format!("blobs/{}", blob.digest.replace(':', "/"));
        files.push((name, blob.bytes.to_vec()));
    }
    files
}

/// The files of a docker-archive with one image of one plain layer.
fn docker(change: impl FnOnce(&mut Value)) -> Vec<(String, Vec<u8>)> {
    let tar = Layer::of([Entry::dir("."), Entry::file("name", "docker")]).finish();
    let image = ImageBuilder::new()
        .layer_in(Compression::Plain, &tar)
        .build();
    let config = format!("{}.json", image.config.digest.replace("sha256:", ""));
    let mut rows = json!([{"Config": config, "RepoTags": ["name:1"], "Layers": ["id/layer.tar"]}]);
    change(&mut rows);
    vec![
        (config, image.config.bytes.to_vec()),
        ("id/layer.tar".to_owned(), tar),
        ("manifest.json".to_owned(), rows.to_string().into_bytes()),
    ]
}

fn entries(files: Vec<(String, Vec<u8>)>) -> Vec<Entry> {
    files
        .into_iter()
        .map(|(name, bytes)| Entry::file(name, bytes))
        .collect()
}

fn written(store: &StoreRoot, entries: Vec<Entry>) -> PathBuf {
    let path = store.beside("archive.tar");
    fs::write(&path, Layer::of(entries).finish()).unwrap();
    path
}

/// Asserts that an archive is refused by a line with `expected` in it, and changes nothing.
#[track_caller]
fn assert_refused(entries: Vec<Entry>, expected: &str) {
    let store = made_store();
    let before = state(&store);
    let path = written(&store, entries);
    let output = store.run(&["load", "--quiet", "-i", path.to_str().unwrap()]);
    let line = output.one_line_failure();
    assert!(line.contains(expected), "{line:?} lacks {expected:?}");
    store.run(&["prune"]).success();
    assert_unchanged(&store, &before);
}

#[test]
fn a_plain_archive_of_each_form_is_loaded() {
    let store = made_store();
    for (files, name) in [
        (layout(&small_image("good")), "localhost/one"),
        (docker(|_| {}), "localhost/two"),
    ] {
        let path = written(&store, entries(files));
        store
            .run(&["load", "--tag", name, "-i", path.to_str().unwrap()])
            .success();
    }
    // as Docker names layers that two images share
    let mut shared = entries(docker(|rows| {
        rows[0]["Layers"] = json!(["other/layer.tar"])
    }));
    shared.push(Entry::symlink("other/layer.tar", "../id/layer.tar"));
    let path = written(&store, shared);
    store.run(&["load", "-i", path.to_str().unwrap()]).success();
    assert!(store.bundle("name:1", "b").join("rootfs/name").exists());
}

#[test]
fn members_that_lead_elsewhere_are_refused() {
    for (entry, expected) in [
        (Entry::file("/etc/passwd", "x"), "absolute"),
        (Entry::file("../x", "x"), "leads out"),
        (Entry::file("a/../../x", "x"), "leads out"),
        (Entry::symlink("x/y", "/etc/passwd"), "absolute"),
        (Entry::symlink("x/y", "../../etc/passwd"), "leads out"),
        (Entry::hard_link("x", "/etc/passwd"), "absolute"),
        (Entry::hard_link("x", "../etc/passwd"), "leads out"),
        (Entry::fifo("x"), "no file that an image has"),
        (Entry::char_device("x", 1, 3), "no file that an image has"),
        (Entry::file("./index.json", "{}"), "stands twice"),
    ] {
        let mut all = entries(layout(&small_image("hostile")));
        all.push(entry);
        assert_refused(all, expected);
    }
}

#[test]
fn links_are_not_followed_further_than_once() {
    let mut all = entries(docker(|rows| rows[0]["Layers"] = json!(["one"])));
    all.push(Entry::symlink("one", "two"));
    all.push(Entry::symlink("two", "one"));
    assert_refused(all, "a link to another link");
    let mut all = entries(docker(|rows| rows[0]["Config"] = json!("gone")));
    all.push(Entry::symlink("gone", "nowhere"));
    assert_refused(all, "missing");
}

#[test]
fn a_layout_that_is_not_whole_or_not_right_is_refused() {
    let image = small_image("broken");
    let (layer, config) = (&image.layers[0].digest, &image.config.digest);
    let name = |digest: &str| format!("blobs/{}", digest.replace(':', "/"));
    let replaced = |wanted: &str, bytes: Option<Vec<u8>>| {
        let mut files = layout(&image);
        files.retain(|(name, _)| name != wanted);
        files.extend(bytes.map(|bytes| (wanted.to_owned(), bytes)));
        entries(files)
    };
    let wrong = vec![b'x'; image.layers[0].bytes.len()];
    let huge = vec![b' '; (4 << 20) + 1];
    let index = |text: &str| Some(text.as_bytes().to_vec());
    for (all, expected) in [
        (replaced(&name(layer), None), "missing"),
        (replaced(&name(layer), Some(wrong)), "has the digest"),
        (replaced(&name(config), None), "missing"),
        (
            replaced(&name(config), Some(b"{}".to_vec())),
            "with the digest",
        ),
        (replaced("index.json", None), "index.json"),
        (replaced("index.json", Some(huge)), "a document at most"),
        (replaced("index.json", index("{} {}")), "index.json"),
        (
            replaced(
                "index.json",
                index(r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#),
            ),
            "both",
        ),
        (
            replaced("index.json", index(r#"{"schemaVersion":2,"manifests":[]}"#)),
            "no image",
        ),
        (
            replaced("oci-layout", index(r#"{"imageLayoutVersion":"2.0"}"#)),
            "2.0",
        ),
        (vec![Entry::file("readme", "x")], "holds no image"),
    ] {
        assert_refused(all, expected);
    }
}

#[test]
fn a_docker_archive_that_is_not_whole_or_not_right_is_refused() {
    let named = digest_of(b"another").replace("sha256:", "");
    let mut wrong_config = docker(|rows| rows[0]["Config"] = json!(format!("{named}.json")));
    wrong_config[0].0 = format!("{named}.json");
    let mut wrong_layer = docker(|_| {});
    wrong_layer[1].1 = Layer::of([Entry::file("name", "other")]).finish();
    for (files, expected) in [
        (docker(|rows| rows[0]["Layers"] = json!([])), "0 layers"),
        (
            docker(|rows| rows[0]["Layers"] = json!(["gone"])),
            "missing",
        ),
        (
            docker(|rows| rows[0]["Layers"] = json!(["../../etc/passwd"])),
            "missing",
        ),
        (
            docker(|rows| rows[0]["Config"] = json!("/etc/passwd")),
            "missing",
        ),
        (
            docker(|rows| rows[0]["RepoTags"] = json!(["UPPER case"])),
            "RepoTags",
        ),
        (docker(|rows| *rows = json!([])), "no image"),
        (wrong_config, "has the digest"),
        (wrong_layer, "fetch"),
    ] {
        assert_refused(entries(files), expected);
    }
    let mut twice = docker(|_| {});
    let text = String::from_utf8(twice[2].1.clone()).unwrap();
    twice[2].1 = text.replacen("{", r#"{"Config":"x","#, 1).into_bytes();
    assert_refused(entries(twice), "twice");
}

#[test]
fn a_directory_whose_files_are_links_is_refused() {
    let store = made_store();
    let before = state(&store);
    let directory = store.beside("layout");
    for (name, bytes) in layout(&small_image("linked")) {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let index = directory.join("index.json");
    let moved = store.beside("index.json");
    fs::rename(&index, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &index).unwrap();
    let output = store.run(&["load", "-i", directory.to_str().unwrap()]);
    assert!(output.one_line_failure().contains("index.json"), "{output}");
    assert_unchanged(&store, &before);
}
