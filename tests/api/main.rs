//! The service held to its contract, over HTTP.

#![expect(clippy::unwrap_used, reason = "what a test unwraps, it expects")]

#[expect(
    dead_code,
    reason = "what fails as databases do is for the suite with one"
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
