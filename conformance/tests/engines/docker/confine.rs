//! What a container may do: users, capabilities, seccomp, devices, kernel settings.

use std::fs;

use conformance::needs;

use super::{Docker, WANTED, is_here};

#[test]
fn docker_sets_users_and_capabilities() {
    needs!(is_here(), "{WANTED}");
    let docker = Docker::start();
    for (options, script, expected) in [
        (
            ["--user=1000:1001", "--group-add=55"].as_slice(),
            "id -u; id -g; id -G",
            "1000\n1001\n1001 55\n",
        ),
        (
            &["--user=web"],
            "id -u; id -G; echo $HOME",
            "33\n44 55 66\n/var/www\n",
        ),
        (
            &["--env=A=b", "--hostname=named"],
            "echo $A $HOSTNAME; hostname",
            "b named\nnamed\n",
        ),
    ] {
        let told = docker.shell(options, script);
        let sorted = |text: &str| {
            let mut words: Vec<String> = text.split_whitespace().map(String::from).collect();
            words.sort();
            words
        };
        assert_eq!(sorted(&told), sorted(expected), "{options:?}: {told}");
    }
    let capabilities = "grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status | cut -f2 | uniq";
    for (options, expected) in [
        (["--cap-drop=ALL"].as_slice(), "0000000000000000\n"),
        (&[], "00000000a80425fb\n"),
        (
            &["--cap-drop=ALL", "--cap-add=NET_RAW", "--cap-add=chown"],
            "0000000000002001\n",
        ),
        (&["--cap-add=SYS_ADMIN"], "00000000a82425fb\n"),
    ] {
        assert_eq!(docker.shell(options, capabilities), expected, "{options:?}");
    }
    docker.end();
}

#[test]
fn docker_filters_system_calls() {
    needs!(is_here(), "{WANTED}");
    let docker = Docker::start();
    let status = "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status | cut -f2";
    for (options, expected) in [
        ([].as_slice(), "0\n2\n"),
        (&["--security-opt=no-new-privileges"], "1\n2\n"),
        (&["--security-opt=seccomp=unconfined"], "0\n0\n"),
    ] {
        assert_eq!(docker.shell(options, status), expected, "{options:?}");
    }
    // The default profile has this one only for those with CAP_SYS_ADMIN.
    let output = docker.run(&[], &["/bin/unshare", "-m", "/bin/true"]);
    assert!(
        output.failure().contains("Operation not permitted"),
        "{output}"
    );
    docker
        .run(
            &["--cap-add=SYS_ADMIN"],
            &["/bin/unshare", "-m", "/bin/true"],
        )
        .success();

    let profile = docker.at("profile.json");
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}"#;
    fs::write(&profile, text).expect("write a profile");
    let option = format!("--security-opt=seccomp={}", profile.display());
    let output = docker.run(&[&option], &["/bin/mkdir", "/tmp/directory"]);
    assert!(output.failure().contains("not supported"), "{output}");
    docker.end();
}

#[test]
fn docker_gives_and_withholds_devices_and_kernel_settings() {
    needs!(is_here(), "{WANTED}");
    let docker = Docker::start();
    // A device under another name, read-only; one without a node; and one that is not allowed.
    let options = [
        "--device=/dev/zero:/dev/given:r",
        "--device-cgroup-rule=c 1:9 r",
    ];
    let script = "head -c 2 /dev/given | od -An -tx1; stat -c %t:%T /dev/given; \
         mknod /tmp/kmsg c 1 11 && cat /tmp/kmsg";
    let output = docker.run(&options, &["/bin/sh", "-c", script]);
    assert_eq!(output.stdout, " 00 00\n1:5\n", "{output}");
    assert!(
        output.failure().contains("Operation not permitted"),
        "{output}"
    );

    let options = [
        "--sysctl=net.ipv4.ip_forward=1",
        "--sysctl=kernel.shm_rmid_forced=1",
    ];
    let script = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced";
    assert_eq!(docker.shell(&options, script), "1\n1\n");

    // Masked and read-only paths, and the option that opens them.
    let script = "cat /proc/kcore | wc -c; echo x >/proc/sys/kernel/hostname && echo open; \
         grep -c ' /proc/' /proc/self/mountinfo";
    let masked = docker.run(&[], &["/bin/sh", "-c", script]);
    assert!(
        masked.stdout.starts_with("0\n") && !masked.stdout.contains("open"),
        "{masked}"
    );
    let script = "grep -c ' /proc/' /proc/self/mountinfo";
    let output = docker.run(
        &["--security-opt=systempaths=unconfined"],
        &["/bin/sh", "-c", script],
    );
    assert_eq!(output.stdout, "0\n", "{output}");
    docker.end();
}

/// Everything at once: as the machine's root has it.
#[test]
fn docker_runs_a_privileged_container() {
    needs!(is_here(), "{WANTED}");
    needs!(
        conformance::host::has_sys_resource(),
        "needs CAP_SYS_RESOURCE"
    );
    let docker = Docker::start();
    let script = "grep -c Seccomp:.*0 /proc/self/status; mkdir /tmp/m; \
         mount -t tmpfs none /tmp/m && echo mounted; test -b /dev/loop0 || test -c /dev/kmsg && echo device";
    assert_eq!(
        docker.shell(&["--privileged"], script),
        "1\nmounted\ndevice\n"
    );
    docker.background("plain", &[], "sleep 1000");
    let script = "unshare -m true && echo may";
    let told = docker.ok(&["exec", "--privileged", "plain", "/bin/sh", "-c", script]);
    assert_eq!(told, "may");
    docker.ok(&["rm", "--force", "plain"]);
    docker.end();
}
