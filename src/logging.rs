//! Log lines to standard error, for people or for machines.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, registry, util::SubscriberInitExt};

use crate::config::LogFormat;

/// Starts logging.
///
/// # Panics
///
/// When logging was started before.
pub fn start(filter: EnvFilter, format: LogFormat) {
    // Its debug lines hold what people wrote into their tasks.
    let filter = filter.add_directive("tokio_postgres=info".parse().expect("a directive"));
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).with_target(false);
    match format {
        LogFormat::Text => registry().with(filter).with(lines).init(),
        LogFormat::Json => registry().with(filter).with(lines.json()).init(),
    }
}
