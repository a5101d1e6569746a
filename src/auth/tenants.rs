//! Who may sign in: the allow-list, the suspended tenants and the revoked keys. An operator may change
//! all of them while the service runs.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    num::NonZeroU32,
};

use super::error::InvalidToken;
use crate::ids::{KeyId, TenantId};

/// Which tenants and which signing keys are accepted, and the limits of single tenants.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Access {
    /// The tenants whose users may sign in, unless they are suspended.
    pub tenants: Tenants,
    /// Signing keys that are rejected even if Entra publishes them.
    pub revoked_keys: HashSet<KeyId>,
    /// Tenants that are rejected in open mode too.
    pub suspended: BTreeSet<TenantId>,
    /// What the registry says about a tenant.
    pub profiles: HashMap<TenantId, TenantProfile>,
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

/// The name and the limits of a tenant. The settings have the limits of the others.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TenantProfile {
    /// The name that users see.
    pub name: Option<String>,
    /// The maximum number of tasks.
    pub max_tasks: Option<NonZeroU32>,
    /// The maximum number of requests per second.
    pub rate_limit: Option<NonZeroU32>,
}

/// The content of the registry, which all replicas share.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RegistryContent {
    /// The tenants whose users may sign in.
    pub active: BTreeSet<TenantId>,
    /// The tenants that are rejected, although the settings may list them.
    pub suspended: BTreeSet<TenantId>,
    /// Signing keys that are rejected even if Entra publishes them.
    pub revoked_keys: HashSet<KeyId>,
    /// The names and limits of tenants that have any.
    pub profiles: HashMap<TenantId, TenantProfile>,
}

impl Tenants {
    /// Whether the list or open mode includes `tenant`.
    fn include(&self, tenant: TenantId) -> bool {
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

    fn listed_mut(&mut self) -> &mut BTreeSet<TenantId> {
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
    /// What the settings alone permit.
    pub fn from_settings(tenants: Tenants, revoked_keys: HashSet<KeyId>) -> Self {
        Self {
            tenants,
            revoked_keys,
            suspended: BTreeSet::new(),
            profiles: HashMap::new(),
        }
    }

    /// Adds the registry to the settings: its active tenants are allowed, its suspended ones are
    /// not, and keys that either revokes are revoked.
    #[must_use]
    pub fn with_registry(&self, registry: &RegistryContent) -> Self {
        let mut access = self.clone();
        let listed = access.tenants.listed_mut();
        listed.extend(&registry.active);
        listed.retain(|tenant| !registry.suspended.contains(tenant));
        let revoked_keys = registry.revoked_keys.iter().cloned();
        access.revoked_keys.extend(revoked_keys);
        access.suspended.clone_from(&registry.suspended);
        access.profiles.clone_from(&registry.profiles);
        access
    }

    /// Whether users of `tenant` may sign in.
    pub fn allows(&self, tenant: TenantId) -> bool {
        self.tenants.include(tenant) && !self.suspended.contains(&tenant)
    }

    /// Rejects a key that the operator has revoked.
    pub(super) fn check_key(&self, key_id: &KeyId) -> Result<(), InvalidToken> {
        if self.revoked_keys.contains(key_id) {
            return Err(InvalidToken::RevokedKey(key_id.clone()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(number: u8) -> TenantId {
        let id = format!("{number}1111111-1111-4111-8111-111111111111");
        id.parse().expect("a GUID")
    }

    #[test]
    fn suspended_tenants_are_rejected_in_every_mode() {
        let [settings, both, active, other] = [1, 2, 3, 4].map(tenant);
        let listed = BTreeSet::from([settings, both]);
        let registry = RegistryContent {
            active: BTreeSet::from([active]),
            suspended: BTreeSet::from([both]),
            ..RegistryContent::default()
        };
        for (tenants, allowed) in [
            (Tenants::Listed(listed.clone()), vec![settings, active]),
            (Tenants::Any { listed }, vec![settings, active, other]),
        ] {
            let access = Access::from_settings(tenants, HashSet::new());
            assert!(access.allows(both));
            let access = access.with_registry(&registry);
            let actual = [settings, both, active, other];
            let actual = actual.into_iter().filter(|&tenant| access.allows(tenant));
            assert_eq!(actual.collect::<Vec<_>>(), allowed);
            assert_eq!(*access.tenants.listed(), BTreeSet::from([settings, active]));
        }
    }
}
