//! Quota groups go with their subvolumes, whatever becomes of these.

use std::fs;
use std::path::Path;
use std::process::Command;

use conformance::crash_points::has_strace;
use conformance::{StoreRoot, images, needs, run_command};
use nix::errno::Errno;

use super::bundle::Bundles;
use super::quota::{
    MIB, On, btrfs, bundle, bundles_on, disturbed_bundle, ioctl_with, large_image, rootfs,
    write_error,
};

/// The quota groups of a store's file system, as `LEVEL/NUMBER`.
#[track_caller]
fn groups(store: &StoreRoot) -> Vec<String> {
    let table = btrfs(&["qgroup", "show"], &store.directory());
    let names = table.success().lines();
    let names = names.filter_map(|line| line.split_whitespace().next());
    let groups = names.filter(|name| name.starts_with(|first: char| first.is_ascii_digit()));
    groups.map(str::to_owned).collect()
}

/// Waits until deleted subvolumes are gone from the disk, and what they had is counted.
#[track_caller]
fn settle(store: &StoreRoot) {
    for call in [
        ["filesystem", "sync"],
        ["subvolume", "sync"],
        ["filesystem", "sync"],
    ] {
        btrfs(&call, &store.directory()).success();
    }
}

/// Leaves a quota group without a subvolume behind, as the kernel does where what one wrote is
/// shared by another that lives longer. Returns its name.
#[track_caller]
fn leave_group(store: &StoreRoot) -> String {
    let (first, second) = (
        store.directory().join("first"),
        store.directory().join("second"),
    );
    btrfs(&["subvolume", "create"], &first).success();
    fs::write(first.join("file"), vec![b'z'; 1 << 20]).unwrap();
    btrfs(&["filesystem", "sync"], &first).success();
    let id = btrfs(&["inspect-internal", "rootid"], &first);
    let group = format!("0/{}", id.success().trim());
    btrfs(&["subvolume", "snapshot", first.to_str().unwrap()], &second).success();
    for path in [&first, &second] {
        btrfs(&["subvolume", "delete"], path).success();
        settle(store);
    }
    assert!(
        groups(store).contains(&group),
        "the kernel drops it by itself"
    );
    group
}

/// Whether this kernel has simple quotas; btrfs is in use by now.
fn has_simple_quotas() -> bool {
    Path::new("/sys/fs/btrfs/features/simple_quota").exists()
}

/// A store on which quotas are on, with an image.
fn store_with_quotas() -> (Bundles, String) {
    let mut bundles = Bundles::new();
    let image = bundles.pull(&images::busybox().unwrap());
    bundle(&bundles, &image, "first", &["--quota", "5m"]).success();
    bundles.store.run(&["unbundle", "first"]).success();
    (bundles, image)
}

#[test]
fn no_quota_group_outlives_its_subvolume() {
    needs!(has_strace(), "needs strace");
    let (mut bundles, _) = store_with_quotas();
    // layers that share what they wrote, while it is counted
    let image = bundles.pull(&images::whiteouts());
    bundle(&bundles, &image, "whole", &["--quota", "5m"]).success();
    let written = rootfs(&bundles, "whole").join("new");
    assert_eq!(write_error(&written, MIB), None);
    bundles
        .store
        .run(&["commit", "whole", "committed"])
        .success();
    let failed = bundle(
        &bundles,
        &image,
        "failed",
        &["--quota", "5m", "--user", "nobody-here"],
    );
    assert!(
        failed.one_line_failure().contains("nobody-here"),
        "{failed}"
    );

    let kill = ioctl_with(&bundles, &image, "QGROUP_LIMIT").kill_before();
    let killed = disturbed_bundle(&bundles, &image, "killed", &kill);
    assert_eq!(killed.code(), 128 + 9, "{killed}");
    assert!(rootfs(&bundles, "killed").exists());

    bundles.store.run(&["unbundle", "whole", "probe"]).success();
    bundles.store.run(&["prune", "--all"]).success();
    assert_eq!(bundles.store.subvolumes().unwrap(), [""; 0]);
    settle(&bundles.store);
    bundles.store.run(&["prune"]).success();
    assert_eq!(
        groups(&bundles.store),
        ["0/5"],
        "but for the file system's own"
    );
}

#[test]
fn a_stale_quota_group_is_a_leftover_that_repair_and_prune_drop() {
    let (bundles, _) = store_with_quotas();
    needs!(has_simple_quotas(), "needs simple quotas (Linux 6.7)");
    for command in [&["fsck", "--repair"][..], &["prune"]] {
        let group = leave_group(&bundles.store);
        let output = bundles.store.run(&["fsck", "--format", "json"]);
        assert_eq!(output.code(), 0, "no damage: {output}");
        let report = output.json();
        let problem = format!("the subvolume of quota group {group} is gone");
        let mut findings = report["findings"].as_array().unwrap().iter();
        let finding = findings.find(|finding| finding["problem"] == problem.as_str());
        assert_eq!(finding.unwrap()["kind"], "leftover", "{output}");
        assert!(groups(&bundles.store).contains(&group), "fsck only looks");

        bundles.store.run(command).success();
        assert!(!groups(&bundles.store).contains(&group), "{command:?}");
        let output = bundles.store.run(&["fsck"]);
        assert!(!output.success().contains("quota"), "{output}");
    }
    // those of subvolumes are left alone
    let layers = bundles.store.subvolumes().unwrap();
    assert_eq!(groups(&bundles.store).len(), 1 + layers.len());
}

#[test]
fn quota_groups_on_a_file_system_of_the_users_own_are_left_alone() {
    let (bundles, image) = store_with_quotas();
    needs!(has_simple_quotas(), "needs simple quotas (Linux 6.7)");
    let group = leave_group(&bundles.store);
    let users = StoreRoot::new().unwrap();
    let mut mount = Command::new("mount");
    mount.arg("--bind").arg(bundles.store.directory());
    run_command(mount.arg(users.path())).success();
    let output = users.run(&["fsck", "--repair"]);
    assert!(!output.success().contains("quota"), "{output}");
    users.run(&["pull", "--quiet", &image]).success();
    users.run(&["prune"]).success();
    assert!(groups(&users).contains(&group));
}

#[test]
fn a_bundle_at_its_quota_with_a_subvolume_in_it_can_be_removed() {
    for on in [On::Own, On::Users] {
        let mut bundles = bundles_on(on);
        let image = bundles.pull(&large_image());
        bundle(&bundles, &image, "full", &["--quota", "1m"]).success();
        let root = rootfs(&bundles, "full");
        btrfs(&["subvolume", "create"], &root.join("nested")).success();
        assert_eq!(
            write_error(&root.join("fill"), 8 * MIB),
            Some(Errno::EDQUOT)
        );
        let output = bundles.store.run(&["unbundle", "full"]);
        assert_eq!(output.code(), 0, "{on:?}: {output}");
        let left = bundles.store.subvolumes().unwrap();
        assert!(
            left.iter().all(|path| path.starts_with("layers/")),
            "{left:?}"
        );
    }
}

#[test]
fn a_container_finds_no_room_beyond_its_quota_in_subvolumes_that_it_makes() {
    let (bundles, image) = store_with_quotas();
    needs!(has_simple_quotas(), "needs simple quotas (Linux 6.7)");
    bundle(&bundles, &image, "one", &["--quota", "4m"]).success();
    let root = rootfs(&bundles, "one");
    for nested in ["a", "b", "b/c"] {
        btrfs(&["subvolume", "create"], &root.join(nested)).success();
        assert_eq!(write_error(&root.join(nested).join("file"), MIB / 2), None);
    }
    let error = write_error(&root.join("b/c/more"), 4 * MIB);
    assert_eq!(error, Some(Errno::EDQUOT));
    assert_eq!(write_error(&root.join("more"), MIB), Some(Errno::EDQUOT));
    // to take it away takes none
    bundles.store.run(&["unbundle", "one"]).success();
    settle(&bundles.store);
    bundles.store.run(&["prune"]).success();
    let layers = bundles.store.subvolumes().unwrap();
    assert_eq!(groups(&bundles.store).len(), 1 + layers.len());
}
