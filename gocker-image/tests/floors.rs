//! The floors of the library, as `src/lib.rs` draws them: a module may import
//! from the floors below its own, and never from its neighbours.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// The modules by floor, the highest first.
const FLOORS: [&[&str]; 6] = [
    &["front"],
    &["commands"],
    &["cli", "run_args", "progress", "report", "table"],
    &["operations"],
    &[
        "registry",
        "store",
        "unpack",
        "pack",
        "trust",
        "loop_device",
    ],
    &[
        "image",
        "reference",
        "digest",
        "interrupt",
        "errno",
        "environment",
        "btrfs",
        "descent",
    ],
];

/// Neighbours that may use each other, each with its reason.
const ALLOWED: &[(&str, &str)] = &[
    // a command line is made of the arguments of its commands
    ("cli", "commands"),
    // and of those that several have, in the forms that it reads
    ("cli", "run_args"),
    ("run_args", "cli"),
    // progress is written to the terminal in the way that all else is
    ("progress", "report"),
    // the store keeps its layers on the file system that is made for it
    ("store", "loop_device"),
    // what is packed is named by the rules of what unpacks it
    ("pack", "unpack"),
    // descriptors, references and system calls stand on digests and errnos
    ("image", "digest"),
    ("reference", "digest"),
    ("btrfs", "errno"),
    ("descent", "errno"),
    ("interrupt", "errno"),
];

#[test]
fn modules_import_only_from_lower_floors() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for path in files(&source).unwrap() {
        let relative = path.strip_prefix(&source).unwrap();
        let own = relative
            .iter()
            .next()
            .unwrap()
            .to_str()
            .unwrap()
            .trim_end_matches(".rs");
        let Some(own_floor) = floor(own) else {
            continue;
        };
        for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            for import in imports(line) {
                let goes_down = floor(&import).is_none_or(|floor| floor > own_floor);
                let is_allowed = ALLOWED.contains(&(own, import.as_str()));
                if import != own && !goes_down && !is_allowed {
                    wrong.push(format!("{}:{}: {import}", relative.display(), number + 1));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "imports from above or beside:\n{}",
        wrong.join("\n")
    );
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// The modules that a line names by `crate::`, lists in braces too.
fn imports(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for rest in line.split("crate::").skip(1) {
        let list = rest.strip_prefix('{').and_then(|list| list.split_once('}'));
        let names = list.map_or(rest, |(names, _)| names);
        let names = if list.is_some() {
            names.split(',').collect()
        } else {
            vec![names]
        };
        let word = |name: &str| -> String {
            name.trim()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect()
        };
        found.extend(names.into_iter().map(word));
    }
    found
}

fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}
