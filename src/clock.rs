//! What time it is, as a parameter.
//!
//! Everything that depends on time asks a [`Clock`], so that a test can step through
//! days without waiting for them.

use std::time::{Duration, SystemTime};

/// A source of the present time.
pub trait Clock: Send + Sync {
    /// The time since the Unix epoch, the zero of a token's `exp`, `nbf` and `iat`
    /// (RFC 7519, section 2, `NumericDate`).
    fn since_epoch(&self) -> Duration;
}

/// The clock of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system's clock")]
    fn since_epoch(&self) -> Duration {
        // A clock set before 1970 counts as 1970: then no token is valid yet.
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }
}
