//! Why a caller was refused.
//!
//! These are the reasons for our own logs; what the caller is told of them is decided in
//! the crate's `error` module alone.

use std::time::Duration;

use thiserror::Error;

use crate::auth::principal::Role;
use crate::ids::TenantId;

/// Why a request has no principal, or its principal lacks a privilege.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum AuthError {
    /// No `Authorization` header, or one with another scheme.
    #[error("no bearer token")]
    MissingToken,
    /// More than one `Authorization` header, or a bearer token of no characters.
    #[error("ambiguous or empty credentials")]
    MalformedCredentials,
    /// The token proves nothing.
    #[error("invalid token: {0}")]
    InvalidToken(#[from] InvalidToken),
    /// The organisation is not on the allow-list.
    #[error("tenant {0} is not allowed")]
    TenantNotAllowed(TenantId),
    /// The token is good, but was issued to an app, not to a person.
    #[error("the token is an app's own, without a person")]
    AppOnly,
    /// The token is good, but does not carry the scope this API asks for.
    #[error("the token lacks the scope {0}")]
    MissingScope(String),
    /// A person without any role the route asks for.
    #[error("none of the required roles {required:?}, but {held:?}")]
    MissingRole {
        /// Any one of these would do.
        required: &'static [Role],
        /// What the person has, as the token spells it.
        held: Vec<String>,
    },
    /// The organisation has spent its requests of this second.
    #[error("too many requests of this tenant")]
    TooManyRequests,
    /// The tenant's signing keys are not at hand and cannot be fetched now.
    #[error("signing keys unavailable")]
    KeysUnavailable {
        /// When it is worth trying again.
        retry_after: Duration,
    },
}

impl AuthError {
    /// The reason as one word of a closed set, for logs and counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::MissingToken => "missing_token",
            Self::MalformedCredentials => "malformed_credentials",
            Self::InvalidToken(invalid) => invalid.reason(),
            Self::TenantNotAllowed(_) => "tenant_not_allowed",
            Self::AppOnly => "app_only",
            Self::MissingScope(_) => "missing_scope",
            Self::MissingRole { .. } => "missing_role",
            Self::TooManyRequests => "rate_limited",
            Self::KeysUnavailable { .. } => "keys_unavailable",
        }
    }

    /// What was decided, where that is worth an audit: somebody came as far as a tenant, a person or a key.
    #[must_use]
    pub fn decision(&self) -> Option<&'static str> {
        match self {
            Self::TenantNotAllowed(_) => Some("tenant refused"),
            Self::AppOnly => Some("app refused"),
            Self::MissingScope(_) => Some("scope refused"),
            Self::MissingRole { .. } => Some("role refused"),
            Self::InvalidToken(InvalidToken::RevokedKey) => Some("revoked key refused"),
            Self::InvalidToken(InvalidToken::Signature) => Some("signature refused"),
            Self::InvalidToken(_)
            | Self::MissingToken
            | Self::MalformedCredentials
            | Self::TooManyRequests
            | Self::KeysUnavailable { .. } => None,
        }
    }
}

impl InvalidToken {
    fn reason(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::DuplicateMember => "duplicate_member",
            Self::Algorithm => "algorithm",
            Self::UnsupportedHeader => "unsupported_header",
            Self::KeyId => "key_id",
            Self::MissingTenant => "missing_tenant",
            Self::MalformedTenant => "malformed_tenant",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Claim(_) => "claim",
            Self::UnknownKey => "unknown_key",
            Self::RevokedKey => "revoked_key",
            Self::Signature => "signature",
        }
    }
}

/// What is wrong with a token: a closed set, so that logs and counters stay bounded.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum InvalidToken {
    /// Longer than any token Entra issues.
    #[error("more than 16 KiB")]
    TooLong,
    /// Not three segments of base64url, the first two JSON objects (RFC 7515, section 3.1).
    #[error("not three segments of base64url and JSON")]
    Malformed,
    /// A member appears twice, or twice but for case (RFC 7515, section 4).
    #[error("a duplicate member")]
    DuplicateMember,
    /// `alg` is not `RS256`.
    #[error("an algorithm other than RS256")]
    Algorithm,
    /// `crit`, `b64`, `zip` or `enc`: features this service does not have.
    #[error("an unsupported header parameter")]
    UnsupportedHeader,
    /// `kid` is missing, not a string, empty or too long.
    #[error("no usable key id")]
    KeyId,
    /// There is no `tid`.
    #[error("no tid")]
    MissingTenant,
    /// `tid` is not a hyphenated GUID.
    #[error("a tid that is not a GUID")]
    MalformedTenant,
    /// `iss` is not the issuer of this tenant, in the token's version.
    #[error("another issuer")]
    Issuer,
    /// `aud` is not this API.
    #[error("another audience")]
    Audience,
    /// `exp` has passed.
    #[error("expired")]
    Expired,
    /// `nbf` or `iat` lies ahead.
    #[error("not valid yet")]
    NotYetValid,
    /// The named claim is missing or of the wrong type.
    #[error("the claim {0} is missing or of the wrong type")]
    Claim(&'static str),
    /// The tenant publishes no key with the token's key id.
    #[error("an unknown key id")]
    UnknownKey,
    /// The operator has revoked the key.
    #[error("a revoked key")]
    RevokedKey,
    /// The signature does not match.
    #[error("a wrong signature")]
    Signature,
}
