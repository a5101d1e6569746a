//! From an unverified token to a principal: the steps of the module's documentation, in order.

use std::sync::Arc;

use thiserror::Error;
use uuid::Uuid;

use super::{
    authority::Authority, claims::Expectations, error::AuthError, keys::KeyCache, principal::Principal,
    tenants::Tenants, token::UnverifiedToken,
};
use crate::clock::Clock;

/// Turns bearer tokens into principals.
pub struct Verifier {
    tenants: Tenants,
    expectations: Expectations,
    required_scope: Option<String>,
    keys: KeyCache,
    clock: Arc<dyn Clock>,
}

/// What a [`Verifier`] holds tokens against.
#[derive(Clone, Debug)]
pub struct TokenPolicy {
    /// Whose tokens: the base URL of the issuer.
    pub authority: Authority,
    /// For whom: the client id of this API's app registration.
    pub client_id: Uuid,
    /// A scope that a token must carry; `None` accepts any.
    pub required_scope: Option<String>,
    /// The organisations whose people may sign in.
    pub tenants: Tenants,
}

/// The system offers no TLS to fetch signing keys with.
#[derive(Debug, Error)]
#[error("cannot prepare TLS for fetching signing keys")]
pub struct TlsUnavailable(#[from] reqwest::Error);

impl Verifier {
    /// A verifier that holds no keys yet.
    ///
    /// # Errors
    ///
    /// [`TlsUnavailable`], when the system's certificates cannot be read.
    pub fn new(policy: TokenPolicy, clock: Arc<dyn Clock>) -> Result<Self, TlsUnavailable> {
        let TokenPolicy { authority, client_id, required_scope, tenants } = policy;
        let keys = KeyCache::new(authority.clone())?;
        let expectations = Expectations::new(authority, client_id);
        Ok(Self { tenants, expectations, required_scope, keys, clock })
    }

    /// Proves a token and says who sent it.
    ///
    /// # Errors
    ///
    /// The first reason to refuse it, in the order of the steps.
    pub async fn verify(&self, unverified_jwt: &str) -> Result<Principal, AuthError> {
        let token = UnverifiedToken::parse(unverified_jwt)?;
        let tenant = token.unverified_claims.tenant()?;
        if !self.tenants.allow(tenant) {
            return Err(AuthError::TenantNotAllowed(tenant));
        }
        self.expectations.check(&token.unverified_claims, tenant, self.clock.since_epoch())?;

        let key = self.keys.find(tenant, &token.key_id).await?;
        let signed_claims = token.verify(&key)?;
        self.expectations.check(&signed_claims, tenant, self.clock.since_epoch())?;
        Principal::from_claims(&signed_claims, self.required_scope.as_deref())
    }
}
