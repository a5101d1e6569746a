//! What is held of whose keys, and what was fetched for it: for whoever watches, it decides nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::ids::TenantId;

/// How fetches have ended since the start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FetchCounts {
    /// Fetches that brought keys.
    pub succeeded: u64,
    /// Fetches that brought none.
    pub failed: u64,
    /// Requests with a key id not at hand that started no fetch: the allowance was spent, a failed fetch was not long
    /// enough ago, or too many others were under way.
    pub suppressed: u64,
    /// Published keys that were refused because another is held under their id.
    pub conflicts: u64,
}

/// The keys of one tenant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KeyStatus {
    /// Whose they are.
    pub tenant: TenantId,
    /// How many are trusted now.
    pub usable: usize,
    /// How long ago any of them was last seen published; `None` if none is held.
    pub age: Option<Duration>,
    /// What was fetched.
    pub fetches: FetchCounts,
}

/// The counters behind [`FetchCounts`]: a tenant's own.
#[derive(Debug, Default)]
pub(crate) struct FetchTally {
    counters: Counters,
    /// Where the tenants that nobody expects are counted together, this one among them until it is expected.
    others: Option<Arc<Counters>>,
    is_expected: AtomicBool,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    succeeded: AtomicU64,
    failed: AtomicU64,
    suppressed: AtomicU64,
    conflicts: AtomicU64,
}

impl FetchTally {
    pub(crate) fn of_stranger(others: Arc<Counters>) -> Self {
        Self {
            others: Some(others),
            ..Self::default()
        }
    }

    /// Its tenant is expected now: it no longer counts among the others.
    pub(crate) fn expect(&self) {
        self.is_expected.store(true, Ordering::Relaxed);
    }

    pub(crate) fn succeeded(&self, conflicts: usize) {
        self.count(|counters| &counters.succeeded, 1);
        self.count(
            |counters| &counters.conflicts,
            u64::try_from(conflicts).unwrap_or(u64::MAX),
        );
    }

    pub(crate) fn failed(&self) {
        self.count(|counters| &counters.failed, 1);
    }

    pub(crate) fn suppressed(&self) {
        self.count(|counters| &counters.suppressed, 1);
    }

    pub(crate) fn counts(&self) -> FetchCounts {
        self.counters.counts()
    }

    fn count(&self, which: impl Fn(&Counters) -> &AtomicU64, by: u64) {
        which(&self.counters).fetch_add(by, Ordering::Relaxed);
        if let Some(others) = &self.others
            && !self.is_expected.load(Ordering::Relaxed)
        {
            which(others).fetch_add(by, Ordering::Relaxed);
        }
    }
}

impl Counters {
    /// A fetch for a tenant that is not even remembered was not started.
    pub(crate) fn suppressed(&self) {
        self.suppressed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> FetchCounts {
        FetchCounts {
            succeeded: self.succeeded.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            suppressed: self.suppressed.load(Ordering::Relaxed),
            conflicts: self.conflicts.load(Ordering::Relaxed),
        }
    }
}
