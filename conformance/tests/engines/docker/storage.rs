//! Files: read-only roots, tmpfs, volumes, bind mounts, copies.

use std::fs;

use conformance::host::set_propagation;
use conformance::mount_table;
use conformance::needs;
use nix::mount::{MsFlags, mount};

use super::{Docker, WANTED, is_here};

#[test]
fn docker_mounts_volumes_and_temporary_file_systems() {
    needs!(is_here(), "{WANTED}");
    let docker = Docker::start();
    let options = [
        "--read-only",
        "--tmpfs=/run:size=1m,mode=700",
        "--shm-size=1m",
    ];
    let script = "touch /file; touch /run/file && stat -c %a /run; \
         for at in /run /dev/shm; do df -k $at | tail -n1 | tr -s ' ' | cut -d' ' -f2; done";
    let output = docker.run(&options, &["/bin/sh", "-c", script]);
    assert_eq!(output.success(), "700\n1024\n1024\n", "{output}");
    assert!(output.stderr.contains("Read-only file system"), "{output}");

    let shared = docker.at("shared");
    fs::create_dir(&shared).expect("mkdir");
    fs::write(shared.join("file"), "of the host\n").expect("write");
    let bind = format!("--volume={}:/data:ro", shared.display());
    let tmpfs = "--mount=type=tmpfs,destination=/small,tmpfs-size=65536";
    let options = [bind.as_str(), "--volume=kept:/kept", tmpfs];
    let script = "cat /data/file; touch /data/new; echo word >/kept/file; \
         head -c 100000 /dev/zero >/small/file; wc -c </small/file";
    let output = docker.run(&options, &["/bin/sh", "-c", script]);
    assert_eq!(output.stdout, "of the host\n65536\n", "{output}");
    assert!(output.stderr.contains("Read-only file system"), "{output}");
    assert!(output.stderr.contains("standard output"), "{output}");
    // The volume is there for the next one; what the image has at its place is copied into it.
    assert_eq!(
        docker.shell(&["--volume=kept:/k:ro"], "cat /k/file"),
        "word\n"
    );
    let copied = docker.shell(&["--volume=fresh:/etc"], "head -n1 /etc/passwd");
    assert_eq!(copied, "root:x:0:0:root:/root:/bin/sh\n");
    docker.end();
}

/// A mount made on the host afterwards is seen through `rslave`, one made inside is seen on the
/// host through `rshared`, and neither through `rprivate`.
#[test]
fn docker_passes_mounts_on_as_their_propagation_says() {
    needs!(is_here(), "{WANTED}");
    let docker = Docker::start();
    let shared = docker.at("shared");
    let none = None::<&str>;
    let tmpfs = |at: &std::path::Path| {
        fs::create_dir_all(at).expect("mkdir");
        mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), none).expect("mount a tmpfs");
    };
    tmpfs(&shared);
    set_propagation(&shared, MsFlags::MS_SHARED);
    for how in ["rprivate", "rslave", "rshared"] {
        fs::create_dir_all(shared.join(how)).expect("mkdir");
        fs::create_dir_all(shared.join("later")).expect("mkdir");
        let volume = format!("--volume={}:/shared:{how}", shared.display());
        let options = [volume.as_str(), "--cap-add=SYS_ADMIN"];
        let script = format!("mount -t tmpfs none /shared/{how}; sleep 1000");
        docker.background(how, &options, &script);
        let seen = |text: &str| {
            docker
                .ok(&["exec", how, "/bin/cat", "/proc/mounts"])
                .contains(text)
        };
        let inside = || seen(&format!(" /shared/{how} "));
        assert!(
            conformance::wait_until(std::time::Duration::from_secs(10), inside),
            "{how}"
        );
        tmpfs(&shared.join("later"));
        assert_eq!(seen(" /shared/later "), how != "rprivate", "{how}");
        let point = shared.join(how);
        let outside = mount_table::current()
            .iter()
            .any(|mount| mount.point == point);
        assert_eq!(outside, how == "rshared", "{how}");
        docker.ok(&["rm", "--force", how]);
        for left in conformance::leftovers::mounts(&shared).iter().rev() {
            if left != &shared {
                nix::mount::umount2(left, nix::mount::MntFlags::MNT_DETACH).expect("unmount");
            }
        }
    }
    nix::mount::umount2(&shared, nix::mount::MntFlags::MNT_DETACH).expect("unmount");
    docker.end();
}

#[test]
fn docker_copies_files_in_and_out() {
    needs!(is_here(), "{WANTED}");
    let docker = Docker::start();
    docker.background("holder", &["--tmpfs=/run"], "sleep 1000");
    let file = docker.at("file").display().to_string();
    fs::write(&file, "carried\n").expect("write");
    docker.ok(&["cp", &file, "holder:/tmp/carried"]);
    assert_eq!(
        docker.ok(&["exec", "holder", "/bin/cat", "/tmp/carried"]),
        "carried"
    );
    docker.ok(&["exec", "holder", "/bin/sh", "-c", "echo made >/tmp/made"]);
    let back = docker.at("back").display().to_string();
    docker.ok(&["cp", "holder:/tmp/made", &back]);
    assert_eq!(fs::read_to_string(&back).expect("the copy"), "made\n");
    assert!(docker.ok(&["diff", "holder"]).contains("A /tmp/made"));
    docker.ok(&["stop", "--time=0", "holder"]);
    docker.ok(&["cp", "holder:/tmp/made", &back]);
    docker.ok(&["commit", "holder", "committed:1"]);
    let told = docker.ok(&[
        "run",
        "--rm",
        "--network=none",
        "committed:1",
        "/bin/cat",
        "/tmp/made",
    ]);
    assert_eq!(told, "made");
    docker.ok(&["rm", "holder"]);
    docker.end();
}
