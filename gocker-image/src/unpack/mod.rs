//! Layers into trees: a blob is fetched, decompressed and applied to a root
//! directory at the same time, by three threads with bounded pipes between.
//!
//! ```text
//! fetch (its reader verifies)  --blob-->  decompress, hash (DiffID)  --tar-->  apply
//! ```
//!
//! Nothing here knows where a blob comes from or where a root lies. A root is
//! good only after [`Decoding::apply`] returned, for only then is the blob
//! known to be the one that was asked for, and the tar to have its DiffID.
//!
//! Spec: image-spec layer.md

mod config_paths;
mod decompress;
mod in_root;
mod layer;
mod ownership;
mod pax;
mod pipe;
mod sparse;
mod tar_index;
mod tar_stream;
#[cfg(test)]
mod tests;
mod whiteout;
mod xattr;

use std::io::{self, BufRead, Read};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Scope, ScopedJoinHandle};

use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};

use crate::digest::{Digest, Hasher};
use crate::errno::CallError;
use pipe::{ChunkReader, ChunkWriter, ReaderGone, read_full};

pub use config_paths::{make_dirs, read_file};
pub use decompress::{Compression, decoder, other_program};
pub use in_root::PathError;
pub(crate) use in_root::split;
pub use layer::{Applied, EntryError, LayerError};
pub use tar_index::{IndexError, Member, MemberKind, members};
pub use tar_stream::TarError;
pub(crate) use whiteout::{Marker, marker, names, stat_at};
pub use xattr::XattrError;
pub(crate) use xattr::is_taken;

/// Chunks that wait between two stages; with the pipe's chunk size 4 MiB.
const PIPE_DEPTH: usize = 16;
/// A blob that failed further down is still read to its end if no more than
/// this is left, because a wrong digest explains every other error.
const EXPLAIN_BYTES: u64 = 64 << 20;
/// Below this much output the ratio is not looked at: files of zeros are.
const RATIO_FLOOR_BYTES: u64 = 1 << 30;

/// How much one layer may bring. Each is far above what real images need, and
/// keeps a hostile one from taking the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budgets {
    /// Bytes of content in one layer.
    pub bytes: u64,
    /// Bytes of one file, holes included.
    pub file_bytes: u64,
    /// Entries in one layer.
    pub entries: u64,
    /// Components of one path.
    pub path_depth: usize,
    /// Bytes of extended attributes of one entry, names included.
    pub xattr_bytes: u64,
    /// Times that a layer may be larger than its blob, from 1 GiB on.
    pub ratio: u64,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            bytes: 256 << 30,
            file_bytes: 128 << 30,
            entries: 8_000_000,
            path_depth: 256,
            xattr_bytes: 1 << 20,
            ratio: 1200,
        }
    }
}

/// Why a layer did not become part of a root.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The blob could not be had, or is not the one that was asked for.
    #[error("fetch")]
    Fetch(#[source] io::Error),
    /// The blob is damaged.
    #[error("decompress ({})", .0.name())]
    Decompress(Compression, #[source] io::Error),
    /// The blob grows beyond all measure.
    #[error("it grows to more than {0} times its size")]
    Ratio(u64),
    /// The archive is wrong or cannot be applied.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The archive is another one than the image's config names.
    #[error("its content has the diff ID {actual}, not {expected}")]
    DiffId {
        /// What the image's config says.
        expected: Digest,
        /// What the archive has.
        actual: Digest,
    },
    /// A thread could not get a umask of its own.
    #[error("get a umask of its own")]
    Umask(#[source] CallError),
    /// A stage ended by a panic.
    #[error("the {0} stage panicked")]
    Panicked(&'static str),
}

impl UnpackError {
    /// Whether the file system is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Layer(error) if error.is_full())
    }
}

/// What is known of a layer before it is fetched.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The digest of its archive, uncompressed.
    pub diff_id: Digest,
    /// The size of its blob.
    pub blob_bytes: u64,
}

/// Opens a blob when its turn comes. The reader fails at the end of a blob
/// that is not the one asked for.
pub type OpenBlob<'scope> = Box<dyn FnOnce() -> io::Result<Box<dyn Read + Send>> + Send + 'scope>;

/// A layer that is being fetched and decompressed ahead of its use.
pub struct Decoding<'scope> {
    tar: ChunkReader,
    expected: Expected,
    /// Whether an error further down is worth reading the rest of the blob.
    explain: Arc<AtomicBool>,
    fetch: ScopedJoinHandle<'scope, io::Result<()>>,
    decompress: ScopedJoinHandle<'scope, Result<Digest, UnpackError>>,
}

/// Begins to fetch and decompress a layer in threads of `scope`. They stop
/// when their pipes are full, until [`Decoding::apply`] empties them; dropping
/// the result stops them for good. `fetched` is told the bytes that come in.
pub fn decode<'scope>(
    scope: &'scope Scope<'scope, '_>,
    expected: Expected,
    budgets: &Budgets,
    open: OpenBlob<'scope>,
    fetched: impl Fn(u64) + Send + 'scope,
) -> Decoding<'scope> {
    let (blob_writer, blob) = pipe::pipe(PIPE_DEPTH);
    let (tar_writer, tar) = pipe::pipe(PIPE_DEPTH);
    let total = Arc::new(AtomicU64::new(0));
    let (total_fetched, size) = (Arc::clone(&total), expected.blob_bytes);
    let explain = Arc::new(AtomicBool::new(false));
    let is_explained = Arc::clone(&explain);
    let fetch = scope.spawn(move || {
        let read_on = |read: u64| {
            is_explained.load(Ordering::Relaxed) && size.saturating_sub(read) <= EXPLAIN_BYTES
        };
        fetch_blob(open, blob_writer, read_on, |bytes| {
            total.fetch_add(bytes, Ordering::Relaxed);
            fetched(bytes);
        })
    });
    let hasher = Hasher::new(expected.diff_id.algorithm());
    let ratio = budgets.ratio;
    let decompress = scope.spawn(move || {
        decompress_blob(blob, tar_writer, hasher, |output| {
            let input = total_fetched.load(Ordering::Relaxed);
            let limit = input.saturating_mul(ratio).max(RATIO_FLOOR_BYTES);
            if output > limit {
                Err(UnpackError::Ratio(ratio))
            } else {
                Ok(())
            }
        })
    });
    Decoding {
        tar,
        expected,
        explain,
        fetch,
        decompress,
    }
}

impl Decoding<'_> {
    /// Applies the layer to the directory `root`, and returns when all of it
    /// is there and its digests match. `warn` is told what is skipped, and `room` how many bytes
    /// of the archive are about to be written, which it may refuse.
    ///
    /// # Errors
    /// The first cause: a blob that is wrong explains an archive that is.
    pub fn apply(
        self,
        root: OwnedFd,
        budgets: &Budgets,
        warn: &mut (dyn FnMut(String) + Send),
        room: &mut (dyn FnMut(u64) -> io::Result<()> + Send),
    ) -> Result<Applied, UnpackError> {
        let tar = Counted {
            tar: self.tar,
            room,
        };
        self.explain.store(true, Ordering::Relaxed);
        let applied = std::thread::scope(|scope| {
            scope
                .spawn(move || {
                    without_umask()?;
                    Ok(layer::apply(root, tar, budgets, warn)?)
                })
                .join()
                .unwrap_or(Err(UnpackError::Panicked("apply")))
        });
        let decompressed =
            (self.decompress.join()).unwrap_or(Err(UnpackError::Panicked("decompress")));
        match self.fetch.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(UnpackError::Fetch(error)),
            Err(_) => return Err(UnpackError::Panicked("fetch")),
        }
        let applied = match applied {
            Err(UnpackError::Layer(error)) if error.is_of_the_stream() => {
                decompressed?;
                return Err(UnpackError::Layer(error));
            }
            applied => applied?,
        };
        let actual = decompressed?;
        if actual != self.expected.diff_id {
            let expected = self.expected.diff_id;
            return Err(UnpackError::DiffId { expected, actual });
        }
        Ok(applied)
    }
}

/// An archive on its way to a root.
struct Counted<'a> {
    tar: ChunkReader,
    room: &'a mut (dyn FnMut(u64) -> io::Result<()> + Send),
}

impl BufRead for Counted<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let (bytes, is_new) = self.tar.fill_chunk()?;
        if is_new {
            (self.room)(bytes.len() as u64)?;
        }
        Ok(bytes)
    }

    fn consume(&mut self, amount: usize) {
        self.tar.consume(amount);
    }
}

impl Read for Counted<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        pipe::read_buffered(self, buf)
    }
}

/// Gives this thread alone the umask 0, so that modes are what they say.
fn without_umask() -> Result<(), UnpackError> {
    unshare(CloneFlags::CLONE_FS)
        .map_err(|errno| UnpackError::Umask(CallError::new("unshare", "CLONE_FS", errno)))?;
    umask(Mode::empty());
    Ok(())
}

/// Reads the whole blob into the pipe.
fn fetch_blob(
    open: OpenBlob<'_>,
    pipe: ChunkWriter,
    read_on: impl Fn(u64) -> bool,
    fetched: impl Fn(u64),
) -> io::Result<()> {
    let mut read = 0;
    let result = open().and_then(|mut reader| {
        loop {
            match pipe.send(|buf| read_full(&mut reader, buf))? {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    read += count as u64;
                    fetched(count as u64);
                }
                Err(ReaderGone) if read_on(read) => {
                    return io::copy(&mut reader, &mut io::sink()).map(drop);
                }
                Err(ReaderGone) => return Ok(()),
            }
        }
    });
    if result.is_err() {
        pipe.fail();
    }
    result
}

/// Decompresses the whole blob into the pipe; returns the archive's digest.
fn decompress_blob(
    blob: ChunkReader,
    pipe: ChunkWriter,
    mut hasher: Hasher,
    check: impl Fn(u64) -> Result<(), UnpackError>,
) -> Result<Digest, UnpackError> {
    let decompress = || {
        let (compression, mut decoder) =
            decoder(blob).map_err(|error| UnpackError::Decompress(Compression::None, error))?;
        let wrong = |error| UnpackError::Decompress(compression, error);
        let mut output = 0;
        loop {
            let sent = pipe
                .send(|buf| {
                    let count = read_full(&mut decoder, buf)?;
                    hasher.update(&buf[..count]);
                    Ok(count)
                })
                .map_err(wrong)?;
            match sent {
                Ok(0) | Err(ReaderGone) => return Ok(()),
                Ok(count) => output += count as u64,
            }
            check(output)?;
        }
    };
    let result = decompress();
    match result {
        Ok(()) => Ok(hasher.finish()),
        Err(error) => {
            pipe.fail();
            Err(error)
        }
    }
}
