//! What an operator sees of the service: the request log, metrics and traces.
//!
//! `request` is the outermost layer: it writes one log line per request and counts it. `log` sets up
//! the output of log lines, `metrics` the page for Prometheus, `store` times the task store, and
//! `otlp` exports traces.

pub mod log;
pub mod metrics;
pub mod otlp;
pub mod request;
pub mod store;
