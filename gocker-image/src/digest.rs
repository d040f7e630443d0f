//! Content digests, `algorithm:hex`, and the readers that compute and verify
//! them while the bytes pass through.
//!
//! A [`Digest`] exists only if it was parsed strictly or computed, so a path
//! made of its [`hex`](Digest::hex) can never leave its directory.
//!
//! Spec: image-spec descriptor.md#digests

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// A hash algorithm that image-spec registers and this program accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// `sha256`, 64 lower-case hex digits.
    Sha256,
    /// `sha512`, 128 lower-case hex digits.
    Sha512,
}

impl Algorithm {
    /// The name before the colon.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// The number of hex digits after the colon.
    #[must_use]
    pub fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// A digest: an algorithm and the hex digits that its rule demands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest {
    algorithm: Algorithm,
    hex: Box<str>,
}

impl Digest {
    /// The SHA-256 digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::with(Algorithm::Sha256, bytes)
    }

    /// The digest of `bytes` by `algorithm`.
    #[must_use]
    pub fn with(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The algorithm before the colon.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hex digits after the colon.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.hex
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// There is no colon.
    #[error("{0:?} is not a digest: it has no algorithm before a colon")]
    NoAlgorithm(String),
    /// The algorithm is neither sha256 nor sha512.
    #[error("{0:?} is not a digest that can be verified: only sha256 and sha512 are")]
    UnknownAlgorithm(String),
    /// The part after the colon has the wrong length or other characters.
    #[error("{text:?} is not a digest: {algorithm} has {expected} lower-case hex digits", algorithm = algorithm.name(), expected = algorithm.hex_len())]
    WrongHex {
        /// What was given.
        text: String,
        /// The algorithm that it names.
        algorithm: Algorithm,
    },
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((name, hex)) = text.split_once(':') else {
            return Err(DigestError::NoAlgorithm(text.to_owned()));
        };
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(DigestError::UnknownAlgorithm(text.to_owned())),
        };
        let lower_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if hex.len() != algorithm.hex_len() || !hex.bytes().all(lower_hex) {
            return Err(DigestError::WrongHex {
                text: text.to_owned(),
                algorithm,
            });
        }
        Ok(Self {
            algorithm,
            hex: hex.into(),
        })
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// A running hash. Uses the processor's SHA instructions where it has them.
#[derive(Clone, Debug)]
pub struct Hasher(State);

#[derive(Clone, Debug)]
enum State {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// A hash of nothing yet.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => State::Sha512(sha2::Sha512::new()),
        })
    }

    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(hash) => hash.update(bytes),
            State::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The digest of everything added.
    #[must_use]
    pub fn finish(self) -> Digest {
        let (algorithm, hex) = match self.0 {
            State::Sha256(hash) => (Algorithm::Sha256, hex_of(&hash.finalize())),
            State::Sha512(hash) => (Algorithm::Sha512, hex_of(&hash.finalize())),
        };
        Digest {
            algorithm,
            hex: hex.into(),
        }
    }
}

fn hex_of(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hex = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        hex.push(char::from(DIGITS[usize::from(byte >> 4)]));
        hex.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    hex
}

/// A reader that hashes all that is read through it.
#[derive(Debug)]
pub struct DigestReader<R> {
    inner: R,
    hasher: Hasher,
    bytes: u64,
}

impl<R: Read> DigestReader<R> {
    /// Hashes what is read from `inner` by `algorithm`.
    pub fn new(inner: R, algorithm: Algorithm) -> Self {
        Self {
            inner,
            hasher: Hasher::new(algorithm),
            bytes: 0,
        }
    }

    /// The inner reader, the digest and the number of the bytes read so far.
    pub fn finish(self) -> (R, Digest, u64) {
        (self.inner, self.hasher.finish(), self.bytes)
    }
}

impl<R: Read> Read for DigestReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buf)?;
        self.hasher.update(&buf[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}

/// Why a stream is not the content that its descriptor promised. Found inside
/// the `io::Error` (of kind `InvalidData`) that a [`VerifyReader`] returns.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The stream ended early.
    #[error("{digest}: ended after {actual} of {expected} bytes")]
    Short {
        /// The digest that was expected.
        digest: Digest,
        /// The size that was promised.
        expected: u64,
        /// The bytes that came.
        actual: u64,
    },
    /// The stream goes on after the promised size.
    #[error("{digest}: is longer than its {expected} bytes")]
    Long {
        /// The digest that was expected.
        digest: Digest,
        /// The size that was promised.
        expected: u64,
    },
    /// The content has another digest.
    #[error("{expected}: its content has the digest {actual}")]
    Mismatch {
        /// The digest that was expected.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
}

/// A reader that passes on exactly the bytes that a descriptor promises.
///
/// The bytes that complete the size are handed out only after the digest
/// matched, and after the inner reader was seen to end; so a caller who has
/// read `size` bytes, or has seen the end of the stream, holds verified
/// content.
#[derive(Debug)]
pub struct VerifyReader<R> {
    inner: R,
    expected: Digest,
    size: u64,
    bytes: u64,
    /// Some until the digest was compared.
    hasher: Option<Hasher>,
}

impl<R: Read> VerifyReader<R> {
    /// Expects `size` bytes with the digest `expected` from `inner`.
    pub fn new(inner: R, expected: Digest, size: u64) -> Self {
        let hasher = Some(Hasher::new(expected.algorithm()));
        Self {
            inner,
            expected,
            size,
            bytes: 0,
            hasher,
        }
    }

    /// Whether all bytes came and their digest matched.
    pub fn is_verified(&self) -> bool {
        self.hasher.is_none() && self.bytes == self.size
    }

    /// The inner reader, wherever it stands.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// Checks the end of the stream and its digest, once.
    fn verify(&mut self) -> io::Result<()> {
        let Some(hasher) = self.hasher.take() else {
            return Ok(());
        };
        let actual = hasher.finish();
        let mismatch = actual != self.expected;
        if mismatch {
            let expected = self.expected.clone();
            return self.fail(VerifyError::Mismatch { expected, actual });
        }
        let mut one = [0];
        if read_some(&mut self.inner, &mut one)? > 0 {
            let (digest, expected) = (self.expected.clone(), self.size);
            return self.fail(VerifyError::Long { digest, expected });
        }
        Ok(())
    }

    /// Makes every later read fail too, and returns the error.
    fn fail(&mut self, error: VerifyError) -> io::Result<()> {
        self.hasher = None;
        self.bytes = u64::MAX;
        Err(io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

impl<R: Read> Read for VerifyReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.bytes > self.size {
            let text = format!("{}: read on after an error", self.expected);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        if buf.is_empty() {
            return Ok(0);
        }
        let left = self.size - self.bytes;
        if left == 0 {
            self.verify()?;
            return Ok(0);
        }
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let count = self.inner.read(&mut buf[..room])?;
        if count == 0 {
            let (digest, expected, actual) = (self.expected.clone(), self.size, self.bytes);
            self.fail(VerifyError::Short {
                digest,
                expected,
                actual,
            })?;
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buf[..count]);
        }
        self.bytes += count as u64;
        if self.bytes == self.size {
            self.verify()?;
        }
        Ok(count)
    }
}

/// Reads once, again after an interruption.
fn read_some(reader: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(buf) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn only_strict_digests_parse() {
        let sha512 = format!("sha512:{}", "0".repeat(128));
        for good in [EMPTY, &sha512] {
            assert_eq!(good.parse::<Digest>().unwrap().to_string(), good);
        }
        let upper = EMPTY.to_uppercase().replace("SHA", "sha");
        let short = &EMPTY[..70];
        let long = format!("{EMPTY}0");
        let climbing = format!("sha256:../{}", "0".repeat(61));
        let short_512 = format!("sha512:{}", "0".repeat(64));
        let md5 = format!("md5:{}", "0".repeat(32));
        for bad in [
            "", ":", "sha256", "sha256:", &upper, short, &long, &climbing, &short_512, &md5,
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad:?} parsed");
        }
    }

    #[test]
    fn digests_are_those_of_the_standard() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(
            Digest::of(b"abc").hex(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert!(
            Digest::with(Algorithm::Sha512, b"abc")
                .hex()
                .starts_with("ddaf35a193617aba")
        );
    }

    #[test]
    fn digest_reader_counts_and_hashes() {
        let mut reader = DigestReader::new(&b"abc"[..], Algorithm::Sha256);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let (_, digest, bytes) = reader.finish();
        assert_eq!((digest, bytes), (Digest::of(b"abc"), 3));
    }

    #[test]
    fn verify_reader_passes_only_what_was_promised() {
        let cases = [
            (&b"abc"[..], 3, &b"abc"[..], None),
            (b"", 0, b"", None),
            (b"ab", 3, b"abc", Some("ended after 2 of 3 bytes")),
            (b"abcd", 3, b"abc", Some("is longer than its 3 bytes")),
            (b"abd", 3, b"abc", Some("its content has the digest")),
            (b"x", 0, b"", Some("is longer than its 0 bytes")),
        ];
        for (stream, size, content, expected) in cases {
            let mut reader = VerifyReader::new(stream, Digest::of(content), size);
            let mut read = Vec::new();
            let result = reader.read_to_end(&mut read);
            match expected {
                None => {
                    result.unwrap();
                    assert_eq!(read, content);
                    assert!(reader.is_verified());
                }
                Some(text) => {
                    let error = result.unwrap_err();
                    assert!(error.to_string().contains(text), "{error}");
                    assert!(!reader.is_verified());
                    assert!(reader.read(&mut [0; 4]).is_err(), "read on after {error}");
                }
            }
        }
    }

    #[test]
    fn the_last_bytes_of_a_wrong_stream_are_withheld() {
        let mut reader = VerifyReader::new(&b"abd"[..], Digest::of(b"abc"), 3);
        assert!(reader.read(&mut [0; 3]).is_err());
    }
}
