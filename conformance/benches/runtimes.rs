//! Compares runtimes side by side: `cargo bench -p conformance --bench runtimes`.
//!
//! gocker-runc (`$GOCKER_RUNC`, or as built), and runc and crun where they are
//! installed. Rounds are interleaved, so that a noisy moment meets everyone, and
//! each round is a fresh worker process: a subreaper in a mount namespace of its
//! own, where crun does not see the v2 side of a hybrid layout that it refuses.
//!
//! ```text
//! GOCKER_BENCH_ROUNDS=20   rounds           GOCKER_BENCH_REPEATS=5   samples in each
//! ```
//! Ratios of processor time are what lasts; times on a shared machine are not.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use conformance::binaries::{Runtime, find, installed};
use conformance::measure::{Cost, cost_of, cpu_time, median, peak_kib, reap};
use conformance::{TestBundle, host, wait_until};
use nix::sys::prctl::set_child_subreaper;

/// The commands that are measured, in the order of the report.
const CASES: &[&str] = &[
    "run",
    "create",
    "state",
    "start",
    "exec",
    "kill",
    "delete",
    "create..delete",
    "--version",
];

fn main() {
    if env::var_os("GOCKER_BENCH_WORKER").is_some() {
        return work(setting("GOCKER_BENCH_REPEATS", 5));
    }
    if !host::is_root() {
        println!("skipped: needs root");
        return;
    }
    let runtimes = runtimes();
    let rounds = setting("GOCKER_BENCH_ROUNDS", 20);
    let mut results: Vec<Results> = runtimes.iter().map(|_| Results::default()).collect();
    for round in 0..rounds {
        for offset in 0..runtimes.len() {
            let index = (round + offset) % runtimes.len();
            results[index].add_round(&runtimes[index]);
        }
        eprint!("\rround {}/{rounds}", round + 1);
    }
    eprintln!();
    report(&runtimes, &results);
}

fn setting(name: &str, default: usize) -> usize {
    env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

/// Ours first, then its peers.
fn runtimes() -> Vec<(String, PathBuf)> {
    let ours = find("GOCKER_RUNC", "gocker-runc").map(|path| ("gocker-runc", path));
    let peers = ["runc", "crun"].map(|name| installed(name).map(|path| (name, path)));
    let all: Vec<_> = ours
        .into_iter()
        .chain(peers.into_iter().flatten())
        .map(|(name, path)| (name.to_owned(), path))
        .collect();
    for (name, path) in &all {
        let version = Runtime::at(path).version;
        println!(
            "{name}: {} ({})",
            version.lines().next().unwrap_or("?"),
            path.display()
        );
    }
    all
}

/// All samples of one runtime.
#[derive(Default)]
struct Results {
    costs: BTreeMap<String, Vec<Cost>>,
    peak_kib: BTreeMap<String, i64>,
}

impl Results {
    /// Has a worker measure this runtime once more.
    fn add_round(&mut self, (name, path): &(String, PathBuf)) {
        let output = Command::new(env::current_exe().expect("this program's path"))
            .env("GOCKER_BENCH_WORKER", "1")
            .env("RUNTIME", path)
            .output()
            .expect("start a worker");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{name}: {}{text}",
            String::from_utf8_lossy(&output.stderr)
        );
        for line in text.lines() {
            let words: Vec<&str> = line.split('\t').collect();
            let number = |index: usize| words[index].parse::<u64>().expect("a number");
            if words[0] == "peak" {
                let peak = self.peak_kib.entry(words[1].to_owned()).or_default();
                *peak = (*peak).max(i64::try_from(number(2)).expect("a size"));
            } else {
                let (cpu, wall) = (
                    Duration::from_micros(number(1)),
                    Duration::from_micros(number(2)),
                );
                self.costs
                    .entry(words[0].to_owned())
                    .or_default()
                    .push(Cost { cpu, wall });
            }
        }
    }

    fn medians(&self, case: &str) -> Option<Cost> {
        let costs = self.costs.get(case)?;
        let cpu = median(costs.iter().map(|cost| cost.cpu).collect())?;
        let wall = median(costs.iter().map(|cost| cost.wall).collect())?;
        Some(Cost { cpu, wall })
    }
}

/// A table for each command; ratios are to the first runtime, which is ours.
fn report(runtimes: &[(String, PathBuf)], results: &[Results]) {
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    println!(
        "\n{:<16}{:<14}{:>9}{:>9}{:>10}{:>10}{:>10}{:>8}",
        "command", "runtime", "CPU ms", "wall ms", "CPU x", "wall x", "peak KiB", "n"
    );
    for case in CASES {
        let own = results[0].medians(case);
        for ((name, _), result) in runtimes.iter().zip(results) {
            let Some(cost) = result.medians(case) else {
                println!("{case:<16}{name:<14}{:>9}", "-");
                continue;
            };
            let ratio = |time: fn(&Cost) -> Duration| {
                own.map_or("-".to_owned(), |own| {
                    format!("{:.2}", ms(time(&cost)) / ms(time(&own)).max(0.001))
                })
            };
            println!(
                "{case:<16}{name:<14}{:>9.2}{:>9.2}{:>10}{:>10}{:>10}{:>8}",
                ms(cost.cpu),
                ms(cost.wall),
                ratio(|cost| cost.cpu),
                ratio(|cost| cost.wall),
                result
                    .peak_kib
                    .get(*case)
                    .map_or(String::new(), i64::to_string),
                result.costs[*case].len(),
            );
        }
    }
    println!(
        "\nCPU: user and system time of all processes. Medians; x: times {}'s.",
        runtimes[0].0
    );
}

/// Measures `$RUNTIME`; one line for each sample: name, CPU and wall in
/// microseconds.
fn work(repeats: usize) {
    set_child_subreaper(true).expect("become a subreaper");
    let run = TestBundle::new();
    let path = run.path();
    let path = path.to_str().expect("a path");
    // Alone at first: the peak is of all that ran before.
    for _ in 0..repeats {
        let mut command = run.runtime();
        command.args(["run", "--bundle", path, run.id()]);
        print_cost("run", measured(&mut command, None));
    }
    println!("peak\trun\t{}", peak_kib());
    for _ in 0..repeats {
        measure_steps();
    }
    measure_exec(repeats);
    for _ in 0..repeats {
        let mut command = Command::new(&conformance::runtime().program);
        print_cost("--version", measured(command.arg("--version"), None));
    }
}

/// One container from `create` to `delete`, each command by itself.
fn measure_steps() {
    let bundle = TestBundle::sleeper();
    let container = bundle.container();
    let pid_file = bundle.scratch().join("pid");
    let path = bundle.path();
    let options = [
        "--bundle",
        path.to_str().expect("a path"),
        "--pid-file",
        pid_file.to_str().expect("a path"),
    ];
    let before = cpu_time(None);
    let mut create = measured(&mut container.command("create", &options), None);
    let pid = read_pid(&pid_file);
    // What the init did so far, while it still is the runtime's own code.
    create.cpu = cpu_time(Some(pid)).saturating_sub(before);
    print_cost("create", create);
    let mut wall = create.wall;
    let step = |name: &str, command: &mut Command| {
        let cost = measured(command, Some(pid));
        print_cost(name, cost);
        cost.wall
    };
    wall += step("state", &mut container.command("state", &[]));
    wall += step("start", &mut container.command("start", &[]));
    wall += step("kill", container.command("kill", &[]).arg("KILL"));
    assert!(
        wait_until(Duration::from_secs(10), || {
            reap();
            !Path::new(&format!("/proc/{pid}")).exists()
        }),
        "the container should end"
    );
    wall += step("delete", &mut container.command("delete", &[]));
    print_cost(
        "create..delete",
        Cost {
            cpu: cpu_time(None).saturating_sub(before),
            wall,
        },
    );
}

/// Nothing is printed for a runtime that has no `exec`.
fn measure_exec(repeats: usize) {
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let pid = container.pid();
    for _ in 0..repeats {
        let mut command = bundle.runtime();
        command.args(["exec", bundle.id(), "/bin/true"]);
        let (cost, status) = cost_of(&mut command, Some(pid));
        if !status.success() {
            return;
        }
        print_cost("exec", cost);
    }
}

fn measured(command: &mut Command, init: Option<i32>) -> Cost {
    let (cost, status) = cost_of(command, init);
    assert!(status.success(), "{command:?}: {status}");
    cost
}

fn read_pid(path: &Path) -> i32 {
    let text = fs::read_to_string(path).expect("read the pid file");
    text.trim().parse().expect("a pid")
}

fn print_cost(name: &str, cost: Cost) {
    println!(
        "{name}\t{}\t{}",
        cost.cpu.as_micros(),
        cost.wall.as_micros()
    );
}
