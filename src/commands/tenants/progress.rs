//! How far a command is.

use indicatif::{ProgressBar, ProgressStyle};

/// A progress bar on standard error, if that is a terminal.
pub(super) fn progress(total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} {elapsed}");
    let bar = ProgressBar::new(total);
    style
        .map(|style| bar.clone().with_style(style))
        .unwrap_or(bar)
}
