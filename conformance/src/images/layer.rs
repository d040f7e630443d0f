//! Layers as tar archives, built entry by entry, so that a test can say
//! exactly what a layer holds: also what no archiver would write.
//!
//! Spec: image-spec layer.md; POSIX `pax` for the extended headers.

use std::io::Write;

use tar::{EntryType, Header};

/// How long names, large numbers and fine times are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// POSIX extended headers.
    Pax,
    /// GNU's long-name entries and base-256 numbers; no extended attributes.
    Gnu,
}

/// How a file with holes is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SparseForm {
    /// GNU's own header type `S`.
    OldGnu,
    /// PAX records `GNU.sparse.map`, version 0.1.
    Pax01,
    /// PAX version 1.0: the map stands before the data.
    Pax10,
}

/// One entry of a layer.
#[derive(Debug, Clone)]
pub struct Entry {
    path: Vec<u8>,
    kind: EntryType,
    content: Vec<u8>,
    target: Vec<u8>,
    mode: u32,
    owner: (u64, u64),
    mtime: (i64, u32),
    device: (u32, u32),
    xattrs: Vec<(String, Vec<u8>)>,
}

/// The time that entries have unless told otherwise: 2023-11-14 22:13:20 UTC.
pub const DEFAULT_MTIME: i64 = 1_700_000_000;

impl Entry {
    fn new(path: impl AsRef<[u8]>, kind: EntryType, mode: u32) -> Self {
        Self {
            path: path.as_ref().to_vec(),
            kind,
            content: Vec::new(),
            target: Vec::new(),
            mode,
            owner: (0, 0),
            mtime: (DEFAULT_MTIME, 0),
            device: (0, 0),
            xattrs: Vec::new(),
        }
    }

    /// A directory, mode 0755.
    pub fn dir(path: impl AsRef<[u8]>) -> Self {
        let mut entry = Self::new(path, EntryType::Directory, 0o755);
        entry.path.push(b'/');
        entry
    }

    /// A regular file, mode 0644.
    pub fn file(path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        let mut entry = Self::new(path, EntryType::Regular, 0o644);
        entry.content = content.as_ref().to_vec();
        entry
    }

    /// A symbolic link.
    pub fn symlink(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        let mut entry = Self::new(path, EntryType::Symlink, 0o777);
        entry.target = target.as_ref().to_vec();
        entry
    }

    /// A hard link; `target` is a path from the layer's root.
    pub fn hard_link(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        let mut entry = Self::new(path, EntryType::Link, 0o644);
        entry.target = target.as_ref().to_vec();
        entry
    }

    /// A named pipe, mode 0644.
    pub fn fifo(path: impl AsRef<[u8]>) -> Self {
        Self::new(path, EntryType::Fifo, 0o644)
    }

    /// A character device, mode 0666.
    pub fn char_device(path: impl AsRef<[u8]>, major: u32, minor: u32) -> Self {
        let mut entry = Self::new(path, EntryType::Char, 0o666);
        entry.device = (major, minor);
        entry
    }

    /// A block device, mode 0660.
    pub fn block_device(path: impl AsRef<[u8]>, major: u32, minor: u32) -> Self {
        let mut entry = Self::new(path, EntryType::Block, 0o660);
        entry.device = (major, minor);
        entry
    }

    /// The mark that removes `path`, which the layers below have.
    #[must_use]
    pub fn whiteout(path: &str) -> Self {
        let (parent, name) = path.rsplit_once('/').map_or(("", path), |(p, n)| (p, n));
        let slash = if parent.is_empty() { "" } else { "/" };
        Self::file(format!("{parent}{slash}.wh.{name}"), b"")
    }

    /// The mark that hides all that the layers below have in `directory`.
    #[must_use]
    pub fn opaque(directory: &str) -> Self {
        Self::file(format!("{directory}/.wh..wh..opq"), b"")
    }

    /// With these permission bits, setuid, setgid and sticky included.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// With this owner and group.
    #[must_use]
    pub fn owner(mut self, uid: u64, gid: u64) -> Self {
        self.owner = (uid, gid);
        self
    }

    /// With this modification time: seconds since 1970 and nanoseconds.
    #[must_use]
    pub fn mtime(mut self, seconds: i64, nanoseconds: u32) -> Self {
        self.mtime = (seconds, nanoseconds);
        self
    }

    /// With an extended attribute (PAX layers only).
    #[must_use]
    pub fn xattr(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.xattrs.push((name.into(), value.as_ref().to_vec()));
        self
    }
}

/// A layer in the making: an uncompressed tar.
#[derive(Debug, Clone)]
pub struct Layer {
    format: Format,
    tar: Vec<u8>,
}

impl Layer {
    /// An empty PAX layer.
    #[must_use]
    pub fn pax() -> Self {
        Self {
            format: Format::Pax,
            tar: Vec::new(),
        }
    }

    /// An empty GNU layer.
    #[must_use]
    pub fn gnu() -> Self {
        Self {
            format: Format::Gnu,
            tar: Vec::new(),
        }
    }

    /// A PAX layer of these entries.
    #[must_use]
    pub fn of(entries: impl IntoIterator<Item = Entry>) -> Self {
        entries.into_iter().fold(Self::pax(), Self::entry)
    }

    /// The same layer and one more entry.
    #[must_use]
    pub fn entry(mut self, entry: Entry) -> Self {
        match self.format {
            Format::Pax => self.append_pax(&entry, &[]),
            Format::Gnu => self.append_gnu(&entry),
        }
        self
    }

    /// The same layer and an entry preceded by these PAX records, right or wrong.
    #[must_use]
    pub fn entry_with_records(mut self, entry: &Entry, records: &[(&str, &[u8])]) -> Self {
        self.append_pax(entry, records);
        self
    }

    /// The same layer and a file with holes: `parts` are offsets and bytes.
    #[must_use]
    pub fn sparse(mut self, entry: &Entry, size: u64, parts: &[(u64, &[u8])]) -> Self {
        let form = if self.format == Format::Gnu {
            SparseForm::OldGnu
        } else {
            SparseForm::Pax10
        };
        self.append_sparse(entry, size, parts, form);
        self
    }

    /// As [`Layer::sparse`], in a given form.
    #[must_use]
    pub fn sparse_in(
        mut self,
        form: SparseForm,
        entry: &Entry,
        size: u64,
        parts: &[(u64, &[u8])],
    ) -> Self {
        self.append_sparse(entry, size, parts, form);
        self
    }

    /// The same layer and raw bytes in place of an entry.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.tar.extend_from_slice(bytes);
        self
    }

    /// The finished archive.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.tar.extend_from_slice(&[0; 1024]);
        self.tar
    }

    fn append_pax(&mut self, entry: &Entry, more: &[(&str, &[u8])]) {
        let mut records = Vec::new();
        if entry.path.len() > 100 || !entry.path.is_ascii() {
            push_record(&mut records, "path", &entry.path);
        }
        if entry.target.len() > 100 || !entry.target.is_ascii() {
            push_record(&mut records, "linkpath", &entry.target);
        }
        for (name, id) in [("uid", entry.owner.0), ("gid", entry.owner.1)] {
            if id > 0o777_7777 {
                push_record(&mut records, name, id.to_string().as_bytes());
            }
        }
        let (seconds, nanoseconds) = entry.mtime;
        if nanoseconds != 0 || !(0..=0o777_7777_7777).contains(&seconds) {
            push_record(
                &mut records,
                "mtime",
                decimal_time(seconds, nanoseconds).as_bytes(),
            );
        }
        for (name, value) in &entry.xattrs {
            push_record(&mut records, &format!("SCHILY.xattr.{name}"), value);
        }
        for (name, value) in more {
            push_record(&mut records, name, value);
        }
        if !records.is_empty() {
            let mut header = Header::new_ustar();
            header.set_entry_type(EntryType::XHeader);
            set_name(&mut header, b"PaxHeaders/x");
            header.set_mode(0o644);
            self.append_block(header, &records);
        }
        self.append_block(header_of(entry, Header::new_ustar()), &entry.content);
    }

    fn append_gnu(&mut self, entry: &Entry) {
        assert!(
            entry.xattrs.is_empty() && entry.mtime.1 == 0,
            "GNU headers cannot hold this"
        );
        for (kind, name) in [
            (EntryType::GNULongLink, &entry.target),
            (EntryType::GNULongName, &entry.path),
        ] {
            if name.len() > 100 {
                let mut header = Header::new_gnu();
                header.set_entry_type(kind);
                set_name(&mut header, b"././@LongLink");
                let mut content = name.clone();
                content.push(0);
                self.append_block(header, &content);
            }
        }
        self.append_block(header_of(entry, Header::new_gnu()), &entry.content);
    }

    fn append_sparse(
        &mut self,
        entry: &Entry,
        size: u64,
        parts: &[(u64, &[u8])],
        form: SparseForm,
    ) {
        let mut entry = entry.clone();
        let mut data: Vec<u8> = parts
            .iter()
            .flat_map(|(_, bytes)| bytes.iter().copied())
            .collect();
        let numbers: Vec<String> = parts
            .iter()
            .flat_map(|(at, b)| [at.to_string(), b.len().to_string()])
            .collect();
        let (count, real) = (parts.len().to_string(), size.to_string());
        match form {
            SparseForm::OldGnu => {
                let mut header = header_of(&entry, Header::new_gnu());
                header.set_entry_type(EntryType::GNUSparse);
                if let Some(gnu) = header.as_gnu_mut() {
                    gnu.set_real_size(size);
                    for (slot, (offset, bytes)) in gnu.sparse.iter_mut().zip(parts) {
                        slot.set_offset(*offset);
                        slot.set_length(bytes.len() as u64);
                    }
                }
                self.append_block(header, &data);
            }
            SparseForm::Pax01 => {
                let map = numbers.join(",");
                let name = std::mem::replace(&mut entry.path, b"GNUSparseFile.0/f".to_vec());
                entry.content = data;
                self.append_pax(
                    &entry,
                    &[
                        ("GNU.sparse.size", real.as_bytes()),
                        ("GNU.sparse.numblocks", count.as_bytes()),
                        ("GNU.sparse.map", map.as_bytes()),
                        ("GNU.sparse.name", &name),
                    ],
                );
            }
            SparseForm::Pax10 => {
                let mut content = format!("{count}\n{}\n", numbers.join("\n")).into_bytes();
                content.resize(content.len().next_multiple_of(512), 0);
                content.append(&mut data);
                let name = std::mem::replace(&mut entry.path, b"GNUSparseFile.0/f".to_vec());
                entry.content = content;
                self.append_pax(
                    &entry,
                    &[
                        ("GNU.sparse.major", b"1"),
                        ("GNU.sparse.minor", b"0"),
                        ("GNU.sparse.name", &name),
                        ("GNU.sparse.realsize", real.as_bytes()),
                    ],
                );
            }
        }
    }

    fn append_block(&mut self, mut header: Header, content: &[u8]) {
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.tar.extend_from_slice(header.as_bytes());
        self.tar.extend_from_slice(content);
        self.tar.resize(self.tar.len().next_multiple_of(512), 0);
    }
}

fn header_of(entry: &Entry, mut header: Header) -> Header {
    header.set_entry_type(entry.kind);
    set_name(&mut header, &entry.path);
    let target = &entry.target[..entry.target.len().min(100)];
    header.as_old_mut().linkname[..target.len()].copy_from_slice(target);
    header.set_mode(entry.mode);
    let fits = |id: u64| {
        if header.as_gnu().is_some() || id <= 0o777_7777 {
            id
        } else {
            0
        }
    };
    let (uid, gid) = (fits(entry.owner.0), fits(entry.owner.1));
    header.set_uid(uid);
    header.set_gid(gid);
    header.set_mtime(u64::try_from(entry.mtime.0).unwrap_or(0));
    if matches!(entry.kind, EntryType::Char | EntryType::Block) {
        // Both kinds of header that are made here have these fields.
        if let Some(gnu) = header.as_gnu_mut() {
            gnu.set_device_major(entry.device.0);
            gnu.set_device_minor(entry.device.1);
        } else if let Some(ustar) = header.as_ustar_mut() {
            ustar.set_device_major(entry.device.0);
            ustar.set_device_minor(entry.device.1);
        }
    }
    header
}

/// Writes the name's bytes as they are: `Header::set_path` would refuse `..`
/// and absolute names, which the hostile layers need.
fn set_name(header: &mut Header, name: &[u8]) {
    let name = &name[..name.len().min(100)];
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
}

/// Appends `LENGTH KEY=VALUE\n`, where LENGTH counts its own digits.
fn push_record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    // Writing to a Vec cannot fail.
    write!(records, "{length} {key}=").expect("a vector takes all bytes");
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// `-1.5` is half a second before `-1`: seconds count down, nanoseconds up.
fn decimal_time(seconds: i64, nanoseconds: u32) -> String {
    if seconds < 0 && nanoseconds > 0 {
        format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds)
    } else {
        format!("{seconds}.{nanoseconds:09}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_their_own_length() {
        for (value, want) in [
            ("x", "6 k=x\n"),
            ("1234", "9 k=1234\n"),
            ("12345", "11 k=12345\n"),
        ] {
            let mut records = Vec::new();
            push_record(&mut records, "k", value.as_bytes());
            assert_eq!(String::from_utf8(records).unwrap(), want);
        }
    }

    #[test]
    fn times_before_1970_keep_their_fraction() {
        let table = [
            ((0, 0), "0.000000000"),
            ((-1, 500_000_000), "-0.500000000"),
            ((-2, 1), "-1.999999999"),
        ];
        for ((seconds, nanoseconds), want) in table {
            assert_eq!(decimal_time(seconds, nanoseconds), want);
        }
    }
}
