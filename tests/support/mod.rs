//! What the tests and the sandbox are built from.

#![expect(
    unreachable_pub,
    reason = "a library of two binaries, without a crate of its own"
)]

pub mod app;
pub mod entra;
pub mod postgres;
pub mod proxy;
mod sign_in;
pub mod tokens;
pub mod users;
