//! Stores that are full, small or on a file system of the user's own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use conformance::images::{Compression, Entry, Image, ImageBuilder, Layer};
use conformance::{HostileRegistry, StoreRoot};

use super::{assert_unchanged, assert_undamaged, made_store, small_image, state};

/// Makes a btrfs of so many MiB and mounts it at the store's root; it goes
/// with the test's mount namespace.
pub(super) fn mount_btrfs(store: &StoreRoot, mebibytes: u64) {
    let image = store.beside("btrfs.img");
    File::create(&image)
        .unwrap()
        .set_len(mebibytes << 20)
        .unwrap();
    run(Command::new("mkfs.btrfs")
        .arg("--quiet")
        .arg("--mixed")
        .arg(&image));
    run(Command::new("mount")
        .args(["-o", "loop"])
        .arg(&image)
        .arg(store.path()));
}

#[track_caller]
pub(super) fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// An image of so many files of 4 MiB, quickly made and not compressed.
fn large_image(files: usize) -> Image {
    let content: Vec<u8> = (0..4_u32 << 20)
        .map(|at| (at / 512).to_le_bytes()[0])
        .collect();
    let layer = Layer::of((0..files).map(|number| Entry::file(format!("f{number}"), &content)));
    ImageBuilder::new()
        .layer_in(Compression::Plain, &layer.finish())
        .build()
}

#[test]
fn a_store_on_btrfs_needs_no_loop_device_of_its_own() {
    let (server, store) = (
        HostileRegistry::honest().unwrap(),
        StoreRoot::new().unwrap(),
    );
    mount_btrfs(&store, 200);
    let reference = server.serve(&small_image("image"), "image", "latest");
    let output = store.run(&["pull", &reference]);
    output.success();
    assert!(!output.stderr.contains("loop"), "{output}");
    assert!(store.bundle(&reference, "one").join("rootfs/name").exists());
    assert_eq!(
        store.loop_devices().len(),
        1,
        "the one that this test mounted"
    );
}

#[test]
fn what_is_kept_for_the_next_pull_is_not_in_the_way_of_this_one() {
    let (server, store) = (
        HostileRegistry::honest().unwrap(),
        StoreRoot::new().unwrap(),
    );
    // room for the layer, but not for its blob beside it
    mount_btrfs(&store, 200);
    let reference = server.serve(&large_image(30), "image", "latest");
    store.run(&["pull", "--quiet", &reference]).success();
    let inventory = store.inventory().unwrap();
    assert!(
        !inventory.iter().any(|path| path.starts_with("partial/")),
        "{inventory:?}"
    );
    assert!(store.bundle(&reference, "one").join("rootfs/f29").exists());
}

#[test]
fn a_full_disk_is_told_and_nothing_is_left() {
    let (server, store) = (
        HostileRegistry::honest().unwrap(),
        StoreRoot::new().unwrap(),
    );
    mount_btrfs(&store, 120);
    store
        .run(&[
            "pull",
            &server.serve(&small_image("good"), "good", "latest"),
        ])
        .success();
    let before = state(&store);
    let image = large_image(60);
    let reference = server.serve(&image, "big", "latest");
    let output = store.run(&["pull", "--quiet", &reference]);
    let line = output.one_line_failure().to_lowercase();
    assert!(line.contains("space"), "{line}");
    assert_unchanged(&store, &before);
    // What was there still works, and so does a pull that fits.
    assert!(store.directory().join("bundles").exists());
    let small = server.serve(&small_image("small"), "small", "latest");
    store.run(&["pull", &small]).success();
    assert!(store.bundle(&small, "one").join("rootfs/name").exists());
}

#[test]
fn a_full_disk_under_the_loop_backed_store_is_told_and_nothing_is_left() {
    let (server, store) = (
        HostileRegistry::honest().unwrap(),
        StoreRoot::new().unwrap(),
    );
    // The sparse file itself lies on a disk that is too small.
    run(Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=220m", "tmpfs"])
        .arg(store.path()));
    let image = large_image(100);
    let reference = server.serve(&image, "big", "latest");
    let output = store.run(&["pull", "--quiet", &reference]);
    assert_ne!(output.code(), 0, "{output}");
    assert!(!output.stderr.contains("panicked"), "{output}");
    let last = output.stderr.trim_end().lines().last().unwrap_or_default();
    assert!(
        last.starts_with("gocker-image: ") || last.starts_with("hint: "),
        "{output}"
    );
}

#[test]
fn the_store_is_closed_to_other_users() {
    use std::os::unix::fs::PermissionsExt;
    let (server, store) = (
        HostileRegistry::honest().unwrap(),
        StoreRoot::new().unwrap(),
    );
    store
        .run(&[
            "pull",
            &server.serve(&small_image("image"), "image", "latest"),
        ])
        .success();
    let mode = |path: PathBuf| path.metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(store.directory()), 0o700);
    // What the file system is made of is as closed as the file system.
    assert_eq!(mode(store.path().join("store.btrfs")) & 0o077, 0);
}

#[test]
fn no_loop_device_outlives_the_stores_unmount() {
    let (server, store) = (
        HostileRegistry::honest().unwrap(),
        StoreRoot::new().unwrap(),
    );
    store
        .run(&[
            "pull",
            &server.serve(&small_image("image"), "image", "latest"),
        ])
        .success();
    let devices = store.loop_devices();
    assert_eq!(devices.len(), 1, "{devices:?}");
    conformance::leftovers::remove_mounts(&store.path());
    let backing = Path::new("/sys/block")
        .join(devices[0].file_name().unwrap())
        .join("loop/backing_file");
    let gone = || {
        fs::read_to_string(&backing)
            .map_or(true, |file| !file.contains(store.path().to_str().unwrap()))
    };
    assert!(
        conformance::wait_until(std::time::Duration::from_secs(5), gone),
        "still attached: {devices:?}"
    );
}

#[test]
fn an_unmounted_store_is_mounted_again_with_all_that_it_held() {
    let (server, store) = (
        HostileRegistry::honest().unwrap(),
        StoreRoot::new().unwrap(),
    );
    let reference = server.serve(&small_image("image"), "image", "latest");
    store.run(&["pull", &reference]).success();
    conformance::leftovers::remove_mounts(&store.path());
    assert!(store.bundle(&reference, "one").join("rootfs/name").exists());
}

#[test]
fn a_root_that_cannot_be_made_is_told() {
    let (server, store) = (
        HostileRegistry::honest().unwrap(),
        StoreRoot::new().unwrap(),
    );
    let reference = server.serve(&small_image("image"), "image", "latest");
    fs::write(store.beside("file"), "").unwrap();
    fs::remove_dir(store.path()).unwrap();
    std::os::unix::fs::symlink(store.beside("file"), store.path()).unwrap();
    let output = store.run(&["pull", "--quiet", &reference]);
    assert!(
        output
            .one_line_failure()
            .contains(store.path().to_str().unwrap()),
        "{output}"
    );
}

#[test]
fn a_save_to_a_full_disk_leaves_nothing() {
    let (server, store) = (HostileRegistry::honest().unwrap(), made_store());
    let reference = server.serve(&large_image(1), "image", "latest");
    let args = ["pull", "--quiet", "--keep-blobs", &reference];
    store.run(&args).success();
    let place = store.beside("place");
    fs::create_dir(&place).unwrap();
    run(Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
        .arg(&place));
    let output = place.join("image");
    let output = output.to_str().unwrap();
    for form in ["oci-archive", "oci-dir", "docker-archive", "docker-dir"] {
        let args = ["save", "-q", "--as", form, "-o", output, &reference];
        let failed = store.run(&args);
        assert!(failed.one_line_failure().contains("space"), "{failed}");
        let left = fs::read_dir(&place).unwrap().count();
        assert_eq!(left, 0, "{form} left something");
    }
}

#[test]
fn a_load_into_a_full_store_leaves_nothing() {
    let (server, saving) = (HostileRegistry::honest().unwrap(), made_store());
    let reference = server.serve(&large_image(30), "big", "latest");
    saving.run(&["pull", "--quiet", &reference]).success();
    let archive = saving.beside("big.tar");
    let archive = archive.to_str().unwrap();
    let args = ["save", "-q", "-o", archive, &reference];
    saving.run(&args).success();
    let store = StoreRoot::new().unwrap();
    mount_btrfs(&store, 120);
    let small = server.serve(&small_image("small"), "small", "latest");
    store.run(&["pull", "--quiet", &small]).success();
    let before = state(&store);
    let failed = store.run(&["load", "-q", "-i", archive]);
    assert!(failed.one_line_failure().contains("space"), "{failed}");
    assert_unchanged(&store, &before);
    assert_undamaged(&store, "a load without space");
}
