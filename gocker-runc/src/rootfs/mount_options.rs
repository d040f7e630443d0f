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

/// What a word does to the options.
type Change = fn(&mut MountOptions);

/// Words that stand for themselves, and what each does.
const ALONE: &[(&str, Change)] = &[
    ("bind", |parsed| {
        parsed.bind = parsed.bind.or(Some(Recursive::No));
    }),
    ("rbind", |parsed| parsed.bind = Some(Recursive::Yes)),
    ("remount", |parsed| parsed.remount = true),
    ("tmpcopyup", |parsed| parsed.copy_up = true),
    ("idmap", |parsed| {
        parsed.id_map = parsed.id_map.or(Some(Recursive::No));
    }),
    ("ridmap", |parsed| parsed.id_map = Some(Recursive::Yes)),
    // These ask for what is so anyway: the defaults, and how loud the kernel's log is.
    ("defaults", |_| ()),
    ("silent", |_| ()),
    ("loud", |_| ()),
];

/// Every word that is known here, for `features`.
pub(crate) fn known_words() -> Vec<String> {
    let plain = ALONE.iter().map(|(word, _)| word).chain(SUPERBLOCK);
    let twice = PROPAGATION
        .iter()
        .map(|(word, _)| *word)
        .chain(ATTRIBUTES.iter().map(|(word, _)| *word));
    let mut words: Vec<String> = plain.map(|word| (*word).to_owned()).collect();
    words.extend(twice.flat_map(|word| [word.to_owned(), format!("r{word}")]));
    words.sort_unstable();
    words
}

/// What `word` stands for in `table`.
fn meaning<T: Copy>(table: &[(&str, T)], word: &str) -> Option<T> {
    let found = table.iter().find(|(name, _)| *name == word);
    found.map(|(_, meaning)| *meaning)
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
        let recursive = word.strip_prefix('r').unwrap_or_default();
        if let Some(apply) = meaning(ALONE, word) {
            apply(self);
        } else if let Some(effect) = meaning(ATTRIBUTES, word) {
            self.attributes.apply(effect);
        } else if let Some(flag) = meaning(PROPAGATION, word) {
            self.propagation.push((flag, Recursive::No));
        } else if let Some(effect) = meaning(ATTRIBUTES, recursive) {
            self.recursive_attributes.apply(effect);
        } else if let Some(flag) = meaning(PROPAGATION, recursive) {
            self.propagation.push((flag, Recursive::Yes));
        } else if !word.is_empty() {
            self.data.push(parameter(word)?);
        }
        Ok(())
    }
}

/// What no table has, as a parameter of the filesystem.
fn parameter(word: &str) -> Result<(CString, Option<CString>), String> {
    if ["copy-symlink", "src-nofollow", "dest-nofollow"].contains(&word) {
        return Err(format!(
            "{word:?} is an option of crun's, and is not served"
        ));
    }
    if is_idmap(word) {
        return Err(format!(
            "{word:?}: the mapping belongs into uidMappings and gidMappings"
        ));
    }
    let text = |text: &str| CString::new(text).map_err(|_| "holds a NUL byte".to_owned());
    Ok(match word.split_once('=') {
        Some((key, value)) => (text(key)?, Some(text(value)?)),
        None => (text(word)?, None),
    })
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
    fn words_that_features_tells_are_those_with_a_meaning() {
        let known = known_words();
        for word in &known {
            let data = parse(&[word]).data;
            // The superblock's flags are parameters, too, which every filesystem has.
            assert_eq!(data.is_empty(), !SUPERBLOCK.contains(&&**word), "{word}");
        }
        // All that come near to a known one: without a first letter or two, or with those.
        let near = known.iter().flat_map(|word| {
            let shorter = [word.get(1..), word.get(2..)].into_iter().flatten();
            let longer = ["r", "no"].map(|more| format!("{more}{word}"));
            shorter.map(str::to_owned).chain(longer)
        });
        for word in near.filter(|word| !word.is_empty() && !known.contains(word)) {
            let as_data = (CString::new(word.as_str()).expect("no NUL"), None);
            let expected = MountOptions {
                data: vec![as_data],
                ..MountOptions::default()
            };
            assert_eq!(parse(&[&word]), expected, "{word}");
        }
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
