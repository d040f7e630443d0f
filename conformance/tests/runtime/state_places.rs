//! A `--root` that is full, or that nobody can write to: what is there goes on, and what cannot be
//! made leaves nothing.

use std::fs::{self, File};
use std::io::Write as _;

use conformance::host::{enter_private_mounts, is_root};
use conformance::{Container, TestBundle, gocker_only, needs, run_command};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A tmpfs that is the bundle's `--root`, in this test's mount namespace.
struct Root<'b>(&'b TestBundle);

impl<'b> Root<'b> {
    fn on_tmpfs(bundle: &'b TestBundle, options: &str) -> Self {
        enter_private_mounts();
        let root = bundle.state_root();
        fs::create_dir_all(&root).expect("mkdir");
        let (kind, flags) = (Some("tmpfs"), MsFlags::empty());
        mount(kind, &root, kind, flags, Some(options)).expect("mount");
        Self(bundle)
    }

    /// Nothing of a container's is left there, nor elsewhere.
    fn assert_nothing_left(self) {
        let entries = fs::read_dir(self.0.state_root()).expect("list").flatten();
        let names = entries.map(|entry| entry.file_name());
        let left: Vec<_> = names.filter(|name| name != FILLER).collect();
        assert!(left.is_empty(), "{left:?}");
        let bundle = self.0;
        drop(self);
        bundle.assert_nothing_left();
    }
}

impl Drop for Root<'_> {
    fn drop(&mut self) {
        umount2(&self.0.state_root(), MntFlags::MNT_DETACH).expect("unmount");
    }
}

const FILLER: &str = "filler";

fn remount(bundle: &TestBundle, flags: MsFlags) {
    let flags = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    let root = bundle.state_root();
    mount(None::<&str>, &root, None::<&str>, flags, None::<&str>).expect("remount");
}

/// Writes until there is no space left.
fn fill(bundle: &TestBundle) {
    let mut file = File::create(bundle.state_root().join(FILLER)).expect("create");
    while file.write_all(&[0; 4096]).is_ok() {}
}

fn exec(container: &Container<'_>) {
    let mut command = container.command("exec", &[]);
    let output = run_command(command.args(["echo", "here"]));
    assert_eq!(output.success(), "here\n");
}

#[test]
fn create_and_run_in_a_root_that_is_nearly_full_work_or_leave_nothing() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = TestBundle::sleeper();
    let (mut done, mut failed) = (0, 0);
    let inodes = (1..7).map(|count| format!("size=64k,nr_inodes={count}"));
    let pages = (1..7).map(|count| format!("nr_inodes=64,size={}k", 4 * count));
    for options in inodes.chain(pages) {
        for subcommand in ["create", "run"] {
            let root = Root::on_tmpfs(&bundle, &options);
            let mut command = bundle.runtime();
            command.arg(subcommand).arg("--bundle").arg(bundle.path());
            if subcommand == "run" {
                command.arg("--detach");
            }
            let output = run_command(command.arg(bundle.id()));
            if output.code() == 0 {
                bundle.container().delete(&["--force"]).success();
                done += 1;
            } else {
                assert!(output.one_line_failure().contains("(ENOSPC)"), "{output}");
                failed += 1;
            }
            root.assert_nothing_left();
        }
    }
    assert!(done > 0 && failed > 0, "{done} {failed}");
}

#[test]
fn a_container_whose_root_has_filled_up_lives_on() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let root = Root::on_tmpfs(&bundle, "size=256k");
    let container = bundle.created();
    fill(&bundle);
    container.start().success();
    assert_eq!(container.status(), "running");
    exec(&container);
    run_command(&mut container.command("pause", &[])).success();
    assert_eq!(container.status(), "paused");
    run_command(&mut container.command("resume", &[])).success();
    container.kill("KILL").success();
    container.wait_for("stopped");
    container.delete(&[]).success();
    root.assert_nothing_left();
}

#[test]
fn limits_are_updated_in_a_full_root() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = TestBundle::sleeper();
    let _root = Root::on_tmpfs(&bundle, "size=256k");
    let container = bundle.running();
    fill(&bundle);
    run_command(&mut container.command("update", &["--pids-limit", "33"])).success();
}

#[test]
fn a_root_that_cannot_be_written_to_is_told_and_the_container_stays_as_it_was() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = TestBundle::sleeper();
    let root = Root::on_tmpfs(&bundle, "size=256k");
    let container = bundle.created();
    remount(&bundle, MsFlags::MS_RDONLY);
    let other = TestBundle::sleeper();
    other.write_config();
    let path = other.path();
    let path = path.to_str().expect("a path");
    let output = bundle.call(&["create", "--bundle", path, other.id()]);
    assert!(output.one_line_failure().contains("(EROFS)"), "{output}");
    container.start().success();
    assert_eq!(container.status(), "running");
    let output = container.start();
    assert!(output.failure().contains("already running"), "{output}");
    let output = container.delete(&["--force"]);
    assert!(output.one_line_failure().contains("(EROFS)"), "{output}");
    assert_eq!(container.status(), "stopped");
    remount(&bundle, MsFlags::empty());
    container.delete(&[]).success();
    root.assert_nothing_left();
}

#[test]
fn exec_needs_no_root_that_can_be_written_to() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let _root = Root::on_tmpfs(&bundle, "size=256k");
    let container = bundle.running();
    remount(&bundle, MsFlags::MS_RDONLY);
    exec(&container);
    assert_eq!(container.status(), "running");
    remount(&bundle, MsFlags::empty());
}
