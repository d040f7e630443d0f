//! Images that are larger or stranger than most, and good all the same.
//!
//! Spec: image-spec layer.md; GNU tar's manual, base-256 numbers; RFC 8878 (skippable frames);
//! RFC 1952 (members, extra fields)

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;

use conformance::images::{Compression, Entry, Image, ImageBuilder, Layer, SparseForm, digest_of};
use conformance::{HostileRegistry, StoreRoot, tree};
use flate2::{GzBuilder, write::GzEncoder};
use serde_json::json;

use super::image_of;

/// The root file system of an image.
#[track_caller]
fn unpacked(store: &StoreRoot, image: &Image, name: &str) -> PathBuf {
    let server = HostileRegistry::honest().unwrap();
    let reference = server.serve(image, name, "latest");
    store.run(&["pull", "--quiet", &reference]).success();
    store.bundle(&reference, name).join("rootfs")
}

#[test]
fn an_image_of_127_layers_has_the_files_of_all() {
    let layers = (0..127).map(|number| {
        let own = Entry::file(format!("own{number}"), number.to_string());
        let last = Entry::file("last", number.to_string());
        Layer::of([own, last]).finish()
    });
    let image = layers.fold(ImageBuilder::new(), |image, layer| image.layer(&layer));
    let store = StoreRoot::new().unwrap();
    let rootfs = unpacked(&store, &image.build(), "many");
    for number in 0..127 {
        let path = rootfs.join(format!("own{number}"));
        assert_eq!(fs::read_to_string(path).unwrap(), number.to_string());
    }
    assert_eq!(fs::read_to_string(rootfs.join("last")).unwrap(), "126");
}

/// A number as GNU tar writes it where octal digits do not suffice.
fn base_256(field: &mut [u8], number: u64) {
    field.fill(0);
    let start = field.len() - 8;
    field[start..].copy_from_slice(&number.to_be_bytes());
    field[0] = 0x80;
}

/// A tar whose first header was changed by `change`, with a new checksum.
fn with_header(mut tar: Vec<u8>, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes().copy_from_slice(&tar[..512]);
    change(header.as_mut_bytes());
    header.set_cksum();
    tar[..512].copy_from_slice(header.as_bytes());
    tar
}

#[test]
fn files_of_more_than_8_gib_have_their_size_and_their_holes() {
    let (size, end) = (9 << 30, (9_u64 << 30) - 4);
    let pax = Layer::pax().sparse_in(
        SparseForm::Pax10,
        &Entry::file("pax", ""),
        size,
        &[(0, b"head"), (end, b"tail")],
    );
    let gnu = Layer::gnu().sparse(&Entry::file("gnu", ""), 8, &[(0, b"head"), (4, b"tail")]);
    // the offset of the second part, and the size with its holes
    let gnu = with_header(gnu.finish(), |header| {
        base_256(&mut header[410..422], end);
        base_256(&mut header[483..495], size);
    });
    let image = ImageBuilder::new().layer(&pax.finish()).layer(&gnu).build();
    let store = StoreRoot::new().unwrap();
    let rootfs = unpacked(&store, &image, "huge");
    for name in ["pax", "gnu"] {
        let file = fs::File::open(rootfs.join(name)).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), size, "{name}");
        assert!(metadata.blocks() * 512 < 1 << 20, "{name}: {metadata:?}");
        for (offset, content) in [(0, b"head"), (end, b"tail")] {
            let mut read = [0; 4];
            file.read_exact_at(&mut read, offset).unwrap();
            assert_eq!(&read, content, "{name}: at {offset}");
        }
    }
}

#[test]
fn a_size_in_base_256_is_one_like_any_other() {
    let tar = Layer::gnu()
        .entry(Entry::file("f", "12345"))
        .entry(Entry::file("after", "6"));
    let tar = with_header(tar.finish(), |header| base_256(&mut header[124..136], 5));
    let store = StoreRoot::new().unwrap();
    let rootfs = unpacked(&store, &ImageBuilder::new().layer(&tar).build(), "base");
    assert_eq!(fs::read_to_string(rootfs.join("f")).unwrap(), "12345");
    assert_eq!(fs::read_to_string(rootfs.join("after")).unwrap(), "6");
}

/// A frame that zstd readers skip.
fn skippable(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_le_bytes();
    [&0x184d_2a50_u32.to_le_bytes()[..], &length, content].concat()
}

/// A tar in pieces, as those who want to read single files of it compress them one by one.
fn pieces(tar: &[u8]) -> impl Iterator<Item = &[u8]> {
    tar.chunks(1024)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// As containers/storage writes zstd:chunked: frames, the table of contents and the footer in
/// frames that are skipped.
fn zstd_chunked(tar: &[u8]) -> Vec<u8> {
    let mut blob: Vec<u8> = pieces(tar)
        .flat_map(|piece| zstd::encode_all(piece, 3).unwrap())
        .collect();
    let table = json!({"version": 1, "entries": [{"type": "reg", "name": "not-this-one"}]});
    let table = zstd::encode_all(table.to_string().as_bytes(), 3).unwrap();
    let position = blob.len() as u64 + 8;
    blob.extend(skippable(&table));
    let numbers = [position, table.len() as u64, 80, 1, 0, 0, 0];
    let mut footer: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    footer.extend(b"GNUlInUx");
    blob.extend(skippable(&footer));
    blob
}

/// As stargz-snapshotter writes eStargz: members, and an empty one with the place of the table of
/// contents, which is an entry of the archive itself.
fn estargz(tar: &[u8]) -> Vec<u8> {
    let mut blob: Vec<u8> = pieces(tar).flat_map(gzip).collect();
    let extra = format!("SG\u{16}\0{:016x}STARGZ", blob.len());
    let mut footer = GzBuilder::new()
        .extra(extra)
        .write(Vec::new(), flate2::Compression::none());
    footer.flush().unwrap();
    blob.extend(footer.finish().unwrap());
    blob
}

#[test]
fn zstd_chunked_and_estargz_are_read_as_what_they_are_underneath() {
    let tar = Layer::of([
        Entry::dir("d"),
        Entry::file("d/f", "content ".repeat(700)),
        Entry::symlink("l", "d/f"),
        Entry::file("stargz.index.json", r#"{"version":1,"entries":[]}"#),
    ]);
    let tar = tar.finish();
    let store = StoreRoot::new().unwrap();
    let plain = unpacked(&store, &ImageBuilder::new().layer(&tar).build(), "plain");
    let want = tree::read_tree(&plain).unwrap();
    let layers = [
        ("chunked", Compression::Zstd, zstd_chunked(&tar)),
        ("estargz", Compression::Gzip, estargz(&tar)),
    ];
    for (name, compression, sent) in layers {
        let image = ImageBuilder::new()
            .layer_of(compression, sent, digest_of(&tar))
            .build();
        // A store of its own: the layer, known by its diff ID, is here already.
        let other = StoreRoot::new().unwrap();
        let got = tree::read_tree(&unpacked(&other, &image, name)).unwrap();
        let differences = tree::differences((name, &got), ("plain", &want));
        assert_eq!(differences, Vec::<String>::new());
    }
}

#[test]
fn a_layer_in_its_descriptor_is_not_asked_for() {
    use conformance::hostile::base64;
    let image = image_of([vec![Entry::file("f", "1")]]);
    let layer = image.layers[0].clone();
    let with_data = |data: String| {
        let layer = image.clone();
        layer.with_manifest(|manifest| manifest["layers"][0]["data"] = data.into())
    };
    let (server, store) = (
        HostileRegistry::honest().unwrap(),
        StoreRoot::new().unwrap(),
    );
    let good = server.serve(&with_data(base64(&layer.bytes)), "good", "latest");
    store.run(&["pull", "--quiet", &good]).success();
    assert!(!server.fetched_blobs().contains(&layer.digest));
    assert!(store.bundle(&good, "good").join("rootfs/f").exists());
    let bad = server.serve(&with_data(base64(b"another")), "bad", "latest");
    let output = store.run(&["pull", "--quiet", &bad]);
    assert!(output.one_line_failure().contains("data"), "{output}");
}

#[test]
fn an_image_for_another_machine_is_pulled_with_a_warning() {
    let tar = Layer::of([Entry::file("f", "1")]).finish();
    let image = ImageBuilder::new().architecture("s390x", None).layer(&tar);
    let (server, store) = (
        HostileRegistry::honest().unwrap(),
        StoreRoot::new().unwrap(),
    );
    let reference = server.serve(&image.build(), "foreign", "latest");
    let output = store.run(&["pull", "--quiet", &reference]);
    output.success();
    let warns = |line: &str| line.contains("warning") && line.contains("linux/s390x");
    assert!(output.stderr.lines().any(warns), "{output}");
}
