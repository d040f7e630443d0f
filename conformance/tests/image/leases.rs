//! What a command works on stays, whatever other commands remove meanwhile.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use conformance::gate::Gate;
use conformance::hostile::Answer;
use conformance::http::Request;
use conformance::images::{self, Entry, Image, ImageBuilder, Layer};
use conformance::{HostileRegistry, Output, StoreRoot, wait_until};

use super::{assert_unchanged, assert_undamaged, made_store, state};

/// How long a command may take to come to the point that a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// An image of a layer that all have, and one that is its own; larger than any pipe.
fn image(name: &str) -> Image {
    ImageBuilder::new()
        .layer(&images::filler_layer("base", 100, 3000))
        .layer(&Layer::of([Entry::file("name", name)]).finish())
        .build()
}

/// Takes away all that nothing is said to need, in every way that there is.
#[track_caller]
fn remove_all(store: &StoreRoot, reference: &str) {
    store.run(&["prune"]).success();
    store.run(&["prune", "--all"]).success();
    let listed = store.run(&["ls", "--quiet"]).success().to_owned();
    assert!(
        listed.contains(reference),
        "the name of an image in use stays: {listed:?}"
    );
    store.run(&["rm", reference]).success();
    store.run(&["prune", "--all"]).success();
}

/// Waits for a command that has to succeed; returns what it has written.
#[track_caller]
fn finish(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn start(store: &StoreRoot, args: &[&str]) -> Child {
    let mut command = store.command(args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Starts a command and waits until it waits for the lock `path`, which the test holds.
#[track_caller]
fn start_until_locked(store: &StoreRoot, args: &[&str]) -> Child {
    let child = start(store, args);
    let pid = child.id().to_string();
    let waits = || {
        let locks = fs::read_to_string("/proc/locks").unwrap();
        let mut waiting = locks.lines().filter(|line| line.contains(" -> "));
        waiting.any(|line| line.split_whitespace().any(|word| word == pid))
    };
    assert!(wait_until(PATIENCE, waits), "{args:?} waits for no lock");
    child
}

/// Holds a lock of the store as a command does that works for long.
#[track_caller]
fn locked(store: &StoreRoot, name: &str) -> File {
    let path = store.directory().join("locks").join(name);
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).open(path).unwrap();
    file.lock().unwrap();
    file
}

/// Asserts that the bundle `id` has the whole tree of [`image`].
#[track_caller]
fn assert_whole(store: &StoreRoot, id: &str, name: &str) {
    let rootfs = store.directory().join("bundles").join(id).join("rootfs");
    assert_eq!(fs::read_to_string(rootfs.join("name")).unwrap(), name);
    let files = fs::read_dir(rootfs.join("base/0")).unwrap().count()
        + fs::read_dir(rootfs.join("base/1")).unwrap().count();
    assert_eq!(files, 100, "{name}");
}

#[test]
fn a_pull_keeps_the_layers_that_it_found_however_long_it_takes() {
    let (image, other) = (image("image"), image("other"));
    let (gate, own) = (Gate::default(), image.layers[1].digest.clone());
    let at_server = gate.clone();
    let server = HostileRegistry::start(move |request| {
        if request.target.ends_with(&own) {
            at_server.pass();
        }
        None
    })
    .unwrap();
    let store = made_store();
    let other = server.serve(&other, "other", "latest");
    store.run(&["pull", "--quiet", &other]).success();
    let reference = server.serve(&image, "image", "latest");
    let pull = start(&store, &["pull", "--format", "json", &reference]);
    assert!(gate.has_visitor(), "the pull asks for its own layer");
    store.run(&["rm", &other]).success();
    for args in [&["prune"][..], &["prune", "--all"]] {
        store.run(args).success();
    }
    gate.open();
    let answer: serde_json::Value = serde_json::from_str(&finish(pull)).unwrap();
    assert_eq!(answer["fetched_layers"], 1, "the other one stayed");
    store.bundle(&reference, "one");
    assert_whole(&store, "one", "image");
    assert_undamaged(&store, "a pull beside prune");
}

#[test]
fn a_push_has_its_image_to_its_end() {
    let (from, image) = (HostileRegistry::honest().unwrap(), image("pushed"));
    let gate = Gate::default();
    let at_server = gate.clone();
    let to = HostileRegistry::start(move |request| {
        Some(match request.method.as_str() {
            "HEAD" => {
                at_server.pass();
                Answer::status(404)
            }
            "POST" => Answer::status(202).field("Location", "/v2/copy/blobs/uploads/1"),
            _ => Answer::status(201),
        })
    })
    .unwrap();
    let store = made_store();
    let empty = state(&store);
    let reference = from.serve(&image, "image", "latest");
    let pull = ["pull", "--quiet", "--keep-blobs", &reference];
    store.run(&pull).success();
    drop(from);
    let destination = format!("{}/copy:1", to.host());
    let push = start(&store, &["push", "--quiet", &reference, &destination]);
    assert!(gate.has_visitor(), "the push asks for a layer");
    remove_all(&store, &reference);
    gate.open();
    finish(push);
    let uploads = to.requests().into_iter();
    let uploads: Vec<Request> = uploads.filter(|one| one.method == "PUT").collect();
    for layer in &image.layers {
        let is_whole = |upload: &Request| upload.body == *layer.bytes;
        assert!(uploads.iter().any(is_whole), "{}", layer.digest);
    }
    store.run(&["prune"]).success();
    assert_unchanged(&store, &empty);
}

/// Saves an image with its blobs; returns the archive. `meanwhile` happens when it has begun.
#[track_caller]
fn saved(store: &StoreRoot, name: &str, meanwhile: impl FnOnce(&str)) -> Vec<u8> {
    let server = HostileRegistry::honest().unwrap();
    let reference = server.serve(&image(name), name, "latest");
    let pull = ["pull", "--quiet", "--keep-blobs", &reference];
    store.run(&pull).success();
    drop(server);
    let mut save = start(store, &["save", "--quiet", &reference]);
    let mut output = save.stdout.take().unwrap();
    let mut archive = vec![0];
    output.read_exact(&mut archive).unwrap();
    // it waits for its reader now, with the rest of its layers before it
    meanwhile(&reference);
    output.read_to_end(&mut archive).unwrap();
    finish(save);
    archive
}

#[test]
fn a_save_has_its_images_to_its_end() {
    let store = made_store();
    let empty = state(&store);
    let archive = saved(&store, "saved", |reference| remove_all(&store, reference));
    store.run(&["prune"]).success();
    assert_unchanged(&store, &empty);
    let path = store.beside("archive");
    fs::write(&path, archive).unwrap();
    let load = ["load", "--tag", "loaded", "-i", path.to_str().unwrap()];
    store.run(&load).success();
    store.bundle("loaded", "one");
    assert_whole(&store, "one", "saved");
}

#[test]
fn a_load_is_not_in_the_way_of_prune_and_loses_nothing_by_it() {
    let store = made_store();
    let mut other = String::new();
    let archive = saved(&store, "first", |reference| {
        reference.clone_into(&mut other)
    });
    let mut command = store.command(&["load", "--tag", "loaded"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut load = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut input = load.stdin.take().unwrap();
    // more than a pipe holds, so it has been read when this returns
    let (half, rest) = archive.split_at(archive.len() / 2);
    input.write_all(half).unwrap();
    store.run(&["rm", &other]).success();
    store.run(&["prune", "--all"]).success();
    input.write_all(rest).unwrap();
    drop(input);
    finish(load);
    store.bundle("loaded", "one");
    assert_whole(&store, "one", "first");
    assert_undamaged(&store, "a load beside prune");
}

/// A store with one image, and its name.
#[track_caller]
fn store_with_image(name: &str) -> (StoreRoot, String) {
    let (server, store) = (HostileRegistry::honest().unwrap(), made_store());
    let reference = server.serve(&image(name), name, "latest");
    store.run(&["pull", "--quiet", &reference]).success();
    (store, reference)
}

#[test]
fn an_image_stays_from_when_a_bundle_is_begun_until_it_goes() {
    let (store, reference) = store_with_image("bundled");
    let other_command = locked(&store, "bundle-one");
    let bundle = start_until_locked(&store, &["bundle", &reference, "--name", "one"]);
    remove_all(&store, &reference);
    drop(other_command);
    finish(bundle);
    store.run(&["prune", "--all"]).success();
    assert_whole(&store, "one", "bundled");
    assert_undamaged(&store, "a bundle beside prune");
    let other_command = locked(&store, "bundle-one");
    let unbundle = start_until_locked(&store, &["unbundle", "one"]);
    drop(other_command);
    finish(unbundle);
    store.run(&["prune"]).success();
    assert_eq!(store.subvolumes().unwrap(), [""; 0]);
}

#[test]
fn of_two_bundles_in_one_directory_the_second_leaves_the_first_alone() {
    let (store, reference) = store_with_image("bundled");
    let directory = store.beside("bundle");
    let bundle = ["bundle", &reference, directory.to_str().unwrap()];
    store.run(&bundle).success();
    store.run(&["unbundle", bundle[2]]).success();
    let locks = fs::read_dir(store.directory().join("locks")).unwrap();
    let mut names = locks.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let lock = names.find(|name| name.starts_with("bundle-dir-bundle-"));
    let first = locked(&store, &lock.unwrap());
    let second = start_until_locked(&store, &bundle);
    let config = directory.join("config.json");
    fs::write(&config, "the first one's").unwrap();
    drop(first);
    let output = second.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("has a config.json already"), "{said}");
    assert_eq!(fs::read_to_string(config).unwrap(), "the first one's");
}

#[test]
fn two_mounts_of_one_image_at_once_are_one_mount() {
    let (store, reference) = store_with_image("mounted");
    let other_command = locked(&store, "mounts");
    let mounts = [(); 2].map(|()| start_until_locked(&store, &["mount", &reference]));
    remove_all(&store, &reference);
    drop(other_command);
    let [one, two] = mounts.map(finish);
    assert_eq!(one, two);
    let directory = Path::new(one.trim_end());
    assert_eq!(
        fs::read_to_string(directory.join("name")).unwrap(),
        "mounted"
    );
    store.run(&["umount", "--all"]).success();
    assert!(!directory.exists());
    store.run(&["prune"]).success();
    assert_eq!(store.subvolumes().unwrap(), [""; 0]);
}

/// How often each of the commands below runs.
const ROUNDS: usize = 6;

/// Asserts that a command has succeeded, or failed only because its image had been removed.
/// Returns whether it has succeeded.
#[track_caller]
fn succeeded_or_missed(output: &Output, image: &str) -> bool {
    if output.code() == 0 {
        return true;
    }
    let line = output.one_line_failure();
    assert_eq!(output.code(), 3, "{output}");
    assert!(
        line.ends_with(&format!(": image {image:?} is not here")),
        "{output}"
    );
    false
}

/// Pulls, bundles and tags one image again and again.
fn use_image(store: &StoreRoot, reference: &str, name: &str) {
    let (tag, outside) = (format!("tag-{name}:latest"), store.beside(name));
    let outside = outside.to_str().unwrap();
    for _ in 0..ROUNDS {
        store.run(&["pull", "--quiet", reference]).success();
        let bundle = store.run(&["bundle", reference, "--name", name]);
        if succeeded_or_missed(&bundle, reference) {
            assert_whole(store, name, name);
            store.run(&["unbundle", name]).success();
        }
        let tagged = store.run(&["tag", reference, &tag]);
        if succeeded_or_missed(&tagged, reference) {
            let bundle = store.run(&["bundle", &tag, outside]);
            if succeeded_or_missed(&bundle, &tag) {
                store.run(&["unbundle", outside]).success();
            }
            succeeded_or_missed(&store.run(&["rm", &tag]), &tag);
        }
    }
}

/// Removes and looks at all images again and again.
fn remove_images(store: &StoreRoot, references: &[String]) {
    for reference in references.iter().cycle().take(4 * ROUNDS) {
        store.run(&["prune"]).success();
        succeeded_or_missed(&store.run(&["inspect", reference]), reference);
        succeeded_or_missed(&store.run(&["rm", reference]), reference);
        store.run(&["df"]).success();
        store.run(&["prune", "--all"]).success();
        store.run(&["ls"]).success();
    }
}

#[test]
fn commands_that_use_images_and_commands_that_remove_them_do_not_harm_each_other() {
    let names = ["one", "two", "three"];
    let (server, store) = (HostileRegistry::honest().unwrap(), made_store());
    let empty = state(&store);
    let references = names.map(|name| server.serve(&image(name), name, "latest"));
    std::thread::scope(|scope| {
        for (reference, name) in references.iter().zip(names) {
            let store = &store;
            scope.spawn(move || use_image(store, reference, name));
        }
        scope.spawn(|| remove_images(&store, &references));
    });
    let findings = store.run(&["fsck", "--deep", "--format", "json"]).json();
    assert_eq!(findings["findings"], serde_json::json!([]));
    for reference in &references {
        succeeded_or_missed(&store.run(&["rm", reference]), reference);
    }
    store.run(&["prune", "--all"]).success();
    assert_unchanged(&store, &empty);
}
