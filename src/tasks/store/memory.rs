//! Tasks in memory: tenant → user → tasks, and an index by id.
//!
//! Each tenant has its own lock, so one tenant's long list never delays another tenant. A stored
//! task is replaced, never changed in place, so sending a list needs no lock.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use dashmap::DashMap;

use super::keys::RememberedKeys;
use crate::{
    ids::{Owner, Reach, TaskId, TenantId, UserId},
    tasks::{Created, Listing, NewTask, Page, StoreError, Task, TaskUpdate, Usage},
};

/// The tasks of all tenants.
#[derive(Default)]
pub struct MemoryTasks {
    /// A tenant is added with its first task. Reading never grows the map.
    tenants: DashMap<TenantId, Arc<Locked>>,
}

/// A tenant's tasks behind its lock, which is never held across an await.
#[derive(Default)]
struct Locked(RwLock<TenantTasks>);

/// One tenant's tasks.
#[derive(Default)]
struct TenantTasks {
    last_id: Option<TaskId>,
    users: HashMap<UserId, UserTasks>,
    by_id: BTreeMap<TaskId, Arc<Task>>,
    keys: RememberedKeys,
}

/// One user's tasks.
struct UserTasks {
    tasks: BTreeMap<TaskId, Arc<Task>>,
    /// The owner name of the latest task. The next task shares it if the name is the same.
    name: Arc<str>,
}

impl UserTasks {
    /// The shared name, replaced if the user has changed theirs.
    fn share_name(&mut self, name: String) -> Arc<str> {
        if *self.name != *name {
            self.name = name.into();
        }
        Arc::clone(&self.name)
    }
}

impl MemoryTasks {
    pub(super) fn list(&self, tenant: TenantId, reach: Reach, page: Page) -> Listing {
        self.tenant(tenant)
            .map(|tasks| tasks.read().list(reach, page))
            .unwrap_or_default()
    }

    pub(super) fn get(&self, tenant: TenantId, reach: Reach, id: TaskId) -> Option<Arc<Task>> {
        self.tenant(tenant)?.read().get(reach, id).cloned()
    }

    pub(super) fn insert(
        &self,
        owner: Owner,
        new: NewTask,
        max: usize,
    ) -> Result<Created, StoreError> {
        // Cloned, so that the map's shard is not locked while this waits for the tenant's lock.
        let tasks = self.tenants.entry(owner.tenant).or_default().clone();
        let mut tasks = tasks.write();
        let request = new.key.clone().map(|key| (key, new.content.digest()));
        let replayed = match &request {
            Some((key, digest)) => {
                tasks.keys.forget_expired();
                tasks.keys.find(owner.user, key, digest)?
            }
            None => None,
        };
        let is_replayed = replayed.is_some();
        let task = match replayed {
            Some(task) => task,
            None if tasks.by_id.len() >= max => return Err(StoreError::Full { max }),
            None => tasks.insert(owner, new),
        };
        if let Some((key, digest)) = request.filter(|_| !is_replayed) {
            tasks.keys.insert(key, digest, Arc::clone(&task));
        }
        let count = tasks.by_id.len();
        Ok(Created {
            task,
            usage: Usage { count, max },
            is_replayed,
        })
    }

    pub(super) fn update(
        &self,
        tenant: TenantId,
        reach: Reach,
        id: TaskId,
        update: TaskUpdate,
    ) -> Option<Arc<Task>> {
        self.tenant(tenant)?.write().update(reach, id, update)
    }

    pub(super) fn remove(&self, tenant: TenantId, id: TaskId) {
        if let Some(tasks) = self.tenant(tenant) {
            tasks.write().remove(id);
        }
    }

    /// Removes the idempotency keys that have expired.
    pub(super) fn forget_expired_keys(&self) {
        for tasks in &self.tenants {
            tasks.write().keys.forget_expired();
        }
    }

    fn tenant(&self, tenant: TenantId) -> Option<Arc<Locked>> {
        self.tenants.get(&tenant).map(|tasks| Arc::clone(&tasks))
    }
}

impl Locked {
    // A panic cannot leave the tasks inconsistent, so a poisoned lock can be used again.
    fn read(&self) -> RwLockReadGuard<'_, TenantTasks> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, TenantTasks> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TenantTasks {
    fn list(&self, reach: Reach, page: Page) -> Listing {
        let tasks = match reach {
            Reach::Tenant => &self.by_id,
            Reach::User(user) => match self.users.get(&user) {
                Some(own) => &own.tasks,
                None => return Listing::default(),
            },
        };
        let after = page.after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = tasks
            .range((after, Bound::Unbounded))
            .map(|(_, task)| Arc::clone(task));
        let tasks = rest
            .by_ref()
            .take(page.limit.unwrap_or(usize::MAX))
            .collect();
        Listing {
            tasks,
            more: rest.next().is_some(),
        }
    }

    fn get(&self, reach: Reach, id: TaskId) -> Option<&Arc<Task>> {
        let task = self.by_id.get(&id)?;
        reach.includes(task.owner.user).then_some(task)
    }

    fn insert(&mut self, owner: Owner, new: NewTask) -> Arc<Task> {
        let id = self.last_id.map_or(TaskId::FIRST, TaskId::next);
        self.last_id = Some(id);
        let NewTask {
            content,
            owner_name,
            key: _,
        } = new;
        let owner_name = match self.users.get_mut(&owner.user) {
            Some(own) => own.share_name(owner_name),
            None => owner_name.into(),
        };
        self.put(Task {
            id,
            owner,
            owner_name,
            content,
        })
    }

    fn update(&mut self, reach: Reach, id: TaskId, update: TaskUpdate) -> Option<Arc<Task>> {
        let mut task = Task::clone(self.get(reach, id)?);
        task.content.apply(update);
        Some(self.put(task))
    }

    fn remove(&mut self, id: TaskId) {
        let Some(task) = self.by_id.remove(&id) else {
            return;
        };
        if let Some(own) = self.users.get_mut(&task.owner.user) {
            own.tasks.remove(&id);
            if own.tasks.is_empty() {
                self.users.remove(&task.owner.user);
            }
        }
    }

    fn put(&mut self, task: Task) -> Arc<Task> {
        let task = Arc::new(task);
        self.by_id.insert(task.id, Arc::clone(&task));
        let new = || UserTasks {
            tasks: BTreeMap::new(),
            name: Arc::clone(&task.owner_name),
        };
        let own = self.users.entry(task.owner.user).or_insert_with(new);
        own.tasks.insert(task.id, Arc::clone(&task));
        task
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::IdempotencyKey;

    #[tokio::test(start_paused = true)]
    async fn expired_keys_are_forgotten_without_a_request() {
        let Task { owner, content, .. } = Task::example();
        let digest = content.digest();
        let key = IdempotencyKey::parse("key").unwrap();
        let new = NewTask {
            content,
            owner_name: "Ada".to_owned(),
            key: Some(key.clone()),
        };
        let tasks = MemoryTasks::default();
        tasks.insert(owner, new, 1).unwrap();
        let is_known = || {
            let tenant = tasks.tenant(owner.tenant).unwrap();
            let found = tenant.read().keys.find(owner.user, &key, &digest).unwrap();
            found.is_some()
        };
        tasks.forget_expired_keys();
        assert!(is_known());
        tokio::time::advance(IdempotencyKey::LIFETIME).await;
        tasks.forget_expired_keys();
        assert!(!is_known());
    }
}
