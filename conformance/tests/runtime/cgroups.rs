//! Limits, read back from the cgroup's files and felt by the process:
//! config-linux.md#control-groups. The names of the files are those of the
//! layout that this machine has.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use conformance::host::{CgroupLayout, cgroup_directory, cgroup_layout, is_root};
use conformance::{
    Container, Kind, TestBundle, gocker_only, leftovers, needs, peer_differs, runtime,
};
use serde_json::{Value, json};

/// The directory of a bundle's cgroup that has a controller's files.
fn directory(bundle: &TestBundle, controller: &str) -> Option<PathBuf> {
    cgroup_directory(controller, bundle.cgroups_path())
}

#[track_caller]
fn read(bundle: &TestBundle, controller: &str, file: &str) -> String {
    let path = directory(bundle, controller)
        .expect("the controller")
        .join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    text.trim().to_owned()
}

/// One row: controller, resources, and per layout the file and what it holds.
type Row<'t> = (&'t str, Value, (&'t str, &'t str), (&'t str, &'t str));

/// Creates a container for each row and reads the value back; before `start`,
/// for the limits hold from the first instruction on.
#[track_caller]
fn check_rows(rows: &[Row<'_>]) {
    for (controller, resources, v1, v2) in rows {
        let bundle = TestBundle::sleeper().set("/linux/resources", resources.clone());
        let (file, expected) = if cgroup_layout() == CgroupLayout::V2 {
            v2
        } else {
            v1
        };
        if file.is_empty() {
            continue;
        }
        needs!(
            directory(&bundle, controller).is_some(),
            "no cgroup controller {controller}"
        );
        let container = bundle.created();
        assert_eq!(read(&bundle, controller, file), *expected, "{resources}");
        drop(container);
    }
}

const MIB: u64 = 1024 * 1024;

#[test]
fn memory_limits_are_set() {
    needs!(is_root(), "needs root");
    let (limit, soft) = ((64 * MIB).to_string(), (32 * MIB).to_string());
    check_rows(&[
        (
            "memory",
            json!({"memory": {"limit": 64 * MIB}}),
            ("memory.limit_in_bytes", &limit),
            ("memory.max", &limit),
        ),
        (
            "memory",
            json!({"memory": {"limit": 64 * MIB, "reservation": 32 * MIB}}),
            ("memory.soft_limit_in_bytes", &soft),
            ("memory.low", &soft),
        ),
        // On v1 the second file counts memory and swap together, on v2 swap alone.
        (
            "memory",
            json!({"memory": {"limit": 32 * MIB, "swap": 64 * MIB}}),
            ("memory.memsw.limit_in_bytes", &limit),
            ("memory.swap.max", &soft),
        ),
        (
            "memory",
            json!({"memory": {"limit": 64 * MIB, "swap": -1}}),
            ("memory.memsw.limit_in_bytes", "9223372036854771712"),
            ("memory.swap.max", "max"),
        ),
        (
            "memory",
            json!({"memory": {"limit": -1}}),
            ("memory.limit_in_bytes", "9223372036854771712"),
            ("memory.max", "max"),
        ),
        (
            "memory",
            json!({"memory": {"swappiness": 13}}),
            ("memory.swappiness", "13"),
            ("", ""),
        ),
    ]);
}

/// Newer runc makes v1's default of 1024 shares v2's default weight of 100; Debian's has
/// a straight line between the ends: 1 + (512 - 2) * 9999 / 262142.
fn weight_of_512_shares() -> u32 {
    if runtime().kind == Kind::Gocker {
        59
    } else {
        20
    }
}

#[test]
fn cpu_limits_are_set() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "Debian's writes some values as they stand");
    let both = json!({"cpu": {"quota": 50_000, "period": 200_000}});
    let weight = weight_of_512_shares().to_string();
    check_rows(&[
        (
            "cpu",
            json!({"cpu": {"shares": 512}}),
            ("cpu.shares", "512"),
            ("cpu.weight", &weight),
        ),
        (
            "cpu",
            both.clone(),
            ("cpu.cfs_quota_us", "50000"),
            ("cpu.max", "50000 200000"),
        ),
        (
            "cpu",
            both,
            ("cpu.cfs_period_us", "200000"),
            ("cpu.max", "50000 200000"),
        ),
        (
            "cpu",
            json!({"cpu": {"quota": 30_000}}),
            ("cpu.cfs_quota_us", "30000"),
            ("cpu.max", "30000 100000"),
        ),
        (
            "cpu",
            json!({"cpu": {"quota": -1, "period": 50_000}}),
            ("cpu.cfs_quota_us", "-1"),
            ("cpu.max", "max 50000"),
        ),
    ]);
}

#[test]
fn cpuset_limits_are_set() {
    needs!(is_root(), "needs root");
    check_rows(&[
        (
            "cpuset",
            json!({"cpu": {"cpus": "0"}}),
            ("cpuset.cpus", "0"),
            ("cpuset.cpus", "0"),
        ),
        (
            "cpuset",
            json!({"cpu": {"cpus": "0", "mems": "0"}}),
            ("cpuset.mems", "0"),
            ("cpuset.mems", "0"),
        ),
    ]);
    let bundle = TestBundle::shell("nproc").set("/linux/resources", json!({"cpu": {"cpus": "0"}}));
    needs!(
        directory(&bundle, "cpuset").is_some(),
        "no cgroup controller cpuset"
    );
    assert_eq!(bundle.run_ok(), "1\n");
}

#[test]
fn the_pids_limit_is_set() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "Debian's writes some values as they stand");
    check_rows(&[
        (
            "pids",
            json!({"pids": {"limit": 20}}),
            ("pids.max", "20"),
            ("pids.max", "20"),
        ),
        (
            "pids",
            json!({"pids": {"limit": -1}}),
            ("pids.max", "max"),
            ("pids.max", "max"),
        ),
    ]);
}

#[test]
fn more_processes_than_the_limit_cannot_be_started() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell(
        "i=0; while [ $i -lt 40 ]; do sleep 2 & i=$((i+1)); done; echo all 40 started",
    )
    .set("/linux/resources", json!({"pids": {"limit": 20}}));
    needs!(
        directory(&bundle, "pids").is_some(),
        "no cgroup controller pids"
    );
    let output = bundle.run();
    assert!(output.stderr.contains("can't fork"), "{output}");
    assert!(!output.stdout.contains("all 40"), "{output}");
}

#[test]
fn a_process_that_takes_more_memory_than_the_limit_is_killed() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell("dd if=/dev/zero of=/dev/null bs=200M count=1; echo $?").set(
        "/linux/resources",
        json!({"memory": {"limit": 48 * MIB, "swap": 48 * MIB}}),
    );
    needs!(
        directory(&bundle, "memory").is_some(),
        "no cgroup controller memory"
    );
    let output = bundle.run();
    assert!(output.code() == 137 || output.stdout == "137\n", "{output}");
}

/// The shim reads /proc/PID/cgroup as soon as `create` returns.
#[test]
fn the_process_is_in_its_cgroup_in_every_hierarchy_when_create_returns() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let container = bundle.created();
    let file = container.proc_file("cgroup");
    for line in file.lines() {
        // The v2 side of a hybrid holds no controllers that matter.
        if line.starts_with("0::") && cgroup_layout() == CgroupLayout::V1 {
            continue;
        }
        assert!(line.ends_with(bundle.cgroups_path()), "{file}");
    }
    let pid = nix::unistd::Pid::from_raw(container.pid());
    let found = leftovers::processes(&leftovers::cgroups(bundle.cgroups_path()));
    assert_eq!(found, [pid]);
}

#[test]
fn processes_started_later_are_in_the_cgroup_and_go_with_delete() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::shell("sleep 1000 & sleep 1000 & touch /ready; wait");
    let container = bundle.running();
    let ready = || bundle.rootfs().join("ready").exists();
    assert!(conformance::wait_until(
        std::time::Duration::from_secs(10),
        ready
    ));
    let cgroups = leftovers::cgroups(bundle.cgroups_path());
    // touch itself may still be on its way out.
    assert!(
        conformance::wait_until(std::time::Duration::from_secs(10), || {
            leftovers::processes(&cgroups).len() == 3
        }),
        "{:?}",
        leftovers::processes(&cgroups)
    );
    container.delete(&["--force"]).success();
    assert!(leftovers::cgroups(bundle.cgroups_path()).is_empty());
}

/// Directories that a container with a writable cgroup made go as well.
#[test]
fn cgroups_below_the_containers_go_with_delete() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper();
    let container = bundle.running();
    for cgroup in leftovers::cgroups(bundle.cgroups_path()) {
        fs::create_dir_all(cgroup.join("sub/sub")).expect("make a cgroup");
    }
    container.delete(&["--force"]).success();
    assert!(leftovers::cgroups(bundle.cgroups_path()).is_empty());
}

fn cgroups_of(container: &Container<'_>) -> BTreeSet<String> {
    let file = container.proc_file("cgroup");
    let lines = file
        .lines()
        .filter(|line| !line.starts_with("0::") || file.lines().count() == 1);
    lines
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .map(str::to_owned)
        .collect()
}

#[test]
fn without_a_path_the_cgroup_is_named_by_the_id() {
    needs!(is_root(), "needs root");
    let bundle = TestBundle::sleeper().edit(|config| {
        config["linux"]
            .as_object_mut()
            .expect("an object")
            .remove("cgroupsPath");
    });
    let container = bundle.created();
    let paths = cgroups_of(&container);
    assert!(
        paths.iter().all(|path| path.contains(bundle.id())),
        "{paths:?}"
    );
    container.delete(&["--force"]).success();
    for path in paths {
        assert_eq!(leftovers::cgroups(&path), Vec::<PathBuf>::new());
    }
}

/// config-linux.md#cgroups-path: a relative path may be taken from anywhere, but
/// stays within the hierarchies.
#[test]
fn a_path_that_climbs_stays_within_the_hierarchies() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it does what the path says");
    let bundle = TestBundle::sleeper();
    let id = bundle.id().to_owned();
    for up in [
        "../../../../../../../../../tmp",
        "/../../../../../../../tmp",
        "/x/../../../../tmp",
    ] {
        let path = format!("{up}/conformance-climb-{id}");
        let bundle = TestBundle::sleeper().set("/linux/cgroupsPath", json!(path));
        let container = bundle.container();
        let output = container.create(&[]);
        let escaped = PathBuf::from(format!("/tmp/conformance-climb-{id}"));
        assert!(!escaped.exists(), "{output}");
        let paths = if output.code() == 0 {
            cgroups_of(&container)
        } else {
            BTreeSet::new()
        };
        drop(container);
        for path in paths {
            assert_eq!(leftovers::cgroups(&path), Vec::<PathBuf>::new());
            // Parents that are left are the runtime's way; this one was the test's.
            if let Some((parent, _)) = path.rsplit_once('/')
                && parent.ends_with("/tmp")
            {
                leftovers::remove_cgroups(parent);
            }
        }
    }
}

#[test]
fn a_value_that_the_kernel_refuses_is_an_error_that_leaves_nothing() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it leaves the cgroup behind");
    for (resources, word) in [
        (json!({"cpu": {"cpus": "4000"}}), "cpu"),
        (json!({"cpu": {"cpus": "abc"}}), "cpu"),
        (json!({"cpu": {"quota": 1}}), "cpu"),
        (json!({"cpu": {"period": 1}}), "cpu"),
    ] {
        let bundle = TestBundle::sleeper().set("/linux/resources", resources.clone());
        let container = bundle.container();
        let output = container.create(&[]);
        assert!(
            output.one_line_failure().contains(word),
            "{resources}: {output}"
        );
        bundle.assert_nothing_left();
    }
}

#[test]
fn values_of_a_wrong_kind_are_refused_by_name() {
    needs!(is_root(), "needs root");
    gocker_only!();
    for (resources, field) in [
        (json!({"memory": {"limit": "64M"}}), "limit"),
        (json!({"memory": {"limit": -5}}), "limit"),
        (json!({"pids": {"limit": "many"}}), "limit"),
        (json!({"cpu": {"shares": -1}}), "shares"),
        (
            json!({"devices": [{"allow": true, "type": "z", "access": "rwm"}]}),
            "type",
        ),
        (
            json!({"devices": [{"allow": true, "type": "c", "access": "rx"}]}),
            "access",
        ),
    ] {
        let bundle = TestBundle::new().set("/linux/resources", resources.clone());
        let output = bundle.run();
        assert!(
            output.one_line_failure().contains(field),
            "{resources}: {output}"
        );
        bundle.assert_nothing_left();
    }
}

/// Refused where the kernel or the layout has no such thing; never ignored.
#[test]
fn other_limits_are_set_or_refused_by_name() {
    needs!(is_root(), "needs root");
    gocker_only!();
    for (resources, controller, files, expected) in [
        (
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]}),
            "hugetlb",
            ["hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max"],
            "4194304",
        ),
        (
            json!({"network": {"classID": 5}}),
            "net_cls",
            ["net_cls.classid", ""],
            "5",
        ),
        (
            json!({"rdma": {"mlx5_1": {"hcaHandles": 3}}}),
            "rdma",
            ["rdma.max", ""],
            "hca_handle=3",
        ),
    ] {
        let bundle = TestBundle::sleeper().set("/linux/resources", resources.clone());
        let container = bundle.container();
        let output = container.create(&[]);
        if output.code() != 0 {
            let field = resources
                .as_object()
                .and_then(|all| all.keys().next())
                .expect("a field");
            assert!(output.one_line_failure().contains(field), "{output}");
            bundle.assert_nothing_left();
            continue;
        }
        let values: Vec<String> = leftovers::cgroups(bundle.cgroups_path())
            .iter()
            .flat_map(|cgroup| files.map(|file| cgroup.join(file)))
            .filter_map(|path| fs::read_to_string(path).ok())
            .collect();
        let set = values.iter().any(|value| value.contains(expected));
        assert!(set, "{controller}: taken, and not set: {values:?}");
    }
}

/// config-linux.md#unified
#[test]
fn unified_values_are_for_v2_alone() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it leaves the cgroup behind");
    let bundle = TestBundle::sleeper().set("/linux/resources/unified", json!({"pids.max": "33"}));
    let container = bundle.container();
    let output = container.create(&[]);
    if cgroup_layout() == CgroupLayout::V2 {
        output.success();
        assert_eq!(read(&bundle, "pids", "pids.max"), "33");
    } else {
        output.one_line_failure();
        bundle.assert_nothing_left();
    }
}
