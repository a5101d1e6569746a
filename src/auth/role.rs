//! The app roles of the API's registration, and what each of them permits.
//!
//! This is the only table of permissions. The extractors and `token inspect` read it.

use strum::{EnumString, IntoStaticStr, VariantArray};

/// An app role, named as in the `roles` claim.
#[derive(Clone, Copy, Debug, EnumString, Eq, IntoStaticStr, PartialEq, VariantArray)]
pub enum Role {
    /// Sees, changes and deletes every task of the tenant.
    Admin,
    /// Sees, creates and changes their own tasks.
    Editor,
    /// Sees their own tasks.
    Reader,
}

/// Which tasks of a tenant a permission covers.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Coverage {
    /// No task.
    #[default]
    Nothing,
    /// The user's own tasks.
    Own,
    /// Every task of the tenant.
    Tenant,
}

/// What a user may do with tasks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Permissions {
    /// Which tasks the user may see.
    pub see: Coverage,
    /// Which tasks the user may change. A user who may change their own tasks may create tasks.
    pub change: Coverage,
    /// Whether the user may delete any task of the tenant.
    pub delete: bool,
}

impl Role {
    const fn permissions(self) -> Permissions {
        use Coverage::{Nothing, Own, Tenant};
        let (see, change, delete) = match self {
            Self::Admin => (Tenant, Tenant, true),
            Self::Editor => (Own, Own, false),
            Self::Reader => (Own, Nothing, false),
        };
        Permissions {
            see,
            change,
            delete,
        }
    }

    /// The roles as a list for a sentence.
    pub fn join(roles: &[Self]) -> String {
        let names: Vec<_> = roles.iter().map(|&role| <&str>::from(role)).collect();
        names.join(", ")
    }

    /// The roles whose permissions `permit` accepts.
    pub(super) fn permitting(permit: fn(Permissions) -> bool) -> Vec<Self> {
        let roles = Self::VARIANTS.iter().copied();
        roles.filter(|role| permit(role.permissions())).collect()
    }
}

/// A hint for the log if a token has roles, and none of them is a role of this service.
pub(crate) fn unknown_roles_hint(held: &[String]) -> &'static str {
    if held.is_empty() || held.iter().any(|role| role.parse::<Role>().is_ok()) {
        ""
    } else {
        "; none of them is an app role of this API: the tenant assigned roles of another kind, or \
         emits groups as roles (emit_as_roles)"
    }
}

impl Permissions {
    /// What the roles of a token permit together. Unknown roles permit nothing.
    pub(super) fn of(roles: &[String]) -> Self {
        let known = roles.iter().filter_map(|role| role.parse::<Role>().ok());
        known
            .map(Role::permissions)
            .fold(Self::default(), |sum, role| Self {
                see: sum.see.max(role.see),
                change: sum.change.max(role.change),
                delete: sum.delete || role.delete,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeing_and_changing_are_separate_permissions() {
        let roles = ["Reader".to_owned(), "Editor".to_owned(), "admin".to_owned()];
        let permissions = Permissions::of(&roles);
        assert_eq!(permissions.see, Coverage::Own);
        assert_eq!(permissions.change, Coverage::Own);
        assert!(!permissions.delete);
        assert_eq!(Permissions::of(&[]), Permissions::default());
    }
}
