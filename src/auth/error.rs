//! Why a caller is rejected, with the evidence.
//!
//! These texts are for the log and for `token inspect`. What the client sees is decided in the
//! crate's `error` module alone.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use strum::{IntoStaticStr, VariantNames};
use thiserror::Error;

use super::role::{Role, unknown_roles_hint};
use crate::ids::{KeyId, TenantId};

/// Why a request has no principal, or why its principal lacks a privilege.
#[derive(Clone, Debug, Eq, Error, IntoStaticStr, PartialEq, VariantNames)]
#[strum(serialize_all = "snake_case")]
#[expect(missing_docs, reason = "the error texts say what the fields mean")]
pub enum AuthError {
    /// No `Authorization` header.
    #[error("no bearer token")]
    MissingToken,
    /// An `Authorization` header with another scheme, or a token without a scheme.
    #[error("the Authorization header does not start with Bearer")]
    NotBearer,
    /// More than one `Authorization` header, or an empty bearer token.
    #[error("more than one Authorization header, or an empty token")]
    MalformedCredentials,
    /// The token is not valid.
    #[error("invalid token: {0}")]
    InvalidToken(#[from] InvalidToken),
    /// The tenant is not on the allow-list.
    #[error("tenant {0} is neither in ALLOWED_TENANT_IDS nor active in the registry")]
    TenantNotAllowed(TenantId),
    /// The token is valid, but it is not a user's access token.
    #[error("the token has no scp, or idtyp=app: it was issued to an app, or it is an ID token")]
    AppOnly,
    /// The token is valid, but lacks the required scope.
    #[error("the token lacks the scope {required}: its scp is \"{}\"", Unverified::text(.held))]
    MissingScope { required: String, held: String },
    /// The user has none of the roles that the route requires.
    #[error(
        "one of the roles {} is required, and the token has {}{}",
        Role::join(.required), held_roles(.held), unknown_roles_hint(.held)
    )]
    MissingRole {
        required: Vec<Role>,
        held: Vec<String>,
    },
    /// The tenant has used up its requests for this second.
    #[error("the tenant exceeds TENANT_RATE_LIMIT")]
    #[strum(serialize = "rate_limited")]
    TooManyRequests,
    /// The tenant's signing keys are not cached, and cannot be fetched now.
    #[error("the tenant's signing keys cannot be fetched now")]
    KeysUnavailable { retry_after: Duration },
}

/// What is wrong with a token. A closed set, so that metrics have a bounded number of label values.
#[derive(Clone, Debug, Eq, Error, IntoStaticStr, PartialEq, VariantNames)]
#[strum(serialize_all = "snake_case")]
#[expect(missing_docs, reason = "the error texts say what the fields mean")]
pub enum InvalidToken {
    /// Longer than any token that Entra issues.
    #[error(
        "it has {bytes} bytes, more than {max}: many roles, groups or optional claims make it large"
    )]
    TooLong { bytes: usize, max: usize },
    /// Not a JWS in compact serialization (RFC 7515, section 3.1).
    #[error("{0}")]
    Malformed(MalformedToken),
    /// Two members have the same name, ignoring case (RFC 7515, section 4).
    #[error("its {segment} has the member \"{name}\" twice")]
    DuplicateMember {
        segment: &'static str,
        name: &'static str,
    },
    /// `alg` is not `RS256`.
    #[error("alg is {0}, expected \"RS256\"")]
    Algorithm(Unverified),
    /// `crit`, `b64`, `zip` or `enc`: extensions that this service does not support.
    #[error("its header has {0}, which is not supported")]
    UnsupportedHeader(&'static str),
    /// `kid` is missing, not a string, empty or too long.
    #[error("kid is {0}, expected a string of 1 to 128 characters")]
    KeyId(Unverified),
    /// There is no `tid`.
    #[error("tid is missing or empty")]
    MissingTenant,
    /// `tid` is not a hyphenated GUID.
    #[error("tid is {0}, expected a hyphenated GUID")]
    MalformedTenant(Unverified),
    /// `iss` is not the issuer of this tenant for the token's version.
    #[error("iss is {found}, expected \"{expected}\" for its tid and ver")]
    Issuer { found: Unverified, expected: String },
    /// `aud` is not this API.
    #[error(
        "aud is {found}, expected \"{expected}\" or, as with requestedAccessTokenVersion: 2, the client id \
         alone"
    )]
    Audience { found: Unverified, expected: String },
    /// `exp` has passed.
    #[error("exp is {at}: it expired {} ago", seconds(*.since))]
    Expired { at: Timestamp, since: Duration },
    /// `nbf` or `iat` lies in the future.
    #[error("{claim} is {at}: it becomes valid in {}", seconds(*.until))]
    NotYetValid {
        claim: &'static str,
        at: Timestamp,
        until: Duration,
    },
    /// A required claim is missing or has the wrong type.
    #[error("{name} is {found}, expected {expected}")]
    Claim {
        name: &'static str,
        found: Unverified,
        expected: &'static str,
    },
    /// The tenant does not publish a key with the token's key id.
    #[error("kid is \"{0}\", and its tenant publishes no signing key with this id for all apps")]
    UnknownKey(KeyId),
    /// The operator has revoked the key.
    #[error("kid is \"{0}\", which is revoked")]
    RevokedKey(KeyId),
    /// The signature does not match.
    #[error("its signature was not made with the tenant's key \"{0}\"")]
    Signature(KeyId),
}

/// Why a text is not a JWS in compact serialization. Segments: `header`, `payload`, `signature`.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[expect(missing_docs, reason = "the error texts say what the variants mean")]
pub enum MalformedToken {
    #[error("it is not text")]
    NotText,
    #[error("it has {0} instead of 3 segments separated by dots")]
    Segments(usize),
    #[error("it has 5 instead of 3 segments separated by dots: it is encrypted")]
    Encrypted,
    #[error("its {0} is empty")]
    Empty(&'static str),
    #[error("its {segment} is not base64url: it has {character:?}")]
    Base64 {
        segment: &'static str,
        character: char,
    },
    #[error("its {0} is not base64url: it is cut off, or its last character is wrong")]
    CutOff(&'static str),
    #[error("its {0} has more than 1000 values or 2048 escapes: no token of Entra has as many")]
    TooManyValues(&'static str),
    #[error("its {segment} is not a JSON object: {problem}")]
    Json {
        segment: &'static str,
        problem: Unverified,
    },
}

/// A text from an unverified token, safe to print: cut after 200 characters, then escaped.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unverified(String);

/// A time since the Unix epoch. Prints in RFC 3339 form.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timestamp(pub Duration);

impl AuthError {
    /// The reason as one word of a closed set, for the log and the metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidToken(invalid) => invalid.into(),
            other => other.into(),
        }
    }

    /// The message for the audit log; `None` if the failure does not belong there.
    pub fn audit_message(&self) -> Option<&'static str> {
        match self {
            Self::TenantNotAllowed(_) => Some("tenant rejected"),
            Self::AppOnly => Some("app rejected"),
            Self::MissingScope { .. } => Some("scope rejected"),
            Self::MissingRole { .. } => Some("role rejected"),
            Self::InvalidToken(InvalidToken::RevokedKey(_)) => Some("revoked key rejected"),
            Self::InvalidToken(InvalidToken::Signature(_)) => Some("signature rejected"),
            Self::InvalidToken(_)
            | Self::MissingToken
            | Self::NotBearer
            | Self::MalformedCredentials
            | Self::TooManyRequests
            | Self::KeysUnavailable { .. } => None,
        }
    }
}

impl Unverified {
    /// The number of characters of a text to print.
    const MAX_CHARS: usize = 200;

    /// Escapes a text. Adds no quotes.
    pub(super) fn text(text: &str) -> Self {
        let mut characters = text.chars();
        let mut escaped = String::new();
        for character in characters.by_ref().take(Self::MAX_CHARS) {
            // Control characters and bidirectional overrides could rewrite a terminal or a log.
            let is_bidi = matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if character.is_control() || is_bidi {
                escaped.extend(character.escape_unicode());
            } else {
                escaped.push(character);
            }
        }
        if characters.next().is_some() {
            escaped.push('…');
        }
        Self(escaped)
    }
}

impl fmt::Display for Unverified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// 9999-12-31T23:59:59Z, the last second that RFC 3339 can express.
        const LAST: Duration = Duration::from_secs(253_402_300_799);
        let time = SystemTime::UNIX_EPOCH + self.0.min(LAST);
        humantime::format_rfc3339_seconds(time).fmt(f)
    }
}

/// The roles of a token for a message: at most ten roles and 200 characters, or "none".
pub fn held_roles(held: &[String]) -> String {
    const MAX_ROLES: usize = 10;
    if held.is_empty() {
        return "none".to_owned();
    }
    let shown = held.get(..MAX_ROLES).unwrap_or(held).join(", ");
    let more = if held.len() > MAX_ROLES { ", …" } else { "" };
    format!("{}{more}", Unverified::text(&shown))
}

fn seconds(duration: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(duration.as_secs()))
}
