//! Single requests: at which endpoint, with which authorization, and what their failures say.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::blocking::Response;
use reqwest::header::{CONTENT_LENGTH, HeaderValue, RETRY_AFTER};
use reqwest::{StatusCode, Url};

use super::authorize::{self, Access, Scope};
use super::endpoint::{Endpoint, Role};
use super::error::{RegistryError, StatusAnswer};
use super::transport::Get;
use super::{Inner, retry};
use crate::reference::Reference;

/// The most bytes of an error's body that are read.
const ERROR_BODY_LIMIT: u64 = 64 << 10;

impl Inner {
    /// One GET below the repository, at its mirrors and then at its registry, authorized where
    /// that is asked for. Answers a success, or 206 if a range was asked for.
    pub(super) fn get(
        &self,
        reference: &Reference,
        path: &str,
        get: &Get<'_>,
    ) -> Result<Response, RegistryError> {
        let route = self.route(reference)?;
        let mut passed = Vec::new();
        for endpoint in route.iter().filter(|endpoint| endpoint.serves(get.named)) {
            if self.is_dead(endpoint) {
                continue;
            }
            let access = Access {
                endpoint,
                scope: Scope::Pull,
            };
            let url = endpoint.url(path);
            let answer = self.authorized(access, &url, "GET", |header| {
                self.transport.get(endpoint, &url, header, get)
            });
            match answer {
                Err(error) if endpoint.passes(&error) => {
                    if error.is_of_the_dead() {
                        lock(&self.dead).insert(endpoint.origin());
                    }
                    passed.push((endpoint.origin(), error));
                }
                Err(error) => return Err(error.after(passed)),
                Ok(response) => return Ok(response),
            }
        }
        // the registry itself is always there, and is the last
        Err(RegistryError::Address(reference.registry().to_owned()).after(passed))
    }

    /// Asks the first of `endpoints` that speaks as the user says; mirrors are none of them.
    pub(super) fn at_registry<T>(
        &self,
        endpoints: &[Endpoint],
        mut ask: impl FnMut(&Endpoint) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let mut passed = Vec::new();
        for endpoint in endpoints {
            if self.is_dead(endpoint) {
                continue;
            }
            match ask(endpoint) {
                Err(error) if endpoint.passes(&error) => {
                    lock(&self.dead).insert(endpoint.origin());
                    passed.push((endpoint.origin(), error));
                }
                result => return result.map_err(|error| error.after(passed)),
            }
        }
        Err(RegistryError::Address(String::new()).after(passed))
    }

    /// Whether another one is to be asked instead, because this one failed before.
    fn is_dead(&self, endpoint: &Endpoint) -> bool {
        let has_others = endpoint.is_guess || endpoint.role == Role::Mirror;
        has_others && lock(&self.dead).contains(&endpoint.origin())
    }

    /// The endpoints of a repository, looked up once.
    fn route(&self, reference: &Reference) -> Result<Arc<[Endpoint]>, RegistryError> {
        let name = reference.name();
        if let Some(route) = lock(&self.routes).get(&name) {
            return Ok(Arc::clone(route));
        }
        let route: Arc<[Endpoint]> = self.settings.route(reference)?.into();
        lock(&self.routes).insert(name, Arc::clone(&route));
        Ok(route)
    }

    /// Sends a request, and once more with an authorization if the registry asks for one.
    pub(super) fn authorized(
        &self,
        access: Access<'_>,
        url: &Url,
        method: &'static str,
        mut send: impl FnMut(Option<&HeaderValue>) -> Result<Response, RegistryError>,
    ) -> Result<Response, RegistryError> {
        let mut granted = self.current(access)?;
        let mut renewed = false;
        loop {
            let header = granted
                .as_ref()
                .map(|granted| &granted.authorization.header);
            let response = send(header)?;
            if response.status().is_success() {
                return Ok(response);
            }
            let with_credentials = granted
                .as_ref()
                .is_some_and(|granted| granted.with_credentials);
            // whoever a redirect leads to is not asked what it wants
            let is_own = response.url() == url;
            if response.status() != StatusCode::UNAUTHORIZED || renewed || !is_own {
                return Err(refusal((method, url), response, with_credentials));
            }
            let challenges = authorize::challenges_of(&response);
            granted = self.authorize(access, &challenges, granted.as_ref())?;
            if granted.is_none() {
                return Err(refusal((method, url), response, with_credentials));
            }
            renewed = true;
        }
    }
}

/// A thread that panicked leaves nothing half done in what these protect.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The error of an answer that is no success.
pub(super) fn refusal(
    (method, url): (&'static str, &Url),
    response: Response,
    with_credentials: bool,
) -> RegistryError {
    let (status, retry_after) = (response.status(), retry_after(&response));
    let mut body = Vec::new();
    if response
        .take(ERROR_BODY_LIMIT)
        .read_to_end(&mut body)
        .is_err()
    {
        // the status alone says enough
        body.clear();
    }
    let answer = StatusAnswer {
        retry_after,
        ..StatusAnswer::parse(status.as_u16(), &body)
    };
    let path = url.path().to_owned();
    if status == StatusCode::UNAUTHORIZED {
        RegistryError::Unauthorized {
            method,
            path,
            answer,
            with_credentials,
        }
    } else {
        RegistryError::Status {
            method,
            path,
            answer,
        }
    }
}

pub(super) fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    retry::parse_retry_after(value, time::OffsetDateTime::now_utc())
}

/// The length that an answer announces.
pub(super) fn content_length(response: &Response) -> Option<u64> {
    response
        .headers()
        .get(CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// An address for people: queries of blob stores hold signatures.
pub(super) fn without_query(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.to_string()
}
