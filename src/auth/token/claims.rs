//! The claims of a token, and the check that they are for this API, this tenant and this moment.
//!
//! The check runs twice: before the key look-up, so that an invalid claim never causes a fetch, and
//! after the signature, because a fetch may have taken seconds.

use std::time::Duration;

use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::json::{Members, Names};
use crate::{
    auth::{
        authority::Authority,
        error::{InvalidToken, Timestamp},
    },
    ids::{TenantId, UserId},
};

/// The accepted difference between Entra's clock and the local one.
pub(crate) const LEEWAY: Duration = Duration::from_mins(1);

/// The claims that the service reads.
pub(super) const CLAIMS: Names = &[
    "ver",
    "iss",
    "aud",
    "exp",
    "nbf",
    "iat",
    "tid",
    "oid",
    "idtyp",
    "scp",
    "roles",
    "name",
    "preferred_username",
    "upn",
    "unique_name",
    "email",
];

/// The claims set of a token (RFC 7519, section 4), verified or not.
pub(crate) struct Claims(Members);

/// Claims whose signature was verified with the tenant's key.
pub(crate) struct SignedClaims(Claims);

/// The values that a token's claims must have.
///
/// The claims and their forms per version:
/// <https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference>
#[derive(Clone, Debug)]
pub(crate) struct Expectations {
    authority: Authority,
    /// The App ID URI, `api://{client id}`.
    app_id_uri: String,
    client_id: String,
}

/// From the later of `nbf` and `iat` to just before `exp`, in seconds since the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Validity {
    not_before: f64,
    expires: f64,
}

impl Expectations {
    pub(crate) fn new(authority: Authority, client_id: Uuid) -> Self {
        Self {
            authority,
            app_id_uri: format!("api://{client_id}"),
            client_id: client_id.to_string(),
        }
    }

    /// The App ID URI: the audience of tokens of version 1.
    pub(crate) fn app_id_uri(&self) -> &str {
        &self.app_id_uri
    }

    /// Checks issuer, audience and times. Returns the token's validity period.
    pub(crate) fn check(
        &self,
        claims: &Claims,
        tenant: TenantId,
        now: Duration,
    ) -> Result<Validity, InvalidToken> {
        let expected = match claims.0.string("ver").as_deref() {
            Some("1.0") => self.authority.v1_issuer(tenant),
            Some("2.0") => self.authority.v2_issuer(tenant),
            Some(_) | None => return Err(claims.invalid("ver", "\"1.0\" or \"2.0\"")),
        };
        if claims.0.string("iss").as_deref() != Some(&*expected) {
            let found = claims.0.evidence("iss");
            return Err(InvalidToken::Issuer { found, expected });
        }
        let is_this_api = claims.0.string("aud").is_some_and(|audience| {
            let app_id_uri = audience.strip_suffix('/').unwrap_or(&audience);
            audience == self.client_id || app_id_uri == self.app_id_uri
        });
        if !is_this_api {
            return Err(InvalidToken::Audience {
                found: claims.0.evidence("aud"),
                expected: self.app_id_uri.clone(),
            });
        }
        let expires = claims.time("exp")?;
        if Validity::is_over(expires, now) {
            let at = Timestamp(from_seconds(expires));
            let since = now.saturating_sub(at.0);
            return Err(InvalidToken::Expired { at, since });
        }
        let (nbf, iat) = (claims.time("nbf")?, claims.time("iat")?);
        let validity = Validity {
            not_before: nbf.max(iat),
            expires,
        };
        if validity.includes(now) {
            return Ok(validity);
        }
        let claim = if nbf >= iat { "nbf" } else { "iat" };
        let at = Timestamp(from_seconds(validity.not_before));
        let until = at.0.saturating_sub(now);
        Err(InvalidToken::NotYetValid { claim, at, until })
    }
}

impl Validity {
    /// Whether the token is valid at `now`, a time since the Unix epoch, with [`LEEWAY`].
    pub(crate) fn includes(self, now: Duration) -> bool {
        self.not_before <= (now + LEEWAY).as_secs_f64() && !Self::is_over(self.expires, now)
    }

    /// A token expires at `exp`, not after it (RFC 7519, section 4.1.4).
    fn is_over(expires: f64, now: Duration) -> bool {
        now.as_secs_f64() >= expires + LEEWAY.as_secs_f64()
    }
}

impl Claims {
    pub(super) fn new(members: Members) -> Self {
        Self(members)
    }

    /// `tid`: the tenant that the token was issued in.
    pub(crate) fn tenant(&self) -> Result<TenantId, InvalidToken> {
        match self.0.get::<Option<String>>("tid") {
            None if !self.0.has("tid") => Err(InvalidToken::MissingTenant),
            Some(None) => Err(InvalidToken::MissingTenant),
            Some(Some(tid)) if tid.is_empty() => Err(InvalidToken::MissingTenant),
            tid => {
                let tenant = tid.flatten().and_then(|tid| tid.parse().ok());
                tenant.ok_or_else(|| InvalidToken::MalformedTenant(self.0.evidence("tid")))
            }
        }
    }

    /// A `NumericDate` (RFC 7519, section 2), in seconds since the Unix epoch.
    fn time(&self, name: &'static str) -> Result<f64, InvalidToken> {
        let time = self.0.get(name);
        time.ok_or_else(|| self.invalid(name, "a number of seconds"))
    }

    fn invalid(&self, name: &'static str, expected: &'static str) -> InvalidToken {
        InvalidToken::Claim {
            name,
            found: self.0.evidence(name),
            expected,
        }
    }
}

impl SignedClaims {
    /// Only for claims whose signature was verified.
    pub(super) fn new(verified: Claims) -> Self {
        Self(verified)
    }

    /// The same claims, for the check of issuer, audience and times.
    pub(crate) fn claims(&self) -> &Claims {
        &self.0
    }

    /// `tid`: the tenant that the token was issued in.
    pub(crate) fn tenant(&self) -> Result<TenantId, InvalidToken> {
        self.0.tenant()
    }

    /// `oid`: the user within the tenant.
    pub(crate) fn user(&self) -> Result<UserId, InvalidToken> {
        let user = self
            .members()
            .string("oid")
            .and_then(|oid| oid.parse().ok());
        user.ok_or_else(|| self.0.invalid("oid", "a hyphenated GUID"))
    }

    /// `roles`: the app roles that the tenant assigned to the user. Empty without this claim.
    pub(crate) fn roles(&self) -> Result<Vec<String>, InvalidToken> {
        let roles = self.optional("roles", "a list of strings")?;
        Ok(roles.unwrap_or_default())
    }

    /// `scp`: the scopes granted to the app, separated by spaces. Only user tokens have it.
    pub(crate) fn scopes(&self) -> Result<Option<String>, InvalidToken> {
        self.optional("scp", "a string")
    }

    /// Whether `idtyp` marks an app's own token. The claim is optional: its absence proves nothing.
    pub(crate) fn is_app_only(&self) -> bool {
        self.members().string("idtyp").as_deref() == Some("app")
    }

    /// A claim for display only; `None` if it is empty or not a string.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.members()
            .get(name)
            .filter(|text: &String| !text.is_empty())
    }

    /// A claim that may be missing, but must have this type.
    fn optional<T: DeserializeOwned>(
        &self,
        name: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, InvalidToken> {
        match self.members().get(name) {
            None if self.members().has(name) => Err(self.0.invalid(name, expected)),
            value => Ok(value),
        }
    }

    fn members(&self) -> &Members {
        &self.0.0
    }
}

/// Converts a time. One outside the range of `Duration` becomes the nearest bound.
fn from_seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
}
