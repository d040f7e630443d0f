//! When a request is sent again, and after which pause.

use std::thread::sleep;
use std::time::Duration;

use super::error::RegistryError;

/// How often, and how long between.
#[derive(Clone, Debug)]
pub(super) struct RetryPolicy {
    /// How often a request is sent in all.
    pub(super) attempts: u32,
    /// The pause before the second time; it doubles each time.
    pub(super) first_pause: Duration,
    /// The longest pause that a registry may ask for by Retry-After.
    pub(super) longest_pause: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 5,
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(90),
        }
    }
}

impl RetryPolicy {
    /// Sends until it succeeds, fails for good, or has been tried often enough.
    pub(super) fn run<T>(
        &self,
        mut send: impl FnMut() -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let mut attempt = 1;
        loop {
            let error = match send() {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            match self.pause(attempt, &error) {
                Some(pause) => sleep(spread(pause, chance())),
                None => return Err(error),
            }
            attempt += 1;
        }
    }

    /// The pause after the attempt of that number (from 1). None: give up.
    pub(super) fn pause(&self, attempt: u32, error: &RegistryError) -> Option<Duration> {
        let attempts = if error.is_refused() {
            self.attempts.min(3)
        } else {
            self.attempts
        };
        if !error.is_transient() || attempt >= attempts {
            return None;
        }
        let own = self.first_pause * 2_u32.pow((attempt - 1).min(6));
        match error.retry_after() {
            Some(asked) if asked > self.longest_pause => None,
            Some(asked) => Some(asked.max(own)),
            None => Some(own),
        }
    }
}

/// A pause between the whole one and half as much more, so that those who failed together do not
/// come back together. What a registry asks for is never cut short.
pub(super) fn spread(pause: Duration, chance: u32) -> Duration {
    pause + pause.mul_f64(f64::from(chance) / f64::from(u32::MAX) / 2.0)
}

/// A number that differs from process to process and from call to call.
pub(super) fn chance() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    let mixed = std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish();
    u32::try_from(mixed >> 32).unwrap_or_default()
}

/// Reads Retry-After: seconds, or a date.
pub(super) fn parse_retry_after(value: &str, now: time::OffsetDateTime) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    // Sun, 06 Nov 1994 08:49:37 GMT: RFC 2822 but for the name of the zone
    let date = value.trim().replace("GMT", "+0000");
    let format = &time::format_description::well_known::Rfc2822;
    let then = time::OffsetDateTime::parse(&date, format).ok()?;
    Some(Duration::try_from(then - now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::error::{StatusAnswer, TransportReason};
    use super::*;

    fn status(status: u16, retry_after: Option<u64>) -> RegistryError {
        let retry_after = retry_after.map(Duration::from_secs);
        let answer = StatusAnswer {
            status,
            errors: Vec::new(),
            retry_after,
        };
        RegistryError::Status {
            method: "GET",
            path: "/v2/".to_owned(),
            answer,
        }
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let policy = RetryPolicy::default();
        let refused = |reason| RegistryError::Transport {
            method: "GET",
            url: String::new(),
            reason,
        };
        let cases = [
            (status(404, None), 1, None),
            (status(503, None), 1, Some(200)),
            (status(503, None), 2, Some(400)),
            (status(503, None), 5, None),
            (status(429, Some(7)), 1, Some(7000)),
            (status(429, Some(0)), 1, Some(200)),
            (status(429, Some(3600)), 1, None),
            (refused(TransportReason::Closed), 3, Some(800)),
            (refused(TransportReason::PlainText), 1, None),
        ];
        for (error, attempt, expected) in cases {
            let expected = expected.map(Duration::from_millis);
            assert_eq!(policy.pause(attempt, &error), expected, "{error} {attempt}");
        }
    }

    #[test]
    fn pauses_are_spread_and_never_shorter() {
        let pause = Duration::from_secs(2);
        for (chance, expected) in [(0, 2.0), (u32::MAX / 2, 2.5), (u32::MAX, 3.0)] {
            let spread = spread(pause, chance).as_secs_f64();
            assert!((spread - expected).abs() < 0.001, "{chance}: {spread}");
        }
        assert_ne!(chance(), chance());
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = time::macros::datetime!(1994-11-06 08:49:30 UTC);
        let cases = [
            ("12", Some(12)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7)),
            ("Sun, 06 Nov 1994 08:40:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ];
        for (value, expected) in cases {
            assert_eq!(
                parse_retry_after(value, now),
                expected.map(Duration::from_secs),
                "{value}"
            );
        }
    }
}
