//! `--quota`: what a container may add to its image, by quota groups of btrfs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use conformance::crash_points::{Call, calls_in, has_strace};
use conformance::images::{self, Compression, Entry, Image, ImageBuilder, Layer};
use conformance::{Output, StoreRoot, needs, run_command};
use nix::errno::Errno;

use super::backing::{TMPFS, store_on};
use super::bundle::Bundles;
use super::full_disk::mount_btrfs;
use super::{assert_undamaged, state};

pub(super) const MIB: u64 = 1 << 20;
/// Writes up to 16 MiB into the root.
const FILL: &str = "dd if=/dev/zero of=/fill bs=64k count=256";

/// Whose file system a store lies on, and what counts there.
#[derive(Clone, Copy, Debug)]
pub(super) enum On {
    /// The store's own, on which it turns simple quotas on.
    Own,
    /// The user's, who has turned full quotas on.
    Users,
}

/// A store with nothing in it.
pub(super) fn bundles_on(on: On) -> Bundles {
    let bundles = Bundles::new();
    if let On::Users = on {
        mount_btrfs(&bundles.store, 300);
        btrfs(&["quota", "enable"], &bundles.store.path()).success();
    }
    bundles
}

/// An image of one file of 8 MiB.
pub(super) fn large_image() -> Image {
    let layer = Layer::of([Entry::dir("."), Entry::file("large", vec![b'x'; 8 << 20])]);
    ImageBuilder::new()
        .layer_in(Compression::Zstd, &layer.finish())
        .build()
}

/// Bundles an image as `id` with more arguments, and something to run.
#[track_caller]
pub(super) fn bundle(bundles: &Bundles, reference: &str, id: &str, args: &[&str]) -> Output {
    let command = [
        &["bundle", reference, "--name", id],
        args,
        &["--", "/bin/sh", "-c", FILL],
    ];
    bundles.store.run(&command.concat())
}

/// The root file system of the bundle `id`.
pub(super) fn rootfs(bundles: &Bundles, id: &str) -> PathBuf {
    let directory = bundles.store.directory().join("bundles").join(id);
    directory.join("rootfs")
}

/// Runs `btrfs ARGS PATH`.
#[track_caller]
pub(super) fn btrfs(args: &[&str], path: &Path) -> Output {
    run_command(Command::new("btrfs").args(args).arg(path))
}

fn has_quotas(store: &StoreRoot) -> bool {
    btrfs(&["qgroup", "show"], &store.directory()).code() == 0
}

/// Why `bytes` bytes cannot be written into a new file; None if they can.
pub(super) fn write_error(path: &Path, bytes: u64) -> Option<Errno> {
    let content = vec![b'y'; usize::try_from(bytes).unwrap()];
    let error = fs::write(path, content).err()?;
    error.raw_os_error().map(Errno::from_raw)
}

#[test]
fn a_container_writes_no_more_than_its_quota_and_the_store_stays_usable() {
    for on in [On::Own, On::Users] {
        let mut bundles = bundles_on(on);
        let image = bundles.pull(&images::busybox().unwrap());
        bundle(&bundles, &image, "small", &["--quota", "3m"]).success();
        bundle(&bundles, &image, "large", &[]).success();
        let directory = |id: &str| bundles.store.directory().join("bundles").join(id);

        let id = format!("conformance-quota-{}-{on:?}", std::process::id());
        let output = bundles.store.run_bundle(&directory("small"), &id);
        assert!(output.failure().contains("quota"), "{on:?}: {output}");
        let size = |id: &str| {
            fs::metadata(directory(id).join("rootfs/fill"))
                .unwrap()
                .len()
        };
        let written = size("small");
        assert!(
            written > MIB && written < 3 * MIB,
            "{on:?}: {written} bytes"
        );

        let output = bundles.store.run_bundle(&directory("large"), &id);
        assert_eq!(output.code(), 0, "{on:?}, without a quota: {output}");
        assert_eq!(size("large"), 16 * MIB);
        assert_undamaged(&bundles.store, "a container that reached its quota");
        bundles.store.run(&["unbundle", "small", "large"]).success();
    }
}

#[test]
fn a_quota_bounds_what_is_added_and_not_the_image() {
    for on in [On::Own, On::Users] {
        let mut bundles = bundles_on(on);
        let image = bundles.pull(&large_image());
        for id in ["first", "second"] {
            bundle(&bundles, &image, id, &["--quota", "4m"]).success();
            let root = rootfs(&bundles, id);
            assert_eq!(fs::read(root.join("large")).unwrap().len(), 8 << 20);
            assert_eq!(write_error(&root.join("a"), 2 * MIB), None, "{on:?}");
            let error = write_error(&root.join("b"), 4 * MIB);
            assert_eq!(error, Some(Errno::EDQUOT), "{on:?}");
            fs::remove_file(root.join("a")).unwrap();
            fs::remove_file(root.join("b")).unwrap();
            // what the image has is the container's own as soon as it is written anew
            let error = write_error(&root.join("large"), 8 * MIB);
            assert_eq!(error, Some(Errno::EDQUOT), "{on:?}");
            bundles.store.run(&["unbundle", id]).success();
            // the same again with an image that was pulled while quotas were on
            bundles.store.run(&["prune", "--all"]).success();
            bundles.store.run(&["pull", "--quiet", &image]).success();
        }
    }
}

#[test]
fn quotas_are_turned_on_once_and_it_is_said_once() {
    let mut bundles = Bundles::new();
    let image = bundles.pull(&large_image());
    bundle(&bundles, &image, "free", &[]).success();
    assert!(!has_quotas(&bundles.store), "nobody has asked for one");
    let first = bundle(&bundles, &image, "first", &["--quota", "5m"]);
    first.success();
    let lines: Vec<_> = first.stderr.lines().collect();
    assert_eq!(lines.len(), 1, "{first}");
    assert!(lines[0].contains("quotas are on"), "{first}");
    assert!(has_quotas(&bundles.store));
    let second = bundle(&bundles, &image, "second", &["--quota", "5m"]);
    second.success();
    assert_eq!(second.stderr, "");
}

#[test]
fn a_bundles_quota_is_told_and_remembered() {
    let mut bundles = Bundles::new();
    let image = bundles.pull(&large_image());
    let json = ["--format", "json"];
    let limited = bundle(
        &bundles,
        &image,
        "limited",
        &[&["--quota", "5m"], &json[..]].concat(),
    );
    assert_eq!(limited.json()["quota_bytes"], 5 * MIB);
    let free = bundle(&bundles, &image, "free", &json);
    assert!(free.json()["quota_bytes"].is_null());
    let record = bundles
        .store
        .directory()
        .join("bundles/limited/gocker.json");
    let record: serde_json::Value = serde_json::from_slice(&fs::read(record).unwrap()).unwrap();
    assert_eq!(record["quota_bytes"], 5 * MIB);

    let usage = bundles.store.run(&["df", "--format", "json"]).json();
    let quotas = |kind: &str| {
        let items = usage[kind]["items"].as_array().unwrap().iter();
        let quotas = items.map(|item| item["quota_bytes"].as_u64());
        quotas.collect::<Vec<_>>()
    };
    assert_eq!(quotas("bundles"), [None, Some(5 * MIB)], "free, limited");
    assert_eq!(quotas("layers"), [None]);
    let table = bundles.store.run(&["df", "--verbose"]);
    let mut lines = table.success().lines();
    let line = lines.find(|line| line.contains(" limited ")).unwrap();
    assert!(line.ends_with("5.0 MiB"), "{table}");
}

#[test]
fn on_a_file_system_of_the_users_own_quotas_are_not_turned_on_unasked() {
    let mut bundles = Bundles::new();
    mount_btrfs(&bundles.store, 200);
    let image = bundles.pull(&large_image());
    let before = state(&bundles.store);
    let output = bundle(&bundles, &image, "one", &["--quota", "5m"]);
    let line = output.one_line_failure();
    assert!(line.contains("--quota: quotas are off"), "{output}");
    assert!(
        output.stderr.contains("hint: btrfs quota enable"),
        "{output}"
    );
    assert_eq!(state(&bundles.store), before);
    assert!(!has_quotas(&bundles.store));
}

#[test]
fn a_store_of_copies_refuses_a_quota() {
    let mut bundles = Bundles::new();
    bundles.store = store_on(&TMPFS);
    let image = bundles.server.serve(&large_image(), "large", "latest");
    let pull = ["--backing", "copy", "pull", "--quiet", &image];
    bundles.store.run(&pull).success();
    let before = bundles.store.inventory().unwrap();
    let output = bundle(&bundles, &image, "one", &["--quota", "5m"]);
    let line = output.one_line_failure();
    assert!(
        line.contains("--quota: ") && line.contains("plain copies"),
        "{output}"
    );
    assert_eq!(bundles.store.inventory().unwrap(), before);
}

#[test]
fn quotas_too_small_and_nonsense_are_refused_by_name() {
    let bundles = Bundles::new();
    for (args, words) in [
        (&["--quota", "1048575"][..], ["--quota", "the least is 1m"]),
        (&["--quota", "much"], ["--quota", "'much'"]),
        (&["--quota=-5m"], ["--quota", "'-5m'"]),
        (
            &["--storage-opt", "size=5k"],
            ["--storage-opt", "the least is 1m"],
        ),
        (&["--storage-opt", "5m"], ["--storage-opt", "size=SIZE"]),
        (
            &["--storage-opt", "overlay.size=5m"],
            ["--storage-opt", "\"overlay.size\""],
        ),
        (
            &["--quota", "5m", "--storage-opt", "size=5m"],
            ["--quota", "--storage-opt"],
        ),
    ] {
        let output = bundle(&bundles, "image", "one", args);
        assert_eq!(output.code(), 2, "{args:?}: {output}");
        let line = output.one_line_failure();
        assert!(
            words.iter().all(|word| line.contains(word)),
            "{args:?}: {line}"
        );
    }
}

#[test]
fn gocker_run_takes_a_quota_as_docker_and_podman_do() {
    let mut bundles = Bundles::new();
    let image = bundles.pull(&images::busybox().unwrap());
    for option in [["--quota", "3m"], ["--storage-opt", "size=3m"]] {
        let run = |command: &str| {
            let args = [
                &["run", "--rm"],
                &option[..],
                &[&image, "/bin/sh", "-c", command],
            ];
            bundles.store.run_gocker(&args.concat())
        };
        run("dd if=/dev/zero of=/fill bs=64k count=16").success();
        let output = run(FILL);
        assert!(output.failure().contains("quota"), "{output}");
    }
    let args = ["run", "--storage-opt", "inode=5", &image, "/bin/true"];
    let output = bundles.store.run_gocker(&args);
    assert!(output.one_line_failure().contains("\"inode\""), "{output}");
}

#[test]
fn what_a_container_did_within_its_quota_can_be_committed() {
    for on in [On::Own, On::Users] {
        let mut bundles = bundles_on(on);
        let image = bundles.pull(&large_image());
        bundle(&bundles, &image, "full", &["--quota", "4m"]).success();
        let root = rootfs(&bundles, "full");
        assert_eq!(
            write_error(&root.join("fill"), 8 * MIB),
            Some(Errno::EDQUOT)
        );
        let size = fs::metadata(root.join("fill")).unwrap().len();
        assert!(size > 2 * MIB, "{on:?}: {size}");
        bundles
            .store
            .run(&["commit", "full", "committed"])
            .success();
        // the new image has no limit
        bundle(&bundles, "committed", "next", &[]).success();
        let root = rootfs(&bundles, "next");
        assert_eq!(fs::metadata(root.join("fill")).unwrap().len(), size);
        assert_eq!(write_error(&root.join("more"), 8 * MIB), None, "{on:?}");
    }
}

/// Makes a bundle of 5 MiB under strace(1) with these `options`.
fn traced_bundle(bundles: &Bundles, image: &str, id: &str, options: &[&str]) -> Output {
    let options = [&["-f", "-qq", "-e", "trace=ioctl"], options].concat();
    let args = [
        "bundle",
        image,
        "--name",
        id,
        "--quota",
        "5m",
        "--",
        "/bin/true",
    ];
    run_command(&mut bundles.store.traced(&options, &args))
}

/// Its ioctl in whose line there is `word`, the first of them.
#[track_caller]
pub(super) fn ioctl_with(bundles: &Bundles, image: &str, word: &str) -> Call {
    let trace = bundles.store.beside("trace");
    traced_bundle(bundles, image, "probe", &["-o", trace.to_str().unwrap()]).success();
    let trace = fs::read_to_string(trace).unwrap();
    let mut calls = calls_in(&trace).into_iter();
    let call = calls.find(|(_, line)| line.contains(word));
    call.unwrap_or_else(|| panic!("{trace}")).0
}

/// Makes such a bundle while strace(1) does to one of its calls what `injection` says.
pub(super) fn disturbed_bundle(
    bundles: &Bundles,
    image: &str,
    id: &str,
    injection: &str,
) -> Output {
    traced_bundle(bundles, image, id, &["-o", "/dev/null", "-e", injection])
}

#[test]
fn a_bundle_without_a_quota_asks_nothing_about_quotas() {
    needs!(has_strace(), "needs strace");
    let mut bundles = Bundles::new();
    let image = bundles.pull(&large_image());
    let trace = bundles.store.beside("trace");
    let options = [
        "-f",
        "-qq",
        "-e",
        "trace=ioctl",
        "-o",
        trace.to_str().unwrap(),
    ];
    let args = ["bundle", &image, "--name", "free", "--", "/bin/true"];
    run_command(&mut bundles.store.traced(&options, &args)).success();
    let trace = fs::read_to_string(trace).unwrap();
    assert!(trace.contains("SNAP_CREATE"), "{trace}");
    assert!(
        !trace.contains("QUOTA") && !trace.contains("QGROUP"),
        "{trace}"
    );
    // by these words it would be seen
    ioctl_with(&bundles, &image, "QGROUP");
}

#[test]
fn a_kernel_without_simple_quotas_counts_fully() {
    needs!(has_strace(), "needs strace");
    let mut bundles = Bundles::new();
    let image = bundles.pull(&large_image());
    // one store tells which call it is, the other is denied it
    let deny = ioctl_with(&bundles, &image, "QUOTA_CTL").fail_with("EINVAL");
    let mut denied = Bundles::new();
    let image = denied.pull(&large_image());
    let output = disturbed_bundle(&denied, &image, "one", &deny);
    output.success();
    assert!(
        output.stderr.contains("all that is written is counted"),
        "{output}"
    );
    let root = rootfs(&denied, "one");
    assert_eq!(write_error(&root.join("a"), 2 * MIB), None);
    assert_eq!(write_error(&root.join("b"), 4 * MIB), Some(Errno::EDQUOT));
}
