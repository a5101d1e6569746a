//! One tenant's signing keys: what is held, and the one fetch that may be under way.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::auth::{
    keys::fetch::{FetchError, KeySource},
    keys::jwks::{KeyId, RefusedKey, SigningKey, SigningKeys},
    keys::schedule::Schedule,
    keys::set::{Changes, KeySet, TRUST},
    keys::status::{FetchTally, KeyStatus},
};
use crate::{clock::Clock, ids::TenantId};

/// How long a tenant that Entra does not know is remembered as such.
const ABSENCE: Duration = Duration::from_mins(5);

/// The keys of one tenant, with what is needed to fetch more.
pub(crate) struct TenantKeys {
    tenant: TenantId,
    source: Arc<KeySource>,
    clock: Arc<dyn Clock>,
    /// Read on every request without a lock: a fetch under way is not noticed.
    held: ArcSwap<KeySet>,
    /// Held for a few comparisons only, never across an await.
    state: Mutex<State>,
    /// When a token was last verified, in seconds.
    last_used: AtomicU64,
    tally: FetchTally,
}

struct State {
    schedule: Schedule,
    /// The fetch under way, if any.
    flight: Option<Flight>,
    /// Entra has answered that there is no such tenant.
    is_absent: bool,
}

/// A fetch under way: the channel closes when its result is in place, or if it panics.
#[derive(Clone)]
pub(crate) struct Flight(watch::Receiver<()>);

/// What lets a fetch start; whatever it holds is given back when the fetch has ended.
#[expect(
    dead_code,
    reason = "permits are held for as long as the fetch takes, and never read"
)]
pub(crate) enum Admission {
    /// A caller of a known tenant: at once, however many others there are.
    Caller,
    /// A caller of a tenant nobody has proven to belong to.
    Stranger(OwnedSemaphorePermit),
    /// Nobody waits for it.
    Refresh(OwnedSemaphorePermit),
}

/// Too many other fetches are in the way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Busy;

/// Why there is no key to check a token with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum NoKey {
    /// The tenant publishes no key with this id, as far as may be found out.
    Unknown,
    /// That cannot be found out before this much time has passed.
    Unavailable(Duration),
}

impl TenantKeys {
    pub(crate) fn new(
        tenant: TenantId,
        source: Arc<KeySource>,
        clock: Arc<dyn Clock>,
        tally: FetchTally,
    ) -> Self {
        Self {
            tenant,
            source,
            tally,
            held: ArcSwap::default(),
            state: Mutex::new(State {
                schedule: Schedule::new(),
                flight: None,
                is_absent: false,
            }),
            last_used: AtomicU64::new(clock.monotonic().as_secs()),
            clock,
        }
    }

    /// The key if it is at hand.
    pub(crate) fn held(&self, key_id: &KeyId) -> Option<Arc<SigningKey>> {
        self.held
            .load()
            .find(key_id, self.clock.monotonic())
            .cloned()
    }

    /// A token has been verified with one of the keys.
    pub(crate) fn touch(&self) {
        self.last_used
            .store(self.clock.monotonic().as_secs(), Ordering::Relaxed);
    }

    /// Whether any key is at hand.
    pub(crate) fn is_usable(&self) -> bool {
        self.held.load().is_usable(self.clock.monotonic())
    }

    /// The operator expects people of this tenant.
    pub(crate) fn expect(&self) {
        self.tally.expect();
    }

    pub(crate) fn status(&self) -> KeyStatus {
        let (held, now) = (self.held.load(), self.clock.monotonic());
        KeyStatus {
            tenant: self.tenant,
            usable: held.usable(now),
            age: held.last_seen().map(|seen| now.saturating_sub(seen)),
            fetches: self.tally.counts(),
        }
    }

    /// For how long no token has been verified.
    pub(crate) fn idle(&self) -> Duration {
        let last_used = Duration::from_secs(self.last_used.load(Ordering::Relaxed));
        self.clock.monotonic().saturating_sub(last_used)
    }

    /// The fetch a caller may wait for whose key is not at hand: the one under way, or a new
    /// one if the schedule allows it.
    ///
    /// # Errors
    ///
    /// [`Busy`] if the schedule allows it but `admit` does not.
    pub(crate) fn fetch_for_caller(
        self: &Arc<Self>,
        admit: impl FnOnce() -> Result<Admission, Busy>,
    ) -> Result<Option<Flight>, Busy> {
        let now = self.clock.monotonic();
        let mut state = self.state();
        if let Some(flight) = state.flight() {
            return Ok(Some(flight));
        }
        let is_usable = self.held.load().is_usable(now);
        if !state.schedule.may_fetch_for_caller(is_usable, now) {
            self.tally.suppressed();
            return Ok(None);
        }
        let admission = admit().inspect_err(|Busy| self.tally.suppressed())?;
        state.schedule.fetching_for_caller(is_usable, now);
        Ok(Some(self.start(&mut state, admission)))
    }

    /// Starts the fetch that is due, if one is, none is under way and `admit` lets it.
    pub(crate) fn fetch_if_due(
        self: &Arc<Self>,
        admit: impl FnOnce() -> Result<Admission, Busy>,
    ) -> Option<Flight> {
        let mut state = self.state();
        if state.flight().is_some() || !state.schedule.is_due(self.clock.monotonic()) {
            return None;
        }
        admit()
            .ok()
            .map(|admission| self.start(&mut state, admission))
    }

    /// Why a key that is not at hand was not found, after whatever was fetched for it.
    pub(crate) fn why_not(&self) -> NoKey {
        let now = self.clock.monotonic();
        let state = self.state();
        if state.is_absent && !state.schedule.is_due(now) {
            NoKey::Unknown
        } else if state.schedule.is_failing() || !self.held.load().is_usable(now) {
            NoKey::Unavailable(state.schedule.retry_after(now))
        } else {
            NoKey::Unknown
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(self: &Arc<Self>, state: &mut State, admission: Admission) -> Flight {
        let (landed, flight) = watch::channel(());
        let flight = Flight(flight);
        state.flight = Some(flight.clone());
        let keys = Arc::clone(self);
        // Spawned: a client that hangs up must not end a fetch others wait for.
        tokio::spawn(async move {
            let outcome = keys.source.fetch(keys.tenant).await;
            keys.land(outcome, &admission);
            drop((landed, admission));
        });
        flight
    }

    fn land(&self, outcome: Result<SigningKeys, FetchError>, admission: &Admission) {
        let now = self.clock.monotonic();
        let held = self.held.load();
        let mut state = self.state();
        state.flight = None;
        match outcome {
            Ok(published) => {
                let SigningKeys {
                    keys,
                    refused,
                    without_issuer,
                } = published;
                let (merged, changes) = held.merge(keys, now);
                let is_first = held.last_seen().is_none();
                self.held.store(Arc::new(merged));
                state.schedule.succeeded(now);
                state.is_absent = false;
                drop(state);
                self.tally.succeeded(changes.conflicting.len());
                self.log_changes(is_first, &changes, &refused, without_issuer);
            }
            Err(error) => {
                self.tally.failed();
                state.schedule.failed(now);
                // Of a known tenant it is not believed: that would be an outage of its own.
                state.is_absent =
                    error.is_absent_tenant() && matches!(admission, Admission::Stranger(_));
                if state.is_absent {
                    state.schedule.rest(now, ABSENCE);
                    // Nothing to act on, and a flood of strangers would make a flood of it.
                    tracing::debug!(tenant = %self.tenant, %error, "no such tenant");
                    return;
                }
                let retry_in = state.schedule.retry_after(now);
                drop(state);
                self.log_failure(
                    &error,
                    held.last_seen().map(|seen| now.saturating_sub(seen)),
                    retry_in,
                );
            }
        }
    }

    fn log_changes(
        &self,
        is_first: bool,
        changes: &Changes,
        refused: &[RefusedKey],
        without_issuer: usize,
    ) {
        let tenant = self.tenant;
        if is_first {
            tracing::info!(%tenant, keys = changes.new.len(), "signing keys fetched");
        } else {
            for key_id in &changes.new {
                tracing::info!(%tenant, ?key_id, "rollover: a new signing key is published");
            }
        }
        for key_id in &changes.conflicting {
            tracing::error!(%tenant, ?key_id, "another key is published under a known key id; it is refused");
        }
        for reason in refused {
            match reason {
                // The keys of personal accounts are in every document: nothing to act on.
                RefusedKey::Issuer => {
                    tracing::debug!(%tenant, %reason, "a published key is not used")
                }
                RefusedKey::Malformed | RefusedKey::Kind | RefusedKey::Size | RefusedKey::Cloud => {
                    tracing::warn!(%tenant, %reason, "a published key is not used");
                }
            }
        }
        if without_issuer > 0 {
            tracing::debug!(%tenant, without_issuer, "keys without an issuer are accepted on loopback");
        }
    }

    fn log_failure(&self, error: &FetchError, age: Option<Duration>, retry_in: Duration) {
        let (tenant, retry_in_s) = (self.tenant, retry_in.as_secs());
        match age
            .filter(|&age| age < TRUST)
            .map(|age| (age.as_secs(), TRUST.saturating_sub(age).as_secs()))
        {
            Some((age_s, usable_for_s)) => {
                tracing::warn!(%tenant, %error, age_s, usable_for_s, retry_in_s, "cannot fetch signing keys; those at hand serve on");
            }
            None => {
                tracing::warn!(%tenant, %error, retry_in_s, "cannot fetch signing keys, and none are at hand");
            }
        }
    }
}

impl State {
    fn flight(&self) -> Option<Flight> {
        self.flight.clone().filter(Flight::is_under_way)
    }
}

impl Flight {
    /// Waits until the fetch has ended, however it ended.
    pub(crate) async fn landed(mut self) {
        // Nothing is ever sent: the error is that the sender is gone.
        let _ = self.0.changed().await;
    }

    fn is_under_way(&self) -> bool {
        self.0.has_changed().is_ok()
    }
}
