//! A module may import only from the floors below its own: ARCHITECTURE.md draws them.

use std::fs;
use std::path::Path;

/// The highest floor first.
const FLOORS: [&[&str]; 6] = [
    &["cli", "commands"],
    &["operations"],
    &["init"],
    &["container", "process"],
    &[
        "accounts",
        "capabilities",
        "cgroups",
        "console",
        "cpu_affinity",
        "criu",
        "errors",
        "hooks",
        "intel_rdt",
        "logging",
        "lsm",
        "memory_policy",
        "namespaces",
        "network_devices",
        "rlimits",
        "rootfs",
        "rootless",
        "scheduling",
        "seccomp",
        "sysctl",
    ],
    &["sys"],
];

/// The command line is made of the commands' arguments, and the commands read its globals.
const SIBLINGS: [(&str, &str); 2] = [("cli", "commands"), ("commands", "cli")];

fn floor(module: &str) -> usize {
    let found = FLOORS.iter().position(|floor| floor.contains(&module));
    found.unwrap_or_else(|| panic!("{module} stands on no floor"))
}

fn check(path: &Path, module: &str, wrong: &mut Vec<String>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("listed") {
            check(&entry.expect("listed").path(), module, wrong);
        }
        return;
    }
    let text = fs::read_to_string(path).expect("read");
    // `use crate::{a, b::c}` names modules in braces: split that list, too.
    for part in text.split("crate::").skip(1) {
        let list = part
            .strip_prefix('{')
            .and_then(|list| list.split('}').next());
        for name in list
            .unwrap_or(part)
            .split(if list.is_some() { ',' } else { '\0' })
        {
            let end = name
                .trim()
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let import = &name.trim()[..end.unwrap_or(name.trim().len())];
            let goes_down = import.is_empty() || import == module || floor(import) > floor(module);
            if !goes_down && !SIBLINGS.contains(&(module, import)) {
                wrong.push(format!("{}: {import}", path.display()));
            }
        }
    }
}

#[test]
fn modules_import_only_from_lower_floors() {
    let mut wrong = Vec::new();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("listed") {
        let path = entry.expect("listed").path();
        let module = path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if module != "lib" && module != "bin" {
            check(&path, &module, &mut wrong);
        }
    }
    assert!(
        wrong.is_empty(),
        "imports that do not go down:\n{}",
        wrong.join("\n")
    );
}
