//! The page for Prometheus: `/metrics` on a separate address, never on the public port.
//!
//! Requests, store operations and key fetches are counted as they happen. All other values are read
//! during a scrape. A label has a fixed set of values, or is a tenant that the operator has listed or
//! that is near its limit of tasks.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{Router, http::header::CONTENT_TYPE, response::IntoResponse, routing::get};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, prometheus_text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge, info::Info},
    registry::Registry,
};
use tracing_appender::non_blocking::ErrorCounter;

use super::request::RequestMetrics;
use crate::{
    auth::{TenantLabel, Verifier},
    error::ApiError,
    registry::watcher::RegistryStatus,
    server::Connections,
    tasks::store::Tasks,
};

/// What the metrics are read from.
pub struct MetricsSources {
    /// The requests.
    pub requests: RequestMetrics,
    /// Signing keys and cached tokens.
    pub verifier: Arc<Verifier>,
    /// The store and its database connections.
    pub tasks: Tasks,
    /// The client connections.
    pub connections: Arc<Connections>,
    /// The maximum number of client connections.
    pub max_connections: usize,
    /// The counter of dropped log lines; `None` without a log.
    pub dropped_log_lines: Option<ErrorCounter>,
    /// Whether the newest settings are in force.
    pub are_settings_current: Arc<AtomicBool>,
    /// How current the registry of tenants is; `None` without a database.
    pub registry: Option<Arc<RegistryStatus>>,
}

/// The router of the metrics address.
pub fn router(sources: MetricsSources) -> Router {
    let mut registry = Registry::with_prefix("tenant_tasks");
    let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "Version of the service", build);
    let help = "Time from the head of a request to the head of its response, in seconds; \
                status 499: the connection closed before the response";
    let seconds = sources.requests.seconds.clone();
    registry.register("http_request_duration_seconds", help, seconds);
    let help = "Rejected and failed requests by reason";
    registry.register("refusals", help, sources.requests.refusals.clone());
    let help = "Used part of the task limit at the last created task, from 80 % on";
    let used = sources.tasks.metrics().used_ratio.clone();
    registry.register("task_limit_used_ratio", help, used);
    let help = "Duration of task store operations, in seconds";
    let seconds = sources.tasks.metrics().seconds.clone();
    registry.register("store_duration_seconds", help, seconds);
    let fetches = sources.verifier.fetch_stats();
    let help = "Fetches of signing keys by outcome";
    registry.register("key_fetches", help, fetches.fetches.clone());
    let help = "Key lookups that missed the cache without triggering a fetch: rate limit, back-off \
                or too many fetches";
    registry.register("key_fetches_suppressed", help, fetches.suppressed.clone());
    let help = "Published keys that were rejected: another key with the same id is cached";
    registry.register("key_conflicts", help, fetches.conflicts.clone());
    let help = "Input that was rejected before it became a request, by what it looks like";
    let rejected = sources.connections.rejected.counts();
    registry.register("rejected_input", help, rejected);
    let help = "Connections that a limit closed, by the limit";
    let closed = sources.connections.closed.counts();
    registry.register("closed_connections", help, closed);
    registry.register_collector(Box::new(sources));
    let registry = Arc::new(registry);
    let page = async move || {
        let mut text = String::new();
        // A write to memory does not fail.
        let _ = prometheus_text::encode(&mut text, &registry);
        ([(CONTENT_TYPE, prometheus_text::CONTENT_TYPE)], text).into_response()
    };
    Router::new()
        .route("/metrics", get(page))
        .fallback(async || ApiError::RouteNotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct StatusLabels {
    status: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct LookupLabels {
    outcome: &'static str,
}

impl Collector for MetricsSources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_keys(&mut encoder)?;
        self.encode_token_cache(&mut encoder)?;
        let is_current = self.are_settings_current.load(Ordering::Relaxed);
        let help = "1 if the newest settings are in force, 0 if they are invalid";
        gauge(
            &mut encoder,
            "settings_current",
            help,
            i64::from(is_current),
        )?;
        self.encode_registry(&mut encoder)?;
        let open = number(self.connections.open());
        gauge(&mut encoder, "connections", "Open client connections", open)?;
        let max = number(self.max_connections);
        gauge(
            &mut encoder,
            "connections_max",
            "Maximum number of client connections",
            max,
        )?;
        let (name, accepted) = ("connections_accepted", self.connections.accepted());
        counter(&mut encoder, name, "Accepted client connections", accepted)?;
        if let Some((open, max)) = self.tasks.database_connections() {
            let help = "Open connections to the database";
            gauge(&mut encoder, "database_connections", help, number(open))?;
            let name = "database_connections_max";
            let help = "Maximum number of connections to the database";
            gauge(&mut encoder, name, help, number(max))?;
        }
        let dropped = self.dropped_log_lines.as_ref();
        let dropped = dropped.map_or(0, ErrorCounter::dropped_lines);
        let dropped = u64::try_from(dropped).unwrap_or(u64::MAX);
        let help = "Log lines dropped because standard error was not read";
        counter(&mut encoder, "log_lines_dropped", help, dropped)
    }
}

impl MetricsSources {
    fn encode_keys(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let tenants = self.verifier.key_status();
        let help = "Trusted signing keys";
        let mut family =
            encoder.encode_descriptor("signing_keys", help, None, MetricType::Gauge)?;
        for status in &tenants {
            let labels = TenantLabel::new(Some(status.tenant));
            let usable = ConstGauge::new(number(status.usable));
            usable.encode(family.encode_family(&labels)?)?;
        }
        let name = "signing_keys_age_seconds";
        let help = "Time since any signing key was last published; after 86400 no key is trusted";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for status in &tenants {
            let labels = TenantLabel::new(Some(status.tenant));
            if let Some(age) = status.age {
                ConstGauge::new(age.as_secs_f64()).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn encode_registry(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(registry) = &self.registry else {
            return Ok(());
        };
        if let Some(age) = registry.age() {
            let name = "registry_age_seconds";
            let help = "Time since the database confirmed the registry of tenants";
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(age.as_secs_f64()).encode(metric)?;
        }
        let (active, suspended) = registry.tenants();
        let help = "Tenants in the registry";
        let mut family =
            encoder.encode_descriptor("registry_tenants", help, None, MetricType::Gauge)?;
        for (status, count) in [("active", active), ("suspended", suspended)] {
            let labels = StatusLabels { status };
            ConstGauge::new(number(count)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn encode_token_cache(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (hits, misses, entries) = self.verifier.token_cache_stats();
        let name = "token_cache_lookups";
        let help = "Tokens that were found in the cache (hit) or had to be verified (miss)";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (outcome, count) in [("hit", hits), ("miss", misses)] {
            let labels = LookupLabels { outcome };
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        let help = "Cached verified tokens";
        gauge(encoder, "token_cache_entries", help, number(entries))
    }
}

impl fmt::Debug for MetricsSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsSources").finish_non_exhaustive()
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: i64) -> fmt::Result {
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    ConstGauge::new(value).encode(metric)
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    ConstCounter::new(value).encode(metric)
}

fn number(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}
