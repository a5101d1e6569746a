//! Traces in OpenTelemetry's protocol over HTTP (OTLP). The exporter needs the feature `otlp`.
//!
//! Each request is a span, in the trace that its `traceparent` names or in a new one. Each store
//! operation is a child span of it. The exporter also reads the standard variables for headers,
//! certificates and limits: <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>.

use axum::http::{HeaderMap, HeaderName};

#[cfg(not(feature = "otlp"))]
pub use self::disabled::Exporter;
#[cfg(not(feature = "otlp"))]
pub(super) use self::disabled::{continue_trace, exported_trace_id};
#[cfg(feature = "otlp")]
pub use self::enabled::Exporter;
#[cfg(feature = "otlp")]
pub(super) use self::enabled::{continue_trace, exported_trace_id};

/// Whether this binary can export traces.
pub const IS_ENABLED: bool = cfg!(feature = "otlp");

/// <https://www.w3.org/TR/trace-context/#traceparent-header>
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The trace id of the request's only `traceparent`: 32 lower-case hexadecimal digits, not all zero.
pub fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let value = values.next()?.to_str().ok()?;
    let trace_id = value.split('-').nth(1)?;
    let is_hex = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_valid = trace_id.len() == 32
        && trace_id.bytes().all(is_hex)
        && trace_id.bytes().any(|byte| byte != b'0');
    (is_valid && values.next().is_none()).then_some(trace_id)
}

#[cfg(feature = "otlp")]
mod enabled {
    use anyhow::Context as _;
    use axum::http::{HeaderMap, HeaderName};
    use opentelemetry::{
        propagation::TextMapPropagator,
        trace::{TraceContextExt, TracerProvider},
    };
    use opentelemetry_http::HeaderExtractor;
    use opentelemetry_otlp::{SpanExporter, WithExportConfig};
    use opentelemetry_sdk::{
        Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider,
    };
    use tracing::{Level, Span, Subscriber};
    use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt};
    use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};
    use url::Url;

    use super::{TRACEPARENT, trace_id};

    /// <https://www.w3.org/TR/trace-context/#tracestate-header>
    const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

    /// The longest `tracestate` to pass on, in bytes.
    /// <https://www.w3.org/TR/trace-context/#tracestate-limits>
    const MAX_TRACESTATE: usize = 512;

    /// Sends finished spans to a collector, in batches, from its own thread.
    #[derive(Debug)]
    pub struct Exporter(SdkTracerProvider);

    impl Exporter {
        /// An exporter to the collector with this base URL.
        pub fn new(endpoint: &Url) -> anyhow::Result<Self> {
            let endpoint = format!("{}/v1/traces", endpoint.as_str().trim_end_matches('/'));
            let exporter = SpanExporter::builder()
                .with_http()
                .with_endpoint(endpoint)
                .build()
                .context("cannot set up the export of traces")?;
            let service = Resource::builder()
                .with_service_name(env!("CARGO_PKG_NAME"))
                .build();
            let provider = SdkTracerProvider::builder()
                .with_batch_exporter(exporter)
                .with_resource(service)
                .build();
            Ok(Self(provider))
        }

        /// A layer that exports this crate's spans, independent of the log's filter.
        pub(in crate::telemetry) fn layer<S>(&self) -> impl Layer<S> + use<S>
        where
            S: Subscriber + for<'a> LookupSpan<'a>,
        {
            let is_exported = filter_fn(|metadata| {
                metadata.is_span()
                    && metadata.target().starts_with("tenant_tasks")
                    && *metadata.level() <= Level::DEBUG
            });
            let tracer = self.0.tracer(env!("CARGO_PKG_NAME"));
            OpenTelemetryLayer::new(tracer)
                .with_location(false)
                .with_threads(false)
                .with_filter(is_exported)
        }

        /// Sends the remaining spans.
        pub fn finish(self) {
            if let Err(error) = self.0.shutdown() {
                tracing::warn!(%error, "failed to export some traces");
            }
        }
    }

    /// Puts the span into the trace that a well-formed `traceparent` names.
    pub(in crate::telemetry) fn continue_trace(span: &Span, headers: &HeaderMap) {
        if trace_id(headers).is_none() {
            return;
        }
        let state = headers.get(TRACESTATE);
        let state = state.filter(|state| state.len() <= MAX_TRACESTATE);
        let parent = headers.get(TRACEPARENT);
        let headers = [(TRACEPARENT, parent), (TRACESTATE, state)];
        let headers = headers
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?.clone())))
            .collect();
        let context = TraceContextPropagator::new().extract(&HeaderExtractor(&headers));
        // Fails without an exporter. There is no trace to continue then.
        let _ = span.set_parent(context);
    }

    /// The trace id of the span, if it is exported.
    pub(in crate::telemetry) fn exported_trace_id(span: &Span) -> Option<String> {
        let context = span.context();
        let span = context.span();
        let context = span.span_context();
        context.is_valid().then(|| context.trace_id().to_string())
    }
}

#[cfg(not(feature = "otlp"))]
mod disabled {
    use axum::http::HeaderMap;
    use tracing::{Span, Subscriber};
    use tracing_subscriber::{Layer, layer::Identity};
    use url::Url;

    /// A type without values: this binary cannot export traces.
    #[derive(Debug)]
    pub enum Exporter {}

    impl Exporter {
        /// Fails: this binary was built without the feature `otlp`.
        pub fn new(_: &Url) -> anyhow::Result<Self> {
            anyhow::bail!("this binary was built without --features otlp")
        }

        #[expect(unreachable_code, reason = "names the type of the layer")]
        pub(in crate::telemetry) fn layer<S: Subscriber>(&self) -> impl Layer<S> + use<S> {
            match *self {}
            Identity::new()
        }

        /// Cannot be called.
        pub fn finish(self) {
            match self {}
        }
    }

    pub(in crate::telemetry) fn continue_trace(_: &Span, _: &HeaderMap) {}

    pub(in crate::telemetry) fn exported_trace_id(_: &Span) -> Option<String> {
        None
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(values: &[&'static str]) -> HeaderMap {
        let values = values.iter().copied().map(HeaderValue::from_static);
        values.map(|value| (TRACEPARENT, value)).collect()
    }

    #[test]
    fn only_a_single_valid_trace_id_is_read() {
        let expected = Some("0af7651916cd43dd8448eb211c80319c");
        assert_eq!(trace_id(&headers(&[VALID])), expected);
        for invalid in [
            "",
            "00",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c\"-b7ad6b7169203331-1",
        ] {
            assert_eq!(trace_id(&headers(&[invalid])), None, "{invalid}");
        }
        assert_eq!(trace_id(&headers(&[VALID, VALID])), None, "two headers");
        assert_eq!(trace_id(&headers(&[])), None);
    }
}
