//! A mount's options, from words to what the mount API takes.
//!
//! Spec: config.md#linux-mount-options

use std::ffi::CString;

use bundles::FieldError;

use crate::sys::mount_api::{MountAttr, Recursive, attr};

/// `MOUNT_ATTR_*` to set and to clear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// Bits to set.
    pub(crate) set: u64,
    /// Bits to clear.
    pub(crate) clear: u64,
}

impl Attributes {
    /// A later word wins over an earlier one.
    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Set(bit) => {
                self.set |= bit;
                self.clear &= !bit;
            }
            Effect::Clear(bit) => {
                self.set &= !bit;
                self.clear |= bit;
            }
            Effect::Atime(bits) => {
                self.set = self.set & !attr::ATIME | bits;
                self.clear |= attr::ATIME;
            }
        }
    }

    /// Read-only, and nothing else.
    pub(crate) const READ_ONLY: Self = Self {
        set: attr::RDONLY,
        clear: 0,
    };

    /// The call that asks for these, for messages.
    pub(crate) fn call(self) -> String {
        format!(
            "mount_setattr(set {:#x}, clear {:#x})",
            self.set, self.clear
        )
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl From<Attributes> for MountAttr {
    fn from(attributes: Attributes) -> Self {
        Self {
            set: attributes.set,
            clear: attributes.clear,
            ..Self::default()
        }
    }
}

/// What one word does to the attributes.
#[derive(Clone, Copy, Debug)]
enum Effect {
    Set(u64),
    Clear(u64),
    /// The access-time bits are one field, set as a whole.
    Atime(u64),
}

/// The options of one mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MountOptions {
    /// A bind mount, of the mount alone or of all below it.
    pub(crate) bind: Option<Recursive>,
    /// An id-mapped mount, of the mount alone or of all below it.
    pub(crate) id_map: Option<Recursive>,
    /// A new tmpfs begins with what lies below it.
    pub(crate) copy_up: bool,
    /// Changes a mount that is there.
    pub(crate) remount: bool,
    /// For this mount.
    pub(crate) attributes: Attributes,
    /// For this mount and all below it.
    pub(crate) recursive_attributes: Attributes,
    /// `MS_SHARED` and the like, in order.
    pub(crate) propagation: Vec<(u64, Recursive)>,
    /// `linux.mountLabel`, where the filesystem keeps it as an attribute of its top.
    pub(crate) label: Option<CString>,
    /// Parameters of the filesystem: key, and value where there is one.
    pub(crate) data: Vec<(CString, Option<CString>)>,
}

const PROPAGATION: &[(&str, u64)] = &[
    ("shared", libc::MS_SHARED),
    ("slave", libc::MS_SLAVE),
    ("private", libc::MS_PRIVATE),
    ("unbindable", libc::MS_UNBINDABLE),
];

/// Words that name an attribute; with an `r` before, for all mounts below, too.
const ATTRIBUTES: &[(&str, Effect)] = &[
    ("ro", Effect::Set(attr::RDONLY)),
    ("rw", Effect::Clear(attr::RDONLY)),
    ("nosuid", Effect::Set(attr::NOSUID)),
    ("suid", Effect::Clear(attr::NOSUID)),
    ("nodev", Effect::Set(attr::NODEV)),
    ("dev", Effect::Clear(attr::NODEV)),
    ("noexec", Effect::Set(attr::NOEXEC)),
    ("exec", Effect::Clear(attr::NOEXEC)),
    ("nodiratime", Effect::Set(attr::NODIRATIME)),
    ("diratime", Effect::Clear(attr::NODIRATIME)),
    ("nosymfollow", Effect::Set(attr::NOSYMFOLLOW)),
    ("symfollow", Effect::Clear(attr::NOSYMFOLLOW)),
    ("noatime", Effect::Atime(attr::NOATIME)),
    ("atime", Effect::Atime(0)),
    ("relatime", Effect::Atime(0)),
    ("norelatime", Effect::Atime(0)),
    ("strictatime", Effect::Atime(attr::STRICTATIME)),
    ("nostrictatime", Effect::Atime(0)),
];

/// Words that mean a flag of the superblock, in fsconfig(2)'s words.
const SUPERBLOCK: &[&str] = &[
    "sync",
    "async",
    "dirsync",
    "lazytime",
    "nolazytime",
    "mand",
    "nomand",
    "iversion",
    "noiversion",
];

/// Words that ask for what is so anyway: the defaults, and how loud the kernel's log is.
const WITHOUT_EFFECT: &[&str] = &["defaults", "silent", "loud"];

/// Every word that is known here, for `features`.
pub(crate) fn known_words() -> Vec<String> {
    let plain = ["bind", "rbind", "remount", "tmpcopyup", "idmap", "ridmap"]
        .iter()
        .chain(SUPERBLOCK)
        .chain(WITHOUT_EFFECT);
    let twice = PROPAGATION
        .iter()
        .map(|(word, _)| *word)
        .chain(ATTRIBUTES.iter().map(|(word, _)| *word));
    let mut words: Vec<String> = plain.map(|word| (*word).to_owned()).collect();
    words.extend(twice.flat_map(|word| [word.to_owned(), format!("r{word}")]));
    words.sort_unstable();
    words
}

impl MountOptions {
    /// Reads `options`, which are those of `mounts[index]`.
    ///
    /// # Errors
    /// A word that this program knows and does not serve.
    pub(crate) fn parse(index: usize, options: &[String]) -> Result<Self, FieldError> {
        let mut parsed = Self::default();
        for (at, word) in options.iter().enumerate() {
            parsed.add(word).map_err(|problem| {
                FieldError::new(format!("mounts[{index}].options[{at}]"), problem)
            })?;
        }
        Ok(parsed)
    }

    fn add(&mut self, word: &str) -> Result<(), String> {
        match word {
            "bind" => self.bind = self.bind.or(Some(Recursive::No)),
            "rbind" => self.bind = Some(Recursive::Yes),
            "remount" => self.remount = true,
            "tmpcopyup" => self.copy_up = true,
            "idmap" => self.id_map = self.id_map.or(Some(Recursive::No)),
            "ridmap" => self.id_map = Some(Recursive::Yes),
            "copy-symlink" | "src-nofollow" | "dest-nofollow" => {
                return Err(format!(
                    "{word:?} is an option of crun's, and is not served"
                ));
            }
            _ if WITHOUT_EFFECT.contains(&word) || word.is_empty() => {}
            _ if is_idmap(word) => {
                return Err(format!(
                    "{word:?}: the mapping belongs into uidMappings and gidMappings"
                ));
            }
            _ => self.add_from_tables(word)?,
        }
        Ok(())
    }

    fn add_from_tables(&mut self, word: &str) -> Result<(), String> {
        let attribute = |word: &str| {
            ATTRIBUTES
                .iter()
                .find(|(name, _)| *name == word)
                .map(|(_, effect)| *effect)
        };
        let propagation = |word: &str| {
            PROPAGATION
                .iter()
                .find(|(name, _)| *name == word)
                .map(|(_, flag)| *flag)
        };
        if let Some(effect) = attribute(word) {
            self.attributes.apply(effect);
        } else if let Some(flag) = propagation(word) {
            self.propagation.push((flag, Recursive::No));
        } else if let Some(effect) = word.strip_prefix('r').and_then(attribute) {
            self.recursive_attributes.apply(effect);
        } else if let Some(flag) = word.strip_prefix('r').and_then(propagation) {
            self.propagation.push((flag, Recursive::Yes));
        } else {
            let text = |text: &str| CString::new(text).map_err(|_| "holds a NUL byte".to_owned());
            self.data.push(match word.split_once('=') {
                Some((key, value)) => (text(key)?, Some(text(value)?)),
                None => (text(word)?, None),
            });
        }
        Ok(())
    }
}

fn is_idmap(word: &str) -> bool {
    word.starts_with("idmap=") || word.starts_with("ridmap=")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> MountOptions {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        MountOptions::parse(0, &words).expect("parses")
    }

    #[test]
    fn attributes() {
        let set = |set, clear| Attributes { set, clear };
        let cases: &[(&[&str], Attributes)] = &[
            (
                &["nosuid", "noexec", "nodev"],
                set(attr::NOSUID | attr::NOEXEC | attr::NODEV, 0),
            ),
            (&["ro", "rw"], set(0, attr::RDONLY)),
            (&["noatime"], set(attr::NOATIME, attr::ATIME)),
            (&["strictatime", "relatime"], set(0, attr::ATIME)),
            (&["defaults", "silent"], set(0, 0)),
        ];
        for (words, expected) in cases {
            assert_eq!(parse(words).attributes, *expected, "{words:?}");
        }
        assert_eq!(parse(&["rro"]).recursive_attributes, set(attr::RDONLY, 0));
        assert!(parse(&["rro"]).attributes.is_empty());
    }

    #[test]
    fn the_rest() {
        assert_eq!(parse(&["rbind", "bind"]).bind, Some(Recursive::Yes));
        let expected = vec![
            (libc::MS_SLAVE, Recursive::Yes),
            (libc::MS_SHARED, Recursive::No),
        ];
        assert_eq!(parse(&["rslave", "shared"]).propagation, expected);
        let expected = vec![
            (c"size".to_owned(), Some(c"64k".to_owned())),
            (c"newinstance".to_owned(), None),
        ];
        assert_eq!(parse(&["size=64k", "newinstance"]).data, expected);
    }

    #[test]
    fn what_is_not_served_is_named() {
        let words = ["ro".into(), "idmap=uids=0-1-1".into()];
        let error = MountOptions::parse(3, &words).expect_err("refused");
        assert!(
            error
                .to_string()
                .starts_with("mounts[3].options[1]: \"idmap="),
            "{error}"
        );
    }
}
