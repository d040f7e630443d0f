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

/// An authorization, and what it takes to renew it.
#[derive(Clone)]
pub(super) struct Granted {
    pub(super) authorization: Authorization,
    challenge: Challenge,
    /// Whether a credential was used, or nobody in particular asked.
    pub(super) with_credentials: bool,
}

/// What is to be done at an endpoint.
#[derive(Clone, Copy)]
pub(super) struct Access<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) scope: Scope<'a>,
}

/// What a token is to allow, where the registry does not say it itself.
#[derive(Clone, Copy)]
pub(super) enum Scope<'a> {
    /// To read the repository.
    Pull,
    /// To write to the repository, and to read another one that blobs are taken from.
    Push(Option<&'a str>),
    /// Nothing but to be known.
    Login,
}

impl Access<'_> {
    fn scopes(&self) -> Vec<String> {
        let repository = self.endpoint.repository();
        match self.scope {
            Scope::Pull => vec![format!("repository:{repository}:pull")],
            Scope::Push(from) => {
                let mut scopes = vec![format!("repository:{repository}:pull,push")];
                scopes.extend(from.map(|from| format!("repository:{from}:pull")));
                scopes
            }
            Scope::Login => Vec::new(),
        }
    }

    fn key(&self) -> String {
        format!("{} {}", self.endpoint.base(), self.scopes().join(" "))
    }
}

impl Inner {
    /// What was granted for this access, renewed if it has run out.
    pub(super) fn current(&self, access: Access<'_>) -> Result<Option<Granted>, RegistryError> {
        let known = self.lock().get(&access.key()).cloned();
        match known {
            Some(old) if old.authorization.is_expired() => {
                self.authorize(access, std::slice::from_ref(&old.challenge), Some(&old))
            }
            other => Ok(other),
        }
    }

    /// Meets the first challenge that can be met. None: the registry wants
    /// credentials, and there are none.
    pub(super) fn authorize(
        &self,
        access: Access<'_>,
        challenges: &[Challenge],
        rejected: Option<&Granted>,
    ) -> Result<Option<Granted>, RegistryError> {
        // held while the token is fetched, so that threads which were refused
        // together fetch one token
        let mut authorizations = self.lock();
        if let Some(other) = authorizations.get(&access.key())
            && rejected.is_none_or(|old| old.authorization.header != other.authorization.header)
            && !other.authorization.is_expired()
        {
            return Ok(Some(other.clone()));
        }
        let registry = access.endpoint.registry();
        let credential = self.credential(access.endpoint)?;
        let of_scheme = |scheme| challenges.iter().find(|one| one.scheme == scheme);
        let (challenge, authorization) = if let Some(challenge) = of_scheme("bearer") {
            let token = self.token(access, challenge, credential.as_ref())?;
            (challenge, token)
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
        authorizations.insert(access.key(), granted.clone());
        Ok(Some(granted))
    }

    /// The credential for an endpoint: the one that the user gave for its registry, or a kept one.
    fn credential(&self, endpoint: &Endpoint) -> Result<Option<Credential>, RegistryError> {
        let (registry, repository) = (endpoint.registry(), endpoint.repository());
        if let Some((given_for, credential)) = &self.config.credential
            && endpoint.named.as_ref() == Some(given_for)
        {
            return Ok(Some(credential.clone()));
        }
        let helpers = self.settings.credential_helpers();
        let found = self.config.auth_files.find(registry, repository, helpers);
        found.map_err(|source| RegistryError::Credentials {
            registry: registry.to_owned(),
            source,
        })
    }

    fn token(
        &self,
        access: Access<'_>,
        challenge: &Challenge,
        credential: Option<&Credential>,
    ) -> Result<Authorization, RegistryError> {
        let registry = access.endpoint.registry();
        let realm = check_realm(challenge, registry, access.endpoint.base())?;
        let mut scopes = access.scopes();
        let asked = challenge
            .get("scope")
            .filter(|scope| !scope.trim().is_empty());
        if let Some(asked) = asked
            && !matches!(access.scope, Scope::Push(Some(_)))
        {
            scopes = asked.split_ascii_whitespace().map(str::to_owned).collect();
        }
        let request = TokenRequest {
            http: self.transport.http(access.endpoint, &realm)?,
            realm,
            service: challenge.get("service"),
            scopes,
            credential,
        };
        self.retry
            .run(|| request.fetch())
            .map_err(|source| RegistryError::Token {
                registry: registry.to_owned(),
                source: Box::new(source),
            })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Granted>> {
        self.authorizations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
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
