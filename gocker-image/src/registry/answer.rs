//! What a registry says with a status that is no success.
//!
//! Spec: distribution-spec spec.md#error-codes

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

/// What came with a status that is no success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusAnswer {
    /// The HTTP status.
    pub status: u16,
    /// What the body says. Empty if it is not the JSON that registries send.
    pub errors: Vec<ErrorDetail>,
    /// How long the registry asks to wait.
    pub retry_after: Option<Duration>,
}

/// One entry of the JSON that registries send.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ErrorDetail {
    /// `MANIFEST_UNKNOWN`, ….
    #[serde(default)]
    pub code: String,
    /// A sentence for people.
    #[serde(default)]
    pub message: String,
    /// Whatever the registry adds.
    #[serde(default)]
    pub detail: serde_json::Value,
}

impl StatusAnswer {
    /// Reads the body of an answer, as far as it can be understood.
    #[must_use]
    pub fn parse(status: u16, body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Body {
            errors: Vec<ErrorDetail>,
        }
        // token servers and proxies send one entry without the list around it
        #[derive(Deserialize)]
        struct Plain {
            #[serde(alias = "error")]
            code: Option<String>,
            #[serde(alias = "details", alias = "error_description")]
            message: Option<String>,
        }
        let errors = if let Ok(body) = serde_json::from_slice::<Body>(body) {
            body.errors
        } else if let Ok(Plain { code, message }) = serde_json::from_slice(body) {
            let (code, message) = (code.unwrap_or_default(), message.unwrap_or_default());
            vec![ErrorDetail {
                code,
                message,
                detail: serde_json::Value::Null,
            }]
        } else {
            Vec::new()
        };
        let is_said = |error: &ErrorDetail| !(error.code.is_empty() && error.message.is_empty());
        let errors = errors.into_iter().filter(is_said).collect();
        Self {
            status,
            errors,
            retry_after: None,
        }
    }
}

impl fmt::Display for StatusAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.errors.iter().map(ErrorDetail::to_string).collect();
        if texts.is_empty() {
            let status = reqwest::StatusCode::from_u16(self.status).ok();
            let reason = status.and_then(|status| status.canonical_reason());
            let reason = reason.unwrap_or("unknown status").to_ascii_lowercase();
            return write!(f, "{reason} ({})", self.status);
        }
        write!(f, "{} ({})", texts.join("; "), self.status)
    }
}

impl fmt::Display for ErrorDetail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, message) = (printable(&self.code), printable(&self.message));
        match (code.is_empty(), message.is_empty()) {
            (false, false) => write!(f, "{code}: {message}"),
            (false, true) => f.write_str(&code),
            _ => f.write_str(&message),
        }
    }
}

/// A stranger's text for a terminal: one line, no control characters, not
/// without end.
pub(super) fn printable(text: &str) -> String {
    const MOST: usize = 300;
    let mut short: String = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MOST)
        .collect();
    if text.trim().chars().count() > MOST {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_in_one_line() {
        let cases: [(u16, &str, &str); 7] = [
            (
                404,
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"1"}}]}"#,
                "MANIFEST_UNKNOWN: manifest unknown (404)",
            ),
            (
                403,
                r#"{"errors":[{"code":"DENIED"},{"message":"go away"}]}"#,
                "DENIED; go away (403)",
            ),
            (
                401,
                r#"{"details":"incorrect username or password"}"#,
                "incorrect username or password (401)",
            ),
            (502, "<html>", "bad gateway (502)"),
            (404, "", "not found (404)"),
            (500, r#"{"errors":[]}"#, "internal server error (500)"),
            (
                400,
                "{\"errors\":[{\"message\":\"a\\u001b[31mb\\nc\"}]}",
                "a [31mb c (400)",
            ),
        ];
        for (status, body, expected) in cases {
            assert_eq!(
                StatusAnswer::parse(status, body.as_bytes()).to_string(),
                expected
            );
        }
    }
}
