//! A bounded pipe of byte chunks between two threads, which hands used chunks
//! back so that memory is neither allocated nor faulted in again.
//!
//! ```text
//! ChunkWriter --full--> [ at most `depth` chunks ] --> ChunkReader (BufRead)
//!      ^---------------------- empty ---------------------'
//! ```

use std::io::{self, BufRead, Read};

use crossbeam_channel::{Receiver, Sender, bounded};

/// The size of one chunk: small enough to stay in a processor's second-level
/// cache between two stages, large enough that a hand-over costs nothing.
const CHUNK_BYTES: usize = 256 << 10;

/// Makes a pipe that holds at most `depth` full chunks.
pub(super) fn pipe(depth: usize) -> (ChunkWriter, ChunkReader) {
    let (full_sender, full) = bounded(depth);
    let (empty_sender, empty) = bounded(depth + 2);
    let writer = ChunkWriter {
        full: full_sender,
        empty,
    };
    let reader = ChunkReader {
        full,
        empty: empty_sender,
        chunk: Chunk::default(),
        position: 0,
    };
    (writer, reader)
}

#[derive(Default)]
struct Chunk {
    bytes: Box<[u8]>,
    len: usize,
    /// The writer gives no more, because of an error of its own.
    failed: bool,
}

/// The end of a pipe that is written to. Dropping it ends the stream.
pub(super) struct ChunkWriter {
    full: Sender<Chunk>,
    empty: Receiver<Box<[u8]>>,
}

/// The reader of a pipe was dropped.
#[derive(Debug)]
pub(super) struct ReaderGone;

impl ChunkWriter {
    /// Fills one chunk by `fill` and sends it, unless nothing came. Says how
    /// many bytes came.
    pub(super) fn send(
        &self,
        fill: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<Result<usize, ReaderGone>> {
        let mut bytes = match self.empty.try_recv() {
            Ok(bytes) => bytes,
            Err(_) => vec![0; CHUNK_BYTES].into_boxed_slice(),
        };
        let len = fill(&mut bytes)?;
        if len == 0 {
            return Ok(Ok(0));
        }
        let chunk = Chunk {
            bytes,
            len,
            failed: false,
        };
        Ok(self.full.send(chunk).map(|()| len).map_err(|_| ReaderGone))
    }

    /// Tells the reader that the stream ends by an error.
    pub(super) fn fail(self) {
        let chunk = Chunk {
            failed: true,
            ..Chunk::default()
        };
        // A reader that is gone needs no telling.
        drop(self.full.send(chunk));
    }
}

/// The end of a pipe that is read from. Dropping it stops the writer.
pub(super) struct ChunkReader {
    full: Receiver<Chunk>,
    empty: Sender<Box<[u8]>>,
    chunk: Chunk,
    position: usize,
}

/// What a [`ChunkReader`] returns when the writer failed; the writer's own
/// error is the one to report.
#[derive(Debug, thiserror::Error)]
#[error("the stage before this one stopped")]
pub(super) struct WriterFailed;

impl ChunkReader {
    /// What is left of a chunk, and whether that is a new one.
    pub(super) fn fill_chunk(&mut self) -> io::Result<(&[u8], bool)> {
        let mut is_new = false;
        if self.position == self.chunk.len
            && !self.chunk.failed
            && let Ok(next) = self.full.recv()
        {
            is_new = true;
            let used = std::mem::replace(&mut self.chunk, next);
            self.position = 0;
            if !used.bytes.is_empty() {
                // A writer that is gone needs no chunks.
                drop(self.empty.try_send(used.bytes));
            }
        }
        if self.chunk.failed {
            return Err(io::Error::other(WriterFailed));
        }
        Ok((&self.chunk.bytes[self.position..self.chunk.len], is_new))
    }
}

impl BufRead for ChunkReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(self.fill_chunk()?.0)
    }

    fn consume(&mut self, amount: usize) {
        self.position = (self.position + amount).min(self.chunk.len);
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buf)
    }
}

/// Reads what is buffered already, or comes next.
pub(super) fn read_buffered(reader: &mut impl BufRead, buf: &mut [u8]) -> io::Result<usize> {
    let available = reader.fill_buf()?;
    let count = available.len().min(buf.len());
    buf[..count].copy_from_slice(&available[..count]);
    reader.consume(count);
    Ok(count)
}

/// Reads until `buf` is full or the stream ends; says how much came.
pub(super) fn read_full(reader: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        match reader.read(&mut buf[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_come_out_in_order() {
        let data: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
        let (writer, mut reader) = pipe(2);
        let mut source = data.as_slice();
        let read = std::thread::scope(|scope| {
            scope.spawn(move || {
                while writer
                    .send(|buf| read_full(&mut source, buf))
                    .unwrap()
                    .unwrap()
                    > 0
                {}
            });
            let mut read = Vec::new();
            reader.read_to_end(&mut read).unwrap();
            read
        });
        assert!(read == data);
    }

    #[test]
    fn a_failed_writer_is_not_an_end() {
        let (writer, mut reader) = pipe(2);
        writer
            .send(|buf| read_full(&mut &b"abc"[..], buf))
            .unwrap()
            .unwrap();
        writer.fail();
        let mut read = Vec::new();
        assert!(reader.read_to_end(&mut read).is_err());
        assert_eq!(read, b"abc");
    }

    #[test]
    fn a_dropped_reader_stops_the_writer() {
        let (writer, reader) = pipe(1);
        drop(reader);
        let sent = writer.send(|buf| read_full(&mut &b"abc"[..], buf)).unwrap();
        assert!(sent.is_err());
    }
}
