//! Each tenant's signing keys, cached.
//!
//! Keys are merged by key id and never given up for a new document. An unknown key id
//! causes one fetch.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use dashmap::DashMap;
use tokio::sync::Mutex;

use super::{
    authority::Authority,
    error::{AuthError, InvalidToken},
    fetch::KeySource,
    jwks::{KeyId, SigningKey, SigningKeys},
};
use crate::ids::TenantId;

/// When it is worth trying again after a failed fetch.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The signing keys of every tenant seen so far.
pub(super) struct KeyCache {
    source: KeySource,
    tenants: DashMap<TenantId, Arc<TenantKeys>>,
}

#[derive(Default)]
struct TenantKeys {
    keys: RwLock<HashMap<KeyId, Arc<SigningKey>>>,
    /// Held while keys are fetched: one fetch at a time, and those who waited look again first.
    fetching: Mutex<()>,
}

impl KeyCache {
    /// # Errors
    ///
    /// When the system offers no TLS.
    pub(super) fn new(authority: Authority) -> reqwest::Result<Self> {
        Ok(Self { source: KeySource::new(authority)?, tenants: DashMap::new() })
    }

    /// The tenant's key with this id, fetched if need be.
    ///
    /// # Errors
    ///
    /// [`InvalidToken::UnknownKey`] if the tenant publishes no such key,
    /// [`AuthError::KeysUnavailable`] if that cannot be found out now.
    pub(super) async fn find(&self, tenant: TenantId, key_id: &KeyId) -> Result<Arc<SigningKey>, AuthError> {
        let keys = Arc::clone(&self.tenants.entry(tenant).or_default());
        if let Some(key) = keys.held(key_id) {
            return Ok(key);
        }
        let _turn = keys.fetching.lock().await;
        if let Some(key) = keys.held(key_id) {
            return Ok(key);
        }
        match self.source.fetch(tenant).await {
            Ok(fetched) => keys.merge(tenant, fetched),
            Err(error) => {
                tracing::warn!(%tenant, %error, "cannot fetch signing keys");
                return Err(AuthError::KeysUnavailable { retry_after: RETRY_AFTER });
            }
        }
        keys.held(key_id).ok_or(InvalidToken::UnknownKey.into())
    }
}

impl TenantKeys {
    fn held(&self, key_id: &KeyId) -> Option<Arc<SigningKey>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).get(key_id).cloned()
    }

    fn merge(&self, tenant: TenantId, fetched: SigningKeys) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        for reason in fetched.refused {
            tracing::debug!(%tenant, %reason, "a published key is not used");
        }
        for (key_id, key) in fetched.keys {
            match keys.get(&key_id) {
                Some(held) if !held.is_same_as(&key) => {
                    tracing::error!(%tenant, ?key_id, "another key is published under a known key id; it is refused");
                }
                Some(_) => {}
                None => {
                    keys.insert(key_id, Arc::new(key));
                }
            }
        }
    }
}
