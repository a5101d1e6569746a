//! Limits on the fetches of all tenants. Tenants without a verified token share a small budget.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::auth::rate_limit::{Limit, RateLimit};

/// The maximum number of concurrent background refreshes.
const MAX_REFRESHES: usize = 16;

/// The maximum number of concurrent fetches for unproven tenants, and how often one may start.
const MAX_UNPROVEN_FETCHES: usize = 16;
const UNPROVEN_FETCHES: Limit = Limit {
    burst: 50,
    interval: Duration::from_millis(50),
    spacing: Duration::ZERO,
};

/// The budgets of all fetches.
pub(super) struct FetchBudgets {
    refreshes: Arc<Semaphore>,
    unproven: Arc<Semaphore>,
    unproven_rate: Mutex<RateLimit>,
}

/// The budget that pays for a caller's fetch.
pub(super) enum Budget<'a> {
    /// A proven tenant: only the tenant's schedule limits its fetches.
    Unlimited,
    /// An unproven tenant: takes a permit from the shared budget when the fetch starts.
    Shared(&'a FetchBudgets, Duration),
    /// An unproven tenant that already has a permit from the shared budget.
    Reserved(FetchPermit),
}

/// The permit of a fetch, released when the fetch ends.
#[expect(
    dead_code,
    reason = "semaphore permits are held during the fetch and never read"
)]
pub(super) enum FetchPermit {
    /// A caller of a proven tenant.
    Proven,
    /// A caller of an unproven tenant.
    Unproven(OwnedSemaphorePermit),
    /// A background refresh.
    Refresh(OwnedSemaphorePermit),
}

/// Too many other fetches are in flight, or started recently.
#[derive(Clone, Copy, Debug)]
pub(super) struct FetchLimitReached;

impl FetchBudgets {
    pub(super) fn new() -> Self {
        Self {
            refreshes: Arc::new(Semaphore::new(MAX_REFRESHES)),
            unproven: Arc::new(Semaphore::new(MAX_UNPROVEN_FETCHES)),
            unproven_rate: Mutex::new(RateLimit::new(UNPROVEN_FETCHES)),
        }
    }

    pub(super) fn acquire_refresh(&self) -> Result<FetchPermit, FetchLimitReached> {
        let permit = Arc::clone(&self.refreshes).try_acquire_owned();
        permit
            .map(FetchPermit::Refresh)
            .map_err(|_| FetchLimitReached)
    }

    pub(super) fn acquire_unproven(&self, now: Duration) -> Result<FetchPermit, FetchLimitReached> {
        let permit = Arc::clone(&self.unproven).try_acquire_owned();
        let permit = permit.map_err(|_| FetchLimitReached)?;
        let rate = self.unproven_rate.lock();
        let mut rate = rate.unwrap_or_else(PoisonError::into_inner);
        if rate.try_take(now) {
            Ok(FetchPermit::Unproven(permit))
        } else {
            Err(FetchLimitReached)
        }
    }
}

impl Budget<'_> {
    pub(super) fn acquire(self) -> Result<FetchPermit, FetchLimitReached> {
        match self {
            Self::Unlimited => Ok(FetchPermit::Proven),
            Self::Shared(budgets, now) => budgets.acquire_unproven(now),
            Self::Reserved(permit) => Ok(permit),
        }
    }
}
