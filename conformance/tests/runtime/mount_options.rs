//! The words of a mount's options, and what they do: config.md#linux-mount-options.

use std::path::Path;
use std::process::Command;

use conformance::host::is_root;
use conformance::{TestBundle, gocker_only, needs, peer_differs, run_command};
use serde_json::Value;

use super::mounts::{bind, mount_inside, tmpfs, volume};

#[test]
fn every_option_of_a_mount_takes_effect() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "an option does not undo an earlier one");
    for (options, with, without) in [
        (["ro"].as_slice(), ["ro"].as_slice(), [].as_slice()),
        (&["rw"], &["rw"], &["ro"]),
        (
            &["nosuid", "nodev", "noexec"],
            &["nosuid", "nodev", "noexec"],
            &[],
        ),
        (&["nosuid", "suid"], &[], &["nosuid"]),
        (
            &["nodev", "dev", "noexec", "exec"],
            &[],
            &["nodev", "noexec"],
        ),
        (&["noatime"], &["noatime"], &["relatime"]),
        (&["nodiratime"], &["nodiratime"], &[]),
        (&["relatime"], &["relatime"], &["noatime"]),
        (&["strictatime"], &[], &["noatime", "relatime"]),
        (&["ro", "rw"], &["rw"], &["ro"]),
    ] {
        let bundle = TestBundle::new()
            .args(&["/bin/cat", "/proc/self/mountinfo"])
            .mount(tmpfs("/mnt", options));
        let mount = mount_inside(&bundle, "/mnt");
        for option in with {
            assert!(mount.has(option), "{options:?}: {mount:?}");
        }
        for option in without {
            assert!(!mount.has(option), "{options:?}: {mount:?}");
        }
    }
}

/// Words that take something back, and those that Debian's runc does not know.
#[test]
fn an_option_takes_back_what_an_earlier_one_set() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "newer ones only");
    for (options, with, without) in [
        (["nosymfollow"].as_slice(), "nosymfollow", "symfollow"),
        (&["nosymfollow", "symfollow"], "rw", "nosymfollow"),
        (&["nodiratime", "diratime"], "rw", "nodiratime"),
        (&["noatime", "atime"], "relatime", "noatime"),
        (&["noatime", "norelatime"], "relatime", "noatime"),
        (&["strictatime", "nostrictatime"], "relatime", "noatime"),
        (&["sync", "async", "loud"], "rw", "sync"),
        (&["lazytime", "nolazytime", "silent"], "rw", "lazytime"),
        (&["mand", "nomand", "defaults"], "rw", "mand"),
        (&["sync", "async", "iversion"], "rw", "sync"),
        (
            &["rnosuid", "rsuid", "rnoatime", "ratime"],
            "relatime",
            "nosuid",
        ),
    ] {
        let bundle = TestBundle::new()
            .args(&["/bin/cat", "/proc/self/mountinfo"])
            .mount(tmpfs("/mnt", options));
        let mount = mount_inside(&bundle, "/mnt");
        assert!(mount.has(with), "{options:?}: {mount:?}");
        let left = mount.has(without) || mount.file_system_has(without);
        assert!(!left, "{options:?}: {mount:?}");
    }
}

/// Each option that `features` tells is one that works.
#[test]
fn every_mount_option_told_by_features_is_served() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let features = run_command(Command::new(&conformance::runtime().program).arg("features"));
    let features: Value = serde_json::from_str(features.success()).expect("JSON");
    for option in features["mountOptions"].as_array().expect("mountOptions") {
        let option = option.as_str().expect("a string");
        // These ask for something beside the mount: a mapping, an earlier mount.
        if ["idmap", "ridmap", "remount"].contains(&option) {
            continue;
        }
        let try_on = |entry: &dyn Fn(&Path) -> Value| {
            let bundle = TestBundle::new();
            let volume = volume(&bundle, "volume");
            bundle.mount(entry(&volume)).run()
        };
        // Some make sense for a new file system alone, some for a bind mount.
        let bound = try_on(&|volume| bind(volume, "/data", &["rbind", option]));
        let new = try_on(&|_| tmpfs("/etc", &[option]));
        assert!(
            bound.code() == 0 || new.code() == 0,
            "{option}: {bound}\n{new}"
        );
    }
}
