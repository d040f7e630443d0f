//! Device rules as the two generations of cgroups need them.
//!
//! The configuration's rules are ordered, and the last one that covers an access decides. A v2
//! program can say just that. A v1 cgroup holds a default and a set of exceptions to it; rules
//! become that set here, and those that no such set can express are refused.

use bundles::FieldError;
use bundles::config::linux::resources::devices::DEFAULT_RULES;
use bundles::config::linux::resources::{DeviceAccess, DeviceKind, DeviceRule};

/// The rules of a container: those of its configuration, then those of every container.
#[must_use]
pub(crate) fn container_rules(configured: &[DeviceRule]) -> Vec<DeviceRule> {
    [configured, &DEFAULT_RULES].concat()
}

/// What a v1 devices cgroup holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exceptions {
    /// Whether devices without an exception are allowed.
    pub(super) default_allow: bool,
    pub(super) list: Vec<Exception>,
}

/// Devices of one kind that are treated otherwise than the default, for some kinds of access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exception {
    /// Block or char, never all.
    pub(super) kind: DeviceKind,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
    pub(super) access: Bits,
}

/// Kinds of access as bits, numbered as `BPF_DEVCG_ACC_*`.
pub(super) type Bits = u8;
pub(super) const MKNOD: Bits = 1;
pub(super) const READ: Bits = 2;
pub(super) const WRITE: Bits = 4;

/// The kinds of access of `access` as bits.
pub(super) fn bits(access: DeviceAccess) -> Bits {
    let bit = |has, bit| if has { bit } else { 0 };
    bit(access.mknod, MKNOD) | bit(access.read, READ) | bit(access.write, WRITE)
}

impl Exceptions {
    /// Finds the default and exceptions that say what `rules` say, starting from "all denied".
    ///
    /// # Errors
    /// A rule that cuts a hole into a wider one, which v1 cannot keep.
    pub(super) fn from_rules(rules: &[DeviceRule]) -> Result<Self, FieldError> {
        // "Allow all" is a default of its own, which is what the kernel shows for a privileged
        // container; where that cannot hold the rest, one of the defaults may with exceptions.
        let by_rule = match Self::build(rules, Default::OfRules) {
            Ok(state) => return Ok(state),
            Err(index) => index,
        };
        let denied = match Self::build(rules, Default::Deny) {
            Ok(state) => return Ok(state),
            Err(index) => index,
        };
        // Rules of every container follow those of the configuration; the first culprit is
        // one of the latter.
        Self::build(rules, Default::Allow).map_err(|_| {
            let field = format!("linux.resources.devices[{}]", by_rule.min(denied));
            let problem = "cannot be kept on cgroup v1: it takes a part out of a wider rule";
            FieldError::new(field, problem)
        })
    }

    /// # Errors
    /// The index of a rule that cuts a hole.
    fn build(rules: &[DeviceRule], default: Default) -> Result<Self, usize> {
        let mut state = Self {
            default_allow: default == Default::Allow,
            list: Vec::new(),
        };
        if state.default_allow {
            state.list = Exception::of_all().to_vec();
        }
        for (index, rule) in rules.iter().enumerate() {
            let is_all = *rule
                == DeviceRule {
                    kind: DeviceKind::All,
                    major: None,
                    minor: None,
                    access: DeviceAccess::ALL,
                    ..*rule
                };
            if is_all && (default == Default::OfRules || rule.allow == state.default_allow) {
                state = Self {
                    default_allow: rule.allow,
                    list: Vec::new(),
                };
                continue;
            }
            for exception in Exception::from_rule(rule) {
                if rule.allow == state.default_allow {
                    state.remove(exception).map_err(|Hole| index)?;
                } else {
                    state.add(exception);
                }
            }
        }
        state.complete();
        Ok(state)
    }

    /// Makes the default hold again for what `part` covers.
    fn remove(&mut self, part: Exception) -> Result<(), Hole> {
        for exception in &mut self.list {
            let shared = exception.access & part.access;
            if shared == 0 || !exception.overlaps(&part) {
                continue;
            }
            if !part.covers(exception) {
                return Err(Hole);
            }
            exception.access &= !shared;
        }
        self.list.retain(|exception| exception.access != 0);
        Ok(())
    }

    fn add(&mut self, added: Exception) {
        let same = |exception: &&mut Exception| {
            (exception.kind, exception.major, exception.minor)
                == (added.kind, added.major, added.minor)
        };
        match self.list.iter_mut().find(same) {
            Some(exception) => exception.access |= added.access,
            None => self.list.push(added),
        }
    }

    /// Brings the list into the form in which the kernel reads it right and briefly.
    ///
    /// To allow reading and writing at once the kernel wants one exception that has both; so
    /// what several exceptions allow together is gathered in the narrowest of them.
    fn complete(&mut self) {
        if !self.default_allow {
            for (index, one) in self.list.clone().into_iter().enumerate() {
                for other in self.list.clone().into_iter().skip(index + 1) {
                    if let Some(both) = one.intersection(&other) {
                        self.add(both);
                    }
                }
            }
            let all = self.list.clone();
            for exception in &mut self.list {
                let narrow = *exception;
                for wider in all.iter().filter(|wider| wider.covers(&narrow)) {
                    exception.access |= wider.access;
                }
            }
        }
        let all = self.list.clone();
        self.list.retain(|exception| {
            !all.iter().any(|wider| {
                wider != exception
                    && wider.covers(exception)
                    && exception.access & !wider.access == 0
            })
        });
    }
}

/// What holds for a device without an exception.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Default {
    /// What the last rule for all devices says.
    OfRules,
    Deny,
    Allow,
}

/// A part of an exception cannot be taken away.
struct Hole;

impl Exception {
    /// Those for all devices.
    fn of_all() -> [Self; 2] {
        [DeviceKind::Block, DeviceKind::Char].map(|kind| Self {
            kind,
            major: None,
            minor: None,
            access: MKNOD | READ | WRITE,
        })
    }

    fn from_rule(rule: &DeviceRule) -> Vec<Self> {
        let kinds: &[DeviceKind] = match rule.kind {
            DeviceKind::All => &[DeviceKind::Block, DeviceKind::Char],
            DeviceKind::Block => &[DeviceKind::Block],
            DeviceKind::Char => &[DeviceKind::Char],
        };
        let exception = |kind: &DeviceKind| Self {
            kind: *kind,
            major: rule.major,
            minor: rule.minor,
            access: bits(rule.access),
        };
        kinds.iter().map(exception).collect()
    }

    /// Whether every device of `other` is one of this.
    fn covers(&self, other: &Self) -> bool {
        let covers = |mine: Option<u32>, theirs| mine.is_none() || mine == theirs;
        self.kind == other.kind
            && covers(self.major, other.major)
            && covers(self.minor, other.minor)
    }

    /// Whether some device is in both.
    fn overlaps(&self, other: &Self) -> bool {
        let meet = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        self.kind == other.kind && meet(self.major, other.major) && meet(self.minor, other.minor)
    }

    /// The devices in both where neither covers the other, with what both allow.
    fn intersection(&self, other: &Self) -> Option<Self> {
        let crosses = self.overlaps(other) && !self.covers(other) && !other.covers(self);
        crosses.then(|| Self {
            kind: self.kind,
            major: self.major.or(other.major),
            minor: self.minor.or(other.minor),
            access: self.access | other.access,
        })
    }

    /// The line that the kernel reads and shows: `c 1:3 rwm`.
    pub(super) fn to_line(self) -> String {
        let kind = if self.kind == DeviceKind::Block {
            'b'
        } else {
            'c'
        };
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |n| n.to_string());
        let mut line = format!("{kind} {}:{} ", number(self.major), number(self.minor));
        for (letter, bit) in [('r', READ), ('w', WRITE), ('m', MKNOD)] {
            if self.access & bit != 0 {
                line.push(letter);
            }
        }
        line
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What the specification says: for each kind of access the last rule that covers it.
    pub(in super::super) fn last_match_allows(
        rules: &[DeviceRule],
        device: (DeviceKind, u32, u32),
        access: Bits,
    ) -> bool {
        let (kind, major, minor) = device;
        [MKNOD, READ, WRITE]
            .into_iter()
            .filter(|bit| access & bit != 0)
            .all(|bit| {
                let decides = rules.iter().rev().find(|rule| {
                    (rule.kind == DeviceKind::All || rule.kind == kind)
                        && rule.major.is_none_or(|number| number == major)
                        && rule.minor.is_none_or(|number| number == minor)
                        && bits(rule.access) & bit != 0
                });
                decides.is_some_and(|rule| rule.allow)
            })
    }

    /// What the kernel makes of a v1 cgroup (security/device_cgroup.c).
    fn exceptions_allow(
        state: &Exceptions,
        (kind, major, minor): (DeviceKind, u32, u32),
        access: Bits,
    ) -> bool {
        let asked = Exception {
            kind,
            major: Some(major),
            minor: Some(minor),
            access,
        };
        let mut matching = state
            .list
            .iter()
            .filter(|exception| exception.covers(&asked));
        if state.default_allow {
            !matching.any(|exception| exception.access & access != 0)
        } else {
            matching.any(|exception| access & !exception.access == 0)
        }
    }

    /// Numbers that look random and are the same each time.
    pub(in super::super) struct Numbers(pub(in super::super) u64);

    impl Numbers {
        pub(in super::super) fn below(&mut self, bound: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % bound
        }

        fn number(&mut self) -> Option<u32> {
            [None, Some(0), Some(1), Some(2)][usize::try_from(self.below(4)).expect("is small")]
        }

        pub(in super::super) fn rule(&mut self) -> DeviceRule {
            let kinds = [DeviceKind::All, DeviceKind::Block, DeviceKind::Char];
            let access = self.below(9);
            DeviceRule {
                allow: self.below(2) == 0,
                kind: kinds[usize::try_from(self.below(3)).expect("is small")],
                major: self.number(),
                minor: self.number(),
                access: match access {
                    1..=6 => DeviceAccess {
                        mknod: access & 1 != 0,
                        read: access & 2 != 0,
                        write: access & 4 != 0,
                    },
                    _ => DeviceAccess::ALL,
                },
            }
        }

        pub(in super::super) fn rules(&mut self) -> Vec<DeviceRule> {
            (0..self.below(7)).map(|_| self.rule()).collect()
        }
    }

    /// Every access to every device that the rules of [`Numbers`] can tell apart.
    pub(in super::super) fn accesses() -> Vec<((DeviceKind, u32, u32), Bits)> {
        let mut all = Vec::new();
        for kind in [DeviceKind::Block, DeviceKind::Char] {
            for (major, minor) in (0..4).flat_map(|major| (0..4).map(move |minor| (major, minor))) {
                all.extend((1..=7).map(|access| ((kind, major, minor), access)));
            }
        }
        all
    }

    #[test]
    fn exceptions_say_what_the_rules_say() {
        let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
        let mut kept = 0;
        for _ in 0..4000 {
            let rules = numbers.rules();
            let Ok(state) = Exceptions::from_rules(&rules) else {
                continue;
            };
            kept += 1;
            for (device, access) in accesses() {
                let expected = last_match_allows(&rules, device, access);
                let found = exceptions_allow(&state, device, access);
                assert_eq!(
                    found, expected,
                    "{device:?} {access} of {rules:?} as {state:?}"
                );
            }
        }
        assert!(kept > 2000, "only {kept} were kept");
    }

    fn rule(allow: bool, line: &str) -> DeviceRule {
        let words: Vec<&str> = line.split([' ', ':']).collect();
        DeviceRule {
            allow,
            kind: match words[0] {
                "a" => DeviceKind::All,
                "b" => DeviceKind::Block,
                _ => DeviceKind::Char,
            },
            major: words[1].parse().ok(),
            minor: words[2].parse().ok(),
            access: DeviceAccess {
                read: words[3].contains('r'),
                write: words[3].contains('w'),
                mknod: words[3].contains('m'),
            },
        }
    }

    fn lines(rules: &[DeviceRule]) -> Result<(bool, Vec<String>), String> {
        let state = Exceptions::from_rules(rules).map_err(|error| error.to_string())?;
        Ok((
            state.default_allow,
            state
                .list
                .iter()
                .map(|exception| exception.to_line())
                .collect(),
        ))
    }

    #[test]
    fn usual_rules() {
        let deny_all = rule(false, "a *:* rwm");
        let (default_allow, list) = lines(&container_rules(&[deny_all])).expect("can be kept");
        assert!(!default_allow);
        assert_eq!(list.len(), DEFAULT_RULES.len());
        assert_eq!(list[..3], ["c *:* m", "b *:* m", "c 1:3 rwm"]);
        assert_eq!(list.last().map(String::as_str), Some("c 136:* rwm"));

        let privileged = container_rules(&[rule(true, "a *:* rwm")]);
        assert_eq!(lines(&privileged), Ok((true, vec![])));
        let all_chars = container_rules(&[deny_all, rule(true, "c *:* rwm")]);
        assert_eq!(
            lines(&all_chars),
            Ok((false, vec!["c *:* rwm".into(), "b *:* m".into()]))
        );
    }

    #[test]
    fn holes() {
        let cut = [rule(true, "c 1:* rwm"), rule(false, "c 1:3 w")];
        let expected = "linux.resources.devices[1]: cannot be kept on cgroup v1: \
            it takes a part out of a wider rule";
        assert_eq!(lines(&cut), Err(expected.to_owned()));
        // What every container may open is not the culprit.
        let cut = container_rules(&[rule(true, "a *:* rwm"), rule(false, "c 1:* rwm")]);
        assert_eq!(lines(&cut), Err(expected.to_owned()));
        // From all of one kind, with the other kind as one more exception.
        let cut = [rule(true, "c *:* rwm"), rule(false, "c 1:3 w")];
        let expected = vec!["b *:* rwm".to_owned(), "c 1:3 w".to_owned()];
        assert_eq!(lines(&cut), Ok((true, expected)));
        // The same from "allow all" is an exception to the default.
        let cut = [rule(true, "a *:* rwm"), rule(false, "c 1:3 w")];
        assert_eq!(lines(&cut), Ok((true, vec!["c 1:3 w".to_owned()])));
        // And "allow all" as a default could not hold this one.
        let back = [
            rule(true, "a *:* rwm"),
            rule(false, "c *:* rwm"),
            rule(true, "c 1:3 r"),
        ];
        let expected = vec!["b *:* rwm".to_owned(), "c 1:3 r".to_owned()];
        assert_eq!(lines(&back), Ok((false, expected)));
    }
}
