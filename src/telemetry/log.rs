//! Log lines to standard error, for people or for machines.
//!
//! They are written by a thread of their own, some milliseconds after: a request does not wait for its line, and
//! under load one write takes many. Should nobody read them for so long that the memory for them is used up, lines
//! are dropped and counted, and requests go on.

mod json;
mod lines;

use std::io::{self, IsTerminal};

use tracing_subscriber::{
    EnvFilter, Layer,
    fmt::{self, format::JsonFields},
    layer::SubscriberExt,
    registry,
    util::SubscriberInitExt,
};

use self::{
    json::JsonLines,
    lines::{Lines, Writer},
};
use crate::config::LogFormat;

/// The log; dropping it writes what has not been written yet.
#[derive(Debug)]
pub struct Log {
    lines: Lines,
    _writer: Writer,
}

impl Log {
    /// Starts logging.
    ///
    /// # Panics
    ///
    /// When logging was started before.
    #[must_use]
    pub fn start(
        filter: EnvFilter,
        format: LogFormat,
        #[cfg(feature = "otlp")] exporter: Option<&super::otlp::Exporter>,
    ) -> Self {
        // Its debug lines hold what people wrote into their tasks.
        let filter = filter.add_directive("tokio_postgres=info".parse().expect("a directive"));
        let (lines, writer) = Lines::start(io::stderr());
        let layer = fmt::layer()
            .with_writer(lines.clone())
            .with_ansi(io::stderr().is_terminal());
        let layer = match format {
            LogFormat::Text => layer.boxed(),
            LogFormat::Json => layer
                .fmt_fields(JsonFields::new())
                .event_format(JsonLines)
                .boxed(),
        };
        // A filter of the layer's own costs something for each line; only beside a second layer is it needed.
        #[cfg(not(feature = "otlp"))]
        registry().with(filter).with(layer).init();
        #[cfg(feature = "otlp")]
        registry()
            .with(layer.with_filter(filter))
            .with(exporter.map(super::otlp::Exporter::layer))
            .init();
        Self {
            lines,
            _writer: writer,
        }
    }

    /// How many lines were dropped because nobody read them.
    pub fn dropped(&self) -> impl Fn() -> u64 + Send + Sync + use<> {
        let lines = self.lines.clone();
        move || lines.dropped()
    }
}
