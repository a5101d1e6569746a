//! A multi-tenant task API for people of any Microsoft Entra ID organisation.
//!
//! One request, top to bottom: [`routes`] names the handler; the handler's signature names
//! a privilege, which makes [`auth`] prove the bearer token; [`tasks::request`] parses what was
//! sent; [`tasks::store`] keeps it, by tenant; and every failure on the way becomes an answer
//! in [`error`]. Around all of it, [`telemetry`] keeps what the log and it tell of it.
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
pub mod error;
pub mod ids;
pub mod openapi;
pub mod routes;
pub mod server;
pub mod tasks;
pub mod telemetry;
