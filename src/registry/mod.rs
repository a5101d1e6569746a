//! The registry: the tenants and the revoked keys that all replicas share, in PostgreSQL.
//!
//! Commands change it ([`client`]). Each replica polls its version once per second and applies what
//! has changed ([`watcher`]), together with the tenants and keys of the settings ([`access`]). While
//! the database is unavailable, the content that was last read stays in force.

pub mod access;
pub mod client;
pub mod watcher;
