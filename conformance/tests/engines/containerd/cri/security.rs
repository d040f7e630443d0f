//! The security context of a pod's containers.

use std::fs;

use super::super::needs_containerd;
use super::api::{Capability, Int64Value, SecurityContext, SecurityProfile, profile};
use super::{Cri, Pod};

/// Runs a script, which must succeed, in a security context.
#[track_caller]
fn seen(pod: &Pod, context: SecurityContext, script: &str) -> String {
    let (code, text) = pod.run_in(context, script);
    assert_eq!(code, 0, "{text}");
    text
}

fn value(value: i64) -> Option<Int64Value> {
    Some(Int64Value { value })
}

#[test]
fn users_and_groups_are_those_of_the_pod() {
    needs_containerd!();
    let cri = Cri::start();
    let pod = cri.pod();
    let script = "id -u; id -g; id -G; echo $HOME";
    let context = SecurityContext {
        run_as_user: value(33),
        run_as_group: value(999),
        supplemental_groups: vec![1234, 77],
        ..SecurityContext::default()
    };
    let text = seen(&pod, context, script);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..2], ["33", "999"]);
    for group in ["999", "1234", "77"] {
        assert!(lines[2].split(' ').any(|own| own == group), "{text}");
    }
    let context = SecurityContext {
        run_as_username: "web".to_owned(),
        ..SecurityContext::default()
    };
    let text = seen(&pod, context, script);
    assert!(text.starts_with("33\n44\n"), "{text}");
    pod.remove();
}

#[test]
fn capabilities_are_added_and_dropped() {
    needs_containerd!();
    let cri = Cri::start();
    let pod = cri.pod();
    let sets = "grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status | cut -f2";
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let capabilities = |add: &[&str], drop: &[&str]| {
        let capabilities = Some(Capability {
            add_capabilities: names(add),
            drop_capabilities: names(drop),
        });
        SecurityContext {
            capabilities,
            ..SecurityContext::default()
        }
    };
    for (context, set) in [
        (capabilities(&[], &[]), 0xa804_25fb_u64),
        (
            capabilities(&["SYS_PTRACE", "NET_ADMIN"], &["CHOWN"]),
            0xa80c_35fa,
        ),
        (capabilities(&["NET_BIND_SERVICE"], &["ALL"]), 0x400),
    ] {
        let text = seen(&pod, context, sets);
        let found: Vec<u64> = text
            .lines()
            .map(|line| u64::from_str_radix(line, 16).expect("a set"))
            .collect();
        // Permitted, effective and bounding; nothing is inherited beyond them.
        assert_eq!(found[1..4], [set; 3], "{text}");
        assert_eq!(found[4], 0, "{text}");
        assert!([0, set].contains(&found[0]), "{text}");
    }
    pod.remove();
}

#[test]
fn a_container_is_read_only_and_gains_nothing() {
    needs_containerd!();
    let cri = Cri::start();
    let pod = cri.pod();
    let script = "touch /new 2>/dev/null || echo read-only; touch /dev/shm/x && echo shm; \
                  grep NoNewPrivs /proc/self/status; \
                  cat /etc/passwd >/dev/null && wc -c </etc/passwd; ls /bin/sh";
    let context = SecurityContext {
        readonly_rootfs: true,
        no_new_privs: true,
        masked_paths: vec!["/etc/passwd".to_owned(), "/var".to_owned()],
        readonly_paths: vec!["/proc/sys".to_owned()],
        ..SecurityContext::default()
    };
    assert_eq!(
        seen(&pod, context, script),
        "read-only\nshm\nNoNewPrivs:\t1\n0\n/bin/sh\n"
    );
    let script = "touch /new && echo writable; grep NoNewPrivs /proc/self/status; \
                  touch /proc/sys/kernel/hostname 2>/dev/null || echo kernel is read-only; \
                  wc -c </proc/version";
    let context = SecurityContext {
        masked_paths: vec!["/proc/version".to_owned()],
        readonly_paths: vec!["/proc/sys".to_owned()],
        ..SecurityContext::default()
    };
    assert_eq!(
        seen(&pod, context, script),
        "writable\nNoNewPrivs:\t0\nkernel is read-only\n0\n"
    );
    pod.remove();
}

#[test]
fn a_seccomp_profile_is_the_default_a_file_or_none() {
    needs_containerd!();
    let cri = Cri::start();
    let pod = cri.pod();
    let file = cri.containerd.directory.path().join("profile.json");
    let local = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}"#;
    fs::write(&file, local).expect("write a profile");
    let script = "grep '^Seccomp:' /proc/self/status; mkdir /tmp/new 2>&1; \
                  unshare -U true 2>&1 | grep -c 'not permitted'; true";
    let context = |profile_type, localhost_ref: &str| SecurityContext {
        seccomp: Some(SecurityProfile {
            profile_type,
            localhost_ref: localhost_ref.to_owned(),
        }),
        ..SecurityContext::default()
    };
    let path = format!("{}", file.display());
    for (context, expected) in [
        (context(profile::RUNTIME_DEFAULT, ""), "Seccomp:\t2\n1\n"),
        (context(profile::UNCONFINED, ""), "Seccomp:\t0\n0\n"),
        (
            context(profile::LOCALHOST, &path),
            "Seccomp:\t2\nmkdir: can't create directory '/tmp/new': No space left on device\n0\n",
        ),
    ] {
        assert_eq!(seen(&pod, context, script), expected);
    }
    pod.remove();
}

#[test]
fn a_privileged_container_has_what_its_engine_has() {
    needs_containerd!();
    let cri = Cri::start();
    let mut config = cri.sandbox(super::NamespaceOption {
        network: super::namespace::NODE,
        ..super::NamespaceOption::default()
    });
    let linux = config.linux.as_mut().expect("linux");
    let context = linux.security_context.as_mut().expect("a context");
    context.privileged = true;
    let pod = cri.run_pod(config).expect("a privileged pod");
    let context = SecurityContext {
        privileged: true,
        ..SecurityContext::default()
    };
    let script = "grep CapEff /proc/self/status; test -e /dev/kmsg && echo devices; \
                  touch /proc/sys/kernel/hostname && echo writable; grep Seccomp: /proc/self/status";
    let own = conformance::host::effective_capabilities();
    assert_eq!(
        seen(&pod, context, script),
        format!("CapEff:\t{own:016x}\ndevices\nwritable\nSeccomp:\t0\n")
    );
    pod.remove();
}
