//! Who may come in, and with which keys: what an operator may change while the service runs.

use std::collections::{BTreeSet, HashSet};

use uuid::uuid;

use crate::auth::{error::InvalidToken, keys::jwks::KeyId};
use crate::ids::TenantId;

/// The tenant of personal Microsoft accounts. It is no organisation, so "any organisation"
/// does not include it.
/// <https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference>
const PERSONAL_ACCOUNTS: TenantId = TenantId::new(uuid!("9188040d-6c67-4c5b-b112-36a304b66dad"));

/// Who may come in, and with which keys.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Access {
    /// The organisations whose people may sign in.
    pub tenants: Tenants,
    /// Signing keys that are not trusted, whatever Entra publishes.
    pub revoked_keys: HashSet<KeyId>,
}

/// The organisations whose people may sign in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Tenants {
    /// Any organisation: open mode.
    Any {
        /// Those that are expected: their keys are fetched ahead, as if they were listed.
        expected: BTreeSet<TenantId>,
    },
    /// These, and no others.
    Listed(BTreeSet<TenantId>),
}

impl Tenants {
    /// Whether people of `tenant` may come in.
    #[must_use]
    pub fn allow(&self, tenant: TenantId) -> bool {
        match self {
            Self::Any { .. } => tenant != PERSONAL_ACCOUNTS,
            Self::Listed(allowed) => allowed.contains(&tenant),
        }
    }

    /// Those whose keys are to be at hand before anyone asks.
    #[must_use]
    pub fn expected(&self) -> &BTreeSet<TenantId> {
        match self {
            Self::Any { expected } => expected,
            Self::Listed(allowed) => allowed,
        }
    }

    /// Whether the tenants are not listed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Any { .. })
    }
}

impl Access {
    /// Whether a key may be used at all.
    ///
    /// # Errors
    ///
    /// [`InvalidToken::RevokedKey`] if the operator has revoked it.
    pub(super) fn check_key(&self, key_id: &KeyId) -> Result<(), InvalidToken> {
        if self.revoked_keys.contains(key_id) {
            Err(InvalidToken::RevokedKey)
        } else {
            Ok(())
        }
    }
}
