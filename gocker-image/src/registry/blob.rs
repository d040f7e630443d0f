//! Blobs, read as a stream that survives broken connections and is verified.

use std::io::{self, Cursor, Read};
use std::time::Duration;

use reqwest::blocking::Response;
use reqwest::header::{CONTENT_RANGE, TRANSFER_ENCODING};
use reqwest::{StatusCode, Url, Version};

use super::Client;
use super::error::{RegistryError, TransportReason};
use super::request::content_length;
use super::retry::{chance, spread};
use super::transport::{Get, broken};
use crate::digest::{VerifyError, VerifyReader};
use crate::image::Descriptor;
use crate::reference::Reference;

/// How often one blob may be taken up again in all, however much came each time.
const MOST_RESUMES: u32 = 1000;
/// The pause after a connection that brought something before it broke.
const SHORT_PAUSE: Duration = Duration::from_millis(20);

/// What is here of a blob already: its first bytes, which are verified with the rest.
pub struct Kept {
    /// How many there are.
    pub bytes: u64,
    /// Reads them.
    pub reader: Box<dyn Read + Send>,
}

/// A blob's bytes. Its errors hold a [`RegistryError`]; the last bytes come
/// only if size and digest are right.
pub struct BlobReader {
    inner: VerifyReader<Source>,
}

enum Source {
    Embedded(Cursor<Vec<u8>>),
    Network(Box<ResumingBody>),
    Resumed(io::Take<Box<dyn Read + Send>>, Box<ResumingBody>),
}

impl BlobReader {
    pub(super) fn open(
        client: Client,
        reference: Reference,
        descriptor: Descriptor,
        kept: Option<Kept>,
    ) -> Result<Self, RegistryError> {
        let (digest, size) = (descriptor.digest.clone(), descriptor.size);
        let path = format!("blobs/{digest}");
        let embedded = descriptor.embedded();
        let embedded = embedded.map_err(|source| RegistryError::Document {
            path: path.clone(),
            source,
        })?;
        let source = match embedded {
            Some(bytes) => Source::Embedded(Cursor::new(bytes)),
            None => {
                let kept = kept.filter(|kept| kept.bytes > 0 && kept.bytes <= size);
                let mut body = ResumingBody {
                    client,
                    reference,
                    descriptor,
                    path,
                    response: None,
                    position: kept.as_ref().map_or(0, |kept| kept.bytes),
                    failures: 0,
                    resumes: 0,
                    moved: false,
                };
                if size == 0 || body.position < size {
                    let retry = body.client.inner.retry.clone();
                    retry.run(|| body.connect())?;
                }
                match kept {
                    None => Source::Network(Box::new(body)),
                    Some(kept) => Source::Resumed(kept.reader.take(kept.bytes), Box::new(body)),
                }
            }
        };
        Ok(Self {
            inner: VerifyReader::new(source, digest, size),
        })
    }
}

impl Read for BlobReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buf)
    }
}

impl Read for Source {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Embedded(bytes) => bytes.read(buf),
            Self::Network(body) => body.read(buf),
            Self::Resumed(kept, body) => match kept.read(buf)? {
                0 if kept.limit() > 0 => Err(io::ErrorKind::UnexpectedEof.into()),
                0 => body.read(buf),
                count => Ok(count),
            },
        }
    }
}

/// The error inside an `io::Error` that a [`BlobReader`] returned.
pub(super) fn content_error(error: io::Error) -> RegistryError {
    let error = match error.downcast::<RegistryError>() {
        Ok(error) => return error,
        Err(error) => error,
    };
    match error.downcast::<VerifyError>() {
        Ok(error) => RegistryError::Content(error),
        Err(error) => RegistryError::Body(error),
    }
}

/// Whether a clean end of the body can be told from a closed connection.
fn marks_its_end(response: &Response) -> bool {
    content_length(response).is_some()
        || response.headers().contains_key(TRANSFER_ENCODING)
        || response.version() >= Version::HTTP_2
}

/// The unverified bytes, asked for anew from where they broke off.
struct ResumingBody {
    client: Client,
    reference: Reference,
    descriptor: Descriptor,
    path: String,
    response: Option<Response>,
    position: u64,
    /// Breaks since the last progress.
    failures: u32,
    resumes: u32,
    /// Whether this connection has brought anything.
    moved: bool,
}

impl ResumingBody {
    /// Opens the connection, from `position` on. Who does not serve that range is asked for all.
    fn connect(&mut self) -> Result<(), RegistryError> {
        match self.connect_from(self.position) {
            Err(error) if error.status() == Some(416) && self.position > 0 => self.connect_from(0),
            result => result,
        }
    }

    fn connect_from(&mut self, offset: u64) -> Result<(), RegistryError> {
        let get = Get::blob(offset);
        let mut response = self.get(&get)?;
        let size = self.descriptor.size;
        let left = if response.status() == StatusCode::PARTIAL_CONTENT && self.position > 0 {
            match self.check_range(&response) {
                // it serves ranges of its own choice: everything comes again
                Err(_) if offset > 0 => return self.connect_from(0),
                result => result?,
            }
            size - self.position
        } else {
            size
        };
        if let Some(actual) = content_length(&response).filter(|length| *length != left) {
            let digest = self.descriptor.digest.clone();
            return Err(RegistryError::Length {
                digest,
                expected: left,
                actual,
            });
        }
        if response.status() != StatusCode::PARTIAL_CONTENT && self.position > 0 {
            // ranges are not served: everything comes again
            let url = response.url().clone();
            let skipped = io::copy(&mut (&mut response).take(self.position), &mut io::sink());
            match skipped {
                Ok(count) if count == self.position => {}
                Ok(_) => return Err(self.closed(&url)),
                Err(error) => return Err(broken("GET", &url, &error)),
            }
        }
        self.response = Some(response);
        Ok(())
    }

    /// Asks the registry, and then the other addresses that the layer has, if it has any.
    fn get(&self, get: &Get<'_>) -> Result<Response, RegistryError> {
        let inner = &self.client.inner;
        match inner.get(&self.reference, &self.path, get) {
            Err(error) if error.is_not_found() && !self.descriptor.urls.is_empty() => {
                inner.get_foreign(&self.reference, &self.descriptor, get)
            }
            result => result,
        }
    }

    /// A 206 must begin where it was asked to.
    fn check_range(&self, response: &Response) -> Result<(), RegistryError> {
        let range = response
            .headers()
            .get(CONTENT_RANGE)
            .and_then(|value| value.to_str().ok());
        let begin = range.and_then(|range| {
            range
                .strip_prefix("bytes ")?
                .split('-')
                .next()?
                .parse()
                .ok()
        });
        if begin == Some(self.position) {
            return Ok(());
        }
        let url = super::request::without_query(response.url());
        let reason = TransportReason::Text(format!(
            "asked for the bytes from {} on, got {range:?}",
            self.position
        ));
        Err(RegistryError::Transport {
            method: "GET",
            url,
            reason,
        })
    }

    fn closed(&self, url: &Url) -> RegistryError {
        let (url, reason) = (super::request::without_query(url), TransportReason::Closed);
        RegistryError::Transport {
            method: "GET",
            url,
            reason,
        }
    }

    /// Waits and connects again after `error`, or gives up with it.
    fn resume(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        self.response = None;
        let mut error = error;
        loop {
            self.failures += 1;
            self.resumes += 1;
            let pause = self.client.inner.retry.pause(self.failures, &error);
            let Some(mut pause) = pause.filter(|_| self.resumes <= MOST_RESUMES) else {
                return Err(error);
            };
            if std::mem::take(&mut self.moved) {
                pause = SHORT_PAUSE;
            }
            std::thread::sleep(spread(pause, chance()));
            match self.connect() {
                Ok(()) => return Ok(()),
                Err(next) => error = next,
            }
        }
    }
}

impl Read for ResumingBody {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            let Some(response) = &mut self.response else {
                if self.position >= self.descriptor.size {
                    return Ok(0);
                }
                return Err(io::Error::other("read on after an error"));
            };
            let error = match response.read(buf) {
                Ok(count) if count > 0 => {
                    self.position += count as u64;
                    (self.failures, self.moved) = (0, true);
                    return Ok(count);
                }
                // all is here; how the connection ends does not matter
                _ if self.position >= self.descriptor.size => return Ok(0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(_) => {
                    // an answer that marks its end and came to it is short for good
                    if marks_its_end(response) {
                        return Ok(0);
                    }
                    let url = response.url().clone();
                    self.closed(&url)
                }
                Err(error) => broken("GET", &response.url().clone(), &error),
            };
            self.resume(error).map_err(io::Error::other)?;
        }
    }
}
