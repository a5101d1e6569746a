//! The cached signing keys of one tenant, each with the time when it was last published.
//!
//! A key is trusted for 24 hours after it was last published, because Entra's documents drop keys
//! and bring them back. A set is replaced, never changed in place, so readers never wait.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::jwks::SigningKey;
use crate::ids::KeyId;

/// How long a key is trusted after it was last published.
/// <https://learn.microsoft.com/entra/identity-platform/signing-key-rollover>
pub(crate) const TRUST: Duration = Duration::from_hours(24);

/// The keys of one tenant at one moment.
#[derive(Clone, Default)]
pub(crate) struct KeySet {
    keys: HashMap<KeyId, CachedKey>,
}

#[derive(Clone)]
struct CachedKey {
    key: Arc<SigningKey>,
    last_seen: Duration,
}

/// What a document changed.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Keys that were not cached before.
    pub(crate) new: Vec<KeyId>,
    /// Key ids that are cached with another modulus. The published key is rejected.
    pub(crate) conflicting: Vec<KeyId>,
}

impl KeySet {
    /// The key with this id, if it is trusted.
    pub(crate) fn get(&self, key_id: &KeyId, now: Duration) -> Option<&Arc<SigningKey>> {
        let cached = self
            .keys
            .get(key_id)
            .filter(|cached| cached.is_trusted(now));
        cached.map(|cached| &cached.key)
    }

    /// Whether any key is trusted.
    pub(super) fn is_usable(&self, now: Duration) -> bool {
        self.keys.values().any(|cached| cached.is_trusted(now))
    }

    /// The number of trusted keys.
    pub(super) fn usable(&self, now: Duration) -> usize {
        let trusted = self.keys.values().filter(|cached| cached.is_trusted(now));
        trusted.count()
    }

    /// When any key was last published; `None` for an empty set.
    pub(super) fn last_seen(&self) -> Option<Duration> {
        self.keys.values().map(|cached| cached.last_seen).max()
    }

    /// This set without its expired keys, plus the keys of a document that was fetched at `now`.
    pub(crate) fn merge(
        &self,
        published: Vec<(KeyId, SigningKey)>,
        now: Duration,
    ) -> (Self, Changes) {
        let mut keys = self.keys.clone();
        keys.retain(|_, cached| cached.is_trusted(now));
        let mut changes = Changes::default();
        for (key_id, key) in published {
            match keys.get_mut(&key_id) {
                Some(cached) if cached.key.is_same_as(&key) => cached.last_seen = now,
                Some(_) => changes.conflicting.push(key_id),
                None => {
                    changes.new.push(key_id.clone());
                    let key = Arc::new(key);
                    let last_seen = now;
                    keys.insert(key_id, CachedKey { key, last_seen });
                }
            }
        }
        (Self { keys }, changes)
    }
}

impl CachedKey {
    fn is_trusted(&self, now: Duration) -> bool {
        now.saturating_sub(self.last_seen) < TRUST
    }
}
