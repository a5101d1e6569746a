//! The trust boundary: from a bearer token to a [`Principal`], or a reason to refuse.
//!
//! In this order; the first failure answers:
//!
//! 1. `bearer`: exactly one `Authorization: Bearer …` header.
//! 2. `token`: the shape of a JWT. Whatever is read from here on is named *unverified*.
//! 3. The unverified `tid` becomes a [`TenantId`](crate::ids::TenantId), or nothing at all.
//! 4. [`tenants`]: may people of this organisation come in? If not, Entra is not asked.
//! 5. `claims`: issuer, audience and times, so that garbage never costs a fetch.
//! 6. `keys`: the tenant's signing key with the token's key id.
//! 7. The signature, then the claims of step 5 again, now signed.
//! 8. [`principal`]: a person, not an app, and the scope this API asks for.
//!
//! A person whose organisation has spent its requests of this second (`rates`) is told to wait.
//!
//! A token that has come this far is remembered (`verified`): its next request asks only what may have
//! changed since, and on any doubt takes the steps again.
//!
//! Handlers see none of this. They name a privilege ([`Admin`], [`Editor`], [`Reader`], or
//! [`Principal`] for anyone signed in), and are only called for a caller who has it.

pub mod authority;
mod error;
mod extract;
#[cfg(fuzzing)]
pub mod fuzzing;
mod inspection;
mod keys;
pub mod principal;
mod rate_limit;
mod request_log;
pub mod tenants;
mod token;
pub mod verifier;

pub use authority::Authority;
pub use error::{AuthError, InvalidToken};
pub use inspection::Inspection;
pub use keys::fetch::{FetchError, fetch_keys};
pub use keys::jwks::KeyId;
pub use keys::status::{FetchCounts, KeyStatus};
pub use principal::{Admin, Editor, Principal, Reader, Role};
pub use request_log::Caller;
pub use tenants::{Access, Tenants};
pub use token::cache::TokenCacheUse;
pub use verifier::{NotReady, Verifier};
