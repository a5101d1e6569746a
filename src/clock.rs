//! What time it is, as a parameter.
//!
//! Everything that depends on time asks a [`Clock`], so that a test can step through
//! days without waiting for them.

use std::time::{Duration, Instant, SystemTime};

/// A source of the present time.
pub trait Clock: Send + Sync {
    /// The time since the Unix epoch, the zero of a token's `exp`, `nbf` and `iat`
    /// (RFC 7519, section 2, `NumericDate`).
    fn since_epoch(&self) -> Duration;

    /// The time since some moment in the past. Unlike [`Clock::since_epoch`] it never goes
    /// back and never jumps when somebody sets the clock: for how old a thing is.
    fn monotonic(&self) -> Duration;
}

/// The clock of the operating system.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the clock behind `Clock`")]
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the clock behind `Clock`")]
    fn since_epoch(&self) -> Duration {
        // A clock set before 1970 counts as 1970: then no token is valid yet.
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
}
