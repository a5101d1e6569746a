//! Statistics of the signing keys, for the metrics. Verification never depends on them.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};

use crate::ids::TenantId;

/// One label for all tenants that are not listed: in open mode anyone can name any tenant, and each
/// label value creates a time series.
const OTHER: &str = "other";

/// The cached keys of one tenant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KeyStatus {
    /// The tenant.
    pub tenant: TenantId,
    /// The number of trusted keys.
    pub usable: usize,
    /// The time since any key was last published; `None` without a key.
    pub age: Option<Duration>,
}

/// Counters of the fetches since the start, by tenant. A clone shares the counters.
#[derive(Clone, Debug, Default)]
pub struct FetchStats {
    pub(crate) fetches: Family<FetchLabels, Counter>,
    pub(crate) suppressed: Family<TenantLabel, Counter>,
    pub(crate) conflicts: Family<TenantLabel, Counter>,
}

/// The label of a metric by tenant.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(crate) struct TenantLabel {
    tenant: String,
}

/// The labels of the fetch counter.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(crate) struct FetchLabels {
    tenant: String,
    outcome: &'static str,
}

impl TenantLabel {
    /// A listed tenant by its id, any other tenant as "other".
    pub(crate) fn new(listed: Option<TenantId>) -> Self {
        let tenant = listed.map_or_else(|| OTHER.to_owned(), |tenant| tenant.to_string());
        Self { tenant }
    }
}

impl FetchStats {
    /// Creates every counter of a label, so that each time series starts at zero.
    pub(super) fn register(&self, label: &TenantLabel) {
        for outcome in ["ok", "failed"] {
            self.fetches(label, outcome);
        }
        drop(self.suppressed.get_or_create(label));
        drop(self.conflicts.get_or_create(label));
    }

    pub(super) fn count_success(&self, label: &TenantLabel, conflicts: usize) {
        self.fetches(label, "ok").inc();
        let conflicts = u64::try_from(conflicts).unwrap_or(u64::MAX);
        self.conflicts.get_or_create(label).inc_by(conflicts);
    }

    pub(super) fn count_failure(&self, label: &TenantLabel) {
        self.fetches(label, "failed").inc();
    }

    /// Counts a missing key for which no fetch was started because of the tenant's rate limit, the
    /// back-off after a failure, or too many other fetches.
    pub(super) fn count_suppressed(&self, label: &TenantLabel) {
        self.suppressed.get_or_create(label).inc();
    }

    fn fetches(&self, label: &TenantLabel, outcome: &'static str) -> Counter {
        let tenant = label.tenant.clone();
        let labels = FetchLabels { tenant, outcome };
        self.fetches.get_or_create(&labels).clone()
    }
}
