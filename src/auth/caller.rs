//! What is known so far of who sent a request, for whoever has to tell of it afterwards.

use std::sync::{Arc, OnceLock};

use super::principal::Principal;
use crate::ids::TenantId;

/// Who sent a request: a request extension that the extractors fill in and the request's log line reads.
/// It decides nothing.
#[derive(Clone, Debug, Default)]
pub struct Caller(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    unverified_tenant: OnceLock<TenantId>,
    principal: OnceLock<Principal>,
}

impl Caller {
    /// The tenant that the caller's token claims, whoever made the token.
    #[must_use]
    pub fn unverified_tenant(&self) -> Option<TenantId> {
        self.0.unverified_tenant.get().copied()
    }

    /// The caller, once proven.
    #[must_use]
    pub fn principal(&self) -> Option<&Principal> {
        self.0.principal.get()
    }

    pub(super) fn claims(&self, unverified_tenant: TenantId) {
        // Of a request there is one caller: a second word on it changes nothing.
        let _ = self.0.unverified_tenant.set(unverified_tenant);
    }

    pub(super) fn is(&self, principal: &Principal) {
        let _ = self.0.principal.set(principal.clone());
    }
}
