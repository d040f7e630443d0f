//! Volumes, mounts, secrets and read-only containers of Podman's.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use conformance::host::is_root;
use conformance::needs;

use super::{IMAGE, Podman, is_here};

#[test]
fn podman_mounts_volumes() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package podman");
    let podman = Podman::new();
    podman.ok(&["volume", "create", "named"]);
    podman.shell(&["--volume", "named:/data"], "echo kept > /data/file");
    let script = "cat /data/file; touch /data/more 2> /dev/null || echo read-only";
    let read = podman.shell(&["--volume", "named:/data:ro"], script);
    assert_eq!(read, "kept\nread-only\n");
    let read = podman.shell(
        &["--mount", "type=volume,src=named,dst=/a/b/c"],
        "cat /a/b/c/file",
    );
    assert_eq!(read, "kept\n");

    let volume = podman.path().join("volume");
    fs::create_dir_all(volume.join("sub")).expect("mkdir");
    fs::write(volume.join("sub/file"), "bound\n").expect("write");
    let with = |options: &str| format!("{}:/data:{options}", volume.display());
    let chowned = ["--user", "33:44", "--volume", &with("U")];
    podman.shell(&chowned, "touch /data/own");
    let own = fs::metadata(volume.join("own")).expect("stat");
    assert_eq!((own.uid(), own.gid()), (33, 44));
    let options = podman.shell(
        &["--volume", &with("nosuid,nodev,noexec,rslave")],
        "awk '$5 == \"/data\" {print $6}' /proc/self/mountinfo",
    );
    assert!(options.starts_with("rw,nosuid,nodev,noexec"), "{options}");
    let above = podman.shell(&["--volume", &with("O")], "touch /data/above; ls /data");
    assert_eq!(above, "above\nown\nsub\n");
    assert!(!volume.join("above").exists());
    podman.assert_nothing_left();
}

#[test]
fn podman_makes_mounts_of_every_type() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package podman");
    let podman = Podman::new();
    let volume = podman.path().join("volume");
    fs::create_dir_all(volume.join("sub")).expect("mkdir");
    fs::write(volume.join("sub/file"), "bound\n").expect("write");
    let volume = volume.display();
    let directory = format!("type=bind,src={volume}/sub,dst=/data,ro=true,bind-propagation=rslave");
    let script = "cat /data/file; touch /data/x 2> /dev/null || echo read-only";
    let read = podman.shell(&["--mount", &directory], script);
    assert_eq!(read, "bound\nread-only\n");
    let file = format!("type=bind,src={volume}/sub/file,dst=/etc/file");
    assert_eq!(
        podman.shell(&["--mount", &file], "cat /etc/file"),
        "bound\n"
    );

    let show = "stat -c %a /data; awk '$2 == \"/data\" {print $3}' /proc/mounts";
    for (options, seen) in [
        (["--tmpfs", "/data:size=1m,mode=1770"], "1770\ntmpfs\n"),
        (["--tmpfs", "/data"], "1777\ntmpfs\n"),
        (
            [
                "--mount",
                "type=tmpfs,dst=/data,tmpfs-size=1m,tmpfs-mode=700",
            ],
            "700\ntmpfs\n",
        ),
    ] {
        assert_eq!(podman.shell(&options, show), seen, "{options:?}");
    }
    let devpts = ["--mount", "type=devpts,dst=/dev/other"];
    let kind = podman.shell(
        &devpts,
        "awk '$2 == \"/dev/other\" {print $3}' /proc/mounts",
    );
    assert_eq!(kind, "devpts\n");
    let image = format!("type=image,src={IMAGE},dst=/image");
    let script = "ls /image/bin/sh; touch /image/x 2> /dev/null || echo read-only";
    assert_eq!(
        podman.shell(&["--mount", &image], script),
        "/image/bin/sh\nread-only\n"
    );
    let image = format!("{image},rw=true");
    assert_eq!(
        podman.shell(&["--mount", &image], script),
        "/image/bin/sh\n"
    );
    podman.assert_nothing_left();
}

#[test]
fn podman_hands_secrets_to_a_container() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package podman");
    let podman = Podman::new();
    let file = podman.path().join("secret");
    fs::write(&file, "kept from others").expect("write");
    podman.ok(&["secret", "create", "word", &file.to_string_lossy()]);
    let plain = podman.shell(
        &["--secret", "word"],
        "cat /run/secrets/word; stat -c ' %a %u' /run/secrets/word",
    );
    assert_eq!(plain, "kept from others 444 0\n");
    let placed = podman.shell(
        &[
            "--secret",
            "word,target=/deep/er/word,uid=33,mode=0400",
            "--user",
            "web",
        ],
        "cat /deep/er/word; stat -c ' %a %u' /deep/er/word",
    );
    assert_eq!(placed, "kept from others 400 33\n");
    let variable = ["--secret", "word,type=env,target=WORD"];
    assert_eq!(podman.shell(&variable, "echo $WORD"), "kept from others\n");
    podman.assert_nothing_left();
}

#[test]
fn podman_makes_a_container_read_only_with_and_without_places_to_write() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package podman");
    let podman = Podman::new();
    let script =
        "for d in / /tmp /run /var/tmp /dev/shm; do touch $d/x 2> /dev/null && echo $d; done; true";
    let written = podman.shell(&["--read-only"], script);
    assert_eq!(written, "/tmp\n/run\n/var/tmp\n/dev/shm\n");
    let nowhere = podman.shell(&["--read-only", "--read-only-tmpfs=false"], script);
    assert_eq!(nowhere, "/dev/shm\n");
    podman.assert_nothing_left();
}
