//! What a token says, and whether it says it of this API, this tenant and this moment.
//!
//! The same check runs twice: before the key is looked up, so that garbage costs no fetch,
//! and after the signature, when a fetch may have taken seconds.

use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use crate::auth::{
    authority::Authority, error::InvalidToken, token::SignedClaims, token::json::Members,
};
use crate::ids::{TenantId, UserId};

/// How far the clocks of Entra and of this machine may differ.
const LEEWAY: Duration = Duration::from_mins(1);

/// The claims set of a token (RFC 7519, section 4).
pub(crate) struct Claims(Members);

/// What a token's claims are held against.
///
/// The claims and their forms per version:
/// <https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference>
#[derive(Clone, Debug)]
pub(crate) struct Expectations {
    authority: Authority,
    /// `api://{client id}`, the App ID URI.
    app_id_uri: String,
    /// The bare client id.
    client_id: String,
}

/// From `nbf` or `iat`, the later one, until just before `exp`: seconds since the Unix epoch.
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

    /// The audience of this API's tokens, in its longer form.
    pub(crate) fn app_id_uri(&self) -> &str {
        &self.app_id_uri
    }

    /// The issuer of a tenant's tokens of this version, and of the other one.
    pub(crate) fn issuers(&self, tenant: TenantId, version: &str) -> (String, String) {
        let (v1, v2) = (
            self.authority.v1_issuer(tenant),
            self.authority.v2_issuer(tenant),
        );
        if version == "1.0" { (v1, v2) } else { (v2, v1) }
    }

    /// Checks issuer, audience and times, and says when the times hold.
    ///
    /// # Errors
    ///
    /// The first of these that is missing, of the wrong type or wrong.
    pub(crate) fn check(
        &self,
        claims: &Claims,
        tenant: TenantId,
        now: Duration,
    ) -> Result<Validity, InvalidToken> {
        let issuer = match claims.0.string("ver") {
            Some("1.0") => self.authority.v1_issuer(tenant),
            Some("2.0") => self.authority.v2_issuer(tenant),
            Some(_) | None => return Err(InvalidToken::Claim("ver")),
        };
        if claims.0.string("iss") != Some(&issuer) {
            return Err(InvalidToken::Issuer);
        }
        let audience = claims.0.string("aud");
        if audience != Some(&self.app_id_uri) && audience != Some(&self.client_id) {
            return Err(InvalidToken::Audience);
        }
        let expires = claims.time("exp")?;
        if Validity::has_ended(expires, now) {
            return Err(InvalidToken::Expired);
        }
        let not_before = claims.time("nbf")?.max(claims.time("iat")?);
        let validity = Validity {
            not_before,
            expires,
        };
        if validity.includes(now) {
            Ok(validity)
        } else {
            Err(InvalidToken::NotYetValid)
        }
    }
}

impl Validity {
    /// Whether `now`, since the Unix epoch, lies within it or at most [`LEEWAY`] outside.
    pub(crate) fn includes(self, now: Duration) -> bool {
        self.not_before <= (now + LEEWAY).as_secs_f64() && !Self::has_ended(self.expires, now)
    }

    /// RFC 7519, section 4.1.4: on or after `exp` a token is not to be accepted.
    fn has_ended(expires: f64, now: Duration) -> bool {
        now.as_secs_f64() >= expires + LEEWAY.as_secs_f64()
    }
}

impl Claims {
    pub(crate) fn new(members: Members) -> Self {
        Self(members)
    }

    /// `tid`, the organisation the token was issued in.
    pub(crate) fn tenant(&self) -> Result<TenantId, InvalidToken> {
        match self.0.value("tid") {
            None | Some(Value::Null) => Err(InvalidToken::MissingTenant),
            Some(Value::String(tid)) if tid.is_empty() => Err(InvalidToken::MissingTenant),
            Some(tid) => tid
                .as_str()
                .and_then(|tid| tid.parse().ok())
                .ok_or(InvalidToken::MalformedTenant),
        }
    }

    /// A `NumericDate` (RFC 7519, section 2), in seconds since the Unix epoch.
    fn time(&self, name: &'static str) -> Result<f64, InvalidToken> {
        self.0.number(name).ok_or(InvalidToken::Claim(name))
    }
}

/// Who the caller is, only signed claims say.
impl SignedClaims {
    /// `oid`, the person within the tenant.
    pub(crate) fn user(&self) -> Result<UserId, InvalidToken> {
        self.members()
            .string("oid")
            .and_then(|oid| oid.parse().ok())
            .ok_or(InvalidToken::Claim("oid"))
    }

    /// `roles`: the app roles the tenant has assigned to the person; none if there is no such claim.
    pub(crate) fn roles(&self) -> Result<Vec<String>, InvalidToken> {
        let Some(roles) = self.members().value("roles") else {
            return Ok(Vec::new());
        };
        let roles = roles.as_array().and_then(|roles| {
            roles
                .iter()
                .map(|role| role.as_str().map(str::to_owned))
                .collect::<Option<Vec<_>>>()
        });
        roles.ok_or(InvalidToken::Claim("roles"))
    }

    /// `scp`: what the person lets the app do in their name, separated by spaces. Only tokens
    /// of people have it.
    pub(crate) fn scopes(&self) -> Result<Option<&str>, InvalidToken> {
        match self.members().value("scp") {
            Some(scopes) => scopes.as_str().map(Some).ok_or(InvalidToken::Claim("scp")),
            None => Ok(None),
        }
    }

    /// Whether Entra says that this is an app's own token. Its silence proves nothing.
    pub(crate) fn is_app_only(&self) -> bool {
        self.members().string("idtyp") == Some("app")
    }

    /// A claim that is shown to people and decides nothing; absent if it is empty or no string.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.members().string(name).filter(|text| !text.is_empty())
    }

    fn members(&self) -> &Members {
        let Claims(members) = &**self;
        members
    }
}
