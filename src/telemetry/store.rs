//! How long the store takes, and how often it fails.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge, histogram::Histogram},
};
use tokio::time::Instant;
use tracing::Instrument;

use crate::{
    ids::TenantId,
    tasks::{StoreError, Usage},
};

/// The upper bounds of the buckets, in seconds: memory takes microseconds, a database milliseconds.
const BUCKETS: [f64; 11] = [
    0.00001, 0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 2.5,
];

/// The durations of operations, in seconds. A clone shares the values.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    pub(super) seconds: Family<Labels, Histogram>,
    /// The used part of the limit at the last created task, of tenants near their limit.
    pub(super) used_ratio: Family<UsageLabels, Gauge<f64, AtomicU64>>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct UsageLabels {
    tenant: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct Labels {
    operation: &'static str,
    outcome: &'static str,
}

impl UsageLabels {
    fn new(tenant: TenantId) -> Self {
        let tenant = tenant.to_string();
        Self { tenant }
    }
}

impl Default for StoreMetrics {
    fn default() -> Self {
        Self {
            seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            used_ratio: Family::default(),
        }
    }
}

impl StoreMetrics {
    /// Forgets how much of its limit a tenant uses, after it has deleted a task.
    pub(crate) fn forget_usage(&self, tenant: TenantId) {
        self.used_ratio.remove(&UsageLabels::new(tenant));
    }

    /// Records how much of its limit a tenant uses. Tenants far from their limit have no series.
    pub(crate) fn record_usage(&self, tenant: TenantId, usage: Usage) {
        let labels = UsageLabels::new(tenant);
        if usage.is_near_limit() {
            #[expect(clippy::cast_precision_loss, reason = "a ratio for a chart")]
            let ratio = usage.count as f64 / usage.max as f64;
            self.used_ratio.get_or_create(&labels).set(ratio);
        } else {
            self.used_ratio.remove(&labels);
        }
    }

    /// Runs an operation in a span and records its duration and outcome.
    pub(crate) async fn observe<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let started_at = Instant::now();
        let span = tracing::debug_span!("store", operation);
        let result = work.instrument(span).await;
        let outcome = match &result {
            Ok(_) => "ok",
            Err(StoreError::Full { .. }) => "full",
            Err(StoreError::KeyReused) => "key_reused",
            Err(StoreError::Unavailable(_) | StoreError::Unacknowledged(_)) => "unavailable",
        };
        let labels = Labels { operation, outcome };
        let seconds = started_at.elapsed().as_secs_f64();
        self.seconds.get_or_create(&labels).observe(seconds);
        result
    }
}
