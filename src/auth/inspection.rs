//! The verifier's result for one token, explained for `token inspect`.
//!
//! The claims are read from an untrusted token and must be treated as unverified.

use std::time::Duration;

use uuid::Uuid;

use super::{
    error::{AuthError, InvalidToken, MalformedToken, Timestamp, Unverified},
    principal::Principal,
    request_log::RequestLog,
    token::{
        self,
        json::{Members, Names},
    },
    verifier::Verifier,
};

/// The audiences of Microsoft Graph. Its tokens are often sent to this API by mistake.
const MICROSOFT_GRAPH: [&str; 3] = [
    "00000003-0000-0000-c000-000000000000",
    "https://graph.microsoft.com",
    "https://graph.microsoft.com/",
];

/// The host names of Azure AD B2C and External ID, which issue tokens for customers of a company.
const EXTERNAL_USERS: [&str; 2] = ["b2clogin.com", "ciamlogin.com"];

/// The claims to print.
const CLAIMS: Names = &[
    "ver", "tid", "iss", "aud", "appid", "azp", "oid", "name", "scp", "roles", "iat", "nbf", "exp",
    "nonce",
];

/// The result for one token.
#[derive(Debug)]
pub struct Inspection {
    /// The user, or the reason to reject the token, with the evidence.
    pub outcome: Result<Principal, AuthError>,
    /// What to do about a rejection, if there is something specific.
    pub advice: Option<String>,
    /// Whether the signature was verified, so that the claims can be believed.
    pub is_signature_verified: bool,
    /// The claims and the key id, as the token has them: names and values.
    pub unverified_claims: Vec<(&'static str, Unverified)>,
}

impl Verifier {
    /// Verifies a token and explains the result. `spa_client_id` is the audience of ID tokens.
    pub async fn inspect(&self, unverified_jwt: &str, spa_client_id: Option<Uuid>) -> Inspection {
        let log = RequestLog::default();
        let outcome = self.verify(unverified_jwt, &log).await;
        let (header, payload) = token::unverified_members(unverified_jwt, CLAIMS);
        let payload = payload.as_ref();
        let error = outcome.as_ref().err();
        let is_id_token = payload.is_some_and(|claims| is_id_token(claims, spa_client_id));
        let advice = error.and_then(|error| self.advice(error, payload, is_id_token));
        let claims = CLAIMS.iter().copied();
        let claims = claims.filter_map(|name| Some((name, display(payload?, name)?)));
        let key_id = header.as_ref().and_then(|header| display(header, "kid"));
        let key_id = key_id.map(|key_id| ("kid", key_id));
        let unverified_claims = claims.chain(key_id).collect();
        Inspection {
            outcome,
            advice,
            is_signature_verified: log.owner().is_some(),
            unverified_claims,
        }
    }

    fn advice(
        &self,
        error: &AuthError,
        payload: Option<&Members>,
        is_id_token: bool,
    ) -> Option<String> {
        let api = self.expectations.app_id_uri();
        let advice = match error {
            AuthError::TenantNotAllowed(tenant) if tenant.is_organization() => {
                return Some(format!(
                    "To allow its users: tenant-tasks tenants add {tenant}. If it is suspended: \
                     tenant-tasks tenants resume {tenant}"
                ));
            }
            AuthError::TenantNotAllowed(_) => {
                "It is the token of a personal account. Sign in with a work account."
            }
            AuthError::MissingScope { required, .. } => {
                return Some(format!("The app must request the scope {api}/{required}."));
            }
            AuthError::AppOnly | AuthError::InvalidToken(InvalidToken::Audience { .. })
                if is_id_token =>
            {
                "It is an ID token. Send the access token, which the app gets for a scope of this API."
            }
            AuthError::AppOnly => {
                "Send the access token of a signed-in user, not a token of the app."
            }
            AuthError::MissingRole { .. } => "An administrator of the user's tenant assigns roles.",
            AuthError::KeysUnavailable { .. } => {
                "Its issuer, audience and times are valid. To find the cause: tenant-tasks check"
            }
            AuthError::InvalidToken(invalid) => return self.advice_on_invalid(invalid, payload),
            AuthError::MissingToken
            | AuthError::NotBearer
            | AuthError::MalformedCredentials
            | AuthError::TooManyRequests => return None,
        };
        Some(advice.to_owned())
    }

    fn advice_on_invalid(
        &self,
        invalid: &InvalidToken,
        payload: Option<&Members>,
    ) -> Option<String> {
        let audience = payload.and_then(|claims| claims.string("aud"));
        let issuer = payload.and_then(|claims| claims.string("iss"));
        let advice = match invalid {
            InvalidToken::Malformed(MalformedToken::Segments(1)) => {
                "It is not a JWT. The access tokens that personal accounts get for Microsoft's own \
                 APIs look like this. Sign in with a work account, and request a scope of this API."
            }
            InvalidToken::Malformed(MalformedToken::Encrypted) => {
                "Only the API that it was issued for can decrypt it. If that is this API, remove \
                 the token encryption key from its registration."
            }
            InvalidToken::MissingTenant | InvalidToken::Issuer { .. }
                if issuer.as_ref().is_some_and(|issuer| {
                    EXTERNAL_USERS.iter().any(|host| issuer.contains(host))
                }) =>
            {
                "It is a token of Azure AD B2C or External ID, whose users are not supported."
            }
            InvalidToken::Audience { .. } => {
                let audience = audience?;
                if MICROSOFT_GRAPH.contains(&&*audience) {
                    let api = self.expectations.app_id_uri();
                    return Some(format!(
                        "It is for Microsoft Graph. The app must request a scope of {api}."
                    ));
                }
                if !audience.contains("://") {
                    return None;
                }
                "If aud is a custom App ID URI of this API, set requestedAccessTokenVersion: 2 in \
                 its registration: aud is then the client id."
            }
            InvalidToken::NotYetValid { .. } => "Check the clock of this machine.",
            InvalidToken::UnknownKey(_) => {
                "If the tenant configured a signing key for this API alone, such as with a \
                 claims-mapping policy, remove that key there: such keys are not accepted."
            }
            InvalidToken::Malformed(_)
            | InvalidToken::TooLong { .. }
            | InvalidToken::DuplicateMember { .. }
            | InvalidToken::Algorithm(_)
            | InvalidToken::UnsupportedHeader(_)
            | InvalidToken::KeyId(_)
            | InvalidToken::MissingTenant
            | InvalidToken::MalformedTenant(_)
            | InvalidToken::Issuer { .. }
            | InvalidToken::Expired { .. }
            | InvalidToken::Claim { .. }
            | InvalidToken::RevokedKey(_)
            | InvalidToken::Signature(_) => return None,
        };
        Some(advice.to_owned())
    }
}

/// Whether it is an ID token (`OpenID` Connect Core, section 2). Its audience is the app itself.
fn is_id_token(claims: &Members, spa_client_id: Option<Uuid>) -> bool {
    let audience = claims.string("aud").and_then(|aud| aud.parse().ok());
    let is_for_spa = audience.is_some() && audience == spa_client_id;
    is_for_spa || (claims.has("nonce") && !claims.has("scp"))
}

/// A claim for display: texts without quotes, times in RFC 3339 form.
fn display(claims: &Members, name: &str) -> Option<Unverified> {
    if matches!(name, "iat" | "nbf" | "exp")
        && let Some(Ok(time)) = claims.get(name).map(Duration::try_from_secs_f64)
    {
        return Some(Unverified::text(&Timestamp(time).to_string()));
    }
    match claims.string(name) {
        Some(text) => Some(Unverified::text(&text)),
        None => claims.has(name).then(|| claims.evidence(name)),
    }
}
