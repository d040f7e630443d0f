//! Which system calls the process may make: config-linux.md#seccomp.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use conformance::host::is_root;
use conformance::{TestBundle, gocker_only, needs, peer_differs, wait_until};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// 128 and SIGSYS.
const KILLED: i32 = 159;

fn with_profile(bundle: TestBundle, profile: Value) -> TestBundle {
    bundle.set("/linux/seccomp", profile)
}

/// All is allowed but what `entry` says.
fn all_but(entry: Value) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [entry]})
}

#[test]
fn a_filter_is_in_force_with_and_without_new_privileges() {
    needs!(is_root(), "needs root");
    for (no_new_privileges, uid) in [(true, 0), (false, 0), (true, 1000), (false, 1000)] {
        let bundle = TestBundle::new()
            .args(&[
                "/bin/grep",
                "-E",
                "^(Seccomp|NoNewPrivs):",
                "/proc/self/status",
            ])
            .set("/process/noNewPrivileges", json!(no_new_privileges))
            .set("/process/user", json!({"uid": uid, "gid": uid}));
        let entry = json!({"names": ["reboot"], "action": "SCMP_ACT_ERRNO"});
        let expected = format!(
            "NoNewPrivs:\t{}\nSeccomp:\t2\n",
            u8::from(no_new_privileges)
        );
        let got = with_profile(bundle, all_but(entry)).run_ok();
        assert_eq!(
            got, expected,
            "noNewPrivileges {no_new_privileges}, uid {uid}"
        );
    }
}

#[test]
fn each_action_does_what_it_says() {
    needs!(is_root(), "needs root");
    let cases = [
        (json!({"action": "SCMP_ACT_ALLOW"}), 0, ""),
        (json!({"action": "SCMP_ACT_LOG"}), 0, ""),
        (
            json!({"action": "SCMP_ACT_ERRNO"}),
            1,
            "Operation not permitted",
        ),
        (
            json!({"action": "SCMP_ACT_ERRNO", "errnoRet": 28}),
            1,
            "No space left on device",
        ),
        // Nobody traces.
        (
            json!({"action": "SCMP_ACT_TRACE"}),
            1,
            "Function not implemented",
        ),
        (json!({"action": "SCMP_ACT_TRAP"}), KILLED, ""),
        (json!({"action": "SCMP_ACT_KILL"}), KILLED, ""),
        (json!({"action": "SCMP_ACT_KILL_THREAD"}), KILLED, ""),
        (json!({"action": "SCMP_ACT_KILL_PROCESS"}), KILLED, ""),
    ];
    for (mut entry, code, words) in cases {
        entry["names"] = json!(["mkdir", "mkdirat", "a_call_that_nobody_knows"]);
        let default = if entry["action"] == "SCMP_ACT_ALLOW" {
            "SCMP_ACT_LOG"
        } else {
            "SCMP_ACT_ALLOW"
        };
        let profile = json!({"defaultAction": default, "syscalls": [entry]});
        let bundle = TestBundle::new().args(&["/bin/mkdir", "/tmp/made"]);
        let output = with_profile(bundle, profile).run();
        assert_eq!(output.code(), code, "{entry}: {output}");
        assert!(output.stderr.contains(words), "{entry}: {output}");
    }
}

/// Signals whose default is to be ignored, sent by the shell to itself.
#[test]
fn each_operator_compares_as_it_says() {
    needs!(is_root(), "needs root");
    let script = "for s in 17 18 23 28; do kill -$s $$ 2>/tmp/no && echo -n \"$s \"; done; exit 0";
    let cases = [
        ("SCMP_CMP_NE", 18_u64, 0_u32, "18 "),
        ("SCMP_CMP_LT", 18, 0, "18 23 28 "),
        ("SCMP_CMP_LE", 18, 0, "23 28 "),
        ("SCMP_CMP_EQ", 18, 0, "17 23 28 "),
        ("SCMP_CMP_GE", 18, 0, "17 "),
        ("SCMP_CMP_GT", 18, 0, "17 18 "),
        // 17 is 10001, 23 is 10111.
        ("SCMP_CMP_MASKED_EQ", 0b101, 0b101, "17 18 28 "),
        ("SCMP_CMP_EQ", 0x1_0000_0012, 0, "17 18 23 28 "),
    ];
    for (op, value, value_two, expected) in cases {
        let entry = json!({"names": ["kill"], "action": "SCMP_ACT_ERRNO",
            "args": [{"index": 1, "value": value, "valueTwo": value_two, "op": op}]});
        let bundle = with_profile(TestBundle::shell(script), all_but(entry));
        assert_eq!(bundle.run_ok(), expected, "{op} {value:#x}");
    }
}

#[test]
fn flags_and_architectures_are_taken() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "Debian's knows fewer flags");
    for flags in [
        json!([]),
        json!(["SECCOMP_FILTER_FLAG_LOG"]),
        json!(["SECCOMP_FILTER_FLAG_TSYNC"]),
        json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]),
        json!([
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
            "SECCOMP_FILTER_FLAG_TSYNC"
        ]),
    ] {
        let mut profile = all_but(json!({"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}));
        profile["flags"] = flags.clone();
        profile["architectures"] = json!([
            "SCMP_ARCH_X86_64",
            "SCMP_ARCH_X86",
            "SCMP_ARCH_X32",
            "SCMP_ARCH_AARCH64",
            "SCMP_ARCH_ARM",
        ]);
        assert_eq!(
            with_profile(TestBundle::new(), profile).run_ok(),
            "",
            "{flags}"
        );
    }
}

/// What a program without a library does: one system call, and its errno as exit status.
#[cfg(target_arch = "x86_64")]
fn caller(bundle: &TestBundle, number: u32, entry: [u8; 2]) {
    let mut code = vec![0xb8];
    code.extend(number.to_le_bytes());
    code.extend(entry);
    // neg eax; mov edi, eax; mov eax, 60; syscall
    code.extend([0xf7, 0xd8, 0x89, 0xc7, 0xb8, 60, 0, 0, 0, 0x0f, 0x05]);
    write_program(bundle, &code);
}

/// Makes `/caller` of machine code.
#[cfg(target_arch = "x86_64")]
fn write_program(bundle: &TestBundle, code: &[u8]) {
    const LOAD_ADDRESS: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    for word in [LOAD_ADDRESS + HEADERS, 64, 0] {
        elf.extend(word.to_le_bytes());
    }
    // No flags; sizes of this header, of a program header; one of those, no sections.
    elf.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    // PT_LOAD, readable and executable.
    elf.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    let size = HEADERS + code.len() as u64;
    for word in [0, LOAD_ADDRESS, LOAD_ADDRESS, size, size, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(code);
    let path = bundle.rootfs().join("caller");
    fs::write(&path, elf).expect("write");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
}

#[cfg(target_arch = "x86_64")]
const SYSCALL: [u8; 2] = [0x0f, 0x05];
#[cfg(target_arch = "x86_64")]
const INT_80: [u8; 2] = [0xcd, 0x80];

/// A thread that calls what it may not ends alone, or with all others: the first one waits for it,
/// and exits with 7.
#[test]
#[cfg(target_arch = "x86_64")]
fn a_thread_is_killed_or_its_whole_process() {
    needs!(is_root(), "needs root");
    #[rustfmt::skip]
    const CODE: &[u8] = &[
        0x6a, 1,                                        // push 1: the word that the kernel clears
        0x49, 0x89, 0xe2,                               // mov r10, rsp
        // clone(CLONE_VM|FS|FILES|SIGHAND|THREAD|CHILD_CLEARTID, rsp - 4096, 0, r10)
        0xbf, 0x00, 0x0f, 0x21, 0x00,                   // mov edi, flags
        0x48, 0x8d, 0xb4, 0x24, 0x00, 0xf0, 0xff, 0xff, // lea rsi, [rsp - 4096]
        0x31, 0xd2,                                     // xor edx, edx
        0xb8, 56, 0, 0, 0, 0x0f, 0x05,                  // mov eax, 56; syscall
        0x85, 0xc0, 0x74, 27,                           // test eax, eax; jz to the thread
        0x41, 0x83, 0x3a, 0, 0x74, 9,                   // cmp dword [r10], 0; je to the end
        0xb8, 24, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf1,      // sched_yield(), and again
        0xb8, 231, 0, 0, 0, 0xbf, 7, 0, 0, 0, 0x0f, 0x05, // exit_group(7)
        0xb8, 102, 0, 0, 0, 0x0f, 0x05,                 // getuid()
        0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05,      // exit(0)
    ];
    for (action, code) in [
        ("SCMP_ACT_ERRNO", 7),
        ("SCMP_ACT_KILL", 7),
        ("SCMP_ACT_KILL_THREAD", 7),
        ("SCMP_ACT_KILL_PROCESS", KILLED),
    ] {
        let bundle = TestBundle::new().args(&["/caller"]);
        write_program(&bundle, CODE);
        let entry = json!({"names": ["getuid"], "action": action});
        let output = with_profile(bundle, all_but(entry)).run();
        assert_eq!(output.code(), code, "{action}: {output}");
    }
}

/// The kernel's records of calls (audit's type 1326) by this process, as `/dev/kmsg` has them.
fn records_of(pid: i32) -> Vec<String> {
    use std::io::Read as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = fs::OpenOptions::new();
    let options = options.read(true).custom_flags(libc::O_NONBLOCK);
    let mut log = options.open("/dev/kmsg").expect("the kernel's log");
    let mut records = Vec::new();
    let mut buffer = [0; 8192];
    // One record for each read, until there is none; EPIPE says that older ones were overwritten.
    loop {
        match log.read(&mut buffer) {
            Ok(length) => records.push(String::from_utf8_lossy(&buffer[..length]).into_owned()),
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Err(_) => break,
        }
    }
    let pid = format!(" pid={pid} ");
    records.retain(|record| record.contains("type=1326") && record.contains(&pid));
    records
}

/// Whether the kernel records such calls, and where it can be read.
fn records_calls() -> bool {
    let logged = fs::read_to_string("/proc/sys/kernel/seccomp/actions_logged");
    logged.is_ok_and(|words| words.contains("log"))
        && Path::new("/proc/self/sessionid").exists()
        && fs::File::open("/dev/kmsg").is_ok()
        && !Path::new("/run/auditd.pid").exists()
}

#[test]
fn calls_are_recorded_where_the_action_or_a_flag_says_so() {
    needs!(is_root(), "needs root");
    needs!(
        records_calls(),
        "the kernel's records of calls cannot be read here"
    );
    let run = |action: &str, flags: Value| {
        let mut profile = all_but(json!({"names": ["mkdir", "mkdirat"], "action": action}));
        profile["flags"] = flags;
        let bundle = TestBundle::new().args(&["/bin/mkdir", "/tmp/made"]);
        let bundle = with_profile(bundle, profile);
        let container = bundle.created();
        let pid = container.pid();
        container.start().success();
        container.wait_for("stopped");
        pid
    };
    // Without a daemon that takes them, the kernel drops records when many come at once: five
    // seconds later there is room again.
    let is_recorded = |action: &str, flags: &Value, code: &str| {
        (0..6).any(|_| {
            let pid = run(action, flags.clone());
            let found = || records_of(pid).iter().any(|record| record.contains(code));
            wait_until(Duration::from_secs(3), found)
        })
    };
    let silent = run("SCMP_ACT_ERRNO", json!([]));
    let flags = json!(["SECCOMP_FILTER_FLAG_LOG"]);
    assert!(is_recorded("SCMP_ACT_ERRNO", &flags, "code=0x50000"));
    assert!(is_recorded("SCMP_ACT_LOG", &json!([]), "code=0x7ffc0000"));
    assert_eq!(records_of(silent), Vec::<String>::new());
}

/// Of what the runtime calls, only execve is under the filter when there are no new privileges,
/// and capset otherwise, so that a profile may be as narrow as this.
#[test]
#[cfg(target_arch = "x86_64")]
fn calls_of_other_architectures_and_newer_ones_are_told_apart() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let (with_x86, alone) = (json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]), json!([]));
    let cases = [
        // getuid is allowed, getgid is not, getcpu is newer than any in the profile.
        (&alone, 102, SYSCALL, 0),
        (&alone, 104, SYSCALL, 1),
        (&alone, 309, SYSCALL, 38),
        // x32's getuid.
        (&alone, 0x4000_0066, SYSCALL, KILLED),
        // The same by i386's entry.
        (&alone, 24, INT_80, KILLED),
        (&with_x86, 24, INT_80, 0),
        (&with_x86, 47, INT_80, 1),
        (&with_x86, 318, INT_80, 38),
    ];
    let both = [true, false].map(|no_new| cases.map(|case| (no_new, case)));
    for (no_new, (architectures, number, entry, expected)) in both.into_iter().flatten() {
        let bundle = TestBundle::new()
            .args(&["/caller"])
            .set("/process/noNewPrivileges", json!(no_new));
        caller(&bundle, number, entry);
        let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": architectures,
            "syscalls": [{"names": ["capset", "execve", "exit", "exit_group", "getuid"],
                "action": "SCMP_ACT_ALLOW"}]});
        let output = with_profile(bundle, profile).run();
        // 139: this kernel has no i386 entry.
        if entry == INT_80 && output.code() == 139 {
            continue;
        }
        assert_eq!(
            output.code(),
            expected,
            "{no_new} {architectures} {number}: {output}"
        );
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_is_wrong_in_a_profile_is_named() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc, "names no field");
    peer_differs!(Crun, "names no field");
    let arg = |arg: Value| json!({"names": ["read"], "action": "SCMP_ACT_LOG", "args": [arg]});
    let allow = "SCMP_ACT_ALLOW";
    let cases = [
        (
            json!({"defaultAction": "SCMP_ACT_X"}),
            "linux.seccomp.defaultAction",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_NOTIFY"}),
            "linux.seccomp.defaultAction",
        ),
        (
            json!({"defaultAction": allow, "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_PDP11"]}),
            "linux.seccomp.architectures[1]",
        ),
        (
            json!({"defaultAction": allow, "flags": ["SECCOMP_FILTER_FLAG_X"]}),
            "linux.seccomp.flags[0]",
        ),
        (
            all_but(json!({"names": ["read"], "action": "SCMP_ACT_X"})),
            "linux.seccomp.syscalls[0].action",
        ),
        (
            all_but(json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4096})),
            "linux.seccomp.syscalls[0].errnoRet",
        ),
        (
            all_but(json!({"names": [], "action": "SCMP_ACT_LOG"})),
            "linux.seccomp.syscalls[0].names",
        ),
        (
            all_but(arg(json!({"index": 0, "value": 0, "op": "SCMP_CMP_X"}))),
            "linux.seccomp.syscalls[0].args[0].op",
        ),
        (
            all_but(arg(json!({"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}))),
            "linux.seccomp.syscalls[0].args[0].index",
        ),
        (
            all_but(arg(json!({"index": 0, "value": -1, "op": "SCMP_CMP_EQ"}))),
            "linux.seccomp.syscalls[0].args[0].value",
        ),
        (
            json!({"defaultAction": allow, "syscalls": [
                arg(json!({"index": 0, "value": 9, "op": "SCMP_CMP_EQ"})),
                {"names": ["read"], "action": "SCMP_ACT_TRAP",
                    "args": [{"index": 0, "value": 9, "op": "SCMP_CMP_EQ"}]}]}),
            "linux.seccomp.syscalls[1].action",
        ),
        (
            json!({"defaultAction": allow, "syscalls": (0..2000).map(|value| json!({
                "names": ["read"], "action": "SCMP_ACT_LOG",
                "args": [{"index": 1, "value": value, "op": "SCMP_CMP_GT"}]})).collect::<Vec<_>>()}),
            "linux.seccomp.syscalls: make a filter of",
        ),
        (
            json!({"defaultAction": allow,
                "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}),
            "linux.seccomp.listenerPath: is missing",
        ),
    ];
    for (profile, field) in cases {
        let bundle = with_profile(TestBundle::new(), profile);
        let output = bundle.run();
        let line = output.one_line_failure();
        assert!(
            line.contains(&format!("config.json: {field}")),
            "{field}: {output}"
        );
        bundle.assert_nothing_left();
    }
}

/// The message of the action reaches the tracer.
#[test]
fn a_tracer_is_told_of_a_call() {
    use nix::sys::ptrace::{self, Options};
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    needs!(is_root(), "needs root");
    let entry = json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_TRACE", "errnoRet": 77});
    let bundle = TestBundle::new().args(&["/bin/mkdir", "/tmp/a"]);
    let bundle = with_profile(bundle, all_but(entry));
    let container = bundle.created();
    let pid = Pid::from_raw(container.pid());
    ptrace::seize(pid, Options::PTRACE_O_TRACESECCOMP).expect("seize");
    container.start().success();
    let told = loop {
        match waitpid(pid, Some(WaitPidFlag::__WALL)).expect("waitpid") {
            WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_SECCOMP) => {
                break ptrace::getevent(pid).expect("getevent");
            }
            WaitStatus::Exited(_, code) => panic!("ended with {code}, and nothing was told"),
            _ => ptrace::cont(pid, None).expect("cont"),
        }
    };
    ptrace::detach(pid, None).expect("detach");
    assert_eq!(told, 77);
    container.wait_for("stopped");
}

#[test]
fn features_tells_what_is_served() {
    gocker_only!();
    let features = TestBundle::new().call(&["features"]);
    let features: Value = serde_json::from_str(features.success()).expect("JSON");
    let seccomp = &features["linux"]["seccomp"];
    assert_eq!(seccomp["enabled"], true);
    for (list, word) in [
        ("actions", "SCMP_ACT_ERRNO"),
        ("actions", "SCMP_ACT_NOTIFY"),
        ("operators", "SCMP_CMP_MASKED_EQ"),
        ("archs", "SCMP_ARCH_X86_64"),
        ("knownFlags", "SECCOMP_FILTER_FLAG_LOG"),
        ("supportedFlags", "SECCOMP_FILTER_FLAG_LOG"),
        ("supportedFlags", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"),
    ] {
        let words = seccomp[list].as_array().expect(list);
        assert!(words.contains(&json!(word)), "{list}: {seccomp}");
    }
}
