//! What is held of whose keys, and what was fetched for it: for whoever watches, it decides nothing.

use std::{
    sync::atomic::{AtomicU64, Ordering},
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
    /// Requests with a key id not at hand that started no fetch, because the allowance was spent.
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

/// The counters behind [`FetchCounts`].
#[derive(Debug, Default)]
pub(super) struct FetchTally {
    succeeded: AtomicU64,
    failed: AtomicU64,
    suppressed: AtomicU64,
    conflicts: AtomicU64,
}

impl FetchTally {
    pub(super) fn succeeded(&self) {
        self.succeeded.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn suppressed(&self) {
        self.suppressed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn conflicts(&self, count: usize) {
        self.conflicts.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn counts(&self) -> FetchCounts {
        FetchCounts {
            succeeded: self.succeeded.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            suppressed: self.suppressed.load(Ordering::Relaxed),
            conflicts: self.conflicts.load(Ordering::Relaxed),
        }
    }
}
