//! What the hostile registry answers, and how.

use std::time::Duration;

use serde_json::json;

/// How the body of an answer goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Whole.
    Whole,
    /// So many bytes, though the stated length is the whole's; then the
    /// connection is closed.
    CutAfter(usize),
    /// So many bytes, then the connection is reset.
    ResetAfter(usize),
    /// So many bytes of the head, then the connection is closed.
    HeadCutAfter(usize),
    /// So many bytes, then none and no end, until the client goes.
    StallAfter(usize),
    /// In small pieces with this pause between them.
    Slowly(Duration),
}

/// One answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Header fields; `Content-Length` is added.
    pub fields: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// How the body goes out.
    pub delivery: Delivery,
}

impl Answer {
    /// An answer without a body.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self {
            status,
            fields: Vec::new(),
            body: Vec::new(),
            delivery: Delivery::Whole,
        }
    }

    /// An error as registries word it.
    #[must_use]
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let body = json!({"errors": [{"code": code, "message": message, "detail": null}]});
        Self::status(status)
            .field("Content-Type", "application/json")
            .body(body.to_string())
    }

    /// A body with its media type.
    #[must_use]
    pub fn document(media_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::status(200)
            .field("Content-Type", media_type)
            .body(body)
    }

    /// A redirect.
    #[must_use]
    pub fn redirect(location: &str) -> Self {
        Self::status(307).field("Location", location)
    }

    /// With one more header field.
    #[must_use]
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// With this body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Only what a `Range: bytes=N-` asks for, as 206, where there is one.
    #[must_use]
    pub fn range(mut self, range: Option<&str>) -> Self {
        let start = range.and_then(|text| {
            text.strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse::<usize>()
                .ok()
        });
        match start {
            Some(start) if start < self.body.len() => {
                let whole = self.body.len();
                self.body.drain(..start);
                self.status = 206;
                self.field(
                    "Content-Range",
                    &format!("bytes {start}-{}/{whole}", whole - 1),
                )
            }
            _ => self,
        }
    }

    /// With the body going out so.
    #[must_use]
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }
}
