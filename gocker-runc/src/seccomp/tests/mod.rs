//! What filters do, on a machine of our own.

#[cfg(feature = "compare-libseccomp")]
mod by_libseccomp;
#[cfg(feature = "compare-libseccomp")]
mod libseccomp;
mod machine;
mod oracle;
mod random;

use std::time::Instant;

use bundles::config::linux::seccomp::{Action, Seccomp};
use oci_spec::runtime::{Arch, LinuxSeccomp};

use super::filter::code;
use super::{Filter, compile, compile_for};
use machine::Call;
use oracle::Oracle;
use random::{Actions, Random};

const X86_64: u32 = 0xc000_003e;
const X86: u32 = 0x4000_0003;
const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x5_0001;
const ENOSYS: u32 = 0x5_0026;

fn profile(text: &str) -> Seccomp {
    let profile: LinuxSeccomp = serde_json::from_str(text).expect(text);
    Seccomp::from_spec(&profile).expect(text)
}

fn filter(text: &str) -> Filter {
    compile(&profile(text)).expect(text)
}

fn answer(filter: &Filter, audit: u32, number: u32, args: &[u64]) -> u32 {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    let call = Call {
        audit,
        number,
        args: all,
    };
    machine::run(&filter.program, &call).0
}

#[test]
#[cfg(target_arch = "x86_64")]
fn calls_get_what_the_profile_says() {
    let filter = filter(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86"],"syscalls":[
            {"names":["read","write","nobody_knows","openat2"],"action":"SCMP_ACT_ALLOW"},
            {"names":["personality"],"action":"SCMP_ACT_ALLOW",
             "args":[{"index":0,"value":8,"op":"SCMP_CMP_EQ"}]},
            {"names":["socket"],"action":"SCMP_ACT_ALLOW",
             "args":[{"index":0,"value":40,"op":"SCMP_CMP_NE"}]},
            {"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[
              {"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}]}]}"#,
    );
    let cases: [(u32, u32, &[u64], u32); 19] = [
        (X86_64, 0, &[], ALLOW),
        (X86_64, 2, &[], EPERM),
        (X86_64, 135, &[8], ALLOW),
        (X86_64, 135, &[0x1_0000_0008], EPERM),
        (X86_64, 41, &[40], EPERM),
        (X86_64, 41, &[0x1_0000_0028], ALLOW),
        (X86_64, 56, &[0x11], ALLOW),
        (X86_64, 56, &[0x1000_0000], EPERM),
        // openat2 is the newest call here.
        (X86_64, 437, &[], ALLOW),
        (X86_64, 438, &[], ENOSYS),
        // x32 is not listed; -1 is no call.
        (X86_64, 0x4000_0000, &[], 0),
        (X86_64, u32::MAX, &[], EPERM),
        (X86, 3, &[], ALLOW),
        (X86, 0, &[], EPERM),
        // socket by socketcall, and connect.
        (X86, 102, &[1], ALLOW),
        (X86, 102, &[3], EPERM),
        (X86, 359, &[40], EPERM),
        (X86, 1000, &[], ENOSYS),
        // aarch64 is not listed.
        (0xc000_00b7, 63, &[], 0),
    ];
    for (audit, number, args, expected) in cases {
        let got = answer(&filter, audit, number, args);
        assert_eq!(got, expected, "{audit:#x} {number} {args:?}: {got:#x}");
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn newer_calls_get_the_default_where_it_permits() {
    let cases = [
        (r#""SCMP_ACT_ALLOW""#, ALLOW),
        (r#""SCMP_ACT_LOG""#, 0x7ffc_0000),
        (r#""SCMP_ACT_TRACE""#, 0x7ff0_0001),
        (r#""SCMP_ACT_KILL""#, ENOSYS),
        (r#""SCMP_ACT_ERRNO","defaultErrnoRet":38"#, ENOSYS),
    ];
    for (default, expected) in cases {
        let text = format!(
            r#"{{"defaultAction":{default},"syscalls":[{{"names":["read"],"action":"SCMP_ACT_TRAP"}}]}}"#
        );
        assert_eq!(answer(&filter(&text), X86_64, 400, &[]), expected, "{text}");
    }
    let no_rules = filter(r#"{"defaultAction":"SCMP_ACT_ERRNO"}"#);
    assert_eq!(answer(&no_rules, X86_64, 400, &[]), EPERM);
}

#[test]
fn what_cannot_be_compiled_is_named() {
    let many = |count: u64| {
        let entry = |value: u64| {
            format!(
                r#"{{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[
                    {{"index":0,"value":{value},"op":"SCMP_CMP_GT"}},
                    {{"index":1,"value":{value},"op":"SCMP_CMP_GT"}}]}}"#
            )
        };
        let entries: Vec<_> = (0..count).map(entry).collect();
        format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{}]}}"#,
            entries.join(",")
        )
    };
    assert!(compile(&profile(&many(350))).is_ok());
    let with = |rest: &str| format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO",{rest}}}"#);
    let cases = [
        (many(600), "linux.seccomp.syscalls: make a filter of 6"),
        (
            with(r#""architectures":["SCMP_ARCH_PARISC"]"#),
            "linux.seccomp.architectures[0]: SCMP_ARCH_PARISC has no table",
        ),
        (
            with(
                r#""syscalls":[
                    {"names":["read"],"action":"SCMP_ACT_ALLOW",
                     "args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]},
                    {"names":["read"],"action":"SCMP_ACT_LOG",
                     "args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]}]"#,
            ),
            "linux.seccomp.syscalls[1].action: \"read\" has another action",
        ),
    ];
    for (text, expected) in cases {
        let error = compile(&profile(&text)).expect_err(&text).to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn filters_decide_as_the_profile_does_call_by_call() {
    let profiles = if cfg!(debug_assertions) {
        4_000
    } else {
        40_000
    };
    let mut random = Random(0x5ecc_0a9f);
    let mut compared = 0;
    for round in 0..profiles {
        let (native, profile) = random::profile(&mut random, Actions::Mixed);
        // Contradictions have a test of their own.
        let Ok(filter) = compile_for(Some(native), &profile) else {
            continue;
        };
        let oracle = Oracle::new(native, &profile);
        for _ in 0..300 {
            let call = random::call(&mut random, &oracle);
            let (got, _) = machine::run(&filter.program, &call);
            let expected = code(oracle.decide(&call));
            assert_eq!(
                got, expected,
                "round {round}: {call:x?} got {got:#x}, expected {expected:#x}: {profile:#x?}"
            );
            compared += 1;
        }
    }
    println!("{compared} cases compared");
    assert!(compared > profiles * 250, "only {compared} cases compared");
}

/// Engines' default profiles, as they are written for a container without further capabilities on
/// this architecture. (The files say what Debian 12's Docker and containerd ask of a runtime.)
#[cfg(target_arch = "x86_64")]
fn engines_profiles() -> Vec<(&'static str, Seccomp)> {
    let mut profiles = vec![
        (
            "Docker",
            profile(include_str!("profiles/docker-20.10.json")),
        ),
        (
            "containerd",
            profile(include_str!("profiles/containerd-1.6.json")),
        ),
    ];
    profiles.extend(installed_profile().map(|installed| ("containers-common", installed)));
    profiles
}

/// The profile that Debian's containers-common installs, for this machine, as an engine
/// would write it.
#[cfg(target_arch = "x86_64")]
fn installed_profile() -> Option<Seccomp> {
    let text = std::fs::read("/usr/share/containers/seccomp.json").ok()?;
    let mut document: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    let entries = document["syscalls"].take();
    let conditional = |entry: &serde_json::Value| {
        ["caps", "arches", "minKernel"]
            .iter()
            .any(|key| entry["includes"][*key].is_array() || entry["includes"][*key].is_string())
    };
    let entries = entries.as_array().expect("a list").clone();
    let entries = entries.into_iter().filter(|entry| !conditional(entry));
    let spec = serde_json::json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": entries
            .map(|mut entry| {
                if entry["errnoRet"].is_null() {
                    entry.as_object_mut().map(|entry| entry.remove("errnoRet"));
                }
                entry
            })
            .collect::<Vec<_>>(),
    });
    let profile: LinuxSeccomp = serde_json::from_value(spec).expect("a profile");
    Some(Seccomp::from_spec(&profile).expect("a good profile"))
}

#[test]
#[cfg(target_arch = "x86_64")]
fn engines_default_profiles_are_small_and_quick() {
    for (name, profile) in engines_profiles() {
        is_small_and_quick(name, &profile);
    }
}

#[cfg(target_arch = "x86_64")]
fn is_small_and_quick(name: &str, profile: &Seccomp) {
    let unknown: Vec<_> = profile
        .syscalls
        .iter()
        .flat_map(|call| &call.names)
        .filter(|name| super::names::find(name).is_none())
        .collect();
    assert!(unknown.is_empty(), "{name}: unknown: {unknown:?}");
    let filter = compile(profile).expect("compiled");
    let length = filter.program.len();
    assert!(length < 600, "{length} instructions");
    let oracle = Oracle::new(Arch::ScmpArchX86_64, profile);
    let mut longest = 0;
    for audit in [X86_64, X86] {
        for number in (0..600).chain(0x4000_0000..0x4000_0300).chain([u32::MAX]) {
            for args in [[0; 6], [40; 6], [8; 6], [u64::MAX; 6]] {
                let call = Call {
                    audit,
                    number,
                    args,
                };
                let (got, steps) = machine::run(&filter.program, &call);
                assert_eq!(got, code(oracle.decide(&call)), "{call:x?}");
                longest = longest.max(steps);
            }
        }
    }
    assert!(longest < 60, "{longest} instructions for one call");
    let best = (0..50).map(|_| {
        let start = Instant::now();
        assert!(compile(profile).is_ok());
        start.elapsed()
    });
    let best = best.min().unwrap_or_default();
    println!("{name}: {length} instructions, at most {longest} for one call, compiled in {best:?}");
    if !cfg!(debug_assertions) {
        assert!(best.as_micros() < 500, "compiled in {best:?}");
    }
}

#[test]
fn every_action_has_the_kernels_value() {
    let cases = [
        (Action::KillThread, 0),
        (Action::KillProcess, 0x8000_0000),
        (Action::Trap, 0x3_0000),
        (Action::Errno(4095), 0x5_0fff),
        (Action::Notify, 0x7fc0_0000),
        (Action::Trace(0xffff), 0x7ff0_ffff),
        (Action::Log, 0x7ffc_0000),
        (Action::Allow, ALLOW),
    ];
    for (action, value) in cases {
        assert_eq!(code(action), value, "{action:?}");
    }
}
