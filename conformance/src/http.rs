//! As much of HTTP/1.1 as the harness itself speaks: one request a connection,
//! bodies of a stated length.
//!
//! Spec: RFC 9112, sections 3 (request line), 5 (fields) and 6 (body).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// How long either side waits for the other's next bytes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Header fields, in the order that they came or are to go.
pub type Fields = Vec<(String, String)>;

/// A request, as a server reads it or a client sends it.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// `GET`, `PUT` and so on.
    pub method: String,
    /// Path and query, as on the request line.
    pub target: String,
    /// Header fields.
    pub fields: Fields,
    /// The body; empty without a `Content-Length`.
    pub body: Vec<u8>,
}

/// A response, as a client reads it.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Header fields.
    pub fields: Fields,
    /// The body, chunks already joined.
    pub body: Vec<u8>,
}

impl Request {
    /// A request without fields or body.
    #[must_use]
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.into(),
            target: target.into(),
            ..Self::default()
        }
    }

    /// The same request with a body of a media type.
    #[must_use]
    pub fn body(mut self, media_type: &str, body: &[u8]) -> Self {
        self.fields.push(("Content-Type".into(), media_type.into()));
        self.body = body.to_vec();
        self
    }

    /// The first field of a name, in any case.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        find(&self.fields, name)
    }

    /// Sends the request to `host:port` and reads the whole response.
    ///
    /// # Errors
    /// When the host does not answer, or not with HTTP.
    pub fn send(&self, host: &str) -> Result<Response> {
        let step = || format!("{} http://{host}{}", self.method, self.target);
        let mut stream = TcpStream::connect(host).with_context(step)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: {host}\r\n",
            self.method, self.target
        );
        for (name, value) in &self.fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!(
            "Content-Length: {}\r\nConnection: close\r\n\r\n",
            self.body.len()
        ));
        stream.write_all(head.as_bytes()).with_context(step)?;
        stream.write_all(&self.body).with_context(step)?;
        read_response(&mut BufReader::new(stream), self.method == "HEAD").with_context(step)
    }
}

impl Response {
    /// The first field of a name, in any case.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        find(&self.fields, name)
    }
}

/// Reads one request; `None` when the peer closed without sending one.
///
/// # Errors
/// When what comes is not HTTP, or stops in the middle.
pub fn read_request(stream: &TcpStream) -> Result<Option<Request>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream);
    let line = read_line(&mut reader)?;
    if line.is_empty() {
        return Ok(None);
    }
    let mut words = line.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        bail!("request line {line:?}: not a method and a target");
    };
    let mut request = Request::new(method, target);
    request.fields = read_fields(&mut reader)?;
    if let Some(length) = request.field("content-length") {
        let length: u64 = length.parse().context("content-length")?;
        reader.take(length).read_to_end(&mut request.body)?;
    }
    Ok(Some(request))
}

fn read_response(reader: &mut impl BufRead, is_head: bool) -> Result<Response> {
    let line = read_line(reader)?;
    let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.with_context(|| format!("status line {line:?}"))?;
    let fields = read_fields(reader)?;
    let mut body = Vec::new();
    if is_head || status == 204 {
        return Ok(Response {
            status,
            fields,
            body,
        });
    }
    if find(&fields, "transfer-encoding").is_some_and(|value| value.contains("chunked")) {
        while let size @ 1.. = u64::from_str_radix(&read_line(reader)?, 16).context("chunk size")? {
            reader.take(size).read_to_end(&mut body)?;
            read_line(reader)?;
        }
    } else if let Some(length) = find(&fields, "content-length") {
        let length: u64 = length.parse().context("content-length")?;
        reader.take(length).read_to_end(&mut body)?;
        ensure!(
            body.len() as u64 == length,
            "the body ends after {} bytes",
            body.len()
        );
    } else {
        reader.read_to_end(&mut body)?;
    }
    Ok(Response {
        status,
        fields,
        body,
    })
}

fn read_fields(reader: &mut impl BufRead) -> Result<Fields> {
    let mut fields = Fields::new();
    loop {
        let line = read_line(reader)?;
        if line.is_empty() {
            return Ok(fields);
        }
        let (name, value) = line
            .split_once(':')
            .with_context(|| format!("field {line:?}"))?;
        fields.push((name.trim().into(), value.trim().into()));
    }
}

/// One line without its end; empty at the end of the stream too.
fn read_line(reader: &mut impl BufRead) -> Result<String> {
    let mut line = Vec::new();
    reader.take(64 * 1024).read_until(b'\n', &mut line)?;
    let text = String::from_utf8(line).context("a line that is not UTF-8")?;
    Ok(text.trim_end_matches(['\r', '\n']).into())
}

fn find<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    let field = fields
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))?;
    Some(&field.1)
}

/// Base64 of RFC 4648, section 4, as Basic credentials are written.
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().enumerate().fold(0_u32, |bits, (i, byte)| {
            bits | u32::from(*byte) << (16 - 8 * i)
        });
        for place in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place > group.len() {
                '='
            } else {
                char::from(letter)
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_read_by_length_by_chunks_and_to_the_end() {
        let table: [(&str, u16, &str); 4] = [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef",
                200,
                "abc",
            ),
            (
                "HTTP/1.1 201 C\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
                201,
                "abc",
            ),
            ("HTTP/1.0 404 Not Found\r\n\r\nabc", 404, "abc"),
            ("HTTP/1.1 204 No Content\r\nX: y\r\n\r\n", 204, ""),
        ];
        for (text, status, body) in table {
            let response = read_response(&mut text.as_bytes(), false).unwrap();
            assert_eq!(
                (response.status, response.body.as_slice()),
                (status, body.as_bytes()),
                "{text}"
            );
        }
    }

    #[test]
    fn a_body_that_ends_early_is_an_error() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc";
        assert!(read_response(&mut text.as_bytes(), false).is_err());
    }

    #[test]
    fn base64_pads_to_four() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }
}
