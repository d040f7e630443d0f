//! The exit status says what kind of failure there was.

use conformance::images::{Blob, Entry};
use conformance::{HostileRegistry, StoreRoot};

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
