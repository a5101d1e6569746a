//! The outermost layer: a request id, one log line and the metrics of each request.
//!
//! A log line contains the route, but not the path or query, which may contain a token. Every
//! metric label has a fixed set of values, so that the number of time series is bounded.

use std::{mem, thread, time::Duration};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode},
    middleware::Next,
    response::Response,
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
};
use tokio::time::Instant;
use tracing::{Instrument, Span, field};
use uuid::Uuid;

use super::otlp;
use crate::{auth::RequestLog, error::ErrorContext};

/// The response header with the id of the request's log line.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The logged status of a request whose connection closed before the response. It is never sent.
/// nginx uses the same number.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// The logged status of a request whose handler panicked. The connection is closed.
const PANICKED: u16 = 500;

/// The routes that supervisors and load balancers call every few seconds.
const PROBES: [&str; 2] = ["/health", "/ready"];

/// The upper bounds of the buckets of the request duration, in seconds.
const BUCKETS: [f64; 13] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

/// The metrics of all requests. A clone shares the values.
#[derive(Clone, Debug)]
pub struct RequestMetrics {
    /// The time from the request's head to the response's head, in seconds.
    pub(super) seconds: Family<RequestLabels, Histogram>,
    pub(super) refusals: Family<RefusalLabels, Counter>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct RequestLabels {
    route: String,
    method: &'static str,
    status: u16,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct RefusalLabels {
    reason: &'static str,
}

/// A request in progress. If dropped before it is answered, it is recorded as canceled (499).
struct RequestRecord {
    id: String,
    /// The route as the router names it; `None` if no route matches.
    route: Option<MatchedPath>,
    method: &'static str,
    trace_id: Option<String>,
    caller: RequestLog,
    started_at: Instant,
    metrics: RequestMetrics,
    is_answered: bool,
}

impl Default for RequestMetrics {
    fn default() -> Self {
        Self {
            seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            refusals: Family::default(),
        }
    }
}

/// Logs and counts a request. Every request whose head can be parsed passes this layer.
pub(crate) async fn observe(
    State(metrics): State<RequestMetrics>,
    mut request: Request,
    next: Next,
) -> Response {
    let record = RequestRecord::new(&request, metrics);
    request.extensions_mut().insert(record.caller.clone());
    // Costs nothing unless spans are exported or the log filter enables debug lines.
    let span = tracing::debug_span!(
        "request",
        request_id = %record.id,
        otel.name = format_args!("{} {}", record.method, record.route()),
        otel.kind = "server",
        otel.status_code = field::Empty,
        http.request.method = record.method,
        http.route = record.route(),
        http.response.status_code = field::Empty,
        reason = field::Empty,
    );
    otlp::continue_trace(&span, request.headers());
    let mut response = next.run(request).instrument(span.clone()).await;
    let id = record.finish(&response, &span);
    let id = HeaderValue::try_from(id).expect("hexadecimal digits");
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

impl RequestRecord {
    fn new(request: &Request, metrics: RequestMetrics) -> Self {
        Self {
            id: Uuid::new_v4().to_string(),
            route: request.extensions().get().cloned(),
            method: method(request.method()),
            trace_id: otlp::trace_id(request.headers()).map(str::to_owned),
            caller: RequestLog::default(),
            started_at: Instant::now(),
            metrics,
            is_answered: false,
        }
    }

    fn route(&self) -> &str {
        self.route.as_ref().map_or("none", MatchedPath::as_str)
    }

    /// Records the response. Returns the request id.
    fn finish(mut self, response: &Response, span: &Span) -> String {
        self.is_answered = true;
        self.trace_id = otlp::exported_trace_id(span).or(self.trace_id.take());
        let error = response.extensions().get::<ErrorContext>();
        let status = response.status();
        span.record("http.response.status_code", status.as_u16());
        if let Some(error) = error {
            span.record("reason", error.reason);
        }
        if status.is_server_error() {
            span.record("otel.status_code", "ERROR");
        }
        self.record(status.as_u16(), error);
        mem::take(&mut self.id)
    }

    fn record(&self, status: u16, error: Option<&ErrorContext>) {
        let duration = self.started_at.elapsed();
        let labels = RequestLabels {
            route: self.route().to_owned(),
            method: self.method,
            status,
        };
        let seconds = self.metrics.seconds.get_or_create(&labels);
        seconds.observe(duration.as_secs_f64());
        if let Some(error) = error {
            let reason = error.reason;
            let labels = RefusalLabels { reason };
            self.metrics.refusals.get_or_create(&labels).inc();
        }
        self.log(status, error, duration);
    }

    /// Writes the request's log line, without a parent span, which would repeat the line's fields.
    fn log(&self, status: u16, error: Option<&ErrorContext>, duration: Duration) {
        let owner = self.caller.owner();
        // A verified caller's tenant is logged as `tenant`.
        let unverified_tenant = self.caller.unverified_tenant();
        let unverified_tenant = unverified_tenant.filter(|_| owner.is_none());
        macro_rules! log_request {
            ($target:literal, $level:expr, $message:expr) => {
                tracing::event!(
                    target: $target,
                    parent: None,
                    $level,
                    message = $message,
                    request_id = %self.id,
                    trace_id = self.trace_id,
                    method = self.method,
                    route = self.route(),
                    status,
                    duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
                    tenant = owner.map(|owner| field::display(owner.tenant)),
                    user = owner.map(|owner| field::display(owner.user)),
                    unverified_tenant = unverified_tenant.map(field::display),
                    reason = error.map(|error| error.reason),
                    error = error.and_then(|error| error.cause.as_deref()),
                )
            };
        }
        match error.and_then(|error| error.audit) {
            Some(decision) => {
                log_request!("tenant_tasks::audit", tracing::Level::INFO, decision);
            }
            None if status >= StatusCode::INTERNAL_SERVER_ERROR.as_u16() => {
                log_request!("tenant_tasks::request", tracing::Level::WARN, "request");
            }
            None if PROBES.contains(&self.route()) => {
                log_request!("tenant_tasks::request", tracing::Level::DEBUG, "request");
            }
            None => log_request!("tenant_tasks::request", tracing::Level::INFO, "request"),
        }
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        if !self.is_answered {
            let is_panic = thread::panicking();
            let status = if is_panic {
                PANICKED
            } else {
                CLIENT_CLOSED_REQUEST
            };
            self.record(status, None);
        }
    }
}

/// The method as a label. Unknown methods share one label.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::HEAD => "HEAD",
        _ => "other",
    }
}
