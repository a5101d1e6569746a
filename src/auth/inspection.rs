//! The verifier's result for one token, explained for `token inspect`.
//!
//! The claims are read from an untrusted token and must be treated as unverified.

use std::time::Duration;

use serde_json::Value;

use super::{
    error::{AuthError, InvalidToken, Timestamp, Unverified},
    principal::Principal,
    request_log::RequestLog,
    token,
    verifier::Verifier,
};

/// The audiences of Microsoft Graph. Its tokens are often sent to this API by mistake.
const MICROSOFT_GRAPH: [&str; 3] = [
    "00000003-0000-0000-c000-000000000000",
    "https://graph.microsoft.com",
    "https://graph.microsoft.com/",
];

/// The claims to print.
const CLAIMS: [&str; 13] = [
    "ver", "tid", "iss", "aud", "appid", "azp", "oid", "name", "scp", "roles", "iat", "nbf", "exp",
];

/// The result for one token.
#[derive(Debug)]
pub struct Inspection {
    /// The user, or the reason to reject the token, with the evidence.
    pub outcome: Result<Principal, AuthError>,
    /// What to do about a rejection, if there is something specific.
    pub advice: Option<String>,
    /// The claims and the key id: names and values.
    pub unverified_claims: Vec<(&'static str, Unverified)>,
}

impl Verifier {
    /// Verifies a token and explains the result.
    pub async fn inspect(&self, unverified_jwt: &str) -> Inspection {
        let outcome = self.verify(unverified_jwt, &RequestLog::default()).await;
        let [header, payload] = token::unverified_members(unverified_jwt);
        let claim = |name| payload.as_ref()?.value(name);
        let audience = claim("aud").and_then(Value::as_str);
        let error = outcome.as_ref().err();
        let advice = error.and_then(|error| self.advice(error, audience));
        let claims = CLAIMS.into_iter();
        let claims = claims.filter_map(|name| Some((name, display(name, claim(name)?))));
        let key_id = header.as_ref().and_then(|header| header.value("kid"));
        let key_id = key_id.map(|key_id| ("kid", display("kid", key_id)));
        let unverified_claims = claims.chain(key_id).collect();
        Inspection {
            outcome,
            advice,
            unverified_claims,
        }
    }

    fn advice(&self, error: &AuthError, audience: Option<&str>) -> Option<String> {
        let api = self.expectations.app_id_uri();
        match error {
            AuthError::TenantNotAllowed(tenant) if tenant.is_organization() => Some(format!(
                "To allow its users: tenant-tasks tenants add {tenant}"
            )),
            AuthError::TenantNotAllowed(_) => Some(
                "It is the token of a personal account. Sign in with a work account.".to_owned(),
            ),
            AuthError::MissingScope { required, .. } => {
                Some(format!("The app must request the scope {api}/{required}."))
            }
            AuthError::AppOnly => Some(
                "Send the access token of a signed-in user, not a token of the app.".to_owned(),
            ),
            AuthError::MissingRole { .. } => {
                Some("An administrator of the user's tenant assigns roles.".to_owned())
            }
            AuthError::KeysUnavailable { .. } => {
                let valid = "Its issuer, audience and times are valid.";
                Some(format!("{valid} To find the cause: tenant-tasks check"))
            }
            AuthError::InvalidToken(InvalidToken::Audience { .. }) => {
                let is_graph = audience.is_some_and(|aud| MICROSOFT_GRAPH.contains(&aud));
                let advice = "It is for Microsoft Graph. The app must request a scope of";
                let custom_uri = "If aud is a custom App ID URI of this API, set \
                                  requestedAccessTokenVersion: 2 in its registration: aud is then \
                                  the client id.";
                let is_custom = audience.is_some_and(|aud| aud.contains("://"));
                is_graph
                    .then(|| format!("{advice} {api}."))
                    .or_else(|| is_custom.then(|| custom_uri.to_owned()))
            }
            AuthError::InvalidToken(InvalidToken::NotYetValid { .. }) => {
                Some("Check the clock of this machine.".to_owned())
            }
            AuthError::InvalidToken(_)
            | AuthError::MissingToken
            | AuthError::NotBearer
            | AuthError::MalformedCredentials
            | AuthError::TooManyRequests => None,
        }
    }
}

/// A claim for display: texts without quotes, times in RFC 3339 form.
fn display(name: &str, value: &Value) -> Unverified {
    if matches!(name, "iat" | "nbf" | "exp")
        && let Some(Ok(time)) = value.as_f64().map(Duration::try_from_secs_f64)
    {
        return Unverified::text(&Timestamp(time).to_string());
    }
    match value {
        Value::String(text) => Unverified::text(text),
        value => Unverified::value(Some(value)),
    }
}
