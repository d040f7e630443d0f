//! A `--root` that is full, or that nobody can write to: what is there goes on, and what cannot be
//! made leaves nothing. One of another user's is not believed.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{chown, symlink};
use std::process::Command;

use conformance::host::{enter_private_mounts, is_root};
use conformance::ordinary_user::ID;
use conformance::{Container, Output, TestBundle, gocker_only, needs, run_command, runtime};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;

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

/// A container that root finds in a directory of an ordinary user's.
fn as_root(bundle: &TestBundle, args: &[&str]) -> Output {
    let mut command = Command::new(&runtime().program);
    command.arg("--root").arg(bundle.state_root());
    run_command(command.args(args))
}

/// Its words would be obeyed with root's rights: which process is killed, which hook is run.
#[test]
fn the_state_of_another_user_is_not_believed() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = TestBundle::sleeper().of_ordinary_user();
    let ran = bundle.scratch().join("ran");
    let hook = json!([{"path": "/bin/touch", "args": ["touch", ran]}]);
    let bundle = bundle.set("/hooks/poststop", hook);
    let container = bundle.running();
    let id = bundle.id();
    let words = format!("belongs to user {ID}");
    for args in [
        &["state", id][..],
        &["kill", id, "KILL"],
        &["exec", id, "/bin/true"],
        &["ps", id],
        &["pause", id],
        &["events", "--stats", id],
        &["update", "--pids-limit", "5", id],
        &["delete", "--force", id],
    ] {
        let output = as_root(&bundle, args);
        assert!(output.one_line_failure().contains(&words), "{output}");
    }
    let listed = as_root(&bundle, &["list", "--quiet"]);
    assert!(!listed.stdout.contains(id), "{listed}");
    assert!(listed.stderr.contains(&words), "{listed}");
    assert_eq!(container.status(), "running");
    assert!(!ran.exists(), "a hook of the user's was run by root");
}

#[test]
fn a_state_that_was_put_into_a_directory_of_roots_is_not_believed() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let state = bundle.state_root().join(bundle.id()).join("state.json");
    let words = format!("belongs to user {ID}");
    chown(&state, Some(ID), Some(ID)).expect("chown");
    for args in [&["kill", bundle.id()][..], &["delete", bundle.id()]] {
        let output = as_root(&bundle, args);
        assert!(output.one_line_failure().contains(&words), "{output}");
    }
    chown(&state, Some(0), Some(0)).expect("chown");
    assert_eq!(container.status(), "running");
    // Another's container under a name of one's own.
    let name = format!("{}-link", bundle.id());
    symlink(
        bundle.state_root().join(bundle.id()),
        bundle.state_root().join(&name),
    )
    .expect("link");
    for args in [&["kill", name.as_str()][..], &["delete", &name]] {
        let output = as_root(&bundle, args);
        assert!(
            output.one_line_failure().contains("does not exist"),
            "{output}"
        );
    }
    fs::remove_file(bundle.state_root().join(&name)).expect("unlink");
    assert_eq!(container.status(), "running");
}
