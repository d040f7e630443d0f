//! What the containers of a pod share: namespaces, network, mounts, devices.

use std::fs;

use conformance::host::{enter_private_mounts, set_propagation};
use conformance::{leftovers, needs, run_command};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::process::Command;

use super::super::needs_containerd;
use super::api::{
    Device, KeyValue, Mount, NamespaceOption, PodSandboxStatusResponse, SecurityContext, namespace,
    propagation,
};
use super::{Cri, Id, in_context};

fn options(pid: i32, target_id: &str) -> NamespaceOption {
    NamespaceOption {
        network: namespace::NODE,
        pid,
        ipc: namespace::POD,
        target_id: target_id.to_owned(),
    }
}

fn context(pid: i32, target_id: &str) -> SecurityContext {
    SecurityContext {
        namespace_options: Some(options(pid, target_id)),
        ..SecurityContext::default()
    }
}

#[test]
fn a_pid_namespace_is_the_containers_the_pods_or_anothers() {
    needs_containerd!();
    let cri = Cri::start();
    let namespaces = "for n in pid ipc mnt; do readlink /proc/self/ns/$n; done";
    let of = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let pod = cri.pod_with(options(namespace::POD, ""));
    let sleeper = || in_context(pod.sleeper(), context(namespace::POD, ""));
    let (one, two) = (pod.start(sleeper()), pod.start(sleeper()));
    let (first, second) = (of(one.sh(namespaces)), of(two.sh(namespaces)));
    assert_eq!(first[..2], second[..2], "PID and IPC are the pod's");
    assert_ne!(first[2], second[2]);
    // Process 1 is the sandbox, and both containers are seen.
    assert_eq!(one.sh("cat /proc/1/comm"), "sleep\n");
    assert_eq!(one.sh("ps -o args | grep -c '^/bin/sh -c trap'"), "2\n");
    // The end of one is not the end of the other.
    one.stop(5);
    assert_eq!(two.sh("echo alive"), "alive\n");
    pod.remove();

    let pod = cri.pod();
    let own = in_context(pod.sleeper(), context(namespace::CONTAINER, ""));
    let target = pod.start(own);
    assert_eq!(target.sh("cat /proc/1/comm"), "sh\n");
    let debug = pod.sleeper();
    let debug = pod.start(in_context(debug, context(namespace::TARGET, &target.id)));
    let (first, second) = (of(target.sh(namespaces)), of(debug.sh(namespaces)));
    assert_eq!(first[..2], second[..2]);
    debug.stop(0);
    assert_eq!(target.sh("echo alive"), "alive\n");
    pod.remove();

    let pod = cri.pod_with(options(namespace::NODE, ""));
    let (code, text) = pod.run(in_context(
        pod.script("readlink /proc/self/ns/pid"),
        context(namespace::NODE, ""),
    ));
    let own = fs::read_link("/proc/self/ns/pid").expect("readlink");
    assert_eq!((code, text), (0, format!("{}\n", own.display())));
    // No PID namespace ends with it: what it started has to be found by its cgroup.
    let host = pod.start(in_context(pod.sleeper(), context(namespace::NODE, "")));
    host.stop(0);
    assert_eq!(host.status().exit_code, 137);
    pod.remove();
}

#[test]
fn a_pod_has_a_network_of_its_own() {
    needs_containerd!();
    needs!(
        fs::exists("/usr/lib/cni/ptp").is_ok_and(|there| there),
        "needs the Debian package containernetworking-plugins"
    );
    enter_private_mounts();
    unshare(CloneFlags::CLONE_NEWNET).expect("unshare the network");
    run_command(Command::new("ip").args(["link", "set", "lo", "up"])).success();
    let cri = Cri::start();
    let at = |name: &str| cri.containerd.directory.path().join(name);
    fs::create_dir_all(at("net.d")).expect("make a directory");
    let list = serde_json::json!({"cniVersion": "0.4.0", "name": "pods", "plugins": [{
        "type": "ptp",
        "ipam": {"type": "host-local", "subnet": "10.77.0.0/24", "dataDir": at("ipam")},
    }]});
    fs::write(at("net.d/10-pods.conflist"), list.to_string()).expect("write");
    // The plugin reads the directory when it changes.
    let mut pod = None;
    let came = conformance::wait_until(super::SOON, || {
        let options = NamespaceOption {
            pid: namespace::CONTAINER,
            ..NamespaceOption::default()
        };
        let mut config = cri.sandbox(options);
        config.hostname = "pod-host".to_owned();
        let linux = config.linux.as_mut().expect("linux");
        let port = "net.ipv4.ip_unprivileged_port_start".to_owned();
        linux.sysctls.insert(port, "77".to_owned());
        pod = cri.run_pod(config).ok();
        pod.is_some()
    });
    assert!(came, "{}", cri.containerd.log());
    let pod = pod.expect("a pod");
    let id = Id { id: pod.id.clone() };
    let answer: PodSandboxStatusResponse = cri.must("PodSandboxStatus", &id);
    let ip = answer.status.and_then(|status| status.network);
    let ip = ip.expect("a network").ip;
    assert!(ip.starts_with("10.77.0."), "{ip}");
    let own = || SecurityContext {
        namespace_options: Some(NamespaceOption {
            pid: namespace::CONTAINER,
            ..NamespaceOption::default()
        }),
        ..SecurityContext::default()
    };
    let server = "echo reached >/tmp/answer; httpd -f -p 8080 -h /tmp";
    let server = pod.start(in_context(pod.script(server), own()));
    let script = format!(
        "hostname; ip addr | grep -c {ip}/; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; \
         for i in 1 2 3 4 5 6 7 8 9; do wget -q -O - http://127.0.0.1:8080/answer && break; \
         sleep 0.2; done"
    );
    let (code, text) = pod.run(in_context(pod.script(&script), own()));
    assert_eq!((code, text.as_str()), (0, "pod-host\n1\n77\nreached\n"));
    server.stop(0);
    pod.remove();
}

#[test]
fn mounts_propagate_as_they_are_asked_to() {
    needs_containerd!();
    enter_private_mounts();
    let source = tempfile::tempdir().expect("make a directory");
    let at = |name: &str| source.path().join(name);
    let none = None::<&str>;
    mount(
        Some("tmpfs"),
        source.path(),
        Some("tmpfs"),
        MsFlags::empty(),
        none,
    )
    .expect("mount");
    set_propagation(source.path(), MsFlags::MS_SHARED);
    for name in ["later", "from-inside"] {
        fs::create_dir(at(name)).expect("make a directory");
    }
    let cri = Cri::start();
    let pod = cri.pod();
    let mut config = in_context(pod.sleeper(), context(namespace::CONTAINER, ""));
    for (path, propagation, readonly) in [
        ("/private", propagation::PRIVATE, false),
        ("/slave", propagation::HOST_TO_CONTAINER, false),
        ("/shared", propagation::BIDIRECTIONAL, false),
        ("/read-only", propagation::PRIVATE, true),
    ] {
        config.mounts.push(Mount {
            container_path: path.to_owned(),
            host_path: source.path().display().to_string(),
            readonly,
            propagation,
        });
    }
    let linux = config.linux.as_mut().expect("linux");
    let security = linux.security_context.as_mut().expect("a context");
    // What mounts in the container needs the right to.
    security.capabilities = Some(super::api::Capability {
        add_capabilities: vec!["SYS_ADMIN".to_owned()],
        ..super::api::Capability::default()
    });
    let container = pod.start(config);
    mount(
        Some("tmpfs"),
        &at("later"),
        Some("tmpfs"),
        MsFlags::empty(),
        none,
    )
    .expect("mount");
    fs::write(at("later/mark"), "seen").expect("write");
    let script = "for d in private slave shared; do \
                  test -e /$d/later/mark && echo $d; done; touch /read-only/x 2>/dev/null || \
                  echo read-only; mount -t tmpfs tmpfs /shared/from-inside && \
                  touch /shared/from-inside/mark";
    let text = container.sh(script);
    let came_out = at("from-inside/mark").exists();
    container.stop(0);
    pod.remove();
    leftovers::remove_mounts(source.path());
    assert_eq!(text, "slave\nshared\nread-only\n");
    assert!(came_out, "what was mounted inside should be seen outside");
}

#[test]
fn a_container_gets_its_environment_directory_and_devices() {
    needs_containerd!();
    let cri = Cri::start();
    let pod = cri.pod();
    let mut config = in_context(
        pod.script("echo $COLOUR; pwd; head -c 4 /dev/nothing | wc -c; echo x >/dev/nothing"),
        context(namespace::CONTAINER, ""),
    );
    config.envs.push(KeyValue {
        key: "COLOUR".to_owned(),
        value: "dark red".to_owned(),
    });
    config.working_dir = "/var/www".to_owned();
    config.devices.push(Device {
        container_path: "/dev/nothing".to_owned(),
        host_path: "/dev/null".to_owned(),
        permissions: "rw".to_owned(),
    });
    assert_eq!(pod.run(config), (0, "dark red\n/var/www\n0\n".to_owned()));
    let mut config = pod.script("tty; test -t 1 && echo terminal");
    config.tty = true;
    let (code, text) = pod.run(config);
    let text = text.replace('\r', "");
    assert_eq!((code, text.as_str()), (0, "/dev/pts/0\nterminal\n"));
    pod.remove();
}
