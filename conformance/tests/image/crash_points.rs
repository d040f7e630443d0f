//! kill -9 of a command before every system call by which it changes something, one at a time, and
//! each of these calls with no space left. What is left is swept by the next command, which works as
//! if nothing had been.
//!
//! `GOCKER_CRASH_POINTS=N` tries about N instants of each command instead of the usual number.

use std::collections::HashSet;
use std::fs;

use conformance::command::run_command;
use conformance::crash_points::{Call, calls_in, has_strace, points};
use conformance::images::{Compression, Entry, Image, ImageBuilder, Layer};
use conformance::tree::{self, Tree};
use conformance::{HostileRegistry, Output, StoreRoot, needs};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{assert_undamaged, made_store, state};

/// The calls that are looked at: all by which a command can change something.
const CALLS: &str = "trace=mkdir,mkdirat,openat,write,pwrite64,linkat,rename,renameat,renameat2,\
    unlink,unlinkat,rmdir,ioctl,fsync,fdatasync,ftruncate,fallocate,fchown,fchownat,fchmod,\
    fchmodat,utimensat,setxattr,fsetxattr,fremovexattr,symlinkat,mknodat,mount,umount2";

/// How many instants of a command are tried: more than it has of such calls.
const POINTS: usize = 400;
/// How many instants are tried of a command that shares most of its steps with another.
const FEWER_POINTS: usize = 10;

/// Whether a call, as strace(1) writes it, changes anything in `directory`.
fn changes(call: &Call, line: &str, directory: &str) -> bool {
    if line.contains(") = -1 ") {
        return false;
    }
    match call.name.as_str() {
        "openat" => line.contains("O_CREAT") || line.contains("O_TMPFILE"),
        "write" | "pwrite64" => line.contains(directory),
        "ioctl" => {
            line.contains("BTRFS_IOC_") && !line.contains("GETFLAGS") || line.contains("LOOP_")
        }
        _ => true,
    }
}

/// The calls by which the command changes something, with their lines; it is run for that.
pub(super) fn changes_of(store: &StoreRoot, args: &[&str]) -> Vec<(Call, String)> {
    let directory = store.path();
    let directory = directory.to_str().unwrap();
    let mut changing = calls_of(store, args, CALLS);
    changing.retain(|(call, line)| changes(call, line, directory));
    changing
}

/// The calls that the command makes of those that strace(1) is to look at; it is run for that.
pub(super) fn calls_of(store: &StoreRoot, args: &[&str], looked_at: &str) -> Vec<(Call, String)> {
    let file = store.beside("trace");
    let path = file.to_str().unwrap();
    let options = ["-f", "--seccomp-bpf", "-y", "-o", path, "-e", looked_at];
    run_command(&mut store.traced(&options, args)).success();
    let trace = fs::read_to_string(&file).unwrap();
    // the same number of two threads is one instant
    let mut seen = HashSet::new();
    let mut calls = calls_in(&trace);
    calls.retain(|(call, _)| seen.insert(call.clone()));
    let calls = calls.into_iter();
    calls.map(|(call, line)| (call, line.to_owned())).collect()
}

/// Runs the command under strace(1), which does something at one of its calls.
#[track_caller]
fn run_injected(store: &StoreRoot, args: &[&str], inject: &str) -> Output {
    let options = ["-f", "-o", "/dev/null", "-e", inject];
    run_command(&mut store.traced(&options, args))
}

/// Runs the command and has it killed before the call. Says whether it was.
pub(super) fn run_killed(store: &StoreRoot, args: &[&str], call: &Call) -> bool {
    let output = run_injected(store, args, &call.kill_before());
    output.code() == 128 + Signal::SIGKILL as i32
}

/// Kills the command before each of its changes, after `prepare`, and looks at the store `after`
/// each.
fn kill_before_each_change(
    store: &StoreRoot,
    args: &[&str],
    prepare: &dyn Fn(),
    after: &dyn Fn(&str),
) {
    prepare();
    let calls = changes_of(store, args);
    after("a whole run");
    let step = calls.len().div_ceil(points(POINTS));
    let (mut tried, mut killed) = (0, 0);
    for (call, line) in calls.iter().step_by(step) {
        prepare();
        tried += 1;
        // Another thread may have fewer calls of the name this time.
        killed += usize::from(run_killed(store, args, call));
        let what = format!("a kill before {} {line}", call.nth);
        assert_undamaged(store, &what);
        after(&what);
    }
    assert!(2 * killed > tried, "killed {killed} times of {tried}");
}

/// Two layers with one of each kind of entry, the lower of a size that is kept while it comes.
pub(super) fn image() -> Image {
    let mut byte = 0_u8;
    let noise: Vec<u8> = (0..1_300_000_u32)
        .map(|at| {
            byte = byte
                .wrapping_mul(109)
                .wrapping_add(at.to_le_bytes()[0] ^ at.to_le_bytes()[1]);
            byte
        })
        .collect();
    let lower = Layer::of([
        Entry::dir(".").xattr("user.root", "1"),
        Entry::dir("d").owner(1, 2),
        Entry::file("d/noise", noise),
        Entry::hard_link("linked", "d/noise"),
        Entry::symlink("link", "d"),
        Entry::fifo("fifo"),
        Entry::file("gone", "1").mode(0o4755),
    ]);
    let upper = Layer::of([
        Entry::whiteout("gone"),
        Entry::opaque("d"),
        Entry::file("d/new", "2").owner(3, 4).xattr("user.x", "3"),
    ]);
    ImageBuilder::new()
        .layer_in(Compression::Plain, &lower.finish())
        .layer(&upper.finish())
        .build()
}

/// An image in a registry, a store, and what the store holds before a pull and after it.
pub(super) struct Scene {
    pub(super) server: HostileRegistry,
    pub(super) store: StoreRoot,
    pub(super) reference: String,
    empty: (Vec<String>, Vec<String>),
    pub(super) pulled: (Vec<String>, Vec<String>),
    layers: Tree,
}

impl Scene {
    pub(super) fn new() -> Self {
        let (server, store) = (HostileRegistry::honest().unwrap(), made_store());
        let reference = server.serve(&image(), "image", "latest");
        let empty = state(&store);
        store.run(&["pull", "--quiet", &reference]).success();
        let (pulled, layers) = (state(&store), layers(&store));
        Self {
            server,
            store,
            reference,
            empty,
            pulled,
            layers,
        }
    }

    #[track_caller]
    pub(super) fn run(&self, args: &[&str]) {
        self.store.run(args).success();
    }

    fn kill_before_each_change(&self, args: &[&str], prepare: &dyn Fn(), after: &dyn Fn(&str)) {
        kill_before_each_change(&self.store, args, prepare, after);
    }

    fn pull(&self) {
        self.run(&["pull", "--quiet", &self.reference]);
    }

    /// Pulls; then the store holds what an undisturbed pull makes.
    #[track_caller]
    fn assert_pulls(&self, after: &str) {
        self.pull();
        assert_eq!(state(&self.store), self.pulled, "pulled after {after}");
        let layers = layers(&self.store);
        let found = tree::differences(("after", &layers), ("undisturbed", &self.layers));
        assert_eq!(found, Vec::<String>::new(), "pulled after {after}");
        let fsck = self.store.run(&["fsck", "--format", "json"]);
        let report: Value = serde_json::from_str(fsck.success()).unwrap();
        assert_eq!(report["findings"], json!([]), "pulled after {after}");
    }

    /// Removes all; then the store holds nothing.
    #[track_caller]
    pub(super) fn assert_clears(&self, after: &str) {
        // It may be gone already.
        self.store.run(&["rm", &self.reference]);
        self.run(&["prune"]);
        assert_eq!(state(&self.store), self.empty, "removed after {after}");
    }
}

/// Makes the bundle `one`, with a change for a commit; returns what the store holds then.
pub(super) fn with_a_changed_bundle(scene: &Scene) -> (Vec<String>, Vec<String>) {
    scene.run(&["bundle", &scene.reference, "--name", "one"]);
    let rootfs = scene.store.directory().join("bundles/one/rootfs");
    fs::write(rootfs.join("d/changed"), "1").unwrap();
    state(&scene.store)
}

/// All that lies in the layers of a store.
fn layers(store: &StoreRoot) -> Tree {
    let mut layers = tree::read_tree(&store.directory().join("layers")).unwrap();
    // Beside each layer lies its record, with a date; and the directory itself is of today.
    layers.retain(|path, _| !path.is_empty() && !path.ends_with(b".json"));
    layers
}

#[test]
fn a_pull_killed_before_any_change_is_done_again() {
    needs!(has_strace(), "needs strace");
    let scene = Scene::new();
    scene.assert_clears("a whole pull");
    let args = ["pull", "--quiet", &scene.reference];
    scene.kill_before_each_change(&args, &|| {}, &|after| {
        scene.assert_pulls(after);
        scene.assert_clears(after);
    });
}

/// Until there is a store: the sparse file, its file system, the loop device and the mount.
#[test]
fn the_first_pull_killed_before_any_change_is_done_again() {
    needs!(has_strace(), "needs strace");
    let scene = Scene::new();
    let args = ["pull", "--quiet", &scene.reference];
    let mut calls = changes_of(&StoreRoot::new().unwrap(), &args);
    let is_made = calls
        .iter()
        .position(|(_, line)| line.contains("meta.json"));
    calls.truncate(is_made.expect("the store is made") + 1);
    // Each has a file system of its own to make.
    let step = calls.len().div_ceil(points(24));
    for (call, line) in calls.iter().step_by(step) {
        let store = StoreRoot::new().unwrap();
        run_killed(&store, &args, call);
        assert_undamaged(&store, line);
        store.run(&args).success();
        assert_eq!(state(&store), scene.pulled, "after a kill before {line}");
        let devices = store.loop_devices();
        assert_eq!(devices.len(), 1, "after a kill before {line}: {devices:?}");
    }
}

#[test]
fn rm_killed_before_any_change_is_done_again() {
    needs!(has_strace(), "needs strace");
    let scene = Scene::new();
    scene.kill_before_each_change(&["rm", &scene.reference], &|| scene.pull(), &|after| {
        scene.assert_clears(after)
    });
}

#[test]
fn prune_killed_before_any_change_is_done_again() {
    needs!(has_strace(), "needs strace");
    let scene = Scene::new();
    scene.kill_before_each_change(&["prune", "--all"], &|| scene.pull(), &|after| {
        scene.run(&["prune", "--all"]);
        assert_eq!(state(&scene.store), scene.empty, "after {after}");
    });
}

#[test]
fn a_pull_after_a_killed_rm_finds_or_makes_what_it_needs() {
    needs!(has_strace(), "needs strace");
    let scene = Scene::new();
    scene.kill_before_each_change(&["rm", &scene.reference], &|| {}, &|after| {
        scene.assert_pulls(after)
    });
}

#[test]
fn bundle_killed_before_any_change_is_done_again() {
    needs!(has_strace(), "needs strace");
    let scene = Scene::new();
    let args = ["bundle", &scene.reference, "--name", "one"];
    scene.kill_before_each_change(&args, &|| {}, &|after| {
        // It was made, or there is none.
        if scene.store.run(&args).code() != 0 {
            scene.run(&["unbundle", "one"]);
            scene.run(&args);
        }
        let rootfs = scene.store.directory().join("bundles/one/rootfs");
        assert!(rootfs.join("d/new").exists(), "after {after}");
        scene.run(&["unbundle", "one"]);
        assert_eq!(state(&scene.store), scene.pulled, "after {after}");
    });
}

#[test]
fn unbundle_killed_before_any_change_is_done_again() {
    needs!(has_strace(), "needs strace");
    let scene = Scene::new();
    let prepare = || scene.run(&["bundle", &scene.reference, "--name", "one"]);
    scene.kill_before_each_change(&["unbundle", "one"], &prepare, &|after| {
        // It may be gone already.
        scene.store.run(&["unbundle", "one"]);
        scene.run(&["ls"]);
        scene.run(&["prune"]);
        assert_eq!(state(&scene.store), scene.pulled, "after {after}");
    });
}

/// Fails about so many changes of the command with ENOSPC, one at a time: it says so, or manages
/// without.
fn fail_changes(scene: &Scene, args: &[&str], count: usize, after: &dyn Fn(&str)) {
    let mut calls = changes_of(&scene.store, args);
    // Other threads write to pipes, which are never full so; `full_disk` has those of files.
    calls.retain(|(call, _)| call.name != "write");
    after("a whole run");
    let (mut tried, mut failed) = (0, 0);
    for (call, line) in calls.iter().step_by(calls.len().div_ceil(points(count))) {
        let output = run_injected(&scene.store, args, &call.fail_with("ENOSPC"));
        tried += 1;
        if output.code() != 0 {
            let said = output.failure();
            assert!(said.contains("no space left on device"), "{line}: {output}");
            failed += 1;
        }
        let what = format!("no space for {} {line}", call.nth);
        assert_undamaged(&scene.store, &what);
        after(&what);
    }
    assert!(2 * failed > tried, "failed {failed} times of {tried}");
}

#[test]
fn a_pull_without_space_for_any_change_says_so_and_is_done_again() {
    needs!(has_strace(), "needs strace");
    let scene = Scene::new();
    scene.assert_clears("a whole pull");
    let args = ["pull", "--quiet", &scene.reference];
    fail_changes(&scene, &args, POINTS, &|after| {
        scene.assert_pulls(after);
        scene.assert_clears(after);
    });
}

#[test]
fn a_bundle_without_space_for_any_change_is_not_made() {
    needs!(has_strace(), "needs strace");
    let scene = Scene::new();
    let args = ["bundle", &scene.reference, "--name", "one"];
    fail_changes(&scene, &args, POINTS, &|after| {
        // It was made all the same, or there is none.
        scene.store.run(&["unbundle", "one"]);
        assert_eq!(state(&scene.store), scene.pulled, "after {after}");
    });
}

#[test]
fn a_commit_without_space_for_a_change_is_not_made() {
    needs!(has_strace(), "needs strace");
    let scene = Scene::new();
    let before = with_a_changed_bundle(&scene);
    let args = ["commit", "one", "other.example/name:1"];
    fail_changes(&scene, &args, FEWER_POINTS, &|after| {
        // It was made all the same, or there is none.
        scene.store.run(&["rm", "other.example/name:1"]);
        scene.run(&["prune"]);
        assert_eq!(state(&scene.store), before, "after {after}");
        scene.run(&args);
        scene.run(&["rm", "other.example/name:1"]);
        scene.run(&["prune"]);
    });
}

#[test]
fn a_load_without_space_for_a_change_is_done_again() {
    needs!(has_strace(), "needs strace");
    let scene = Scene::new();
    let archive = scene.store.beside("image.tar");
    let archive = archive.to_str().unwrap();
    scene.run(&["save", "--quiet", "--output", archive, &scene.reference]);
    scene.assert_clears("a save");
    let args = ["load", "-q", "--no-keep-blobs", "--replace", "-i", archive];
    fail_changes(&scene, &args, FEWER_POINTS, &|after| {
        scene.run(&args);
        assert_eq!(state(&scene.store), scene.pulled, "after {after}");
        scene.assert_clears(after);
    });
}

#[test]
fn a_save_without_space_for_a_change_leaves_nothing() {
    needs!(has_strace(), "needs strace");
    let scene = Scene::new();
    let place = scene.store.beside("place");
    fs::create_dir(&place).unwrap();
    let output = place.join("image");
    let path = output.to_str().unwrap();
    let args = ["save", "-q", "-o", path, &scene.reference];
    fail_changes(&scene, &args, FEWER_POINTS, &|after| {
        let entries = fs::read_dir(&place).unwrap().flatten();
        let others: Vec<_> = entries.filter(|entry| entry.path() != output).collect();
        assert!(others.is_empty(), "{others:?} after {after}");
        if output.exists() {
            fs::remove_file(&output).unwrap();
        }
        assert_eq!(state(&scene.store), scene.pulled, "after {after}");
    });
}

#[test]
fn tag_killed_before_any_change_is_done_again() {
    needs!(has_strace(), "needs strace");
    let scene = Scene::new();
    let args = ["tag", &scene.reference, "other.example/name:1"];
    scene.kill_before_each_change(&args, &|| {}, &|after| {
        scene.run(&args);
        let names = scene.store.run(&["ls", "--quiet"]);
        let names = names.success().lines().count();
        assert_eq!(names, 2, "after {after}");
        scene.run(&["rm", "other.example/name:1"]);
        assert_eq!(state(&scene.store), scene.pulled, "after {after}");
    });
}

#[test]
fn commit_killed_before_any_change_is_done_again() {
    needs!(has_strace(), "needs strace");
    let scene = Scene::new();
    let before = with_a_changed_bundle(&scene);
    let args = ["commit", "one", "other.example/name:1"];
    scene.kill_before_each_change(&args, &|| {}, &|after| {
        scene.run(&args);
        scene.run(&["rm", "other.example/name:1"]);
        scene.run(&["prune"]);
        assert_eq!(state(&scene.store), before, "after {after}");
    });
}

#[test]
fn load_killed_before_any_change_is_done_again() {
    needs!(has_strace(), "needs strace");
    let scene = Scene::new();
    let archive = scene.store.beside("image.tar");
    let archive = archive.to_str().unwrap();
    scene.run(&["pull", "--quiet", "--keep-blobs", &scene.reference]);
    scene.run(&["save", "--output", archive, &scene.reference]);
    scene.assert_clears("a whole save");
    let args = [
        "load",
        "--quiet",
        "--no-keep-blobs",
        "--replace",
        "--input",
        archive,
    ];
    scene.kill_before_each_change(&args, &|| {}, &|after| {
        scene.run(&args);
        assert_eq!(state(&scene.store), scene.pulled, "after {after}");
        scene.assert_clears(after);
    });
}

/// A kill leaves at most a file or directory with a hidden name, beside the one that was there.
#[test]
fn save_killed_before_any_change_leaves_what_was_there() {
    needs!(has_strace(), "needs strace");
    let scene = Scene::new();
    for form in ["docker-archive", "oci-dir"] {
        let place = scene.store.beside(form);
        fs::create_dir(&place).unwrap();
        let output = place.join("image");
        let path = output.to_str().unwrap();
        let args = ["save", "-q", "--as", form, "-o", path, &scene.reference];
        scene.kill_before_each_change(&args, &|| {}, &|after| {
            let entries = fs::read_dir(&place).unwrap().flatten();
            let names = entries.map(|entry| entry.file_name().into_string().unwrap());
            for name in names.filter(|name| name != "image") {
                assert!(name.starts_with(".image.gocker-"), "{name} after {after}");
            }
            if output.is_dir() {
                fs::remove_dir_all(&output).unwrap();
            }
            scene.run(&args);
            assert_eq!(state(&scene.store), scene.pulled, "after {after}");
            fs::remove_dir_all(&place).unwrap();
            fs::create_dir(&place).unwrap();
        });
    }
}
