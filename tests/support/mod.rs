//! Fixtures that the integration tests, the sandbox and the benchmark share.

#![expect(unreachable_pub, reason = "several binaries include this module")]

pub mod app;
pub mod entra;
pub mod postgres;
pub mod proxy;
mod sign_in;
pub mod tasks;
pub mod tokens;
pub mod users;
