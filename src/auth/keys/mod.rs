//! The signing keys of all tenants, cached.
//!
//! Callers whose key is cached never wait. A caller whose key is not cached waits for one fetch,
//! unless the tenant's rate limit or back-off prevents it. A failed fetch does not evict any key.
//!
//! In open mode anyone can name any tenant. Tenants without a verified token therefore share a
//! small separate cache and fetch budget, and can only evict one another.

mod budget;
pub(crate) mod fetch;
pub(crate) mod jwks;
mod schedule;
pub(crate) mod set;
pub(crate) mod status;
mod tenant;

use std::{convert::Infallible, sync::Arc, time::Duration};

use dashmap::DashMap;
use quick_cache::sync::Cache;

use self::{
    budget::{Budget, FetchBudgets, FetchLimitReached},
    fetch::{KeySource, TlsUnavailable},
    jwks::SigningKey,
    status::{FetchStats, KeyStatus, TenantLabel},
    tenant::{FetchContext, Flight, Miss, TenantKeys},
};
use super::{
    authority::Authority,
    error::{AuthError, InvalidToken},
    tenants::Tenants,
};
use crate::{
    clock::Clock,
    ids::{KeyId, TenantId},
};

/// The maximum number of unproven tenants in the cache, including those that Entra does not know.
const MAX_UNPROVEN: usize = 1000;

/// The maximum number of proven tenants in open mode, and how long one stays without a token.
const MAX_PROVEN_IN_OPEN_MODE: usize = 10_000;
const PROVEN_FOR: Duration = Duration::from_hours(30 * 24);

/// When to retry if the limits on all fetches prevented one, and the minimum for other reasons.
const RETRY_AFTER_LIMIT: Duration = Duration::from_secs(1);

/// The signing keys of every tenant.
pub(super) struct KeyCache {
    context: Arc<FetchContext>,
    /// The listed tenants, and in open mode those with a verified token.
    proven: DashMap<TenantId, Arc<TenantKeys>>,
    unproven: Cache<TenantId, Arc<TenantKeys>>,
    budgets: FetchBudgets,
}

/// A signing key with its tenant's entry.
pub(super) struct FoundKey {
    pub(super) key: Arc<SigningKey>,
    keys: Arc<TenantKeys>,
}

impl KeyCache {
    pub(super) fn new(authority: Authority, clock: Arc<dyn Clock>) -> Result<Self, TlsUnavailable> {
        let stats = FetchStats::default();
        stats.register(&TenantLabel::new(None));
        Ok(Self {
            context: Arc::new(FetchContext {
                source: KeySource::new(authority)?,
                clock,
                stats,
            }),
            proven: DashMap::new(),
            unproven: Cache::new(MAX_UNPROVEN),
            budgets: FetchBudgets::new(),
        })
    }

    /// The key of an allowed tenant, if it is cached and trusted.
    pub(super) fn get(&self, tenant: TenantId, key_id: &KeyId) -> Option<FoundKey> {
        let proven = self.proven.get(&tenant).map(|keys| Arc::clone(&keys));
        let keys = proven.or_else(|| self.unproven.get(&tenant))?;
        let key = keys.cached(key_id)?;
        Some(FoundKey { key, keys })
    }

    /// The key of an allowed tenant. If the key is not cached and a fetch is permitted, fetches the
    /// tenant's keys.
    pub(super) async fn get_or_fetch(
        &self,
        tenants: &Tenants,
        tenant: TenantId,
        key_id: &KeyId,
    ) -> Result<FoundKey, AuthError> {
        let (keys, budget) = self.keys_of(tenants, tenant)?;
        let found = |key| FoundKey {
            key,
            keys: Arc::clone(&keys),
        };
        if let Some(key) = keys.cached(key_id) {
            return Ok(found(key));
        }
        if let Some(flight) = keys.fetch_for_caller(budget)? {
            flight.landed().await;
        }
        if let Some(key) = keys.cached(key_id) {
            return Ok(found(key));
        }
        Err(match keys.miss_reason() {
            Miss::Unknown => InvalidToken::UnknownKey(key_id.clone()).into(),
            Miss::Unavailable(wait) => AuthError::KeysUnavailable {
                retry_after: wait.max(RETRY_AFTER_LIMIT),
            },
        })
    }

    /// The key of a proven tenant, if it is cached and trusted. Marks the tenant as used.
    pub(super) fn cached(&self, tenant: TenantId, key_id: &KeyId) -> Option<Arc<SigningKey>> {
        let keys = self.proven.get(&tenant)?;
        let key = keys.cached(key_id)?;
        keys.mark_used();
        Some(key)
    }

    /// Records that a token was verified with this key. In open mode its tenant is then proven.
    pub(super) fn promote(&self, tenant: TenantId, found: FoundKey) {
        found.keys.mark_used();
        let is_proven = self.proven.contains_key(&tenant);
        if !is_proven && self.proven.len() < MAX_PROVEN_IN_OPEN_MODE {
            self.proven.entry(tenant).or_insert(found.keys);
        }
    }

    /// Starts the fetches that are due: first fetches, refreshes, and retries after a failure.
    /// Evicts the tenants that are no longer allowed, and in open mode the unlisted ones that have
    /// been idle for [`PROVEN_FOR`].
    pub(super) fn start_due_fetches(&self, tenants: &Tenants) -> Vec<Flight> {
        let listed = tenants.listed();
        self.proven.retain(|tenant, keys| {
            let is_listed = listed.contains(tenant);
            keys.set_listed(is_listed);
            is_listed || (tenants.is_open() && keys.idle() < PROVEN_FOR)
        });
        for &tenant in listed {
            self.listed_keys(tenant);
        }
        let mut flights = Vec::new();
        for keys in &self.proven {
            flights.extend(keys.fetch_if_due(|| self.budgets.acquire_refresh()));
        }
        flights
    }

    /// Whether the keys of any proven tenant are cached.
    pub(super) fn is_any_usable(&self) -> bool {
        self.proven.iter().any(|keys| keys.is_usable())
    }

    /// The cached keys of each listed tenant.
    pub(super) fn status(&self, tenants: &Tenants) -> Vec<KeyStatus> {
        let listed = tenants.listed().iter();
        let listed = listed.filter_map(|tenant| self.proven.get(tenant));
        listed.map(|keys| keys.status()).collect()
    }

    pub(super) fn fetch_stats(&self) -> &FetchStats {
        &self.context.stats
    }

    /// The tenant's entry, and the budget that pays for a caller's fetch.
    ///
    /// A new entry for an unproven tenant needs a fetch permit, because it may evict another entry.
    /// Otherwise any number of requests could evict entries.
    fn keys_of(
        &self,
        tenants: &Tenants,
        tenant: TenantId,
    ) -> Result<(Arc<TenantKeys>, Budget<'_>), FetchLimitReached> {
        if let Some(keys) = self.proven.get(&tenant) {
            return Ok((Arc::clone(&keys), Budget::Unlimited));
        }
        if !tenants.is_open() {
            return Ok((self.listed_keys(tenant), Budget::Unlimited));
        }
        let now = self.context.clock.monotonic();
        if let Some(keys) = self.unproven.get(&tenant) {
            return Ok((keys, Budget::Shared(&self.budgets, now)));
        }
        let permit = self.budgets.acquire_unproven(now).inspect_err(|_| {
            let other = TenantLabel::new(None);
            self.context.stats.count_suppressed(&other);
        })?;
        let new = || Ok::<_, Infallible>(self.new_keys(tenant));
        let Ok(keys) = self.unproven.get_or_insert_with(&tenant, new);
        Ok((keys, Budget::Reserved(permit)))
    }

    fn listed_keys(&self, tenant: TenantId) -> Arc<TenantKeys> {
        if let Some(keys) = self.proven.get(&tenant) {
            return Arc::clone(&keys);
        }
        let entry = self.proven.entry(tenant);
        let keys = entry.or_insert_with(|| self.new_keys(tenant));
        keys.set_listed(true);
        Arc::clone(&keys)
    }

    fn new_keys(&self, tenant: TenantId) -> Arc<TenantKeys> {
        Arc::new(TenantKeys::new(tenant, Arc::clone(&self.context)))
    }
}

impl From<FetchLimitReached> for AuthError {
    fn from(FetchLimitReached: FetchLimitReached) -> Self {
        Self::KeysUnavailable {
            retry_after: RETRY_AFTER_LIMIT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{jwks::SigningKeys, *};
    use crate::clock::SystemClock;

    #[test]
    fn proven_tenants_in_open_mode_are_bounded() {
        let authority = Authority::public();
        let cache = KeyCache::new(authority.clone(), Arc::new(SystemClock::new())).unwrap();
        let excerpt = include_bytes!("../../../tests/support/entra-keys-excerpt.json");
        let document = SigningKeys::parse(excerpt, &authority, TenantId::numbered(0)).unwrap();
        let key = Arc::new(document.keys.into_iter().next().unwrap().1);
        for number in 0..=MAX_PROVEN_IN_OPEN_MODE {
            let found = FoundKey {
                key: Arc::clone(&key),
                keys: cache.new_keys(TenantId::numbered(number)),
            };
            cache.promote(TenantId::numbered(number), found);
        }
        assert_eq!(cache.proven.len(), MAX_PROVEN_IN_OPEN_MODE);
    }
}
