//! What registries granted, by repository, and the way to be granted it.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};

use reqwest::blocking::Response;
use reqwest::header::WWW_AUTHENTICATE;

use super::auth::{Challenge, parse_challenges};
use super::bearer::{Authorization, TokenRequest, check_realm};
use super::credentials::Credential;
use super::endpoint::Endpoint;
use super::{Inner, RegistryError};
use crate::reference::Reference;

/// An authorization, and what it takes to renew it.
#[derive(Clone)]
pub(super) struct Granted {
    pub(super) authorization: Authorization,
    challenge: Challenge,
    /// Whether a credential was used, or nobody in particular asked.
    pub(super) with_credentials: bool,
}

impl Inner {
    /// What was granted for this repository, renewed if it has run out.
    pub(super) fn current(
        &self,
        reference: &Reference,
        endpoint: &Endpoint,
    ) -> Result<Option<Granted>, RegistryError> {
        let known = self.lock().get(&key(reference)).cloned();
        match known {
            Some(old) if old.authorization.is_expired() => self.authorize(
                reference,
                endpoint,
                std::slice::from_ref(&old.challenge),
                Some(&old),
            ),
            other => Ok(other),
        }
    }

    /// Meets the first challenge that can be met. None: the registry wants
    /// credentials, and there are none.
    pub(super) fn authorize(
        &self,
        reference: &Reference,
        endpoint: &Endpoint,
        challenges: &[Challenge],
        rejected: Option<&Granted>,
    ) -> Result<Option<Granted>, RegistryError> {
        // held while the token is fetched, so that threads which were refused
        // together fetch one token
        let mut authorizations = self.lock();
        if let Some(other) = authorizations.get(&key(reference))
            && rejected.is_none_or(|old| old.authorization.header != other.authorization.header)
            && !other.authorization.is_expired()
        {
            return Ok(Some(other.clone()));
        }
        let registry = reference.registry();
        let credential = self.config.auth_files.find(reference).map_err(|source| {
            RegistryError::Credentials {
                registry: registry.to_owned(),
                source,
            }
        })?;
        let of_scheme = |scheme| challenges.iter().find(|one| one.scheme == scheme);
        let (challenge, authorization) = if let Some(challenge) = of_scheme("bearer") {
            (
                challenge,
                self.token(reference, endpoint, challenge, credential.as_ref())?,
            )
        } else if let Some(challenge) = of_scheme("basic") {
            let Some(Credential::Password { user, password }) = &credential else {
                return Ok(None);
            };
            let Some(authorization) = Authorization::basic(user, password) else {
                return Ok(None);
            };
            (challenge, authorization)
        } else {
            let schemes: Vec<_> = challenges.iter().map(|one| one.scheme.as_str()).collect();
            let (registry, challenge) = (registry.to_owned(), schemes.join(", "));
            return Err(RegistryError::Challenge {
                registry,
                challenge,
            });
        };
        let with_credentials = credential.is_some();
        let granted = Granted {
            authorization,
            challenge: challenge.clone(),
            with_credentials,
        };
        authorizations.insert(key(reference), granted.clone());
        Ok(Some(granted))
    }

    fn token(
        &self,
        reference: &Reference,
        endpoint: &Endpoint,
        challenge: &Challenge,
        credential: Option<&Credential>,
    ) -> Result<Authorization, RegistryError> {
        let registry = reference.registry();
        let realm = check_realm(challenge, registry, endpoint.base())?;
        let default_scope = format!("repository:{}:pull", reference.repository());
        let scope = challenge
            .get("scope")
            .filter(|scope| !scope.trim().is_empty());
        let request = TokenRequest {
            http: self.transport.http(&realm)?,
            realm,
            service: challenge.get("service"),
            scopes: scope
                .unwrap_or(&default_scope)
                .split_ascii_whitespace()
                .collect(),
            credential,
        };
        self.retry
            .run(|| request.fetch())
            .map_err(|source| RegistryError::Token {
                registry: registry.to_owned(),
                source: Box::new(source),
            })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), Granted>> {
        self.authorizations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(reference: &Reference) -> (String, String) {
    (
        reference.registry().to_owned(),
        reference.repository().to_owned(),
    )
}

/// All challenges of an answer.
pub(super) fn challenges_of(response: &Response) -> Vec<Challenge> {
    let headers = response.headers().get_all(WWW_AUTHENTICATE);
    headers
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(parse_challenges)
        .collect()
}
