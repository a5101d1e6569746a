//! One tenant's signing keys: the cached set, and the fetch in flight.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::{
    budget::{Budget, FetchLimitReached, FetchPermit},
    fetch::{FetchError, KeySource},
    jwks::{RejectedKey, SigningKey, SigningKeys},
    schedule::Schedule,
    set::{Changes, KeySet, TRUST},
    status::{FetchStats, KeyStatus, TenantLabel},
};
use crate::{
    clock::Clock,
    ids::{KeyId, TenantId},
};

/// How long to remember that Entra does not know an unproven tenant.
const ABSENT_FOR: Duration = Duration::from_mins(5);

/// The keys of one tenant, and the state of its fetches.
pub(super) struct TenantKeys {
    tenant: TenantId,
    context: Arc<FetchContext>,
    /// Read on every request without a lock: readers never wait for a fetch.
    cached: ArcSwap<KeySet>,
    /// Locked for a few comparisons, never across an await.
    state: Mutex<State>,
    /// When a token was last accepted, in seconds of the monotonic clock.
    last_used: AtomicU64,
    /// Whether the operator lists the tenant. If so, its id is a label in the metrics.
    is_listed: AtomicBool,
}

/// What the fetches of all tenants share.
pub(super) struct FetchContext {
    pub(super) source: KeySource,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) stats: FetchStats,
}

struct State {
    schedule: Schedule,
    flight: Option<Flight>,
    /// Entra has responded that the tenant does not exist.
    is_absent: bool,
}

/// A fetch in flight. The channel closes when the result is stored, or if the fetch panics.
#[derive(Clone)]
pub(crate) struct Flight(watch::Receiver<()>);

/// Why there is no key to verify a token with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Miss {
    /// The tenant does not publish this key, according to the last fetch that was permitted.
    Unknown,
    /// The keys cannot be fetched now. The next fetch is due after this time.
    Unavailable(Duration),
}

impl TenantKeys {
    pub(super) fn new(tenant: TenantId, context: Arc<FetchContext>) -> Self {
        Self {
            tenant,
            cached: ArcSwap::default(),
            state: Mutex::new(State {
                schedule: Schedule::new(),
                flight: None,
                is_absent: false,
            }),
            last_used: AtomicU64::new(context.clock.monotonic().as_secs()),
            is_listed: AtomicBool::new(false),
            context,
        }
    }

    /// The key, if it is cached and trusted.
    pub(super) fn cached(&self, key_id: &KeyId) -> Option<Arc<SigningKey>> {
        self.cached.load().get(key_id, self.now()).cloned()
    }

    /// Records that a token was accepted with one of the keys.
    pub(super) fn mark_used(&self) {
        self.last_used
            .store(self.now().as_secs(), Ordering::Relaxed);
    }

    /// Whether any trusted key is cached.
    pub(super) fn is_usable(&self) -> bool {
        self.cached.load().is_usable(self.now())
    }

    /// Records whether the operator lists the tenant. If so, metrics count its fetches by its id.
    pub(super) fn set_listed(&self, is_listed: bool) {
        let was_listed = self.is_listed.swap(is_listed, Ordering::Relaxed);
        if is_listed && !was_listed {
            self.context.stats.register(&self.label());
        }
    }

    pub(super) fn status(&self) -> KeyStatus {
        let (cached, now) = (self.cached.load(), self.now());
        KeyStatus {
            tenant: self.tenant,
            usable: cached.usable(now),
            age: cached.last_seen().map(|seen| now.saturating_sub(seen)),
        }
    }

    /// The time since a token was last accepted.
    pub(super) fn idle(&self) -> Duration {
        let last_used = Duration::from_secs(self.last_used.load(Ordering::Relaxed));
        self.now().saturating_sub(last_used)
    }

    /// The fetch that a caller waits for if their key is not cached: the one in flight, or a new
    /// one if schedule and budget allow it.
    pub(super) fn fetch_for_caller(
        self: &Arc<Self>,
        budget: Budget<'_>,
    ) -> Result<Option<Flight>, FetchLimitReached> {
        let now = self.now();
        let mut state = self.state();
        if let Some(flight) = state.flight() {
            return Ok(Some(flight));
        }
        let is_usable = self.cached.load().is_usable(now);
        if !state.schedule.may_fetch_for_caller(is_usable, now) {
            self.context.stats.count_suppressed(&self.label());
            return Ok(None);
        }
        let permit = budget
            .acquire()
            .inspect_err(|_| self.context.stats.count_suppressed(&self.label()))?;
        state.schedule.record_fetch_for_caller(is_usable, now);
        Ok(Some(self.start_fetch(&mut state, permit)))
    }

    /// Starts a fetch if one is due, none is in flight and `acquire` permits it.
    pub(super) fn fetch_if_due(
        self: &Arc<Self>,
        acquire: impl FnOnce() -> Result<FetchPermit, FetchLimitReached>,
    ) -> Option<Flight> {
        let mut state = self.state();
        if state.flight().is_some() || !state.schedule.is_due(self.now()) {
            return None;
        }
        let permit = acquire().ok()?;
        Some(self.start_fetch(&mut state, permit))
    }

    /// Why a key is still not cached after the fetch for it, if there was one.
    pub(super) fn miss_reason(&self) -> Miss {
        let now = self.now();
        let state = self.state();
        if state.is_absent && !state.schedule.is_due(now) {
            Miss::Unknown
        } else if state.schedule.is_failing() || !self.cached.load().is_usable(now) {
            Miss::Unavailable(state.schedule.retry_after(now))
        } else {
            Miss::Unknown
        }
    }

    fn now(&self) -> Duration {
        self.context.clock.monotonic()
    }

    fn label(&self) -> TenantLabel {
        let is_listed = self.is_listed.load(Ordering::Relaxed);
        TenantLabel::new(is_listed.then_some(self.tenant))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start_fetch(self: &Arc<Self>, state: &mut State, permit: FetchPermit) -> Flight {
        let (landed, flight) = watch::channel(());
        let flight = Flight(flight);
        state.flight = Some(flight.clone());
        let keys = Arc::clone(self);
        // Spawned: a client that disconnects must not end a fetch that others wait for.
        tokio::spawn(async move {
            match keys.context.source.fetch(keys.tenant).await {
                Ok(published) => keys.store(published.keys),
                Err(error) => keys.record_failure(&error, &permit),
            }
            drop((landed, permit));
        });
        flight
    }

    fn store(&self, published: SigningKeys) {
        let now = self.now();
        let cached = self.cached.load();
        let is_first = cached.last_seen().is_none();
        let (merged, changes) = cached.merge(published.keys, now);
        let mut state = self.state();
        state.flight = None;
        self.cached.store(Arc::new(merged));
        state.schedule.record_success(now);
        state.is_absent = false;
        drop(state);
        let conflicts = changes.conflicting.len();
        self.context.stats.count_success(&self.label(), conflicts);
        self.log_changes(is_first, &changes);
        self.log_rejected(&published.rejected);
    }

    fn record_failure(&self, error: &FetchError, permit: &FetchPermit) {
        let now = self.now();
        self.context.stats.count_failure(&self.label());
        let mut state = self.state();
        state.flight = None;
        state.schedule.record_failure(now, error.retry_after());
        // Ignored for a proven tenant: if Entra responds so by mistake, its users stay signed in.
        let is_unproven = matches!(permit, FetchPermit::Unproven(_));
        state.is_absent = is_unproven && error.is_absent_tenant();
        if state.is_absent {
            state.schedule.postpone(now, ABSENT_FOR);
            // At debug level: anyone can cause any number of these.
            tracing::debug!(tenant = %self.tenant, %error, "tenant does not exist");
            return;
        }
        let retry_in = state.schedule.retry_after(now);
        drop(state);
        let last_seen = self.cached.load().last_seen();
        let age = last_seen.map(|seen| now.saturating_sub(seen));
        self.log_failure(error, age, retry_in);
    }

    fn log_changes(&self, is_first: bool, changes: &Changes) {
        let tenant = self.tenant;
        if is_first {
            tracing::info!(%tenant, keys = changes.new.len(), "fetched signing keys");
        } else {
            for key_id in &changes.new {
                tracing::info!(%tenant, %key_id, "rollover: new signing key published");
            }
        }
        for key_id in &changes.conflicting {
            tracing::error!(%tenant, %key_id, "rejected a published key: another key is cached under the same id");
        }
    }

    fn log_rejected(&self, rejected: &[RejectedKey]) {
        let tenant = self.tenant;
        for reason in rejected {
            match reason {
                // At debug level: every document contains the keys of personal accounts.
                RejectedKey::Issuer => tracing::debug!(%tenant, %reason, "skipped a published key"),
                RejectedKey::Malformed
                | RejectedKey::Kind
                | RejectedKey::Size
                | RejectedKey::Exponent
                | RejectedKey::Cloud => tracing::warn!(%tenant, %reason, "skipped a published key"),
            }
        }
    }

    fn log_failure(&self, error: &FetchError, age: Option<Duration>, retry_in: Duration) {
        let (tenant, retry_in_s) = (self.tenant, retry_in.as_secs());
        let usable_for = age.and_then(|age| TRUST.checked_sub(age));
        if let (Some(age), Some(usable_for)) = (age, usable_for) {
            let (age_s, usable_for_s) = (age.as_secs(), usable_for.as_secs());
            tracing::warn!(%tenant, %error, age_s, usable_for_s, retry_in_s, "failed to fetch signing keys; using cached keys");
        } else {
            tracing::warn!(%tenant, %error, retry_in_s, "failed to fetch signing keys; none are cached");
        }
    }
}

impl State {
    fn flight(&self) -> Option<Flight> {
        self.flight.clone().filter(Flight::is_in_flight)
    }
}

impl Flight {
    /// Waits until the fetch has ended, with or without success.
    pub(crate) async fn landed(mut self) {
        // Nothing is ever sent: the error means that the sender was dropped.
        let _ = self.0.changed().await;
    }

    fn is_in_flight(&self) -> bool {
        self.0.has_changed().is_ok()
    }
}
