//! The options of `ctr run` that change what the runtime is asked for.

use std::fs;

use conformance::host::enter_private_mounts;
use conformance::test_bundle::unique_id;
use conformance::{TestBundle, leftovers, run_command};
use nix::mount::{MsFlags, mount};

use super::super::serves_seccomp;
use super::{Containerd, needs_containerd};

#[test]
fn ctr_writes_the_pid_and_takes_a_directory_for_the_root() {
    needs_containerd!();
    let containerd = Containerd::start();
    let file = containerd.directory.path().join("pid");
    let options = ["--pid-file", file.to_str().expect("a path")];
    let id = containerd.detach(&options, &["/bin/sleep", "1000"]);
    let pid = fs::read_to_string(&file).expect("read the pid file");
    let task = containerd.status(&id).expect("a task").0;
    assert_eq!(pid, task.to_string());
    containerd.kill_and_remove(&id);

    let bundle = TestBundle::new();
    fs::write(bundle.rootfs().join("mark"), "of the directory\n").expect("write");
    let id = unique_id();
    let root = bundle.rootfs();
    let rest = [root.to_str().expect("a path"), &id, "/bin/cat", "/mark"];
    let output = run_command(&mut containerd.run_anything(&["--rm", "--rootfs"], &rest));
    assert_eq!(output.success(), "of the directory\n");
    containerd.assert_gone(&id);
}

#[test]
fn ctr_confines_a_container_as_it_is_told() {
    needs_containerd!();
    let containerd = Containerd::start();
    let script = "grep -E '^(NoNewPrivs|CapBnd|CapEff|CapAmb):' /proc/self/status; pwd; \
                  echo $COLOUR; touch /new 2>/dev/null || echo read-only";
    let options = [
        "--read-only",
        "--allow-new-privs",
        "--cwd",
        "/bin",
        "--env",
        "COLOUR=red",
        "--cap-drop",
        "CAP_CHOWN",
        "--cap-add",
        "CAP_SYS_PTRACE",
    ];
    let output = containerd.run(&options, &["/bin/sh", "-c", script]);
    assert_eq!(
        output.success(),
        "CapEff:\t00000000a80c25fa\nCapBnd:\t00000000a80c25fa\nCapAmb:\t0000000000000000\n\
         NoNewPrivs:\t0\n/bin\nred\nread-only\n"
    );
    let script = "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status; \
                  unshare -U true 2>/dev/null || echo refused";
    if serves_seccomp() {
        let output = containerd.run(&["--seccomp"], &["/bin/sh", "-c", script]);
        assert_eq!(output.success(), "NoNewPrivs:\t1\nSeccomp:\t2\nrefused\n");
    }
    // Everything that the engine itself may do.
    let script = "grep CapEff: /proc/self/status; test -e /dev/kmsg && echo devices; \
                  touch /proc/sys/kernel/hostname && echo writable";
    let output = containerd.run(&["--privileged"], &["/bin/sh", "-c", script]);
    let own = format!("{:016x}", conformance::host::effective_capabilities());
    assert_eq!(
        output.success(),
        format!("CapEff:\t{own}\ndevices\nwritable\n")
    );
}

#[test]
fn ctr_maps_users_and_names_the_cgroup() {
    needs_containerd!();
    let containerd = Containerd::start();
    let map = ["--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536"];
    let script = "read a b c </proc/self/uid_map; echo $a $b $c; id -u; id -g; \
                  touch /tmp/mine && stat -c %u /tmp/mine";
    let output = containerd.run(&map, &["/bin/sh", "-c", script]);
    assert_eq!(output.success(), "0 100000 65536\n0\n0\n0\n");

    let parent = format!("conformance-{}", unique_id());
    let cgroup = format!("/{parent}/of/its/own");
    let output = containerd.run(&["--cgroup", &cgroup], &["/bin/cat", "/proc/self/cgroup"]);
    let left = leftovers::cgroups(&cgroup);
    leftovers::remove_cgroups(&parent);
    for line in output
        .success()
        .lines()
        .filter(|line| !line.starts_with('0'))
    {
        assert!(line.ends_with(&cgroup), "{output}");
    }
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn ctr_makes_a_mount_read_only_to_its_last_submount() {
    needs_containerd!();
    enter_private_mounts();
    let source = tempfile::tempdir().expect("make a directory");
    let inner = source.path().join("inner");
    fs::create_dir(&inner).expect("make a directory");
    mount(
        Some("tmpfs"),
        &inner,
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .expect("mount");
    let containerd = Containerd::start();
    let write = "touch /m/outer 2>/dev/null && echo outer; touch /m/inner/x 2>/dev/null && \
                 echo inner; true";
    let mut seen = Vec::new();
    for options in ["rbind:rw", "rbind:ro", "rbind:rro"] {
        let option = format!(
            "type=bind,src={},dst=/m,options={options}",
            source.path().display()
        );
        let output = containerd.run(&["--mount", &option], &["/bin/sh", "-c", write]);
        seen.push(output.success().to_owned());
    }
    leftovers::remove_mounts(source.path());
    assert_eq!(seen, ["outer\ninner\n", "inner\n", ""]);
}
