//! `linux.intelRdt`: a share of the processor's cache and memory bandwidth, by resctrl groups.
//!
//! ```text
//! /sys/fs/resctrl               info/last_cmd_status
//!     CLOSID or the id          schemata  tasks
//!         mon_groups/ID         tasks  mon_data/       (enableMonitoring)
//! ```
//! A group that the configuration names by `closID` outlives the container; one that is called
//! as the container is goes with it.
//!
//! Spec: config-linux.md#intelrdt; <https://docs.kernel.org/filesystems/resctrl.html>

mod stats;

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use bundles::FieldError;
use nix::errno::Errno;
use nix::unistd::Pid;
use oci_spec::runtime::LinuxIntelRdt;
use serde::{Deserialize, Serialize};

use crate::sys::errno::describe;
pub(crate) use stats::Stats;

const FIELD: &str = "linux.intelRdt";
/// What the kernel has in the place of groups.
const TAKEN: [&str; 5] = [".", "..", "info", "mon_groups", "mon_data"];

/// What the section asks for; nothing is made yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Where resctrl is mounted.
    root: PathBuf,
    /// The container's id, and the group's where it is not named.
    id: String,
    clos_id: Option<String>,
    /// Each line, with the field that asks for it.
    lines: Vec<(String, String)>,
    is_monitored: bool,
}

/// The container's groups: what `state.json` keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Groups {
    /// Where resctrl is mounted.
    root: PathBuf,
    /// The group that has the share.
    group: PathBuf,
    /// Whether it goes with the container.
    is_own: bool,
    /// The group that is only watched.
    monitor: Option<PathBuf>,
}

/// A step that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A field that cannot be served here.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// The kernel's answer, and what it says of it in `info/last_cmd_status`.
    #[error("{field}: {step} {path:?}: {}{}", describe(*answer), in_parentheses(.status))]
    Kernel {
        /// The field that asked.
        field: String,
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        answer: Errno,
        /// What it says of it.
        status: String,
    },
}

fn in_parentheses(status: &str) -> String {
    match status {
        "" | "ok" => String::new(),
        status => format!(" ({status})"),
    }
}

/// Finds where resctrl is mounted.
///
/// # Errors
/// It is not.
pub(crate) fn find_root(proc: &Path) -> Result<PathBuf, FieldError> {
    let mounts = fs::read_to_string(proc.join("self/mounts")).unwrap_or_default();
    let found = mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let point = words.nth(1)?;
        (words.next()? == "resctrl").then(|| PathBuf::from(point))
    });
    found.ok_or_else(|| {
        let problem = "no resctrl file system is mounted: this machine's processor or kernel has \
                       no Intel RDT, or it awaits `mount -t resctrl resctrl /sys/fs/resctrl`";
        FieldError::new(FIELD, problem)
    })
}

impl Wish {
    /// Reads the section, for the resctrl that is mounted at `root`.
    ///
    /// # Errors
    /// A `closID` that no group can have, or that is not there and nothing says what it is to be.
    pub(crate) fn new(spec: &LinuxIntelRdt, id: &str, root: PathBuf) -> Result<Self, FieldError> {
        let refuse =
            |field: &str, problem: String| FieldError::new(format!("{FIELD}.{field}"), problem);
        let clos_id = spec.clos_id().clone().filter(|id| !id.is_empty());
        if let Some(name) = &clos_id
            && (TAKEN.contains(&name.as_str()) || name.contains(['/', '\n', '\0']))
        {
            return Err(refuse(
                "closID",
                format!("{name:?} cannot be a group's name"),
            ));
        }
        let lines = lines(spec)?;
        if let Some(name) = clos_id.as_ref().filter(|_| lines.is_empty())
            && !root.join(name).is_dir()
        {
            let problem = format!(
                "{:?} is not there, and no schema says what it is to be",
                root.join(name)
            );
            return Err(refuse("closID", problem));
        }
        // The latter two are what configurations before 1.3.0 of the specification have.
        let monitors = [
            spec.enable_monitoring(),
            spec.enable_cmt(),
            spec.enable_mbm(),
        ];
        Ok(Self {
            root,
            id: id.to_owned(),
            clos_id,
            lines,
            is_monitored: monitors.into_iter().any(|is| *is == Some(true)),
        })
    }

    /// What [`Self::make`] will make, to be kept before it does.
    pub(crate) fn groups(&self) -> Groups {
        let group = self.root.join(self.clos_id.as_ref().unwrap_or(&self.id));
        Groups {
            root: self.root.clone(),
            monitor: self
                .is_monitored
                .then(|| group.join("mon_groups").join(&self.id)),
            group,
            is_own: self.clos_id.is_none(),
        }
    }

    /// Makes the groups, with their schemata. What it made is for [`Groups::remove`].
    ///
    /// # Errors
    /// The field and the kernel's answer; a group that is there and has other schemata.
    pub(crate) fn make(&self, groups: &Groups) -> Result<(), Error> {
        let is_new = groups.make_dir("closID", &groups.group)?;
        if is_new || groups.is_own {
            groups.write_schemata(&self.lines)?;
        } else {
            groups.compare(&self.lines)?;
        }
        if let Some(monitor) = &groups.monitor {
            groups.make_dir("enableMonitoring", monitor)?;
        }
        Ok(())
    }
}

/// The lines of the schemata file that the section asks for.
fn lines(spec: &LinuxIntelRdt) -> Result<Vec<(String, String)>, FieldError> {
    let texts = [
        ("l3CacheSchema", spec.l3_cache_schema()),
        ("memBwSchema", spec.mem_bw_schema()),
    ];
    let mut lines = Vec::new();
    for (field, text) in texts {
        for line in text.as_deref().unwrap_or_default().lines() {
            // runc, too, leaves memory bandwidth to its own field.
            if !(field == "l3CacheSchema" && line.trim_start().starts_with("MB:")) {
                lines.push((field.to_owned(), line.trim().to_owned()));
            }
        }
    }
    for (index, text) in spec.schemata().iter().flatten().enumerate() {
        lines.push((format!("schemata[{index}]"), text.trim().to_owned()));
    }
    for (field, line) in &lines {
        if !line.contains(':') || line.contains(['\n', '\0']) {
            let problem = format!("{line:?} is not a schema, as L3:0=f is one");
            return Err(FieldError::new(format!("{FIELD}.{field}"), problem));
        }
    }
    Ok(lines)
}

impl Groups {
    /// Puts process `pid` into the groups; its children follow it.
    ///
    /// # Errors
    /// The kernel's answer.
    pub(crate) fn enter(&self, pid: Pid) -> Result<(), Error> {
        let dir = self.monitor.as_ref().unwrap_or(&self.group);
        // A group to watch takes only who is in the group above it.
        for dir in [&self.group, dir]
            .into_iter()
            .take(1 + usize::from(self.monitor.is_some()))
        {
            self.write("closID", &dir.join("tasks"), &pid.to_string())?;
        }
        Ok(())
    }

    /// Changes the share.
    ///
    /// # Errors
    /// A text that is no schema; the kernel's answer.
    pub(crate) fn update(&self, l3: Option<&str>, bandwidth: Option<&str>) -> Result<(), Error> {
        let mut spec = LinuxIntelRdt::default();
        spec.set_l3_cache_schema(l3.map(str::to_owned));
        spec.set_mem_bw_schema(bandwidth.map(str::to_owned));
        self.write_schemata(&lines(&spec)?)
    }

    /// Removes what goes with the container. What is gone is no error.
    ///
    /// # Errors
    /// The kernel's answer.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        let own = self.is_own.then_some(&self.group);
        for dir in self.monitor.iter().chain(own) {
            match fs::remove_dir(dir) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(self.failed("closID", "remove", dir, &error));
                }
                _ => (),
            }
        }
        Ok(())
    }

    fn make_dir(&self, field: &str, dir: &Path) -> Result<bool, Error> {
        match fs::create_dir(dir) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(self.failed(field, "make", dir, &error)),
        }
    }

    /// Each line by itself, so that the one that is refused can be told.
    fn write_schemata(&self, lines: &[(String, String)]) -> Result<(), Error> {
        let path = self.group.join("schemata");
        lines
            .iter()
            .try_for_each(|(field, line)| self.write(field, &path, &format!("{line}\n")))
    }

    /// A group that others may use is not changed.
    fn compare(&self, lines: &[(String, String)]) -> Result<(), Error> {
        let path = self.group.join("schemata");
        let text = fs::read_to_string(&path)
            .map_err(|error| self.failed("closID", "read", &path, &error))?;
        for (field, line) in lines {
            let wanted = parts(line);
            let has = text.lines().map(parts).any(|(name, shares)| {
                name == wanted.0 && wanted.1.iter().all(|share| shares.contains(share))
            });
            if !has {
                let problem = format!("{line:?} is not what the group {:?} has", self.group);
                return Err(FieldError::new(format!("{FIELD}.{field}"), problem).into());
            }
        }
        Ok(())
    }

    fn write(&self, field: &str, path: &Path, text: &str) -> Result<(), Error> {
        let opened = fs::OpenOptions::new().append(true).open(path);
        let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| self.failed(field, "write", path, &error))
    }

    fn failed(&self, field: &str, step: &'static str, path: &Path, error: &io::Error) -> Error {
        let status = fs::read_to_string(self.root.join("info/last_cmd_status"));
        Error::Kernel {
            field: format!("{FIELD}.{field}"),
            step,
            path: path.to_owned(),
            answer: error.raw_os_error().map_or(Errno::EIO, Errno::from_raw),
            status: status.unwrap_or_default().trim().to_owned(),
        }
    }
}

/// `L3:0=00f;1=f` as its name and its shares, without what says nothing.
fn parts(line: &str) -> (String, Vec<(String, String)>) {
    let (name, shares) = line.split_once(':').unwrap_or((line, ""));
    let share = |share: &str| {
        let (domain, value) = share.split_once('=')?;
        let value = value.trim().trim_start_matches('0').to_ascii_lowercase();
        Some((domain.trim().to_owned(), value))
    };
    (
        name.trim().to_owned(),
        shares.split(';').filter_map(share).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(json: &str, root: &Path) -> Result<Wish, FieldError> {
        let spec = serde_json::from_str(json).expect("is well-formed");
        Wish::new(&spec, "web", root.to_owned())
    }

    /// A tree as the kernel would show it, whose groups have their files already.
    fn fake(groups: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("has a directory");
        fs::create_dir(root.path().join("info")).expect("is made");
        fs::write(
            root.path().join("info/last_cmd_status"),
            "mask f out of range\n",
        )
        .expect("is written");
        for group in groups {
            let dir = root.path().join(group);
            fs::create_dir_all(dir.join("mon_groups/web")).expect("is made");
            fs::write(dir.join("schemata"), "").expect("is written");
            fs::write(dir.join("tasks"), "").expect("is written");
            fs::write(dir.join("mon_groups/web/tasks"), "").expect("is written");
        }
        root
    }

    #[test]
    fn a_group_of_the_containers_own() {
        let root = fake(&["web"]);
        let json =
            r#"{"l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=50", "schemata": ["L2:0=3"]}"#;
        let wish = wish(json, root.path()).expect("can be served");
        let groups = wish.groups();
        wish.make(&groups).expect("is made");
        groups.enter(Pid::from_raw(7)).expect("is entered");
        let read = |file: &str| fs::read_to_string(root.path().join(file)).expect("is there");
        assert_eq!(read("web/schemata"), "L3:0=f\nMB:0=50\nL2:0=3\n");
        assert_eq!(
            (read("web/tasks"), read("web/mon_groups/web/tasks")),
            ("7".into(), String::new())
        );
        groups.update(Some("L3:0=3"), None).expect("is changed");
        assert!(read("web/schemata").ends_with("L3:0=3\n"));
        let error = groups
            .update(None, Some("half"))
            .expect_err("is no schema")
            .to_string();
        assert_eq!(
            error,
            "linux.intelRdt.memBwSchema: \"half\" is not a schema, as L3:0=f is one"
        );
    }

    #[test]
    fn a_group_that_is_named_stays_and_is_not_changed() {
        let root = fake(&["gold"]);
        fs::write(
            root.path().join("gold/schemata"),
            "    L3:0=00f;1=fff\n    MB:0=100\n",
        )
        .expect("is written");
        let json = r#"{"closID": "gold", "l3CacheSchema": "L3:0=f", "enableMonitoring": true}"#;
        let same = wish(json, root.path()).expect("can be served");
        let groups = same.groups();
        same.make(&groups).expect("is the same");
        groups.enter(Pid::from_raw(7)).expect("is entered");
        let watched = fs::read_to_string(root.path().join("gold/mon_groups/web/tasks"));
        assert_eq!(watched.expect("is there"), "7");
        fs::remove_file(root.path().join("gold/mon_groups/web/tasks")).expect("is removed");
        groups.remove().expect("is removed");
        assert!(!root.path().join("gold/mon_groups/web").exists());
        assert!(root.path().join("gold").is_dir());
        groups.remove().expect("is gone already");

        let other = wish(
            r#"{"closID": "gold", "l3CacheSchema": "L3:0=ff"}"#,
            root.path(),
        );
        let other = other.expect("can be served");
        let error = other
            .make(&other.groups())
            .expect_err("differs")
            .to_string();
        let expected = format!(
            "linux.intelRdt.l3CacheSchema: \"L3:0=ff\" is not what the group {:?} has",
            root.path().join("gold")
        );
        assert_eq!(error, expected);
    }

    #[test]
    fn what_cannot_be_served() {
        let root = fake(&[]);
        let gone = root.path().join("gone");
        for (json, expected) in [
            (
                r#"{"closID": "info"}"#,
                "closID: \"info\" cannot be a group's name".to_owned(),
            ),
            (
                r#"{"closID": "../x"}"#,
                "closID: \"../x\" cannot be a group's name".into(),
            ),
            (
                r#"{"closID": "gone"}"#,
                format!("closID: {gone:?} is not there, and no schema says what it is to be"),
            ),
            (
                r#"{"schemata": ["L3"]}"#,
                "schemata[0]: \"L3\" is not a schema, as L3:0=f is one".into(),
            ),
        ] {
            let error = wish(json, root.path()).expect_err(json).to_string();
            assert_eq!(error, format!("linux.intelRdt.{expected}"));
        }
        // The kernel makes the files of a new group; where there are none, that is told.
        let new = wish(r#"{"l3CacheSchema": "L3:0=f"}"#, root.path()).expect("can be served");
        let error = new
            .make(&new.groups())
            .expect_err("no such file")
            .to_string();
        let path = root.path().join("web/schemata");
        let expected = format!(
            "linux.intelRdt.l3CacheSchema: write {path:?}: no such file or directory (ENOENT) \
             (mask f out of range)"
        );
        assert_eq!(error, expected);
        new.groups().remove().expect("is removed");
        assert!(!root.path().join("web").exists());
    }

    #[test]
    fn where_resctrl_is_mounted() {
        let proc = tempfile::tempdir().expect("has a directory");
        fs::create_dir(proc.path().join("self")).expect("is made");
        let mounts = proc.path().join("self/mounts");
        fs::write(&mounts, "proc /proc proc rw 0 0\n").expect("is written");
        let error = find_root(proc.path())
            .expect_err("is not mounted")
            .to_string();
        assert!(
            error.starts_with("linux.intelRdt: no resctrl file system"),
            "{error}"
        );
        fs::write(&mounts, "resctrl /sys/fs/resctrl resctrl rw 0 0\n").expect("is written");
        assert_eq!(find_root(proc.path()), Ok(PathBuf::from("/sys/fs/resctrl")));
    }
}
