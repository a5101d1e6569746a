//! Every failure, and what the caller is told of it.
//!
//! The only place that names a status or a challenge for a failure. No match has a `_` arm,
//! so a new reason must choose its answer here; reasons meant for our own logs end here too.

use std::{borrow::Cow, time::Duration};

use axum::{
    Json,
    http::{
        HeaderValue, StatusCode,
        header::{RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use serde::Serialize;
use thiserror::Error;
use utoipa::ToSchema;

use crate::{
    auth::{AuthError, InvalidToken, NotReady, Role},
    tasks::{
        request::{FieldError, InputError, MAX_BODY_BYTES},
        store::StoreError,
    },
};

/// When a client may try again after the store failed.
const STORE_RETRY_AFTER: Duration = Duration::from_secs(5);

/// When a tenant that was too fast may try again: requests are counted by the second.
const RATE_RETRY_AFTER: Duration = Duration::from_secs(1);

/// When a probe may ask again whether the service is ready.
const READY_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Anything that keeps a request from its answer.
#[derive(Debug, Error)]
pub enum ApiError {
    /// The caller is not who they should be.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The caller sent what cannot be understood.
    #[error(transparent)]
    Input(#[from] InputError),
    /// There is no such task within the caller's reach.
    #[error("task not found")]
    TaskNotFound,
    /// The store cannot answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Requests could not be served now.
    #[error("not ready: {0}")]
    NotReady(#[from] NotReady),
    /// No route has this path.
    #[error("no such route")]
    RouteNotFound,
    /// The route has no such method; the router says in `Allow` which it has.
    #[error("method not allowed")]
    MethodNotAllowed,
    /// The request did not arrive, or was not answered, in time.
    #[error("request timed out")]
    Timeout,
}

/// What the caller gets to see.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    detail: Cow<'static, str>,
    challenge: Option<Challenge>,
    retry_after: Option<Duration>,
    errors: Vec<FieldError>,
}

/// A `WWW-Authenticate` header (RFC 6750, section 3).
#[derive(Debug)]
enum Challenge {
    /// No credentials: no error code either.
    Bare,
    InvalidRequest(&'static str),
    InvalidToken(&'static str),
    InsufficientScope {
        description: &'static str,
        scope: Option<String>,
    },
}

/// What the log and the counters are told of a failure: an extension of its answer, of which nothing is sent.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    /// Why, as one word of a closed set.
    pub(crate) reason: &'static str,
    /// What was decided, if it is worth an audit.
    pub(crate) audit: Option<&'static str>,
    /// More of it, for our own eyes.
    pub(crate) cause: Option<String>,
}

/// Every failure's body.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub(crate) struct RefusalBody<'a> {
    /// A sentence for a person.
    detail: &'a str,
    /// What is wrong with each member, where that is what was refused.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(required = false)]
    errors: &'a [FieldError],
}

impl ApiError {
    /// The reason as one word of a closed set, for logs and counters.
    fn reason(&self) -> &'static str {
        match self {
            Self::Auth(error) => error.reason(),
            Self::Input(InputError::Invalid(_)) => "invalid_input",
            Self::Input(InputError::TooLarge) => "too_large",
            Self::Input(InputError::MediaType) => "media_type",
            Self::TaskNotFound => "task_not_found",
            Self::Store(StoreError::Unavailable(_)) => "store_unavailable",
            Self::Store(StoreError::Full { .. }) => "too_many_tasks",
            Self::NotReady(NotReady::NoKeys) => "no_keys",
            Self::RouteNotFound => "route_not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Timeout => "timeout",
        }
    }

    /// The status and the sentence that a caller is told.
    #[must_use]
    pub fn told(self) -> (StatusCode, Cow<'static, str>) {
        let Refusal { status, detail, .. } = self.refusal();
        (status, detail)
    }

    fn refused(&self) -> Refused {
        let (audit, cause) = match self {
            Self::Auth(error @ (AuthError::InvalidToken(_) | AuthError::MissingRole { .. })) => {
                (error.decision(), Some(error.to_string()))
            }
            Self::Auth(error) => (error.decision(), None),
            Self::Store(error) => (None, Some(error.to_string())),
            Self::Input(_)
            | Self::TaskNotFound
            | Self::NotReady(_)
            | Self::RouteNotFound
            | Self::MethodNotAllowed
            | Self::Timeout => (None, None),
        };
        Refused {
            reason: self.reason(),
            audit,
            cause,
        }
    }

    fn refusal(self) -> Refusal {
        match self {
            Self::Auth(error) => auth_refusal(error),
            Self::Input(InputError::Invalid(errors)) => {
                let detail = sentence(&errors);
                Refusal {
                    errors,
                    ..Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
                }
            }
            Self::Input(InputError::TooLarge) => Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("The body is larger than {} KiB", MAX_BODY_BYTES / 1024),
            ),
            Self::Input(InputError::MediaType) => Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "The body must be sent as application/json",
            ),
            Self::TaskNotFound => Refusal::new(StatusCode::NOT_FOUND, "Task not found"),
            Self::Store(StoreError::Unavailable(_)) => {
                Refusal::unavailable("Tasks are unavailable, try again later", STORE_RETRY_AFTER)
            }
            Self::Store(StoreError::Full { max }) => Refusal::new(
                StatusCode::CONFLICT,
                format!("Your organisation has {max} tasks, as many as it may: delete some first"),
            ),
            Self::NotReady(NotReady::NoKeys) => Refusal::unavailable(
                "The signing keys of no allowed organisation are at hand yet",
                READY_RETRY_AFTER,
            ),
            Self::RouteNotFound => Refusal::new(StatusCode::NOT_FOUND, "Not Found"),
            Self::MethodNotAllowed => {
                Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
            }
            Self::Timeout => Refusal::new(StatusCode::REQUEST_TIMEOUT, "The request took too long"),
        }
    }
}

fn auth_refusal(error: AuthError) -> Refusal {
    match error {
        AuthError::MissingToken => {
            Refusal::new(StatusCode::UNAUTHORIZED, "Not authenticated").challenged(Challenge::Bare)
        }
        AuthError::MalformedCredentials => {
            let detail = "Send exactly one Authorization header with one token";
            Refusal::new(StatusCode::BAD_REQUEST, detail)
                .challenged(Challenge::InvalidRequest(detail))
        }
        AuthError::InvalidToken(reason) => {
            let detail = description(reason);
            Refusal::new(StatusCode::UNAUTHORIZED, detail)
                .challenged(Challenge::InvalidToken(detail))
        }
        AuthError::TenantNotAllowed(tenant) => Refusal::new(
            StatusCode::FORBIDDEN,
            format!("Tenant {tenant} is not allowed to access this application"),
        ),
        AuthError::AppOnly => {
            let description = "This API serves people; tokens issued to an app alone are refused";
            Refusal::new(StatusCode::FORBIDDEN, description).challenged(
                Challenge::InsufficientScope {
                    description,
                    scope: None,
                },
            )
        }
        AuthError::MissingScope(scope) => Refusal::new(
            StatusCode::FORBIDDEN,
            format!("The token lacks the scope {scope}"),
        )
        .challenged(Challenge::InsufficientScope {
            description: "A scope is missing",
            scope: Some(scope),
        }),
        AuthError::MissingRole { required, held } => {
            let required: Vec<_> = required.iter().copied().map(Role::as_str).collect();
            let held = if held.is_empty() {
                "none".to_owned()
            } else {
                held.join(", ")
            };
            Refusal::new(
                StatusCode::FORBIDDEN,
                format!(
                    "Insufficient permissions. Required: {}. Your roles: {held}",
                    required.join(", ")
                ),
            )
            .challenged(Challenge::InsufficientScope {
                description: "A role is missing",
                scope: None,
            })
        }
        AuthError::TooManyRequests => Refusal {
            retry_after: Some(RATE_RETRY_AFTER),
            ..Refusal::new(
                StatusCode::TOO_MANY_REQUESTS,
                "Your organisation sends too many requests, try again in a second",
            )
        },
        AuthError::KeysUnavailable { retry_after } => {
            Refusal::unavailable("Signing keys are unavailable, try again later", retry_after)
        }
    }
}

/// What the sender of a bad token is told: enough to mend an honest mistake, and nothing
/// from the token itself.
fn description(reason: InvalidToken) -> &'static str {
    match reason {
        InvalidToken::TooLong => "Token is too long",
        InvalidToken::Malformed | InvalidToken::DuplicateMember => "Token is malformed",
        InvalidToken::Algorithm => "Token must be signed with RS256",
        InvalidToken::UnsupportedHeader => "Token header is not supported",
        InvalidToken::KeyId => "Token header has no usable key id (kid)",
        InvalidToken::MissingTenant => "Token missing tenant ID (tid) claim",
        InvalidToken::MalformedTenant => "Token tenant ID (tid) claim is not a GUID",
        InvalidToken::Issuer => "Token issuer is not accepted",
        InvalidToken::Audience => "Token was not issued for this API",
        InvalidToken::Expired => "Token has expired",
        InvalidToken::NotYetValid => "Token is not valid yet",
        InvalidToken::Claim(_) => "Token lacks a required claim or has one of the wrong type",
        InvalidToken::UnknownKey | InvalidToken::RevokedKey => "Unable to find signing key",
        InvalidToken::Signature => "Token signature is invalid",
    }
}

/// All field errors as one sentence for a person: `title: Field required`.
fn sentence(errors: &[FieldError]) -> String {
    let parts = errors
        .iter()
        .map(|error| format!("{}: {}", error.loc.last().unwrap_or(&"request"), error.msg));
    parts.collect::<Vec<_>>().join("; ")
}

impl Refusal {
    fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            detail: detail.into(),
            challenge: None,
            retry_after: None,
            errors: Vec::new(),
        }
    }

    fn unavailable(detail: &'static str, retry_after: Duration) -> Self {
        Self {
            retry_after: Some(retry_after),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        }
    }

    fn challenged(self, challenge: Challenge) -> Self {
        Self {
            challenge: Some(challenge),
            ..self
        }
    }
}

impl Challenge {
    /// Every part is a fixed text or a setting that was checked to be a scope token, so the
    /// header is always valid.
    fn to_header(&self) -> Option<HeaderValue> {
        let value = match self {
            Self::Bare => return Some(HeaderValue::from_static("Bearer")),
            Self::InvalidRequest(description) => {
                format!("Bearer error=\"invalid_request\", error_description=\"{description}\"")
            }
            Self::InvalidToken(description) => {
                format!("Bearer error=\"invalid_token\", error_description=\"{description}\"")
            }
            Self::InsufficientScope {
                description,
                scope: None,
            } => {
                format!("Bearer error=\"insufficient_scope\", error_description=\"{description}\"")
            }
            Self::InsufficientScope {
                description,
                scope: Some(scope),
            } => format!(
                "Bearer error=\"insufficient_scope\", scope=\"{scope}\", error_description=\"{description}\""
            ),
        };
        HeaderValue::try_from(value).ok()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let refused = self.refused();
        let refusal = self.refusal();
        let body = RefusalBody {
            detail: &refusal.detail,
            errors: &refusal.errors,
        };
        let mut response = (refusal.status, Json(body)).into_response();
        response.extensions_mut().insert(refused);
        let headers = response.headers_mut();
        if let Some(challenge) = refusal.challenge.as_ref().and_then(Challenge::to_header) {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if let Some(wait) = refusal.retry_after {
            // Rounded up, so that who waits as long is not too early.
            let seconds = (wait + Duration::from_millis(999)).as_secs().max(1);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// Extractors refuse before a handler runs; their reasons get the same answers.
impl IntoResponse for AuthError {
    fn into_response(self) -> Response {
        ApiError::from(self).into_response()
    }
}

impl IntoResponse for InputError {
    fn into_response(self) -> Response {
        ApiError::from(self).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_cannot_be_reached_answers_503_with_retry_after() {
        let error = StoreError::Unavailable("connection refused".into());
        let response = ApiError::from(error).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[RETRY_AFTER], "5");
    }
}
