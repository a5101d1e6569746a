//! Log lines to standard error, for people or for machines.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, registry, util::SubscriberInitExt};

use crate::config::LogFormat;

/// Starts logging; later calls change nothing.
pub fn start(filter: EnvFilter, format: LogFormat) {
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).with_target(false);
    // Fails only when logging was started before, as by a test.
    let _ = match format {
        LogFormat::Text => registry().with(filter).with(lines).try_init(),
        LogFormat::Json => registry().with(filter).with(lines.json()).try_init(),
    };
}
