//! Input that is rejected before it becomes a request: counted, and logged at most once a second.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use strum::IntoStaticStr;
use tokio::time::Instant;

/// The minimum time between two log lines.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Counts the rejected input.
#[derive(Default)]
pub struct RejectedInput {
    /// The counts since the start.
    pub counts: Family<RejectedLabels, Counter>,
    last_logged: Mutex<Option<Instant>>,
}

/// The label of the counter: what the input looks like.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct RejectedLabels {
    input: &'static str,
}

/// What the rejected input looks like.
#[derive(Clone, Copy, Debug, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
enum Input {
    /// A head with too many bytes or lines: the response is 431.
    HeadTooLarge,
    /// A TLS handshake. This port serves plain HTTP.
    Tls,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// The PROXY protocol of a load balancer.
    ProxyProtocol,
    /// Anything else.
    Malformed,
}

impl RejectedInput {
    /// Records the error of a connection. `unread` starts with the input that was not parsed.
    /// Returns whether input was rejected.
    pub(super) fn record(&self, error: &hyper::Error, unread: &[u8]) -> bool {
        let input = if error.is_parse_too_large() {
            Input::HeadTooLarge
        } else if error.is_parse() {
            classify(unread)
        } else {
            return false;
        };
        let input = input.into();
        self.counts.get_or_create(&RejectedLabels { input }).inc();
        let now = Instant::now();
        let last_logged = self.last_logged.lock();
        let mut last_logged = last_logged.unwrap_or_else(PoisonError::into_inner);
        if last_logged.is_none_or(|last| now.duration_since(last) >= LOG_INTERVAL) {
            *last_logged = Some(now);
            tracing::info!(input, %error, "rejected input that is not a request");
        }
        true
    }
}

fn classify(input: &[u8]) -> Input {
    // The record type of a handshake, and the major version.
    const TLS: &[u8] = &[0x16, 3];
    // The signature of version 2, without the line breaks before it, which the parser skips.
    const PROXY_V2: &[u8] = b"\0\r\nQUIT\n";
    if input.starts_with(TLS) {
        Input::Tls
    } else if input.starts_with(b"PRI * HTTP/2") {
        Input::Http2
    } else if input.starts_with(b"PROXY ") || input.starts_with(PROXY_V2) {
        Input::ProxyProtocol
    } else {
        Input::Malformed
    }
}
