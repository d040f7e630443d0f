//! Names: `linux.cgroupsPath` as `slice:prefix:name`, the unit that it means, and where systemd
//! puts that.
//!
//! ```text
//! cgroupsPath                     unit                 cgroup
//! system.slice:docker:web         docker-web.scope     /system.slice/docker-web.scope
//! a-b.slice:cri:web               cri-web.scope        /a.slice/a-b.slice/cri-web.scope
//! ::web                           web.scope            /DEFAULT/web.scope
//! a.slice::a-b.slice              a-b.slice            /a.slice/a-b.slice
//! (none)                          runc-ID.scope        /DEFAULT/runc-ID.scope
//! ```
//! DEFAULT is `system.slice`, and for a user's own systemd `user.slice`.
//!
//! See <https://www.freedesktop.org/software/systemd/man/latest/systemd.slice.html>.

use bundles::FieldError;

/// What systemd takes in a unit's name.
const LONGEST: usize = 255;
const SIGNS: &str = ":-_.\\@";

/// A unit, and the slice that it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) unit: String,
    pub(super) slice: String,
}

impl Name {
    /// Reads `linux.cgroupsPath`; without one the unit is called as the container is.
    pub(super) fn parse(
        cgroups_path: Option<&str>,
        id: &str,
        default_slice: &str,
    ) -> Result<Self, FieldError> {
        let refuse = |problem: String| FieldError::new("linux.cgroupsPath", problem);
        let text = cgroups_path.filter(|path| !path.is_empty());
        let (slice, prefix, name) = match text.map(|text| text.split(':').collect::<Vec<_>>()) {
            None => ("", "runc", id),
            Some(parts) => match parts.as_slice() {
                [slice, prefix, name] => (*slice, *prefix, *name),
                _ => {
                    let text = text.unwrap_or_default();
                    return Err(refuse(format!(
                        "{text:?} is not of the form slice:prefix:name, which --systemd-cgroup needs"
                    )));
                }
            },
        };
        let slice = if slice.is_empty() {
            default_slice
        } else {
            slice
        };
        let unit = match (name, prefix) {
            // A slice holds others and is called by its own name.
            (name, _) if name.ends_with(".slice") => name.to_owned(),
            (name, "") => format!("{name}.scope"),
            (name, prefix) => format!("{prefix}-{name}.scope"),
        };
        if name.is_empty() {
            return Err(refuse(format!(
                "{:?} names no unit",
                text.unwrap_or_default()
            )));
        }
        for part in [slice, unit.as_str()] {
            if !is_unit_name(part) {
                return Err(refuse(format!("{part:?} is not a name that systemd takes")));
            }
        }
        let name = Self {
            unit,
            slice: slice.to_owned(),
        };
        match (slice_path(&name.slice), name.is_slice()) {
            (None, _) => Err(refuse(format!(
                "{slice:?} is not a slice, such as \"a-b.slice\""
            ))),
            (Some(_), true) if slice_path(&name.unit).is_none() => Err(refuse(format!(
                "{:?} is not a slice, such as \"a-b.slice\"",
                name.unit
            ))),
            _ => Ok(name),
        }
    }

    /// Whether the unit is itself a slice.
    pub(super) fn is_slice(&self) -> bool {
        self.unit.ends_with(".slice")
    }

    /// The cgroup, beneath the one of the systemd that makes it.
    pub(super) fn cgroup(&self) -> String {
        if self.is_slice() {
            return format!("/{}", slice_path(&self.unit).unwrap_or_default());
        }
        match slice_path(&self.slice).as_deref() {
            None | Some("") => format!("/{}", self.unit),
            Some(slice) => format!("/{slice}/{}", self.unit),
        }
    }
}

/// `a-b.slice` lies in `a.slice`; `-.slice` is the root. None for what is no slice.
fn slice_path(slice: &str) -> Option<String> {
    let name = slice.strip_suffix(".slice")?;
    if name == "-" {
        return Some(String::new());
    }
    let mut path = String::new();
    for (end, _) in name.match_indices('-').chain([(name.len(), "")]) {
        let part = name.get(..end)?;
        if part.is_empty() || part.ends_with('-') {
            return None;
        }
        if !path.is_empty() {
            path.push('/');
        }
        path.push_str(part);
        path.push_str(".slice");
    }
    Some(path)
}

fn is_unit_name(name: &str) -> bool {
    name.len() <= LONGEST
        && name
            .chars()
            .all(|char| char.is_ascii_alphanumeric() || SIGNS.contains(char))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_their_cgroups() {
        let table = [
            (
                Some("system.slice:docker:web"),
                "docker-web.scope",
                "/system.slice/docker-web.scope",
            ),
            (
                Some("a-b-c.slice:cri-containerd:web"),
                "cri-containerd-web.scope",
                "/a.slice/a-b.slice/a-b-c.slice/cri-containerd-web.scope",
            ),
            (Some("::web"), "web.scope", "/default.slice/web.scope"),
            (Some("-.slice:x:web"), "x-web.scope", "/x-web.scope"),
            (
                Some("a.slice:x:a-b.slice"),
                "a-b.slice",
                "/a.slice/a-b.slice",
            ),
            (Some(""), "runc-id.scope", "/default.slice/runc-id.scope"),
            (None, "runc-id.scope", "/default.slice/runc-id.scope"),
        ];
        for (path, unit, cgroup) in table {
            let name = Name::parse(path, "id", "default.slice").expect("is a name");
            assert_eq!(
                (name.unit.as_str(), name.cgroup().as_str()),
                (unit, cgroup),
                "{path:?}"
            );
        }
    }

    #[test]
    fn what_names_no_unit() {
        let form = "is not of the form slice:prefix:name, which --systemd-cgroup needs";
        let long = format!("::{}", "x".repeat(250));
        for (path, problem) in [
            ("/docker/web", format!("\"/docker/web\" {form}")),
            ("a.slice:web", format!("\"a.slice:web\" {form}")),
            ("a:b:c:d", format!("\"a:b:c:d\" {form}")),
            ("a.slice:b:", "\"a.slice:b:\" names no unit".into()),
            (
                "a:b:c",
                "\"a\" is not a slice, such as \"a-b.slice\"".into(),
            ),
            (
                "a--b.slice:b:c",
                "\"a--b.slice\" is not a slice, such as \"a-b.slice\"".into(),
            ),
            (
                "-a.slice:b:c",
                "\"-a.slice\" is not a slice, such as \"a-b.slice\"".into(),
            ),
            (
                "::a-.slice",
                "\"a-.slice\" is not a slice, such as \"a-b.slice\"".into(),
            ),
            (
                "../x.slice:b:c",
                "\"../x.slice\" is not a name that systemd takes".into(),
            ),
            (
                "::a/b",
                "\"a/b.scope\" is not a name that systemd takes".into(),
            ),
            (
                "::a+b",
                "\"a+b.scope\" is not a name that systemd takes".into(),
            ),
            (
                &long,
                format!(
                    "\"{}.scope\" is not a name that systemd takes",
                    "x".repeat(250)
                ),
            ),
        ] {
            let error = Name::parse(Some(path), "id", "default.slice").expect_err(path);
            assert_eq!(error.to_string(), format!("linux.cgroupsPath: {problem}"));
        }
    }
}
