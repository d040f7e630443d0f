//! Whether a registry lets a user in.
//!
//! Spec: distribution-spec spec.md#endpoints (end-1)

use super::authorize::{Access, Scope};
use super::endpoint::Named;
use super::transport::Get;
use super::{Client, RegistryError};

impl Client {
    /// Asks `registry` whether the credential of this client's config is good.
    ///
    /// # Errors
    /// If it is not, or the registry does not answer.
    pub fn login(&self, registry: &str) -> Result<(), RegistryError> {
        let inner = &self.inner;
        let endpoints = inner.settings.login_endpoints(registry)?;
        inner.retry.run(|| {
            inner.at_registry(&endpoints, |endpoint| {
                let access = Access {
                    endpoint,
                    scope: Scope::Login,
                };
                let (url, get) = (endpoint.api_url(""), Get::document(Named::Tag, "*/*"));
                inner.authorized(access, &url, "GET", |header| {
                    inner.transport.get(endpoint, &url, header, &get)
                })
            })
        })?;
        Ok(())
    }
}
