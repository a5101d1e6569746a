//! Every failure, and what the client sees of it.
//!
//! Only this module assigns a status or a challenge to a failure. The matches that choose one have
//! no `_` arm, so a new reason does not compile until it has a response.

pub(crate) mod responses;

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
use strum::{IntoStaticStr, VariantNames};
use thiserror::Error;
use utoipa::ToSchema;

use crate::{
    auth::{AuthError, InvalidToken, NotReady, held_roles, role::Role},
    tasks::{
        StoreError,
        request::{FieldError, MAX_BODY_BYTES, RequestError},
    },
};

/// `Retry-After` when the store is unavailable.
const STORE_RETRY_AFTER: Duration = Duration::from_secs(5);

/// `Retry-After` when a tenant exceeds its rate limit, which counts requests per second.
const RATE_LIMIT_RETRY_AFTER: Duration = Duration::from_secs(1);

/// `Retry-After` for a probe of `/ready`.
const READY_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a request fails.
#[derive(Debug, Error, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum ApiError {
    /// The caller is not authenticated or not authorized.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The request is not valid.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The service cannot handle requests now.
    #[error(transparent)]
    NotReady(#[from] NotReady),
    /// There is no such task among those that the caller may touch.
    #[error("task not found")]
    TaskNotFound,
    /// No route has this path.
    #[error("route not found")]
    RouteNotFound,
    /// The route does not have this method. The router adds `Allow`.
    #[error("method not allowed")]
    MethodNotAllowed,
    /// No `Host`, or more than one.
    #[error("not exactly one Host header")]
    Host,
    /// The request was not read and answered in time.
    #[error("request timed out")]
    Timeout,
}

/// The response to a failure.
#[derive(Debug)]
struct ErrorResponse {
    status: StatusCode,
    detail: Cow<'static, str>,
    challenge: Option<Challenge>,
    retry_after: Option<Duration>,
}

/// A `WWW-Authenticate` header (RFC 6750, section 3).
#[derive(Debug)]
struct Challenge {
    /// The error code and its description. A request without credentials gets neither.
    error: Option<(&'static str, &'static str)>,
    scope: Option<String>,
}

/// A response extension for the request log and the metrics. The client does not see it.
#[derive(Clone, Debug)]
pub(crate) struct ErrorContext {
    /// The reason as one word of a closed set.
    pub(crate) reason: &'static str,
    /// The message for the audit log; `None` if the failure does not belong there.
    pub(crate) audit: Option<&'static str>,
    /// The error with its evidence, if the reason alone does not explain it.
    pub(crate) cause: Option<String>,
}

/// The body of every error.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub(crate) struct ErrorBody {
    /// A sentence for the user.
    detail: Cow<'static, str>,
    /// The invalid members, if the request itself is invalid.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<FieldError>,
}

impl ApiError {
    /// The status and the sentence that the client sees.
    pub fn status_and_detail(&self) -> (StatusCode, Cow<'static, str>) {
        let response = self.response();
        (response.status, response.detail)
    }

    fn response(&self) -> ErrorResponse {
        match self {
            Self::Auth(error) => auth_response(error),
            Self::Request(error) => request_response(error),
            Self::Store(error) => store_response(error),
            Self::NotReady(NotReady::NoKeys) => {
                let detail = "No signing keys have been loaded yet";
                ErrorResponse::unavailable(detail, READY_RETRY_AFTER)
            }
            Self::TaskNotFound => ErrorResponse::new(StatusCode::NOT_FOUND, "Task not found"),
            Self::RouteNotFound => ErrorResponse::new(StatusCode::NOT_FOUND, "Not Found"),
            Self::MethodNotAllowed => {
                ErrorResponse::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
            }
            Self::Host => {
                ErrorResponse::new(StatusCode::BAD_REQUEST, "Send exactly one Host header")
            }
            Self::Timeout => {
                ErrorResponse::new(StatusCode::REQUEST_TIMEOUT, "The request took too long")
            }
        }
    }

    fn context(&self) -> ErrorContext {
        let (reason, audit, cause) = match self {
            Self::Auth(error) => {
                let cause = Some(error.to_string());
                (error.reason(), error.audit_message(), cause)
            }
            Self::Store(error) => (error.into(), None, Some(error.to_string())),
            Self::Request(error) => (error.into(), None, None),
            Self::NotReady(error) => (error.into(), None, None),
            Self::TaskNotFound
            | Self::RouteNotFound
            | Self::MethodNotAllowed
            | Self::Host
            | Self::Timeout => (self.into(), None, None),
        };
        ErrorContext {
            reason,
            audit,
            cause,
        }
    }
}

fn auth_response(error: &AuthError) -> ErrorResponse {
    match error {
        AuthError::MissingToken | AuthError::NotBearer => {
            ErrorResponse::new(StatusCode::UNAUTHORIZED, "Not authenticated").challenge(None, None)
        }
        AuthError::MalformedCredentials => {
            let detail = "Send exactly one Authorization header with one token";
            let error = Some(("invalid_request", detail));
            ErrorResponse::new(StatusCode::BAD_REQUEST, detail).challenge(error, None)
        }
        AuthError::InvalidToken(invalid) => {
            let detail = description(invalid);
            let error = Some(("invalid_token", detail));
            ErrorResponse::new(StatusCode::UNAUTHORIZED, detail).challenge(error, None)
        }
        AuthError::TenantNotAllowed(tenant) => {
            let detail = format!("Tenant {tenant} is not allowed to access this application");
            ErrorResponse::new(StatusCode::FORBIDDEN, detail)
        }
        AuthError::AppOnly => {
            let detail = "This API serves users. Tokens that were issued to an app are rejected";
            let error = Some(("insufficient_scope", detail));
            ErrorResponse::new(StatusCode::FORBIDDEN, detail).challenge(error, None)
        }
        AuthError::MissingScope { required, .. } => {
            let detail = format!("The token lacks the scope {required}");
            let error = Some(("insufficient_scope", "A scope is missing"));
            let scope = Some(required.clone());
            ErrorResponse::new(StatusCode::FORBIDDEN, detail).challenge(error, scope)
        }
        AuthError::MissingRole { required, held } => {
            let required = Role::join(required);
            let held = held_roles(held);
            let detail =
                format!("Insufficient permissions. Required: {required}. Your roles: {held}");
            let error = Some(("insufficient_scope", "A role is missing"));
            ErrorResponse::new(StatusCode::FORBIDDEN, detail).challenge(error, None)
        }
        AuthError::TooManyRequests => {
            let detail = "Your organization sends too many requests. Try again in one second.";
            let response = ErrorResponse::new(StatusCode::TOO_MANY_REQUESTS, detail);
            response.retry_after(RATE_LIMIT_RETRY_AFTER)
        }
        AuthError::KeysUnavailable { retry_after } => {
            let detail = "Signing keys are unavailable. Try again later.";
            ErrorResponse::unavailable(detail, *retry_after)
        }
    }
}

fn request_response(error: &RequestError) -> ErrorResponse {
    match error {
        RequestError::Invalid(errors) => {
            ErrorResponse::new(StatusCode::UNPROCESSABLE_ENTITY, sentence(errors))
        }
        RequestError::TooLarge => {
            let detail = format!("The body is larger than {} KiB", MAX_BODY_BYTES / 1024);
            ErrorResponse::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
        }
        RequestError::MediaType => {
            let detail = "The body must be sent as application/json";
            ErrorResponse::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
        }
    }
}

fn store_response(error: &StoreError) -> ErrorResponse {
    match error {
        StoreError::Unavailable(_) => {
            let detail = "Tasks are unavailable. Try again later: repeating the request is safe.";
            ErrorResponse::unavailable(detail, STORE_RETRY_AFTER)
        }
        StoreError::Unacknowledged(_) => {
            let detail = "Tasks are unavailable. The task may have been created: look at the list \
                          before you try again.";
            ErrorResponse::unavailable(detail, STORE_RETRY_AFTER)
        }
        StoreError::KeyReused => {
            let detail = "The Idempotency-Key was used for another request. Use a new one.";
            ErrorResponse::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
        }
        StoreError::Full { max } => {
            let detail = format!(
                "Your organization has reached its limit of {max} tasks. \
                 Delete a task before creating another."
            );
            ErrorResponse::new(StatusCode::CONFLICT, detail)
        }
    }
}

/// What the sender of an invalid token sees: enough to fix an honest mistake, and nothing from the
/// token itself.
fn description(invalid: &InvalidToken) -> &'static str {
    match invalid {
        InvalidToken::TooLong { .. } => "Token is too long",
        InvalidToken::Malformed(_) | InvalidToken::DuplicateMember { .. } => "Token is malformed",
        InvalidToken::Algorithm(_) => "Token must be signed with RS256",
        InvalidToken::UnsupportedHeader(_) => "Token header is not supported",
        InvalidToken::KeyId(_) => "Token header has no usable key id (kid)",
        InvalidToken::MissingTenant => "Token missing tenant ID (tid) claim",
        InvalidToken::MalformedTenant(_) => "Token tenant ID (tid) claim is not a GUID",
        InvalidToken::Issuer { .. } => "Token issuer is not accepted",
        InvalidToken::Audience { .. } => "Token was not issued for this API",
        InvalidToken::Expired { .. } => "Token has expired",
        InvalidToken::NotYetValid { .. } => "Token is not valid yet",
        InvalidToken::Claim { .. } => "Token lacks a required claim or has one of the wrong type",
        InvalidToken::UnknownKey(_) | InvalidToken::RevokedKey(_) => "Unable to find signing key",
        InvalidToken::Signature(_) => "Token signature is invalid",
    }
}

/// All field errors as one sentence: `title: Field required`.
fn sentence(errors: &[FieldError]) -> String {
    let parts = errors.iter().map(|error| {
        let member = error.loc.last().unwrap_or(&"request");
        format!("{member}: {}", error.msg)
    });
    parts.collect::<Vec<_>>().join("; ")
}

impl ErrorResponse {
    fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            detail: detail.into(),
            challenge: None,
            retry_after: None,
        }
    }

    fn unavailable(detail: &'static str, retry_after: Duration) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(retry_after)
    }

    fn retry_after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    fn challenge(
        mut self,
        error: Option<(&'static str, &'static str)>,
        scope: Option<String>,
    ) -> Self {
        self.challenge = Some(Challenge { error, scope });
        self
    }
}

impl Challenge {
    /// Always `Some`: every part is a fixed text, or the required scope, which is a scope token.
    fn to_header(&self) -> Option<HeaderValue> {
        let Some((code, description)) = self.error else {
            return Some(HeaderValue::from_static("Bearer"));
        };
        let scope = self.scope.as_ref();
        let scope = scope.map_or_else(String::new, |scope| format!(" scope=\"{scope}\","));
        let value = format!("Bearer error=\"{code}\",{scope} error_description=\"{description}\"");
        HeaderValue::try_from(value).ok()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (response, context) = (self.response(), self.context());
        let errors = match self {
            Self::Request(RequestError::Invalid(errors)) => errors,
            _ => Vec::new(),
        };
        let detail = response.detail;
        let body = Json(ErrorBody { detail, errors });
        let (challenge, retry_after) = (response.challenge, response.retry_after);
        let mut response = (response.status, body).into_response();
        response.extensions_mut().insert(context);
        let headers = response.headers_mut();
        if let Some(challenge) = challenge.as_ref().and_then(Challenge::to_header) {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if let Some(wait) = retry_after {
            // Rounded up, so that a client that waits this long does not retry too early.
            let seconds = (wait + Duration::from_millis(999)).as_secs().max(1);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// Extractors reject a request before the handler runs.
impl IntoResponse for AuthError {
    fn into_response(self) -> Response {
        ApiError::from(self).into_response()
    }
}

impl IntoResponse for RequestError {
    fn into_response(self) -> Response {
        ApiError::from(self).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreachable_store_is_503_with_retry_after() {
        let error = StoreError::Unavailable("connection refused".into());
        let response = ApiError::from(error).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[RETRY_AFTER], "5");
    }
}
