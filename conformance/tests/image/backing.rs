//! Stores on file systems without btrfs: trees are copies, and every rule of the store holds.

use std::fs;
use std::path::Path;
use std::process::Command;

use conformance::images::{self, Compression, Entry, Image, ImageBuilder, Layer};
use conformance::{HostileRegistry, StoreRoot, run_command, tree};
use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::statvfs;

use super::{image_of, small_image};

/// A file system other than btrfs, and what a store on it says of itself.
pub(super) struct FileSystem {
    pub(super) name: &'static str,
    make: Option<&'static [&'static str]>,
    trees: &'static str,
}

pub(super) const XFS: FileSystem = FileSystem {
    name: "xfs",
    make: Some(&["mkfs.xfs", "-q", "-m", "reflink=1"]),
    trees: "reflinks",
};
pub(super) const EXT4: FileSystem = FileSystem {
    name: "ext4",
    make: Some(&["mkfs.ext4", "-q", "-F"]),
    trees: "copies",
};
pub(super) const TMPFS: FileSystem = FileSystem {
    name: "tmpfs",
    make: None,
    trees: "copies",
};

/// An empty store root on `system`, mounted for this test alone.
pub(super) fn store_on(system: &FileSystem) -> StoreRoot {
    let store = StoreRoot::new().unwrap();
    let mut command = Command::new("mount");
    match system.make {
        None => command.args(["-t", system.name, system.name]),
        Some(make) => {
            let image = store.beside("disk.img");
            fs::File::create(&image)
                .unwrap()
                .set_len(400 << 20)
                .unwrap();
            run_command(Command::new(make[0]).args(&make[1..]).arg(&image)).success();
            command.args(["-o", "loop"]).arg(&image)
        }
    };
    run_command(command.arg(store.path())).success();
    store
}

fn trees_of(store: &StoreRoot) -> String {
    let meta = fs::read(store.directory().join("meta.json")).unwrap();
    let meta: serde_json::Value = serde_json::from_slice(&meta).unwrap();
    meta["trees"].as_str().unwrap().to_owned()
}

/// Images with all that a tree can hold.
fn strange_images(system: &FileSystem) -> Vec<(&'static str, Image)> {
    let mut images = vec![
        ("kinds", kinds()),
        ("sparse", images::sparse_files()),
        ("links", images::cross_link()),
        ("whiteouts", images::whiteouts()),
    ];
    if system.name != XFS.name {
        // it has devices of greater numbers than xfs can keep
        images.push(("names", images::names_and_metadata()));
    }
    images
}

/// Every kind of file, with attributes and times of its own, in two layers.
fn kinds() -> Image {
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    image_of([
        vec![
            Entry::dir(".").mode(0o750).owner(3, 4).mtime(77, 5),
            Entry::dir("d").mode(0o1777).mtime(1234, 987_654_321),
            Entry::file("d/setuid", "x").mode(0o4755).owner(1, 2),
            Entry::file("d/capable", "x").xattr("security.capability", capability),
            Entry::file("d/marked", "x").xattr("user.mark", vec![b'm'; 900]),
            Entry::file("d/empty", "").mtime(1, 1),
            Entry::hard_link("d/linked", "d/setuid"),
            Entry::symlink("l", "d/nothing")
                .owner(70_000, 80_000)
                .mtime(99, 9),
            Entry::fifo("fifo").mode(0o622),
            Entry::char_device("null", 1, 3).mode(0o666),
            Entry::block_device("disk", 7, 200),
        ],
        vec![Entry::dir("."), Entry::hard_link("again", "d/linked")],
    ])
}

/// Pulls and bundles every image in `store`.
fn bundle_all(server: &HostileRegistry, store: &StoreRoot, images: &[(&str, Image)]) {
    for (name, image) in images {
        let reference = server.serve(image, name, "latest");
        store.run(&["pull", "--quiet", &reference]).success();
        store.bundle(&reference, name);
    }
}

#[test]
fn copies_are_the_trees_that_snapshots_are() {
    let server = HostileRegistry::honest().unwrap();
    let on_btrfs = StoreRoot::new().unwrap();
    bundle_all(&server, &on_btrfs, &strange_images(&EXT4));
    for system in [XFS, EXT4] {
        let store = store_on(&system);
        store
            .run(&[
                "pull",
                "--quiet",
                "--backing",
                "copy",
                &server.serve(&small_image("a"), "a", "a"),
            ])
            .success();
        assert_eq!(trees_of(&store), system.trees, "{}", system.name);
        let images = strange_images(&system);
        bundle_all(&server, &store, &images);
        for (name, _) in images {
            let root = |store: &StoreRoot| {
                let path = store.directory().join("bundles").join(name).join("rootfs");
                tree::read_tree(&path).unwrap()
            };
            let (copied, snapshot) = (root(&store), root(&on_btrfs));
            let differences = tree::differences((system.name, &copied), ("btrfs", &snapshot));
            assert_eq!(differences, [""; 0], "{name} on {}", system.name);
        }
        let output = store.run(&["fsck", "--deep"]);
        assert_eq!(output.code(), 0, "{output}");
    }
}

#[test]
fn a_store_of_copies_is_pruned_unbundled_and_repaired_like_any_other() {
    let server = HostileRegistry::honest().unwrap();
    for system in [XFS, TMPFS] {
        let store = store_on(&system);
        let first = server.serve(&small_image("first"), "first", "latest");
        let output = store.run(&["--backing", "copy", "pull", "--quiet", &first]);
        output.success();
        assert_eq!(
            output.stderr.lines().count(),
            1,
            "said in one line: {output}"
        );
        let whole = store.inventory().unwrap();

        let bundle = store.bundle(&first, "one");
        fs::write(bundle.join("rootfs/name"), "changed").unwrap();
        let layers = fs::read_dir(store.directory().join("layers")).unwrap();
        let trees = layers
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir());
        for layer in trees {
            assert_eq!(fs::read_to_string(layer.join("name")).unwrap(), "first");
        }
        store.run(&["unbundle", "one"]).success();
        assert_eq!(store.inventory().unwrap(), whole);

        damage_a_layer(&store);
        assert_eq!(store.run(&["fsck", "--repair"]).code(), 3);
        assert_eq!(store.run(&["fsck"]).code(), 0);
        store.run(&["pull", "--quiet", &first]).success();
        assert_eq!(store.inventory().unwrap(), whole, "{}", system.name);

        store.run(&["rm", &first]).success();
        store.run(&["prune"]).success();
        let left = store.inventory().unwrap();
        let is_content = |path: &&String| path.contains("sha256-");
        assert_eq!(left.iter().find(is_content), None, "{}", system.name);
    }
}

/// Takes a layer's tree away.
fn damage_a_layer(store: &StoreRoot) {
    let entries = fs::read_dir(store.directory().join("layers")).unwrap();
    let mut paths = entries.map(|entry| entry.unwrap().path());
    fs::remove_dir_all(paths.find(|path| path.is_dir()).unwrap()).unwrap();
}

#[test]
fn a_container_runs_in_a_copy() {
    let server = HostileRegistry::honest().unwrap();
    let store = store_on(&XFS);
    let image = server.serve(&images::busybox().unwrap(), "busybox", "latest");
    let command = [
        "--backing",
        "copy",
        "run",
        "--rm",
        "--quiet",
        &image,
        "/bin/echo",
        "hello",
    ];
    let output = store.run_gocker(&command);
    assert_eq!(output.success(), "hello\n", "{output}");
}

#[test]
fn files_share_their_blocks_where_the_file_system_can() {
    let server = HostileRegistry::honest().unwrap();
    let store = store_on(&XFS);
    let layer = Layer::of([Entry::file("large", vec![b'x'; 24 << 20])]).finish();
    let image = ImageBuilder::new()
        .layer_in(Compression::Zstd, &layer)
        .build();
    let reference = server.serve(&image, "large", "latest");
    store
        .run(&["--backing", "copy", "pull", "--quiet", &reference])
        .success();
    let free = || {
        let stat = statvfs(&store.path()).unwrap();
        stat.blocks_free() * stat.fragment_size()
    };
    let before = free();
    for id in ["one", "two", "three"] {
        store.bundle(&reference, id);
    }
    let used = before - free();
    assert!(used < 12 << 20, "three bundles of 24 MiB take {used} bytes");
}

#[test]
fn without_loop_devices_a_store_falls_back_to_copies_and_remembers_it() {
    let server = HostileRegistry::honest().unwrap();
    let reference = server.serve(&small_image("image"), "image", "latest");
    let store = store_on(&TMPFS);
    let no_device = store.beside("no-device");
    fs::write(&no_device, "").unwrap();
    let control = Path::new("/dev/loop-control");
    mount(
        Some(&no_device),
        control,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .unwrap();
    let refused = store.run(&["--backing", "btrfs", "pull", "--quiet", &reference]);
    assert!(refused.one_line_failure().contains("loop"), "{refused}");
    let output = store.run(&["pull", "--quiet", &reference]);
    output.success();
    let said: Vec<_> = output
        .stderr
        .lines()
        .filter(|line| line.contains("copies"))
        .collect();
    assert_eq!(said.len(), 1, "{output}");
    nix::mount::umount(control).unwrap();

    assert_eq!(trees_of(&store), "copies");
    assert!(!store.path().join("store.btrfs").exists());
    assert!(store.bundle(&reference, "one").join("rootfs/name").exists());
    let refused = store.run(&["--backing", "btrfs", "pull", "--quiet", &reference]);
    assert!(
        refused.one_line_failure().contains("plain copies"),
        "{refused}"
    );
}

#[test]
fn a_bundle_with_a_mount_in_it_is_not_removed_through_the_mount() {
    let server = HostileRegistry::honest().unwrap();
    let reference = server.serve(&small_image("image"), "image", "latest");
    let store = store_on(&TMPFS);
    store
        .run(&["--backing", "copy", "pull", "--quiet", &reference])
        .success();
    let inside = store.bundle(&reference, "one").join("rootfs/inside");
    let precious = store.beside("precious");
    fs::create_dir(&inside).unwrap();
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("file"), "x").unwrap();
    mount(
        Some(&precious),
        &inside,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .unwrap();
    let output = store.run(&["unbundle", "one"]);
    assert!(output.one_line_failure().contains("EBUSY"), "{output}");
    assert!(precious.join("file").exists());
    nix::mount::umount(&inside).unwrap();
    store.run(&["unbundle", "one"]).success();
    assert!(precious.join("file").exists());
}
