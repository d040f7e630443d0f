//! `podman exec`: a further process, its user, its rights and its exit status.

use std::time::Duration;

use conformance::host::is_root;
use conformance::{needs, wait_until};

use super::{Podman, SLEEPER, is_here};

#[test]
fn podman_executes_further_processes_as_its_options_say() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package podman");
    let podman = Podman::new();
    podman.start("c", &["--env", "FROM=run"], SLEEPER);
    assert_eq!(podman.ok(&["exec", "c", "echo", "plain"]), "plain");
    let script = "id; pwd; echo $A $FROM; exit 7";
    let options = ["exec", "--user", "web", "--workdir", "/tmp", "--env", "A=b"];
    let output = podman.call(&[options.as_slice(), &["c", "sh", "-c", script]].concat());
    assert_eq!(output.code(), 7, "{output}");
    let expected = "uid=33(web) gid=44(web) groups=55(log),66(audio)\n/tmp\nb run\n";
    assert_eq!(output.stdout, expected, "{output}");
    let by_number = podman.ok(&["exec", "--user", "1234:5678", "c", "id"]);
    assert_eq!(by_number, "uid=1234 gid=5678");

    let capabilities = |options: &[&str]| {
        let command = ["c", "grep", "-E", "Cap(Eff|Bnd)", "/proc/self/status"];
        podman.ok(&[&["exec"], options, &command].concat())
    };
    let own = capabilities(&[]);
    assert_eq!(own, "CapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb");
    let user = capabilities(&["--user", "web"]);
    assert_eq!(user, "CapEff:\t0000000000000000\nCapBnd:\t00000000a80425fb");
    // As much as this machine may give, which is more than a container has.
    let privileged = capabilities(&["--privileged"]);
    assert!(privileged.starts_with("CapEff:\t000001ff"), "{privileged}");

    podman.ok(&["exec", "--detach", "c", "sh", "-c", "echo x > /tmp/made"]);
    let made = || {
        podman
            .call(&["exec", "c", "test", "-e", "/tmp/made"])
            .code()
            == 0
    };
    assert!(wait_until(Duration::from_secs(10), made));
    podman.ok(&["rm", "--force", "--time", "0", "c"]);
    podman.assert_nothing_left();
}

/// Podman makes these statuses of the runtime's words, and of the missing pid
/// file.
#[test]
fn podman_knows_why_a_further_process_did_not_start() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian package podman");
    let podman = Podman::new();
    podman.start("c", &[], SLEEPER);
    for (options, program, code, words) in [
        (["--env", "A=b"], "nosuchprogram", 127, "not found"),
        (["--env", "A=b"], "/no/such/program", 127, "not found"),
        (["--env", "A=b"], "/etc", 126, "permission denied"),
        (["--env", "A=b"], "/etc/passwd", 126, "permission denied"),
        (["--workdir", "/no/such"], "true", 127, "not found"),
        (["--user", "nobody-like-it"], "true", 255, "nobody-like-it"),
    ] {
        let output = podman.call(&[&["exec"], options.as_slice(), &["c", program]].concat());
        assert_eq!(output.code(), code, "{output}");
        assert!(output.stderr.contains(words), "{output}");
    }
    let output = podman.call(&["exec", "--detach", "c", "nosuchprogram"]);
    assert_eq!(output.code(), 125, "{output}");
    let output = podman.call(&["exec", "c", "sh", "-c", "kill -9 $$"]);
    assert_eq!(output.code(), 137, "{output}");
    podman.ok(&["stop", "--time", "5", "c"]);
    let output = podman.call(&["exec", "c", "true"]);
    assert_eq!(output.code(), 255, "{output}");
    assert!(output.stderr.contains("running containers"), "{output}");
    podman.ok(&["rm", "c"]);
    podman.assert_nothing_left();
}
