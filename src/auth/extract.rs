//! From a request to a verified caller: the bearer header, and one extractor per privilege.
//!
//! axum calls a handler that takes an [`Admin`], an [`Editor`] or a [`Reader`] only for a caller
//! with that privilege. Nothing else creates these types.

use std::sync::Arc;

use axum::{
    extract::{FromRef, FromRequestParts},
    http::{HeaderMap, header::AUTHORIZATION, request::Parts},
};

use super::{
    error::{AuthError, InvalidToken, MalformedToken},
    principal::Principal,
    request_log::RequestLog,
    role::Coverage,
    verifier::Verifier,
};
use crate::ids::Reach;

/// A caller who may delete every task of their tenant.
#[derive(Clone, Debug)]
pub struct Admin(Principal);

/// A caller who may create tasks, and change those within [`Editor::changeable`].
#[derive(Clone, Debug)]
pub struct Editor(Principal, Reach);

/// A caller who may see the tasks within [`Reader::visible`].
#[derive(Clone, Debug)]
pub struct Reader(Principal, Reach);

impl Admin {
    /// The verified caller.
    pub fn principal(&self) -> &Principal {
        &self.0
    }
}

impl Editor {
    /// The verified caller.
    pub fn principal(&self) -> &Principal {
        &self.0
    }

    /// The tasks that the caller may change.
    pub fn changeable(&self) -> Reach {
        self.1
    }
}

impl Reader {
    /// The verified caller.
    pub fn principal(&self) -> &Principal {
        &self.0
    }

    /// The tasks that the caller may see.
    pub fn visible(&self) -> Reach {
        self.1
    }
}

/// Any signed-in user, with or without roles.
impl<S> FromRequestParts<S> for Principal
where
    Arc<Verifier>: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = AuthError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, AuthError> {
        let log = parts.extensions.get::<RequestLog>();
        let log = log.cloned().unwrap_or_default();
        let unverified_jwt = bearer_token(&parts.headers)?;
        let verifier = Arc::<Verifier>::from_ref(state);
        verifier.verify(unverified_jwt, &log).await
    }
}

/// Implements the extractor of a privilege: verifies the caller, then calls `$check`.
macro_rules! extractor {
    ($privilege:ident, $check:expr) => {
        impl<S> FromRequestParts<S> for $privilege
        where
            Arc<Verifier>: FromRef<S>,
            S: Send + Sync,
        {
            type Rejection = AuthError;

            async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, AuthError> {
                let check: fn(Principal) -> Result<Self, AuthError> = $check;
                check(Principal::from_request_parts(parts, state).await?)
            }
        }
    };
}

extractor!(Admin, |principal| {
    principal.require(|permissions| permissions.delete)?;
    Ok(Self(principal))
});

extractor!(Editor, |principal| {
    principal.require(|permissions| permissions.change != Coverage::Nothing)?;
    let changeable = principal.reach(principal.permissions().change);
    Ok(Self(principal, changeable))
});

extractor!(Reader, |principal| {
    principal.require(|permissions| permissions.see != Coverage::Nothing)?;
    let visible = principal.reach(principal.permissions().see);
    Ok(Self(principal, visible))
});

/// The token of the one `Authorization: Bearer …` header (RFC 6750, section 2.1), unverified.
///
/// Two headers are rejected, because a proxy in front may have checked the other one.
fn bearer_token(headers: &HeaderMap) -> Result<&str, AuthError> {
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
        return Err(AuthError::NotBearer);
    }
    match str::from_utf8(token.trim_ascii()) {
        Ok("") => Err(AuthError::MalformedCredentials),
        Ok(token) => Ok(token),
        Err(_) => Err(InvalidToken::Malformed(MalformedToken::NotText).into()),
    }
}
