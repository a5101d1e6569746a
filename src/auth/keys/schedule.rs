//! When one tenant's keys are fetched. Time is a parameter.

use std::time::Duration;

use crate::auth::rate_limit::{Limit, RateLimit};

/// The time between two refreshes, give or take [`JITTER`].
const REFRESH: Duration = Duration::from_hours(1);

/// The fraction by which [`REFRESH`] varies, so that tenants and replicas do not refresh together.
const JITTER: f64 = 0.1;

/// The back-off after the first failure. It doubles with each failure, up to [`MAX_BACK_OFF`].
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
const MAX_BACK_OFF: Duration = Duration::from_secs(30);

/// Fetches for an unknown key id. Microsoft's libraries allow one in five minutes. A second one, 30
/// seconds later, finds a new key that signed tokens before the document contained it.
const UNKNOWN_KEYS: Limit = Limit {
    burst: 2,
    interval: Duration::from_mins(5),
    spacing: Duration::from_secs(30),
};

/// The fetch schedule of one tenant. Times are those of the monotonic clock.
pub(super) struct Schedule {
    /// When the next refresh or retry is due.
    due_at: Duration,
    /// The number of failures since the last success.
    failures: u32,
    unknown_keys: RateLimit,
}

impl Schedule {
    /// The first fetch is due at once.
    pub(super) const fn new() -> Self {
        Self {
            due_at: Duration::ZERO,
            failures: 0,
            unknown_keys: RateLimit::new(UNKNOWN_KEYS),
        }
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        now >= self.due_at
    }

    /// Whether the last fetch failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Whether a caller whose key is not cached may cause a fetch now.
    ///
    /// If other keys are cached and the last fetch succeeded, the rate limit decides. Otherwise a
    /// fetch must be due.
    pub(super) fn may_fetch_for_caller(&self, is_usable: bool, now: Duration) -> bool {
        if is_usable && !self.is_failing() {
            self.unknown_keys.is_available(now)
        } else {
            self.is_due(now)
        }
    }

    /// Counts a caller's fetch against the rate limit if other keys are cached, even if it fails.
    pub(super) fn record_fetch_for_caller(&mut self, is_usable: bool, now: Duration) {
        if is_usable {
            self.unknown_keys.try_take(now);
        }
    }

    pub(super) fn record_success(&mut self, now: Duration) {
        self.failures = 0;
        let factor = 1.0 - JITTER + 2.0 * JITTER * fastrand::f64();
        self.due_at = now + REFRESH.mul_f64(factor);
    }

    /// Backs off. `requested` is the wait that the authority asks for, followed up to
    /// [`MAX_BACK_OFF`].
    pub(super) fn record_failure(&mut self, now: Duration, requested: Option<Duration>) {
        let back_off = FIRST_BACK_OFF * 2_u32.saturating_pow(self.failures.min(16));
        let back_off = back_off.max(requested.unwrap_or_default());
        self.failures = self.failures.saturating_add(1);
        self.due_at = now + back_off.min(MAX_BACK_OFF);
    }

    /// Makes the next fetch due after `delay`.
    pub(super) fn postpone(&mut self, now: Duration, delay: Duration) {
        self.due_at = now + delay;
    }

    /// The time until the next fetch is due, at most [`MAX_BACK_OFF`].
    pub(super) fn retry_after(&self, now: Duration) -> Duration {
        self.due_at.saturating_sub(now).min(MAX_BACK_OFF)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_back_off_from_one_to_thirty_seconds() {
        let mut schedule = Schedule::new();
        let waits = [0; 8].map(|_| {
            schedule.record_failure(Duration::ZERO, None);
            schedule.retry_after(Duration::ZERO).as_secs()
        });
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
    }

    #[test]
    fn requested_wait_is_followed_up_to_thirty_seconds() {
        for (requested, expected) in [(0, 1), (1, 1), (7, 7), (30, 30), (3600, 30)] {
            let mut schedule = Schedule::new();
            schedule.record_failure(Duration::ZERO, Some(Duration::from_secs(requested)));
            assert_eq!(schedule.retry_after(Duration::ZERO).as_secs(), expected);
        }
    }

    #[test]
    fn refresh_is_due_after_54_to_66_minutes() {
        let mut is_early = false;
        let mut is_late = false;
        for _ in 0..1000 {
            let mut schedule = Schedule::new();
            schedule.record_success(Duration::ZERO);
            assert!(!schedule.is_due(Duration::from_mins(54) - Duration::from_secs(1)));
            assert!(schedule.is_due(Duration::from_mins(66) + Duration::from_secs(1)));
            is_early |= schedule.is_due(Duration::from_mins(55));
            is_late |= !schedule.is_due(Duration::from_mins(65));
        }
        assert!(is_early && is_late, "the times are not spread");
    }
}
