//! The verified caller.

use std::{fmt, sync::Arc};

use super::{
    error::AuthError,
    role::{Coverage, Permissions, Role},
    token::claims::SignedClaims,
};
use crate::ids::{Owner, Reach, TenantId, UserId};

/// The claims that may contain the user's sign-in name. The first one present is used.
const EMAIL_CLAIMS: [&str; 4] = ["preferred_username", "upn", "unique_name", "email"];

/// The verified caller. Only [`Verifier::verify`](super::Verifier::verify) creates one.
///
/// Shared with the cache of verified tokens: a request with a cached token does not copy it.
#[derive(Clone, Eq, PartialEq)]
pub struct Principal(Arc<Identity>);

#[derive(Eq, PartialEq)]
struct Identity {
    user: UserId,
    name: String,
    email: String,
    tenant: TenantId,
    roles: Vec<String>,
    permissions: Permissions,
    scopes: String,
}

impl Principal {
    /// Reads the caller from claims whose signature was verified.
    ///
    /// A token without an `scp` claim belongs to an app or is an ID token: both are rejected.
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
        // Entra's default for an app's own token: no `idtyp` and no `scp`.
        let scopes = scopes.ok_or(AuthError::AppOnly)?;
        match required_scope {
            Some(required) if !scopes.split(' ').any(|scope| scope == required) => {
                return Err(AuthError::MissingScope {
                    required: required.to_owned(),
                    held: scopes,
                });
            }
            None if scopes.is_empty() => return Err(AuthError::AppOnly),
            Some(_) | None => {}
        }
        let email = EMAIL_CLAIMS.iter().find_map(|name| claims.text(name));
        // The sign-in name of a guest is rewritten, such as ada_contoso.com#EXT#@fabrikam.com.
        let email = match email {
            Some(rewritten) if rewritten.contains('#') => {
                Some(claims.text("email").unwrap_or(rewritten))
            }
            email => email,
        };
        Ok(Self(Arc::new(Identity {
            user,
            name: claims.text("name").unwrap_or_else(|| "Unknown".to_owned()),
            email: email.unwrap_or_default(),
            tenant: claims.tenant()?,
            permissions: Permissions::of(&roles),
            roles,
            scopes,
        })))
    }

    /// Size in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let identity = &*self.0;
        let roles = identity.roles.iter();
        let roles: usize = roles.map(|role| size_of::<String>() + role.len()).sum();
        let texts = identity.name.len() + identity.email.len() + identity.scopes.len();
        size_of::<Identity>() + texts + roles
    }

    /// The caller's tenant: the `tid` claim.
    pub fn tenant(&self) -> TenantId {
        self.0.tenant
    }

    /// The caller as the owner of tasks.
    pub fn owner(&self) -> Owner {
        Owner {
            tenant: self.0.tenant,
            user: self.0.user,
        }
    }

    /// The caller's display name; `"Unknown"` if the token has none.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The caller's sign-in name; empty if the token has none.
    ///
    /// It can change and can be assigned to another user. Never authorize by it.
    pub fn email(&self) -> &str {
        &self.0.email
    }

    /// The `roles` claim, unknown roles included.
    pub fn roles(&self) -> &[String] {
        &self.0.roles
    }

    /// The `scp` claim: scopes separated by spaces.
    pub fn scopes(&self) -> &str {
        &self.0.scopes
    }

    /// What the caller's roles permit.
    pub fn permissions(&self) -> Permissions {
        self.0.permissions
    }

    /// Rejects the caller unless `permit` accepts the permissions of their roles.
    pub(super) fn require(&self, permit: fn(Permissions) -> bool) -> Result<(), AuthError> {
        if permit(self.0.permissions) {
            return Ok(());
        }
        Err(AuthError::MissingRole {
            required: Role::permitting(permit),
            held: self.0.roles.clone(),
        })
    }

    /// The tasks that a permission covers. Call [`Self::require`] first: it rejects `Nothing`.
    pub(super) fn reach(&self, coverage: Coverage) -> Reach {
        match coverage {
            Coverage::Tenant => Reach::Tenant,
            Coverage::Own | Coverage::Nothing => Reach::User(self.0.user),
        }
    }
}

/// Without name and email: personal data does not belong in a log.
impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Principal")
            .field("tenant", &self.0.tenant)
            .field("user", &self.0.user)
            .field("roles", &self.0.roles)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(name: &str, email: &str, scopes: &str, roles: &[&str]) -> Principal {
        let roles: Vec<_> = roles.iter().map(|&role| role.to_owned()).collect();
        let id = "11111111-1111-4111-8111-111111111111";
        Principal(Arc::new(Identity {
            user: id.parse().unwrap(),
            name: name.to_owned(),
            email: email.to_owned(),
            tenant: id.parse().unwrap(),
            permissions: Permissions::of(&roles),
            roles,
            scopes: scopes.to_owned(),
        }))
    }

    #[test]
    fn size_in_memory_includes_every_text() {
        let empty = principal("", "", "", &[]).bytes();
        assert_eq!(empty, size_of::<Identity>());
        let text = "x".repeat(1000);
        let role = size_of::<String>() + 1000;
        for (principal, bytes) in [
            (principal(&text, "", "", &[]), 1000),
            (principal("", &text, "", &[]), 1000),
            (principal("", "", &text, &[]), 1000),
            (principal("", "", "", &[&text, &text]), 2 * role),
            (principal(&text, &text, &text, &[&text]), 3000 + role),
        ] {
            assert_eq!(principal.bytes() - empty, bytes);
        }
    }

    #[test]
    fn debug_output_has_neither_name_nor_email() {
        let principal = principal("Ada", "ada@contoso.example", "", &["Admin"]);
        let output = format!("{principal:?}");
        assert!(output.contains("11111111-1111") && output.contains("Admin"));
        assert!(!output.contains("Ada") && !output.contains("ada@"));
    }
}
