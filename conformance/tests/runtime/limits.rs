//! Every field of `linux.resources`: what the kernel keeps of it, or a refusal by name where the
//! machine has nothing for it. config-linux.md#control-groups

use std::fs;
use std::path::Path;

use conformance::host::{CgroupLayout, cgroup_layout, is_root};
use conformance::{TestBundle, gocker_only, leftovers, needs};
use serde_json::{Value, json};

/// A section of `linux.resources`; the word by which a refusal names the field; the files of v1
/// and of v2 that keep it, and what they hold then.
type Row<'t> = (
    Value,
    &'t str,
    &'t [(&'t str, &'t str)],
    &'t [(&'t str, &'t str)],
);

/// Refused on that layout, whatever the kernel has.
const REFUSED: &[(&str, &str)] = &[];

/// Each limit is there before `start`, or the whole is refused and nothing left.
#[track_caller]
fn check(rows: &[Row<'_>]) {
    let mut wrong = Vec::new();
    for (resources, field, v1, v2) in rows {
        let files = match cgroup_layout() {
            CgroupLayout::V1 => v1,
            CgroupLayout::V2 => v2,
        };
        let bundle = TestBundle::sleeper().set("/linux/resources", resources.clone());
        let container = bundle.container();
        let output = container.create(&[]);
        if output.code() != 0 {
            let named = format!("linux.resources.{field}");
            if !output.one_line_failure().contains(&named) {
                wrong.push(format!("{resources}: not named: {output}"));
            }
            // What other containers' limits stand in cannot be missing.
            if files.iter().any(|(file, _)| is_there(file)) {
                wrong.push(format!("{resources}: refused: {output}"));
            }
            bundle.assert_nothing_left();
            continue;
        }
        if files.is_empty() {
            wrong.push(format!("{resources}: taken, where nothing can keep it"));
        }
        for (file, expected) in *files {
            let found = read(bundle.cgroups_path(), file);
            let holds = |text: &String| text.lines().any(|line| line.trim() == *expected);
            if !found.as_ref().is_some_and(holds) {
                wrong.push(format!(
                    "{resources}: {file} is {found:?}, not {expected:?}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A file of the cgroup, in whichever hierarchy it lies.
fn read(cgroup: &str, file: &str) -> Option<String> {
    let cgroups = leftovers::cgroups(cgroup).into_iter();
    let text = cgroups.map(|cgroup| fs::read_to_string(cgroup.join(file)).ok());
    text.flatten().next()
}

/// Whether a container's cgroup has such a file.
fn is_there(file: &str) -> bool {
    let bundle = TestBundle::sleeper();
    let _container = bundle.created();
    read(bundle.cgroups_path(), file).is_some()
}

const MIB: u64 = 1024 * 1024;
const UNLIMITED: &str = "9223372036854771712";

#[test]
fn every_field_of_memory() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let (limit, less) = ((64 * MIB).to_string(), (32 * MIB).to_string());
    let memory = |section: Value| json!({"memory": section});
    check(&[
        (
            memory(json!({"limit": 64 * MIB, "reservation": 32 * MIB, "checkBeforeUpdate": true})),
            "memory.limit",
            &[
                ("memory.limit_in_bytes", &limit),
                ("memory.soft_limit_in_bytes", &less),
            ],
            &[("memory.max", &limit), ("memory.low", &less)],
        ),
        (
            memory(json!({"limit": 32 * MIB, "swap": 64 * MIB})),
            "memory.swap",
            &[("memory.memsw.limit_in_bytes", &limit)],
            &[("memory.swap.max", &less)],
        ),
        (
            memory(json!({"limit": 32 * MIB, "swap": 32 * MIB})),
            "memory.swap",
            &[("memory.memsw.limit_in_bytes", &less)],
            &[("memory.swap.max", "0")],
        ),
        (
            memory(json!({"limit": -1, "swap": -1})),
            "memory.limit",
            &[("memory.memsw.limit_in_bytes", UNLIMITED)],
            &[("memory.max", "max"), ("memory.swap.max", "max")],
        ),
        (
            memory(json!({"swappiness": 0})),
            "memory.swappiness",
            &[("memory.swappiness", "0")],
            REFUSED,
        ),
        (
            memory(json!({"disableOOMKiller": true})),
            "memory.disableOOMKiller",
            &[("memory.oom_control", "oom_kill_disable 1")],
            REFUSED,
        ),
        (
            memory(json!({"useHierarchy": true, "limit": 64 * MIB})),
            "memory.useHierarchy",
            &[
                ("memory.use_hierarchy", "1"),
                ("memory.limit_in_bytes", &limit),
            ],
            &[("memory.max", &limit)],
        ),
        (
            memory(json!({"kernelTCP": 32 * MIB})),
            "memory.kernelTCP",
            &[("memory.kmem.tcp.limit_in_bytes", &less)],
            REFUSED,
        ),
    ]);
}

/// What no kernel of today keeps: one that takes the value and forgets it, or refuses it.
#[test]
fn memory_fields_of_the_past_are_refused_by_name() {
    needs!(is_root(), "needs root");
    gocker_only!();
    for (section, field) in [
        (json!({"kernel": 32 * MIB}), "memory.kernel: "),
        (json!({"useHierarchy": false}), "memory.useHierarchy: "),
    ] {
        let bundle = TestBundle::sleeper().set("/linux/resources/memory", section);
        let container = bundle.container();
        let output = container.create(&[]);
        if output.code() == 0 {
            // A kernel before 5.16 keeps both.
            let kept = read(bundle.cgroups_path(), "memory.kmem.limit_in_bytes");
            let is_kept = kept.is_some_and(|text| text.trim() == (32 * MIB).to_string());
            let hierarchy = read(bundle.cgroups_path(), "memory.use_hierarchy");
            assert!(is_kept || hierarchy.as_deref() == Some("0\n"), "{field}");
            continue;
        }
        assert!(output.one_line_failure().contains(field), "{output}");
        bundle.assert_nothing_left();
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_field_of_cpu() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let cpu = |section: Value| json!({"cpu": section});
    let weights = [
        (2, "2", "1"),
        (102, "102", "17"),
        (1024, "1024", "100"),
        (262_144, "262144", "10000"),
    ];
    for (shares, on_v1, on_v2) in weights {
        check(&[(
            cpu(json!({"shares": shares})),
            "cpu.shares",
            &[("cpu.shares", on_v1)],
            &[("cpu.weight", on_v2)],
        )]);
    }
    check(&[
        (
            cpu(json!({"quota": 50_000, "period": 200_000, "burst": 10_000})),
            "cpu.burst",
            &[
                ("cpu.cfs_quota_us", "50000"),
                ("cpu.cfs_period_us", "200000"),
                ("cpu.cfs_burst_us", "10000"),
            ],
            &[("cpu.max", "50000 200000"), ("cpu.max.burst", "10000")],
        ),
        (
            cpu(json!({"period": 50_000})),
            "cpu.period",
            &[("cpu.cfs_period_us", "50000")],
            &[("cpu.max", "max 50000")],
        ),
        (
            cpu(json!({"cpus": "0", "mems": "0"})),
            "cpu.cpus",
            &[("cpuset.cpus", "0"), ("cpuset.mems", "0")],
            &[("cpuset.cpus", "0"), ("cpuset.mems", "0")],
        ),
        (
            cpu(json!({"idle": 1})),
            "cpu.idle",
            &[("cpu.idle", "1")],
            &[("cpu.idle", "1")],
        ),
        (
            cpu(json!({"idle": 0})),
            "cpu.idle",
            &[("cpu.idle", "0")],
            &[("cpu.idle", "0")],
        ),
        (
            cpu(json!({"realtimePeriod": 900_000})),
            "cpu.realtimePeriod",
            &[("cpu.rt_period_us", "900000")],
            REFUSED,
        ),
        (
            cpu(json!({"realtimeRuntime": 0, "realtimePeriod": 900_000})),
            "cpu.realtimePeriod",
            &[("cpu.rt_period_us", "900000"), ("cpu.rt_runtime_us", "0")],
            REFUSED,
        ),
    ]);
}

/// 0 is what the first process leaves room for: none but itself.
#[test]
fn every_pids_limit() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let file = |expected| [("pids.max", expected)];
    for (resources, expected) in [
        (json!({"pids": {"limit": 33}}), "33"),
        (json!({"pids": {"limit": 0}}), "1"),
        (json!({"pids": {"limit": -1}}), "max"),
    ] {
        check(&[(resources, "pids.limit", &file(expected), &file(expected))]);
    }
    let bundle = TestBundle::shell("cat /proc/self/cgroup | cat; echo started");
    let output = bundle
        .set("/linux/resources/pids", json!({"limit": 0}))
        .run();
    assert!(!output.stdout.contains("started"), "{output}");
}

#[test]
fn every_field_of_block_io() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let disk = disk();
    needs!(disk.is_some(), "no disk that can be limited");
    let (_, major, minor) = disk.unwrap_or_default();
    let device =
        |name: &str, number: u64| json!([{"major": major, "minor": minor, (name): number}]);
    let of_disk = |value: &str| format!("{major}:{minor} {value}");
    let (rate, count) = (of_disk("1048576"), of_disk("500"));
    let v2 = [
        "rbps=1048576 wbps=max riops=max wiops=max",
        "rbps=max wbps=1048576 riops=max wiops=max",
        "rbps=max wbps=max riops=500 wiops=max",
        "rbps=max wbps=max riops=max wiops=500",
    ]
    .map(of_disk);
    let throttles = [
        ("throttleReadBpsDevice", "read_bps", 1_048_576, &rate),
        ("throttleWriteBpsDevice", "write_bps", 1_048_576, &rate),
        ("throttleReadIOPSDevice", "read_iops", 500, &count),
        ("throttleWriteIOPSDevice", "write_iops", 500, &count),
    ];
    for ((field, file, number, line), on_v2) in throttles.into_iter().zip(&v2) {
        check(&[(
            json!({"blockIO": {(field): device("rate", number)}}),
            &format!("blockIO.{field}"),
            &[(&format!("blkio.throttle.{file}_device"), line)],
            &[("io.max", on_v2)],
        )]);
    }
}

/// The weights' files come with a scheduler, which may not be there, and a device's weight needs it
/// to be the device's.
#[test]
fn every_weight_of_block_io() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let bfq = is_there("io.bfq.weight");
    let on_v2 = if bfq {
        ("io.bfq.weight", "default 100")
    } else {
        ("io.weight", "default 910")
    };
    check(&[
        (
            json!({"blockIO": {"weight": 100}}),
            "blockIO.weight",
            &[("blkio.bfq.weight", "100")],
            &[on_v2],
        ),
        (
            json!({"blockIO": {"leafWeight": 100}}),
            "blockIO.leafWeight",
            &[("blkio.leaf_weight", "100")],
            REFUSED,
        ),
    ]);
    let has_weights = bfq || is_there("blkio.bfq.weight_device");
    let disk = disk().filter(|(name, ..)| !has_weights || is_scheduled_by_bfq(name));
    needs!(disk.is_some(), "no disk that is scheduled by BFQ");
    let (_, major, minor) = disk.unwrap_or_default();
    let weights = json!([{"major": major, "minor": minor, "weight": 200}]);
    let line = format!("{major}:{minor} 200");
    check(&[(
        json!({"blockIO": {"weightDevice": weights}}),
        "blockIO.weightDevice",
        &[("blkio.bfq.weight_device", &line)],
        &[("io.bfq.weight", &line)],
    )]);
}

fn is_scheduled_by_bfq(disk: &str) -> bool {
    let file = Path::new("/sys/block").join(disk).join("queue/scheduler");
    fs::read_to_string(file).is_ok_and(|text| text.contains("[bfq]"))
}

/// The first disk with a queue of its own, and its number.
fn disk() -> Option<(String, u32, u32)> {
    let mut disks: Vec<_> = fs::read_dir("/sys/block").ok()?.flatten().collect();
    disks.sort_by_key(fs::DirEntry::file_name);
    let name = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let disk = disks.into_iter().find(|entry| {
        !["loop", "ram", "dm-"]
            .iter()
            .any(|kind| name(entry).starts_with(kind))
    })?;
    let text = fs::read_to_string(disk.path().join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some((name(&disk), major.parse().ok()?, minor.parse().ok()?))
}

/// Pages that are used and pages that are promised count alike.
#[test]
fn every_field_of_hugepages_network_and_rdma() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let pages = json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]});
    let on_v2 = [
        ("hugetlb.2MB.max", "4194304"),
        ("hugetlb.2MB.rsvd.max", "4194304"),
    ];
    let on_v1 = [
        ("hugetlb.2MB.limit_in_bytes", "4194304"),
        ("hugetlb.2MB.rsvd.limit_in_bytes", "4194304"),
    ];
    let in_cgroup2 = Path::new("/sys/fs/cgroup/unified/cgroup.controllers");
    let is_hybrid = fs::read_to_string(in_cgroup2).is_ok_and(|text| text.contains("hugetlb"));
    check(&[
        (
            pages,
            "hugepageLimits",
            if is_hybrid { &on_v2 } else { &on_v1 },
            &on_v2,
        ),
        (
            json!({"network": {"classID": 1_048_577}}),
            "network.classID",
            &[("net_cls.classid", "1048577")],
            REFUSED,
        ),
        (
            json!({"network": {"priorities": [{"name": "lo", "priority": 5}]}}),
            "network.priorities",
            &[("net_prio.ifpriomap", "lo 5")],
            REFUSED,
        ),
        (
            json!({"rdma": {"none0": {"hcaHandles": 3, "hcaObjects": 10}}}),
            "rdma",
            REFUSED,
            REFUSED,
        ),
    ]);
}

#[test]
fn files_of_v2_by_name() {
    needs!(is_root(), "needs root");
    gocker_only!();
    check(&[(
        json!({"unified": {
            "memory.high": "50331648", "memory.oom.group": "1", "cpu.weight": "55",
            "pids.max": "44", "cgroup.max.descendants": "9",
        }}),
        "unified",
        REFUSED,
        &[
            ("memory.high", "50331648"),
            ("memory.oom.group", "1"),
            ("cpu.weight", "55"),
            ("pids.max", "44"),
            ("cgroup.max.descendants", "9"),
        ],
    )]);
}

/// One line that names the field; nothing is left, and nobody was started.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_cannot_be_is_refused_by_the_field() {
    needs!(is_root(), "needs root");
    gocker_only!();
    let rate = json!([{"major": 4095, "minor": 1, "rate": 1000}]);
    for (resources, field) in [
        (
            json!({"memory": {"limit": 64 * MIB, "swap": 32 * MIB}}),
            "memory.swap: ",
        ),
        (
            json!({"memory": {"limit": -1, "swap": 32 * MIB}}),
            "memory.swap: ",
        ),
        (json!({"memory": {"swap": 32 * MIB}}), "memory.swap: "),
        (json!({"memory": {"limit": -2}}), "memory.limit: "),
        (
            json!({"memory": {"swappiness": 101}}),
            "memory.swappiness: ",
        ),
        (json!({"cpu": {"quota": 999}}), "cpu.quota: "),
        (json!({"cpu": {"period": 999}}), "cpu.period: "),
        (json!({"cpu": {"period": 1_000_001}}), "cpu.period: "),
        (
            json!({"cpu": {"quota": 10_000, "burst": 10_001}}),
            "cpu.burst: ",
        ),
        (json!({"cpu": {"idle": 2}}), "cpu.idle: "),
        (json!({"cpu": {"cpus": "4000"}}), "cpu.cpus: "),
        (json!({"cpu": {"mems": "63"}}), "cpu.mems: "),
        (json!({"pids": {"limit": -2}}), "pids.limit: "),
        (json!({"blockIO": {"weight": 5}}), "blockIO.weight: "),
        (
            json!({"blockIO": {"throttleReadBpsDevice": rate}}),
            "blockIO.throttleReadBpsDevice[0]: ",
        ),
        (
            json!({"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}),
            "hugepageLimits[0]",
        ),
        (
            json!({"rdma": {"a b": {"hcaHandles": 1}}}),
            "rdma[\"a b\"]: ",
        ),
        (
            json!({"unified": {"memory/x.max": "1"}}),
            "unified[\"memory/x.max\"]: ",
        ),
        (
            json!({"unified": {"../pids.max": "1"}}),
            "unified[\"../pids.max\"]: ",
        ),
        (
            json!({"unified": {"cgroup.procs": "1"}}),
            "unified[\"cgroup.procs\"]: ",
        ),
        (
            json!({"unified": {"nothing.max": "1"}}),
            "unified[\"nothing.max\"]: ",
        ),
        (
            json!({"unified": {"memory.nothing": "1"}}),
            "unified[\"memory.nothing\"]: ",
        ),
    ] {
        let bundle = TestBundle::sleeper().set("/linux/resources", resources.clone());
        let output = bundle.container().create(&[]);
        let line = output.one_line_failure();
        assert!(
            line.contains(&format!("linux.resources.{field}")),
            "{resources}: {line}"
        );
        bundle.assert_nothing_left();
    }
}
