//! The same profiles through libseccomp, in the way that runc uses it, and what the two
//! filters say.
//!
//! Needs libseccomp-dev, and so a feature of its own:
//! `cargo test --release -p gocker-runc --features compare-libseccomp libseccomp`.

use std::fs::File;
use std::io::{Read, Seek};

use bundles::config::linux::seccomp::{Action, Condition, Seccomp, Test};
use libc::sock_filter;
use libseccomp::error::SeccompError;
use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
};
use oci_spec::runtime::Arch;

use super::super::arch::{Abi, NATIVE, multiplexed};
use super::super::{compile, names};
use super::machine::{Call, run};
use super::oracle::Oracle;
use super::random::{self, Actions, Random};
use super::{X86, X86_64, installed_profile};

fn action(action: Action) -> ScmpAction {
    match action {
        Action::KillThread => ScmpAction::KillThread,
        Action::KillProcess => ScmpAction::KillProcess,
        Action::Trap => ScmpAction::Trap,
        Action::Errno(errno) => ScmpAction::Errno(errno.into()),
        Action::Notify => ScmpAction::Notify,
        Action::Trace(message) => ScmpAction::Trace(message),
        Action::Log => ScmpAction::Log,
        Action::Allow => ScmpAction::Allow,
    }
}

fn arch(arch: Arch) -> ScmpArch {
    match arch {
        Arch::ScmpArchX86_64 => ScmpArch::X8664,
        Arch::ScmpArchX86 => ScmpArch::X86,
        Arch::ScmpArchX32 => ScmpArch::X32,
        Arch::ScmpArchAarch64 => ScmpArch::Aarch64,
        Arch::ScmpArchArm => ScmpArch::Arm,
        Arch::ScmpArchPpc64le => ScmpArch::Ppc64Le,
        Arch::ScmpArchRiscv64 => ScmpArch::Riscv64,
        Arch::ScmpArchMipsel => ScmpArch::Mipsel,
        other => panic!("{other} is not among the random ones"),
    }
}

fn compare(condition: &Condition) -> ScmpArgCompare {
    let (op, datum) = match condition.test {
        Test::Ne(value) => (ScmpCompareOp::NotEqual, value),
        Test::Lt(value) => (ScmpCompareOp::Less, value),
        Test::Le(value) => (ScmpCompareOp::LessOrEqual, value),
        Test::Eq(value) => (ScmpCompareOp::Equal, value),
        Test::Ge(value) => (ScmpCompareOp::GreaterEqual, value),
        Test::Gt(value) => (ScmpCompareOp::Greater, value),
        Test::MaskedEq { mask, value } => (ScmpCompareOp::MaskedEqual(mask), value),
    };
    ScmpArgCompare::new(condition.arg.into(), op, datum)
}

fn by_libseccomp(profile: &Seccomp) -> Result<Vec<sock_filter>, SeccompError> {
    let mut context = ScmpFilterContext::new(action(profile.default_action))?;
    for one in &profile.architectures {
        context.add_arch(arch(*one))?;
    }
    for entry in &profile.syscalls {
        if entry.action == profile.default_action {
            continue;
        }
        for name in &entry.names {
            let Ok(call) = ScmpSyscall::from_name(name) else {
                continue;
            };
            for conditions in &entry.alternatives {
                let conditions: Vec<_> = conditions.iter().map(compare).collect();
                context.add_rule_conditional(action(entry.action), call, &conditions)?;
            }
        }
    }
    let mut file: File = tempfile::tempfile().expect("a temporary file");
    context.export_bpf(&mut file)?;
    file.rewind().expect("rewind");
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).expect("read");
    let (instructions, rest) = bytes.as_chunks::<8>();
    assert!(rest.is_empty());
    let instruction = |[a, b, jt, jf, k @ ..]: &[u8; 8]| sock_filter {
        code: u16::from_ne_bytes([*a, *b]),
        jt: *jt,
        jf: *jf,
        k: u32::from_ne_bytes(*k),
    };
    Ok(instructions.iter().map(instruction).collect())
}

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
        for _ in 0..100 {
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

fn profiles() -> usize {
    if cfg!(debug_assertions) { 300 } else { 20_000 }
}

#[test]
fn libseccomp_decides_alike_for_one_rule_for_each_call() {
    let tally = compare_random(0xa11e, profiles(), Actions::Mixed, Shape::OneRule);
    println!("{tally:?}");
    assert_eq!(tally.only_we_refuse, 0, "{tally:?}");
    assert!(tally.compared > profiles() * 50, "{tally:?}");
}

#[test]
fn libseccomp_decides_alike_for_several_equalities() {
    let tally = compare_random(0xe9a1, profiles(), Actions::One, Shape::Equalities);
    println!("{tally:?}");
    assert_eq!(tally.only_we_refuse, 0, "{tally:?}");
    assert!(tally.compared > profiles() * 50, "{tally:?}");
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
fn libseccomp_decides_alike_for_an_engines_default_profile() {
    let Some(profile) = installed_profile() else {
        eprintln!("skipped: /usr/share/containers/seccomp.json is not installed");
        return;
    };
    let profile = without_newer_names(profile);
    let start = std::time::Instant::now();
    let theirs = by_libseccomp(&profile).expect("libseccomp compiles it");
    let (their_time, start) = (start.elapsed(), std::time::Instant::now());
    let ours = compile(&profile).expect("compiled");
    println!(
        "ours: {} instructions in {:?}; libseccomp: {} in {their_time:?}",
        ours.program.len(),
        start.elapsed(),
        theirs.len()
    );
    let oracle = Oracle::new(&profile);
    let mut random = Random(0xc0de);
    for audit in [X86_64, X86] {
        for number in (0..600).chain(0x4000_0000..0x4000_0300) {
            for _ in 0..50 {
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
