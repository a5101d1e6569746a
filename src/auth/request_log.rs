//! What the request log knows about the caller.

use std::sync::{Arc, OnceLock};

use crate::ids::{Owner, TenantId};

/// A request extension: the extractors fill it in, and the request's log line reads it.
/// Authorization never depends on it.
#[derive(Clone, Debug, Default)]
pub struct RequestLog(Arc<Fields>);

#[derive(Debug, Default)]
struct Fields {
    unverified_tenant: OnceLock<TenantId>,
    owner: OnceLock<Owner>,
}

impl RequestLog {
    /// The tenant that the token claims, before its signature is verified.
    pub fn unverified_tenant(&self) -> Option<TenantId> {
        self.0.unverified_tenant.get().copied()
    }

    /// Tenant and user of a verified token, even if the request is rejected later.
    pub fn owner(&self) -> Option<Owner> {
        self.0.owner.get().copied()
    }

    pub(super) fn record_unverified_tenant(&self, tenant: TenantId) {
        // A request has one caller: the first value stays.
        let _ = self.0.unverified_tenant.set(tenant);
    }

    pub(super) fn record_owner(&self, owner: Owner) {
        let _ = self.0.owner.set(owner);
    }
}
