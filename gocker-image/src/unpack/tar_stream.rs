//! A tar archive as a stream of entries: ustar, old V7, GNU (long names, base
//! 256 numbers, sparse files) and PAX.
//!
//! The `tar` crate reads the headers. What joins headers to entries is here, because the
//! crate's own iteration splits extended headers at newlines, which cuts binary attributes
//! in two and lets a value smuggle in another record.
//!
//! The rules where dialects differ are those of Go's `archive/tar`, with which
//! nearly all images are made: entries that can have no content skip none,
//! whatever size they name; both checksums count; an empty number is 0.
//!
//! Spec: POSIX.1-2017, pax, "ustar Interchange Format"; image-spec layer.md

use std::borrow::Cow;
use std::io::{self, BufRead};

use tar::{EntryType, GnuHeader};

use super::pax::{self, PaxRecords};
use super::pipe::read_full;
use super::sparse::{self, Extent};

const BLOCK: usize = 512;
/// The most bytes that the headers before one entry may have.
const MAX_EXTENSION_BYTES: u64 = 2 << 20;

/// Why a stream is not a tar archive that can be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream itself failed.
    #[error("read the layer")]
    Read(#[source] io::Error),
    /// The stream ends inside of a header or an entry's content.
    #[error("the archive is cut off at byte {0}")]
    Truncated(u64),
    /// A header's checksum is wrong: no tar, or a damaged one.
    #[error("not a tar archive: no valid header at byte {0}")]
    Checksum(u64),
    /// Something else than zeros follows the end of the archive.
    #[error("garbage follows the end of the archive, at byte {0}")]
    TrailingGarbage(u64),
    /// A number in a header is none, or too large.
    #[error("its header has a {field} that is not a number in range")]
    Number {
        /// The field.
        field: &'static str,
    },
    /// An extended header does not consist of records.
    #[error("its extended header (PAX) is malformed")]
    Pax,
    /// A record of an extended header has a value that it cannot have.
    #[error("its extended header (PAX) has an invalid {key:?}")]
    PaxValue {
        /// The record's key.
        key: String,
    },
    /// Extended headers describe no entry.
    #[error("an extended header at the end describes no entry")]
    DanglingExtension,
    /// The headers before one entry are too large.
    #[error("its extended headers have more than {MAX_EXTENSION_BYTES} bytes")]
    ExtensionTooLarge,
    /// The map of a sparse file is wrong.
    #[error("its map of a sparse file is invalid")]
    Sparse,
    /// The type is none that a root file system can have.
    #[error("entry type {:?} is not supported", char::from(*.0))]
    Type(u8),
}

/// Seconds and nanoseconds since 1970; the nanoseconds always count forwards.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timestamp {
    pub(super) seconds: i64,
    pub(super) nanoseconds: u32,
}

/// What an entry makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Regular,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One entry, all headers that describe it taken together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    /// As in the archive: neither normalised nor checked.
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    /// Permission bits, with set-user-id, set-group-id and sticky.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Of the file, holes included.
    pub(super) size: u64,
    pub(super) mtime: Timestamp,
    pub(super) atime: Option<Timestamp>,
    pub(super) device: (u32, u32),
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the content goes; None: all of it from the start.
    pub(super) extents: Option<Vec<Extent>>,
}

/// The extended headers that were seen before an entry.
#[derive(Default)]
struct Extensions {
    pax: Option<PaxRecords>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    bytes: u64,
}

/// A tar archive that is read once, from front to back.
pub(super) struct TarStream<R> {
    pub(super) reader: R,
    /// Bytes read so far.
    pub(super) position: u64,
    /// Content of the current entry not yet read.
    pub(super) remaining: u64,
    pub(super) padding: u64,
    /// Keys of global headers, which nothing here obeys.
    pub(super) ignored_globals: bool,
}

impl<R: BufRead> TarStream<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader,
            position: 0,
            remaining: 0,
            padding: 0,
            ignored_globals: false,
        }
    }

    /// The next entry; None at the end of the archive. Content of the entry
    /// before it that was not read is skipped.
    pub(super) fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_rest()?;
            let Some(block) = self.header()? else {
                let dangling = extensions.bytes > 0;
                return if dangling {
                    Err(TarError::DanglingExtension)
                } else {
                    Ok(None)
                };
            };
            if !self.take_extension(&block, &mut extensions)? {
                return self.entry(&block, extensions).map(Some);
            }
        }
    }

    /// The next piece of the current entry's content; empty at its end.
    pub(super) fn content(&mut self) -> Result<&[u8], TarError> {
        let limit = usize::try_from(self.remaining).unwrap_or(usize::MAX);
        if limit == 0 {
            return Ok(&[]);
        }
        let position = self.position;
        let piece = self.reader.fill_buf().map_err(TarError::Read)?;
        if piece.is_empty() {
            return Err(TarError::Truncated(position));
        }
        Ok(&piece[..piece.len().min(limit)])
    }

    /// Marks `count` bytes of the last [`content`](Self::content) as read.
    pub(super) fn consume(&mut self, count: usize) {
        self.reader.consume(count);
        self.position += count as u64;
        self.remaining = self.remaining.saturating_sub(count as u64);
    }

    /// Reads to the end of the stream, in which only zeros may follow.
    pub(super) fn finish(&mut self) -> Result<(), TarError> {
        loop {
            let piece = self.reader.fill_buf().map_err(TarError::Read)?;
            if piece.is_empty() {
                return Ok(());
            }
            if let Some(index) = piece.iter().position(|byte| *byte != 0) {
                return Err(TarError::TrailingGarbage(self.position + index as u64));
            }
            let count = piece.len();
            self.reader.consume(count);
            self.position += count as u64;
        }
    }

    fn skip_rest(&mut self) -> Result<(), TarError> {
        self.remaining += std::mem::take(&mut self.padding);
        loop {
            let count = self.content()?.len();
            if count == 0 {
                return Ok(());
            }
            self.consume(count);
        }
    }

    /// The next header with a valid checksum; None at the archive's end.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let mut header = Header(tar::Header::new_old());
        if !self.read_block(header.0.as_mut_bytes())? || header.is_zero() {
            return Ok(None);
        }
        if !header.checksum_matches() {
            return Err(TarError::Checksum(self.position - BLOCK as u64));
        }
        Ok(Some(header))
    }

    /// Reads one block; false if the stream ends before it.
    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, TarError> {
        let count = read_full(&mut self.reader, block).map_err(TarError::Read)?;
        self.position += count as u64;
        match count {
            0 => Ok(false),
            BLOCK => Ok(true),
            _ => Err(TarError::Truncated(self.position)),
        }
    }

    /// Notes an extended header; false if `header` is that of an entry.
    fn take_extension(
        &mut self,
        header: &Header,
        extensions: &mut Extensions,
    ) -> Result<bool, TarError> {
        let kind = header.0.entry_type();
        if !matches!(
            kind,
            EntryType::XHeader
                | EntryType::XGlobalHeader
                | EntryType::GNULongName
                | EntryType::GNULongLink
        ) {
            return Ok(false);
        }
        let size = header.size()?;
        extensions.bytes = extensions.bytes.saturating_add(size).saturating_add(1);
        if extensions.bytes > MAX_EXTENSION_BYTES {
            return Err(TarError::ExtensionTooLarge);
        }
        self.begin_content(size);
        let mut data = Vec::new();
        loop {
            let piece = self.content()?;
            if piece.is_empty() {
                break;
            }
            data.extend_from_slice(piece);
            let count = piece.len();
            self.consume(count);
        }
        match kind {
            EntryType::XHeader => extensions.pax = Some(pax::parse(&data)?),
            EntryType::GNULongName => extensions.long_name = Some(until_nul(&data).to_vec()),
            EntryType::GNULongLink => extensions.long_link = Some(until_nul(&data).to_vec()),
            _ => {
                pax::parse(&data)?;
                self.ignored_globals = true;
                extensions.bytes = 0;
            }
        }
        Ok(true)
    }

    fn begin_content(&mut self, size: u64) {
        self.remaining = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    /// Joins `header` and the extensions before it to an entry, and stands at
    /// the first byte of its content.
    fn entry(&mut self, header: &Header, extensions: Extensions) -> Result<Entry, TarError> {
        let pax = extensions.pax.unwrap_or_default();
        let path = (pax.sparse.name.clone().or(pax.path))
            .or(extensions.long_name)
            .unwrap_or_else(|| header.0.path_bytes().into_owned());
        let link = (pax.link)
            .or(extensions.long_link)
            .or_else(|| header.0.link_name_bytes().map(Cow::into_owned))
            .unwrap_or_default();
        let kind = header.kind(&path)?;
        let stored = match kind {
            Kind::Regular => pax.size.map_or_else(|| header.size(), Ok)?,
            _ => 0,
        };
        let mut entry = Entry {
            kind,
            path,
            link,
            mode: header.mode()?,
            uid: pax
                .uid
                .map_or_else(|| header.id(&header.0.as_old().uid, "uid"), Ok)?,
            gid: pax
                .gid
                .map_or_else(|| header.id(&header.0.as_old().gid, "gid"), Ok)?,
            size: stored,
            mtime: pax.mtime.map_or_else(|| header.mtime(), Ok)?,
            atime: pax.atime,
            device: (0, 0),
            xattrs: pax.xattrs,
            extents: None,
        };
        if matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
            let bytes = header.0.as_bytes();
            entry.device = (
                header.id(&bytes[329..337], "devmajor")?,
                header.id(&bytes[337..345], "devminor")?,
            );
        }
        if header.0.entry_type() == EntryType::GNUSparse {
            let header = header.0.as_gnu().ok_or(TarError::Sparse)?;
            let (extents, size) = self.gnu_sparse(header)?;
            sparse::check(&extents, size, stored)?;
            (entry.extents, entry.size) = (Some(extents), size);
        }
        self.begin_content(stored);
        if kind == Kind::Regular {
            self.pax_sparse(&pax.sparse, &mut entry)?;
        }
        Ok(entry)
    }

    /// The map of a sparse file of GNU's old format, in its header and in
    /// blocks between header and content.
    fn gnu_sparse(&mut self, header: &GnuHeader) -> Result<(Vec<Extent>, u64), TarError> {
        let size = number(&header.realsize, "real size")?;
        let mut extents = Vec::new();
        sparse::old_gnu(&header.as_header().as_bytes()[386..482], &mut extents)?;
        let mut more = header.is_extended();
        while more {
            let mut block = [0; BLOCK];
            if !self.read_block(&mut block)? {
                return Err(TarError::Truncated(self.position));
            }
            sparse::old_gnu(&block[..504], &mut extents)?;
            more = block[504] != 0;
        }
        Ok((extents, u64::try_from(size).map_err(|_| TarError::Sparse)?))
    }

    /// The map of a sparse file of GNU's PAX formats, 0.0, 0.1 and 1.0.
    fn pax_sparse(
        &mut self,
        records: &pax::SparseRecords,
        entry: &mut Entry,
    ) -> Result<(), TarError> {
        let extents = match (records.major, records.minor) {
            (None, None) if records.map.is_empty() && records.real_size.is_none() => return Ok(()),
            (None | Some(0), None | Some(0 | 1)) => sparse::pairs(&records.map)?,
            (Some(1), Some(0)) => self.sparse_map_in_content()?,
            _ => return Err(TarError::Sparse),
        };
        let size = records.real_size.ok_or(TarError::Sparse)?;
        sparse::check(&extents, size, self.remaining)?;
        (entry.extents, entry.size) = (Some(extents), size);
        Ok(())
    }

    /// Format 1.0: decimal numbers, a line each, fill whole blocks at the
    /// front of the content.
    fn sparse_map_in_content(&mut self) -> Result<Vec<Extent>, TarError> {
        let mut numbers = sparse::MapReader::default();
        while !numbers.is_complete() {
            let mut block = [0; BLOCK];
            if self.remaining < BLOCK as u64 || !self.read_block(&mut block)? {
                return Err(TarError::Sparse);
            }
            self.remaining -= BLOCK as u64;
            numbers.add(&block)?;
        }
        sparse::pairs(numbers.pairs())
    }
}

/// One 512-byte header.
struct Header(tar::Header);

impl Header {
    fn is_zero(&self) -> bool {
        self.0.as_bytes().iter().all(|byte| *byte == 0)
    }

    /// Old tars summed signed bytes; both sums count.
    fn checksum_matches(&self) -> bool {
        let block = self.0.as_bytes();
        let Ok(expected) = number(&self.0.as_old().cksum, "checksum") else {
            return false;
        };
        let bytes = || {
            (block[..148].iter().copied())
                .chain([b' '; 8])
                .chain(block[156..].iter().copied())
        };
        let unsigned: i64 = bytes().map(i64::from).sum();
        let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
        expected == unsigned || expected == signed
    }

    fn kind(&self, path: &[u8]) -> Result<Kind, TarError> {
        Ok(match self.0.entry_type() {
            // V7 had no type for directories.
            EntryType::Regular if self.0.as_old().linkflag == [0] && path.ends_with(b"/") => {
                Kind::Directory
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::Regular,
            EntryType::Link => Kind::HardLink,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Char => Kind::CharDevice,
            EntryType::Block => Kind::BlockDevice,
            EntryType::Directory => Kind::Directory,
            EntryType::Fifo => Kind::Fifo,
            other => return Err(TarError::Type(other.as_byte())),
        })
    }

    fn mode(&self) -> Result<u32, TarError> {
        let mode = number(&self.0.as_old().mode, "mode")?;
        u32::try_from(mode & 0o7777).map_err(|_| TarError::Number { field: "mode" })
    }

    /// A user, group or device number.
    fn id(&self, bytes: &[u8], field: &'static str) -> Result<u32, TarError> {
        u32::try_from(number(bytes, field)?).map_err(|_| TarError::Number { field })
    }

    fn size(&self) -> Result<u64, TarError> {
        let size = number(&self.0.as_old().size, "size")?;
        u64::try_from(size).map_err(|_| TarError::Number { field: "size" })
    }

    fn mtime(&self) -> Result<Timestamp, TarError> {
        let seconds = number(&self.0.as_old().mtime, "mtime")?;
        Ok(Timestamp {
            seconds,
            nanoseconds: 0,
        })
    }
}

/// A number in octal digits, or in GNU's base 256 (two's complement, marked
/// by the first bit).
pub(super) fn number(bytes: &[u8], field: &'static str) -> Result<i64, TarError> {
    let wrong = TarError::Number { field };
    if bytes[0] & 0x80 != 0 {
        let negative = bytes[0] & 0x40 != 0;
        let first = if negative { bytes[0] } else { bytes[0] & 0x7f };
        let mut value = i128::from(first.cast_signed());
        for byte in &bytes[1..] {
            value = (value << 8) | i128::from(*byte);
        }
        return i64::try_from(value).map_err(|_| wrong);
    }
    let is_fill = |byte: &u8| matches!(byte, b' ' | 0);
    let Some(start) = bytes.iter().position(|byte| !is_fill(byte)) else {
        return Ok(0);
    };
    let digits = bytes[start..].split(is_fill).next().unwrap_or_default();
    let text = std::str::from_utf8(digits).map_err(|_| TarError::Number { field })?;
    if text.starts_with(['+', '-']) {
        return Err(wrong);
    }
    i64::from_str_radix(text, 8).map_err(|_| wrong)
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| *byte == 0);
    &bytes[..end.unwrap_or(bytes.len())]
}
