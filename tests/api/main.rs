//! The service held to its contract, over HTTP.

#![expect(clippy::unwrap_used, reason = "what a test unwraps, it expects")]

#[path = "../support/mod.rs"]
mod support;

mod authentication;
mod cors;
mod isolation;
mod keys;
mod operations;
mod roles;
mod settings;
mod tasks;
