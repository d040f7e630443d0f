//! The parameters of new file systems: config.md#mounts.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use conformance::host::{enter_private_mounts, is_root};
use conformance::{TestBundle, gocker_only, needs, peer_differs};
use serde_json::{Value, json};

fn tmpfs(destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options})
}

fn directory(path: &Path, mode: u32) {
    fs::create_dir_all(path).expect("mkdir");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

#[test]
fn a_tmpfs_has_the_mode_of_the_directory_that_it_hides_unless_told_otherwise() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it keeps the mode of the new file system");
    peer_differs!(Runc, "Debian's overrides the mode that the options name");
    for copy_up in ["rw", "tmpcopyup"] {
        let script = "stat -c %a /there /new; stat -c '%a %u:%g' /told";
        let bundle = TestBundle::shell(script)
            .mount(tmpfs("/there", &[copy_up]))
            .mount(tmpfs("/new", &[copy_up]))
            .mount(tmpfs("/told", &[copy_up, "mode=1770", "uid=7", "gid=8"]));
        for name in ["there", "told"] {
            directory(&bundle.rootfs().join(name), 0o2711);
        }
        assert_eq!(bundle.run_ok(), "2711\n1777\n1770 7:8\n", "with {copy_up}");
    }
}

/// As engines ask for with images of many layers.
#[test]
fn an_overlay_may_have_more_layers_than_one_parameter_of_the_new_mount_api_holds() {
    needs!(is_root(), "needs root");
    enter_private_mounts();
    let bundle = TestBundle::shell(
        "cat /over/1 /over/9; grep -c ' /over ro,nosuid,nodev,' /proc/self/mountinfo",
    );
    let layers: Vec<_> = (0..10)
        .map(|number: u8| {
            let layer = bundle
                .scratch()
                .join(format!("{number}-{}", "x".repeat(40)));
            directory(&layer, 0o755);
            fs::write(layer.join(number.to_string()), format!("{number}\n")).expect("write");
            layer.to_string_lossy().into_owned()
        })
        .collect();
    let overlay = |lower: &str, more: &[&str]| {
        let lower = format!("lowerdir={lower}");
        let options = [&[lower.as_str(), "ro", "nosuid", "nodev", "rprivate"], more].concat();
        json!({"destination": "/over", "type": "overlay", "source": "overlay", "options": options})
    };
    let bundle = bundle.mount(overlay(&layers.join(":"), &[]));
    assert_eq!(bundle.run_ok(), "1\n9\n1\n");
}

#[test]
fn more_parameters_than_the_kernel_reads_are_refused() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "their kernel cuts them silently");
    let lower = format!("lowerdir={}", "/tmp:".repeat(1000));
    let overlay = json!({
        "destination": "/over", "type": "overlay", "source": "overlay", "options": [lower],
    });
    let bundle = TestBundle::new().mount(overlay);
    let output = bundle.run();
    let line = output.one_line_failure();
    assert!(
        line.contains("\"/over\"") && line.contains("E2BIG"),
        "{output}"
    );
    bundle.assert_nothing_left();
}

/// A backslash keeps a colon or a comma of a name, as mount(8) has it.
#[test]
fn the_layers_of_an_overlay_may_have_colons_and_commas_in_their_names() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it does not keep the backslash");
    enter_private_mounts();
    let bundle = TestBundle::shell("cat /over/one /over/two");
    let layer = |name: &str| {
        let layer = bundle.scratch().join(name);
        directory(&layer, 0o755);
        layer
    };
    fs::write(layer("a:b").join("one"), "one\n").expect("write");
    fs::write(layer("a,b").join("two"), "two\n").expect("write");
    let at = bundle.scratch().display();
    let lower = format!("lowerdir={at}/a\\:b:{at}/a\\,b");
    let overlay = json!({
        "destination": "/over", "type": "overlay", "source": "overlay", "options": [lower],
    });
    assert_eq!(bundle.mount(overlay).run_ok(), "one\ntwo\n");
}

/// fsconfig(2) does not know the words; mount(2) has a flag for them, which tmpfs ignores.
#[test]
fn iversion_is_taken_by_a_filesystem_that_counts_no_versions() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "newer ones only");
    for word in ["iversion", "noiversion"] {
        let script = "stat -c %a /mnt; grep -c ' / /mnt rw,nosuid,.*size=128k' /proc/self/mountinfo
             grep -c ' / r[ow],' /proc/self/mountinfo; cat /mnt/file";
        let bundle = TestBundle::shell(script)
            .mount(tmpfs("/mnt", &[word, "nosuid", "size=128k", "tmpcopyup"]));
        directory(&bundle.rootfs().join("mnt"), 0o755);
        fs::write(bundle.rootfs().join("mnt/file"), "copied\n").expect("write");
        // What covered the root for a moment is gone.
        let told = bundle.run_ok();
        assert_eq!(told, "755\n1\n1\ncopied\n", "{word}");
    }
}

#[test]
fn a_remount_changes_the_options_and_the_parameters_that_it_names() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it mounts anew");
    let script = "grep -c ' / /mnt ro,nosuid,.*size=256k' /proc/self/mountinfo; cat /mnt/file";
    let remount = |options: &[&str]| tmpfs("/mnt", &[&["remount"], options].concat());
    let bundle = TestBundle::shell(script)
        .mount(tmpfs("/mnt", &["nosuid", "size=128k", "tmpcopyup"]))
        .mount(remount(&["ro", "nosuid", "size=256k"]));
    directory(&bundle.rootfs().join("mnt"), 0o755);
    fs::write(bundle.rootfs().join("mnt/file"), "kept\n").expect("write");
    assert_eq!(bundle.run_ok(), "1\nkept\n");
}

#[test]
fn a_remount_that_cannot_be_is_refused() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let remount = |kind: &str, destination: &str, options: &[&str]| {
        let options = [&["remount"], options].concat();
        json!({"destination": destination, "type": kind, "source": "x", "options": options})
    };
    for (entry, word) in [
        (remount("tmpfs", "/etc", &["ro"]), "/etc"),
        (remount("tmpfs", "/dev/shm", &["no-such=1"]), "no-such"),
        // The filesystem of a bind mount is the host's.
        (
            remount("none", "/etc", &["bind", "size=1k"]),
            "mounts[7].options",
        ),
    ] {
        let bundle = TestBundle::new().mount(entry);
        let output = bundle.run();
        assert!(output.one_line_failure().contains(word), "{output}");
        bundle.assert_nothing_left();
    }
}

/// It is writable until the later mounts have their directories in it.
#[test]
fn a_read_only_tmpfs_is_read_only_and_what_is_mounted_over_it_is_not() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "they change what is mounted last");
    let script = "touch /a/x 2>&1; touch /a/below/x && echo below; touch /b/x && echo over";
    let bundle = TestBundle::shell(script)
        .mount(tmpfs("/a", &["ro"]))
        .mount(tmpfs("/a/below", &[]))
        .mount(tmpfs("/b", &["ro"]))
        .mount(tmpfs("/b", &[]));
    let expected = "touch: /a/x: Read-only file system\nbelow\nover\n";
    assert_eq!(bundle.run_ok(), expected);
}
