//! What Prometheus is told, at `/metrics` on an address of its own.
//!
//! Requests and the store count for themselves; everything else is asked when somebody looks. Every label's value
//! comes from a closed set or is a tenant that the operator has listed.

use std::{fmt, sync::Arc};

use axum::{Router, http::header::CONTENT_TYPE, response::IntoResponse, routing::get};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, prometheus_text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge, info::Info},
    registry::Registry,
};

use super::{request::RequestMetrics, store::Timings};
use crate::{
    auth::{FetchCounts, Verifier},
    error::ApiError,
    server::Tally,
    tasks::store::Tasks,
};

/// What is asked when somebody looks.
pub struct Watched {
    /// Keys, and tokens that were verified before.
    pub verifier: Arc<Verifier>,
    /// Connections to a database.
    pub tasks: Tasks,
    /// Connections of clients.
    pub connections: Arc<Tally>,
    /// How many of these there may be.
    pub max_connections: usize,
    /// Log lines nobody will read.
    pub dropped_log_lines: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Whether the newest settings are those in force.
    pub are_settings_current: Box<dyn Fn() -> bool + Send + Sync>,
}

/// The page for Prometheus.
pub fn router(requests: &RequestMetrics, store: &Timings, watched: Watched) -> Router {
    let mut registry = Registry::with_prefix("tenant_tasks");
    registry.register(
        "build",
        "The version that runs",
        Info::new([("version", env!("CARGO_PKG_VERSION"))]),
    );
    registry.register(
        "http_request_duration_seconds",
        "Time from the head of a request to the head of its answer; status 499: the connection ended before",
        requests.seconds.clone(),
    );
    registry.register(
        "refusals",
        "Requests refused, by reason",
        requests.refusals.clone(),
    );
    registry.register(
        "store_duration_seconds",
        "Time that the task store took",
        store.0.clone(),
    );
    registry.register_collector(Box::new(watched));
    let registry = Arc::new(registry);
    let page = async move || {
        let mut text = String::new();
        // Writing to memory does not fail.
        let _ = prometheus_text::encode(&mut text, &registry);
        ([(CONTENT_TYPE, prometheus_text::CONTENT_TYPE)], text).into_response()
    };
    Router::new()
        .route("/metrics", get(page))
        .fallback(async || ApiError::RouteNotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct TenantLabel {
    tenant: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct FetchLabels {
    tenant: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct LookupLabels {
    outcome: &'static str,
}

impl Collector for Watched {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_keys(&mut encoder)?;
        let tokens = self.verifier.token_cache();
        let lookups = [("hit", tokens.hits), ("miss", tokens.misses)];
        counters(
            &mut encoder,
            "token_cache_lookups",
            "Tokens that needed no verification, having been verified before, and tokens that did",
            lookups.map(|(outcome, count)| (LookupLabels { outcome }, count)),
        )?;
        gauge(
            &mut encoder,
            "token_cache_entries",
            "Tokens remembered as verified",
            tokens.entries,
        )?;
        gauge(
            &mut encoder,
            "connections",
            "Connections of clients",
            self.connections.open(),
        )?;
        gauge(
            &mut encoder,
            "connections_max",
            "How many connections there may be",
            self.max_connections,
        )?;
        counter(
            &mut encoder,
            "connections_accepted",
            "Connections accepted",
            self.connections.accepted(),
        )?;
        if let Some((open, max)) = self.tasks.database_connections() {
            gauge(
                &mut encoder,
                "database_connections",
                "Connections to the database",
                open,
            )?;
            gauge(
                &mut encoder,
                "database_connections_max",
                "How many of them there may be",
                max,
            )?;
        }
        let dropped = (self.dropped_log_lines)();
        counter(
            &mut encoder,
            "log_lines_dropped",
            "Log lines nobody read in time",
            dropped,
        )?;
        let is_current = usize::from((self.are_settings_current)());
        gauge(
            &mut encoder,
            "settings_current",
            "1 if the newest settings are in force, else 0",
            is_current,
        )
    }
}

impl Watched {
    fn encode_keys(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (tenants, others) = self.verifier.key_status();
        let by_tenant = |of: fn(&crate::auth::KeyStatus) -> Option<f64>| {
            let known = tenants
                .iter()
                .filter_map(move |status| of(status).map(|value| (status, value)));
            known.map(|(status, value)| {
                (
                    TenantLabel {
                        tenant: status.tenant.to_string(),
                    },
                    value,
                )
            })
        };
        #[expect(
            clippy::cast_precision_loss,
            reason = "a document has a hundred keys at most"
        )]
        let usable = by_tenant(|status| Some(status.usable as f64));
        gauges(
            encoder,
            "signing_keys",
            "Signing keys that are trusted",
            usable,
        )?;
        let age = by_tenant(|status| status.age.map(|age| age.as_secs_f64()));
        let help = "Time since a signing key was last seen published; after 86400 none is trusted";
        gauges(encoder, "signing_keys_age_seconds", help, age)?;

        let counts = || {
            let known = tenants
                .iter()
                .map(|status| (status.tenant.to_string(), status.fetches));
            known.chain([("other".to_owned(), others)])
        };
        let fetches = counts().flat_map(
            |(
                tenant,
                FetchCounts {
                    succeeded, failed, ..
                },
            )| {
                [("ok", succeeded), ("failed", failed)].map(|(outcome, count)| {
                    (
                        FetchLabels {
                            tenant: tenant.clone(),
                            outcome,
                        },
                        count,
                    )
                })
            },
        );
        counters(encoder, "key_fetches", "Fetches of signing keys", fetches)?;
        let of_tenant = |of: fn(FetchCounts) -> u64| {
            counts().map(move |(tenant, counts)| (TenantLabel { tenant }, of(counts)))
        };
        let help = "Requests whose key is not at hand that started no fetch: allowance, back-off or too many at once";
        counters(
            encoder,
            "key_fetches_suppressed",
            help,
            of_tenant(|counts| counts.suppressed),
        )?;
        let help = "Published keys refused because another is held under their id";
        counters(
            encoder,
            "key_conflicts",
            help,
            of_tenant(|counts| counts.conflicts),
        )
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").finish_non_exhaustive()
    }
}

fn counters<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (L, u64)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in values {
        ConstCounter::new(value).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

fn gauges<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (L, f64)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    ConstCounter::new(value).encode(metric)
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: impl TryInto<i64>,
) -> fmt::Result {
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    ConstGauge::new(value.try_into().unwrap_or(i64::MAX)).encode(metric)
}
