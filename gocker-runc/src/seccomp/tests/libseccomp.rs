//! The same profiles through libseccomp, and what the two filters say.
//!
//! Needs libseccomp-dev, and so a feature of its own:
//! `cargo nextest run -p gocker-runc --features compare-libseccomp libseccomp`.

use std::collections::HashMap;

use bundles::config::linux::seccomp::{Action, Condition, Seccomp, Test};
use libc::sock_filter;
use libseccomp::ScmpSyscall;
use oci_spec::runtime::Arch;

use super::super::arch::{Abi, multiplexed};
use super::super::{compile, compile_for, names};
use super::by_libseccomp::by_libseccomp;
use super::machine::{Call, LITTLE_ENDIAN, loads_number, run};
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

/// Whether the two are asked the same: the rule for newer calls is not libseccomp's, and
/// numbers beyond x32's are no calls.
fn comparable(oracle: &Oracle<'_>, call: &Call) -> bool {
    let beyond = call.audit == X86_64 && (0x8000_0000..u32::MAX).contains(&call.number);
    !beyond && !oracle.is_newer(call)
}

/// Whether libseccomp 2.5 gets these rules for one call right.
///
/// Of several with bounds on one 64-bit argument, or with several conditions, it merges checks
/// that do not belong together, and decides for some calls what no rule says; for a few it does
/// not end. Ours is held against the profile itself there, as everywhere:
/// `filters_decide_as_the_profile_does_call_by_call`.
fn is_combined_well(rules: &[(&[Condition], Action)]) -> bool {
    let equality = |conditions: &[Condition]| match conditions {
        [one] => matches!(one.test, Test::Eq(_) | Test::MaskedEq { .. }),
        _ => false,
    };
    let one_action = rules.iter().all(|(_, action)| *action == rules[0].1);
    let all = |is: &dyn Fn(&[Condition]) -> bool| rules.iter().all(|(one, _)| is(one));
    rules.len() < 2
        || all(&|one| one.is_empty())
        || one_action && (all(&equality) || rules.iter().any(|(one, _)| one.is_empty()))
}

/// Drops what libseccomp is known to combine wrongly, rule by rule.
fn without_wrong_combinations(mut profile: Seccomp) -> Seccomp {
    let mut known: HashMap<String, Vec<(Vec<Condition>, Action)>> = HashMap::new();
    for entry in &mut profile.syscalls {
        let of_entry: Vec<_> = entry.alternatives.iter().map(Vec::as_slice).collect();
        if !is_combined_well(
            &of_entry
                .iter()
                .map(|one| (*one, entry.action))
                .collect::<Vec<_>>(),
        ) {
            entry.alternatives.truncate(1);
        }
        let (action, alternatives) = (entry.action, &entry.alternatives);
        entry.names.retain(|name| {
            let rules = known.entry(name.clone()).or_default();
            let before = rules.len();
            rules.extend(alternatives.iter().map(|one| (one.clone(), action)));
            let all: Vec<_> = rules
                .iter()
                .map(|(one, action)| (one.as_slice(), *action))
                .collect();
            // Through socketcall and ipc each has one condition more.
            let good = is_combined_well(&all) && (multiplexed(name).is_none() || all.len() == 1);
            if !good {
                rules.truncate(before);
            }
            // What others come through has their rules, too.
            good && !matches!(name.as_str(), "socketcall" | "ipc")
        });
    }
    profile
}

/// Where an architecture lacks the call that libseccomp 2.5 happens to write first, its filter
/// compares that architecture's numbers without having loaded the number.
fn forgets_the_number(program: &[sock_filter], profile: &Seccomp, call: &Call) -> bool {
    let lacks = |abi: &Abi| {
        let mut names = profile.syscalls.iter().flat_map(|entry| &entry.names);
        names.any(|name| names::find(name).is_some_and(|row| abi.number(row).is_none()))
    };
    !loads_number(program, call) && Abi::all_of(call.audit).any(|abi| lacks(&abi))
}

/// What libseccomp's filter says. On a machine of the other byte order it forgets to turn the
/// value round where a return is far from the jump to it.
fn their_answer(program: &[sock_filter], call: &Call, ours: u32) -> u32 {
    let theirs = run(program, call).0;
    let turned = call.audit & LITTLE_ENDIAN == 0 && theirs.swap_bytes() == ours;
    if turned { ours } else { theirs }
}

/// What became of random profiles.
#[derive(Debug, Default)]
struct Tally {
    compared: usize,
    number_forgotten: usize,
    both_refuse: usize,
    only_libseccomp_refuses: usize,
}

fn compare_random(seed: u64, actions: Actions) -> Tally {
    let mut random = Random(seed);
    let mut tally = Tally::default();
    for round in 0..PROFILES {
        let (native, profile) = random::profile(&mut random, actions);
        let profile = without_wrong_combinations(without_newer_names(profile));
        let ours = compile_for(Some(native), &profile);
        let (ours, theirs) = match (ours, by_libseccomp(native, &profile)) {
            (Ok(ours), Ok(theirs)) => (ours, theirs),
            (Err(_), Err(_)) => {
                tally.both_refuse += 1;
                continue;
            }
            (Ok(_), Err(_)) => {
                tally.only_libseccomp_refuses += 1;
                continue;
            }
            (Err(error), Ok(_)) => panic!("round {round}: only we refuse: {error}: {profile:#x?}"),
        };
        let oracle = Oracle::new(native, &profile);
        for _ in 0..CALLS {
            let call = random::call(&mut random, &oracle);
            if !comparable(&oracle, &call) {
                continue;
            }
            if forgets_the_number(&theirs, &profile, &call) {
                tally.number_forgotten += 1;
                continue;
            }
            let our = run(&ours.program, &call).0;
            let their = their_answer(&theirs, &call, our);
            assert_eq!(
                our, their,
                "round {round}: {native} {call:x?}: ours {our:#x}, theirs {their:#x}: {profile:#x?}"
            );
            tally.compared += 1;
        }
    }
    tally
}

/// How many calls are tried on a profile: to compile it twice takes as long as some hundreds.
const CALLS: usize = 600;

/// How many profiles each of the two comparisons has, and an optimised build has time for more.
const PROFILES: usize = if cfg!(debug_assertions) {
    2_000
} else {
    20_000
};

/// What each of the two comes to: some profiles are refused, and some calls are not comparable.
const CASES: usize = PROFILES * CALLS / 2;

#[test]
fn libseccomp_decides_alike_for_rules_of_many_actions() {
    let tally = compare_random(0xa11e, Actions::Mixed);
    println!("{tally:?}");
    assert!(tally.compared > CASES, "{tally:?}");
    assert!(tally.number_forgotten * 5 < tally.compared, "{tally:?}");
}

#[test]
fn libseccomp_decides_alike_for_rules_of_one_action() {
    let tally = compare_random(0xe9a1, Actions::One);
    println!("{tally:?}");
    assert!(tally.compared > CASES, "{tally:?}");
    assert!(tally.number_forgotten * 5 < tally.compared, "{tally:?}");
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
    let theirs = by_libseccomp(Arch::ScmpArchX86_64, &profile).expect("libseccomp compiles it");
    let (their_time, start) = (start.elapsed(), std::time::Instant::now());
    let ours = compile(&profile).expect("compiled");
    println!(
        "{name}: ours: {} instructions in {:?}; libseccomp: {} in {their_time:?}",
        ours.program.len(),
        start.elapsed(),
        theirs.len()
    );
    let oracle = Oracle::new(Arch::ScmpArchX86_64, &profile);
    let mut random = Random(0xc0de);
    let mut compared = 0;
    for audit in [X86_64, X86] {
        for number in (0..600).chain(0x4000_0000..0x4000_0300) {
            for _ in 0..20 {
                let mut call = random::call(&mut random, &oracle);
                (call.audit, call.number) = (audit, number);
                if comparable(&oracle, &call) {
                    let (our, their) = (run(&ours.program, &call).0, run(&theirs, &call).0);
                    assert_eq!(our, their, "{call:x?}");
                    compared += 1;
                }
            }
        }
    }
    println!("{name}: {compared} calls compared");
    assert!(compared > 10_000, "{compared}");
}
