//! Attacks that need luck: somebody swaps a directory for a link, again and again, while
//! containers are made for some seconds. What lies beside the bundle is the host, and a canary
//! there tells when it was reached.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use conformance::host::is_root;
use conformance::mount_table::{self, Mount};
use conformance::old_kernel::{Answer, newer_calls, without};
use conformance::{Output, TestBundle, needs, peer_differs};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::json;

use super::console::{run_in_script, with_terminal};

/// How long each attack goes on.
const DURATION: Duration = Duration::from_secs(3);

const SECRET: &str = "of the host";

/// Stops the attacker however the attempts end.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Swaps two names all the time, while containers are run of the bundle: with all system calls,
/// and without those that older kernels lack.
fn race(bundle: &TestBundle, names: [&Path; 2], judge: impl FnMut(&Output)) {
    race_with(bundle, names, TestBundle::run, judge);
}

/// The same, with containers run as `run` does it.
fn race_with(
    bundle: &TestBundle,
    names: [&Path; 2],
    run: fn(&TestBundle) -> Output,
    mut judge: impl FnMut(&Output),
) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let [one, other] = names;
                renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE)
                    .expect("swap");
            }
        });
        let end = Instant::now() + DURATION;
        while Instant::now() < end {
            // It may fail, at any step; it may not reach out.
            judge(&run(bundle));
            judge(&without(&newer_calls(), Answer::NoSuchCall, || run(bundle)));
        }
    });
    bundle.assert_nothing_left();
}

/// A directory of the host with a canary in it, which is to stay as it is.
struct Canary {
    directory: PathBuf,
    mounts: usize,
    before: (u32, u32, i64, u64),
}

impl Canary {
    fn new(bundle: &TestBundle) -> Self {
        let directory = bundle.scratch().join("outside");
        fs::create_dir(&directory).expect("mkdir");
        fs::write(directory.join("canary"), SECRET).expect("write");
        Self {
            before: Self::state(&directory),
            mounts: mount_table::current().len(),
            directory,
        }
    }

    fn state(directory: &Path) -> (u32, u32, i64, u64) {
        let stat = fs::metadata(directory).expect("stat");
        (stat.uid(), stat.mode(), stat.mtime_nsec(), stat.nlink())
    }

    #[track_caller]
    fn assert_untouched(&self, output: &Output) {
        assert_eq!(
            Self::state(&self.directory),
            self.before,
            "changed on the host: {output}"
        );
        let text = fs::read_to_string(self.directory.join("canary")).expect("read");
        assert_eq!(text, SECRET, "{output}");
        assert!(
            !output.stdout.contains(SECRET),
            "read from the host: {output}"
        );
        assert_eq!(
            mount_table::current().len(),
            self.mounts,
            "mounted on the host: {output}"
        );
    }
}

/// `/swapped`, a directory, and `/link`, which leads to the canary's.
fn swapped(bundle: &TestBundle, canary: &Canary) -> [PathBuf; 2] {
    let names = ["swapped", "link"].map(|name| bundle.rootfs().join(name));
    fs::create_dir(&names[0]).expect("mkdir");
    symlink(&canary.directory, &names[1]).expect("symlink");
    names
}

/// CVE-2024-45310, CVE-2025-24965: directories, files and nodes are made where one of the
/// directories on the way is swapped for a link.
#[test]
fn nothing_is_made_through_a_swapped_directory() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "Debian's are older than the repair");
    let bundle = TestBundle::new();
    let canary = Canary::new(&bundle);
    let [swapped, link] = swapped(&bundle, &canary);
    let source = bundle.scratch().join("source");
    fs::create_dir(&source).expect("mkdir");
    let mut bundle = bundle
        .set("/process/cwd", json!("/swapped/working/directory"))
        .set(
            "/linux/devices",
            json!([{"path": "/swapped/deep/node", "type": "p"}, {"path": "/swapped/pipe", "type": "p"}]),
        );
    for number in 0..4 {
        bundle = bundle
            .mount(json!({"destination": format!("/swapped/{number}/a/b/c"),
                "type": "bind", "source": source, "options": ["bind"]}))
            .mount(json!({"destination": format!("/swapped/{number}/file"),
                "type": "bind", "source": "/dev/null", "options": ["bind"]}));
    }
    race(&bundle, [&swapped, &link], |output| {
        canary.assert_untouched(output)
    });
}

/// The mounts that were made elsewhere than at or below `place`.
fn elsewhere(output: &Output, source: &str, place: &str) -> Vec<Mount> {
    let mounts = mount_table::parse(&output.stdout).into_iter();
    mounts
        // Mounted on the root of the container is inside; elsewhere is not.
        .filter(|mount| mount.source == source && mount.point != Path::new("/"))
        .filter(|mount| !mount.point.starts_with(place))
        .collect()
}

/// CVE-2021-30465, CVE-2019-18837: a volume that two containers share, in which a mount point
/// is swapped between its check and the mount.
#[test]
fn a_swapped_mount_point_mounts_nothing_outside() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "a long race, run for ours");
    let bundle = TestBundle::new().args(&["/bin/cat", "/proc/self/mountinfo"]);
    let canary = Canary::new(&bundle);
    let volume = bundle.scratch().join("volume");
    fs::create_dir_all(volume.join("point")).expect("mkdir");
    symlink("/", volume.join("link")).expect("symlink");
    let mut bundle = bundle.mount(json!({"destination": "/volume", "type": "bind",
        "source": volume, "options": ["bind"]}));
    // Mounted by either of the kernel's ways, and finished at once or later.
    for option in ["rw", "ro", "iversion", "rw", "ro", "iversion"] {
        bundle = bundle.mount(json!({"destination": "/volume/point", "type": "tmpfs",
            "source": "attack", "options": [option]}));
    }
    race(
        &bundle,
        [&volume.join("point"), &volume.join("link")],
        |output| {
            canary.assert_untouched(output);
            assert_eq!(elsewhere(output, "attack", "/volume"), []);
        },
    );
}

/// CVE-2025-31133 and kin: what is masked, protected and copied is swapped meanwhile.
#[test]
fn a_swapped_path_is_not_masked_protected_or_copied_from_the_host() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "a long race, run for ours");
    let bundle = TestBundle::shell(
        "cat /swapped/* /link/* /copied/*; for f in /swapped/canary /link/canary; do echo x > $f; done",
    );
    let canary = Canary::new(&bundle);
    let [swapped, link] = swapped(&bundle, &canary);
    fs::write(swapped.join("canary"), "inside\n").expect("write");
    symlink("swapped", bundle.rootfs().join("copied")).expect("symlink");
    let bundle = bundle
        .set(
            "/linux/maskedPaths",
            json!(["/swapped/canary", "/swapped/x", "/link/canary"]),
        )
        .set(
            "/linux/readonlyPaths",
            json!(["/swapped", "/link", "/swapped/canary"]),
        )
        .mount(
            json!({"destination": "/copied", "type": "tmpfs", "source": "tmpfs",
            "options": ["tmpcopyup"]}),
        );
    race(&bundle, [&swapped, &link], |output| {
        canary.assert_untouched(output)
    });
}

/// Takes away what the configuration mounts on /dev: the rootfs has its own.
fn without_dev(bundle: TestBundle) -> TestBundle {
    bundle.edit(|config| {
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|mount| {
            let place = mount["destination"].as_str().expect("a path");
            !place.starts_with("/dev")
        });
    })
}

/// CVE-2026-41579, CVE-2025-52565: the nodes and links of /dev are made while /dev is swapped.
#[test]
fn a_swapped_dev_makes_nothing_on_the_host() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "Debian's fall for it");
    let bundle = TestBundle::shell("ls /dev > /dev/null");
    let canary = Canary::new(&bundle);
    let link = bundle.rootfs().join("link");
    symlink(&canary.directory, &link).expect("symlink");
    let bundle = without_dev(bundle);
    race(&bundle, [&bundle.rootfs().join("dev"), &link], |output| {
        canary.assert_untouched(output);
    });
}

/// CVE-2025-52565: the terminal is laid at /dev/console while /dev is swapped, and the file that
/// is made there.
#[test]
fn a_swapped_dev_takes_no_terminal_to_the_host() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "Debian's fall for it");
    let bundle = with_terminal("echo x > /dev/console");
    let canary = Canary::new(&bundle);
    let link = bundle.rootfs().join("link");
    symlink(&canary.directory, &link).expect("symlink");
    let bundle = without_dev(bundle);
    let names = [bundle.rootfs().join("dev"), link];
    race_with(&bundle, [&names[0], &names[1]], run_in_script, |output| {
        canary.assert_untouched(output);
    });
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: procfs and sysfs are mounted while their
/// places are swapped for links.
#[test]
fn a_swapped_proc_is_mounted_in_its_place_or_not_at_all() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "a long race, run for ours");
    let bundle = TestBundle::shell("cat /proc/self/mountinfo /elsewhere/self/mountinfo")
        .set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
    let canary = Canary::new(&bundle);
    let (proc, link) = (bundle.rootfs().join("proc"), bundle.rootfs().join("link"));
    fs::create_dir(bundle.rootfs().join("elsewhere")).expect("mkdir");
    symlink("/elsewhere", &link).expect("symlink");
    race(&bundle, [&proc, &link], |output| {
        canary.assert_untouched(output);
        // Who renames the directory takes the mount along; it never was where the link leads.
        let mounts = elsewhere(output, "proc", "/proc").into_iter();
        let wrong: Vec<_> = mounts
            .filter(|mount| !mount.point.starts_with("/link"))
            .collect();
        assert_eq!(wrong, [], "{output}");
    });
}
