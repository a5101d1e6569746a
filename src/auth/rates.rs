//! How many requests each tenant may make, so that one tenant's load is not another's problem.

use std::{num::NonZeroU32, time::Duration};

use dashmap::DashMap;

use super::allowance::{Allowance, Limit};
use crate::ids::TenantId;

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
