//! The idempotency keys of a tenant whose tasks are in memory.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use tokio::time::Instant;

use crate::{
    ids::UserId,
    tasks::{IdempotencyKey, StoreError, Task},
};

/// The maximum number of keys of a tenant. A new key then replaces the oldest one.
const MAX_KEYS: usize = 10_000;

/// The keys of one tenant, and the tasks that their requests created.
#[derive(Default)]
pub(super) struct RememberedKeys {
    requests: HashMap<(UserId, IdempotencyKey), Request>,
    /// The keys, oldest first.
    ages: VecDeque<(Instant, (UserId, IdempotencyKey))>,
}

struct Request {
    digest: [u8; 32],
    /// The task as it was created.
    task: Arc<Task>,
}

impl RememberedKeys {
    /// The task that an earlier request with this key created.
    pub(super) fn find(
        &self,
        user: UserId,
        key: &IdempotencyKey,
        digest: &[u8; 32],
    ) -> Result<Option<Arc<Task>>, StoreError> {
        match self.requests.get(&(user, key.clone())) {
            None => Ok(None),
            Some(request) if request.digest == *digest => Ok(Some(Arc::clone(&request.task))),
            Some(_) => Err(StoreError::KeyReused),
        }
    }

    /// Remembers the request that created a task.
    pub(super) fn insert(&mut self, key: IdempotencyKey, digest: [u8; 32], task: Arc<Task>) {
        if self.ages.len() >= MAX_KEYS {
            self.remove_oldest();
        }
        let key = (task.owner.user, key);
        self.ages.push_back((Instant::now(), key.clone()));
        self.requests.insert(key, Request { digest, task });
    }

    /// Removes the keys that have expired.
    pub(super) fn forget_expired(&mut self) {
        let is_expired = |at: &Instant| at.elapsed() >= IdempotencyKey::LIFETIME;
        while self.ages.front().is_some_and(|(at, _)| is_expired(at)) {
            self.remove_oldest();
        }
    }

    fn remove_oldest(&mut self) {
        if let Some((_, key)) = self.ages.pop_front() {
            self.requests.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn keys_expire_after_a_day_and_are_bounded() {
        let (mut keys, task) = (RememberedKeys::default(), Arc::new(Task::example()));
        let user = task.owner.user;
        let key = |number: usize| IdempotencyKey::parse(&number.to_string()).expect("a key");
        let is_known = |keys: &RememberedKeys, number| {
            keys.find(user, &key(number), &[0; 32])
                .is_ok_and(|found| found.is_some())
        };
        for number in 0..=MAX_KEYS {
            keys.insert(key(number), [0; 32], Arc::clone(&task));
        }
        assert!(!is_known(&keys, 0), "the oldest is replaced");
        assert!(is_known(&keys, 1));
        assert_eq!(keys.requests.len(), MAX_KEYS);
        tokio::time::advance(Duration::from_hours(23)).await;
        keys.forget_expired();
        assert!(is_known(&keys, 1));
        tokio::time::advance(Duration::from_hours(1)).await;
        keys.forget_expired();
        assert!(keys.requests.is_empty() && keys.ages.is_empty());
    }
}
