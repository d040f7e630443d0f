//! Every pair of what two kinds of namespaces can be, in one table of containers: each kind shared
//! with the runtime, new, or joined, of one donor or the other: config-linux.md#namespaces.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use conformance::host::is_root;
use conformance::namespaces::{Holder, KINDS, joined, link_of, path_of};
use conformance::{Kind, TestBundle, needs, peer_differs, runtime, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Where a container has a namespace from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    /// It is the runtime's: the configuration does not name it.
    Runtime,
    New,
    /// A container with a user namespace, which owns what else it has.
    One,
    /// A container without; its namespaces are the host's root's.
    Other,
}

/// One value for each of [`KINDS`].
type Row = [Origin; KINDS.len()];

fn place(kind: &str) -> usize {
    let place = KINDS.iter().position(|(known, _)| *known == kind);
    place.expect("a kind")
}

/// Who makes the containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Maker {
    Root,
    OrdinaryUser,
}

/// What the runtime under test can do with a kind.
fn choices(maker: Maker, kind: &str) -> &'static [Origin] {
    use Origin::{New, One, Other, Runtime};
    if maker == Maker::OrdinaryUser {
        return if kind == "user" {
            &[New, One]
        } else {
            &[Runtime, New, One]
        };
    }
    match (kind, runtime().kind) {
        // Debian's is older than time namespaces, or does not make them beside the others.
        ("time", Kind::Runc | Kind::Crun) => &[Runtime],
        // Debian's joins none, and cannot exec where another one owns what is joined.
        ("user", Kind::Runc) => &[Runtime],
        // They need /proc in the container, or make its root in a namespace of their own.
        ("mount", Kind::Runc | Kind::Crun) => &[New],
        ("user" | "mount", _) => &[Runtime, New, One],
        _ => &[Runtime, New, One, Other],
    }
}

/// Who has just come to a new user namespace may not mount in one that was there before, and an
/// ordinary user joins nothing that it owned by then.
fn is_possible(maker: Maker, row: &Row) -> bool {
    let joins = match maker {
        Maker::Root => row[place("mount")] == Origin::One,
        Maker::OrdinaryUser => row.contains(&Origin::One),
    };
    row[place("user")] != Origin::New || !joins
}

/// The same numbers in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        let Self(state) = self;
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(*state >> 33).expect("31 bits") % limit
    }

    fn row(&mut self, maker: Maker) -> Row {
        KINDS.map(|(kind, _)| {
            let choices = choices(maker, kind);
            choices[self.below(choices.len())]
        })
    }
}

/// A value of one kind beside a value of another.
type Pair = [(usize, Origin); 2];

fn pairs_of(row: &Row) -> BTreeSet<Pair> {
    let values = row.iter().copied().enumerate();
    let pairs = values.clone().flat_map(|one| {
        let later = values.clone().skip(one.0 + 1);
        later.map(move |other| [one, other])
    });
    pairs.collect()
}

/// Rows in which every possible pair occurs.
fn covering_rows(maker: Maker) -> Vec<Row> {
    let mut numbers = Numbers(1);
    let mut possible = |wanted: &dyn Fn(&Row) -> bool| loop {
        let row = numbers.row(maker);
        if is_possible(maker, &row) && wanted(&row) {
            return row;
        }
    };
    let mut open = BTreeSet::new();
    for (one, (kind, _)) in KINDS.iter().enumerate() {
        for (other, (later, _)) in KINDS.iter().enumerate().skip(one + 1) {
            let values = choices(maker, kind).iter().flat_map(|value| {
                let others = choices(maker, later).iter();
                others.map(move |beside| [(one, *value), (other, *beside)])
            });
            open.extend(values);
        }
    }
    open.retain(|[one, other]| {
        let mut row = [Origin::Runtime; KINDS.len()];
        row[one.0] = one.1;
        row[other.0] = other.1;
        is_possible(maker, &row)
    });
    let mut rows = Vec::new();
    while let Some([one, other]) = open.first().copied() {
        let holds = |row: &Row| row[one.0] == one.1 && row[other.0] == other.1;
        let candidates = (0..30).map(|_| possible(&holds));
        let gain = |row: &Row| pairs_of(row).intersection(&open).count();
        let best = candidates.max_by_key(gain).expect("a candidate");
        open.retain(|pair| !pairs_of(&best).contains(pair));
        rows.push(best);
    }
    rows
}

/// The processes that namespaces are joined of.
struct Donors {
    /// A container with a user namespace.
    one: String,
    /// A container without.
    other: String,
    /// Of a mount namespace that is there for one container, and of no use afterwards.
    mounts: Option<Holder>,
}

impl Donors {
    fn pid(&self, origin: Origin, kind: &str) -> String {
        match (origin, &self.mounts) {
            (Origin::One, Some(holder)) if kind == "mount" => holder.pid(),
            (Origin::One, _) => self.one.clone(),
            (Origin::Other, _) => self.other.clone(),
            (Origin::Runtime | Origin::New, _) => panic!("{kind} is not joined"),
        }
    }

    fn entry(&self, origin: Origin, kind: &str) -> Option<Value> {
        match origin {
            Origin::Runtime => None,
            Origin::New => Some(json!({"type": kind})),
            Origin::One | Origin::Other => Some(joined(kind, &self.pid(origin, kind))),
        }
    }

    /// With a mount namespace of the host's root, or of the first one's user namespace.
    fn with_mounts(mut self, row: &Row) -> Self {
        let unshare = ["unshare", "--mount", "--propagation", "private"];
        let sleep = ["sleep", "1000"];
        let user = format!("--user={}", path_of(&self.one, "user"));
        let enter: &[&str] = match row[place("user")] {
            Origin::One => &["nsenter", &user, "--"],
            _ => &[],
        };
        if row[place("mount")] == Origin::One {
            self.mounts = Some(Holder::new(&[enter, &unshare, &sleep].concat()));
        }
        self
    }
}

/// A bundle that asks for nothing which belongs to a namespace that it may not have.
fn bundle_of(maker: Maker, row: &Row, donors: &Donors) -> TestBundle {
    let has_mounts = row[place("mount")] != Origin::Runtime;
    let mut bundle = TestBundle::sleeper().edit(|config| {
        let whole = config.as_object_mut().expect("an object");
        whole.remove("hostname");
        let dev = json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs"});
        // As the namespaces are not all the container's, the host's is all that it may have.
        let proc = json!({"destination": "/proc", "type": "bind", "source": "/proc",
            "options": ["rbind"]});
        let mounts = if has_mounts {
            vec![dev, proc]
        } else {
            Vec::new()
        };
        whole["mounts"] = json!(mounts);
        let linux = whole["linux"].as_object_mut().expect("linux");
        linux.remove("maskedPaths");
        linux.remove("readonlyPaths");
    });
    if maker == Maker::OrdinaryUser {
        bundle = bundle.of_ordinary_user();
    } else if row[place("user")] != Origin::Runtime {
        bundle = bundle.user_namespace();
    }
    for ((kind, _), origin) in KINDS.iter().zip(row) {
        bundle = bundle.namespace(kind, donors.entry(*origin, kind));
    }
    bundle
}

/// Compares what a process has with what was asked for.
#[track_caller]
fn assert_has(process: &str, row: &Row, donors: &Donors) {
    for ((kind, _), origin) in KINDS.iter().zip(row) {
        let found = link_of(process, kind);
        let (hosts, donated) = (link_of("thread-self", kind), |origin| {
            link_of(&donors.pid(origin, kind), kind)
        });
        match origin {
            Origin::Runtime => assert_eq!(found, hosts, "{kind} of {row:?}"),
            Origin::New => {
                let all = [hosts, donated(Origin::One), donated(Origin::Other)];
                assert!(!all.contains(&found), "{kind} of {row:?} should be new");
            }
            Origin::One | Origin::Other => assert_eq!(found, donated(*origin), "{kind} of {row:?}"),
        }
    }
}

/// Starts a container of the row, and a further process in it, and looks at both.
fn try_row(maker: Maker, row: &Row, donors: &Donors) {
    let bundle = bundle_of(maker, row, donors);
    let container = bundle.container();
    let created = container.create(&[]);
    assert!(created.code() == 0, "{row:?}: {created}");
    container.start().success();
    let process = container.pid().to_string();
    assert_has(&process, row, donors);
    let pid_file = bundle.path().join("pid");
    let mut exec = container.command("exec", &["--pid-file", pid_file.to_str().expect("a path")]);
    // It stays, to wait for the process: nobody else would, and its PID namespace would not end.
    let mut exec = exec.args(["/bin/sleep", "1000"]).spawn().expect("exec");
    let is_there = || pid_file.exists();
    assert!(wait_until(Duration::from_secs(10), is_there), "{row:?}");
    let further = fs::read_to_string(&pid_file).expect("a pid file");
    for (kind, _) in KINDS {
        let found = link_of(&further, kind);
        assert_eq!(found, link_of(&process, kind), "{kind} of exec, {row:?}");
    }
    if maker == Maker::OrdinaryUser {
        // It has no cgroup by which the runtime would find it.
        let further = Pid::from_raw(further.parse().expect("a process id"));
        kill(further, Signal::SIGKILL).expect("kill");
    }
    container.delete(&["--force"]).success();
    let status = exec.wait().expect("wait for exec");
    assert_eq!(status.code(), Some(137), "{row:?}");
    bundle.assert_nothing_left();
}

fn with_everything_new(maker: Maker, bundle: TestBundle) -> TestBundle {
    let kinds = KINDS.iter().filter(|(kind, _)| *kind != "user");
    let kinds = kinds.filter(|(kind, _)| choices(maker, kind).contains(&Origin::New));
    kinds.fold(bundle, |bundle, (kind, _)| {
        bundle.namespace(kind, Some(json!({"type": kind})))
    })
}

fn try_all_rows(maker: Maker, first: TestBundle, second: TestBundle) {
    let first = with_everything_new(maker, first);
    let second = with_everything_new(maker, second);
    let (one, other) = (first.running(), second.running());
    for row in covering_rows(maker) {
        let donors = Donors {
            one: one.pid().to_string(),
            other: other.pid().to_string(),
            mounts: None,
        };
        try_row(maker, &row, &donors.with_mounts(&row));
    }
    assert_eq!(one.status(), "running");
    assert_eq!(other.status(), "running");
}

#[test]
fn every_pair_of_shared_new_and_joined_namespaces_is_had_as_asked_for() {
    needs!(is_root(), "needs root");
    let first = TestBundle::sleeper().user_namespace();
    try_all_rows(Maker::Root, first, TestBundle::sleeper());
}

#[test]
fn every_pair_that_an_ordinary_user_may_have_is_had_as_asked_for() {
    needs!(is_root(), "needs root");
    peer_differs!(
        Runc | Crun,
        "they want mappings of an ordinary user who joins"
    );
    let bundle = || TestBundle::sleeper().of_ordinary_user();
    try_all_rows(Maker::OrdinaryUser, bundle(), bundle());
}
