//! `commit`: a container's changes become a layer, and an image that any tool unpacks to the same
//! tree.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use conformance::images::{self, Blob, Entry, ImageBuilder};
use conformance::tree::{Tree, differences, read_tree};
use conformance::{Registry, umoci};
use rustix::fs::{XattrFlags, lsetxattr};
use serde_json::{Value, json};

use super::bundle::Bundles;
use super::changes::{bundle_of, container_after};
use super::{image_of, state};

/// What a container does that changes all kinds of files.
pub(super) const BUSY_SCRIPT: &str = "echo new > /etc/new; echo more >> /etc/passwd; rm /etc/group
    chmod 2750 /root; chown 7:9 /root; ln -s nowhere /link; mkfifo -m 600 /tmp/fifo
    mkdir -p /a/b/c; echo x > /a/b/c/x; ln /a/b/c/x /y; rm -r /var/www; rm /bin/yes
    rm -r /var; echo file > /var; rm /etc/new; mkdir /etc/new; touch /etc/new/in
    mknod /tmp/device c 1 3; dd if=/dev/zero of=/sparse bs=1 seek=3000000 count=1 2>/dev/null
    ln /bin/cat /bin/dog; chown 2147483649:2147483649 /tmp/device; touch -d @-5 /old";

/// Commits the bundle `id` as `name`; returns what the command says of it.
#[track_caller]
pub(super) fn commit(bundles: &Bundles, id: &str, args: &[&str]) -> Value {
    let name = name(bundles);
    let args = [&["commit", "--format", "json", id, &name], args].concat();
    bundles.store.run(&args).json()
}

/// The name that committed images get.
pub(super) fn name(bundles: &Bundles) -> String {
    format!("{}/committed:1", bundles.server.host())
}

/// The tree of a bundle that is made of the committed image.
#[track_caller]
pub(super) fn committed_tree(bundles: &Bundles) -> Tree {
    read_tree(&committed_root(bundles)).unwrap()
}

/// The root of a bundle that is made of the committed image.
#[track_caller]
pub(super) fn committed_root(bundles: &Bundles) -> PathBuf {
    let directory = bundles.store.beside("committed");
    let path = directory.to_str().unwrap();
    let args = ["bundle", &name(bundles), path, "--", "/bin/true"];
    bundles.store.run(&args).success();
    let text = fs::read_to_string(directory.join("config.json")).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    config["root"]["path"].as_str().unwrap().into()
}

#[track_caller]
pub(super) fn assert_alike(left: (&str, &Tree), right: (&str, &Tree)) {
    let lines = differences(left, right);
    assert!(lines.is_empty(), "{}", lines.join("\n"));
}

/// A blob that the store has.
#[track_caller]
fn stored(bundles: &Bundles, digest: &Value, media_type: &Value) -> Blob {
    let digest = digest.as_str().unwrap();
    let path = digest.replace("sha256:", "blobs/sha256/");
    let bytes = fs::read(bundles.store.directory().join(path)).unwrap();
    let blob = Blob::new(media_type.as_str().unwrap(), bytes);
    assert_eq!(blob.digest, digest);
    blob
}

/// The blob that a descriptor names.
#[track_caller]
fn described(bundles: &Bundles, descriptor: &Value) -> Blob {
    let blob = stored(bundles, &descriptor["digest"], &descriptor["mediaType"]);
    assert_eq!(json!(blob.bytes.len()), descriptor["size"]);
    blob
}

#[track_caller]
fn inspect(bundles: &Bundles) -> Value {
    bundles.store.run(&["inspect", &name(bundles)]).json()
}

#[test]
fn an_image_of_a_container_has_the_containers_tree() {
    let mut bundles = Bundles::new();
    let id = container_after(&mut bundles, BUSY_SCRIPT);
    let root = bundles.directory().join("rootfs");
    let long = "n".repeat(120);
    fs::create_dir_all(root.join(format!("{long}/{long}"))).unwrap();
    let odd = root.join(OsStr::from_bytes(b"l\xe4tin\n"));
    fs::write(&odd, "").unwrap();
    for (attribute, value) in [("user.a", &b"1\n2=\0"[..]), ("trusted.b", b"x")] {
        lsetxattr(root.join("a"), attribute, value, XattrFlags::empty()).unwrap();
    }
    let before = read_tree(&root).unwrap();
    let diff = bundles.store.run(&["diff", &id]).success().to_owned();
    let answer = commit(&bundles, &id, &[]);
    assert_alike(("bundle", &before), ("image", &committed_tree(&bundles)));
    // the new layer is what had changed, and no more
    let shown = bundles
        .store
        .run(&["diff", &name(&bundles)])
        .success()
        .to_owned();
    assert_eq!(shown, diff);
    assert_eq!(answer["reference"], name(&bundles));
}

#[test]
fn umoci_unpacks_a_committed_image_to_the_same_tree() {
    let mut bundles = Bundles::new();
    let id = container_after(&mut bundles, BUSY_SCRIPT);
    let ours = read_tree(&bundles.directory().join("rootfs")).unwrap();
    commit(&bundles, &id, &[]);
    let inspected = inspect(&bundles);
    let manifest = &inspected["manifest_document"];
    let mut image = images::busybox().unwrap();
    let layers = &manifest["layers"];
    assert_eq!(layers[0]["digest"], json!(image.layers[0].digest));
    image.manifest = stored(&bundles, &inspected["manifest"], &manifest["mediaType"]);
    image.config = described(&bundles, &manifest["config"]);
    image.layers.push(described(&bundles, &layers[1]));
    let registry = Registry::start().unwrap();
    let reference = registry.push(&image, "committed", "latest").unwrap();
    let theirs = umoci::unpack(&reference, &bundles.store.beside("umoci")).unwrap();
    assert_alike(("bundle", &ours), ("umoci", &read_tree(&theirs).unwrap()));
}

#[test]
fn the_same_changes_give_the_same_image() {
    let mut bundles = Bundles::new();
    let timestamp = ["--timestamp", "1700000000"];
    let mut made = Vec::new();
    for _ in 0..2 {
        let id = container_after(&mut bundles, BUSY_SCRIPT);
        made.push(commit(&bundles, &id, &timestamp));
        made.push(commit(&bundles, &id, &timestamp));
        let mut command = bundles
            .store
            .command(&["commit", "-q", &id, &name(&bundles)]);
        let output = conformance::run_command(command.env("SOURCE_DATE_EPOCH", "1700000000"));
        assert_eq!(output.success().trim(), made[0]["manifest"]);
    }
    assert!(made.iter().all(|answer| *answer == made[0]), "{made:#?}");
    let config = &inspect(&bundles)["config_document"];
    assert_eq!(config["created"], "2023-11-14T22:13:20Z");
}

#[test]
fn a_layer_has_one_diff_id_in_every_compression() {
    let mut bundles = Bundles::new();
    let id = container_after(&mut bundles, "echo new > /new");
    let diff_ids: Vec<Value> = ["gzip", "zstd", "none"]
        .into_iter()
        .map(|compression| {
            commit(&bundles, &id, &["--compression", compression]);
            let inspected = inspect(&bundles);
            let layer = &inspected["manifest_document"]["layers"][1];
            let ending = match compression {
                "none" => ".layer.v1.tar".to_owned(),
                name => format!(".layer.v1.tar+{name}"),
            };
            let media_type = layer["mediaType"].as_str().unwrap();
            assert!(media_type.ends_with(&ending), "{compression}: {media_type}");
            let start = &described(&bundles, layer).bytes[..2];
            let is_right = match compression {
                "gzip" => start == [0x1f, 0x8b],
                "zstd" => start == [0x28, 0xb5],
                _ => start == b"Pa",
            };
            assert!(is_right, "{compression}: {start:?}");
            inspected["config_document"]["rootfs"]["diff_ids"].clone()
        })
        .collect();
    assert!(
        diff_ids.iter().all(|ids| *ids == diff_ids[0]),
        "{diff_ids:?}"
    );
}

#[test]
fn changes_of_the_config_and_the_history_are_the_new_images() {
    let mut bundles = Bundles::new();
    let id = container_after(&mut bundles, "echo new > /new");
    let args = [
        "--author",
        "me",
        "--message",
        "what was done",
        "--change",
        "CMD=[\"/bin/cat\", \"/new\"]",
        "--change",
        "ENV A=b",
        "--change",
        "LABEL=x=y",
        "--change",
        "USER=33",
        "--change",
        "EXPOSE 80",
        "--change",
        "WORKDIR=/tmp",
        "--change",
        "STOPSIGNAL=SIGINT",
        "--change",
        "VOLUME=/data",
        "--change",
        "ENTRYPOINT=[]",
    ];
    commit(&bundles, &id, &args);
    let config = inspect(&bundles)["config_document"].clone();
    let base_path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let expected = json!({
        "Cmd": ["/bin/cat", "/new"], "Entrypoint": [], "Env": [base_path, "A=b"], "Labels": {"x": "y"},
        "User": "33", "ExposedPorts": {"80/tcp": {}}, "WorkingDir": "/tmp",
        "StopSignal": "SIGINT", "Volumes": {"/data": {}},
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(config["config"][key], *value, "{key}: {config}");
    }
    let history = config["history"].as_array().unwrap();
    assert_eq!(history.len(), 2, "{config}");
    assert_eq!(history[1]["author"], "me");
    assert_eq!(history[1]["comment"], "what was done");
    assert_eq!(history[1]["created_by"], "/bin/sh -ec echo new > /new");
    assert_eq!(config["author"], "me");
    let id = bundles.id() + "-new";
    let directory = bundles.store.bundle(&name(&bundles), &id);
    let run = bundles
        .store
        .run_bundle(&directory, &conformance::test_bundle::unique_id());
    assert_eq!(run.success(), "new\n");
}

#[test]
fn without_changes_there_is_no_new_layer() {
    let mut bundles = Bundles::new();
    let id = container_after(&mut bundles, "true");
    let answer = commit(&bundles, &id, &["--change", "USER=1"]);
    assert_eq!(answer["layer"], Value::Null);
    let inspected = inspect(&bundles);
    assert_eq!(
        inspected["manifest_document"]["layers"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    assert_eq!(
        inspected["config_document"]["history"][1]["empty_layer"],
        true
    );
}

#[test]
fn squash_makes_one_layer_of_the_whole_tree() {
    let mut bundles = Bundles::new();
    let id = container_after(&mut bundles, BUSY_SCRIPT);
    let before = read_tree(&bundles.directory().join("rootfs")).unwrap();
    commit(&bundles, &id, &["--squash"]);
    let inspected = inspect(&bundles);
    let documents = (
        &inspected["manifest_document"],
        &inspected["config_document"],
    );
    for list in [
        &documents.0["layers"],
        &documents.1["rootfs"]["diff_ids"],
        &documents.1["history"],
    ] {
        assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
    }
    assert_alike(("bundle", &before), ("image", &committed_tree(&bundles)));
}

#[test]
fn an_image_on_top_of_dockers_is_ocis() {
    let mut bundles = Bundles::new();
    let layer = images::busybox_layer().unwrap();
    let image = ImageBuilder::new()
        .docker()
        .top_level("container_config", json!({"Cmd": ["x"]}))
        .layer(&layer)
        .build();
    let reference = bundles.pull(&image);
    let directory = bundles.store.beside("bundle");
    let path = directory.to_str().unwrap();
    bundles
        .store
        .run(&["bundle", &reference, path, "--", "/bin/touch", "/new"])
        .success();
    let run = bundles
        .store
        .run_bundle(&directory, &conformance::test_bundle::unique_id());
    run.success();
    commit(&bundles, path, &[]);
    let inspected = inspect(&bundles);
    let manifest = inspected["manifest_document"].clone();
    assert!(!manifest.to_string().contains("docker"), "{manifest}");
    let layer = &manifest["layers"][0];
    assert_eq!(
        layer["mediaType"],
        "application/vnd.oci.image.layer.v1.tar+gzip"
    );
    assert_eq!(layer["digest"], json!(image.layers[0].digest));
    assert_eq!(
        inspected["config_document"]["container_config"],
        Value::Null
    );
}

#[test]
fn a_committed_image_outlives_its_bundle_and_its_base() {
    let mut bundles = Bundles::new();
    let id = container_after(&mut bundles, "echo new > /new");
    commit(&bundles, &id, &[]);
    bundles.store.run(&["unbundle", &id]).success();
    let base = format!("{}/image1", bundles.server.host());
    bundles.store.run(&["rm", &base]).success();
    bundles.store.run(&["prune", "--all"]);
    bundles.store.run(&["ls"]).success();
    let again = bundles
        .store
        .run(&["bundle", &name(&bundles), "--name", "again"]);
    assert!(
        again.code() != 0,
        "prune --all removes every image that no bundle needs"
    );

    let id = container_after(&mut bundles, "echo new > /new");
    commit(&bundles, &id, &[]);
    bundles.store.run(&["unbundle", &id]).success();
    let base = format!("{}/image2", bundles.server.host());
    bundles.store.run(&["rm", &base]).success();
    bundles.store.run(&["prune"]).success();
    let tree = committed_tree(&bundles);
    assert!(tree.contains_key(&b"new"[..]) && tree.contains_key(&b"bin/cat"[..]));
}

#[test]
fn sockets_are_left_out_with_a_warning() {
    let mut bundles = Bundles::new();
    let entries = vec![
        Entry::dir("run"),
        Entry::file("was", "a file"),
        Entry::file("bin/x", ""),
    ];
    let (id, root) = bundle_of(&mut bundles, entries);
    fs::remove_file(root.join("was")).unwrap();
    let _sockets = ["run/new", "was"].map(|name| UnixListener::bind(root.join(name)).unwrap());
    let output = bundles.store.run(&["commit", &id, &name(&bundles)]);
    output.success();
    for name in ["run/new", "was"] {
        let warning = format!("warning: {name:?} is left out: it is a socket");
        assert!(output.stderr.contains(&warning), "{output}");
    }
    let names: Vec<_> = committed_tree(&bundles).into_keys().collect();
    assert_eq!(names, [&b""[..], b"bin", b"bin/x", b"run"]);
}

#[test]
fn what_cannot_be_in_a_layer_is_refused_and_leaves_nothing() {
    let mut bundles = Bundles::new();
    let (id, root) = bundle_of(&mut bundles, vec![Entry::dir("d"), Entry::file("f", "")]);
    let before = state(&bundles.store);
    let refused = |what: &[&str], args: &[&str]| {
        let args = [&["commit"], args].concat();
        let output = bundles.store.run(&args);
        let line = output.one_line_failure();
        assert!(
            what.iter().all(|what| line.contains(what)),
            "{args:?}: {line}"
        );
        assert_eq!(state(&bundles.store), before);
    };
    fs::write(root.join("d/.wh.x"), "").unwrap();
    refused(&["\"d/.wh.x\"", ".wh."], &[&id, &name(&bundles)]);
    fs::remove_file(root.join("d/.wh.x")).unwrap();
    let mut deep = root.join("d");
    for _ in 0..260 {
        deep.push("d");
        fs::create_dir(&deep).unwrap();
    }
    refused(&["more than 256 components"], &[&id, &name(&bundles)]);
    let digest = format!("{}@sha256:{}", name(&bundles), "0".repeat(64));
    refused(&["has a digest"], &[&id, &digest]);
    refused(
        &["\"missing\" does not exist"],
        &["missing", &name(&bundles)],
    );
    refused(
        &["--change", "FROM"],
        &[&id, &name(&bundles), "--change", "FROM x"],
    );
    refused(
        &["--change", "80/x"],
        &[&id, &name(&bundles), "--change", "EXPOSE 80/x"],
    );
}

#[test]
fn an_image_that_was_committed_can_be_committed_on_again() {
    let mut bundles = Bundles::new();
    let reference = bundles.pull(&image_of([vec![Entry::file("a", "1")]]));
    let mut base = reference;
    for number in 0..3 {
        let id = format!("c{number}");
        let root = bundles
            .store
            .run(&["bundle", &base, "--name", &id, "--", "x"]);
        root.success();
        let root = bundles
            .store
            .directory()
            .join("bundles")
            .join(&id)
            .join("rootfs");
        fs::write(root.join(format!("f{number}")), "").unwrap();
        commit(&bundles, &id, &[]);
        base = name(&bundles);
    }
    let names: Vec<_> = committed_tree(&bundles).into_keys().collect();
    assert_eq!(names, [&b""[..], b"a", b"f0", b"f1", b"f2"]);
    let layers = inspect(&bundles)["manifest_document"]["layers"].clone();
    assert_eq!(layers.as_array().map(Vec::len), Some(4));
}
