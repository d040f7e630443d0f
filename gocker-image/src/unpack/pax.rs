//! PAX extended headers: the records before an entry that say what its
//! 512-byte header cannot.
//!
//! ```text
//! "30 mtime=1700000000.123456789\n" "41 SCHILY.xattr.security.capability=…\n"
//!  ^^ bytes of the whole record; the value may hold any byte, newlines too
//! ```
//!
//! Spec: POSIX.1-2017, pax, "pax Extended Header"; GNU tar manual, "Storing
//! Sparse Files", for `GNU.sparse.*`; `SCHILY.xattr.*` is star's.

use super::tar_stream::{TarError, Timestamp};

/// What the records before one entry say. None: they are silent about it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct PaxRecords {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) atime: Option<Timestamp>,
    /// Names without the prefix `SCHILY.xattr.`, in their order.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: SparseRecords,
}

/// The `GNU.sparse.*` records.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct SparseRecords {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    /// `GNU.sparse.size` (0.x) or `GNU.sparse.realsize` (1.0).
    pub(super) real_size: Option<u64>,
    /// Offsets and lengths by turns, of formats 0.0 and 0.1.
    pub(super) map: Vec<u64>,
}

/// Parses the data of one extended header (`x`).
pub(super) fn parse(mut data: &[u8]) -> Result<PaxRecords, TarError> {
    let mut records = PaxRecords::default();
    while !data.is_empty() {
        let (key, value, rest) = split_record(data).ok_or(TarError::Pax)?;
        apply(&mut records, key, value)?;
        data = rest;
    }
    Ok(records)
}

/// Cuts `data` into the first record's key and value, and what follows it.
fn split_record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = data.iter().take(12).position(|byte| *byte == b' ')?;
    let len = usize::try_from(decimal(&data[..space])?).ok()?;
    let record = data.get(space + 1..len)?;
    let (newline, record) = record.split_last()?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    if *newline != b'\n' || key.is_empty() {
        return None;
    }
    Some((key, value, &data[len..]))
}

fn apply(records: &mut PaxRecords, key: &[u8], value: &[u8]) -> Result<(), TarError> {
    let wrong = || TarError::PaxValue {
        key: String::from_utf8_lossy(key).into_owned(),
    };
    let id = |value| {
        let number = decimal(value).ok_or_else(wrong)?;
        u32::try_from(number).map_err(|_| wrong())
    };
    if value.is_empty() && !key.starts_with(b"SCHILY.xattr.") {
        return Ok(()); // an empty value deletes a record of a global header
    }
    match key {
        b"path" | b"linkpath" if value.contains(&0) => return Err(wrong()),
        b"path" => records.path = Some(value.to_vec()),
        b"linkpath" => records.link = Some(value.to_vec()),
        b"size" => records.size = Some(decimal(value).ok_or_else(wrong)?),
        b"uid" => records.uid = Some(id(value)?),
        b"gid" => records.gid = Some(id(value)?),
        b"mtime" => records.mtime = Some(timestamp(value).ok_or_else(wrong)?),
        b"atime" => records.atime = Some(timestamp(value).ok_or_else(wrong)?),
        _ => {
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                records.xattrs.retain(|(other, _)| other != name);
                records.xattrs.push((name.to_vec(), value.to_vec()));
            } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                apply_sparse(&mut records.sparse, name, value).ok_or_else(wrong)?;
            }
            // Others (uname, ctime, comment, hdrcharset …) describe nothing
            // that a root file system has.
        }
    }
    Ok(())
}

fn apply_sparse(sparse: &mut SparseRecords, name: &[u8], value: &[u8]) -> Option<()> {
    match name {
        b"major" => sparse.major = Some(decimal(value)?),
        b"minor" => sparse.minor = Some(decimal(value)?),
        b"name" if value.contains(&0) => return None,
        b"name" => sparse.name = Some(value.to_vec()),
        b"size" | b"realsize" => sparse.real_size = Some(decimal(value)?),
        b"offset" if sparse.map.len().is_multiple_of(2) => sparse.map.push(decimal(value)?),
        b"numbytes" if !sparse.map.len().is_multiple_of(2) => sparse.map.push(decimal(value)?),
        b"map" => {
            let numbers = value.split(|byte| *byte == b',').map(decimal);
            sparse.map = numbers.collect::<Option<_>>()?;
        }
        b"numblocks" => {}
        _ => return None,
    }
    Some(())
}

/// A number of digits alone.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds with an optional sign and fraction; what is finer than nanoseconds
/// is cut off towards the past.
fn timestamp(text: &[u8]) -> Option<Timestamp> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let point = text.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = match point {
        Some(point) => (&text[..point], &text[point + 1..]),
        None => (text, &b""[..]),
    };
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |index: usize| fraction.get(index).map_or(0, |byte| u32::from(byte - b'0'));
    let nanoseconds = (0..9).fold(0, |sum, index| sum * 10 + digit(index));
    let finer = fraction.iter().skip(9).any(|byte| *byte != b'0');
    if !negative {
        return Some(Timestamp {
            seconds,
            nanoseconds,
        });
    }
    let nanoseconds = nanoseconds + u32::from(finer);
    Some(match nanoseconds {
        0 => Timestamp {
            seconds: -seconds,
            nanoseconds,
        },
        _ => Timestamp {
            seconds: -seconds - 1,
            nanoseconds: 1_000_000_000 - nanoseconds,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
        let body = key.len() + value.len() + 3;
        let mut len = body + 1;
        while len != body + len.to_string().len() {
            len = body + len.to_string().len();
        }
        [len.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
    }

    #[test]
    fn values_may_hold_newlines_and_equals_signs() {
        let data = [
            record(b"SCHILY.xattr.user.x", b"a\n12 path=evil\n=b"),
            record(b"path", b"usr/bin/\xff\n"),
            record(b"size", b"7"),
        ]
        .concat();
        let records = parse(&data).unwrap();
        assert_eq!(records.path.as_deref(), Some(&b"usr/bin/\xff\n"[..]));
        assert_eq!(records.size, Some(7));
        let xattr = (b"user.x".to_vec(), b"a\n12 path=evil\n=b".to_vec());
        assert_eq!(records.xattrs, [xattr]);
    }

    #[test]
    fn malformed_records_are_errors() {
        let cases: [&[u8]; 11] = [
            b"x",
            b"99 path=a\n",
            b"5 a=\nx",
            b" path=a\n",
            b"-9 path=a\n",
            b"9 path=ab",
            b"8 patha\n",
            b"9 size=-1\n",
            b"18 uid=4294967296\n",
            b"11 mtime=1x\n",
            b"12 path=a\x00b\n",
        ];
        for case in cases {
            assert!(parse(case).is_err(), "{:?}", String::from_utf8_lossy(case));
        }
    }

    #[test]
    fn times_keep_their_nanoseconds_and_signs() {
        let table: [(&[u8], i64, u32); 6] = [
            (b"1700000000", 1_700_000_000, 0),
            (b"1700000000.5", 1_700_000_000, 500_000_000),
            (b"1.1234567899", 1, 123_456_789),
            (b"-1", -1, 0),
            (b"-1.25", -2, 750_000_000),
            (b"-0.0000000001", -1, 999_999_999),
        ];
        for (text, seconds, nanoseconds) in table {
            let expected = Timestamp {
                seconds,
                nanoseconds,
            };
            assert_eq!(timestamp(text), Some(expected), "{text:?}");
        }
    }
}
