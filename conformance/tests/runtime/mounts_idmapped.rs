//! Id-mapped mounts: config.md#linux-mount-options (idmap, ridmap) and config.md#mounts
//! (uidMappings, gidMappings).

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use conformance::host::is_root;
use conformance::{Kind, TestBundle, gocker_only, needs, peer_differs, runtime};
use nix::mount::{MsFlags, mount, umount};
use serde_json::{Value, json};

fn bind(source: &Path, options: &[&str]) -> Value {
    json!({"destination": "/data", "type": "bind", "source": source, "options": options})
}

/// A directory beside the bundle with a file in it, both of these owners.
fn volume(bundle: &TestBundle, uid: u32, gid: u32) -> PathBuf {
    let volume = bundle.scratch().join("volume");
    fs::create_dir(&volume).expect("mkdir");
    fs::write(volume.join("file"), "from the volume\n").expect("write");
    for path in [&volume, &volume.join("file")] {
        chown(path, Some(uid), Some(gid)).expect("chown");
    }
    volume
}

fn map(container: u32, host: u32, size: u32) -> Value {
    json!([{"containerID": container, "hostID": host, "size": size}])
}

/// Mappings of a mount's own: what the source has, and what is shown.
fn with_mappings(mut entry: Value, uids: Value, gids: Value) -> Value {
    entry["uidMappings"] = uids;
    entry["gidMappings"] = gids;
    entry
}

#[test]
fn idmap_shows_the_hosts_root_as_the_containers() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc, "Debian's knows no id-mapped mounts");
    for (options, shown) in [
        (["bind"].as_slice(), "65534:65534\n"),
        (&["bind", "idmap"], "0:0\n"),
        (&["rbind", "ridmap"], "0:0\n"),
    ] {
        if options[1..] == ["ridmap"] && runtime().kind == Kind::Crun {
            // Debian's does not know the word.
            continue;
        }
        let bundle =
            TestBundle::shell("stat -c %u:%g /data/file; touch /data/new 2>/dev/null; true")
                .user_namespace();
        let volume = volume(&bundle, 0, 0);
        let bundle = bundle.mount(bind(&volume, options));
        assert_eq!(bundle.run_ok(), shown, "{options:?}");
        let new = fs::metadata(volume.join("new")).map(|file| (file.uid(), file.gid()));
        let expected = options.len() > 1;
        assert_eq!(new.ok(), expected.then_some((0, 0)), "{options:?}");
    }
}

#[test]
fn a_mapping_of_the_mounts_own_is_the_one_that_counts() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "newer ones only");
    let own = |volume: &Path, options: &[&str]| {
        with_mappings(
            bind(volume, options),
            map(1000, 5000, 10),
            map(2000, 6000, 10),
        )
    };
    // With the option and without it, in a user namespace and outside of one.
    for options in [
        ["bind"].as_slice(),
        &["bind", "idmap"],
        &["rbind", "ridmap"],
    ] {
        let bundle = TestBundle::shell("stat -c %u:%g /data/file");
        let volume = volume(&bundle, 1003, 2004);
        let bundle = bundle.mount(own(&volume, options));
        assert_eq!(bundle.run_ok(), "5003:6004\n", "{options:?}");
    }
    let bundle = TestBundle::shell("stat -c %u:%g /data/file").user_namespace();
    let volume = volume(&bundle, 7, 8);
    let entry = with_mappings(
        bind(&volume, &["bind"]),
        map(7, 100_042, 1),
        map(8, 100_043, 1),
    );
    assert_eq!(bundle.mount(entry).run_ok(), "42:43\n");
}

#[test]
fn several_mounts_have_several_mappings() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "newer ones only");
    let mut bundle = TestBundle::shell("stat -c %u:%g /a/file /b/file /c/file");
    let volume = volume(&bundle, 1, 1);
    for (name, shown) in [("/a", 10), ("/b", 10), ("/c", 20)] {
        let mut entry = with_mappings(
            bind(&volume, &["bind", "ro"]),
            map(1, shown, 1),
            map(1, shown + 1, 1),
        );
        entry["destination"] = json!(name);
        bundle = bundle.mount(entry);
    }
    assert_eq!(bundle.run_ok(), "10:11\n10:11\n20:21\n");
}

#[test]
fn idmap_takes_one_mount_and_ridmap_the_whole_tree() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "newer ones only");
    for (option, below) in [("idmap", "65534"), ("ridmap", "0")] {
        let bundle = TestBundle::shell("stat -c %u /data/file /data/sub/file").user_namespace();
        let volume = volume(&bundle, 0, 0);
        let sub = volume.join("sub");
        fs::create_dir(&sub).expect("mkdir");
        mount(
            Some("tmpfs"),
            &sub,
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .expect("mount");
        fs::write(sub.join("file"), "").expect("write");
        let bundle = bundle.mount(bind(&volume, &["rbind", option]));
        let output = bundle.run();
        umount(&sub).expect("umount");
        assert_eq!(output.success(), format!("0\n{below}\n"), "{option}");
    }
}

#[test]
fn idmap_takes_the_mapping_of_a_user_namespace_that_is_joined() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "newer ones only");
    let first = TestBundle::sleeper().user_namespace();
    let container = first.running();
    let path = format!("/proc/{}/ns/user", container.pid());
    let bundle = TestBundle::shell("stat -c %u:%g /data/file")
        .user_namespace()
        .namespace("user", Some(json!({"type": "user", "path": path})))
        .set("/linux/uidMappings", json!(null))
        .set("/linux/gidMappings", json!(null));
    let volume = volume(&bundle, 3, 4);
    let bundle = bundle.mount(bind(&volume, &["bind", "idmap"]));
    assert_eq!(bundle.run_ok(), "3:4\n");
}

#[test]
fn what_no_mapping_can_be_made_for_is_refused_by_name() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let one = || map(0, 1000, 1);
    let tmpfs = json!({"destination": "/data", "type": "tmpfs", "options": ["idmap"]});
    let source = Path::new("/");
    let cases = [
        (bind(source, &["bind", "idmap"]), "mounts[7].options"),
        (
            bind(source, &["bind", "idmap=uids=0-1-1"]),
            "mounts[7].options[1]",
        ),
        (tmpfs.clone(), "mounts[7].options"),
        (with_mappings(tmpfs, one(), one()), "mounts[7].uidMappings"),
        (
            with_mappings(bind(source, &["bind"]), one(), json!(null)),
            "mounts[7].gidMappings",
        ),
        (
            with_mappings(bind(source, &["bind"]), json!(null), one()),
            "mounts[7].uidMappings",
        ),
        (
            with_mappings(bind(source, &["bind"]), map(0, 1, 0), one()),
            "mounts[7].uidMappings[0]",
        ),
        (
            with_mappings(bind(source, &["bind"]), map(0, u32::MAX, 1), one()),
            "mounts[7].uidMappings[0]",
        ),
        // A file system that the kernel cannot map.
        (
            with_mappings(bind(Path::new("/proc/sys"), &["bind"]), one(), one()),
            "mounts[7].options",
        ),
        (
            with_mappings(bind(Path::new("/not/there"), &["bind"]), one(), one()),
            "mounts[7].source",
        ),
    ];
    for (entry, field) in cases {
        let bundle = TestBundle::new().mount(entry.clone());
        let output = bundle.run();
        assert!(
            output.one_line_failure().contains(field),
            "{entry}: {output}"
        );
        bundle.assert_nothing_left();
    }
}
