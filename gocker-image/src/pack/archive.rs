//! A tar archive as it is written: ustar headers, and before them an extended header (PAX) for
//! what does not fit: long names, large numbers, fractions of seconds, attributes.
//!
//! The same entries give the same bytes: no names of users, no time of writing, no padding
//! beyond the two blocks of zeros at the end.
//!
//! Spec: POSIX.1-2017, pax, "ustar Interchange Format"

use std::io::{self, Read, Write};

use tar::{EntryType, Header};

use super::node::Xattrs;

const BLOCK: u64 = 512;
/// Two blocks of zeros.
const END: [u8; 1024] = [0; 1024];
/// The largest number of seven octal digits.
const OCTAL_7: u64 = 0o7_777_777;
/// The largest number of eleven octal digits.
const OCTAL_11: u64 = 0o77_777_777_777;

/// One entry without its content.
#[derive(Debug, Clone)]
pub(super) struct Entry<'a> {
    pub(super) kind: EntryType,
    pub(super) path: &'a [u8],
    /// Where a link leads; empty for others.
    pub(super) link: &'a [u8],
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    /// Seconds and nanoseconds, which count forwards.
    pub(super) mtime: (i64, i64),
    pub(super) device: (u64, u64),
    pub(super) xattrs: &'a Xattrs,
}

/// An archive in the making.
pub(super) struct Archive<W> {
    out: W,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out }
    }

    /// Writes an entry; the content that it names is to follow.
    pub(super) fn entry(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let records = records(entry);
        if !records.is_empty() {
            let mut header = Header::new_ustar();
            put(&mut header.as_old_mut().name, b"PaxHeaders/entry");
            header.set_entry_type(EntryType::XHeader);
            header.set_mode(0o644);
            header.set_size(records.len() as u64);
            self.header(header)?;
            self.out.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        let mut header = Header::new_ustar();
        let old = header.as_old_mut();
        put(&mut old.name, entry.path);
        put(&mut old.linkname, entry.link);
        header.set_entry_type(entry.kind);
        header.set_mode(entry.mode);
        header.set_uid(in_range(entry.uid.into(), OCTAL_7));
        header.set_gid(in_range(entry.gid.into(), OCTAL_7));
        header.set_size(in_range(entry.size, OCTAL_11));
        header.set_mtime(in_range(
            u64::try_from(entry.mtime.0).unwrap_or(0),
            OCTAL_11,
        ));
        if matches!(entry.kind, EntryType::Char | EntryType::Block) {
            let number = |number: u64| u32::try_from(number).map_err(io::Error::other);
            header.set_device_major(number(entry.device.0)?)?;
            header.set_device_minor(number(entry.device.1)?)?;
        }
        self.header(header)
    }

    /// Writes a part of the content of the entry before.
    pub(super) fn content(&mut self, part: &[u8]) -> io::Result<()> {
        self.out.write_all(part)
    }

    /// Ends the content of an entry, which had `written` bytes.
    pub(super) fn end_content(&mut self, written: u64) -> io::Result<()> {
        self.pad(written)
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&END)?;
        Ok(self.out)
    }

    fn header(&mut self, mut header: Header) -> io::Result<()> {
        header.set_cksum();
        self.out.write_all(header.as_bytes())
    }

    fn pad(&mut self, written: u64) -> io::Result<()> {
        let rest = written.next_multiple_of(BLOCK) - written;
        io::copy(&mut io::repeat(0).take(rest), &mut self.out).map(drop)
    }
}

/// As much of `value` as fits. A longer one stands in the extended header.
fn put(field: &mut [u8], value: &[u8]) {
    let len = field.len().min(value.len());
    field[..len].copy_from_slice(&value[..len]);
}

fn in_range(number: u64, most: u64) -> u64 {
    if number > most { 0 } else { number }
}

/// The extended header's records, in a fixed order; none if all fits.
fn records(entry: &Entry<'_>) -> Vec<u8> {
    let mut records = Vec::new();
    let mut add = |key: &[u8], value: &[u8]| records.extend(record(key, value));
    let texts = [("path", entry.path), ("linkpath", entry.link)];
    for (key, text) in texts.into_iter().filter(|(_, text)| text.len() > 100) {
        add(key.as_bytes(), text);
    }
    let numbers = [
        ("size", entry.size, OCTAL_11),
        ("uid", entry.uid.into(), OCTAL_7),
        ("gid", entry.gid.into(), OCTAL_7),
    ];
    for (key, number, _) in numbers
        .into_iter()
        .filter(|(_, number, most)| number > most)
    {
        add(key.as_bytes(), number.to_string().as_bytes());
    }
    let (seconds, nanoseconds) = entry.mtime;
    let is_plain = u64::try_from(seconds).is_ok_and(|seconds| seconds <= OCTAL_11);
    if nanoseconds != 0 || !is_plain {
        add(b"mtime", time(seconds, nanoseconds).as_bytes());
    }
    for (name, value) in entry.xattrs {
        add(&[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    records
}

/// `len key=value\n`, where `len` counts its own digits too.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut len = rest;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    [len.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// Seconds with their fraction, if they have one.
fn time(seconds: i64, nanoseconds: i64) -> String {
    let (sign, seconds, nanoseconds) = if seconds < 0 && nanoseconds > 0 {
        ("-", -(seconds + 1), 1_000_000_000 - nanoseconds)
    } else if seconds < 0 {
        ("-", -seconds, 0)
    } else {
        ("", seconds, nanoseconds)
    };
    let fraction = format!("{nanoseconds:09}");
    match fraction.trim_end_matches('0') {
        "" => format!("{sign}{seconds}"),
        fraction => format!("{sign}{seconds}.{fraction}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_fraction_that_they_need() {
        for (seconds, nanoseconds, expected) in [
            (0, 0, "0"),
            (1_700_000_000, 500_000_000, "1700000000.5"),
            (1, 123_456_789, "1.123456789"),
            (-1, 0, "-1"),
            (-2, 750_000_000, "-1.25"),
            (-1, 999_999_999, "-0.000000001"),
        ] {
            assert_eq!(time(seconds, nanoseconds), expected);
        }
    }

    #[test]
    fn what_does_not_fit_stands_in_an_extended_header() {
        let long = vec![b'x'; 101];
        let xattrs = Xattrs::from([(b"user.a".to_vec(), b"1\n2".to_vec())]);
        let plain = Entry {
            kind: EntryType::Regular,
            path: b"f",
            link: b"",
            mode: 0o644,
            uid: 0,
            gid: 2_097_151,
            size: 0,
            mtime: (OCTAL_11.cast_signed(), 0),
            device: (0, 0),
            xattrs: &Xattrs::new(),
        };
        assert_eq!(records(&plain), b"");
        let entry = Entry {
            path: &long,
            uid: u32::MAX,
            size: OCTAL_11 + 1,
            mtime: (-1, 0),
            xattrs: &xattrs,
            ..plain
        };
        let expected = [
            b"111 path=".as_slice(),
            &long,
            b"\n19 size=8589934592\n18 uid=4294967295\n12 mtime=-1\n27 SCHILY.xattr.user.a=1\n2\n",
        ];
        assert_eq!(
            String::from_utf8(records(&entry)).unwrap(),
            String::from_utf8(expected.concat()).unwrap()
        );
    }
}
