//! The one `Authorization: Bearer …` header of a request (RFC 6750, section 2.1).

use axum::http::{HeaderMap, header::AUTHORIZATION};

use crate::auth::error::{AuthError, InvalidToken};

/// The token as sent, not verified in any way.
///
/// # Errors
///
/// [`AuthError::MissingToken`] without a bearer token, [`AuthError::MalformedCredentials`]
/// with two headers or an empty token: of two headers, an intermediary may have checked the other.
pub(super) fn unverified_jwt(headers: &HeaderMap) -> Result<&str, AuthError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(AuthError::MissingToken)?;
    if values.next().is_some() {
        return Err(AuthError::MalformedCredentials);
    }
    let value = value.as_bytes();
    let (scheme, token) = match value.iter().position(|&byte| byte == b' ') {
        Some(space) => value.split_at(space),
        None => (value, &[][..]),
    };
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err(AuthError::MissingToken);
    }
    match str::from_utf8(token.trim_ascii()) {
        Ok("") => Err(AuthError::MalformedCredentials),
        Ok(token) => Ok(token),
        Err(_) => Err(InvalidToken::Malformed.into()),
    }
}
