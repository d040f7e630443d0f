//! Whole root file systems, compared file by file and attribute by attribute
//! with what umoci makes of the same image.

use conformance::images::{self, Compression, Documents, Image, ImageBuilder};
use conformance::tree::{Kind, Tree, differences, read_tree};
use conformance::{Registry, StoreRoot, needs, umoci};

use super::rootfs;

/// Pulls the image and compares its tree with umoci's, path by path.
#[track_caller]
fn assert_like_umoci(image: &Image) {
    assert_like_umoci_of(image, image);
}

/// The same with another image for umoci, which stands for what ours must become.
#[track_caller]
fn assert_like_umoci_of(image: &Image, for_umoci: &Image) {
    assert_like_umoci_after(image, for_umoci, |_| {});
}

/// The same, after what umoci is known to do wrong has been put right.
#[track_caller]
fn assert_like_umoci_after(image: &Image, for_umoci: &Image, put_right: fn(&mut Tree)) {
    let (registry, store) = (Registry::start().unwrap(), StoreRoot::new().unwrap());
    let reference = registry.push(image, "image", "latest").unwrap();
    let theirs = registry.push(for_umoci, "for-umoci", "latest").unwrap();
    let mut theirs = read_tree(&umoci::unpack(&theirs, &store.beside("umoci")).unwrap()).unwrap();
    put_right(&mut theirs);
    let ours = read_tree(&rootfs(&store, &reference, "one")).unwrap();
    let lines = differences(("ours", &ours), ("umoci", &theirs));
    assert!(
        lines.is_empty(),
        "{} of {} paths differ:\n{}",
        lines.len(),
        theirs.len(),
        lines.join("\n")
    );
}

#[test]
fn busybox_is_what_umoci_makes_of_it() {
    assert_like_umoci(&images::busybox().unwrap());
}

#[test]
fn debian_is_what_umoci_makes_of_it() {
    match images::debian() {
        Ok(image) => assert_like_umoci(&image),
        Err(error) => {
            needs!(false, "no Debian image here: {error:#}");
        }
    }
}

#[test]
fn whiteouts_over_three_layers_are_what_umoci_makes_of_them() {
    assert_like_umoci(&images::whiteouts());
}

#[test]
fn a_layer_of_nothing_but_a_link_across_layers_is_what_umoci_makes_of_it() {
    assert_like_umoci(&images::cross_link());
}

#[test]
fn names_owners_times_attributes_and_devices_are_what_umoci_makes_of_them() {
    let image = images::names_and_metadata();
    assert_like_umoci_after(&image, &image, |theirs| {
        let mut at = |path: &[u8]| {
            theirs
                .remove(path)
                .map(|record| (path.to_vec(), record))
                .unwrap()
        };
        // Go's tar reader takes an attribute without a value for one that is deleted.
        let (path, mut attributes) = at(b"x/attributes");
        attributes.xattrs.insert(b"user.empty".to_vec(), Vec::new());
        // Nanoseconds since 1970 do not reach beyond the year 2262 in 64 bits.
        let (future_path, mut future) = at(b"x/future");
        future.mtime = (13_569_465_600, 0);
        theirs.extend([(path, attributes), (future_path, future)]);
    });
}

#[test]
fn docker_schema_2_is_what_umoci_makes_of_it() {
    let layer = images::busybox_layer().unwrap();
    assert_like_umoci(
        &ImageBuilder::new()
            .docker()
            .layer(&layer)
            .layer(&images::filler_layer("a", 9, 99))
            .build(),
    );
}

#[test]
fn layers_in_four_compressions_are_the_same_as_in_one() {
    let layers = [
        images::busybox_layer().unwrap(),
        images::filler_layer("zstd", 130, 3000),
        images::filler_layer("plain", 5, 100_000),
        images::filler_layer("members", 70, 2000),
    ];
    let kinds = [
        Compression::Gzip,
        Compression::Zstd,
        Compression::Plain,
        Compression::GzipMembers,
    ];
    let mixed = layers
        .iter()
        .zip(kinds)
        .fold(ImageBuilder::new(), |image, (tar, kind)| {
            image.layer_in(kind, tar)
        });
    // Debian's umoci refuses zstd, so it is given gzip.
    let gzip = layers
        .iter()
        .fold(ImageBuilder::new(), |image, tar| image.layer(tar));
    assert_like_umoci_of(&mixed.build(), &gzip.build());
}

#[test]
fn each_platform_of_an_index_has_its_own_tree() {
    let (registry, store) = (Registry::start().unwrap(), StoreRoot::new().unwrap());
    let index = images::multi_architecture(Documents::Oci).unwrap();
    let reference = registry.push_index(&index, "multi", "latest").unwrap();
    for (platform, architecture) in [
        ("linux/amd64", "amd64"),
        ("linux/arm64", "arm64"),
        ("linux/arm64/v8", "arm64"),
    ] {
        store
            .run(&["pull", "--platform", platform, &reference])
            .success();
        let id = platform.replace('/', "-");
        let rootfs = store.bundle(&reference, &id).join("rootfs");
        assert_eq!(
            std::fs::read_to_string(rootfs.join("etc/arch")).unwrap(),
            architecture,
            "{platform}"
        );
    }
}

#[test]
fn files_with_holes_have_their_bytes_and_their_holes() {
    let (registry, store) = (Registry::start().unwrap(), StoreRoot::new().unwrap());
    let reference = registry
        .push(&images::sparse_files(), "sparse", "latest")
        .unwrap();
    let rootfs = rootfs(&store, &reference, "sparse");
    let mut want = vec![0_u8; 4 << 20];
    want[..4].copy_from_slice(b"head");
    want[3 << 20..][..6].copy_from_slice(b"middle");
    for name in ["sparse/pax-1.0", "sparse/pax-0.1", "gnu/old"] {
        let path = rootfs.join(name);
        assert!(std::fs::read(&path).unwrap() == want, "{name}: its bytes");
        let blocks = std::os::unix::fs::MetadataExt::blocks(&path.metadata().unwrap());
        assert!(
            blocks * 512 < 1 << 20,
            "{name}: {blocks} blocks for a file of holes"
        );
    }
    for name in ["sparse/after", "gnu/after"] {
        assert_eq!(
            std::fs::read_to_string(rootfs.join(name)).unwrap(),
            "the next entry"
        );
    }
    let tree = read_tree(&rootfs).unwrap();
    assert_eq!(
        tree.values()
            .filter(|record| matches!(record.kind, Kind::File { .. }))
            .count(),
        5
    );
}

#[test]
fn a_snapshot_shares_no_changes_with_the_image_or_another_bundle() {
    let (registry, store) = (Registry::start().unwrap(), StoreRoot::new().unwrap());
    let reference = registry
        .push(&images::busybox().unwrap(), "busybox", "latest")
        .unwrap();
    store.run(&["pull", &reference]).success();
    let one = store.bundle(&reference, "one").join("rootfs");
    let clean = read_tree(&one).unwrap();
    std::fs::write(one.join("etc/new"), "written").unwrap();
    std::fs::remove_file(one.join("etc/passwd")).unwrap();
    let two = store.bundle(&reference, "two").join("rootfs");
    let again = read_tree(&two).unwrap();
    assert_eq!(
        differences(("again", &again), ("before", &clean)),
        Vec::<String>::new()
    );
}
