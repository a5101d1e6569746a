//! A multi-tenant task API for people of any Microsoft Entra ID organisation.
//!
//! One request, top to bottom: [`routes`] names the handler; the handler's signature names
//! a privilege, which makes [`auth`] prove the bearer token; [`tasks::input`] parses what was
//! sent; [`tasks::store`] keeps it, by tenant; and every failure on the way becomes an answer
//! in [`error`]. Around all of it, [`observe`] keeps what the log and [`metrics`] tell of it.
//!
//! [`commands`] has what the binary can be told to do; to serve is one of them.
//!
//! [`ids`] imports nothing of ours. [`auth`] knows neither tasks nor answers, and the store
//! knows neither tokens nor HTTP. [`config`] alone reads the environment, [`clock`] alone
//! the time.

pub mod auth;
pub mod clock;
pub mod commands;
pub mod config;
pub mod env_file;
pub mod error;
pub mod ids;
pub mod logging;
pub mod metrics;
pub mod observe;
pub mod openapi;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod reload;
pub mod routes;
pub mod server;
pub mod tasks;
pub mod trace_context;
