//! `mount`: a look into a root from outside, which nothing takes away meanwhile.

use std::fs;
use std::path::{Path, PathBuf};

use conformance::images::Entry;
use conformance::mount_table;

use super::bundle::Bundles;
use super::changes::bundle_of;
use super::{image_of, state};

/// Mounts `args`; returns where.
#[track_caller]
pub(super) fn mount(bundles: &Bundles, args: &[&str]) -> PathBuf {
    let args = [&["mount"], args].concat();
    PathBuf::from(bundles.store.run(&args).success().trim_end())
}

#[track_caller]
pub(super) fn assert_looks_safe(directory: &Path) {
    let mounts = mount_table::current();
    let mount = mounts
        .iter()
        .find(|mount| mount.point == directory)
        .unwrap();
    for option in ["ro", "nosuid", "nodev"] {
        assert!(mount.has(option), "{option}: {mount:?}");
    }
    assert!(
        fs::write(directory.join("new"), "").is_err(),
        "it can be written to"
    );
}

#[test]
fn images_and_bundles_are_mounted_read_only_and_listed() {
    let mut bundles = Bundles::new();
    let image = bundles.pull(&image_of([vec![Entry::file("a", "of the image")]]));
    let (bundle, root) = bundle_of(&mut bundles, vec![Entry::file("a", "1")]);
    fs::write(root.join("a"), "of the bundle").unwrap();
    let before = state(&bundles.store);
    let given = bundles.store.beside("given place");
    fs::create_dir(&given).unwrap();
    let own = mount(&bundles, &[&image]);
    let named = mount(&bundles, &[&bundle, given.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(own.join("a")).unwrap(), "of the image");
    assert_eq!(
        fs::read_to_string(named.join("a")).unwrap(),
        "of the bundle"
    );
    for directory in [&own, &named] {
        assert_looks_safe(directory);
    }
    assert_eq!(mount(&bundles, &[&image]), own, "it is mounted once");
    let list = bundles.store.run(&["mount", "--format", "json"]).json();
    let mut names: Vec<&str> = list
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|row| row["name"].as_str())
        .collect();
    names.sort_unstable();
    let mut expected = [image.as_str(), &bundle];
    expected.sort_unstable();
    assert_eq!(names, expected);
    let text = bundles.store.run(&["mount"]).success().to_owned();
    assert!(
        text.contains(own.to_str().unwrap()) && text.contains(&bundle),
        "{text}"
    );
    bundles.store.run(&["umount", &image]).success();
    bundles
        .store
        .run(&["umount", given.to_str().unwrap()])
        .success();
    assert!(!own.exists() && given.exists());
    let after = state(&bundles.store);
    let left: Vec<_> = after
        .0
        .iter()
        .filter(|path| !before.0.contains(path))
        .collect();
    assert_eq!(left, ["mounts"]);
}

#[test]
fn what_is_mounted_is_in_use() {
    let mut bundles = Bundles::new();
    let image = bundles.pull(&image_of([vec![Entry::file("a", "1")]]));
    let (bundle, _) = bundle_of(&mut bundles, vec![Entry::file("a", "2")]);
    let (of_image, of_bundle) = (mount(&bundles, &[&image]), mount(&bundles, &[&bundle]));
    let line = bundles
        .store
        .run(&["unbundle", &bundle])
        .one_line_failure()
        .to_owned();
    assert!(line.contains("is mounted at"), "{line}");
    bundles.store.run(&["rm", &image]).success();
    bundles.store.run(&["prune", "--all"]).success();
    assert_eq!(fs::read_to_string(of_image.join("a")).unwrap(), "1");
    assert_eq!(fs::read_to_string(of_bundle.join("a")).unwrap(), "2");
    bundles.store.run(&["umount", "--all"]).success();
    bundles.store.run(&["unbundle", &bundle]).success();
    bundles.store.run(&["prune", "--all"]).success();
    assert_eq!(bundles.store.subvolumes().unwrap(), Vec::<String>::new());
}

#[test]
fn a_mount_that_went_away_by_itself_can_be_unmounted_and_made_again() {
    let mut bundles = Bundles::new();
    let image = bundles.pull(&image_of([vec![Entry::file("a", "1")]]));
    let directory = mount(&bundles, &[&image]);
    nix::mount::umount(&directory).unwrap();
    assert_eq!(mount(&bundles, &[&image]), directory);
    assert!(directory.join("a").exists());
    nix::mount::umount(&directory).unwrap();
    bundles.store.run(&["umount", &image]).success();
    assert_eq!(
        bundles.store.run(&["mount", "--format", "json"]).json(),
        serde_json::json!([])
    );
}

#[test]
fn what_cannot_be_mounted_is_one_line() {
    let mut bundles = Bundles::new();
    let image = bundles.pull(&image_of([vec![Entry::file("a", "1")]]));
    let given = bundles.store.beside("given");
    fs::create_dir(&given).unwrap();
    let given = given.to_str().unwrap();
    mount(&bundles, &[&image, given]);
    for (args, expected) in [
        (vec!["mount", "missing"], "is not here"),
        (vec!["mount", &image, "/nowhere"], "realpath(\"/nowhere\")"),
        (vec!["mount", &image, given], "is mounted there already"),
        (vec!["umount", "missing"], "\"missing\" is not mounted"),
    ] {
        let output = bundles.store.run(&args);
        let line = output.one_line_failure();
        assert!(line.contains(expected), "{args:?}: {line}");
    }
    bundles.store.run(&["umount", "--all"]).success();
}
