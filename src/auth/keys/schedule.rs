//! When one tenant's keys are fetched, and when not. Knows the time only as a parameter.

use std::time::Duration;

use crate::auth::rate_limit::{Allowance, Limit};

/// How long after a fetch the next one is due, give or take [`JITTER`].
const REFRESH: Duration = Duration::from_hours(1);

/// By which part of itself [`REFRESH`] varies, so that tenants and replicas spread out.
const JITTER: f64 = 0.1;

/// The wait after a first failure; it doubles with each further one, up to [`LONGEST_BACK_OFF`].
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(30);

/// Fetches for the sake of a key id nobody has seen. Microsoft's own libraries allow one in
/// five minutes; a second one soon after helps whoever was early at a rollover.
const UNKNOWN_KEYS: Limit = Limit {
    burst: 2,
    interval: Duration::from_mins(5),
    spacing: Duration::from_secs(30),
};

/// The state of one tenant's fetches. Moments are those of the monotonic clock.
pub(crate) struct Schedule {
    /// When the next fetch is due: a refresh, or a new try after a failure.
    due_at: Duration,
    /// Failures since the last success.
    failures: u32,
    unknown_keys: Allowance,
}

impl Schedule {
    /// The first fetch is due at once.
    pub(crate) const fn new() -> Self {
        Self {
            due_at: Duration::ZERO,
            failures: 0,
            unknown_keys: Allowance::new(UNKNOWN_KEYS),
        }
    }

    pub(crate) fn is_due(&self, now: Duration) -> bool {
        now >= self.due_at
    }

    /// Whether the last attempt failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Whether a caller whose key is not at hand may cause a fetch now. With other keys at
    /// hand that is what the allowance is for; without any, or after a failure, the fetch that
    /// is due is what they wait for.
    pub(crate) fn may_fetch_for_caller(&self, is_usable: bool, now: Duration) -> bool {
        if is_usable && !self.is_failing() {
            self.unknown_keys.is_left(now)
        } else {
            self.is_due(now)
        }
    }

    /// A caller has caused a fetch. It counts however it ends.
    pub(crate) fn fetching_for_caller(&mut self, is_usable: bool, now: Duration) {
        if is_usable {
            self.unknown_keys.take(now);
        }
    }

    pub(crate) fn succeeded(&mut self, now: Duration) {
        self.failures = 0;
        let part = 1.0 - JITTER + 2.0 * JITTER * fastrand::f64();
        self.due_at = now + REFRESH.mul_f64(part);
    }

    pub(crate) fn failed(&mut self, now: Duration) {
        let back_off = FIRST_BACK_OFF * 2_u32.saturating_pow(self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        self.due_at = now + back_off.min(LONGEST_BACK_OFF);
    }

    /// Nothing is due for as long as this.
    pub(crate) fn rest(&mut self, now: Duration, how_long: Duration) {
        self.due_at = now + how_long;
    }

    /// How long until the next try.
    pub(crate) fn retry_after(&self, now: Duration) -> Duration {
        self.due_at.saturating_sub(now).min(LONGEST_BACK_OFF)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_back_off_from_one_to_thirty_seconds() {
        let mut schedule = Schedule::new();
        let waits = [0; 8].map(|_| {
            schedule.failed(Duration::ZERO);
            schedule.retry_after(Duration::ZERO).as_secs()
        });
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
    }

    #[test]
    fn a_refresh_is_due_after_an_hour_give_or_take_six_minutes() {
        for _ in 0..1000 {
            let mut schedule = Schedule::new();
            schedule.succeeded(Duration::ZERO);
            assert!(!schedule.is_due(Duration::from_mins(54) - Duration::from_secs(1)));
            assert!(schedule.is_due(Duration::from_mins(66) + Duration::from_secs(1)));
        }
    }
}
