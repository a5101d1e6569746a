//! The verified caller, and one extractor per privilege.
//!
//! A handler that takes an [`Admin`], an [`Editor`] or a [`Reader`] is only called for a
//! caller who is one. None of them can be made any other way.

use std::{fmt, ops::Deref, sync::Arc};

use axum::{
    extract::{FromRef, FromRequestParts},
    http::request::Parts,
};

use crate::auth::{
    error::AuthError, extract, request_log::Caller, token::SignedClaims, verifier::Verifier,
};
use crate::ids::{Owner, Reach, TenantId, UserId};

/// Where Entra may have put the person's sign-in name, best first.
const EMAIL_CLAIMS: [&str; 4] = ["preferred_username", "upn", "unique_name", "email"];

/// The verified caller. As an extractor: anyone signed in, with or without roles.
///
/// Shared with the cache of verified tokens, so that a request with a known token copies nothing.
#[derive(Clone, Eq, PartialEq)]
pub struct Principal(Arc<Identity>);

/// What the claims say of the caller.
#[derive(Eq, PartialEq)]
struct Identity {
    user: UserId,
    name: String,
    email: String,
    tenant: TenantId,
    roles: Vec<String>,
    scopes: String,
}

/// An app role of the API's registration, as the `roles` claim spells it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// Sees and changes every task of their organisation.
    Admin,
    /// Sees, creates and changes their own tasks.
    Editor,
    /// Sees their own tasks.
    Reader,
}

impl Principal {
    /// Takes tenant, user and roles from claims whose signature has been checked.
    ///
    /// # Errors
    ///
    /// [`AuthError::AppOnly`] for an app, [`AuthError::MissingScope`] without the required scope
    /// (or, where none is required, without any: that keeps apps and ID tokens out), and
    /// [`AuthError::InvalidToken`] for a claim of the wrong type.
    pub(super) fn from_claims(
        claims: &SignedClaims,
        required_scope: Option<&str>,
    ) -> Result<Self, AuthError> {
        let user = claims.user()?;
        let roles = claims.roles()?;
        let scopes = claims.scopes()?;
        if claims.is_app_only() {
            return Err(AuthError::AppOnly);
        }
        let scopes = match (scopes, required_scope) {
            (Some(held), Some(required)) if held.split(' ').any(|scope| scope == required) => held,
            (Some(held), None) if !held.is_empty() => held,
            (_, Some(required)) => return Err(AuthError::MissingScope(required.to_owned())),
            (_, None) => return Err(AuthError::AppOnly),
        };
        Ok(Self(Arc::new(Identity {
            user,
            name: claims.text("name").unwrap_or("Unknown").to_owned(),
            email: EMAIL_CLAIMS
                .iter()
                .find_map(|name| claims.text(name))
                .unwrap_or_default()
                .to_owned(),
            tenant: claims.tenant()?,
            roles,
            scopes: scopes.to_owned(),
        })))
    }

    /// How many bytes of memory it holds, for a bound on how many of them are kept.
    pub(super) fn bytes(&self) -> usize {
        let Identity {
            name,
            email,
            roles,
            scopes,
            ..
        } = &*self.0;
        let roles: usize = roles
            .iter()
            .map(|role| size_of::<String>() + role.len())
            .sum();
        size_of::<Identity>() + name.len() + email.len() + scopes.len() + roles
    }

    /// The caller's organisation.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.0.tenant
    }

    /// The caller as the owner of what they create.
    #[must_use]
    pub fn owner(&self) -> Owner {
        Owner {
            tenant: self.0.tenant,
            user: self.0.user,
        }
    }

    /// The caller's name for other people, `"Unknown"` if the token has none.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The caller's sign-in name, which may be an email address; empty if the token has none.
    /// It can change and be given to someone else, so it decides nothing.
    #[must_use]
    pub fn email(&self) -> &str {
        &self.0.email
    }

    /// The caller's app roles, as the token spells them.
    #[must_use]
    pub fn roles(&self) -> &[String] {
        &self.0.roles
    }

    /// What the caller lets the app do in their name, separated by spaces.
    #[must_use]
    pub fn scopes(&self) -> &str {
        &self.0.scopes
    }

    /// Which of their organisation's tasks the caller may see, and with the role for it, change.
    #[must_use]
    pub fn reach(&self) -> Reach {
        if self.has(Role::Admin) {
            Reach::Tenant
        } else {
            Reach::User(self.0.user)
        }
    }

    fn has(&self, role: Role) -> bool {
        self.0.roles.iter().any(|held| held == role.as_str())
    }

    fn require(self, required: &'static [Role]) -> Result<Self, AuthError> {
        if required.iter().any(|&role| self.has(role)) {
            Ok(self)
        } else {
            Err(AuthError::MissingRole {
                required,
                held: self.0.roles.clone(),
            })
        }
    }
}

/// Name and email are a person's own business, not a log's.
impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Principal")
            .field("tenant", &self.0.tenant)
            .field("user", &self.0.user)
            .field("roles", &self.0.roles)
            .finish_non_exhaustive()
    }
}

impl Role {
    /// The role as the `roles` claim spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "Admin",
            Self::Editor => "Editor",
            Self::Reader => "Reader",
        }
    }
}

impl<S> FromRequestParts<S> for Principal
where
    Arc<Verifier>: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = AuthError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, AuthError> {
        let caller = parts
            .extensions
            .get::<Caller>()
            .cloned()
            .unwrap_or_default();
        let unverified_jwt = extract::unverified_jwt(&parts.headers)?;
        let verifier = Arc::<Verifier>::from_ref(state);
        let principal = verifier.verify(unverified_jwt, &caller).await?;
        verifier.admit(&principal)?;
        Ok(principal)
    }
}

/// Declares a privilege: a [`Principal`] with at least one of the roles.
macro_rules! privilege {
    ($(#[$doc:meta])* $name:ident, $is:ident: $($role:ident),+) => {
        impl Principal {
            /// Whether the caller has the privilege of this name.
            #[must_use]
            pub fn $is(&self) -> bool {
                $(self.has(Role::$role))||+
            }
        }

        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name(Principal);

        impl<S> FromRequestParts<S> for $name
        where
            Arc<Verifier>: FromRef<S>,
            S: Send + Sync,
        {
            type Rejection = AuthError;

            async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, AuthError> {
                let principal = Principal::from_request_parts(parts, state).await?;
                principal.require(&[$(Role::$role),+]).map(Self)
            }
        }

        impl Deref for $name {
            type Target = Principal;

            fn deref(&self) -> &Principal {
                &self.0
            }
        }
    };
}

privilege! {
    /// A caller who may see and change everything in their own organisation.
    Admin, is_admin: Admin
}

privilege! {
    /// A caller who may create tasks, and change what is within their reach.
    Editor, is_editor: Admin, Editor
}

privilege! {
    /// A caller who may see what is within their reach.
    Reader, is_reader: Admin, Editor, Reader
}
