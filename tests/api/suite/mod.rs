//! The tests that run with every store.

pub(crate) mod authentication;
mod check;
pub(crate) mod commands;
mod connections;
mod cors;
mod docs;
mod http;
mod idempotency;
mod inspect;
mod isolation;
mod key_life;
mod keys;
mod limits;
mod logs;
mod memory;
pub(crate) mod metrics;
mod open_mode;
mod operations;
mod recorded_keys;
mod reload;
mod roles;
pub(crate) mod service;
mod settings;
mod tasks;
mod verified;
