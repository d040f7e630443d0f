//! How much a layer may bring, and that the user says how much.

use std::io::Write as _;

use conformance::HostileRegistry;
use conformance::images::{Compression, Entry, ImageBuilder, Layer, digest_of};
use flate2::write::GzEncoder;

use super::{assert_unchanged, made_store, state};

#[test]
fn a_layer_may_bring_only_so_much_and_the_user_says_how_much() {
    let layer = Layer::of([
        Entry::dir("a"),
        Entry::dir("a/b"),
        Entry::file("a/b/file", "x".repeat(3000)).xattr("user.x", "y".repeat(100)),
        Entry::file("other", "z".repeat(3000)),
    ]);
    let image = ImageBuilder::new().layer(&layer.finish()).build();
    let (server, store) = (HostileRegistry::honest().unwrap(), made_store());
    let reference = server.serve(&image, "image", "latest");
    let before = state(&store);
    let cases = [
        (
            "--max-layer-size",
            "5000",
            "6000",
            "5000 bytes in one layer",
        ),
        ("--max-file-size", "2999", "3000", "2999 bytes in one file"),
        ("--max-entries", "3", "4", "3 entries"),
        ("--max-path-depth", "2", "3", "2 components"),
        ("--max-xattr-size", "50", "200", "extended attributes"),
    ];
    for (option, least, _, words) in cases {
        let output = store.run(&["pull", "--quiet", option, least, &reference]);
        let line = output.one_line_failure();
        assert!(line.contains(words), "{option}: {line}");
        assert_unchanged(&store, &before);
    }
    for (option, _, enough, _) in cases {
        let args = ["pull", "--quiet", option, enough, &reference];
        store.run(&args).success();
        store.run(&["rm", &reference]).success();
    }
}

#[test]
fn a_layer_that_grows_beyond_all_measure_is_given_up() {
    // 1 GiB and a little of zeros in about 1 MiB
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let file = Entry::file("zeros", "");
    let tar = Layer::pax().entry_with_records(&file, &[("size", b"1200000000")]);
    encoder.write_all(&tar.finish()[..1536]).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..1152 {
        encoder.write_all(&zeros).unwrap();
    }
    let sent = encoder.finish().unwrap();
    let never = digest_of(b"it does not come to its diff ID");
    let image = ImageBuilder::new()
        .layer_of(Compression::Gzip, sent, never)
        .build();
    let (server, store) = (HostileRegistry::honest().unwrap(), made_store());
    let reference = server.serve(&image, "bomb", "latest");
    let before = state(&store);
    let output = store.run(&["pull", "--quiet", "--max-ratio", "10", &reference]);
    let line = output.one_line_failure();
    assert!(line.contains("more than 10 times its size"), "{line}");
    assert_unchanged(&store, &before);
}
