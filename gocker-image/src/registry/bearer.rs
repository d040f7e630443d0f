//! Tokens: the way from a challenge to an `Authorization` header.
//!
//! ```text
//! anonymous              GET  realm?service=…&scope=…
//! identity token         POST realm, grant_type=refresh_token  ┐ 401, 404, 405:
//! user and password      POST realm, grant_type=password       ┘ GET with Basic
//! ```
//!
//! Spec: distribution's token and oauth2 specifications

use std::io::Read;
use std::time::{Duration, Instant};

use reqwest::Url;
use reqwest::blocking::{Client as Http, RequestBuilder};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use serde::Deserialize;

use super::auth::Challenge;
use super::credentials::Credential;
use super::endpoint::{Closeness, closeness};
use super::error::{RegistryError, StatusAnswer, TransportReason};

/// The most that a token answer may have.
const ANSWER_LIMIT: u64 = 1 << 20;
/// How long a token lasts that does not say it.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
const CLIENT_ID: &str = "gocker";

/// What is sent in `Authorization`, and until when.
#[derive(Clone)]
pub(super) struct Authorization {
    /// The header's value, marked as sensitive.
    pub(super) header: HeaderValue,
    /// None: lasts as long as the credentials.
    expires: Option<Instant>,
}

impl Authorization {
    pub(super) fn is_expired(&self) -> bool {
        self.expires.is_some_and(|end| Instant::now() >= end)
    }

    /// The credentials themselves.
    pub(super) fn basic(user: &str, password: &str) -> Option<Self> {
        use base64::Engine as _;
        let both = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        Self::new(&format!("Basic {both}"), None)
    }

    fn new(value: &str, expires: Option<Instant>) -> Option<Self> {
        let mut header = HeaderValue::from_str(value).ok()?;
        header.set_sensitive(true);
        Some(Self { header, expires })
    }
}

/// A question for a token, with everything that it needs.
pub(super) struct TokenRequest<'a> {
    pub(super) http: Http,
    pub(super) realm: Url,
    pub(super) service: Option<&'a str>,
    pub(super) scopes: Vec<String>,
    pub(super) credential: Option<&'a Credential>,
}

/// Checks the realm of a challenge: it may get credentials, and it may be
/// chosen by a hostile registry to reach hosts that only this machine reaches.
pub(super) fn check_realm(
    challenge: &Challenge,
    registry: &str,
    base: &Url,
) -> Result<Url, RegistryError> {
    let text = challenge.get("realm").unwrap_or_default();
    let refuse = |reason| RegistryError::Realm {
        registry: registry.to_owned(),
        realm: super::answer::printable(text),
        reason,
    };
    let realm = Url::parse(text).map_err(|_| refuse("which is no address"))?;
    if !matches!(realm.scheme(), "https" | "http") || realm.host().is_none() {
        return Err(refuse("which is no address of the web"));
    }
    if base.scheme() == "https" && realm.scheme() != "https" {
        return Err(refuse("which is not https although the registry is"));
    }
    if !realm.username().is_empty() || realm.password().is_some() {
        return Err(refuse("which holds a user name"));
    }
    let same_host = realm.host() == base.host();
    let is_close = closeness(&realm) != Closeness::Public && closeness(&realm) < closeness(base);
    if is_close && !same_host {
        return Err(refuse("which is on a closer network than the registry"));
    }
    Ok(realm)
}

impl TokenRequest<'_> {
    /// Fetches a token.
    pub(super) fn fetch(&self) -> Result<Authorization, RegistryError> {
        let secret = match self.credential {
            None => return self.send(self.http.get(self.query()), "GET"),
            Some(Credential::IdentityToken(token)) => ("refresh_token", None, token),
            Some(Credential::Password { user, password }) => ("password", Some(user), password),
        };
        let posted = self.send(self.post(secret), "POST");
        let (user, password) = match secret {
            (_, Some(user), password) => (user.as_str(), password),
            (_, None, token) => ("<token>", token),
        };
        match posted {
            Err(RegistryError::Status { answer, .. })
                if matches!(answer.status, 401 | 404 | 405) =>
            {
                self.send(
                    self.http.get(self.query()).basic_auth(user, Some(password)),
                    "GET",
                )
            }
            result => result,
        }
    }

    fn query(&self) -> Url {
        let mut url = self.realm.clone();
        {
            let mut pairs = url.query_pairs_mut();
            if let Some(service) = self.service {
                pairs.append_pair("service", service);
            }
            for scope in &self.scopes {
                pairs.append_pair("scope", scope);
            }
        }
        url
    }

    fn post(&self, (grant, user, secret): (&str, Option<&String>, &String)) -> RequestBuilder {
        let mut form = Url::parse("form:").unwrap_or_else(|_| self.realm.clone());
        {
            let mut pairs = form.query_pairs_mut();
            pairs.clear();
            pairs.append_pair("grant_type", grant);
            pairs.append_pair("service", self.service.unwrap_or_default());
            pairs.append_pair("client_id", CLIENT_ID);
            if !self.scopes.is_empty() {
                pairs.append_pair("scope", &self.scopes.join(" "));
            }
            match user {
                Some(user) => pairs
                    .append_pair("username", user)
                    .append_pair("password", secret),
                None => pairs.append_pair("refresh_token", secret),
            };
        }
        self.http
            .post(self.realm.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form.query().unwrap_or_default().to_owned())
    }

    fn send(
        &self,
        request: RequestBuilder,
        method: &'static str,
    ) -> Result<Authorization, RegistryError> {
        let path = self.realm.path().to_owned();
        let broken = |error: &(dyn std::error::Error + 'static)| RegistryError::Transport {
            method,
            url: super::request::without_query(&self.realm),
            reason: TransportReason::of(error),
        };
        let response = request
            .header(ACCEPT, "application/json")
            .send()
            .map_err(|e| broken(&e))?;
        let status = response.status();
        let retry_after = super::request::retry_after(&response);
        let mut body = Vec::new();
        response
            .take(ANSWER_LIMIT + 1)
            .read_to_end(&mut body)
            .map_err(|e| broken(&e))?;
        if body.len() as u64 > ANSWER_LIMIT {
            let what = format!("{method} {path}: the token answer");
            return Err(RegistryError::TooLarge {
                what,
                limit: ANSWER_LIMIT,
            });
        }
        if !status.is_success() {
            let answer = StatusAnswer {
                retry_after,
                ..StatusAnswer::parse(status.as_u16(), &body)
            };
            return Err(RegistryError::Status {
                method,
                path,
                answer,
            });
        }
        parse_answer(&body)
    }
}

fn parse_answer(body: &[u8]) -> Result<Authorization, RegistryError> {
    #[derive(Deserialize)]
    struct Answer {
        access_token: Option<String>,
        token: Option<String>,
        expires_in: Option<f64>,
    }
    let answer: Answer = serde_json::from_slice(body).map_err(RegistryError::TokenAnswer)?;
    let filled = |token: Option<String>| token.filter(|text| !text.is_empty());
    let token = filled(answer.access_token).or_else(|| filled(answer.token));
    let life = answer
        .expires_in
        .filter(|seconds| *seconds > 0.0 && *seconds < 1e9)
        .map_or(DEFAULT_LIFE, Duration::from_secs_f64);
    // renewed a little early, so that it does not end on its way
    let expires = Instant::now() + life - (life / 10).min(Duration::from_secs(10));
    token
        .and_then(|token| Authorization::new(&format!("Bearer {token}"), Some(expires)))
        .ok_or(RegistryError::NoToken)
}

#[cfg(test)]
mod tests {
    use super::super::auth::parse_challenges;
    use super::*;

    #[test]
    fn access_token_comes_before_token() {
        let cases = [
            (r#"{"token":"a"}"#, Some("Bearer a")),
            (
                r#"{"access_token":"b","token":"a","expires_in":300}"#,
                Some("Bearer b"),
            ),
            (r#"{"access_token":"","token":"a"}"#, Some("Bearer a")),
            (r#"{"token":"a","expires_in":-5}"#, Some("Bearer a")),
            (r#"{"token":"a\nb"}"#, None),
            ("{}", None),
            ("[]", None),
        ];
        for (body, expected) in cases {
            let header = parse_answer(body.as_bytes())
                .ok()
                .map(|answer| answer.header);
            assert_eq!(
                header.as_ref().map(|value| value.to_str().unwrap()),
                expected,
                "{body}"
            );
        }
    }

    #[test]
    fn a_token_lasts_as_long_as_it_says_or_a_minute() {
        let cases = [
            (r#"{"token":"a"}"#, 60),
            (r#"{"token":"a","expires_in":0}"#, 60),
            (r#"{"token":"a","expires_in":-5}"#, 60),
            (r#"{"token":"a","expires_in":1e300}"#, 60),
            (r#"{"token":"a","expires_in":300}"#, 300),
        ];
        for (body, life) in cases {
            let answer = parse_answer(body.as_bytes()).unwrap();
            let left = answer.expires.unwrap() - Instant::now();
            let (least, most) = (Duration::from_secs(life - 11), Duration::from_secs(life));
            assert!((least..=most).contains(&left), "{body}: {left:?}");
        }
    }

    #[test]
    fn only_a_realm_that_the_registry_may_name_is_asked() {
        let cases = [
            ("https://a.io", "https://auth.b.io/token", true),
            ("https://a.io", "http://auth.b.io/token", false),
            ("https://a.io", "https://127.0.0.1/token", false),
            ("https://a.io", "https://localhost/token", false),
            ("https://a.io", "https://169.254.169.254/token", false),
            ("https://a.io", "https://metadata/token", false),
            ("https://a.io", "https://u:p@auth.io/token", false),
            ("https://a.io", "file:///etc/passwd", false),
            ("https://a.io", "/token", false),
            ("https://10.0.0.1", "https://10.0.0.2/token", true),
            ("https://10.0.0.1", "https://127.0.0.1/token", false),
            ("http://127.0.0.1:5000", "http://127.0.0.1:5001/token", true),
            ("http://localhost:5000", "https://auth.b.io/token", true),
        ];
        for (base, realm, good) in cases {
            let challenge = &parse_challenges(&format!("Bearer realm=\"{realm}\""))[0];
            let result = check_realm(challenge, "r", &Url::parse(base).unwrap());
            assert_eq!(result.is_ok(), good, "{base} -> {realm}");
        }
    }
}
