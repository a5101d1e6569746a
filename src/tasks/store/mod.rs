//! The seam between the handlers and wherever tasks are kept.
//!
//! Every function that reads or changes a task takes the tenant, so none can reach across two. A closed enum
//! rather than a trait object: tasks in memory are then one match and one function call away. Each is timed here.

pub mod memory;
pub mod postgres;

use std::{num::NonZeroUsize, sync::Arc};

use thiserror::Error;

use self::{
    memory::MemoryTasks,
    postgres::{Database, DatabaseError, PostgresTasks},
};
use super::{NewTask, Page, Task, TaskUpdate};
use crate::{
    ids::{Owner, Reach, TaskId, TenantId},
    telemetry::store::{Timings, timed},
};

/// The tasks of all tenants; cloning gives another handle to the same ones.
#[derive(Clone, Debug)]
pub struct Tasks {
    store: Store,
    timings: Option<Timings>,
}

/// Where they are kept. What a database is asked is boxed: it needs kilobytes, which a request to memory would
/// carry along.
#[derive(Clone, Debug)]
enum Store {
    /// In this process, and gone with it.
    Memory(Arc<MemoryTasks>),
    /// In a database, which other replicas may use at the same time.
    Postgres(Arc<PostgresTasks>),
}

/// Which store, and its bounds.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The database; `None` for memory.
    pub database: Option<Database>,
    /// How many connections to the database may be open at the same time.
    pub max_database_connections: NonZeroUsize,
    /// How many tasks a tenant may have.
    pub max_tasks_per_tenant: usize,
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

/// How many connections to the database one process may have unless the operator says otherwise.
pub const DEFAULT_MAX_DATABASE_CONNECTIONS: NonZeroUsize =
    NonZeroUsize::new(10).expect("ten is not zero");

/// The store could not do what it was asked. It has done nothing, unless it became unavailable before its
/// answer arrived: then it has done all of it or nothing.
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

impl Tasks {
    /// The store that was chosen. A database that cannot be reached yet is no error; until it is there, the
    /// store is unavailable.
    ///
    /// # Errors
    ///
    /// When there is a database that must not be used, or that refuses to be.
    pub async fn open(config: &StoreConfig) -> Result<Self, DatabaseError> {
        let StoreConfig {
            database,
            max_database_connections,
            max_tasks_per_tenant,
        } = config;
        let Some(database) = database else {
            return Ok(Self::in_memory(*max_tasks_per_tenant));
        };
        let tasks =
            PostgresTasks::open(database, *max_database_connections, *max_tasks_per_tenant).await?;
        Ok(Self {
            store: Store::Postgres(Arc::new(tasks)),
            timings: None,
        })
    }

    /// An empty store in memory, for so many tasks of each tenant.
    #[must_use]
    pub fn in_memory(max_per_tenant: usize) -> Self {
        Self {
            store: Store::Memory(Arc::new(MemoryTasks::new(max_per_tenant))),
            timings: None,
        }
    }

    /// The same tasks; from now on it is noted how long they take.
    #[must_use]
    pub fn timed(self, timings: Timings) -> Self {
        Self {
            timings: Some(timings),
            ..self
        }
    }

    /// How many connections to a database are open, and how many may be; `None` without one.
    #[must_use]
    pub fn database_connections(&self) -> Option<(usize, usize)> {
        match &self.store {
            Store::Memory(_) => None,
            Store::Postgres(tasks) => Some(tasks.open_connections()),
        }
    }

    /// Whether the store could do now what it may be asked.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if it could not.
    pub async fn readiness(&self) -> Result<(), StoreError> {
        let work = async {
            match &self.store {
                Store::Memory(_) => Ok(()),
                Store::Postgres(tasks) => Box::pin(tasks.readiness()).await,
            }
        };
        timed(self.timings.as_ref(), "readiness", work).await
    }

    /// The tenant's tasks within `reach`, oldest first.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store cannot answer.
    pub async fn list(
        &self,
        tenant: TenantId,
        reach: Reach,
        page: Page,
    ) -> Result<Listing, StoreError> {
        let work = async {
            match &self.store {
                Store::Memory(tasks) => Ok(tasks.list(tenant, reach, page)),
                Store::Postgres(tasks) => Box::pin(tasks.list(tenant, reach, page)).await,
            }
        };
        timed(self.timings.as_ref(), "list", work).await
    }

    /// Adds a task under the next id of the owner's tenant.
    ///
    /// # Errors
    ///
    /// [`StoreError::Full`] when the tenant may have no more, or when the store cannot answer.
    pub async fn insert(&self, owner: Owner, new: NewTask) -> Result<Arc<Task>, StoreError> {
        let work = async {
            match &self.store {
                Store::Memory(tasks) => tasks.insert(owner, new),
                Store::Postgres(tasks) => Box::pin(tasks.insert(owner, new)).await,
            }
        };
        timed(self.timings.as_ref(), "insert", work).await
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
        let work = async {
            match &self.store {
                Store::Memory(tasks) => Ok(tasks.update(tenant, reach, id, update)),
                Store::Postgres(tasks) => Box::pin(tasks.update(tenant, reach, id, update)).await,
            }
        };
        timed(self.timings.as_ref(), "update", work).await
    }

    /// Removes a task of the tenant, if it is there.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store cannot answer.
    pub async fn remove(&self, tenant: TenantId, id: TaskId) -> Result<(), StoreError> {
        let work = async {
            match &self.store {
                Store::Memory(tasks) => {
                    tasks.remove(tenant, id);
                    Ok(())
                }
                Store::Postgres(tasks) => Box::pin(tasks.remove(tenant, id)).await,
            }
        };
        timed(self.timings.as_ref(), "remove", work).await
    }
}
