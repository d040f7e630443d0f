//! Seccomp filters beside libseccomp's, for Docker's default profile:
//! `cargo bench -p gocker-runc --features compare-libseccomp --bench seccomp`.
//!
//! Each sample is a process of its own, since a filter is for good. Ours, libseccomp's and no
//! filter take turns, so that a noisy moment meets everyone; what is printed are medians.
//!
//! ```text
//! GOCKER_BENCH_ROUNDS=40   rounds
//! ```
#![forbid(unsafe_code)]

use std::env;
use std::hint::black_box;
use std::process::Command;
use std::time::Instant;

use bundles::config::linux::seccomp::Seccomp;
use nix::sys::personality::{self, Persona};
use nix::unistd::getpid;
use oci_spec::runtime::Arch;
use seccompiler::{apply_filter, sock_filter};

#[path = "../src/seccomp/tests/by_libseccomp.rs"]
mod by_libseccomp;

const WORKER: &str = "GOCKER_BENCH_WORKER";
const CONTENDERS: [&str; 3] = ["gocker-runc", "libseccomp", "no filter"];
const FIGURES: [&str; 6] = [
    "compile, us",
    "length, instructions",
    "load, us",
    "getpid, ns",
    "personality(0), ns",
    "personality(0xffffffff), ns",
];

fn main() {
    if let Ok(contender) = env::var(WORKER) {
        return work(&contender);
    }
    let rounds = env::var("GOCKER_BENCH_ROUNDS").ok();
    let rounds = rounds.and_then(|text| text.parse().ok()).unwrap_or(40);
    let mut samples = vec![vec![Vec::new(); FIGURES.len()]; CONTENDERS.len()];
    for round in 0..rounds {
        for offset in 0..CONTENDERS.len() {
            let contender = (round + offset) % CONTENDERS.len();
            for (all, one) in samples[contender].iter_mut().zip(measure(contender)) {
                all.push(one);
            }
        }
        eprint!("\rround {}/{rounds}", round + 1);
    }
    eprintln!();
    print!("{:<30}", "medians");
    CONTENDERS.iter().for_each(|name| print!("{name:>14}"));
    println!();
    for (figure, name) in FIGURES.iter().enumerate() {
        print!("{name:<30}");
        for all in &mut samples {
            all[figure].sort_by(f64::total_cmp);
            print!("{:>14.1}", all[figure][all[figure].len() / 2]);
        }
        println!();
    }
}

/// One process's figures.
fn measure(contender: usize) -> Vec<f64> {
    let this = env::current_exe().expect("this program's path");
    let output = Command::new(this)
        .env(WORKER, CONTENDERS[contender])
        .output()
        .expect("start a worker");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    let figures: Vec<f64> = text.lines().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(figures.len(), FIGURES.len(), "{text}");
    figures
}

fn work(contender: &str) {
    let text = include_str!("../src/seccomp/tests/profiles/docker-20.10.json");
    let profile = serde_json::from_str(text).expect("JSON");
    let profile = Seccomp::from_spec(&profile).expect("a profile");
    let compile = || match contender {
        "gocker-runc" => gocker_runc::seccomp_program(&profile).expect("compiled"),
        "libseccomp" => {
            by_libseccomp::by_libseccomp(Arch::ScmpArchX86_64, &profile).expect("compiled")
        }
        _ => Vec::new(),
    };
    // A runtime compiles once in its life: the first time is what counts.
    let start = Instant::now();
    let program = compile();
    println!("{}", start.elapsed().as_secs_f64() * 1e6);
    println!("{}", program.len());
    let program: Vec<sock_filter> = program
        .iter()
        .map(|one| sock_filter {
            code: one.code,
            jt: one.jt,
            jf: one.jf,
            k: one.k,
        })
        .collect();
    let start = Instant::now();
    if !program.is_empty() {
        apply_filter(&program).expect("loaded");
    }
    println!("{}", start.elapsed().as_secs_f64() * 1e6);
    println!("{}", nanoseconds(getpid));
    let none = Persona::empty();
    println!("{}", nanoseconds(|| personality::set(none)));
    println!("{}", nanoseconds(personality::get));
}

/// What one call costs: the best of some batches, which nothing has interrupted.
fn nanoseconds<T>(call: impl Fn() -> T) -> f64 {
    const BATCH: u32 = 2_000;
    let batches = (0..25).map(|_| {
        let start = Instant::now();
        for _ in 0..BATCH {
            black_box(call());
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(BATCH)
    });
    batches.fold(f64::INFINITY, f64::min)
}
