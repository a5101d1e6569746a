//! The trust boundary: from a bearer token to a [`Principal`], or a reason to reject it.
//!
//! The steps run in this order. The first failure decides the response.
//!
//! 1. `extract`: exactly one `Authorization: Bearer …` header.
//! 2. `token`: the shape of a JWT. From here on, names say that values are *unverified*.
//! 3. The unverified `tid` must be a [`TenantId`](crate::ids::TenantId).
//! 4. [`tenants`]: the tenant must be allowed. If not, Entra is not contacted.
//! 5. `token::claims`: issuer, audience and times. A token that fails here never causes a fetch.
//! 6. `keys`: the tenant's signing key with the token's key id, if it is not revoked.
//! 7. The signature, then the claims of step 5 again, now verified.
//! 8. [`principal`]: a user and not an app, and the scope that this API requires.
//!
//! A verified token is cached (`token::cache`). The next request with it checks only what may have
//! changed. If one of these checks fails, all steps run again.
//!
//! `rate_limit` limits the requests of each tenant after verification.
//!
//! Handlers do not see any of this. They name a privilege: [`Admin`], [`Editor`], [`Reader`], or
//! [`Principal`] for any signed-in user.

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
pub mod role;
pub mod tenants;
mod token;
pub mod verifier;

pub use authority::Authority;
pub use error::{AuthError, InvalidToken, MalformedToken, Unverified, held_roles};
pub use extract::{Admin, Editor, Reader};
pub use inspection::Inspection;
pub use keys::fetch::{
    FetchError, FetchedKeys, ResponseSummary, TlsUnavailable, fetch_keys, outbound_proxy,
};
pub use keys::jwks::{DocumentError, RejectedKey};
pub(crate) use keys::status::TenantLabel;
pub use keys::status::{FetchStats, KeyStatus};
pub use principal::Principal;
pub use request_log::RequestLog;
pub use tenants::{Access, RegistryContent, TenantProfile, Tenants};
pub(crate) use token::claims::LEEWAY;
pub use verifier::{NotReady, Verifier};
