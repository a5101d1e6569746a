//! Integration tests of the service over HTTP, with tasks in memory.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

#[expect(
    dead_code,
    reason = "only the suite with PostgreSQL uses the database fixtures"
)]
#[path = "../support/mod.rs"]
mod support;

mod authentication;
mod commands;
mod cors;
mod docs;
mod inspect;
mod isolation;
mod key_life;
mod keys;
mod limits;
mod logs;
mod metrics;
mod open_mode;
mod operations;
mod recorded_keys;
mod reload;
mod roles;
mod service;
mod settings;
mod tasks;
mod verified;
