//! Log lines on standard error, as text or as JSON.
//!
//! A separate thread writes them, so that requests never wait for the output. If nobody reads
//! standard error and the buffer is full, lines are dropped and counted.

use std::io::{self, IsTerminal};

use tracing::Subscriber;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Layer, fmt, layer::SubscriberExt, registry::LookupSpan, util::SubscriberInitExt,
};

use super::otlp::Exporter;

/// The maximum number of buffered log lines: about 8 MB of request lines.
const MAX_BUFFERED_LINES: usize = 16 * 1024;

/// The format of log lines.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    /// For a terminal.
    Text,
    /// For a log collector: one JSON object per line.
    Json,
}

/// The log output. Dropping it writes the buffered lines and waits for at most about a second.
#[derive(Debug)]
pub struct Log {
    /// Counts the lines that were dropped.
    pub dropped: ErrorCounter,
    _worker: WorkerGuard,
}

impl Log {
    /// Starts logging.
    ///
    /// # Panics
    ///
    /// If logging is already started.
    pub fn start(filter: EnvFilter, format: LogFormat, exporter: Option<&Exporter>) -> Self {
        // At debug, tokio-postgres logs the content of tasks.
        let filter = filter.add_directive("tokio_postgres=info".parse().expect("a directive"));
        let (writer, worker) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(MAX_BUFFERED_LINES)
            .thread_name("log")
            .finish(io::stderr());
        let dropped = writer.error_counter();
        match exporter {
            // A filter for the whole subscriber is cheaper than a filter for one layer.
            None => tracing_subscriber::registry()
                .with(filter)
                .with(output(format, writer))
                .init(),
            Some(exporter) => tracing_subscriber::registry()
                .with(output(format, writer).with_filter(filter))
                .with(exporter.layer())
                .init(),
        }
        Self {
            dropped,
            _worker: worker,
        }
    }
}

fn output<S>(format: LogFormat, writer: NonBlocking) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let layer = fmt::layer().with_writer(writer);
    match format {
        LogFormat::Text => layer.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    }
}
