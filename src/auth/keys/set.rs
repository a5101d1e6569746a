//! One tenant's signing keys as they are held: by key id, each with when it was last seen.
//!
//! A key is trusted for a day after Entra last published it, because Entra's documents drop
//! keys and bring them back. A set is never changed in place: a new one is put in its stead,
//! so that whoever reads never waits.

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::auth::keys::jwks::{KeyId, SigningKey};

/// How long a key is trusted after it was last seen.
/// <https://learn.microsoft.com/entra/identity-platform/signing-key-rollover>
pub(crate) const TRUST: Duration = Duration::from_hours(24);

/// The keys of one tenant at one moment.
#[derive(Clone, Default)]
pub(crate) struct KeySet {
    keys: HashMap<KeyId, HeldKey>,
}

#[derive(Clone)]
struct HeldKey {
    key: Arc<SigningKey>,
    last_seen: Duration,
}

/// What a document changed.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Keys that were not held before.
    pub(crate) new: Vec<KeyId>,
    /// Key ids that are held with another modulus; the published key is refused.
    pub(crate) conflicting: Vec<KeyId>,
}

impl KeySet {
    /// The key with this id, if it is still trusted.
    pub(crate) fn find(&self, key_id: &KeyId, now: Duration) -> Option<&Arc<SigningKey>> {
        self.keys
            .get(key_id)
            .filter(|held| held.is_trusted(now))
            .map(|held| &held.key)
    }

    /// Whether any key is still trusted.
    pub(crate) fn is_usable(&self, now: Duration) -> bool {
        self.keys.values().any(|held| held.is_trusted(now))
    }

    /// How many keys are still trusted.
    pub(crate) fn usable(&self, now: Duration) -> usize {
        self.keys
            .values()
            .filter(|held| held.is_trusted(now))
            .count()
    }

    /// When a key was last seen, of all the latest; `None` if none is held.
    pub(crate) fn last_seen(&self) -> Option<Duration> {
        self.keys.values().map(|held| held.last_seen).max()
    }

    /// This set with the keys of a document that has just been fetched.
    pub(crate) fn merge(
        &self,
        published: Vec<(KeyId, SigningKey)>,
        now: Duration,
    ) -> (Self, Changes) {
        let mut keys = self.keys.clone();
        keys.retain(|_, held| held.is_trusted(now));
        let mut changes = Changes::default();
        for (key_id, key) in published {
            match keys.get_mut(&key_id) {
                Some(held) if held.key.is_same_as(&key) => held.last_seen = now,
                Some(_) => changes.conflicting.push(key_id),
                None => {
                    changes.new.push(key_id.clone());
                    keys.insert(
                        key_id,
                        HeldKey {
                            key: Arc::new(key),
                            last_seen: now,
                        },
                    );
                }
            }
        }
        (Self { keys }, changes)
    }
}

impl HeldKey {
    fn is_trusted(&self, now: Duration) -> bool {
        now.saturating_sub(self.last_seen) < TRUST
    }
}
