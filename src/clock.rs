//! Time as a parameter.
//!
//! Token checks, key fetches and rate limits read the time from a [`Clock`], so that a test can
//! step through days without waiting.

use std::time::{Duration, Instant, SystemTime};

/// A source of the current time.
pub trait Clock: Send + Sync {
    /// The time since the Unix epoch, comparable to a token's `exp`, `nbf` and `iat`
    /// (`NumericDate`, RFC 7519, section 2).
    fn since_epoch(&self) -> Duration;

    /// The time since a fixed moment in the past. It never goes back, and setting the system clock
    /// does not change it. Use it to measure ages.
    fn monotonic(&self) -> Duration;
}

/// The clock of the operating system.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
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
        // A clock set before 1970 reads as 1970, so no token is valid yet.
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since_epoch.unwrap_or_default()
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
}
