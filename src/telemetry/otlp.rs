//! Traces for a collector, by the OpenTelemetry protocol over HTTP; compiled in with the feature `otlp`.
//!
//! Each request is a span, within the trace its `traceparent` names or in one of its own; what it asks of the store
//! is a span within that. What else the exporter reads from the environment is the specification's: headers for the
//! collector, its certificate, limits (<https://opentelemetry.io/docs/specs/otel/protocol/exporter/>).

use axum::http::HeaderMap;
use opentelemetry::{
    propagation::TextMapPropagator,
    trace::{TraceContextExt, TracerProvider},
};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tracing::{Level, Span, Subscriber};
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt};
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};
use url::Url;

use super::trace_context::{self, TRACEPARENT, TRACESTATE};

/// Sends finished spans to a collector, in batches, from a thread of its own.
#[derive(Debug)]
pub struct Exporter(SdkTracerProvider);

impl Exporter {
    /// An exporter to the collector with this base URL.
    ///
    /// # Errors
    ///
    /// When the system offers no TLS.
    pub fn new(endpoint: &Url) -> Result<Self, ExporterBuildError> {
        let endpoint = format!("{}/v1/traces", endpoint.as_str().trim_end_matches('/'));
        let exporter = SpanExporter::builder()
            .with_http()
            .with_endpoint(endpoint)
            .build()?;
        let service = Resource::builder()
            .with_service_name(env!("CARGO_PKG_NAME"))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(service)
            .build();
        Ok(Self(provider))
    }

    /// What takes part in the subscriber: this crate's spans, whatever the log's filter says.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let is_ours = filter_fn(|metadata| {
            metadata.is_span()
                && metadata.target().starts_with("tenant_tasks")
                && *metadata.level() <= Level::DEBUG
        });
        let tracer = self.0.tracer(env!("CARGO_PKG_NAME"));
        OpenTelemetryLayer::new(tracer)
            .with_location(false)
            .with_threads(false)
            .with_filter(is_ours)
    }

    /// Sends what has not been sent yet.
    pub fn finish(self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "some traces were not sent");
        }
    }
}

/// The longest `tracestate` that is passed on, in bytes: what the specification asks everybody to pass on.
/// <https://www.w3.org/TR/trace-context/#tracestate-limits>
const MAX_TRACESTATE: usize = 512;

/// Makes the span part of the trace that the request says it belongs to, if what it says is well-formed.
pub(crate) fn continue_trace(span: &Span, headers: &HeaderMap) {
    if trace_context::trace_id(headers).is_none() {
        return;
    }
    let state = headers
        .get(TRACESTATE)
        .filter(|state| state.len() <= MAX_TRACESTATE);
    let known = [(TRACEPARENT, headers.get(TRACEPARENT)), (TRACESTATE, state)];
    let headers = known
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?.clone())))
        .collect();
    let context = TraceContextPropagator::new().extract(&HeaderExtractor(&headers));
    // Without a layer that makes traces there is nothing to be part of.
    let _ = span.set_parent(context);
}

/// The trace that the span is part of, if it is exported.
pub(crate) fn trace_id(span: &Span) -> Option<String> {
    let context = span.context();
    let span = context.span();
    let trace = span.span_context();
    trace.is_valid().then(|| trace.trace_id().to_string())
}
