//! The task store: in memory or in PostgreSQL.
//!
//! Every operation on tasks takes the tenant, so none can reach another tenant's tasks. The store
//! is an enum and not a trait object: an operation in memory is one match and one function call.

mod keys;
pub mod memory;
pub mod postgres;

use std::{
    collections::BTreeSet,
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
};

use self::{
    memory::MemoryTasks,
    postgres::{
        PostgresTasks,
        config::{DatabaseConfig, SharedConfig},
        error::DatabaseError,
    },
};
use super::{Created, Listing, NewTask, Page, StoreError, Task, TaskUpdate, Usage};
use crate::{
    ids::{Owner, Reach, TaskId, TenantId},
    telemetry::store::StoreMetrics,
};

/// The tasks of all tenants. A clone is another handle to the same tasks.
#[derive(Clone)]
pub struct Tasks {
    store: Store,
    /// The maximum number of tasks of a tenant for which the registry has no limit.
    max_per_tenant: usize,
    metrics: StoreMetrics,
}

/// The futures of database operations are boxed: they are kilobytes large. Unboxed, they would make
/// the futures of operations in memory as large.
#[derive(Clone)]
enum Store {
    Memory(Arc<MemoryTasks>),
    Postgres(Arc<PostgresTasks>),
}

/// Which store to use, and its limits.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The database; `None` keeps tasks in memory.
    pub database: Option<DatabaseConfig>,
    /// The maximum number of connections to the database.
    pub max_database_connections: NonZeroUsize,
    /// The maximum number of tasks of a tenant.
    pub max_tasks_per_tenant: usize,
}

/// The default maximum number of tasks of a tenant.
pub const DEFAULT_MAX_TASKS_PER_TENANT: usize = 100_000;

/// The default maximum number of connections to the database.
pub const DEFAULT_MAX_DATABASE_CONNECTIONS: NonZeroUsize =
    NonZeroUsize::new(10).expect("ten is not zero");

impl Tasks {
    /// Opens the configured store. If the database cannot be reached yet, this still succeeds, and
    /// the store is unavailable until the database can be reached.
    pub async fn open(config: &StoreConfig) -> Result<Self, DatabaseError> {
        let max_tasks = config.max_tasks_per_tenant;
        let Some(database) = &config.database else {
            return Ok(Self::in_memory(max_tasks));
        };
        let max_connections = config.max_database_connections;
        let tasks = PostgresTasks::open(database, max_connections).await?;
        Ok(Self::new(Store::Postgres(Arc::new(tasks)), max_tasks))
    }

    /// An empty store in memory, with a maximum number of tasks per tenant.
    pub fn in_memory(max_per_tenant: usize) -> Self {
        Self::new(Store::Memory(Arc::default()), max_per_tenant)
    }

    fn new(store: Store, max_per_tenant: usize) -> Self {
        Self {
            store,
            max_per_tenant,
            metrics: StoreMetrics::default(),
        }
    }

    /// How long operations take and how often they fail.
    pub fn metrics(&self) -> &StoreMetrics {
        &self.metrics
    }

    /// The open connections to the database and their maximum; `None` without a database.
    pub fn database_connections(&self) -> Option<(usize, usize)> {
        match &self.store {
            Store::Memory(_) => None,
            Store::Postgres(tasks) => Some(tasks.open_connections()),
        }
    }

    /// How to connect to the database; `None` in memory.
    pub fn database(&self) -> Option<SharedConfig> {
        match &self.store {
            Store::Memory(_) => None,
            Store::Postgres(tasks) => Some(tasks.config()),
        }
    }

    /// Uses another configuration for new connections to the database, for example another
    /// password. Without effect in memory.
    pub fn replace_database(&self, database: Option<DatabaseConfig>) {
        if let (Store::Postgres(tasks), Some(database)) = (&self.store, database) {
            tasks.replace_config(database);
        }
    }

    /// Whether the store can be used now.
    pub async fn readiness(&self) -> Result<(), StoreError> {
        let result = async {
            match &self.store {
                Store::Memory(_) => Ok(()),
                Store::Postgres(tasks) => Box::pin(tasks.readiness()).await,
            }
        };
        self.metrics.observe("readiness", result).await
    }

    /// The tenant's tasks within `reach`, oldest first.
    pub async fn list(
        &self,
        tenant: TenantId,
        reach: Reach,
        page: Page,
    ) -> Result<Listing, StoreError> {
        let result = async {
            match &self.store {
                Store::Memory(tasks) => Ok(tasks.list(tenant, reach, page)),
                Store::Postgres(tasks) => Box::pin(tasks.list(tenant, reach, page)).await,
            }
        };
        self.metrics.observe("list", result).await
    }

    /// A task of the tenant; `None` if it does not exist or is outside `reach`.
    pub async fn get(
        &self,
        tenant: TenantId,
        reach: Reach,
        id: TaskId,
    ) -> Result<Option<Arc<Task>>, StoreError> {
        let result = async {
            match &self.store {
                Store::Memory(tasks) => Ok(tasks.get(tenant, reach, id)),
                Store::Postgres(tasks) => Box::pin(tasks.get(tenant, reach, id)).await,
            }
        };
        self.metrics.observe("get", result).await
    }

    /// Adds a task with the next id of the owner's tenant. `own_max` is the tenant's own maximum
    /// number of tasks, if it has one.
    pub async fn insert(
        &self,
        owner: Owner,
        new: NewTask,
        own_max: Option<NonZeroU32>,
    ) -> Result<Created, StoreError> {
        let has_key = new.key.is_some();
        let own_max = own_max.and_then(|max| usize::try_from(max.get()).ok());
        let max = own_max.unwrap_or(self.max_per_tenant);
        let result = async {
            match &self.store {
                Store::Memory(tasks) => tasks.insert(owner, new, max),
                Store::Postgres(tasks) => Box::pin(tasks.insert(owner, new, max)).await,
            }
        };
        let result = self.metrics.observe("insert", result).await;
        let result = result.map_err(|error| match error {
            StoreError::Unavailable(source) if !has_key => StoreError::Unacknowledged(source),
            error => error,
        });
        let usage = match &result {
            Ok(created) => Some(created.usage),
            Err(StoreError::Full { max }) => Some(Usage {
                count: *max,
                max: *max,
            }),
            Err(
                StoreError::Unavailable(_) | StoreError::Unacknowledged(_) | StoreError::KeyReused,
            ) => None,
        };
        if let Some(usage) = usage {
            self.metrics.record_usage(owner.tenant, usage);
        }
        result
    }

    /// Deletes the expired idempotency keys of these tenants, and of those that have sent requests to
    /// this replica.
    pub async fn forget_expired_keys(&self, tenants: &BTreeSet<TenantId>) {
        match &self.store {
            Store::Memory(tasks) => tasks.forget_expired_keys(),
            Store::Postgres(tasks) => tasks.forget_expired_keys(tenants).await,
        }
    }

    /// Changes a task of the tenant and returns it; `None` if there is none within `reach`.
    pub async fn update(
        &self,
        tenant: TenantId,
        reach: Reach,
        id: TaskId,
        update: TaskUpdate,
    ) -> Result<Option<Arc<Task>>, StoreError> {
        let result = async {
            match &self.store {
                Store::Memory(tasks) => Ok(tasks.update(tenant, reach, id, update)),
                Store::Postgres(tasks) => Box::pin(tasks.update(tenant, reach, id, update)).await,
            }
        };
        self.metrics.observe("update", result).await
    }

    /// Removes a task of the tenant, if it exists.
    pub async fn remove(&self, tenant: TenantId, id: TaskId) -> Result<(), StoreError> {
        let result = async {
            match &self.store {
                Store::Memory(tasks) => {
                    tasks.remove(tenant, id);
                    Ok(())
                }
                Store::Postgres(tasks) => Box::pin(tasks.remove(tenant, id)).await,
            }
        };
        let result = self.metrics.observe("remove", result).await;
        self.metrics.forget_usage(tenant);
        result
    }
}
