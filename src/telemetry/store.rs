//! How long the store takes, and how often it fails.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, histogram::Histogram},
};
use tokio::time::Instant;
use tracing::Instrument;

use crate::tasks::store::StoreError;

/// Upper bounds of the buckets, in seconds: memory takes microseconds, a database milliseconds.
const BUCKETS: [f64; 11] = [
    0.00001, 0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 2.5,
];

/// The time of each operation, in seconds; cloning gives another handle to the same numbers.
#[derive(Clone, Debug)]
pub struct Timings(pub(crate) Family<Labels, Histogram>);

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(crate) struct Labels {
    operation: &'static str,
    outcome: &'static str,
}

impl Default for Timings {
    fn default() -> Self {
        Self(Family::new_with_constructor(|| Histogram::new(BUCKETS)))
    }
}

impl Timings {
    fn record(&self, operation: &'static str, outcome: &'static str, duration: Duration) {
        self.0
            .get_or_create(&Labels { operation, outcome })
            .observe(duration.as_secs_f64());
    }
}

/// Does what the store is asked, within a span of its own, and takes the time if anyone wants it.
pub(crate) async fn timed<T>(
    timings: Option<&Timings>,
    operation: &'static str,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let work = work.instrument(tracing::debug_span!("store", operation));
    let Some(timings) = timings else {
        return work.await;
    };
    let started = Instant::now();
    let result = work.await;
    let outcome = match &result {
        Ok(_) => "ok",
        Err(StoreError::Full { .. }) => "full",
        Err(StoreError::Unavailable(_)) => "unavailable",
    };
    timings.record(operation, outcome, started.elapsed());
    result
}
