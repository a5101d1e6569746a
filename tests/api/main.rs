//! Integration tests of the service over HTTP, with tasks in memory.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

#[expect(
    dead_code,
    reason = "only the suite with PostgreSQL uses the database fixtures"
)]
#[path = "../support/mod.rs"]
mod support;

mod key_simulation;
mod log_guide;
mod security_guide;
mod suite;

/// Whether the service under test keeps its tasks in PostgreSQL.
const ON_POSTGRES: bool = false;
