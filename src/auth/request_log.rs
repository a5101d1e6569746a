//! What is known so far of who sent a request, for whoever has to tell of it afterwards.

use std::sync::{Arc, OnceLock};

use crate::ids::{Owner, TenantId};

/// Who sent a request: a request extension that the extractors fill in and the request's log line reads.
/// It decides nothing.
#[derive(Clone, Debug, Default)]
pub struct Caller(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    unverified_tenant: OnceLock<TenantId>,
    proven: OnceLock<Owner>,
}

impl Caller {
    /// The tenant that the caller's token claims, whoever made the token.
    #[must_use]
    pub fn unverified_tenant(&self) -> Option<TenantId> {
        self.0.unverified_tenant.get().copied()
    }

    /// Tenant and user, once a signature has proven them; whether they may come in is another question.
    #[must_use]
    pub fn proven(&self) -> Option<Owner> {
        self.0.proven.get().copied()
    }

    pub(super) fn claims(&self, unverified_tenant: TenantId) {
        // Of a request there is one caller: a second word on it changes nothing.
        let _ = self.0.unverified_tenant.set(unverified_tenant);
    }

    pub(super) fn proves(&self, owner: Owner) {
        let _ = self.0.proven.set(owner);
    }
}
