//! From an unverified token to a principal: the steps of the module's documentation, in order.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use thiserror::Error;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use crate::auth::{
    authority::Authority,
    error::AuthError,
    keys::KeyCache,
    keys::fetch::with_causes,
    keys::status::{FetchCounts, KeyStatus},
    principal::Principal,
    rate_limit::TenantRates,
    request_log::Caller,
    tenants::Access,
    token::UnverifiedToken,
    token::cache::{TokenCacheUse, TokenDigest, VerifiedToken, VerifiedTokens},
    token::claims::Expectations,
};
use crate::{
    clock::Clock,
    ids::{Owner, TenantId},
};

/// How often it is looked whether a fetch of keys is due. Well below the shortest back-off.
const TICK: Duration = Duration::from_millis(500);

/// Turns bearer tokens into principals.
pub struct Verifier {
    access: ArcSwap<Access>,
    pub(super) expectations: Expectations,
    required_scope: Option<String>,
    keys: KeyCache,
    verified: VerifiedTokens,
    rates: Option<TenantRates>,
    pub(super) clock: Arc<dyn Clock>,
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
    /// How many requests a second each tenant may make; `None` for any number.
    pub tenant_rate_limit: Option<NonZeroU32>,
}

/// The system offers no TLS to fetch signing keys with.
#[derive(Debug, Error)]
#[error("cannot prepare TLS for fetching signing keys: {}", with_causes(.0))]
pub struct TlsUnavailable(#[from] reqwest::Error);

/// Why no token could be verified now.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum NotReady {
    /// Of no allowed tenant is a signing key at hand.
    #[error("no signing keys of any allowed tenant")]
    NoKeys,
}

impl Verifier {
    /// A verifier that holds no keys yet: [`Verifier::keep_keys_fresh`] fetches them.
    ///
    /// # Errors
    ///
    /// [`TlsUnavailable`], when the system's certificates cannot be read.
    pub fn new(
        policy: TokenPolicy,
        access: Access,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TlsUnavailable> {
        let TokenPolicy {
            authority,
            client_id,
            required_scope,
            tenant_rate_limit,
        } = policy;
        let keys = KeyCache::new(authority.clone(), Arc::clone(&clock))?;
        let expectations = Expectations::new(authority, client_id);
        let (access, verified) = (ArcSwap::from_pointee(access), VerifiedTokens::new());
        let rates = tenant_rate_limit.map(TenantRates::new);
        Ok(Self {
            access,
            expectations,
            required_scope,
            keys,
            verified,
            rates,
            clock,
        })
    }

    /// Proves a token and says who sent it; `caller` learns it as far as it goes.
    ///
    /// # Errors
    ///
    /// The first reason to refuse it, in the order of the steps.
    pub async fn verify(
        &self,
        unverified_jwt: &str,
        caller: &Caller,
    ) -> Result<Principal, AuthError> {
        let digest = TokenDigest::of(unverified_jwt);
        if let Some(principal) = self.recall(&digest) {
            self.verified.count(true);
            caller.proves(principal.owner());
            return Ok(principal);
        }
        self.verified.count(false);
        let token = UnverifiedToken::parse(unverified_jwt)?;
        let unverified_tenant = token.unverified_claims.tenant()?;
        caller.claims(unverified_tenant);
        let access = self.access_for(unverified_tenant)?;
        self.expectations.check(
            &token.unverified_claims,
            unverified_tenant,
            self.clock.since_epoch(),
        )?;

        let key_id = token.unverified_key_id.clone();
        access.check_key(&key_id)?;
        let found = self
            .keys
            .find(&access.tenants, unverified_tenant, &key_id)
            .await?;
        // A fetch may have taken seconds: who or what was trusted before may be no longer.
        self.access_for(unverified_tenant)?.check_key(&key_id)?;

        let signed_claims = token.verify(&found.key)?;
        let tenant = signed_claims.tenant()?;
        let validity = self
            .expectations
            .check(&signed_claims, tenant, self.clock.since_epoch())?;
        caller.proves(Owner {
            tenant,
            user: signed_claims.user()?,
        });
        let principal = Principal::from_claims(&signed_claims, self.required_scope.as_deref())?;
        let key = Arc::clone(&found.key);
        self.keys.confirm(tenant, found);
        let verified = VerifiedToken {
            principal: principal.clone(),
            validity,
            key_id,
            key,
        };
        self.verified.remember(digest, verified);
        Ok(principal)
    }

    /// Counts a request of this caller's organisation.
    ///
    /// # Errors
    ///
    /// [`AuthError::TooManyRequests`] when its requests of this second are spent.
    pub fn admit(&self, caller: &Principal) -> Result<(), AuthError> {
        match &self.rates {
            Some(rates) if !rates.take(caller.tenant(), self.clock.monotonic()) => {
                Err(AuthError::TooManyRequests)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whom a token speaks for that has been verified before, if all that may have changed since still holds.
    fn recall(&self, digest: &TokenDigest) -> Option<Principal> {
        let token = self.verified.find(digest)?;
        let tenant = token.principal.tenant();
        let is_good = token.validity.includes(self.clock.since_epoch())
            && self
                .access_for(tenant)
                .is_ok_and(|access| access.check_key(&token.key_id).is_ok())
            && self
                .keys
                .held(tenant, &token.key_id)
                .is_some_and(|key| Arc::ptr_eq(&key, &token.key));
        is_good.then(|| token.principal.clone())
    }

    /// Who may come in at the moment.
    pub fn access(&self) -> Arc<Access> {
        self.access.load_full()
    }

    /// Lets other tenants in, or trusts other keys, from the next request on.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime: it starts fetches of keys.
    pub fn replace_access(&self, access: Access) {
        self.access.store(Arc::new(access));
        drop(self.start_due_fetches());
    }

    /// Starts the fetches of keys that are due. They run whether or not the future is polled,
    /// which completes when all of them have ended.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn start_due_fetches(&self) -> impl Future<Output = ()> + Send + use<> {
        let flights = self.keys.start_due_fetches(&self.access.load().tenants);
        async move {
            for flight in flights {
                flight.landed().await;
            }
        }
    }

    /// Fetches keys as they become due, for as long as it is polled.
    pub async fn keep_keys_fresh(&self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            drop(self.start_due_fetches());
        }
    }

    /// Whether tokens can be verified now. In open mode always: keys come with the first token.
    ///
    /// # Errors
    ///
    /// [`NotReady`] says what is missing.
    pub fn readiness(&self) -> Result<(), NotReady> {
        if self.access.load().tenants.is_open() || self.keys.is_any_usable() {
            Ok(())
        } else {
            Err(NotReady::NoKeys)
        }
    }

    /// The keys of each tenant that is expected, and what was fetched for all others together.
    pub fn key_status(&self) -> (Vec<KeyStatus>, FetchCounts) {
        self.keys.status(&self.access.load().tenants)
    }

    /// How far remembering tokens has helped.
    pub fn token_cache(&self) -> TokenCacheUse {
        self.verified.usage()
    }

    fn access_for(&self, tenant: TenantId) -> Result<Arc<Access>, AuthError> {
        let access = self.access.load_full();
        if access.tenants.allow(tenant) {
            Ok(access)
        } else {
            Err(AuthError::TenantNotAllowed(tenant))
        }
    }
}
