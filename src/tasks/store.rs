//! The seam between the handlers and wherever tasks are kept.
//!
//! Every function takes the tenant, so none can reach across two. Each is async and can
//! fail because a database will stand behind it too. A closed enum rather than a trait
//! object: tasks in memory are then one match and one function call away.

use std::sync::Arc;

use thiserror::Error;

use super::{NewTask, Page, Task, TaskUpdate, memory::MemoryTasks};
use crate::ids::{Owner, Reach, TaskId, TenantId};

/// Where the tasks of all tenants are kept; cloning gives another handle to the same tasks.
#[derive(Clone, Debug)]
pub enum Tasks {
    /// In this process, and gone with it.
    Memory(Arc<MemoryTasks>),
}

/// A part of a list of tasks.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Oldest first. Shared with the store, not copied out of it.
    pub tasks: Vec<Arc<Task>>,
    /// Whether there are more after the last one.
    pub more: bool,
}

/// How many tasks a tenant may have unless the operator says otherwise.
pub const DEFAULT_MAX_TASKS_PER_TENANT: usize = 100_000;

/// The store could not do what it was asked, and has done nothing.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The store cannot be reached now.
    #[error("the task store is unavailable: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The tenant has as many tasks as it may have.
    #[error("the tenant has its {max} tasks")]
    Full {
        /// How many that is.
        max: usize,
    },
}

#[expect(clippy::unused_async, reason = "memory answers at once; a database will not")]
impl Tasks {
    /// An empty store in memory, for so many tasks of each tenant.
    #[must_use]
    pub fn in_memory(max_per_tenant: usize) -> Self {
        Self::Memory(Arc::new(MemoryTasks::new(max_per_tenant)))
    }

    /// The tenant's tasks within `reach`, oldest first.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store cannot answer.
    pub async fn list(&self, tenant: TenantId, reach: Reach, page: Page) -> Result<Listing, StoreError> {
        match self {
            Self::Memory(tasks) => Ok(tasks.list(tenant, reach, page)),
        }
    }

    /// Adds a task under the next id of the owner's tenant.
    ///
    /// # Errors
    ///
    /// [`StoreError::Full`] when the tenant may have no more, or when the store cannot answer.
    pub async fn insert(&self, owner: Owner, new: NewTask) -> Result<Arc<Task>, StoreError> {
        match self {
            Self::Memory(tasks) => tasks.insert(owner, new),
        }
    }

    /// Changes a task of the tenant and answers it; `None` when there is none within `reach`.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store cannot answer.
    pub async fn update(
        &self,
        tenant: TenantId,
        reach: Reach,
        id: TaskId,
        update: TaskUpdate,
    ) -> Result<Option<Arc<Task>>, StoreError> {
        match self {
            Self::Memory(tasks) => Ok(tasks.update(tenant, reach, id, update)),
        }
    }

    /// Removes a task of the tenant, if it is there.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store cannot answer.
    pub async fn remove(&self, tenant: TenantId, id: TaskId) -> Result<(), StoreError> {
        match self {
            Self::Memory(tasks) => tasks.remove(tenant, id),
        }
        Ok(())
    }
}
