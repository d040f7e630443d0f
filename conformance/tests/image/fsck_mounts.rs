//! `fsck` and `prune` where roots are mounted, and where things lie in a store that are none of
//! its own.

use std::fs;
use std::path::{Path, PathBuf};

use conformance::StoreRoot;
use conformance::mount_table;

use super::fsck::{Case, DAMAGED, REPAIRED, is_record};
use super::{made_store, state};

/// Mounts the image of a case; returns where.
#[track_caller]
fn mount(case: &Case) -> PathBuf {
    let mounted = case.store.run(&["mount", &case.reference]);
    PathBuf::from(mounted.success().trim_end())
}

fn is_mounted(directory: &Path) -> bool {
    let mounts = mount_table::current();
    mounts.iter().any(|mount| mount.point == directory)
}

/// Every way to damage what is known of a mount, given its record and the place of the store's
/// own, and the path that fsck names for it.
type Damage = (&'static str, fn(&Case, &Path, &Path) -> PathBuf);

const DAMAGES: [Damage; 4] = [
    ("a record that is not JSON", |_, record, _| {
        fs::write(record, "{").unwrap();
        record.to_owned()
    }),
    ("the record of another mount", |_, record, _| {
        let other = record.with_file_name(format!("sha256-{}.json", "0".repeat(64)));
        fs::rename(record, &other).unwrap();
        other
    }),
    ("a mount without a record", |_, record, place| {
        fs::remove_file(record).unwrap();
        place.to_owned()
    }),
    ("a mount without its image", |case, record, _| {
        fs::remove_file(case.first("images", is_record)).unwrap();
        record.to_owned()
    }),
];

#[test]
fn what_is_wrong_with_a_mount_is_told_and_repaired() {
    let case = Case::new();
    for (what, damage) in DAMAGES {
        let place = mount(&case);
        let record = case.first("mounts", is_record);
        let named = damage(&case, &record, &place);
        let found = case.fsck(&[]);
        assert_eq!(found.code(), DAMAGED, "{what}: {found}");
        let mut lines = found.stdout.lines();
        let line = lines.find(|line| line.starts_with(named.to_str().unwrap()));
        assert!(
            line.is_some_and(|line| line.contains("--repair")),
            "{what}: {found}"
        );
        assert!(is_mounted(&place), "{what}: only told");
        let repaired = case.fsck(&["--repair"]);
        assert_eq!(repaired.code(), REPAIRED, "{what}: {repaired}");
        assert!(!is_mounted(&place), "{what}");
        let clean = case.fsck(&["--format", "json"]).json();
        assert_eq!(clean["findings"], serde_json::json!([]), "{what}");
        assert_eq!(case.files("mounts"), [""; 0].map(PathBuf::from), "{what}");
        case.pull();
    }
    // and it can be mounted as before
    assert!(mount(&case).join("below").exists());
    let answer = case.fsck(&["--format", "json"]).json();
    assert_eq!(answer["checked"]["mounts"], 1);
}

#[test]
fn a_damaged_record_of_a_mount_keeps_prune_from_guessing() {
    let case = Case::new();
    let place = mount(&case);
    let record = case.first("mounts", is_record);
    fs::write(&record, "{").unwrap();
    let output = case.store.run(&["prune", "--all"]);
    let line = output.one_line_failure();
    assert!(line.contains(record.to_str().unwrap()), "{line}");
    assert!(output.stderr.contains("fsck --repair"), "{output}");
    assert!(place.join("below").exists(), "nothing is gone");
}

#[test]
fn what_is_left_of_a_mount_that_is_gone_is_no_damage_and_goes() {
    let case = Case::new();
    for args in [&["fsck", "--repair"][..], &["prune"]] {
        let place = mount(&case);
        nix::mount::umount(&place).unwrap();
        let found = case.fsck(&[]);
        assert_eq!(found.code(), 0, "{found}");
        assert!(found.stdout.contains("a mount that is no more"), "{found}");
        case.store.run(args).success();
        assert_eq!(case.files("mounts"), [""; 0].map(PathBuf::from), "{args:?}");
    }
}

#[test]
fn a_mount_that_only_another_process_sees_is_in_use() {
    let case = Case::new();
    let place = std::thread::scope(|scope| {
        let (done, end) = std::sync::mpsc::channel::<()>();
        let (mounted, place) = std::sync::mpsc::channel();
        let case = &case;
        scope.spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            mounted.send(mount(case)).unwrap();
            // its sleeper keeps the namespace
            let mut sleeper = std::process::Command::new("sleep")
                .arg("600")
                .spawn()
                .unwrap();
            mounted.send(PathBuf::new()).unwrap();
            end.recv().unwrap_err();
            sleeper.kill().unwrap();
            sleeper.wait().unwrap();
        });
        let directory = place.recv().unwrap();
        place.recv().unwrap();
        assert!(!is_mounted(&directory));
        case.store.run(&["rm", &case.reference]).success();
        case.store.run(&["prune", "--all"]).success();
        assert_eq!(case.files("mounts").len(), 2, "the record and the place");
        assert_eq!(case.fsck(&["--repair"]).code(), 0);
        drop(done);
        directory
    });
    case.store.run(&["prune"]).success();
    assert!(!place.exists());
    assert_eq!(case.store.subvolumes().unwrap(), [""; 0]);
}

/// Files and directories that no command of this program makes.
const STRANGERS: [&str; 10] = [
    "notes",
    "locks/notes",
    "locks/directory/",
    "blobs/notes",
    "partial/notes",
    "partial/directory/",
    "layers/notes",
    "images/notes",
    "bundles/notes",
    "mounts/notes",
];

fn place_strangers(store: &StoreRoot) {
    fs::create_dir_all(store.directory().join("mounts")).unwrap();
    for stranger in STRANGERS {
        let path = store.directory().join(stranger);
        if stranger.ends_with('/') {
            fs::create_dir(path).unwrap();
        } else {
            fs::write(path, "mine").unwrap();
        }
    }
}

#[test]
fn what_is_none_of_the_stores_own_is_told_and_in_nobodys_way() {
    let store = made_store();
    place_strangers(&store);
    let before = state(&store);
    let found = store.run(&["fsck", "--repair"]);
    assert_eq!(found.code(), 0, "{found}");
    for stranger in STRANGERS {
        let path = store.directory().join(stranger.trim_end_matches('/'));
        let said = format!("{}: nothing of this program is named so", path.display());
        assert!(found.stdout.contains(&said), "{stranger}: {found}");
    }
    for args in [&["ls"][..], &["df"], &["prune"], &["prune", "--all"]] {
        store.run(args).success();
    }
    super::assert_unchanged(&store, &before);
    assert!(store.directory().join("locks/notes").exists());
}
