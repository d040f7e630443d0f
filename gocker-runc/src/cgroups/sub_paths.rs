//! `--cgroup`: where beneath the container's cgroup a process of `exec` goes.
//!
//! ```text
//! --cgroup PATH                        the same place in every hierarchy
//! --cgroup CONTROLLER[,CONTROLLER]:PATH   v1, once for each place that differs
//! ```

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::Error;

/// Places beneath the container's cgroup, by controller; under the empty name for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SubPaths(BTreeMap<String, PathBuf>);

impl SubPaths {
    /// Reads the values of `--cgroup`.
    ///
    /// # Errors
    /// The value, and what is wrong with it.
    pub(crate) fn parse(values: &[String]) -> Result<Self, Error> {
        let mut paths = BTreeMap::new();
        for value in values {
            let refuse = |problem: &'static str| Error::SubPath {
                value: value.clone(),
                problem: problem.into(),
            };
            let (controllers, path) = value.split_once(':').unwrap_or(("", value));
            if !value.contains(':') && values.len() > 1 {
                return Err(refuse("one path for all controllers stands alone"));
            }
            let path = beneath(path).ok_or_else(|| refuse("no .. and no : may be in the path"))?;
            for controller in controllers.split(',') {
                if controller.is_empty() && value.contains(':') {
                    return Err(refuse("a controller's name is empty"));
                }
                if paths.insert(controller.to_owned(), path.clone()).is_some() {
                    return Err(refuse("the controller is given twice"));
                }
            }
        }
        Ok(Self(paths))
    }

    /// Whether a place was asked for, and be it the container's cgroup itself.
    pub(crate) fn are_given(&self) -> bool {
        !self.0.is_empty()
    }

    /// The place for all controllers; empty for the container's cgroup itself.
    ///
    /// # Errors
    /// A controller has a place of its own, which v2 cannot give it.
    pub(crate) fn for_all(&self) -> Result<&Path, Error> {
        match self.0.first_key_value() {
            Some((controller, path)) if !controller.is_empty() => Err(Error::SubPath {
                value: format!("{controller}:{}", path.display()),
                problem: "cgroup v2 has one place for all controllers: give the path alone".into(),
            }),
            found => Ok(found.map_or(Path::new(""), |(_, path)| path)),
        }
    }

    /// The place in the v1 hierarchy of `controllers`; empty for the container's cgroup itself.
    pub(super) fn for_hierarchy(&self, controllers: &[String]) -> &Path {
        let own = controllers
            .iter()
            .find_map(|controller| self.0.get(controller));
        own.or_else(|| self.0.get(""))
            .map_or(Path::new(""), PathBuf::as_path)
    }

    /// Checks that each controller has a hierarchy.
    ///
    /// # Errors
    /// The controller that has none.
    pub(super) fn check_known(&self, is_known: impl Fn(&str) -> bool) -> Result<(), Error> {
        let unknown = |(controller, _): &(&String, &PathBuf)| {
            !controller.is_empty() && !is_known(controller.as_str())
        };
        match self.0.iter().find(unknown) {
            Some((controller, path)) => Err(Error::SubPath {
                value: format!("{controller}:{}", path.display()),
                problem: format!("the container has no cgroup of a controller {controller:?}"),
            }),
            None => Ok(()),
        }
    }
}

/// The names of a path, without its root; None where it would climb.
fn beneath(path: &str) -> Option<PathBuf> {
    if path.contains([':', '\0']) {
        return None;
    }
    let mut names = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(values: &[&str]) -> Result<SubPaths, String> {
        let values: Vec<String> = values.iter().map(ToString::to_string).collect();
        SubPaths::parse(&values).map_err(|error| error.to_string())
    }

    #[test]
    fn places() {
        let all = parse(&["/a/./b"]).expect("parses");
        assert_eq!(all.for_all().expect("is for all"), Path::new("a/b"));
        let hierarchy = ["cpu".to_owned(), "cpuacct".to_owned()];
        assert_eq!(all.for_hierarchy(&hierarchy), Path::new("a/b"));
        let some = parse(&["cpu:x", "memory,pids:/y"]).expect("parses");
        assert_eq!(some.for_hierarchy(&hierarchy), Path::new("x"));
        assert_eq!(some.for_hierarchy(&["pids".into()]), Path::new("y"));
        assert_eq!(some.for_hierarchy(&["devices".into()]), Path::new(""));
        some.for_all().expect_err("has controllers");
        some.check_known(|name| name != "pids")
            .expect_err("is unknown");
        some.check_known(|_| true).expect("are known");
        let none = parse(&[]).expect("parses");
        assert!(!none.are_given() && parse(&["/"]).expect("parses").are_given());
        assert_eq!(none.for_all().expect("is the top"), Path::new(""));
    }

    #[test]
    fn refusals() {
        let cases: &[&[&str]] = &[
            &[".."],
            &["a/../../b"],
            &["a", "b"],
            &["cpu:a", "b"],
            &["cpu:a:b"],
            &[":a"],
            &["cpu,:a"],
            &["cpu:a", "cpu:b"],
            &["cpu:../a"],
        ];
        for values in cases {
            let error = parse(values).expect_err("is refused");
            assert!(error.starts_with("--cgroup "), "{values:?}: {error}");
        }
    }
}
