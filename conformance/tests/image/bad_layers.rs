//! Layers that are broken or mean harm, pushed to a real registry as anyone
//! could: one clear line, nothing written outside, nothing left in the store.
//!
//! Spec: image-spec layer.md; POSIX `pax`.

use std::fs;
use std::io::Write;
use std::path::Path;

use conformance::images::{Compression, Entry, Image, ImageBuilder, Layer, digest_of};
use conformance::store_root::wait_with_peak;
use conformance::{HostileRegistry, Registry, StoreRoot, tree};
use flate2::write::GzEncoder;

use super::{assert_unchanged, image_of, small_image, state};

/// A registry, and a store that is in use already.
fn setup() -> (Registry, StoreRoot) {
    let (registry, store) = (Registry::start().unwrap(), StoreRoot::new().unwrap());
    let good = registry
        .push(&small_image("good"), "good", "latest")
        .unwrap();
    store.run(&["pull", &good]).success();
    (registry, store)
}

/// Pulls each image, which must fail with one line that holds the words, and
/// leave the store as it was.
#[track_caller]
fn assert_all_refused(images: Vec<(&str, Image, &[&str])>) {
    let (registry, store) = setup();
    let before = state(&store);
    let mut wrong = Vec::new();
    for (number, (name, image, words)) in images.into_iter().enumerate() {
        let reference = registry
            .push(&image, &format!("bad{number}"), "latest")
            .unwrap();
        let output = store.run(&["pull", "--quiet", &reference]);
        if output.code() == 0 {
            wrong.push(format!("{name}: was pulled"));
            store.run(&["rm", &reference]);
            store.run(&["prune"]);
            continue;
        }
        let line = output.one_line_failure();
        assert!(line.starts_with("gocker-image: pull \""), "{line}");
        for word in words
            .iter()
            .filter(|word| !line.to_lowercase().contains(&word.to_lowercase()))
        {
            wrong.push(format!("{name}: should say {word:?}: {line}"));
        }
        assert_unchanged(&store, &before);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// An image of one layer whose bytes and DiffID are as given.
fn raw(compression: Compression, sent: Vec<u8>, tar: &[u8]) -> Image {
    ImageBuilder::new()
        .layer_of(compression, sent, digest_of(tar))
        .build()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_wrong_diff_id_is_refused_in_every_compression() {
    let tar = Layer::of([Entry::file("f", "1")]).finish();
    let wrong = || digest_of(b"another layer");
    let with = |compression, sent| {
        ImageBuilder::new()
            .layer_of(compression, sent, wrong())
            .build()
    };
    let (wanted, actual) = (wrong(), digest_of(&tar));
    let words: &[&str] = &[&wanted, &actual];
    assert_all_refused(vec![
        ("gzip", with(Compression::Gzip, gzip(&tar)), words),
        ("plain", with(Compression::Plain, tar.clone()), words),
        (
            "zstd",
            with(
                Compression::Zstd,
                zstd::encode_all(tar.as_slice(), 3).unwrap(),
            ),
            words,
        ),
    ]);
}

#[test]
fn a_layer_that_is_no_tar_is_refused() {
    let tar = Layer::of([Entry::file("f", "x".repeat(5000))]).finish();
    let cut = &tar[..tar.len() - 3000];
    let text = b"this is no tar, though it is long enough to be a header ".repeat(20);
    let mut sum = tar.clone();
    sum[0] = b'g';
    assert_all_refused(vec![
        ("text", raw(Compression::Gzip, gzip(&text), &text), &[]),
        (
            "text, not compressed",
            raw(Compression::Plain, text.clone(), &text),
            &[],
        ),
        (
            "a tar that is cut",
            raw(Compression::Gzip, gzip(cut), cut),
            &[],
        ),
        (
            "a wrong checksum",
            raw(Compression::Gzip, gzip(&sum), &sum),
            &["header"],
        ),
        (
            "nothing but a few bytes",
            raw(Compression::Plain, b"x".to_vec(), b"x"),
            &[],
        ),
    ]);
}

#[test]
fn a_broken_compression_is_refused() {
    let tar = Layer::of([Entry::file("f", "some text ".repeat(500))]).finish();
    let (gz, zst) = (gzip(&tar), zstd::encode_all(tar.as_slice(), 3).unwrap());
    let mut flipped = gz.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    let mut sum = gz.clone();
    let near_end = sum.len() - 6;
    sum[near_end] ^= 0xff;
    assert_all_refused(vec![
        (
            "gzip that is cut",
            raw(Compression::Gzip, gz[..gz.len() - 20].to_vec(), &tar),
            &[],
        ),
        (
            "gzip with a bit turned",
            raw(Compression::Gzip, flipped, &tar),
            &[],
        ),
        (
            "gzip with a wrong CRC",
            raw(Compression::Gzip, sum, &tar),
            &[],
        ),
        (
            "gzip with rubbish behind",
            raw(Compression::Gzip, [gz, b"rubbish".to_vec()].concat(), &tar),
            &[],
        ),
        (
            "zstd that is cut",
            raw(Compression::Zstd, zst[..zst.len() - 5].to_vec(), &tar),
            &[],
        ),
        (
            "zstd with rubbish behind",
            raw(Compression::Zstd, [zst, b"rubbish".to_vec()].concat(), &tar),
            &[],
        ),
    ]);
}

#[test]
fn names_that_climb_out_are_refused() {
    let file = |path: &str| image_of([vec![Entry::dir("d"), Entry::file(path, "1")]]);
    assert_all_refused(vec![
        ("..", file("../climbed"), &["../climbed"]),
        ("deep ..", file("d/../../climbed"), &["d/../../climbed"]),
        ("absolute", file("/climbed"), &["/climbed"]),
        (
            "a directory",
            image_of([vec![Entry::dir("../climbed")]]),
            &["../climbed"],
        ),
        (
            "a symlink's own name",
            image_of([vec![Entry::symlink("../climbed", "x")]]),
            &["../climbed"],
        ),
        (
            "a device",
            image_of([vec![Entry::char_device("../climbed", 1, 3)]]),
            &["../climbed"],
        ),
        (
            "a whiteout",
            image_of([vec![Entry::whiteout("../../climbed")]]),
            &["../../"],
        ),
        (
            "an opaque mark",
            image_of([vec![Entry::opaque("../..")]]),
            &["../.."],
        ),
        (
            "by an extended header",
            ImageBuilder::new()
                .layer(
                    &Layer::pax()
                        .entry_with_records(&Entry::file("f", ""), &[("path", b"../climbed")])
                        .finish(),
                )
                .build(),
            &["../climbed"],
        ),
        (
            "by a GNU long name",
            ImageBuilder::new()
                .layer(
                    &Layer::gnu()
                        .entry(Entry::file(format!("{}climbed", "../".repeat(60)), ""))
                        .finish(),
                )
                .build(),
            &["../"],
        ),
    ]);
}

#[test]
fn hard_links_that_climb_out_are_refused() {
    let link = |target: &str| image_of([vec![Entry::dir("d"), Entry::hard_link("d/link", target)]]);
    assert_all_refused(vec![
        (
            "..",
            link("../../../../etc/passwd"),
            &["../../../../etc/passwd"],
        ),
        ("absolute", link("/etc/passwd"), &["/etc/passwd"]),
        ("to nothing", link("d/nothing"), &["d/nothing"]),
        (
            "to a directory",
            image_of([vec![Entry::dir("d"), Entry::hard_link("l", "d")]]),
            &[],
        ),
        (
            "to itself",
            image_of([vec![Entry::hard_link("l", "l")]]),
            &["\"l\""],
        ),
        (
            "through a symlink to a host file",
            image_of([vec![
                Entry::symlink("out", "/etc"),
                Entry::hard_link("l", "out/hostname"),
            ]]),
            &["out/hostname"],
        ),
    ]);
}

#[test]
fn symlinks_that_point_out_lead_inside_the_root() {
    let (registry, store) = setup();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("kept"), "of the host").unwrap();
    let out = outside.path().to_str().unwrap();
    let up = format!("{}{out}", "../".repeat(30));
    for (name, target) in [("absolute", out), ("relative", up.as_str())] {
        let image = image_of([
            vec![
                Entry::symlink("out", target),
                Entry::file("out/written", "1"),
                Entry::dir("out/made"),
                Entry::file("out/kept", "overwritten"),
                Entry::whiteout("out/kept"),
                Entry::symlink("again", "out/made"),
            ],
            vec![
                Entry::file("again/deep", "2"),
                Entry::whiteout("out/kept"),
                Entry::opaque("out"),
            ],
        ]);
        let reference = registry.push(&image, name, "latest").unwrap();
        store.run(&["pull", &reference]).success();
        let rootfs = store.bundle(&reference, name).join("rootfs");
        let inside = rootfs.join(out.trim_start_matches('/'));
        assert!(
            inside.join("made/deep").exists() || inside.exists(),
            "{name}: resolved inside"
        );
        assert_eq!(
            tree::outline(outside.path()).unwrap(),
            ["kept=of the host"],
            "{name}"
        );
    }
}

#[test]
fn metadata_never_follows_a_symlink() {
    let (registry, store) = setup();
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, "of the host").unwrap();
    let before = tree::read_tree(outside.path()).unwrap();
    let target = victim.to_str().unwrap();
    let image = image_of([vec![
        Entry::symlink("link", target)
            .mode(0o4777)
            .owner(1234, 1234)
            .mtime(1, 1)
            .xattr("trusted.x", "1"),
        Entry::symlink("dir", outside.path().to_str().unwrap()),
    ]]);
    let reference = registry.push(&image, "links", "latest").unwrap();
    store.run(&["pull", &reference]).success();
    let rootfs = store.bundle(&reference, "one").join("rootfs");
    assert_eq!(
        tree::read_tree(outside.path()).unwrap(),
        before,
        "the host's file is as it was"
    );
    assert!(Path::new(&rootfs).join("link").is_symlink());
}

#[test]
fn reserved_and_impossible_names_are_refused() {
    let file = |path: &str| image_of([vec![Entry::dir("d"), Entry::file(path, "1")]]);
    let record = |name, value: &[u8]| {
        let layer = Layer::pax().entry_with_records(&Entry::file("f", ""), &[(name, value)]);
        ImageBuilder::new().layer(&layer.finish()).build()
    };
    assert_all_refused(vec![
        ("a whiteout of nothing", file(".wh."), &[".wh."]),
        ("a whiteout of .", file("d/.wh.."), &[".wh.."]),
        ("a whiteout of ..", file("d/.wh..."), &[".wh..."]),
        (
            "the root as a file",
            image_of([vec![Entry::file(".", "1")]]),
            &["root"],
        ),
        (
            "the root as a symlink",
            image_of([vec![Entry::symlink("./", "/etc")]]),
            &["root"],
        ),
        (
            "the root through ..",
            image_of([vec![Entry::dir("d"), Entry::file("d/..", "1")]]),
            &["root"],
        ),
        ("a component of 300 bytes", file(&"n".repeat(300)), &["nnn"]),
        ("a NUL in a name", record("path", b"a\0b"), &["path"]),
    ]);
}

#[test]
fn malformed_extended_headers_are_refused() {
    let header = |content: &[u8]| {
        let mut block = tar::Header::new_ustar();
        block.set_entry_type(tar::EntryType::XHeader);
        block.set_size(content.len() as u64);
        block.set_cksum();
        let mut bytes = block.as_bytes().to_vec();
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        let layer = Layer::pax().raw(&bytes).entry(Entry::file("f", "1"));
        ImageBuilder::new().layer(&layer.finish()).build()
    };
    assert_all_refused(vec![
        ("no length", header(b"path=x\n"), &["PAX"]),
        ("a length beyond the end", header(b"99 path=x\n"), &["PAX"]),
        ("a length of nothing", header(b"0 path=x\n"), &["PAX"]),
        ("no equals sign", header(b"9 path x\n"), &["PAX"]),
        ("no end of line", header(b"9 path=xyz"), &["PAX"]),
        (
            "an owner that is no number",
            header(b"9 uid=ab\n"),
            &["uid"],
        ),
        (
            "an owner above 32 bits",
            header(b"18 uid=4294967296\n"),
            &["uid"],
        ),
        ("a negative size", header(b"11 size=-1\n"), &["size"]),
        (
            "a size above all",
            header(b"29 size=18446744073709551615\n"),
            &[],
        ),
        ("a time that is none", header(b"12 mtime=1x\n"), &["mtime"]),
    ]);
}

#[test]
fn a_size_record_decides_over_the_header_so_that_no_entry_is_smuggled_in() {
    // The header says 0 bytes, the record 1024: a reader that takes the header's
    // word sees the smuggled entry, one that takes the record's sees its bytes.
    let inner = Layer::of([Entry::file("smuggled", "")]).finish();
    let inner = &inner[..1024];
    let layer = Layer::pax()
        .entry_with_records(&Entry::file("outer", ""), &[("size", b"1024")])
        .raw(inner)
        .entry(Entry::file("after", "1"));
    let (registry, store) = setup();
    let image = ImageBuilder::new().layer(&layer.finish()).build();
    let reference = registry.push(&image, "size", "latest").unwrap();
    store.run(&["pull", &reference]).success();
    let rootfs = store.bundle(&reference, "one").join("rootfs");
    let names: Vec<String> = tree::read_tree(&rootfs)
        .unwrap()
        .keys()
        .map(|path| String::from_utf8_lossy(path).into_owned())
        .collect();
    assert_eq!(names, ["", "after", "outer"]);
    assert_eq!(fs::read(rootfs.join("outer")).unwrap(), inner);
}

#[test]
fn memory_stays_small_however_large_a_layer_is() {
    let size = 256 << 20;
    let layer = Layer::of([Entry::file("zeros", vec![0_u8; size])]).finish();
    let (server, store) = (
        HostileRegistry::honest().unwrap(),
        StoreRoot::new().unwrap(),
    );
    let image = ImageBuilder::new().layer(&layer).build();
    drop(layer);
    let reference = server.serve(&image, "zeros", "latest");
    let mut child = store
        .command(&["pull", "--quiet", &reference])
        .spawn()
        .unwrap();
    let (status, peak_kib) = wait_with_peak(&mut child).unwrap();
    assert!(status.success(), "{status}");
    assert!(
        peak_kib < 128 << 10,
        "{peak_kib} KiB for a layer of {size} bytes"
    );
    let zeros = store.bundle(&reference, "one").join("rootfs/zeros");
    assert_eq!(zeros.metadata().unwrap().len(), size as u64);
}

#[test]
fn a_bad_layer_over_good_ones_leaves_no_image_and_prune_removes_the_rest() {
    let (registry, store) = setup();
    let image = image_of([
        vec![Entry::file("one", "1")],
        vec![Entry::file("two", "2")],
        vec![Entry::file("../climbed", "3")],
    ]);
    let before = state(&store);
    let reference = registry.push(&image, "bad", "latest").unwrap();
    store
        .run(&["pull", "--quiet", &reference])
        .one_line_failure();
    let listed = store.run(&["ls"]);
    assert!(!listed.success().contains("/bad"), "{listed}");
    store.run(&["prune"]).success();
    let after = state(&store);
    assert_eq!(before.1, after.1, "subvolumes after prune");
}
