//! Roots and volumes on filesystems of disks: config.md#root, config.md#linux-mount-options.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use conformance::host::{enter_private_mounts, is_root, set_propagation};
use conformance::test_bundle::make_rootfs;
use conformance::{Kind, TestBundle, needs, peer_differs, run_command, runtime};
use nix::mount::{MsFlags, mount};
use serde_json::json;
use tempfile::TempDir;

/// A filesystem in a file, on a loop device that goes with its last mount.
struct Disk {
    directory: TempDir,
}

impl Disk {
    /// None where this machine cannot mount it.
    fn new(kind: &str) -> Option<Self> {
        enter_private_mounts();
        let disk = Self {
            directory: tempfile::tempdir().expect("make a temporary directory"),
        };
        let image = disk.directory.path().join("image");
        let file = File::create(&image).expect("create");
        file.set_len(128 << 20).expect("set the length");
        fs::create_dir(disk.path("")).expect("mkdir");
        run_command(Command::new(format!("mkfs.{kind}")).arg("-q").arg(&image)).success();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", kind, "-o", "loop"])
            .arg(&image)
            .arg(disk.path(""));
        (run_command(&mut mount).code() == 0).then_some(disk)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("mounted").join(name)
    }

    fn btrfs(&self, args: &[&str]) {
        run_command(Command::new("btrfs").args(args).current_dir(self.path(""))).success();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        conformance::leftovers::remove_mounts(self.directory.path());
    }
}

#[test]
fn a_volume_on_a_disk_is_id_mapped() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc, "Debian's knows no id-mapped mounts");
    for kind in ["ext4", "btrfs"] {
        let disk = Disk::new(kind);
        needs!(disk.is_some(), "no {kind} on a loop device can be mounted");
        let volume = disk.as_ref().expect("a disk").path("volume");
        fs::create_dir(&volume).expect("mkdir");
        fs::write(volume.join("file"), "").expect("write");
        chown(volume.join("file"), Some(7), Some(8)).expect("chown");
        let bundle = TestBundle::shell("stat -c %u:%g /data/file; touch /data/new")
            .user_namespace()
            .mount(json!({"destination": "/data", "type": "bind",
            "source": volume, "options": ["bind", "idmap"]}));
        assert_eq!(bundle.run_ok(), "7:8\n", "{kind}");
        let new = fs::metadata(volume.join("new")).expect("stat");
        assert_eq!((new.uid(), new.gid()), (0, 0), "{kind}");
    }
}

/// The root is named absolutely, relatively and by a link.
#[track_caller]
fn runs_in(root: &Path, written: bool) {
    let mut bundle = TestBundle::new();
    let up = "../".repeat(bundle.path().components().count());
    let relative = Path::new(&up).join(root.strip_prefix("/").expect("absolute"));
    std::os::unix::fs::symlink(root, bundle.path().join("link")).expect("symlink");
    for name in [root, &relative, Path::new("link")] {
        if name == Path::new("link") && runtime().kind == Kind::Runc {
            // It refuses a root that is named by a link.
            continue;
        }
        bundle = bundle
            .args(&["/bin/sh", "-c", "cat /marker; touch /made && echo written"])
            .set("/root/path", json!(name));
        let output = bundle.run();
        let expected = if written {
            "found\nwritten\n"
        } else {
            "found\n"
        };
        assert_eq!(output.stdout, expected, "{name:?}: {output}");
        assert_eq!(fs::remove_file(root.join("made")).is_ok(), written);
    }
}

#[test]
fn the_root_may_be_a_subvolume_or_a_snapshot_of_btrfs() {
    needs!(is_root(), "needs root");
    let disk = Disk::new("btrfs");
    needs!(disk.is_some(), "no btrfs on a loop device can be mounted");
    let disk = disk.expect("a disk");
    disk.btrfs(&["subvolume", "create", "image"]);
    make_rootfs(&disk.path("image"));
    fs::write(disk.path("image/marker"), "found\n").expect("write");
    disk.btrfs(&["subvolume", "snapshot", "image", "container"]);
    disk.btrfs(&["subvolume", "snapshot", "-r", "image", "fixed"]);
    for (name, written) in [("image", true), ("container", true), ("fixed", false)] {
        runs_in(&disk.path(name), written);
    }
}

/// As in an initramfs: the mount that the runtime's own root is cannot be exchanged, here because
/// the one around it is shared.
#[test]
fn a_root_that_cannot_be_pivoted_takes_no_pivot() {
    needs!(is_root(), "needs root");
    let bundle =
        TestBundle::shell("cat /marker; ls -a /; grep -c ' / r[ow],' /proc/self/mountinfo");
    fs::write(bundle.rootfs().join("marker"), "found\n").expect("write");
    bundle.write_config();
    let host = bundle.scratch().join("host");
    fs::create_dir(&host).expect("mkdir");
    let none = None::<&str>;
    mount(Some("x"), &host, Some("tmpfs"), MsFlags::empty(), none).expect("mount");
    let bind = |from: &Path, to: &Path| {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(from), to, none, flags, none).expect("bind");
    };
    for name in [
        "usr", "lib", "lib64", "bin", "proc", "sys", "dev", "tmp", "etc", "run",
    ] {
        let (from, to) = (Path::new("/").join(name), host.join(name));
        if from.exists() {
            fs::create_dir(&to).expect("mkdir");
            bind(&from, &to);
        }
    }
    let program = host.join("runtime");
    File::create(&program).expect("create");
    bind(&runtime().program, &program);
    set_propagation(Path::new("/"), MsFlags::MS_SHARED);
    let call = |options: &[&str]| {
        let mut command = Command::new("chroot");
        command
            .arg(&host)
            .args(["/runtime", "--root"])
            .arg(bundle.state_root())
            .args(["run", "--bundle"])
            .arg(bundle.path());
        run_command(command.args(options).arg(bundle.id()))
    };
    let (refused, moved) = (call(&[]), call(&["--no-pivot"]));
    set_propagation(Path::new("/"), MsFlags::MS_PRIVATE);
    conformance::leftovers::remove_mounts(&host);
    assert!(
        refused.one_line_failure().contains("pivot_root"),
        "{refused}"
    );
    let lines: Vec<&str> = moved.success().lines().collect();
    assert_eq!(lines.first(), Some(&"found"), "{moved}");
    assert_eq!(lines.last(), Some(&"1"), "{moved}");
    assert!(!lines.contains(&"usr"), "the runtime's own root: {moved}");
}
