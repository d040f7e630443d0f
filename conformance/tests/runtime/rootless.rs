//! Containers of an ordinary user, and of "root" in a user namespace: config-linux.md
//! #user-namespace-mappings, and what runc's `--rootless` says.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use conformance::host::{CgroupLayout, cgroup_layout, is_root};
use conformance::ordinary_user::{ID, SUBORDINATE, grant_subordinate_ids};
use conformance::{Container, Kind, Output, TestBundle, needs, peer_differs, run_command, runtime};
use serde_json::{Value, json};

fn exec(container: &Container<'_>, args: &[&str]) -> Output {
    run_command(container.command("exec", &[]).args(args))
}

#[test]
fn an_ordinary_user_runs_a_container_whose_root_it_is() {
    needs!(is_root(), "needs root");
    let script = "id -u; cat /proc/self/uid_map /proc/self/setgroups; echo hello > /tmp/file";
    let bundle = TestBundle::shell(script).of_ordinary_user();
    let output = bundle.run_ok();
    let words: Vec<&str> = output.split_whitespace().collect();
    assert_eq!(words, ["0", "0", &ID.to_string(), "1", "deny"], "{output}");
    let made = bundle.rootfs().join("tmp/file");
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(made).expect("is made"));
    assert_eq!(owner, ID);
    bundle.assert_nothing_left();
}

#[test]
fn an_ordinary_users_container_lives_as_any_other() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper().of_ordinary_user();
    let container = bundle.created();
    assert_eq!(container.status(), "created");
    // crun may not look up the namespaces of its own init by then.
    if runtime().kind != Kind::Crun {
        let output = exec(&container, &["/bin/echo", "early"]);
        assert_eq!(output.success(), "early\n");
    }
    container.start().success();
    assert_eq!(container.status(), "running");
    assert_eq!(exec(&container, &["/bin/id", "-u"]).success(), "0\n");
    assert_eq!(exec(&container, &["/bin/sh", "-c", "exit 7"]).code(), 7);
    let list = bundle.call(&["list", "--quiet"]);
    assert_eq!(list.success().trim(), bundle.id());
    assert!(!container.delete(&[]).failure().is_empty());
    container.kill("KILL").success();
    container.wait_for("stopped");
    container.delete(&[]).success();
    bundle.assert_nothing_left();
}

#[test]
fn what_spec_writes_for_an_ordinary_user_runs() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it does not take the version that it writes");
    let bundle = TestBundle::new().of_ordinary_user();
    fs::remove_file(bundle.path().join("config.json")).ok();
    let written = run_command(
        bundle
            .bare_runtime()
            .args(["spec", "--rootless", "--bundle"])
            .arg(bundle.path()),
    );
    written.success();
    let text = fs::read_to_string(bundle.path().join("config.json")).expect("is written");
    let mut config: Value = serde_json::from_str(&text).expect("is JSON");
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/bin/sh", "-c", "id -u; ls /sys/fs/cgroup > /dev/null"]);
    let bundle = bundle.raw_config(&config.to_string());
    assert_eq!(bundle.run_ok(), "0\n");
}

#[test]
fn newuidmap_maps_what_the_administrator_grants() {
    needs!(is_root(), "needs root");
    needs!(
        Path::new("/usr/bin/newuidmap").exists(),
        "needs the Debian package uidmap"
    );
    grant_subordinate_ids();
    let bundle = TestBundle::shell("id -u; cat /proc/self/gid_map /proc/self/setgroups")
        .of_ordinary_user()
        .with_subordinate_ids()
        .set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let output = bundle.run_ok();
    let words: Vec<&str> = output.split_whitespace().collect();
    let (own, further) = (ID.to_string(), SUBORDINATE.to_string());
    let expected = ["1000", "0", &own, "1", "1", &further, "65536", "allow"];
    assert_eq!(words, expected, "{output}");
    bundle.assert_nothing_left();
}

#[test]
fn groups_that_are_mapped_can_be_additional_ones() {
    needs!(is_root(), "needs root");
    needs!(
        Path::new("/usr/bin/newuidmap").exists(),
        "needs the Debian package uidmap"
    );
    peer_differs!(Runc, "it refuses additional groups of all ordinary users");
    grant_subordinate_ids();
    let bundle = TestBundle::shell("id -G")
        .of_ordinary_user()
        .with_subordinate_ids()
        .set(
            "/process/user",
            json!({"uid": 1000, "gid": 1000, "additionalGids": [5, 10]}),
        );
    assert_eq!(bundle.run_ok(), "1000 5 10\n");
}

#[test]
fn exec_joins_a_container_of_mapped_ids() {
    needs!(is_root(), "needs root");
    needs!(
        Path::new("/usr/bin/newuidmap").exists(),
        "needs the Debian package uidmap"
    );
    grant_subordinate_ids();
    let bundle = TestBundle::sleeper()
        .of_ordinary_user()
        .with_subordinate_ids()
        .set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let container = bundle.running();
    let output = run_command(container.command("exec", &["--user", "7:8"]).args([
        "/bin/sh",
        "-c",
        "id -u; id -g; echo $$",
    ]));
    assert!(output.success().starts_with("7\n8\n"), "{output}");
}

#[test]
fn the_oom_score_is_set_for_containers_and_further_processes() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper()
        .of_ordinary_user()
        .set("/process/oomScoreAdj", json!(321));
    let container = bundle.running();
    assert_eq!(container.proc_file("oom_score_adj"), "321\n");
    let path = "/proc/self/oom_score_adj";
    peer_differs!(Crun, "its exec takes no score over");
    assert_eq!(exec(&container, &["/bin/cat", path]).success(), "321\n");
}

#[test]
fn devices_are_the_hosts_and_new_ones_cannot_be_made() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell(
        "echo x > /dev/null && head -c 2 /dev/zero | wc -c; mknod /tmp/n c 1 3 || echo refused",
    )
    .of_ordinary_user();
    assert_eq!(bundle.run_ok(), "2\nrefused\n");
}

/// CVE-2023-25809: what is seen of the machine's cgroups is the user's own, and must not be
/// writable inside.
#[test]
fn cgroups_that_are_not_the_containers_cannot_be_written() {
    needs!(is_root(), "needs root");
    for namespace in [None, Some(json!({"type": "cgroup"}))] {
        let bundle = TestBundle::shell("grep ' /sys/fs/cgroup' /proc/self/mountinfo | grep cgroup")
            .of_ordinary_user()
            .namespace("cgroup", namespace)
            .edit(|config| {
                let mounts = config["mounts"].as_array_mut().expect("mounts");
                mounts.last_mut().expect("a mount")["options"] = json!(["nosuid", "rw"]);
            });
        peer_differs!(Runc | Crun, "they leave it to the rights of the files");
        let output = bundle.run_ok();
        let is_open = |line: &&str| {
            let (place, source) = line.split_once(" - ").expect("mountinfo");
            source.starts_with("cgroup") && !place.contains(" ro,")
        };
        assert_eq!(output.lines().find(is_open), None, "{output}");
        assert!(output.contains(" - cgroup"), "{output}");
    }
}

#[test]
fn states_are_kept_in_the_users_runtime_directory() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun | Other, "its directory has another mode");
    let bundle = TestBundle::sleeper().of_ordinary_user();
    bundle.write_config();
    let call = |args: &[&str]| run_command(bundle.bare_runtime().args(args));
    let path = bundle.path();
    let create = [
        "create",
        "--bundle",
        path.to_str().expect("a path"),
        bundle.id(),
    ];
    call(&create).success();
    let name = runtime().program.file_name().expect("a name").to_owned();
    let root = bundle.scratch().join("home/run").join(name);
    let mode = fs::metadata(&root).expect("is made").permissions().mode();
    assert_eq!(mode & 0o7777, 0o1700);
    assert!(root.join(bundle.id()).is_dir());
    call(&["delete", "--force", bundle.id()]).success();
    assert!(!root.join(bundle.id()).exists());
}

/// What an engine does that has made a user namespace itself.
#[test]
fn root_of_a_user_namespace_runs_containers_without_a_further_one() {
    needs!(is_root(), "needs root");
    let script = "id -u; echo x > /dev/null; cat /proc/self/uid_map; exit 5";
    let bundle = TestBundle::shell(script)
        .of_ordinary_user()
        .namespace("user", None)
        .edit(|config| {
            let linux = config["linux"].as_object_mut().expect("linux");
            linux.remove("uidMappings");
            linux.remove("gidMappings");
        });
    let output = bundle.run_as_nested_root(&[], "true");
    assert_eq!(output.code(), 5, "{output}");
    let words: Vec<&str> = output.stdout.split_whitespace().collect();
    assert_eq!(words, ["0", "0", &ID.to_string(), "1"], "{output}");
    bundle.assert_nothing_left();
}

#[test]
fn root_of_a_user_namespace_makes_further_ones() {
    needs!(is_root(), "needs root");
    let map = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
    let bundle = TestBundle::shell("id -u; readlink /proc/self/ns/user")
        .of_ordinary_user()
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map);
    let output = bundle.run_as_nested_root(&[], "true");
    assert!(output.success().starts_with("0\n"), "{output}");
    bundle.assert_nothing_left();
}

#[test]
fn a_cgroup_that_was_given_to_the_user_is_used() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "on cgroup v1 it does without");
    let (place, file) = match cgroup_layout() {
        CgroupLayout::V1 => ("/sys/fs/cgroup/pids", "/sys/fs/cgroup/pids"),
        CgroupLayout::V2 => ("/sys/fs/cgroup", "/sys/fs/cgroup"),
    };
    let bundle = TestBundle::shell("cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max")
        .of_ordinary_user()
        .namespace("cgroup", Some(json!({"type": "cgroup"})))
        .set("/linux/resources/pids/limit", json!(77));
    let top = Path::new(place).join(format!("conformance-{}", bundle.id()));
    let own = top.join("own");
    fs::create_dir_all(&own).expect("make a cgroup");
    let clean_up = RemoveCgroups(vec![own.clone(), top.clone()]);
    for dir in [&top, &own] {
        for name in ["", "cgroup.procs", "tasks", "cgroup.subtree_control"] {
            let path = dir.join(name);
            if path.exists() {
                std::os::unix::fs::chown(&path, Some(ID), Some(ID)).expect("chown");
            }
        }
    }
    if cgroup_layout() == CgroupLayout::V2 {
        fs::write(Path::new(place).join("cgroup.subtree_control"), "+pids").expect("hand down");
    }
    let runtime = bundle.runtime();
    let script = format!(
        "echo $$ > {}/cgroup.procs && exec setpriv --reuid {ID} --regid {ID} --clear-groups \"$@\"",
        own.display()
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh"]);
    command.arg(runtime.get_program()).args(runtime.get_args());
    command
        .arg("run")
        .arg("--bundle")
        .arg(bundle.path())
        .arg(bundle.id());
    let output = run_command(&mut command);
    assert!(output.stdout.contains("77\n"), "{file}: {output}");
    drop(clean_up);
    assert!(!top.exists(), "something is left in {top:?}");
}

struct RemoveCgroups(Vec<std::path::PathBuf>);

impl Drop for RemoveCgroups {
    fn drop(&mut self) {
        for dir in &self.0 {
            if let Err(error) = fs::remove_dir(dir) {
                eprintln!("clean-up: remove {dir:?}: {error}");
            }
        }
    }
}
