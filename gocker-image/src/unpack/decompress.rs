//! Decompression by magic bytes: gzip with any number of members, zstd with
//! any number of frames (skippable ones too), or none.
//!
//! A layer's media type is not asked: images are served under wrong ones, and
//! the digests decide what is right.

use std::io::{self, BufRead, Read};

/// The largest window of a zstd frame, 2^27 bytes: what `zstd -d` accepts
/// without being asked for more. It bounds the memory that a frame can demand.
const ZSTD_WINDOW_LOG: u32 = 27;

/// How a blob is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
    /// Not at all.
    None,
}

impl Compression {
    /// What the first bytes of a blob say.
    #[must_use]
    pub fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    /// What a layer's media type ends in.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Gzip => "+gzip",
            Self::Zstd => "+zstd",
            Self::None => "",
        }
    }

    /// The name that an error calls it by.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::None => "uncompressed",
        }
    }
}

/// The program that reads what begins with `start`, where this one does not.
#[must_use]
pub fn other_program(start: &[u8]) -> Option<&'static str> {
    match start {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some("xz"),
        // the digits of pi; a tar archive may begin with a name like the first four bytes
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, ..] => Some("bzip2"),
        _ => None,
    }
}

/// The tar stream within the blob that `reader` delivers, and how it is compressed. The buffer
/// of `reader` holds more than a few bytes.
///
/// # Errors
/// When the blob cannot be read, or is compressed in another way.
pub fn decoder<'r, R: BufRead + 'r>(
    mut reader: R,
) -> io::Result<(Compression, Box<dyn Read + 'r>)> {
    // The first chunk holds far more than the magic, unless the blob ends.
    let start = reader.fill_buf()?;
    if let Some(program) = other_program(start) {
        let problem =
            format!("compressed by {program}, which is not read: {program} -d makes it readable");
        return Err(io::Error::new(io::ErrorKind::Unsupported, problem));
    }
    let compression = Compression::of(start);
    let decoder: Box<dyn Read + 'r> = match compression {
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        Compression::None => Box::new(reader),
    };
    Ok((compression, decoder))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::pipe::{pipe, read_full};
    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(data: &[u8]) -> Vec<u8> {
        zstd::stream::encode_all(data, 1).unwrap()
    }

    fn decode(blob: &[u8]) -> io::Result<Vec<u8>> {
        let (writer, reader) = pipe(64);
        let mut source = blob;
        while writer.send(|buf| read_full(&mut source, buf))?.unwrap() > 0 {}
        drop(writer);
        let mut data = Vec::new();
        decoder(reader)?.1.read_to_end(&mut data)?;
        Ok(data)
    }

    #[test]
    fn blobs_are_read_to_their_end() {
        let skippable = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        let table = [
            (b"plain".to_vec(), "plain"),
            (Vec::new(), ""),
            (gzip(b"one"), "one"),
            ([gzip(b"one"), gzip(b""), gzip(b"two")].concat(), "onetwo"),
            (zstd(b"one"), "one"),
            ([zstd(b"one"), zstd(b"two")].concat(), "onetwo"),
            ([skippable.clone(), zstd(b"one"), skippable].concat(), "one"),
        ];
        for (blob, text) in table {
            assert_eq!(decode(&blob).unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn damaged_blobs_are_errors() {
        let (gzip, zstd) = (gzip(b"some text, some text"), zstd(b"some text, some text"));
        let flip = |blob: &[u8]| {
            let mut blob = blob.to_vec();
            let middle = blob.len() / 2;
            blob[middle] ^= 0x55;
            blob
        };
        let huge_window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 1, 0, 0];
        for blob in [
            gzip[..gzip.len() - 4].to_vec(),
            [&gzip[..], b"garbage"].concat(),
            flip(&gzip),
            zstd[..zstd.len() - 4].to_vec(),
            [&zstd[..], b"garbage"].concat(),
            huge_window.to_vec(),
        ] {
            assert!(decode(&blob).is_err());
        }
    }
}
