//! Rate limits: a burst first, then a steady rate.

use std::{num::NonZeroU32, time::Duration};

use dashmap::DashMap;

use crate::ids::TenantId;

/// At this number of tracked tenants, those without recent requests are removed.
const MAX_TRACKED_TENANTS: usize = 10_000;

/// The parameters of a rate limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    /// The number of events allowed at once after a pause.
    pub(super) burst: u32,
    /// The time until one more event is allowed.
    pub(super) interval: Duration,
    /// The minimum time between two events.
    pub(super) spacing: Duration,
}

/// A rate limit: the generic cell rate algorithm (ITU-T I.371). It stores times, not a count.
///
/// Times are those of [`Clock::monotonic`](crate::clock::Clock::monotonic).
#[derive(Clone, Debug)]
pub(super) struct RateLimit {
    limit: Limit,
    /// When the whole burst is available again.
    full_at: Duration,
    last_taken: Option<Duration>,
}

/// The request rate limit of each tenant. Only tenants with a verified token have an entry.
#[derive(Default)]
pub(super) struct TenantRateLimits {
    tenants: DashMap<TenantId, RateLimit>,
}

impl RateLimit {
    pub(super) const fn new(limit: Limit) -> Self {
        Self {
            limit,
            full_at: Duration::ZERO,
            last_taken: None,
        }
    }

    /// Whether an event is allowed now.
    pub(super) fn is_available(&self, now: Duration) -> bool {
        let limit = self.limit;
        let last_taken = self.last_taken;
        let is_too_soon = last_taken.is_some_and(|last| now < last + limit.spacing);
        !is_too_soon && self.full_at <= now + limit.interval * (limit.burst - 1)
    }

    /// Whether the whole burst is available.
    fn is_full(&self, now: Duration) -> bool {
        self.full_at <= now
    }

    /// Counts an event if it is allowed now.
    pub(super) fn try_take(&mut self, now: Duration) -> bool {
        let is_available = self.is_available(now);
        if is_available {
            self.full_at = self.full_at.max(now) + self.limit.interval;
            self.last_taken = Some(now);
        }
        is_available
    }
}

impl TenantRateLimits {
    /// Counts a request of the tenant if it is allowed now: `per_second` requests per second, and as
    /// many at once after a pause.
    pub(super) fn try_take(&self, tenant: TenantId, per_second: NonZeroU32, now: Duration) -> bool {
        let limit = Limit {
            burst: per_second.get(),
            interval: Duration::from_secs(1) / per_second.get(),
            spacing: Duration::ZERO,
        };
        if let Some(mut tracked) = self.tenants.get_mut(&tenant) {
            // An operator may have changed it.
            tracked.limit = limit;
            return tracked.try_take(now);
        }
        if self.tenants.len() >= MAX_TRACKED_TENANTS {
            // A full limit is the same as a new one.
            self.tenants.retain(|_, limit| !limit.is_full(now));
        }
        let new = || RateLimit::new(limit);
        let mut tracked = self.tenants.entry(tenant).or_insert_with(new);
        tracked.try_take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tries once per second for half an hour and returns the seconds that were allowed.
    fn allowed(limit: Limit) -> Vec<u64> {
        let mut limit = RateLimit::new(limit);
        (0..1800)
            .filter(|&second| limit.try_take(Duration::from_secs(second)))
            .collect()
    }

    #[test]
    fn one_event_per_interval_after_the_burst() {
        let limit = Limit {
            burst: 2,
            interval: Duration::from_mins(5),
            spacing: Duration::from_secs(30),
        };
        assert_eq!(allowed(limit), [0, 30, 300, 600, 900, 1200, 1500]);
    }

    #[test]
    fn only_tenants_without_recent_requests_are_removed() {
        let limits = TenantRateLimits::default();
        let take = |number: usize, seconds| {
            let tenant = TenantId::numbered(number);
            limits.try_take(tenant, NonZeroU32::MIN, Duration::from_secs(seconds))
        };
        for number in 0..MAX_TRACKED_TENANTS {
            assert!(take(number, number as u64 % 100));
        }
        assert_eq!(limits.tenants.len(), MAX_TRACKED_TENANTS);
        // A request at 99 seconds counts until 100 seconds.
        assert!(take(MAX_TRACKED_TENANTS, 99));
        assert_eq!(limits.tenants.len(), MAX_TRACKED_TENANTS / 100 + 1);
        assert!(!take(99, 99));
        assert!(take(98, 99));
    }

    #[test]
    fn a_pause_restores_one_burst_and_no_more() {
        let mut limit = RateLimit::new(Limit {
            burst: 3,
            interval: Duration::from_secs(10),
            spacing: Duration::ZERO,
        });
        for now in [Duration::ZERO, Duration::from_hours(24)] {
            let allowed = (0..10).filter(|_| limit.try_take(now)).count();
            assert_eq!(allowed, 3);
        }
    }
}
