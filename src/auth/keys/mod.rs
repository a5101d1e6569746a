//! The signing keys of all tenants, cached.
//!
//! Callers whose key is at hand never wait. One whose key is not waits for one fetch, unless
//! the tenant's allowance is spent; keys at hand are never given up for it. In open mode
//! strangers can name any tenant, so those nobody has yet proven to belong to have a small
//! place of their own, few fetches between them, and push out only one another.

pub(crate) mod fetch;
pub(crate) mod jwks;
mod schedule;
pub(crate) mod set;
pub(crate) mod status;
mod tenant;

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dashmap::DashMap;
use quick_cache::sync::Cache;
use tokio::sync::Semaphore;

use crate::auth::{
    authority::Authority,
    error::{AuthError, InvalidToken},
    keys::fetch::KeySource,
    keys::jwks::{KeyId, SigningKey},
    keys::status::{Counters, FetchCounts, FetchTally, KeyStatus},
    keys::tenant::{Admission, Busy, Flight, NoKey, TenantKeys},
    rate_limit::{Allowance, Limit},
    tenants::Tenants,
};
use crate::{clock::Clock, ids::TenantId};

/// Refreshes under way at the same time.
const MAX_REFRESHES: usize = 16;

/// Fetches under way at the same time for tenants of strangers, and how many may start.
const MAX_STRANGER_FETCHES: usize = 16;
const STRANGER_FETCHES: Limit = Limit {
    burst: 50,
    interval: Duration::from_millis(50),
    spacing: Duration::ZERO,
};

/// Tenants of strangers that are remembered, with keys or as having none.
const MAX_STRANGERS: usize = 1000;

/// Known tenants in open mode, each with a token that was once verified; and how long one is
/// known after its last token.
const MAX_KNOWN_IN_OPEN_MODE: usize = 10_000;
const KNOWN_FOR: Duration = Duration::from_hours(30 * 24);

/// When to try again if only too many others were in the way.
const BUSY: Duration = Duration::from_secs(1);

/// The signing keys of every tenant.
pub(crate) struct KeyCache {
    source: Arc<KeySource>,
    clock: Arc<dyn Clock>,
    /// The listed tenants; in open mode those of whom a token has been verified.
    known: DashMap<TenantId, Arc<TenantKeys>>,
    strangers: Cache<TenantId, Arc<TenantKeys>>,
    refreshes: Arc<Semaphore>,
    stranger_fetches: Arc<Semaphore>,
    stranger_allowance: Mutex<Allowance>,
    /// Fetches for tenants that are not expected, all together: in open mode anyone can name any tenant.
    others: Arc<Counters>,
}

/// A signing key, and whose it is.
pub(crate) struct FoundKey {
    pub(crate) key: Arc<SigningKey>,
    keys: Arc<TenantKeys>,
}

impl KeyCache {
    /// # Errors
    ///
    /// When the system offers no TLS.
    pub(crate) fn new(authority: Authority, clock: Arc<dyn Clock>) -> reqwest::Result<Self> {
        Ok(Self {
            source: Arc::new(KeySource::new(authority)?),
            clock,
            known: DashMap::new(),
            strangers: Cache::new(MAX_STRANGERS),
            refreshes: Arc::new(Semaphore::new(MAX_REFRESHES)),
            stranger_fetches: Arc::new(Semaphore::new(MAX_STRANGER_FETCHES)),
            stranger_allowance: Mutex::new(Allowance::new(STRANGER_FETCHES)),
            others: Arc::default(),
        })
    }

    /// The key with this id of a tenant that `tenants` allow, fetched if need and allowance be.
    ///
    /// # Errors
    ///
    /// [`InvalidToken::UnknownKey`] if the tenant publishes no such key,
    /// [`AuthError::KeysUnavailable`] if that cannot be found out now.
    pub(crate) async fn find(
        &self,
        tenants: &Tenants,
        tenant: TenantId,
        key_id: &KeyId,
    ) -> Result<FoundKey, AuthError> {
        let (keys, mut admission) = self.keys_of(tenants, tenant)?;
        let found = |key| FoundKey {
            key,
            keys: Arc::clone(&keys),
        };
        if let Some(key) = keys.held(key_id) {
            return Ok(found(key));
        }
        if let Some(flight) =
            keys.fetch_for_caller(|| admission.take().map_or_else(|| self.admit_stranger(), Ok))?
        {
            flight.landed().await;
        }
        keys.held(key_id)
            .map(found)
            .ok_or_else(|| match keys.why_not() {
                NoKey::Unknown => InvalidToken::UnknownKey.into(),
                NoKey::Unavailable(wait) => AuthError::KeysUnavailable {
                    retry_after: wait.max(BUSY),
                },
            })
    }

    /// The key if it is at hand and trusted; its tenant then counts as in use.
    pub(crate) fn held(&self, tenant: TenantId, key_id: &KeyId) -> Option<Arc<SigningKey>> {
        let keys = self.known.get(&tenant)?;
        let key = keys.held(key_id)?;
        keys.touch();
        Some(key)
    }

    /// A token has been verified with this key: in open mode its tenant is a stranger's no longer.
    pub(crate) fn confirm(&self, tenant: TenantId, found: FoundKey) {
        found.keys.touch();
        if !self.known.contains_key(&tenant) && self.known.len() < MAX_KNOWN_IN_OPEN_MODE {
            self.known.entry(tenant).or_insert(found.keys);
        }
    }

    /// Starts the fetches that are due: first ones, hourly ones, and new tries after failures.
    /// Tenants that `tenants` no longer allow, or that nobody has come from for long, are forgotten.
    pub(crate) fn start_due_fetches(&self, tenants: &Tenants) -> Vec<Flight> {
        let expected = tenants.expected();
        self.known.retain(|tenant, keys| {
            expected.contains(tenant) || (tenants.is_open() && keys.idle() < KNOWN_FOR)
        });
        for &tenant in expected {
            self.known_keys(tenant).expect();
        }
        let admit = || {
            Arc::clone(&self.refreshes)
                .try_acquire_owned()
                .map(Admission::Refresh)
                .map_err(|_| Busy)
        };
        self.known
            .iter()
            .filter_map(|keys| keys.fetch_if_due(admit))
            .collect()
    }

    /// Whether the keys of any known tenant are at hand.
    pub(crate) fn is_any_usable(&self) -> bool {
        self.known.iter().any(|keys| keys.is_usable())
    }

    /// What is held of each tenant that is expected, and what was fetched for all others.
    pub(crate) fn status(&self, tenants: &Tenants) -> (Vec<KeyStatus>, FetchCounts) {
        let expected = tenants.expected().iter();
        let known = expected.filter_map(|tenant| self.known.get(tenant).map(|keys| keys.status()));
        (known.collect(), self.others.counts())
    }

    /// The tenant's keys, and what lets a caller fetch them if that is clear beforehand.
    ///
    /// # Errors
    ///
    /// [`Busy`] for a stranger's tenant that is not remembered, when strangers have fetched enough:
    /// so a flood of requests that fetch nothing pushes out nothing either.
    fn keys_of(
        &self,
        tenants: &Tenants,
        tenant: TenantId,
    ) -> Result<(Arc<TenantKeys>, Option<Admission>), Busy> {
        if let Some(keys) = self.known.get(&tenant) {
            return Ok((Arc::clone(&keys), Some(Admission::Caller)));
        }
        if !tenants.is_open() {
            return Ok((self.known_keys(tenant), Some(Admission::Caller)));
        }
        if let Some(keys) = self.strangers.get(&tenant) {
            return Ok((keys, None));
        }
        let admission = self
            .admit_stranger()
            .inspect_err(|Busy| self.others.suppressed())?;
        let strangers_keys = || {
            Ok::<_, Infallible>(
                self.new_keys(tenant, FetchTally::of_stranger(Arc::clone(&self.others))),
            )
        };
        let Ok(keys) = self.strangers.get_or_insert_with(&tenant, strangers_keys);
        Ok((keys, Some(admission)))
    }

    fn known_keys(&self, tenant: TenantId) -> Arc<TenantKeys> {
        if let Some(keys) = self.known.get(&tenant) {
            return Arc::clone(&keys);
        }
        Arc::clone(
            &self
                .known
                .entry(tenant)
                .or_insert_with(|| self.new_keys(tenant, FetchTally::default())),
        )
    }

    fn new_keys(&self, tenant: TenantId, tally: FetchTally) -> Arc<TenantKeys> {
        Arc::new(TenantKeys::new(
            tenant,
            Arc::clone(&self.source),
            Arc::clone(&self.clock),
            tally,
        ))
    }

    fn admit_stranger(&self) -> Result<Admission, Busy> {
        let permit = Arc::clone(&self.stranger_fetches)
            .try_acquire_owned()
            .map_err(|_| Busy)?;
        let mut allowance = self
            .stranger_allowance
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if allowance.take(self.clock.monotonic()) {
            Ok(Admission::Stranger(permit))
        } else {
            Err(Busy)
        }
    }
}

impl From<Busy> for AuthError {
    fn from(Busy: Busy) -> Self {
        Self::KeysUnavailable { retry_after: BUSY }
    }
}
