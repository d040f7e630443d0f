//! The exit status says what kind of failure there was.

use std::path::Path;

use conformance::images::{self, Blob, Entry, ImageBuilder};
use conformance::{HostileRegistry, StoreRoot};
use nix::mount::{MsFlags, mount};

use super::{image_of, small_image};

#[test]
fn each_kind_of_failure_has_its_exit_status() {
    let (server, store) = (
        HostileRegistry::honest().unwrap(),
        StoreRoot::new().unwrap(),
    );
    let good = server.serve(&small_image("good"), "good", "latest");
    let damaged = {
        let mut image = image_of([vec![Entry::file("a", "1")]]);
        let other = Blob::new(
            &image.layers[0].media_type,
            vec![0; image.layers[0].bytes.len()],
        );
        image.layers[0].bytes = other.bytes;
        server.serve(&image, "damaged", "latest")
    };
    let closed = HostileRegistry::honest().unwrap();
    let hidden = closed.serve(&small_image("hidden"), "hidden", "latest");
    closed.ask_for_token(Some("someone:secret"));
    let missing = format!("{}/missing", server.host());
    store.run(&["pull", "-q", &good]).success();
    for (args, expected) in [
        (vec!["pull", "--nonsense"], 2),
        (vec!["pull", &missing], 3),
        (vec!["bundle", &missing, "--name", "x"], 3),
        (vec!["pull", "--platform", "linux/s390x", &good], 3),
        (vec!["rm", &missing], 3),
        (vec!["unbundle", "missing"], 3),
        (vec!["umount", "missing"], 3),
        (vec!["pull", &damaged], 4),
        (vec!["pull", "127.0.0.1:1/nobody/listens"], 6),
        (vec!["pull", &hidden], 7),
        (vec!["bundle", &good, "--name", "x", "--device", "/dev"], 1),
    ] {
        let output = store.run(&args);
        assert_eq!(output.code(), expected, "{args:?}: {output}");
    }
    let help = store.run(&["--help"]).success().to_owned();
    assert!(help.contains("Exit status:"), "{help}");
}

/// Mounts a file system of 2 MiB.
#[track_caller]
fn mount_small(directory: &Path) {
    let (system, size) = (Some("tmpfs"), Some("size=2m"));
    mount(system, directory, system, MsFlags::empty(), size).unwrap();
}

#[test]
fn a_full_disk_has_its_exit_status_whoever_finds_it_full() {
    let (server, store) = (
        HostileRegistry::honest().unwrap(),
        StoreRoot::new().unwrap(),
    );
    // one is seen to be too large before it is fetched, the other when it is unpacked
    let many = images::filler_layer("many", 400, 16 << 10);
    let large = ImageBuilder::new().layer(&many).build();
    let large = server.serve(&large, "large", "latest");
    let deflated = image_of([vec![Entry::file("zeros", vec![0; 8 << 20])]]);
    let deflated = server.serve(&deflated, "deflated", "latest");
    let small = StoreRoot::new().unwrap();
    mount_small(&small.path());
    for reference in [&large, &deflated] {
        let output = small.run(&["--backing", "copy", "pull", "--quiet", reference]);
        assert_eq!(output.code(), 5, "{output}");
    }
    let pull = ["pull", "--quiet", "--keep-blobs", &large];
    store.run(&pull).success();
    let place = store.beside("place");
    std::fs::create_dir(&place).unwrap();
    mount_small(&place);
    let archive = place.join("archive");
    let output = store.run(&["save", "-q", "-o", archive.to_str().unwrap(), &large]);
    assert_eq!(output.code(), 5, "{output}");
    assert!(!archive.exists());
}
