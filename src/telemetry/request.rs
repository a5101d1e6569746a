//! What is kept of each request: an id, one line in the log, and its part of the metrics.
//!
//! The line names the route, not the path or the query: those are the caller's to fill, with a token if they
//! are careless. Every value of a metric's label comes from a closed set, so that whatever strangers send, the
//! number of time series stays what it is.

use std::{thread, time::Duration};

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

use super::trace_context;
use crate::{auth::Caller, error::Refused};

/// This request in the log; an answer's header.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// For a request that ended without an answer, because its client or the whole connection went away: nginx's number
/// for it, which nobody is ever sent.
const CLIENT_GONE: u16 = 499;

/// For one whose handler panicked: the client sees the connection close.
const PANICKED: u16 = 500;

/// Upper bounds of the buckets of a request's time, in seconds.
const BUCKETS: [f64; 13] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

/// The requests answered so far; cloning gives another handle to the same numbers.
#[derive(Clone, Debug)]
pub struct RequestMetrics {
    /// The time from the head of a request to the head of its answer, in seconds.
    pub(crate) seconds: Family<RequestLabels, Histogram>,
    pub(crate) refusals: Family<RefusalLabels, Counter>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(crate) struct RequestLabels {
    route: &'static str,
    method: &'static str,
    status: u16,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(crate) struct RefusalLabels {
    reason: &'static str,
}

impl Default for RequestMetrics {
    fn default() -> Self {
        Self {
            seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            refusals: Family::default(),
        }
    }
}

impl RequestMetrics {
    fn record(&self, labels: &RequestLabels, reason: Option<&'static str>, duration: Duration) {
        self.seconds
            .get_or_create(labels)
            .observe(duration.as_secs_f64());
        if let Some(reason) = reason {
            self.refusals.get_or_create(&RefusalLabels { reason }).inc();
        }
    }
}

/// The outermost layer: whatever becomes of a request whose head could be read, it is seen here.
pub(crate) async fn observe(
    State(metrics): State<Option<RequestMetrics>>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = Uuid::new_v4();
    let seen = Seen::new(&request, metrics, id);
    request.extensions_mut().insert(seen.caller.clone());
    // Cost nothing unless somebody exports them, or asks for debug lines.
    let span = tracing::debug_span!(
        "request",
        request_id = %id,
        otel.name = format_args!("{} {}", seen.method, seen.route),
        otel.kind = "server",
        otel.status_code = field::Empty,
        http.request.method = seen.method,
        http.route = seen.route,
        http.response.status_code = field::Empty,
        reason = field::Empty,
    );
    #[cfg(feature = "otlp")]
    super::otlp::continue_trace(&span, request.headers());
    let mut response = next.run(request).instrument(span.clone()).await;
    seen.answered(&response, &span);
    let mut buffer = Uuid::encode_buffer();
    let id = HeaderValue::from_str(text(id, &mut buffer)).expect("hexadecimal digits");
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// A request that has no answer yet. Dropped like that, it will get none.
struct Seen {
    id: Uuid,
    route: &'static str,
    method: &'static str,
    trace_id: Option<String>,
    caller: Caller,
    started: Instant,
    metrics: Option<RequestMetrics>,
    is_answered: bool,
}

impl Seen {
    fn new(request: &Request, metrics: Option<RequestMetrics>, id: Uuid) -> Self {
        Self {
            id,
            route: route(request.extensions().get::<MatchedPath>()),
            method: method(request.method()),
            trace_id: trace_context::trace_id(request.headers()).map(str::to_owned),
            caller: Caller::default(),
            started: Instant::now(),
            metrics,
            is_answered: false,
        }
    }

    fn answered(mut self, response: &Response, span: &Span) {
        self.is_answered = true;
        #[cfg(feature = "otlp")]
        if let Some(trace_id) = super::otlp::trace_id(span) {
            self.trace_id = Some(trace_id);
        }
        let refused = response.extensions().get::<Refused>();
        let status = response.status();
        span.record("http.response.status_code", status.as_u16());
        if let Some(refused) = refused {
            span.record("reason", refused.reason);
        }
        if status.is_server_error() {
            span.record("otel.status_code", "ERROR");
        }
        self.record(status.as_u16(), refused);
    }

    fn record(&self, status: u16, refused: Option<&Refused>) {
        let duration = self.started.elapsed();
        if let Some(metrics) = &self.metrics {
            let labels = RequestLabels {
                route: self.route,
                method: self.method,
                status,
            };
            metrics.record(&labels, refused.map(|refused| refused.reason), duration);
        }
        self.log(status, refused, duration);
    }

    /// Its one line. It has no span around it: whatever is known of the request is in the line.
    fn log(&self, status: u16, refused: Option<&Refused>, duration: Duration) {
        let proven = self.caller.proven();
        // Of a caller who is proven, it is the same.
        let unverified_tenant = self.caller.unverified_tenant().filter(|_| proven.is_none());
        // As texts: to format them through `Display` takes longer than all the rest of the line.
        let (mut id, mut tenant, mut user) = (
            Uuid::encode_buffer(),
            Uuid::encode_buffer(),
            Uuid::encode_buffer(),
        );
        let mut claimed = Uuid::encode_buffer();
        let id = text(self.id, &mut id);
        let tenant = proven.map(|owner| text(owner.tenant, &mut tenant));
        let user = proven.map(|owner| text(owner.user, &mut user));
        let unverified_tenant = unverified_tenant.map(|claims| text(claims, &mut claimed));
        macro_rules! line {
            ($target:literal, $level:expr, $message:expr) => {
                tracing::event!(
                    target: $target,
                    parent: None,
                    $level,
                    message = $message,
                    request_id = id,
                    trace_id = self.trace_id,
                    method = self.method,
                    route = self.route,
                    status,
                    duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
                    tenant,
                    user,
                    unverified_tenant,
                    reason = refused.map(|refused| refused.reason),
                    error = refused.and_then(|refused| refused.cause.as_deref()),
                )
            };
        }
        match refused {
            Some(Refused {
                audit: Some(decision),
                ..
            }) => {
                line!("tenant_tasks::audit", tracing::Level::INFO, decision);
            }
            _ if status >= StatusCode::INTERNAL_SERVER_ERROR.as_u16() => {
                line!("tenant_tasks::request", tracing::Level::WARN, "request");
            }
            _ => line!("tenant_tasks::request", tracing::Level::INFO, "request"),
        }
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        if !self.is_answered {
            let status = if thread::panicking() {
                PANICKED
            } else {
                CLIENT_GONE
            };
            self.record(status, None);
        }
    }
}

fn text(id: impl Into<Uuid>, buffer: &mut [u8]) -> &str {
    id.into().hyphenated().encode_lower(buffer)
}

/// The routes, as the router spells them.
const ROUTES: [&str; 6] = [
    "/api/tasks",
    "/api/tasks/{id}",
    "/api/me",
    "/health",
    "/ready",
    "/openapi.json",
];

fn route(matched: Option<&MatchedPath>) -> &'static str {
    match matched.map(MatchedPath::as_str) {
        None => "none",
        // The page and what it is made of.
        Some(path) => ROUTES
            .into_iter()
            .find(|route| *route == path)
            .unwrap_or("/docs"),
    }
}

fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::HEAD => "HEAD",
        _ => "other",
    }
}
