//! Counts rejected input and connections that a limit closed. Logs each of the two at most once a
//! second.

use std::{
    error::Error,
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::metrics::{counter::Counter, family::Family};
use strum::{IntoStaticStr, VariantNames};
use tokio::time::Instant;

/// The minimum time between two log lines.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// The counts of events since the start. The label has a name and the kind of the event.
pub(super) type Counts = Family<[(&'static str, &'static str); 1], Counter>;

struct Events {
    label: &'static str,
    counts: Counts,
    last_logged: Mutex<Option<Instant>>,
}

impl Events {
    /// Creates the counter of each kind, so that each time series starts at zero.
    fn new(label: &'static str, kinds: &[&'static str]) -> Self {
        let counts = Counts::default();
        for kind in kinds {
            drop(counts.get_or_create(&[(label, kind)]));
        }
        Self {
            label,
            counts,
            last_logged: Mutex::default(),
        }
    }

    /// Counts an event. Returns whether it may be logged.
    fn count(&self, kind: &'static str) -> bool {
        self.counts.get_or_create(&[(self.label, kind)]).inc();
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
pub struct RejectedInput(Events);

/// Counts the connections that a limit closed.
pub struct ClosedConnections(Events);

/// The limit that closed a connection.
#[derive(Clone, Copy, Debug, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub(super) enum CloseReason {
    /// The head of the first request was late.
    LateHead,
    /// The client read too little of a response.
    SlowReader,
    /// A new connection needed its place: `MAX_CONNECTIONS`, or the limit on open files.
    ConnectionLimit,
}

/// What the rejected input looks like.
#[derive(Clone, Copy, Debug, IntoStaticStr, VariantNames)]
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

impl Default for RejectedInput {
    fn default() -> Self {
        Self(Events::new("input", Input::VARIANTS))
    }
}

impl Default for ClosedConnections {
    fn default() -> Self {
        Self(Events::new("reason", CloseReason::VARIANTS))
    }
}

impl RejectedInput {
    /// The number of rejections by `input`.
    pub fn counts(&self) -> Counts {
        self.0.counts.clone()
    }

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
        if self.0.count(input) {
            tracing::info!(input, %error, "rejected input that is not a request");
        }
        true
    }
}

impl ClosedConnections {
    /// The number of connections by `reason`.
    pub fn counts(&self) -> Counts {
        self.0.counts.clone()
    }

    pub(super) fn record(&self, reason: CloseReason) {
        let reason = reason.into();
        if self.0.count(reason) {
            tracing::info!(reason, "closed a connection");
        }
    }

    /// Records the error of a connection, if the client read too little.
    pub(super) fn record_error(&self, error: &hyper::Error) {
        let mut source = error.source();
        while let Some(body_error) = source.and_then(|error| error.downcast_ref::<axum::Error>()) {
            source = body_error.source();
        }
        let source = source.and_then(|error| error.downcast_ref());
        if source.is_some_and(is_time_limit) {
            self.record(CloseReason::SlowReader);
        }
    }
}

/// Whether a time limit of the service has passed. A timeout of the operating system has an error
/// number.
fn is_time_limit(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::TimedOut && error.raw_os_error().is_none()
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
