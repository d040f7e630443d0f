//! `checkpoint` and `restore`, by CRIU: where it knows the kernel, that processes go on where they
//! were; where it does not, that the reason is told and nothing is lost.

use std::fs::{self, File};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use conformance::host::{CgroupLayout, cgroup_directory, cgroup_layout, is_root};
use conformance::{
    Container, Output, TestBundle, gocker_only, needs, peer_differs, run_command, wait_until,
};
use serde_json::json;

use super::console::{read_terminal, receive, with_terminal};
use super::exec::exec_shell;

/// How long a counter may take to count.
const SOON: Duration = Duration::from_secs(5);

/// Whether there is a CRIU that knows this kernel.
pub(super) fn criu_works() -> bool {
    let mut check = Command::new("criu");
    let check = check
        .arg("check")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    is_root() && check.status().is_ok_and(|status| status.success())
}

/// A process that counts in its memory, and shows it by a directory for each number: a file that is
/// open at the wrong moment has another size when it is opened again.
pub(super) fn counter() -> TestBundle {
    TestBundle::shell("n=0; while :; do n=$((n+1)); mkdir -p /counted/$n; sleep 0.05; done")
}

/// How far it has come.
pub(super) fn count(bundle: &TestBundle) -> u64 {
    let entries = fs::read_dir(bundle.rootfs().join("counted"));
    let names = entries.into_iter().flatten().flatten();
    let numbers = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.max().unwrap_or_default()
}

/// Waits until the counter is beyond `past`.
#[track_caller]
pub(super) fn assert_counts_on(bundle: &TestBundle, past: u64) {
    let counts = wait_until(SOON, || count(bundle) > past);
    assert!(counts, "nobody counts beyond {past}");
}

/// `run --detach`: with standard descriptors that are the container's own, since others CRIU
/// does not save.
#[track_caller]
pub(super) fn run(bundle: &TestBundle) -> Container<'_> {
    let container = bundle.container();
    detach(&container, bundle, "run", &[]).expect("runs");
    container
}

pub(super) fn images(bundle: &TestBundle) -> PathBuf {
    bundle.scratch().join("images")
}

pub(super) fn text(path: &Path) -> &str {
    path.to_str().expect("a path")
}

#[track_caller]
pub(super) fn checkpoint(container: &Container<'_>, images: &Path, options: &[&str]) -> Output {
    let options = [&["--image-path", text(images)], options].concat();
    run_command(&mut container.command("checkpoint", &options))
}

/// `restore --detach`; the error is what the log says.
pub(super) fn restore(
    container: &Container<'_>,
    bundle: &TestBundle,
    options: &[&str],
) -> Result<(), String> {
    let images = images(bundle);
    let options = [&["--image-path", text(&images)], options].concat();
    detach(container, bundle, "restore", &options)
}

fn detach(
    container: &Container<'_>,
    bundle: &TestBundle,
    subcommand: &str,
    options: &[&str],
) -> Result<(), String> {
    let log = bundle.scratch().join("log");
    let mut command = bundle.runtime();
    command.arg("--log").arg(&log).arg(subcommand);
    command.args(["--detach", "--bundle"]).arg(bundle.path());
    command.args(options).arg(container.id());
    for set in [Command::stdin, Command::stdout, Command::stderr] {
        set(&mut command, Stdio::null());
    }
    let status = command.status().expect("runs");
    let said = fs::read_to_string(log).unwrap_or_default();
    status.success().then_some(()).ok_or(said)
}

#[test]
fn a_counter_goes_on_where_it_was() {
    needs!(criu_works(), "needs a CRIU that knows this kernel");
    let bundle = counter()
        .set("/linux/resources/pids", json!({"limit": 77}))
        .mount(
            json!({"destination": "/given", "type": "bind", "source": "/etc",
            "options": ["rbind", "ro"]}),
        );
    let container = run(&bundle);
    assert_counts_on(&bundle, 5);
    checkpoint(&container, &images(&bundle), &[]).success();
    let output = container.state_output();
    assert!(output.failure().contains("does not exist"), "{output}");
    bundle.assert_nothing_left();
    let saved = count(&bundle);
    fs::remove_dir_all(bundle.rootfs().join("counted")).expect("is removed");

    let pid_file = bundle.scratch().join("pid");
    restore(&container, &bundle, &["--pid-file", text(&pid_file)]).expect("is restored");
    assert_eq!(container.status(), "running");
    let pid = fs::read_to_string(pid_file).expect("a pid file");
    assert_eq!(pid, container.pid().to_string());
    assert_counts_on(&bundle, saved);
    let began_anew = bundle.rootfs().join("counted/1").exists();
    assert!(!began_anew, "it began anew");
    let cgroup = cgroup_directory("pids", bundle.cgroups_path());
    if let Some(cgroup) = cgroup {
        let limit = fs::read_to_string(cgroup.join("pids.max")).expect("a limit");
        assert_eq!(limit, "77\n");
    }
    let script = "echo x > /given/x || echo kept; cat /dev/null /proc/kcore; hostname";
    let output = exec_shell(&container, &[], script);
    assert_eq!(output.stdout, "kept\nconformance\n", "{output}");
    container.delete(&["--force"]).success();
    bundle.assert_nothing_left();
}

#[test]
fn a_checkpoint_becomes_a_container_of_another_id_in_its_own_cgroup() {
    needs!(criu_works(), "needs a CRIU that knows this kernel");
    peer_differs!(Runc | Crun, "on cgroup v2 it goes where the first one was");
    needs!(cgroup_layout() == CgroupLayout::V2, "needs cgroup v2 alone");
    let bundle = counter().set("/linux/cgroupsPath", json!(""));
    let first = run(&bundle);
    checkpoint(&first, &images(&bundle), &["--leave-running"]).success();
    assert_eq!(first.status(), "running");
    let before = count(&bundle);
    assert_counts_on(&bundle, before);
    let second = bundle.container_named(&format!("{}-other", bundle.id()));
    restore(&second, &bundle, &[]).expect("is restored");
    let cgroup = second.proc_file("cgroup");
    assert!(cgroup.trim_end().ends_with("-other"), "{cgroup}");
    first.delete(&["--force"]).success();
    let counted = bundle.rootfs().join("counted");
    fs::rename(&counted, counted.with_extension("before")).expect("is renamed");
    assert_counts_on(&bundle, 0);
    second.delete(&["--force"]).success();
    bundle.assert_nothing_left();
}

#[test]
fn a_checkpoint_completes_an_earlier_one_of_memory() {
    needs!(criu_works(), "needs a CRIU that knows this kernel");
    let bundle = counter();
    let container = run(&bundle);
    let earlier = bundle.scratch().join("earlier");
    let work = bundle.scratch().join("work");
    fs::create_dir(&work).expect("is made");
    let work_path = ["--work-path", text(&work)];
    let options = [&["--pre-dump"][..], &work_path].concat();
    checkpoint(&container, &earlier, &options).success();
    assert!(work.join("dump.log").exists());
    assert_eq!(container.status(), "running");
    let before = count(&bundle);
    assert_counts_on(&bundle, before);
    let output = checkpoint(&container, &images(&bundle), &["--parent-path", "/earlier"]);
    assert!(output.failure().contains("relative"), "{output}");
    checkpoint(
        &container,
        &images(&bundle),
        &["--parent-path", "../earlier"],
    )
    .success();
    assert!(images(&bundle).join("parent").exists());
    let saved = count(&bundle);
    restore(&container, &bundle, &[]).expect("is restored");
    assert_counts_on(&bundle, saved);
    container.delete(&["--force"]).success();
}

#[test]
fn the_mode_of_cgroups_is_crius() {
    needs!(criu_works(), "needs a CRIU that knows this kernel");
    peer_differs!(Runc | Crun, "on cgroup v2 they may leave it behind");
    let bundle = counter();
    let container = run(&bundle);
    for mode in ["full", "ignore"] {
        let options = ["--manage-cgroups-mode", mode];
        checkpoint(&container, &images(&bundle), &options).success();
        let saved = count(&bundle);
        let restored = restore(&container, &bundle, &options);
        assert!(restored.is_ok(), "{mode}: {restored:?}");
        assert_counts_on(&bundle, saved);
        fs::remove_dir_all(images(&bundle)).expect("is removed");
    }
    // The container's own is there by then.
    let strict = ["--manage-cgroups-mode", "strict"];
    checkpoint(&container, &images(&bundle), &strict).success();
    let error = restore(&container, &bundle, &strict).expect_err("is there");
    assert!(error.contains("existing cgroups"), "{error}");
    bundle.assert_nothing_left();
}

#[test]
fn a_container_of_a_user_namespace_goes_on_where_it_was() {
    needs!(criu_works(), "needs a CRIU that knows this kernel");
    peer_differs!(Runc | Crun, "the images stay the host's root's alone");
    let bundle = counter().user_namespace();
    let container = run(&bundle);
    let mapping = container.proc_file("uid_map");
    checkpoint(&container, &images(&bundle), &[]).success();
    let saved = count(&bundle);
    restore(&container, &bundle, &[]).expect("is restored");
    assert_counts_on(&bundle, saved);
    assert_eq!(container.proc_file("uid_map"), mapping);
    container.delete(&["--force"]).success();
}

/// Its name went while it is open; and what the images of memory have twice is punched out.
#[test]
fn an_unlinked_file_is_restored_and_doubles_of_memory_are_dropped() {
    needs!(criu_works(), "needs a CRIU that knows this kernel");
    let bundle = TestBundle::shell(
        "exec 5>/kept; rm /kept; n=0; \
         while :; do n=$((n+1)); mkdir -p /counted/$n; echo $n >&5; sleep 0.05; done",
    );
    let container = run(&bundle);
    let earlier = bundle.scratch().join("earlier");
    checkpoint(&container, &earlier, &["--pre-dump", "--link-remap"]).success();
    let options = [
        "--parent-path",
        "../earlier",
        "--link-remap",
        "--auto-dedup",
    ];
    checkpoint(&container, &images(&bundle), &options).success();
    let saved = count(&bundle);
    restore(&container, &bundle, &["--auto-dedup"]).expect("is restored");
    assert_counts_on(&bundle, saved);
    let file = container.proc_file("fdinfo/5");
    let position = file.lines().find_map(|line| line.strip_prefix("pos:"));
    assert_ne!(position.map(str::trim), Some("0"), "{file}");
    container.delete(&["--force"]).success();
}

#[test]
fn a_terminal_comes_back_by_the_console_socket() {
    needs!(criu_works(), "needs a CRIU that knows this kernel");
    let bundle = with_terminal("while read line; do echo \"<$line>\"; done");
    let container = bundle.container();
    let socket = bundle.scratch().join("console");
    let listener = UnixListener::bind(&socket).expect("bind");
    let console = ["--console-socket", text(&socket)];
    detach(&container, &bundle, "run", &console).expect("runs");
    let take = || {
        let (_, mut fds) = receive(&listener);
        File::from(fds.pop().expect("a terminal"))
    };
    let mut master = take();
    std::io::Write::write_all(&mut master, b"one\n").expect("write");
    assert!(read_terminal(&mut master, Some("<one>")).contains("<one>"));
    checkpoint(&container, &images(&bundle), &[]).success();
    drop(master);
    restore(&container, &bundle, &console).expect("is restored");
    let mut master = take();
    std::io::Write::write_all(&mut master, b"two\n").expect("write");
    assert!(read_terminal(&mut master, Some("<two>")).contains("<two>"));
    container.delete(&["--force"]).success();
}

#[test]
fn hooks_run_around_a_checkpoint_and_a_restore() {
    needs!(criu_works(), "needs a CRIU that knows this kernel");
    peer_differs!(Runc | Crun, "no poststart hook runs at a restore");
    let bundle = counter();
    let log = bundle.scratch().join("hooks");
    let hook = |name: &str| {
        let script = format!(
            "grep -o '\"pid\":[1-9]' >/dev/null && p=+; echo {name}$p >> {}",
            log.display()
        );
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
    };
    let bundle = bundle.edit(|config| {
        config["hooks"] = json!({
            "createRuntime": hook("createRuntime"), "createContainer": hook("createContainer"),
            "poststart": hook("poststart"), "poststop": hook("poststop"),
        });
    });
    let container = run(&bundle);
    checkpoint(&container, &images(&bundle), &[]).success();
    let said = fs::read_to_string(&log).expect("a log");
    assert!(said.ends_with("poststart+\npoststop\n"), "{said}");
    fs::write(&log, "").expect("is emptied");
    restore(&container, &bundle, &[]).expect("is restored");
    let said = fs::read_to_string(&log).expect("a log");
    assert_eq!(said, "createRuntime+\npoststart+\n");
    container.delete(&["--force"]).success();
}

#[test]
fn a_restore_in_the_foreground_ends_as_the_process_does() {
    needs!(criu_works(), "needs a CRIU that knows this kernel");
    let bundle = TestBundle::shell("while [ ! -e /go ]; do sleep 0.05; done; exit 7");
    let container = run(&bundle);
    let pause = run_command(&mut container.command("pause", &[]));
    pause.success();
    checkpoint(&container, &images(&bundle), &[]).success();
    fs::write(bundle.rootfs().join("go"), "").expect("is made");
    let images = images(&bundle);
    let path = bundle.path();
    let options = ["--image-path", text(&images), "--bundle", text(&path)];
    let output = run_command(&mut container.command("restore", &options));
    assert_eq!(output.code(), 7, "{output}");
    bundle.assert_nothing_left();
}

/// What keeps CRIU from saving a container is told in its own words, and the container is as it was.
#[test]
fn what_criu_cannot_save_runs_on() {
    needs!(criu_works(), "needs a CRIU that knows this kernel");
    let bundle = TestBundle::shell("/usr/bin/flock /lock sleep 1000").mount(json!({
        "destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]}));
    for link in ["lib", "lib64"] {
        let target = Path::new("usr").join(link);
        std::os::unix::fs::symlink(target, bundle.rootfs().join(link)).expect("is made");
    }
    let container = run(&bundle);
    let held = || exec_shell(&container, &[], "/usr/bin/flock -n /lock true").code() == 1;
    assert!(wait_until(SOON, held), "the lock should be held");
    let output = checkpoint(&container, &images(&bundle), &[]);
    let said = output.failure().to_owned();
    assert_eq!(container.status(), "running");
    assert!(held());
    if conformance::runtime().kind == conformance::Kind::Gocker {
        for word in ["criu: Error (", "lock", "dump.log"] {
            assert!(said.contains(word), "{word}: {output}");
        }
        let left: Vec<_> = fs::read_dir(images(&bundle)).expect("the log").collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
    checkpoint(&container, &images(&bundle), &["--file-locks"]).success();
    restore(&container, &bundle, &["--file-locks"]).expect("is restored");
    assert!(held(), "the lock should be held again");
    container.delete(&["--force"]).success();
}

#[test]
fn what_cannot_be_restored_leaves_nothing() {
    needs!(criu_works(), "needs a CRIU that knows this kernel");
    peer_differs!(Runc | Crun, "they have words of their own");
    let bundle = counter().mount(json!({"destination": "/given", "type": "bind",
        "source": "/etc", "options": ["bind"]}));
    let container = run(&bundle);
    checkpoint(&container, &images(&bundle), &["--leave-running"]).success();
    let error = restore(&container, &bundle, &[]).expect_err("is there");
    assert!(error.contains("already exists"), "{error}");
    container.delete(&["--force"]).success();
    // The mount that the images name is not in this bundle.
    let other = counter();
    let container = other.container();
    let images = images(&bundle);
    let options = ["--image-path", text(&images)];
    let error = detach(&container, &other, "restore", &options).expect_err("has no mount");
    for word in ["criu: Error (", "mountpoint", "restore.log"] {
        assert!(error.contains(word), "{word}: {error}");
    }
    other.assert_nothing_left();
    let error = restore(&container, &other, &[]).expect_err("has no images");
    assert!(error.contains("--image-path: open"), "{error}");
    other.assert_nothing_left();
    bundle.assert_nothing_left();
}

/// Where CRIU does not know the kernel it says so, and so does the runtime.
#[test]
fn a_criu_that_does_not_know_the_kernel_says_so() {
    needs!(is_root(), "needs root");
    gocker_only!();
    needs!(
        Path::new("/usr/sbin/criu").exists(),
        "needs the Debian package criu"
    );
    needs!(!criu_works(), "needs a kernel that CRIU does not know");
    let bundle = counter();
    let container = run(&bundle);
    let output = checkpoint(&container, &images(&bundle), &[]);
    let said = output.one_line_failure();
    assert!(said.contains("criu: Error ("), "{output}");
    let log = images(&bundle).join("dump.log");
    assert!(said.contains(text(&log)), "{output}");
    let words = said.split(": ").skip(3).collect::<Vec<_>>().join(": ");
    let words = words.split(';').next().expect("is not empty");
    let log = fs::read_to_string(log).expect("a log");
    assert!(log.contains(words), "{words}: {log}");
    assert_eq!(container.status(), "running");
    let before = count(&bundle);
    assert_counts_on(&bundle, before);
    container.delete(&["--force"]).success();
    let error = restore(&container, &bundle, &[]).expect_err("cannot be");
    assert!(error.contains("criu: Error ("), "{error}");
    bundle.assert_nothing_left();
}

#[test]
fn a_checkpoint_without_criu_says_what_is_missing() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = counter();
    let container = run(&bundle);
    let images = images(&bundle);
    let options = ["--image-path", text(&images)];
    let mut command = container.command("checkpoint", &options);
    let output = run_command(command.env("PATH", "/nowhere"));
    assert!(
        output.one_line_failure().contains("criu is not installed"),
        "{output}"
    );
    assert!(!images.exists());
    assert_eq!(container.status(), "running");
}

#[test]
fn what_does_not_run_cannot_be_saved() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it has words of its own");
    let bundle = counter();
    let container = bundle.created();
    let said = |state: &str| {
        let output = checkpoint(&container, &images(&bundle), &[]);
        assert!(output.one_line_failure().contains(state), "{output}");
    };
    said("created");
    container.kill("KILL").success();
    container.wait_for("stopped");
    said("stopped");
    assert!(!images(&bundle).exists());
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_made() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = counter();
    let container = run(&bundle);
    for (options, words) in [
        (&["--page-server", "here"][..], "--page-server: \"here\""),
        (&["--empty-ns", "pid"], "--empty-ns"),
        (&["--status-fd", "77", "--lazy-pages"], "--status-fd: 77"),
    ] {
        let output = checkpoint(&container, &images(&bundle), options);
        assert!(output.failure().contains(words), "{output}");
        assert!(!images(&bundle).exists());
    }
    assert_eq!(container.status(), "running");
}
