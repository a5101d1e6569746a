//! Combines the settings with the registry, and applies the result to the verifier.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::auth::{Access, RegistryContent, Tenants, Verifier};

/// The log target of changes to the allow-list and the revoked keys.
pub const AUDIT: &str = "tenant_tasks::audit";

/// Above this number of changed tenants, only their number is logged.
const MAX_LOGGED: usize = 20;

/// Who may sign in, from two sources. Either may change while the service runs.
pub struct AccessControl {
    verifier: Arc<Verifier>,
    sources: Mutex<Sources>,
}

struct Sources {
    settings: Access,
    registry: RegistryContent,
}

impl AccessControl {
    /// `settings` is what the verifier already uses.
    pub fn new(verifier: Arc<Verifier>, settings: Access) -> Self {
        let registry = RegistryContent::default();
        Self {
            verifier,
            sources: Mutex::new(Sources { settings, registry }),
        }
    }

    /// Applies what new settings permit.
    pub fn replace_settings(&self, settings: Access) {
        let mut sources = self.sources();
        sources.settings = settings;
        self.apply(&sources, "settings reloaded");
    }

    /// Applies the content of the registry.
    pub fn replace_registry(&self, registry: RegistryContent) {
        let mut sources = self.sources();
        if sources.registry != registry {
            sources.registry = registry;
            self.apply(&sources, "registry changed");
        }
    }

    /// Locked until the result is applied, so that an older result cannot replace a newer one.
    fn sources(&self) -> MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, sources: &Sources, event: &'static str) {
        let old = self.verifier.access();
        let new = sources.settings.with_registry(&sources.registry);
        self.verifier.replace_access(new);
        // After the change: a reader of the log may rely on it.
        log_changes(event, &old, &self.verifier.access());
    }
}

fn log_changes(event: &'static str, old: &Access, new: &Access) {
    if old == new {
        tracing::info!(target: AUDIT, "{event}; no changes");
        return;
    }
    log_tenants(event, &old.tenants, &new.tenants);
    for tenant in new.suspended.difference(&old.suspended) {
        tracing::info!(target: AUDIT, %tenant, "{event}: tenant suspended");
    }
    for tenant in old.suspended.difference(&new.suspended) {
        tracing::info!(target: AUDIT, %tenant, "{event}: tenant no longer suspended");
    }
    for key_id in new.revoked_keys.difference(&old.revoked_keys) {
        tracing::warn!(target: AUDIT, %key_id, "{event}: signing key revoked");
    }
    for key_id in old.revoked_keys.difference(&new.revoked_keys) {
        tracing::warn!(target: AUDIT, %key_id, "{event}: signing key restored");
    }
    if old.profiles != new.profiles {
        tracing::info!(target: AUDIT, "{event}: names or limits of tenants changed");
    }
}

fn log_tenants(event: &'static str, old: &Tenants, new: &Tenants) {
    if old.is_open() != new.is_open() {
        let tenants = new.listed().len();
        if new.is_open() {
            tracing::info!(target: AUDIT, "{event}: users of any tenant may sign in");
        } else {
            tracing::info!(target: AUDIT, tenants, "{event}: only listed tenants may sign in");
        }
        return;
    }
    let added: Vec<_> = new.listed().difference(old.listed()).collect();
    let removed: Vec<_> = old.listed().difference(new.listed()).collect();
    if added.len() + removed.len() > MAX_LOGGED {
        let (added, removed) = (added.len(), removed.len());
        tracing::info!(target: AUDIT, added, removed, "{event}: tenants changed");
        return;
    }
    for tenant in added {
        tracing::info!(target: AUDIT, %tenant, "{event}: tenant added");
    }
    for tenant in removed {
        tracing::info!(target: AUDIT, %tenant, "{event}: tenant removed");
    }
}
