//! Integration tests of the service over HTTP, with tasks in PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

#[expect(
    dead_code,
    reason = "only the key simulation uses the fixtures for a fetch that waits"
)]
#[path = "../support/mod.rs"]
mod support;

mod database_faults;
mod database_tls;
mod histories;
mod registry;
mod replicas;
mod row_security;
mod suite;

/// Whether the service under test keeps its tasks in PostgreSQL.
const ON_POSTGRES: bool = true;
