//! SIGINT and SIGTERM while an image comes or goes: the signal ends the command, nothing
//! unfinished is left, and the next try succeeds. Of pulls, `resume` has more.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use conformance::command::{end_within, process_id, run_with_stdin};
use conformance::crash_points::{Call, calls_in, has_strace, points};
use conformance::hostile::{Answer, Delivery};
use conformance::{HostileRegistry, Registry, StoreRoot, needs, wait_until};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};

use super::crash_points::{Scene, changes_of, image, with_a_changed_bundle};
use super::killed_push::assert_whole;
use super::{assert_undamaged, state};

const SIGNALS: [Signal; 2] = [Signal::SIGINT, Signal::SIGTERM];
const FORMS: [&str; 4] = ["oci-archive", "oci-dir", "docker-archive", "docker-dir"];
/// How many instants of a command are tried.
const POINTS: usize = 8;

/// Starts a command whose words nobody reads.
fn spawn(command: &mut Command) -> Child {
    command.stderr(Stdio::null()).spawn().unwrap()
}

/// Sends the signal, which is to end the command.
#[track_caller]
fn end_by(child: &mut Child, signal: Signal, what: &str) {
    kill(process_id(child.id()), signal).unwrap();
    let status = end_within(child, Duration::from_secs(10));
    let ended_by = status.and_then(|status| status.signal());
    assert_eq!(ended_by, Some(signal as i32), "{what}: {status:?}");
}

/// Asserts that the store is sound, and that no tree in it is still in the making.
#[track_caller]
fn assert_no_draft(store: &StoreRoot, what: &str) {
    let mut drafts = store.subvolumes().unwrap();
    drafts.retain(|path| path.split('/').any(|name| name.starts_with('.')));
    assert_eq!(drafts, Vec::<String>::new(), "{what}");
    assert_undamaged(store, what);
}

/// A command that strace(1) holds before one of its calls.
struct Held {
    child: Child,
    trace: PathBuf,
}

impl Held {
    /// Starts it; None if it comes to its end without that call.
    #[track_caller]
    fn start(store: &StoreRoot, args: &[&str], call: &Call) -> Option<Self> {
        let trace = store.beside("held");
        let (looked_at, hold) = (format!("trace={}", call.name), call.hold_before());
        let path = trace.to_str().unwrap();
        let options = ["-D", "-f", "-o", path, "-e", &looked_at, "-e", &hold];
        let child = spawn(store.traced(&options, args).stdout(Stdio::null()));
        let mut held = Self { child, trace };
        let mut is_over = false;
        let is_there = wait_until(Duration::from_secs(20), || {
            is_over = held.child.try_wait().unwrap().is_some();
            is_over || held.has_made(call)
        });
        assert!(is_there, "neither held nor ended");
        (!is_over).then_some(held)
    }

    fn has_made(&self, call: &Call) -> bool {
        let trace = fs::read_to_string(&self.trace).unwrap_or_default();
        calls_in(&trace).iter().any(|(made, _)| made == call)
    }

    /// A field of the process's status; None when it has ended.
    fn status(&self, field: &str) -> Option<String> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let value = status.lines().find_map(|line| line.strip_prefix(field))?;
        Some(value.trim_start_matches(':').trim().to_owned())
    }

    /// Sends the signal, which is to end the command; lets the call go on when it was seen.
    #[track_caller]
    fn end_by(mut self, signal: Signal, what: &str) {
        let tracer = self.status("TracerPid").unwrap().parse().unwrap();
        kill(process_id(self.child.id()), signal).unwrap();
        // where the command does not hold signals back, it ends as soon as it goes on
        let mask = |field| {
            let mask = self.status(field);
            mask.map_or(0, |mask| u64::from_str_radix(&mask, 16).unwrap())
        };
        let is_seen = || mask("ShdPnd") & mask("SigBlk") == 0;
        assert!(wait_until(Duration::from_secs(10), is_seen), "{what}");
        if let Err(errno) = kill(process_id(tracer), Signal::SIGKILL) {
            assert_eq!(errno, Errno::ESRCH, "it ends with its tracee");
        }
        let ended = end_within(&mut self.child, Duration::from_secs(10));
        // a tracer that goes may take the signal with it, by which the command would end
        let number = signal as i32;
        let is_by = ended.is_some_and(|status| {
            status.signal() == Some(number) || status.code() == Some(128 + number)
        });
        assert!(is_by, "{what}: {ended:?}");
    }
}

/// Interrupts the command before sampled changes, and looks at what is left `after` each.
fn interrupt_before_changes(store: &StoreRoot, args: &[&str], after: &dyn Fn(&str)) {
    let calls = changes_of(store, args);
    after("a whole run");
    let (mut tried, mut interrupted) = (0, 0);
    for (call, line) in calls.iter().step_by(calls.len().div_ceil(points(POINTS))) {
        let signal = SIGNALS[tried % SIGNALS.len()];
        let what = format!("{signal} before {} {line}", call.nth);
        tried += 1;
        // Another thread may have fewer calls of the name this time.
        if let Some(held) = Held::start(store, args, call) {
            held.end_by(signal, &what);
            interrupted += 1;
        }
        assert_no_draft(store, &what);
        after(&what);
    }
    let counts = format!("interrupted {interrupted} times of {tried}");
    assert!(2 * interrupted > tried, "{counts}");
}

/// Has the image's lower layer come half, or whole, from now on.
fn stall(scene: &Scene, stalls: bool) {
    let lower = image().layers[0].clone();
    let half = Delivery::StallAfter(lower.bytes.len() / 2);
    scene.server.deliver(move |request, _| {
        let is_lower = request.method == "GET" && request.target.ends_with(&lower.digest);
        if stalls && is_lower {
            half
        } else {
            Delivery::Whole
        }
    });
}

/// Waits until the lower layer was asked for so many times.
#[track_caller]
fn wait_for_fetches(scene: &Scene, count: usize) {
    let lower = image().layers[0].digest.clone();
    let fetched = || {
        let blobs = scene.server.fetched_blobs();
        blobs.iter().filter(|digest| **digest == lower).count()
    };
    let is_asked = wait_until(Duration::from_secs(20), || fetched() >= count);
    assert!(is_asked, "fetched {} times of {count}", fetched());
}

/// A scene, and its image in an archive.
fn saved(scene: &Scene) -> String {
    let archive = scene.store.beside("image.tar");
    let archive = archive.to_str().unwrap().to_owned();
    scene.run(&["save", "--quiet", "--output", &archive, &scene.reference]);
    archive
}

#[test]
fn a_load_whose_standard_input_stalls_is_interrupted() {
    let scene = Scene::new();
    let archive = fs::read(saved(&scene)).unwrap();
    scene.assert_clears("a save");
    let empty = state(&scene.store);
    let args = ["load", "--quiet", "--no-keep-blobs"];
    for signal in SIGNALS {
        let mut child = spawn(scene.store.command(&args).stdin(Stdio::piped()));
        let mut input = child.stdin.take().unwrap();
        // more than a pipe holds: some of it has been read
        input.write_all(&archive[..archive.len() / 2]).unwrap();
        end_by(&mut child, signal, "load");
        assert_eq!(state(&scene.store), empty, "{signal}");
        assert_no_draft(&scene.store, "load");
    }
    let mut command = scene.store.command(&args);
    let whole = File::open(scene.store.beside("image.tar")).unwrap();
    run_with_stdin(command.stdin(whole)).success();
    assert_eq!(state(&scene.store), scene.pulled);
}

#[test]
fn a_load_interrupted_before_any_change_leaves_no_draft() {
    needs!(has_strace(), "needs strace");
    let scene = Scene::new();
    let archive = saved(&scene);
    scene.assert_clears("a save");
    let args = [
        "load",
        "--quiet",
        "--no-keep-blobs",
        "--replace",
        "--input",
        &archive,
    ];
    interrupt_before_changes(&scene.store, &args, &|after| {
        scene.run(&args);
        assert_eq!(state(&scene.store), scene.pulled, "after {after}");
        scene.assert_clears(after);
    });
}

#[test]
fn a_commit_interrupted_before_any_change_leaves_no_draft() {
    needs!(has_strace(), "needs strace");
    let scene = Scene::new();
    let before = with_a_changed_bundle(&scene);
    let args = ["commit", "one", "other.example/name:1"];
    interrupt_before_changes(&scene.store, &args, &|after| {
        scene.run(&args);
        scene.run(&["rm", "other.example/name:1"]);
        scene.run(&["prune"]);
        assert_eq!(state(&scene.store), before, "after {after}");
    });
}

#[test]
fn a_save_whose_reader_waits_is_interrupted() {
    let scene = Scene::new();
    for signal in SIGNALS {
        let args = ["save", "--quiet", &scene.reference];
        let mut child = spawn(scene.store.command(&args).stdout(Stdio::piped()));
        // it has begun, and has more to say than a pipe holds
        let mut output = child.stdout.take().unwrap();
        output.read_exact(&mut [0]).unwrap();
        end_by(&mut child, signal, "save");
        assert_eq!(state(&scene.store), scene.pulled, "{signal}");
        assert_no_draft(&scene.store, "save");
    }
    saved(&scene);
}

#[test]
fn a_save_whose_layer_stalls_is_interrupted_and_leaves_no_file() {
    let scene = Scene::new();
    let place = scene.store.beside("place");
    fs::create_dir(&place).unwrap();
    let output = place.join("image");
    let output = output.to_str().unwrap();
    for (number, form) in FORMS.iter().enumerate() {
        let args = ["save", "-q", "--as", form, "-o", output, &scene.reference];
        stall(&scene, true);
        let fetches = |before: usize| 2 * number + before;
        let mut child = spawn(&mut scene.store.command(&args));
        // the first was that of the pull, and each form has fetched it twice
        wait_for_fetches(&scene, fetches(2));
        end_by(&mut child, SIGNALS[number % SIGNALS.len()], form);
        assert_eq!(fs::read_dir(&place).unwrap().count(), 0, "{form}");
        assert_eq!(state(&scene.store), scene.pulled, "{form}");
        assert_no_draft(&scene.store, form);
        stall(&scene, false);
        scene.run(&args);
        fs::remove_file(output)
            .or_else(|_| fs::remove_dir_all(output))
            .unwrap();
    }
}

#[test]
fn a_save_interrupted_before_any_change_leaves_no_file() {
    needs!(has_strace(), "needs strace");
    let scene = Scene::new();
    for form in ["docker-archive", "oci-dir"] {
        let place = scene.store.beside(form);
        fs::create_dir(&place).unwrap();
        let output = place.join("image");
        let path = output.to_str().unwrap();
        let args = ["save", "-q", "--as", form, "-o", path, &scene.reference];
        interrupt_before_changes(&scene.store, &args, &|after| {
            let entries = fs::read_dir(&place).unwrap().flatten();
            let names = entries.map(|entry| entry.file_name().into_string().unwrap());
            let unfinished: Vec<_> = names.filter(|name| name != "image").collect();
            assert_eq!(unfinished, Vec::<String>::new(), "after {after}");
            fs::remove_dir_all(&place).unwrap();
            fs::create_dir(&place).unwrap();
            scene.run(&args);
            fs::remove_dir_all(&place).unwrap();
            fs::create_dir(&place).unwrap();
        });
    }
}

#[test]
fn a_push_whose_layer_stalls_is_interrupted() {
    let (scene, registry) = (Scene::new(), Registry::start().unwrap());
    let destination = registry.reference("pushed:1");
    let args = ["push", "--quiet", &scene.reference, &destination];
    stall(&scene, true);
    for (number, signal) in SIGNALS.into_iter().enumerate() {
        let mut child = spawn(&mut scene.store.command(&args));
        wait_for_fetches(&scene, 2 + number);
        end_by(&mut child, signal, "push");
        assert_eq!(state(&scene.store), scene.pulled, "{signal}");
        assert_no_draft(&scene.store, "push");
    }
    stall(&scene, false);
    scene.run(&args);
    assert_whole(&scene, &destination, &image());
}

#[test]
fn a_push_to_a_registry_that_stalls_is_interrupted() {
    let scene = Scene::new();
    // uploads go to where nobody answers
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = format!("http://{}/upload", silent.local_addr().unwrap());
    let to = HostileRegistry::start(move |request| {
        let is_upload = request.method == "POST";
        is_upload.then(|| Answer::status(202).field("Location", &place))
    })
    .unwrap();
    let destination = format!("{}/pushed:1", to.host());
    for signal in SIGNALS {
        let args = ["push", "--quiet", &scene.reference, &destination];
        let mut child = spawn(&mut scene.store.command(&args));
        // connections that the one before made at the same time, or did not use, are over
        let _upload = silent.incoming().find(|connection| {
            let mut connection = connection.as_ref().unwrap();
            connection.read(&mut [0]).is_ok_and(|count| count > 0)
        });
        end_by(&mut child, signal, "push");
        assert_eq!(state(&scene.store), scene.pulled, "{signal}");
        assert_no_draft(&scene.store, "push");
    }
    let registry = Registry::start().unwrap();
    let destination = registry.reference("pushed:1");
    scene.run(&["push", "--quiet", &scene.reference, &destination]);
    assert_whole(&scene, &destination, &image());
}
