//! NUMA memory policies: config-linux.md#memory-policy. A machine of one node has them, too.

use conformance::host::is_root;
use conformance::{TestBundle, gocker_only, needs};
use serde_json::{Value, json};

/// What the kernel says of the memory of the process that reads it.
const SHOW: &str = "head -n1 /proc/self/numa_maps | cut -d' ' -f2";

fn with_policy(policy: Value) -> TestBundle {
    TestBundle::shell(SHOW).set("/linux/memoryPolicy", policy)
}

#[test]
fn the_process_and_those_of_exec_have_the_policy() {
    needs!(is_root(), "needs root");
    gocker_only!();
    needs!(
        std::path::Path::new("/proc/self/numa_maps").exists(),
        "this kernel has no NUMA"
    );
    for (policy, shown) in [
        (json!({"mode": "MPOL_BIND", "nodes": "0"}), "bind:0"),
        (
            json!({"mode": "MPOL_INTERLEAVE", "nodes": "0-0"}),
            "interleave:0",
        ),
        (
            json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}),
            "bind=static:0",
        ),
        (json!({"mode": "MPOL_LOCAL"}), "local"),
        (json!({"mode": "MPOL_DEFAULT"}), "default"),
    ] {
        assert_eq!(
            with_policy(policy.clone()).run_ok().trim(),
            shown,
            "{policy}"
        );
    }
    let policy = json!({"mode": "MPOL_BIND", "nodes": "0"});
    let bundle = TestBundle::sleeper().set("/linux/memoryPolicy", policy);
    let _container = bundle.running();
    let output = bundle.call(&["exec", bundle.id(), "/bin/sh", "-c", SHOW]);
    assert_eq!(output.success().trim(), "bind:0");
}

#[test]
fn a_policy_that_cannot_be_is_refused_by_its_field() {
    needs!(is_root(), "needs root");
    gocker_only!();
    for (policy, field) in [
        (json!({"mode": "MPOL_BIND"}), "linux.memoryPolicy.nodes"),
        (
            json!({"mode": "MPOL_LOCAL", "nodes": "0"}),
            "linux.memoryPolicy.nodes",
        ),
        (
            json!({"mode": "MPOL_BIND", "nodes": "x"}),
            "linux.memoryPolicy.nodes",
        ),
        (
            json!({"mode": "MPOL_WRONG", "nodes": "0"}),
            "linux.memoryPolicy.mode",
        ),
        // The kernel knows its nodes.
        (
            json!({"mode": "MPOL_BIND", "nodes": "1000"}),
            "linux.memoryPolicy",
        ),
    ] {
        let bundle = with_policy(policy);
        let output = bundle.run();
        let line = output.one_line_failure();
        assert!(line.contains(field), "{output}");
        bundle.assert_nothing_left();
    }
}
