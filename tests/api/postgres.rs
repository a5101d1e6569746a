//! Integration tests of the service over HTTP, with tasks in PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

#[path = "../support/mod.rs"]
mod support;

mod authentication;
mod commands;
mod cors;
mod database_faults;
mod database_tls;
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
mod replicas;
mod roles;
mod row_security;
mod service;
mod settings;
mod tasks;
mod verified;
