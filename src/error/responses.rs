//! The error responses in `/openapi.json`. The attributes of the handlers name them.

use utoipa::IntoResponses;

use super::ErrorBody;

/// Any request that needs a verified caller.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "read by the derive, never constructed")]
pub(crate) enum Auth {
    /// More than one `Authorization` header, or an empty token
    #[response(status = 400, headers(("WWW-Authenticate" = String, description = "Why the credentials are rejected (RFC 6750)")))]
    MalformedCredentials(ErrorBody),
    /// Not signed in, or the token is not valid
    #[response(status = 401, headers(("WWW-Authenticate" = String, description = "Why the credentials are rejected (RFC 6750)")))]
    NotAuthenticated(ErrorBody),
    /// The organization, the role or the scope does not permit this
    #[response(status = 403, headers(("WWW-Authenticate" = String, description = "Why the credentials are rejected (RFC 6750)")))]
    NotPermitted(ErrorBody),
    /// The request took too long
    #[response(status = 408)]
    Timeout(ErrorBody),
    /// The organization sends too many requests
    #[response(status = 429, headers(("Retry-After" = i64, description = "Seconds until the next attempt")))]
    TooManyRequests(ErrorBody),
}

/// Any request that needs signing keys or the store.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "read by the derive, never constructed")]
pub(crate) enum Unavailable {
    /// Signing keys or tasks are unavailable now
    #[response(status = 503, headers(("Retry-After" = i64, description = "Seconds until the next attempt")))]
    Unavailable(ErrorBody),
}

/// An invalid path, query or body.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "read by the derive, never constructed")]
pub(crate) enum Invalid {
    /// The path, the query or the body is not valid
    #[response(status = 422)]
    Invalid(ErrorBody),
}

/// A body that is not accepted.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "read by the derive, never constructed")]
pub(crate) enum Body {
    /// The body is larger than 64 KiB
    #[response(status = 413)]
    TooLarge(ErrorBody),
    /// The body is not sent as JSON
    #[response(status = 415)]
    MediaType(ErrorBody),
}
