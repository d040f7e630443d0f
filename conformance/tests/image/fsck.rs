//! `fsck`: what is damaged is found and told, repair removes it, and the next pull brings it again.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use conformance::command::Output;
use conformance::images::{Entry, Image};
use conformance::{HostileRegistry, StoreRoot, run_command};
use serde_json::Value;

use super::{image_of, made_store, state};

/// Damage is left.
pub(super) const DAMAGED: i32 = 4;
/// All damage is repaired.
pub(super) const REPAIRED: i32 = 3;

fn image() -> Image {
    image_of([
        vec![Entry::dir("."), Entry::file("below", "below")],
        vec![Entry::dir("."), Entry::file("above", "above")],
    ])
}

/// A store with one image, which can be pulled again.
pub(super) struct Case {
    _server: HostileRegistry,
    pub(super) store: StoreRoot,
    pub(super) reference: String,
}

impl Case {
    pub(super) fn new() -> Self {
        let (server, store) = (
            HostileRegistry::honest().unwrap(),
            StoreRoot::new().unwrap(),
        );
        let reference = server.serve(&image(), "image", "latest");
        let case = Self {
            _server: server,
            store,
            reference,
        };
        case.pull();
        case
    }

    #[track_caller]
    pub(super) fn pull(&self) {
        self.store
            .run(&["pull", "--quiet", &self.reference])
            .success();
    }

    pub(super) fn fsck(&self, options: &[&str]) -> Output {
        self.store.run(&[&["fsck"], options].concat())
    }

    /// The files that the store has in `directory`.
    pub(super) fn files(&self, directory: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.store.directory().join(directory)).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    pub(super) fn first(&self, directory: &str, is_meant: impl Fn(&Path) -> bool) -> PathBuf {
        let mut files = self.files(directory).into_iter();
        files.find(|path| is_meant(path)).unwrap()
    }
}

#[track_caller]
fn btrfs(before: &[&str], path: &Path, after: &[&str]) {
    let mut command = Command::new("btrfs");
    command.args(before).arg(path).args(after);
    run_command(&mut command).success();
}

pub(super) fn is_record(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "json")
}

fn flip_first_byte(path: &Path) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 0).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 0).unwrap();
}

/// Changes what a record says of itself.
fn rename_in(path: &Path, field: &str) {
    let mut record: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    record[field] = match record[field].as_str().unwrap() {
        digest if digest.starts_with("sha256:") => format!("sha256:{}", "0".repeat(64)),
        name => format!("other/{name}"),
    }
    .into();
    fs::write(path, serde_json::to_vec(&record).unwrap()).unwrap();
}

/// Neither many directories side by side nor deep ones are taken for damage.
#[test]
fn a_tree_with_more_directories_than_descriptors_is_read() {
    const DESCRIPTORS: usize = 64;
    let mut layer = vec![Entry::dir(".")];
    let mut deep = String::new();
    for number in 0..3 * DESCRIPTORS {
        layer.push(Entry::dir(format!("d{number}")));
        deep.push_str("d/");
        layer.push(Entry::dir(deep.trim_end_matches('/')));
    }
    let (server, store) = (HostileRegistry::honest().unwrap(), made_store());
    let reference = server.serve(&image_of([layer]), "image", "latest");
    store.run(&["pull", "--quiet", &reference]).success();
    let fsck = store.command(&["fsck", "--deep"]);
    let mut command = Command::new("prlimit");
    command.arg(format!("--nofile={DESCRIPTORS}"));
    command.arg(fsck.get_program()).args(fsck.get_args());
    run_command(&mut command).success();
}

/// Every way to damage a store, and the path that fsck names for it.
type Damage = (&'static str, fn(&Case) -> PathBuf);

const DAMAGES: [Damage; 10] = [
    ("a blob with another byte", |case| {
        let blob = case.first("blobs/sha256", |_| true);
        flip_first_byte(&blob);
        blob
    }),
    ("a blob that is gone", |case| {
        fs::remove_file(case.first("blobs/sha256", |_| true)).unwrap();
        case.first("images", is_record)
    }),
    ("a layer's record that is not JSON", |case| {
        let record = case.first("layers", is_record);
        fs::write(&record, "{").unwrap();
        record
    }),
    ("the record of another layer", |case| {
        let record = case.first("layers", is_record);
        rename_in(&record, "chain_id");
        record
    }),
    ("a layer whose diff ID is another", |case| {
        let record = case.first("layers", is_record);
        rename_in(&record, "diff_id");
        record
    }),
    ("a layer without a tree", |case| {
        let tree = case.first("layers", |path| !is_record(path));
        btrfs(&["subvolume", "delete"], &tree, &[]);
        tree
    }),
    ("a layer that is writable", |case| {
        let tree = case.first("layers", |path| !is_record(path));
        btrfs(&["property", "set", "-f"], &tree, &["ro", "false"]);
        tree
    }),
    ("an image's record that is not JSON", |case| {
        let record = case.first("images", is_record);
        fs::write(&record, "[]").unwrap();
        record
    }),
    ("the record of another name", |case| {
        let record = case.first("refs", is_record);
        rename_in(&record, "reference");
        record
    }),
    ("a name without its image", |case| {
        fs::remove_file(case.first("images", is_record)).unwrap();
        case.first("refs", is_record)
    }),
];

#[test]
fn a_store_after_pull_bundle_and_prune_is_clean() {
    let case = Case::new();
    case.store.bundle(&case.reference, "one");
    let outside = case.store.beside("two");
    let outside = outside.to_str().unwrap();
    case.store
        .run(&["bundle", &case.reference, outside])
        .success();
    for options in [&[][..], &["--deep"], &["--repair"]] {
        let output = case.fsck(options);
        assert_eq!(output.code(), 0, "{output}");
        assert_eq!(
            output.stdout,
            "2 blobs, 2 layers, 1 images, 1 names, 2 bundles: 0 damaged, 0 repaired\n"
        );
    }
    let answer = case.fsck(&["--format", "json"]).json();
    assert_eq!(answer["checked"]["layers"], 2);
    assert_eq!(answer["findings"], Value::Array(Vec::new()));
}

#[test]
fn where_there_is_no_store_nothing_is_damaged_and_none_is_made() {
    let store = StoreRoot::new().unwrap();
    assert_eq!(store.run(&["fsck"]).code(), 0);
    assert_eq!(fs::read_dir(store.path()).unwrap().count(), 0);
}

#[test]
fn what_is_damaged_is_told_repaired_and_brought_again_by_a_pull() {
    let case = Case::new();
    let whole = state(&case.store);
    for (what, damage) in DAMAGES {
        let named = damage(&case);
        let damaged = case.store.inventory().unwrap();
        let found = case.fsck(&[]);
        assert_eq!(found.code(), DAMAGED, "{what}: {found}");
        let named = named.to_str().unwrap();
        let line = found.stdout.lines().find(|line| line.starts_with(named));
        assert!(
            line.is_some_and(|line| line.contains("--repair")),
            "{what}: {found}"
        );
        assert_eq!(
            case.store.inventory().unwrap(),
            damaged,
            "{what}: only told"
        );
        let repaired = case.fsck(&["--repair"]);
        assert_eq!(repaired.code(), REPAIRED, "{what}: {repaired}");
        let clean = case.fsck(&[]);
        assert_eq!(clean.code(), 0, "{what}: {clean}");
        case.pull();
        assert_eq!(state(&case.store), whole, "{what}");
        assert_eq!(case.fsck(&[]).code(), 0, "{what}");
    }
}

#[test]
fn a_bundles_data_goes_only_when_that_is_asked_for() {
    let case = Case::new();
    let bundle = case.store.bundle(&case.reference, "one");
    fs::write(bundle.join("rootfs/precious"), "data").unwrap();
    fs::write(bundle.join("gocker.json"), "{").unwrap();
    let output = case.fsck(&["--repair"]);
    assert_eq!(output.code(), DAMAGED, "{output}");
    assert!(output.stdout.contains("--remove-bundles"), "{output}");
    assert!(bundle.join("rootfs/precious").exists());
    let output = case.fsck(&["--repair", "--remove-bundles"]);
    assert_eq!(output.code(), REPAIRED, "{output}");
    assert!(!bundle.exists());
    assert_eq!(case.fsck(&[]).code(), 0);
}

#[test]
fn a_bundle_whose_directory_was_deleted_is_still_unbundled_by_it() {
    let case = Case::new();
    let above = case.store.beside("above");
    let directory = above.join("below");
    let path = directory.to_str().unwrap();
    let bundle = ["bundle", &case.reference, path];
    case.store.run(&bundle).success();
    fs::remove_dir_all(&above).unwrap();
    assert_eq!(case.fsck(&[]).code(), DAMAGED);
    let again = case.store.run(&bundle);
    assert!(again.failure().contains("hint: unbundle"), "{again}");
    case.store.run(&["unbundle", path]).success();
    assert_eq!(case.fsck(&[]).code(), 0);
    case.store.run(&bundle).success();
}

#[test]
fn bundles_without_a_root_or_a_config_are_damaged() {
    let case = Case::new();
    let one = case.store.bundle(&case.reference, "one");
    btrfs(&["subvolume", "delete"], &one.join("rootfs"), &[]);
    let two = case.store.beside("two");
    case.store
        .run(&["bundle", &case.reference, two.to_str().unwrap()])
        .success();
    fs::remove_dir_all(&two).unwrap();
    let answer = case.fsck(&["--repair", "--format", "json"]);
    assert_eq!(answer.code(), DAMAGED, "{answer}");
    let answer: Value = serde_json::from_str(&answer.stdout).unwrap();
    let mut outcomes: Vec<_> = answer["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| {
            (
                finding["path"].as_str().unwrap(),
                finding["outcome"].as_str().unwrap(),
            )
        })
        .collect();
    outcomes.sort_unstable();
    let (rootfs, config) = (one.join("rootfs"), two.join("config.json"));
    let mut wanted = [
        (rootfs.to_str().unwrap(), "repaired"),
        (config.to_str().unwrap(), "found"),
    ];
    wanted.sort_unstable();
    assert_eq!(outcomes, wanted);
    assert!(!one.exists(), "it held nothing");
}

#[test]
fn leftovers_are_no_damage_and_repair_removes_them() {
    let store = made_store();
    let clean = state(&store);
    let draft = format!("layers/.new-sha256-{}", "a".repeat(64));
    btrfs(
        &["subvolume", "create"],
        &store.directory().join(&draft),
        &[],
    );
    fs::create_dir(store.directory().join("bundles/half")).unwrap();
    let output = store.run(&["fsck"]);
    assert_eq!(output.code(), 0, "{output}");
    assert!(output.stdout.contains(&draft), "{output}");
    assert!(output.stdout.contains("bundles/half"), "{output}");
    assert_eq!(store.run(&["fsck", "--repair"]).code(), 0);
    assert_eq!(state(&store), clean);
}

#[test]
fn what_another_command_uses_is_not_repaired_away() {
    let case = Case::new();
    let blob = case.first("blobs/sha256", |_| true);
    flip_first_byte(&blob);
    let hex = blob.file_name().unwrap().to_str().unwrap();
    let lock = case
        .store
        .directory()
        .join(format!("locks/blob-sha256-{hex}"));
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(lock)
        .unwrap();
    file.lock_shared().unwrap();
    let output = case.fsck(&["--repair"]);
    assert_eq!(output.code(), DAMAGED, "{output}");
    assert!(
        output.stdout.contains("in use by another command"),
        "{output}"
    );
    assert!(blob.exists());
    drop(file);
    assert_eq!(case.fsck(&["--repair"]).code(), REPAIRED);
    assert!(!blob.exists());
}
