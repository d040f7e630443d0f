//! What a process of `exec` is given beyond its command: CPUs, labels, a name's numbers, the
//! container's keyring.

use std::fs;
use std::path::Path;
use std::process::Command;

use conformance::host::is_root;
use conformance::{
    Container, Kind, Output, TestBundle, gocker_only, needs, peer_differs, run_command, runtime,
};
use serde_json::{Value, json};

use super::exec::{exec, exec_shell};

const CPUS: &str = "grep Cpus_allowed_list /proc/self/status";

/// The CPUs that this test may use; one of them is not enough to tell anything.
fn own_cpus() -> String {
    let status = fs::read_to_string("/proc/self/status").expect("read");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.expect("a list").trim().to_owned()
}

fn cpus_of(output: &Output) -> String {
    let line = output.success().trim_end();
    line.rsplit('\t').next().unwrap_or_default().to_owned()
}

/// `exec --process FILE ID`, with these CPUs.
fn exec_with_cpus(bundle: &TestBundle, container: &Container<'_>, cpus: &Value) -> Output {
    let file = bundle.scratch().join("process.json");
    let process = json!({"args": ["/bin/sh", "-c", CPUS], "cwd": "/", "user": {},
        "env": ["PATH=/bin"], "execCPUAffinity": cpus});
    fs::write(&file, process.to_string()).expect("write");
    exec(
        container,
        &["--process", file.to_str().expect("a path")],
        &[],
    )
}

#[test]
fn exec_runs_on_the_cpus_of_its_process_file() {
    needs!(is_root(), "needs root");
    needs!(own_cpus().starts_with("0-"), "needs CPUs 0 and 1");
    peer_differs!(Runc | Crun, "newer ones only");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    for (affinity, expected) in [
        (json!({"initial": "0"}), "0"),
        (json!({"final": "1"}), "1"),
        (json!({"initial": "0", "final": "1"}), "1"),
        (json!({"initial": "", "final": "0-1"}), "0-1"),
    ] {
        let output = exec_with_cpus(&bundle, &container, &affinity);
        assert_eq!(cpus_of(&output), expected, "{affinity}");
    }
}

/// The container's own process is not meant; each `exec` without CPUs of its own is.
#[test]
fn the_configurations_cpus_are_those_of_exec_and_not_of_init() {
    needs!(is_root(), "needs root");
    needs!(own_cpus().starts_with("0-"), "needs CPUs 0 and 1");
    peer_differs!(Runc | Crun, "newer ones only");
    let bundle = TestBundle::sleeper().set("/process/execCPUAffinity", json!({"final": "1"}));
    let container = bundle.running();
    let status = container.proc_file("status");
    assert!(
        status.contains(&format!("Cpus_allowed_list:\t{}\n", own_cpus())),
        "{status}"
    );
    let by_flags = exec_shell(&container, &[], CPUS);
    assert_eq!(cpus_of(&by_flags), "1");
    let by_file = exec_with_cpus(&bundle, &container, &Value::Null);
    assert_eq!(cpus_of(&by_file), "1");
    let other = exec_with_cpus(&bundle, &container, &json!({"final": "0"}));
    assert_eq!(cpus_of(&other), "0");
}

#[test]
fn cpus_that_are_none_are_an_error_that_names_the_field() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    for (affinity, field) in [
        (json!({"initial": "x"}), "process.execCPUAffinity.initial"),
        (json!({"final": "3-1"}), "process.execCPUAffinity.final"),
        (json!({"final": "4000"}), "process.execCPUAffinity.final"),
        // In the mask, and not on this machine.
        (
            json!({"initial": "1000"}),
            "process.execCPUAffinity.initial",
        ),
        (json!({"final": "1000"}), "process.execCPUAffinity.final"),
    ] {
        let output = exec_with_cpus(&bundle, &container, &affinity);
        assert_eq!(output.code(), 255, "{output}");
        assert!(output.one_line_failure().contains(field), "{output}");
    }
    let bundle = TestBundle::new().set("/process/execCPUAffinity", json!({"final": "1-"}));
    let output = bundle.container().create(&[]);
    assert!(
        output
            .one_line_failure()
            .contains("process.execCPUAffinity.final"),
        "{output}"
    );
    bundle.assert_nothing_left();
}

/// A service with `CPUAffinity=` that starts a container does not mean the container.
#[test]
fn the_callers_own_cpus_are_not_the_containers() {
    needs!(is_root(), "needs root");
    needs!(own_cpus().starts_with("0-"), "needs CPUs 0 and 1");
    peer_differs!(Runc | Crun, "newer ones only");
    let bundle = TestBundle::shell(&format!("{CPUS}; exec sleep 1000"));
    let container = bundle.container();
    bundle.write_config();
    let on_one = |args: &[&str]| {
        let mut command = Command::new("taskset");
        command.args(["-c", "1"]).arg(&runtime().program);
        command.arg("--root").arg(bundle.state_root()).args(args);
        run_command(&mut command)
    };
    let path = bundle.path();
    let path = path.to_str().expect("a path");
    on_one(&["run", "-d", "--bundle", path, bundle.id()]).success();
    container.wait_for("running");
    let status = container.proc_file("status");
    assert!(
        status.contains(&format!("Cpus_allowed_list:\t{}\n", own_cpus())),
        "{status}"
    );
    let output = on_one(&["exec", bundle.id(), "sh", "-c", CPUS]);
    assert_eq!(cpus_of(&output), own_cpus());
}

#[test]
fn a_user_is_found_in_the_containers_own_files() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = TestBundle::sleeper().set("/process/user", json!({"uid": 0, "gid": 3}));
    let etc = bundle.rootfs().join("etc");
    fs::write(etc.join("passwd"), "app:x:1000:1001::/srv/app:/bin/sh\n").expect("write");
    fs::write(etc.join("group"), "staff:x:50:\n").expect("write");
    let container = bundle.running();
    for (user, expected) in [
        ("app", "1000 1001 /srv/app\n"),
        ("app:staff", "1000 50 /srv/app\n"),
        ("app:7", "1000 7 /srv/app\n"),
        ("1000", "1000 3 /srv/app\n"),
        ("5:staff", "5 50 /\n"),
    ] {
        let output = exec_shell(
            &container,
            &["--user", user],
            "echo $(id -u) $(id -g) $HOME",
        );
        assert_eq!(output.success(), expected, "{user}");
    }
    for unknown in ["nobody", "app:nobody", "5x"] {
        let output = exec(&container, &["--user", unknown], &["true"]);
        assert!(output.one_line_failure().contains("--user"), "{output}");
    }
}

/// A symlink in the container leads nowhere else.
#[test]
fn a_passwd_that_points_out_is_read_inside() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bundle = TestBundle::sleeper();
    let passwd = bundle.rootfs().join("etc/passwd");
    if passwd.exists() {
        fs::remove_file(&passwd).expect("remove");
    }
    std::os::unix::fs::symlink("../../../../../../etc/hostpasswd", &passwd).expect("a symlink");
    let inside = bundle.rootfs().join("etc/hostpasswd");
    fs::write(inside, "app:x:4711:1::/:\n").expect("write");
    let container = bundle.running();
    let output = exec(&container, &["--user", "app"], &["id", "-u"]);
    assert_eq!(output.success(), "4711\n");
    exec(&container, &["--user", "root"], &["id", "-u"]).one_line_failure();
}

fn has_apparmor() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|text| text.starts_with('Y'))
}

#[test]
fn an_apparmor_profile_is_taken_at_exec() {
    needs!(is_root(), "needs root");
    needs!(has_apparmor(), "AppArmor is not enabled here");
    peer_differs!(Crun | Runc, "about what gocker-runc says");
    let script = "cat /proc/self/attr/apparmor/current /proc/self/attr/current";
    let bundle = TestBundle::shell(script).set("/process/apparmorProfile", json!("unconfined"));
    assert!(bundle.run_ok().starts_with("unconfined\n"));
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    let output = exec_shell(&container, &["--apparmor", "unconfined"], script);
    assert!(output.success().starts_with("unconfined\n"), "{output}");
    let output = exec(&container, &["--apparmor", "no-such-profile"], &["true"]);
    assert!(
        output
            .one_line_failure()
            .contains("process.apparmorProfile"),
        "{output}"
    );
    let bundle = TestBundle::new().set("/process/apparmorProfile", json!("no-such-profile"));
    let output = bundle.container().create(&[]);
    assert!(
        output
            .one_line_failure()
            .contains("process.apparmorProfile"),
        "{output}"
    );
    bundle.assert_nothing_left();
}

/// A profile in the kernel, which goes with the test.
struct LoadedProfile(String);

impl LoadedProfile {
    /// Everything is allowed but `/forbidden`.
    fn load(bundle: &TestBundle) -> Self {
        let name = format!("conformance-{}", bundle.id());
        let file = bundle.scratch().join("profile");
        let text = format!(
            "profile {name} flags=(attach_disconnected) {{\n capability, network, mount, remount, \
             umount, signal, ptrace, unix, pivot_root,\n file,\n deny /forbidden rw,\n}}\n"
        );
        fs::write(&file, text).expect("write");
        let mut parser = Command::new("apparmor_parser");
        run_command(parser.args(["--replace", "--skip-cache"]).arg(&file)).success();
        Self(name)
    }
}

impl Drop for LoadedProfile {
    fn drop(&mut self) {
        fs::write("/sys/kernel/security/apparmor/.remove", &self.0).expect("is removed");
    }
}

#[test]
fn an_apparmor_profile_binds_init_and_exec() {
    needs!(is_root(), "needs root");
    needs!(has_apparmor(), "AppArmor is not enabled here");
    needs!(
        Path::new("/usr/sbin/apparmor_parser").exists(),
        "needs the Debian package apparmor"
    );
    let script = "echo open > /other && cat /proc/self/attr/current /other; \
                  cat /forbidden 2>/dev/null || echo refused";
    for no_new_privileges in [true, false] {
        let bundle = TestBundle::shell(&format!("{script}; exec sleep 1000"));
        let profile = LoadedProfile::load(&bundle);
        let bundle = bundle
            .set("/process/apparmorProfile", json!(profile.0))
            .set("/process/noNewPrivileges", json!(no_new_privileges));
        fs::write(bundle.rootfs().join("forbidden"), "seen\n").expect("write");
        let expected = format!("{} (enforce)\nopen\nrefused\n", profile.0);
        let container = bundle.running();
        assert_eq!(exec_shell(&container, &[], script).success(), expected);
        // Init's own label, too.
        let label = container.proc_file("attr/current");
        assert_eq!(label, format!("{} (enforce)\n", profile.0));
        let unconfined = exec_shell(&container, &["--apparmor", "unconfined"], "cat /forbidden");
        assert_eq!(unconfined.success(), "seen\n");
        container.delete(&["--force"]).success();
    }
}

#[test]
fn a_label_of_a_module_that_does_not_run_is_an_error_that_names_the_field() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "their words name no field");
    let mut fields = Vec::new();
    if !has_apparmor() {
        fields.push(("apparmorProfile", "--apparmor"));
    }
    if !Path::new("/sys/fs/selinux/enforce").exists() {
        fields.push(("selinuxLabel", "--process-label"));
    }
    for (field, flag) in fields {
        let bundle = TestBundle::new().set(&format!("/process/{field}"), json!("x"));
        let output = bundle.container().create(&[]);
        let name = format!("process.{field}: ");
        assert!(output.one_line_failure().contains(&name), "{output}");
        bundle.assert_nothing_left();
        let bundle = TestBundle::sleeper();
        let container = bundle.running();
        let output = exec(&container, &[flag, "x"], &["true"]);
        assert_eq!(output.code(), 255, "{output}");
        assert!(output.one_line_failure().contains(&name), "{output}");
    }
}

/// The keyrings called after the container, as a process sees them that may view them.
fn keyrings(bundle: &TestBundle, container: &Container<'_>) -> Vec<String> {
    let script = format!("grep 'keyring *_ses.{}:' /proc/keys; true", bundle.id());
    let output = exec_shell(container, &[], &script);
    let lines = output.success().lines();
    lines
        .map(|line| {
            line.split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned()
        })
        .collect()
}

#[test]
fn exec_shares_the_session_keyring_of_init() {
    needs!(is_root(), "needs root");
    needs!(
        Path::new("/proc/keys").exists(),
        "the kernel has no keyrings"
    );
    peer_differs!(Crun, "its exec has none of its own");
    // In a user namespace, runc's does not find it.
    let all: &[bool] = if runtime().kind == Kind::Runc {
        &[false]
    } else {
        &[false, true]
    };
    for in_user_namespace in all.iter().copied() {
        let mut bundle = TestBundle::sleeper().set("/linux/maskedPaths", json!([]));
        if in_user_namespace {
            bundle = bundle.user_namespace();
        }
        let container = bundle.running();
        let first = keyrings(&bundle, &container);
        assert_eq!(first.len(), 1, "{in_user_namespace}: {first:?}");
        assert_eq!(keyrings(&bundle, &container), first);
    }
}

#[test]
fn no_new_keyring_leaves_the_callers() {
    needs!(is_root(), "needs root");
    needs!(
        Path::new("/proc/keys").exists(),
        "the kernel has no keyrings"
    );
    let bundle = TestBundle::sleeper().set("/linux/maskedPaths", json!([]));
    let container = bundle.container();
    container.create(&["--no-new-keyring"]).success();
    container.start().success();
    assert_eq!(keyrings(&bundle, &container), Vec::<String>::new());
}
