//! The same profiles through libseccomp, and what the two filters say.
//!
//! Needs libseccomp-dev, and so a feature of its own:
//! `cargo nextest run -p gocker-runc --features compare-libseccomp libseccomp`.

use bundles::config::linux::seccomp::{Seccomp, Test};
use libseccomp::ScmpSyscall;

use super::super::arch::{Abi, NATIVE, multiplexed};
use super::super::{compile, names};
use super::by_libseccomp::by_libseccomp;
use super::machine::{Call, run};
use super::oracle::Oracle;
use super::random::{self, Actions, Random};
use super::{X86, X86_64, engines_profiles};

/// What libseccomp of this machine does not know, it ignores.
fn without_newer_names(mut profile: Seccomp) -> Seccomp {
    for entry in &mut profile.syscalls {
        entry
            .names
            .retain(|name| ScmpSyscall::from_name(name).is_ok());
    }
    profile
}

/// Where an architecture lacks a call that a rule names, the filter of libseccomp 2.5 may
/// compare that architecture's numbers without having loaded the number.
fn without_local_names(mut profile: Seccomp) -> Seccomp {
    let native = NATIVE.into_iter();
    let abis: Vec<_> = native
        .chain(profile.architectures.iter().copied())
        .filter_map(Abi::of)
        .collect();
    for entry in &mut profile.syscalls {
        entry.names.retain(|name| {
            let row = names::find(name);
            row.is_some_and(|row| abis.iter().all(|abi| abi.number(row).is_some()))
        });
    }
    profile
}

/// Whether the two are asked the same: the rule for newer calls is not libseccomp's, and
/// numbers beyond x32's are no calls.
fn comparable(oracle: &Oracle<'_>, call: &Call) -> bool {
    let beyond = call.audit == X86_64 && (0x8000_0000..u32::MAX).contains(&call.number);
    !beyond && !oracle.is_newer(call)
}

/// Which profiles are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// One rule for each call, with conditions of every kind.
    OneRule,
    /// Several rules for a call, each one equality.
    Equalities,
    /// All.
    Any,
}

/// Makes `profile` one of this shape.
fn shape(profile: &mut Seccomp, shape: Shape) {
    let mut seen = Vec::new();
    for entry in &mut profile.syscalls {
        match shape {
            Shape::Any => {}
            Shape::OneRule => {
                entry.alternatives.truncate(1);
                entry.names.retain(|name| {
                    let new = !seen.contains(name);
                    seen.push(name.clone());
                    // What others come through has their rules, too.
                    new && !matches!(name.as_str(), "socketcall" | "ipc")
                });
            }
            Shape::Equalities => {
                // Through socketcall and ipc they would have a second condition.
                entry.names.retain(|name| multiplexed(name).is_none());
                for conditions in &mut entry.alternatives {
                    conditions.truncate(1);
                    for condition in conditions {
                        condition.test = match condition.test {
                            Test::Lt(value) | Test::Le(value) | Test::Ne(value) => Test::Eq(value),
                            Test::Gt(value) | Test::Ge(value) => Test::Eq(value),
                            equality => equality,
                        };
                    }
                }
            }
        }
    }
}

/// What became of random profiles.
#[derive(Debug, Default)]
struct Tally {
    compared: usize,
    both_refuse: usize,
    only_libseccomp_refuses: usize,
    only_we_refuse: usize,
    differing_calls: usize,
    differing_profiles: usize,
}

fn compare_random(seed: u64, profiles: usize, actions: Actions, of: Shape) -> Tally {
    let mut random = Random(seed);
    let mut tally = Tally::default();
    for round in 0..profiles {
        let profile = random::profile(&mut random, actions);
        let mut profile = without_local_names(without_newer_names(profile));
        shape(&mut profile, of);
        let (ours, theirs) = match (compile(&profile), by_libseccomp(&profile)) {
            (Ok(ours), Ok(theirs)) => (ours, theirs),
            (Err(_), Err(_)) => {
                tally.both_refuse += 1;
                continue;
            }
            (Ok(_), Err(_)) => {
                tally.only_libseccomp_refuses += 1;
                continue;
            }
            (Err(_), Ok(_)) => {
                tally.only_we_refuse += 1;
                continue;
            }
        };
        let oracle = Oracle::new(&profile);
        let before = tally.differing_calls;
        for _ in 0..CALLS {
            let call = random::call(&mut random, &oracle);
            if !comparable(&oracle, &call) {
                continue;
            }
            let (our, their) = (run(&ours.program, &call).0, run(&theirs, &call).0);
            tally.compared += 1;
            if our != their {
                tally.differing_calls += 1;
                assert!(
                    of == Shape::Any,
                    "round {round}: {call:x?}: ours {our:#x}, theirs {their:#x}: {profile:#x?}"
                );
            }
        }
        tally.differing_profiles += usize::from(tally.differing_calls > before);
    }
    tally
}

/// How many calls are tried on a profile: to compile it twice takes as long as some hundreds.
const CALLS: usize = 500;

/// How many profiles are compared, for more than half a million cases, and an optimised build
/// has time for ten times as many.
const PROFILES: usize = if cfg!(debug_assertions) {
    2_000
} else {
    20_000
};

/// What each of the two comparisons is to come to: some profiles are refused, and some calls are
/// not comparable.
const CASES: usize = PROFILES * CALLS * 5 / 8;

#[test]
fn libseccomp_decides_alike_for_one_rule_for_each_call() {
    let tally = compare_random(0xa11e, PROFILES, Actions::Mixed, Shape::OneRule);
    println!("{tally:?}");
    assert_eq!(tally.only_we_refuse, 0, "{tally:?}");
    assert!(tally.compared > CASES, "{tally:?}");
}

#[test]
fn libseccomp_decides_alike_for_several_equalities() {
    let tally = compare_random(0xe9a1, PROFILES, Actions::One, Shape::Equalities);
    println!("{tally:?}");
    assert_eq!(tally.only_we_refuse, 0, "{tally:?}");
    assert!(tally.compared > CASES, "{tally:?}");
}

/// Several rules with bounds on one 64-bit argument, or with several conditions: there
/// libseccomp 2.5 merges checks that do not belong together, and decides for some calls what
/// no rule says. Ours is held against the profile itself elsewhere; this counts how often.
#[test]
fn libseccomp_mostly_decides_alike_for_any_rules() {
    // Few: for some of these libseccomp does not end.
    let tally = compare_random(0xbeef, 300, Actions::One, Shape::Any);
    println!("{tally:?}");
    assert_eq!(tally.only_we_refuse, 0, "{tally:?}");
    assert!(tally.differing_calls * 50 < tally.compared, "{tally:?}");
}

#[test]
fn libseccomp_decides_alike_for_engines_default_profiles() {
    for (name, profile) in engines_profiles() {
        compare_whole(name, profile);
    }
}

fn compare_whole(name: &str, profile: Seccomp) {
    let profile = without_newer_names(profile);
    let start = std::time::Instant::now();
    let theirs = by_libseccomp(&profile).expect("libseccomp compiles it");
    let (their_time, start) = (start.elapsed(), std::time::Instant::now());
    let ours = compile(&profile).expect("compiled");
    println!(
        "{name}: ours: {} instructions in {:?}; libseccomp: {} in {their_time:?}",
        ours.program.len(),
        start.elapsed(),
        theirs.len()
    );
    let oracle = Oracle::new(&profile);
    let mut random = Random(0xc0de);
    for audit in [X86_64, X86] {
        for number in (0..600).chain(0x4000_0000..0x4000_0300) {
            for _ in 0..20 {
                let mut call = random::call(&mut random, &oracle);
                (call.audit, call.number) = (audit, number);
                if comparable(&oracle, &call) {
                    let (our, their) = (run(&ours.program, &call).0, run(&theirs, &call).0);
                    assert_eq!(our, their, "{call:x?}");
                }
            }
        }
    }
}
