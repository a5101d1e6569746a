//! A multi-tenant task API secured by Microsoft Entra ID.
//!
//! The way of a request: [`routes`] names the handler. The handler's signature names a privilege, and
//! [`auth`] verifies the bearer token for it. [`tasks::request`] parses the request, and
//! [`tasks::store`] stores it by tenant. [`error`] turns every failure into a response.
//! [`telemetry`] logs and counts every request.
//!
//! [`commands`] are the commands of the binary; `serve` is the default.
//!
//! Imports point down: commands, then [`routes`] and [`config`], then [`openapi`] and [`telemetry`],
//! then [`tasks`], then [`error`], then [`auth`], then [`ids`] and [`clock`]. [`auth`] imports neither
//! tasks nor responses. The store imports neither tokens nor HTTP. [`server`] imports none of them.
//! Only [`config`] reads the environment, and only [`clock`] reads the time.

pub mod auth;
pub mod clock;
pub mod commands;
pub mod config;
pub mod error;
mod health;
pub mod ids;
mod me;
pub mod openapi;
pub mod routes;
pub mod server;
pub mod tasks;
pub mod telemetry;
