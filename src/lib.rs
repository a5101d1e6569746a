//! A multi-tenant task API secured by Microsoft Entra ID.
//!
//! How a request is handled: [`telemetry`] logs and counts it. [`routes`] names the handler. The
//! handler's signature names a privilege, for which [`auth`] verifies the bearer token.
//! [`tasks::request`] parses the request. [`tasks::store`] reads and writes one tenant's tasks.
//! [`error`] turns every failure into a response. [`commands`] contains the commands of the binary.
//!
//! Imports point down: commands, [`routes`] and [`config`], [`openapi`] and [`telemetry`],
//! [`registry`], [`tasks`], [`error`], [`auth`], [`ids`] and [`clock`]. Two imports point up:
//! [`error`] uses the error types of [`tasks`], and [`tasks::store`] uses [`telemetry::store`].
//! [`auth`] never imports tasks or responses, the store never imports tokens or HTTP, and [`server`]
//! imports none of these modules. Only [`config`] reads the environment, and only [`clock`] reads the
//! system time.
//!
//! [`docs`] contains the guides.

pub mod auth;
pub mod clock;
pub mod commands;
pub mod config;
#[cfg(doc)]
pub mod docs;
pub mod error;
mod health;
pub mod ids;
mod me;
pub mod openapi;
pub mod registry;
pub mod routes;
pub mod server;
pub mod tasks;
pub mod telemetry;
mod text_file;
