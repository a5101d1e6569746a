//! How often something may be done: a few times at once, then at a steady rate.

use std::{num::NonZeroU32, time::Duration};

use dashmap::DashMap;

use crate::ids::TenantId;

/// What may be done, at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    /// How often at once, after a long rest.
    pub(super) burst: u32,
    /// How long it takes to earn one more.
    pub(super) interval: Duration,
    /// The least time between any two.
    pub(super) spacing: Duration,
}

/// What is left of a [`Limit`].
///
/// The generic cell rate algorithm (ITU-T I.371): one moment is kept, not a count.
#[derive(Clone, Debug)]
pub(super) struct Allowance {
    limit: Limit,
    /// When all that has been taken will have been earned again.
    earned_at: Duration,
    last_taken: Option<Duration>,
}

impl Allowance {
    pub(super) const fn new(limit: Limit) -> Self {
        Self {
            limit,
            earned_at: Duration::ZERO,
            last_taken: None,
        }
    }

    /// Whether there is one to take.
    pub(super) fn is_left(&self, now: Duration) -> bool {
        let Limit {
            burst,
            interval,
            spacing,
        } = self.limit;
        let is_too_soon = self.last_taken.is_some_and(|last| now < last + spacing);
        !is_too_soon && self.earned_at <= now + interval * (burst - 1)
    }

    /// Whether nothing of it is taken.
    pub(super) fn is_whole(&self, now: Duration) -> bool {
        self.earned_at <= now
    }

    /// Takes one if there is one to take.
    pub(super) fn take(&mut self, now: Duration) -> bool {
        let is_left = self.is_left(now);
        if is_left {
            self.earned_at = self.earned_at.max(now) + self.limit.interval;
            self.last_taken = Some(now);
        }
        is_left
    }
}

/// Tenants that are remembered before those at rest are forgotten.
const MAX_REMEMBERED: usize = 10_000;

/// What is left of each tenant's requests. Only tenants with a verified token are in it.
pub(super) struct TenantRates {
    limit: Limit,
    tenants: DashMap<TenantId, Allowance>,
}

impl TenantRates {
    /// So many requests a second, and as many at once after a rest.
    pub(super) fn new(per_second: NonZeroU32) -> Self {
        let interval = Duration::from_secs(1) / per_second.get();
        let limit = Limit {
            burst: per_second.get(),
            interval,
            spacing: Duration::ZERO,
        };
        Self {
            limit,
            tenants: DashMap::new(),
        }
    }

    /// Whether the tenant may make one more request now.
    pub(super) fn take(&self, tenant: TenantId, now: Duration) -> bool {
        if let Some(mut allowance) = self.tenants.get_mut(&tenant) {
            return allowance.take(now);
        }
        if self.tenants.len() >= MAX_REMEMBERED {
            // A tenant at rest has all of its allowance, as one that is not remembered.
            self.tenants.retain(|_, allowance| !allowance.is_whole(now));
        }
        self.tenants
            .entry(tenant)
            .or_insert_with(|| Allowance::new(self.limit))
            .take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks once a second for half an hour.
    fn taken(limit: Limit) -> Vec<u64> {
        let mut allowance = Allowance::new(limit);
        (0..1800)
            .filter(|&second| allowance.take(Duration::from_secs(second)))
            .collect()
    }

    #[test]
    fn after_the_burst_one_is_given_each_interval() {
        let limit = Limit {
            burst: 2,
            interval: Duration::from_mins(5),
            spacing: Duration::from_secs(30),
        };
        assert_eq!(taken(limit), [0, 30, 300, 600, 900, 1200, 1500]);
    }

    #[test]
    fn a_rest_earns_a_new_burst_and_no_more() {
        let limit = Limit {
            burst: 3,
            interval: Duration::from_secs(10),
            spacing: Duration::ZERO,
        };
        let mut allowance = Allowance::new(limit);
        for now in [Duration::ZERO, Duration::from_hours(24)] {
            let taken = (0..10).filter(|_| allowance.take(now)).count();
            assert_eq!(taken, 3);
        }
    }
}
