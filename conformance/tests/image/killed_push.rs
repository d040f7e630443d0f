//! kill -9 of a push before what it says to a registry, or hears from one. The registry has no
//! image then or a whole one, the store is as it was, and the next push does the rest.

use std::fs;

use conformance::Registry;
use conformance::crash_points::{has_strace, points};
use conformance::http::Request;
use conformance::image_tools::skopeo_copy;
use conformance::images::Image;
use conformance::needs;

use super::crash_points::{Scene, calls_of, image, run_killed};
use super::{assert_undamaged, state};

/// The calls by which a push talks.
const TALK: &str = "trace=connect,sendto,sendmsg,writev,recvfrom,recvmsg,readv";

/// How many instants of a push are tried.
const POINTS: usize = 12;

/// Asserts that skopeo gets the image, and finds each blob to be what its digest says.
#[track_caller]
pub(super) fn assert_whole(scene: &Scene, destination: &str, image: &Image) {
    let copy = scene.store.beside("copy");
    let to = format!("dir:{}", copy.display());
    skopeo_copy(&format!("docker://{destination}"), &to).unwrap();
    let manifest = fs::read(copy.join("manifest.json")).unwrap();
    assert!(manifest == *image.manifest.bytes, "{destination}");
    fs::remove_dir_all(&copy).unwrap();
}

#[test]
fn a_push_killed_at_any_word_is_done_again() {
    needs!(has_strace(), "needs strace");
    let (scene, image, registry) = (Scene::new(), image(), Registry::start().unwrap());
    let destination = |number: usize| registry.reference(&format!("pushed/{number}:1"));
    let first = destination(0);
    let args = ["push", "--quiet", &scene.reference, &first];
    let calls = calls_of(&scene.store, &args, TALK);
    assert_whole(&scene, &first, &image);
    let step = calls.len().div_ceil(points(POINTS));
    let (mut tried, mut killed) = (0, 0);
    for (call, line) in calls.iter().step_by(step) {
        tried += 1;
        let destination = destination(tried);
        let args = ["push", "--quiet", &scene.reference, &destination];
        killed += usize::from(run_killed(&scene.store, &args, call));
        let after = format!("a kill before {} {line}", call.nth);
        assert_undamaged(&scene.store, &after);
        assert_eq!(state(&scene.store), scene.pulled, "{after}");
        let path = format!("/v2/pushed/{tried}/manifests/1");
        let there = Request::new("HEAD", &path).send(registry.host()).unwrap();
        if there.status == 200 {
            assert_whole(&scene, &destination, &image);
        }
        scene.run(&args);
        assert_whole(&scene, &destination, &image);
    }
    assert!(2 * killed > tried, "killed {killed} times of {tried}");
}
