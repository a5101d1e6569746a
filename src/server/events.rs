//! Events of connections that belong to no request: counted, and logged at most once a second.

use std::{
    error::Error,
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::metrics::{counter::Counter, family::Family};
use strum::IntoStaticStr;
use tokio::time::Instant;

/// The minimum time between two log lines.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Counts events by their kind.
#[derive(Default)]
pub struct Events {
    /// The counts since the start. The label has a name and the kind of event.
    pub counts: Family<[(&'static str, &'static str); 1], Counter>,
    last_logged: Mutex<Option<Instant>>,
}

impl Events {
    /// Counts an event. Returns whether it may be logged.
    fn count(&self, label: &'static str, kind: &'static str) -> bool {
        self.counts.get_or_create(&[(label, kind)]).inc();
        let now = Instant::now();
        let last_logged = self.last_logged.lock();
        let mut last_logged = last_logged.unwrap_or_else(PoisonError::into_inner);
        let may_log = last_logged.is_none_or(|last| now.duration_since(last) >= LOG_INTERVAL);
        if may_log {
            *last_logged = Some(now);
        }
        may_log
    }
}

/// Counts the rejected input.
#[derive(Default)]
pub struct RejectedInput(pub Events);

/// Counts the connections that a limit closed.
#[derive(Default)]
pub struct ClosedConnections(pub Events);

/// The limit that closed a connection.
#[derive(Clone, Copy, Debug, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(super) enum Closed {
    /// The head of the first request was late.
    LateHead,
    /// The client read too little of a response.
    SlowReader,
    /// The limit on connections: a new one needed its place.
    ConnectionLimit,
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
        if self.0.count("input", input) {
            tracing::info!(input, %error, "rejected input that is not a request");
        }
        true
    }
}

impl ClosedConnections {
    pub(super) fn record(&self, reason: Closed) {
        let reason = reason.into();
        if self.0.count("reason", reason) {
            tracing::info!(reason, "closed a connection");
        }
    }

    /// Records the error of a connection, if the client read too little.
    pub(super) fn record_error(&self, error: &hyper::Error) {
        let source = error.source().and_then(|source| source.downcast_ref());
        if source.is_some_and(|error: &io::Error| error.kind() == io::ErrorKind::TimedOut) {
            self.record(Closed::SlowReader);
        }
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
