//! What the steps make of one token, in plain words for whoever holds it.
//!
//! The verdict is the verifier's own. This module looks at the token once more, to name the very thing that decided
//! it; it has read everything from a token that may be anybody's, and whatever it says of it is unverified.

use std::time::{Duration, SystemTime};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::Value;
use uuid::Uuid;

use crate::auth::{
    error::{AuthError, InvalidToken},
    principal::Principal,
    request_log::Caller,
    token::json::Members,
    token::{MAX_BYTES, UNSUPPORTED},
    verifier::Verifier,
};
use crate::ids::parse_guid;

/// Whose access tokens are taken for this API's most often, by their `aud`.
const MICROSOFT_GRAPH: [&str; 3] = [
    "00000003-0000-0000-c000-000000000000",
    "https://graph.microsoft.com",
    "https://graph.microsoft.com/",
];

/// What the verifier made of a token, and why.
#[derive(Debug)]
pub struct Inspection {
    /// The caller, or the reason to refuse.
    pub outcome: Result<Principal, AuthError>,
    /// Of a refusal: the very thing, as a sentence.
    pub why: Option<String>,
    /// What the token says of itself, as far as it can be read: a name, and what it says.
    pub unverified_claims: Vec<(&'static str, String)>,
}

/// What can be read of a token, whoever made it.
struct Unverified {
    header: Option<Members>,
    claims: Option<Members>,
}

impl Verifier {
    /// Takes the steps with a token, and tells of them.
    pub async fn inspect(&self, unverified_jwt: &str) -> Inspection {
        let outcome = self.verify(unverified_jwt, &Caller::default()).await;
        let mut segments = unverified_jwt.split('.');
        let mut members = || {
            segments
                .next()
                .and_then(decode)
                .and_then(|json| Members::parse(&json).ok())
        };
        let unverified = Unverified {
            header: members(),
            claims: members(),
        };
        let now = self.clock.since_epoch();
        let why = outcome
            .as_ref()
            .err()
            .map(|error| self.why(error, unverified_jwt, &unverified, now));
        let unverified_claims = unverified
            .summary()
            .into_iter()
            .map(|(name, value)| (name, printable(&value)));
        Inspection {
            outcome,
            why: why.as_deref().map(printable),
            unverified_claims: unverified_claims.collect(),
        }
    }

    fn why(
        &self,
        error: &AuthError,
        unverified_jwt: &str,
        unverified: &Unverified,
        now: Duration,
    ) -> String {
        match error {
            AuthError::MissingToken | AuthError::MalformedCredentials => {
                "There is no token.".to_owned()
            }
            AuthError::InvalidToken(invalid) => {
                self.why_invalid(*invalid, unverified_jwt, unverified, now)
            }
            AuthError::TenantNotAllowed(tenant) => format!(
                "Its tenant (tid), {tenant}, is not in ALLOWED_TENANT_IDS. \
                 `tenant-tasks tenants add {tenant}` lets its people in."
            ),
            AuthError::AppOnly
                if unverified.claim("idtyp").and_then(Value::as_str) == Some("app") =>
            {
                "Its idtyp is \"app\": an app asked for it on its own, without a person.".to_owned()
            }
            AuthError::AppOnly => {
                "It has no scp: it is an app's own token without a person, or an ID token, \
                                   which is for the app that signed the person in."
                    .to_owned()
            }
            AuthError::MissingScope(scope) => match unverified.claim("scp") {
                Some(scopes) => format!(
                    "Its scopes (scp) are {scopes}, without {scope}: the app must ask for {}/{scope}.",
                    self.expectations.app_id_uri()
                ),
                None => format!(
                    "It has no scp, so no scope {scope}: it is an app's own token without a person, or an ID token."
                ),
            },
            AuthError::MissingRole { required, held } => {
                format!("Its roles are {held:?}; one of {required:?} is needed.")
            }
            AuthError::TooManyRequests => {
                "Its organisation has sent too many requests this second.".to_owned()
            }
            AuthError::KeysUnavailable { .. } => {
                let tenant = unverified
                    .claim("tid")
                    .and_then(Value::as_str)
                    .and_then(|tid| tid.parse().ok());
                let is_checked =
                    tenant.is_some_and(|tenant| self.access().tenants.expected().contains(&tenant));
                let advice = if is_checked {
                    " `tenant-tasks check` says what is in the way."
                } else {
                    ""
                };
                format!(
                    "The signing keys of its tenant cannot be fetched now, so its signature could not be checked; \
                     all that comes before is well.{advice}"
                )
            }
        }
    }

    fn why_invalid(
        &self,
        invalid: InvalidToken,
        jwt: &str,
        unverified: &Unverified,
        now: Duration,
    ) -> String {
        match invalid {
            InvalidToken::TooLong => {
                format!(
                    "It is {} bytes long, and at most {MAX_BYTES} are taken.",
                    jwt.len()
                )
            }
            InvalidToken::Malformed | InvalidToken::DuplicateMember => what_is_malformed(jwt),
            InvalidToken::Algorithm => {
                format!(
                    "Its algorithm (alg) {}; only \"RS256\" is taken.",
                    is(unverified.parameter("alg"))
                )
            }
            InvalidToken::UnsupportedHeader => {
                let names = UNSUPPORTED
                    .into_iter()
                    .filter(|name| unverified.parameter(name).is_some());
                let names: Vec<_> = names.collect();
                format!(
                    "Its header has {}, which this service does not support.",
                    names.join(", ")
                )
            }
            InvalidToken::KeyId => {
                format!(
                    "Its key id (kid) {}; it must have 1 to 128 characters.",
                    is(unverified.parameter("kid"))
                )
            }
            InvalidToken::MissingTenant | InvalidToken::MalformedTenant => {
                format!(
                    "Its tenant (tid) {}; it must be a GUID with hyphens.",
                    is(unverified.claim("tid"))
                )
            }
            InvalidToken::Issuer => self.why_issuer(unverified),
            InvalidToken::Audience => self.why_audience(unverified),
            InvalidToken::Expired => match unverified.time("exp") {
                Some(expired) => format!(
                    "It expired (exp) {} ago, at {}: whoever sends it must get a new one.",
                    between(expired, now),
                    at(expired)
                ),
                None => "It has expired (exp).".to_owned(),
            },
            InvalidToken::NotYetValid => {
                let times = ["nbf", "iat"].map(|name| (name, unverified.time(name)));
                let times = times
                    .into_iter()
                    .filter_map(|(name, time)| Some((name, time?)));
                match times.rev().max_by_key(|(_, time)| *time) {
                    Some((name, time)) => format!(
                        "It is valid only from {} on ({name}), in {}: is this machine's clock right?",
                        at(time),
                        between(now, time)
                    ),
                    None => "It is not valid yet (nbf, iat).".to_owned(),
                }
            }
            InvalidToken::Claim("ver") => {
                format!(
                    "Its version (ver) {}; it must be \"1.0\" or \"2.0\".",
                    is(unverified.claim("ver"))
                )
            }
            InvalidToken::Claim(name) => {
                let wanted = match name {
                    "exp" | "nbf" | "iat" => "it must be a number of seconds",
                    "oid" => "it must be a GUID with hyphens",
                    "roles" => "it must be a list of texts, or not there at all",
                    _ => "it must be a text",
                };
                format!("Its {name} {}; {wanted}.", is(unverified.claim(name)))
            }
            InvalidToken::UnknownKey => format!(
                "Its key id (kid) {}, and its tenant publishes no signing key of that id: another tenant's, \
                 another cloud's, or no token of Entra's.",
                is(unverified.parameter("kid"))
            ),
            InvalidToken::RevokedKey => {
                format!(
                    "Its key id (kid) {}, and REVOKED_KEY_IDS lists it.",
                    is(unverified.parameter("kid"))
                )
            }
            InvalidToken::Signature => format!(
                "Its signature is not one that the tenant's key {} made of these very bytes: it was altered, or \
                 signed with another key.",
                unverified.parameter("kid").unwrap_or(&Value::Null)
            ),
        }
    }

    fn why_issuer(&self, unverified: &Unverified) -> String {
        let tenant = unverified
            .claim("tid")
            .and_then(Value::as_str)
            .and_then(|tid| tid.parse().ok());
        let (Some(tenant), Some(version)) =
            (tenant, unverified.claim("ver").and_then(Value::as_str))
        else {
            return format!("Its issuer (iss) {}.", is(unverified.claim("iss")));
        };
        let (this, other) = self.expectations.issuers(tenant, version);
        let issuer = unverified.claim("iss");
        let hint = match issuer.and_then(Value::as_str) {
            Some(issuer) if issuer == other => {
                " That is the issuer of the other version than its ver says."
            }
            Some(issuer)
                if issuer
                    .split('/')
                    .any(|part| parse_guid(part).is_ok_and(|id| id != Uuid::from(tenant))) =>
            {
                " That names another tenant than its tid."
            }
            Some(_) | None => "",
        };
        format!(
            "Its issuer (iss) {}; of its tenant and version it would be \"{this}\".{hint}",
            is(issuer)
        )
    }

    fn why_audience(&self, unverified: &Unverified) -> String {
        let audience = unverified.claim("aud");
        let uri = self.expectations.app_id_uri();
        let is_graphs = audience
            .and_then(Value::as_str)
            .is_some_and(|aud| MICROSOFT_GRAPH.contains(&aud));
        let hint = if is_graphs {
            " It is for Microsoft Graph: the app must ask for a scope of this API."
        } else {
            ""
        };
        format!(
            "Its audience (aud) {}; this API is \"{uri}\" or that id alone.{hint}",
            is(audience)
        )
    }
}

impl Unverified {
    fn parameter(&self, name: &str) -> Option<&Value> {
        self.header.as_ref()?.value(name)
    }

    fn claim(&self, name: &str) -> Option<&Value> {
        self.claims.as_ref()?.value(name)
    }

    fn time(&self, name: &str) -> Option<Duration> {
        self.claim(name)?
            .as_f64()
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    }

    fn summary(&self) -> Vec<(&'static str, String)> {
        let claims = [
            ("version", "ver"),
            ("tenant", "tid"),
            ("issuer", "iss"),
            ("audience", "aud"),
            ("app", "appid"),
            ("app", "azp"),
            ("user", "oid"),
            ("name", "name"),
            ("scopes", "scp"),
            ("roles", "roles"),
        ];
        let claims = claims.into_iter().filter_map(|(title, name)| {
            let value = self.claim(name)?;
            Some((
                title,
                value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned),
            ))
        });
        let times = [("issued", "iat"), ("valid from", "nbf"), ("expires", "exp")];
        let times = times
            .into_iter()
            .filter_map(|(title, name)| Some((title, at(self.time(name)?))));
        let key_id = self
            .parameter("kid")
            .map(|key_id| ("signing key", key_id.to_string()));
        claims.chain(times).chain(key_id).collect()
    }
}

fn decode(segment: &str) -> Option<Vec<u8>> {
    BASE64_URL_SAFE_NO_PAD.decode(segment).ok()
}

/// What keeps a text from being three segments of base64url, the first two JSON objects.
fn what_is_malformed(jwt: &str) -> String {
    let segments: Vec<_> = jwt.split('.').collect();
    if segments.len() != 3 {
        let encrypted = if segments.len() == 5 {
            " Five would be an encrypted token."
        } else {
            ""
        };
        let count = segments.len();
        return format!(
            "It has {count} segments, separated by dots; a signed token has three.{encrypted}"
        );
    }
    for (name, segment) in ["header", "claims", "signature"].into_iter().zip(segments) {
        if segment.is_empty() {
            return format!(
                "Its {name} {} empty.",
                if name == "claims" { "are" } else { "is" }
            );
        }
        let Some(json) = decode(segment) else {
            return what_is_no_base64url(name, segment);
        };
        if name != "signature"
            && let Some(problem) = Members::problem(&json)
        {
            return format!("In its {name}: {problem}.");
        }
    }
    "It is not three segments of base64url and JSON.".to_owned()
}

fn what_is_no_base64url(name: &str, segment: &str) -> String {
    let is_known =
        |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_');
    let what = match segment.chars().find(|&character| !is_known(character)) {
        Some('=') => "padding (=), which base64url in tokens does not have".to_owned(),
        Some(character @ ('+' | '/')) => {
            format!("{character:?}, which is base64 but not base64url")
        }
        Some(character) => format!("{character:?}, which is not base64url"),
        None => "a length or last character that base64url does not have: it is cut off".to_owned(),
    };
    format!("Its {name} has {what}.")
}

/// Without what a terminal would obey: the text may be anybody's.
fn printable(text: &str) -> String {
    let shown = |character: char| {
        let is_obeyed = character.is_control()
            || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if is_obeyed {
            character.escape_unicode().to_string()
        } else {
            character.to_string()
        }
    };
    text.chars().map(shown).collect()
}

/// "is missing", or what it is.
fn is(value: Option<&Value>) -> String {
    match value {
        None => "is missing".to_owned(),
        Some(Value::String(text)) if text.chars().count() > 200 => {
            format!("is a text of {} characters", text.chars().count())
        }
        Some(value) => format!("is {value}"),
    }
}

fn at(time: Duration) -> String {
    SystemTime::UNIX_EPOCH
        .checked_add(time)
        // What the year 9999 does not hold cannot be written.
        .filter(|_| time.as_secs() < 253_402_300_800)
        .map_or_else(
            || format!("{} s", time.as_secs()),
            |time| humantime::format_rfc3339_seconds(time).to_string(),
        )
}

fn between(from: Duration, to: Duration) -> String {
    humantime::format_duration(Duration::from_secs(to.saturating_sub(from).as_secs())).to_string()
}
