//! From an unverified token to a principal: the numbered steps of [`auth`](super), in order.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::available_parallelism,
    time::Duration,
};

use arc_swap::ArcSwap;
use strum::{IntoStaticStr, VariantNames};
use thiserror::Error;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::yield_now,
    time::{MissedTickBehavior, interval},
};
use uuid::Uuid;

use super::{
    authority::Authority,
    error::AuthError,
    keys::{
        KeyCache,
        fetch::TlsUnavailable,
        status::{FetchStats, KeyStatus},
    },
    principal::Principal,
    rate_limit::TenantRateLimits,
    request_log::RequestLog,
    tenants::{Access, TenantProfile},
    token::{
        UnverifiedToken,
        cache::{VerifiedToken, VerifiedTokens},
        claims::Expectations,
    },
};
use crate::{
    clock::Clock,
    ids::{Owner, TenantId},
};

/// How often to check which fetches are due: half of the shortest back-off.
const TICK: Duration = Duration::from_millis(500);

/// How many tokens are verified before other tasks run.
const VERIFICATIONS_PER_TURN: usize = 4;

/// Turns bearer tokens into principals.
pub struct Verifier {
    access: ArcSwap<Access>,
    pub(super) expectations: Expectations,
    required_scope: Option<String>,
    keys: KeyCache,
    verified: VerifiedTokens,
    /// A permit for each core.
    verifications: Semaphore,
    /// The permits given so far.
    turns: AtomicUsize,
    rate_limits: TenantRateLimits,
    default_rate_limit: Option<NonZeroU32>,
    clock: Arc<dyn Clock>,
}

/// Which tokens a [`Verifier`] accepts.
#[derive(Clone, Debug)]
pub struct TokenPolicy {
    /// The base URL of the issuer.
    pub authority: Authority,
    /// The client id of this API's app registration: the audience.
    pub client_id: Uuid,
    /// The scope that a token must have; `None` accepts any.
    pub required_scope: Option<String>,
    /// The requests per second of a tenant for which the registry has no limit; `None` for any number.
    pub tenant_rate_limit: Option<NonZeroU32>,
}

/// Why no token can be verified now.
#[derive(Clone, Copy, Debug, Eq, Error, IntoStaticStr, PartialEq, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum NotReady {
    /// No signing key of any allowed tenant is cached.
    #[error("no signing keys of any allowed tenant are cached")]
    NoKeys,
}

impl Verifier {
    /// A verifier without keys. [`Verifier::keep_keys_fresh`] fetches them.
    pub fn new(
        policy: TokenPolicy,
        access: Access,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TlsUnavailable> {
        let cores = available_parallelism().map_or(1, NonZeroUsize::get);
        Ok(Self {
            access: ArcSwap::from_pointee(access),
            keys: KeyCache::new(policy.authority.clone(), Arc::clone(&clock))?,
            expectations: Expectations::new(policy.authority, policy.client_id),
            required_scope: policy.required_scope,
            verified: VerifiedTokens::new(),
            verifications: Semaphore::new(cores),
            turns: AtomicUsize::new(0),
            rate_limits: TenantRateLimits::default(),
            default_rate_limit: policy.tenant_rate_limit,
            clock,
        })
    }

    /// Verifies a token and returns its user. Records tenant and user in `log`.
    ///
    /// # Errors
    ///
    /// The error of the first step that fails, in the order of [`auth`](super).
    pub async fn verify(
        &self,
        unverified_jwt: &str,
        log: &RequestLog,
    ) -> Result<Principal, AuthError> {
        if let Some(principal) = self.cached(unverified_jwt) {
            self.verified.count_hit();
            log.record_owner(principal.owner());
            self.check_rate_limit(principal.tenant())?;
            return Ok(principal);
        }
        self.verified.count_miss();
        let permit = self.verification_permit().await;
        let token = UnverifiedToken::parse(unverified_jwt)?;
        let unverified_tenant = token.unverified_claims.tenant()?;
        log.record_unverified_tenant(unverified_tenant);
        let access = self.access_for(unverified_tenant)?;
        let now = self.clock.since_epoch();
        self.expectations
            .check(&token.unverified_claims, unverified_tenant, now)?;

        let key_id = token.unverified_key_id.clone();
        access.check_key(&key_id)?;
        let (found, _permit) = if let Some(found) = self.keys.get(unverified_tenant, &key_id) {
            (found, permit)
        } else {
            drop(permit);
            let tenants = &access.tenants;
            let found = self.keys.get_or_fetch(tenants, unverified_tenant, &key_id);
            let found = found.await?;
            // The fetch took time: the allow-list and the revoked keys may have changed.
            self.access_for(unverified_tenant)?.check_key(&key_id)?;
            (found, self.verification_permit().await)
        };

        let signed_claims = token.verify(&found.key)?;
        let tenant = signed_claims.tenant()?;
        let user = signed_claims.user();
        if let Ok(user) = user {
            log.record_owner(Owner { tenant, user });
        }
        // Before the other checks: a tenant's tokens without scope or role count, too.
        self.check_rate_limit(tenant)?;
        let now = self.clock.since_epoch();
        let validity = self
            .expectations
            .check(signed_claims.claims(), tenant, now)?;
        user?;
        let principal = Principal::from_claims(&signed_claims, self.required_scope.as_deref())?;
        let verified = VerifiedToken {
            principal: principal.clone(),
            validity,
            key_id,
            key: Arc::clone(&found.key),
        };
        self.keys.promote(tenant, found);
        self.verified.insert(unverified_jwt, verified);
        Ok(principal)
    }

    /// Waits until fewer tokens are being verified than there are cores.
    ///
    /// Other tasks run before every few verifications. Without this, a flood of tokens would fill the
    /// run queue, and a request with a cached token would wait for all verifications before it.
    async fn verification_permit(&self) -> Option<SemaphorePermit<'_>> {
        let permit = self.verifications.acquire().await;
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        if turn.is_multiple_of(VERIFICATIONS_PER_TURN) {
            yield_now().await;
        }
        permit.ok()
    }

    /// Counts a request of the tenant. Rejects it if the tenant exceeds its rate limit.
    fn check_rate_limit(&self, tenant: TenantId) -> Result<(), AuthError> {
        let access = self.access.load();
        let own = access.profiles.get(&tenant);
        let own = own.and_then(|profile| profile.rate_limit);
        let Some(per_second) = own.or(self.default_rate_limit) else {
            return Ok(());
        };
        let now = self.clock.monotonic();
        if self.rate_limits.try_take(tenant, per_second, now) {
            Ok(())
        } else {
            Err(AuthError::TooManyRequests)
        }
    }

    /// The principal of a cached token, if its time, tenant and key are still accepted.
    fn cached(&self, unverified_jwt: &str) -> Option<Principal> {
        let token = self.verified.get(unverified_jwt)?;
        let tenant = token.principal.tenant();
        if !token.validity.includes(self.clock.since_epoch()) {
            return None;
        }
        let access = self.access_for(tenant).ok()?;
        access.check_key(&token.key_id).ok()?;
        let key = self.keys.cached(tenant, &token.key_id)?;
        Arc::ptr_eq(&key, &token.key).then(|| token.principal.clone())
    }

    /// The current allow-list, revoked keys and limits.
    pub fn access(&self) -> Arc<Access> {
        self.access.load_full()
    }

    /// The name and the limits that the registry has for a tenant.
    pub fn profile(&self, tenant: TenantId) -> TenantProfile {
        let access = self.access.load();
        access.profiles.get(&tenant).cloned().unwrap_or_default()
    }

    /// Replaces the allow-list, the revoked keys and the limits, and starts the fetches that are due. Needs a
    /// tokio runtime.
    pub fn replace_access(&self, access: Access) {
        self.access.store(Arc::new(access));
        drop(self.start_due_fetches());
    }

    /// Starts the fetches that are due. The returned future waits for them; they continue if it is
    /// dropped. Needs a tokio runtime.
    pub fn start_due_fetches(&self) -> impl Future<Output = ()> + Send + use<> {
        let flights = self.keys.start_due_fetches(&self.access.load().tenants);
        async move {
            for flight in flights {
                flight.landed().await;
            }
        }
    }

    /// Fetches keys when they are due. Does not return.
    pub async fn keep_keys_fresh(&self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            drop(self.start_due_fetches());
        }
    }

    /// Fails if no token can be verified now. Never in open mode: the first token fetches its keys.
    pub fn readiness(&self) -> Result<(), NotReady> {
        if self.access.load().tenants.is_open() || self.keys.is_any_usable() {
            Ok(())
        } else {
            Err(NotReady::NoKeys)
        }
    }

    /// The cached keys of each listed tenant.
    pub fn key_status(&self) -> Vec<KeyStatus> {
        self.keys.status(&self.access.load().tenants)
    }

    /// The counters of the key fetches.
    pub fn fetch_stats(&self) -> &FetchStats {
        self.keys.fetch_stats()
    }

    /// The hits and misses of the token cache since the start, and the current number of tokens.
    pub fn token_cache_stats(&self) -> (u64, u64, usize) {
        self.verified.stats()
    }

    fn access_for(&self, tenant: TenantId) -> Result<Arc<Access>, AuthError> {
        let access = self.access.load_full();
        if access.allows(tenant) {
            Ok(access)
        } else {
            Err(AuthError::TenantNotAllowed(tenant))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use tokio::time::timeout;

    use super::*;
    use crate::{auth::tenants::Tenants, clock::SystemClock};

    #[tokio::test(start_paused = true)]
    async fn verifications_wait_for_a_core() {
        let policy = TokenPolicy {
            authority: Authority::public(),
            client_id: Uuid::nil(),
            required_scope: None,
            tenant_rate_limit: None,
        };
        let access = Access::from_settings(Tenants::Listed(BTreeSet::new()), HashSet::new());
        let verifier = Verifier::new(policy, access, Arc::new(SystemClock::new())).unwrap();
        let mut permits = Vec::new();
        for _ in 0..available_parallelism().unwrap().get() {
            permits.push(verifier.verification_permit().await);
        }
        let mut next = std::pin::pin!(verifier.verification_permit());
        let short = Duration::from_millis(20);
        assert!(timeout(short, &mut next).await.is_err());
        permits.pop();
        assert!(timeout(short, next).await.is_ok());
    }
}
