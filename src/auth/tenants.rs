//! The allow-list and the revoked keys. An operator may change both while the service runs.

use std::collections::{BTreeSet, HashSet};

use super::error::InvalidToken;
use crate::ids::{KeyId, TenantId};

/// Which tenants and which signing keys are accepted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Access {
    /// The tenants whose users may sign in.
    pub tenants: Tenants,
    /// Signing keys that are rejected even if Entra publishes them.
    pub revoked_keys: HashSet<KeyId>,
}

/// The tenants whose users may sign in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Tenants {
    /// Open mode: the tenant of any organization.
    Any {
        /// The tenants whose keys are fetched in advance.
        listed: BTreeSet<TenantId>,
    },
    /// These tenants only.
    Listed(BTreeSet<TenantId>),
}

impl Tenants {
    /// Whether users of `tenant` may sign in.
    pub fn allow(&self, tenant: TenantId) -> bool {
        match self {
            Self::Any { .. } => tenant.is_organization(),
            Self::Listed(listed) => listed.contains(&tenant),
        }
    }

    /// The tenants whose keys are fetched in advance.
    pub fn listed(&self) -> &BTreeSet<TenantId> {
        match self {
            Self::Any { listed } | Self::Listed(listed) => listed,
        }
    }

    /// Whether this is open mode.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Any { .. })
    }
}

impl Access {
    /// Rejects a key that the operator has revoked.
    pub(super) fn check_key(&self, key_id: &KeyId) -> Result<(), InvalidToken> {
        if self.revoked_keys.contains(key_id) {
            return Err(InvalidToken::RevokedKey(key_id.clone()));
        }
        Ok(())
    }
}
