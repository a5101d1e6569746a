//! What an operator sees of the service: the request log, metrics and traces.

pub mod log;
pub mod metrics;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod request;
pub mod store;
pub mod trace_context;
