//! Log lines on standard error, as text or as JSON.
//!
//! A separate thread writes them, so that requests never wait for the output. If nobody reads
//! standard error and the buffer is full, lines are dropped and counted.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::{self, IsTerminal},
    panic,
};

use tracing::{Subscriber, field::display, subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Layer,
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
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
    /// Starts logging. Panics are logged too.
    ///
    /// # Panics
    ///
    /// If logging is already started.
    pub fn start(filter: EnvFilter, format: LogFormat, exporter: Option<&Exporter>) -> Self {
        // At debug, tokio-postgres logs the content of tasks.
        let filter = filter.add_directive("tokio_postgres=info".parse().expect("a directive"));
        // No RUST_LOG hides a panic.
        let panics = concat!(module_path!(), "=error");
        let filter = filter.add_directive(panics.parse().expect("a directive"));
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
        log_panics();
        Self {
            dropped,
            _worker: worker,
        }
    }
}

/// Prints why the service did not start, as a line of the JSON log.
pub fn print_start_failure(error: &anyhow::Error) {
    let output = output(LogFormat::Json, io::stderr);
    subscriber::with_default(tracing_subscriber::registry().with(output), || {
        tracing::error!(error = format!("{error:#}"), "the service did not start");
    });
}

/// Logs each panic as one line. With `RUST_BACKTRACE=1`, the line contains the stack.
fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        let panicked = panic.payload_as_str().unwrap_or("unknown");
        let location = panic.location().map(display);
        let backtrace = Backtrace::capture();
        let is_captured = backtrace.status() == BacktraceStatus::Captured;
        let backtrace = is_captured.then(|| backtrace.to_string());
        tracing::error!(panicked, location, backtrace, "panic");
    }));
}

fn output<S, W>(format: LogFormat, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = fmt::layer().with_writer(writer);
    match format {
        LogFormat::Text => layer.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    }
}
