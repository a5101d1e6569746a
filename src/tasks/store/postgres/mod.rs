//! Tasks in PostgreSQL, for any number of replicas.
//!
//! Each operation is one call of a function in the schema, which is one transaction. The function
//! sets the tenant, and row security then hides the rows of other tenants, even from a statement
//! without a tenant. A call works on plain PostgreSQL, behind every connection pooler, and on a
//! database that is distributed by tenant.

mod checks;
pub mod config;
pub mod error;
mod pool;
mod schema;
pub mod tenant;
pub mod tls;

pub use checks::Inspection;

use std::{collections::BTreeSet, num::NonZeroUsize, sync::Arc, time::Duration};

use tokio::{sync::Mutex, time::Instant};
use tokio_postgres::{Row, types::Type};
use uuid::Uuid;

use self::{
    config::{DatabaseConfig, SharedConfig},
    error::DatabaseError,
    pool::{Call, Connections},
};
use crate::{
    ids::{Owner, Reach, TaskId, TenantId, UserId},
    tasks::{
        Content, Created, Listing, NewTask, Page, StoreError, Task, TaskUpdate, Usage, title::Title,
    },
};

const LIST: &str = "\
    SELECT id, user_id, owner_name, title, completed FROM list_tasks($1, $2, $3, $4)";

const GET: &str = "\
    SELECT id, user_id, owner_name, title, completed FROM get_task($1, $2, $3)";

const CREATE: &str = "\
    SELECT id, task_count, first_owner_name, outcome \
    FROM add_task($1, $2, $3, $4, $5, $6, $7, $8)";

const FORGET_KEYS: &str = "SELECT deleted FROM forget_keys($1, $2)";

const UPDATE: &str = "\
    SELECT id, user_id, owner_name, title, completed FROM update_task($1, $2, $3, $4, $5)";

const DELETE: &str = "SELECT id FROM delete_task($1, $2)";

/// The number of expired keys that one call deletes.
const FORGET_AT_ONCE: i64 = 500;

/// How long the result of a readiness probe is cached.
const PROBE_MAX_AGE: Duration = Duration::from_secs(1);

/// Checks whether the service can use the database, and changes nothing.
pub async fn inspect(database: &DatabaseConfig) -> Result<Inspection, DatabaseError> {
    schema::inspect(database).await
}

/// The tasks of all tenants, in a database.
pub struct PostgresTasks {
    connections: Connections,
    config: SharedConfig,
    /// When the last readiness probe ended, and whether it succeeded.
    probe: Mutex<Option<(Instant, bool)>>,
}

impl PostgresTasks {
    /// Applies the pending migrations and checks that row security binds the role. If the database
    /// cannot be reached, this retries in the background, and the store is unavailable meanwhile.
    pub(super) async fn open(
        database: &DatabaseConfig,
        max_connections: NonZeroUsize,
    ) -> Result<Self, DatabaseError> {
        let config = SharedConfig::new(database.clone());
        match schema::prepare(database).await {
            Ok(()) => {}
            Err(error @ DatabaseError::Unreachable(_)) => {
                schema::log_unreachable(&error, schema::FIRST_RETRY);
                tokio::spawn(schema::prepare_in_background(config.clone()));
            }
            Err(error) => return Err(error),
        }
        Ok(Self {
            connections: Connections::new(config.clone(), max_connections),
            config,
            probe: Mutex::default(),
        })
    }

    pub(super) fn config(&self) -> SharedConfig {
        self.config.clone()
    }

    /// Uses another configuration for new connections, for example another password.
    pub(super) fn replace_config(&self, database: DatabaseConfig) {
        self.config.replace(database);
    }

    /// The number of open connections, and their maximum.
    pub(super) fn open_connections(&self) -> (usize, usize) {
        self.connections.open()
    }

    /// Whether the database can do what requests ask of it. It is queried at most once per second, so
    /// that probes cannot keep it busy.
    pub(super) async fn readiness(self: &Arc<Self>) -> Result<(), StoreError> {
        // Spawned, so that the result is cached even if the client disconnects.
        let probe = tokio::spawn(Self::probe(Arc::clone(self)));
        probe
            .await
            .map_err(|error| StoreError::Unavailable(error.into()))?
    }

    async fn probe(self: Arc<Self>) -> Result<(), StoreError> {
        let mut probe = self.probe.lock().await;
        if let Some((at, is_available)) = *probe
            && at.elapsed() < PROBE_MAX_AGE
        {
            let failed = || StoreError::Unavailable("the last probe failed".into());
            return is_available.then_some(()).ok_or_else(failed);
        }
        let result = self.connections.run(probe_call()).await;
        *probe = Some((Instant::now(), result.is_ok()));
        result?;
        Ok(())
    }

    pub(super) async fn list(
        &self,
        tenant: TenantId,
        reach: Reach,
        page: Page,
    ) -> Result<Listing, StoreError> {
        let after = page.after.map_or(0, i64::from);
        let limit = page.limit.unwrap_or(usize::MAX);
        // One more than the limit shows whether there are more.
        let read = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
        let call = Call::new(LIST, tenant)
            .with(owner_within(reach), Type::UUID)
            .with(after, Type::INT8)
            .with(read, Type::INT8);
        let rows = self.connections.run(call).await?;
        let tasks = rows.iter().take(limit);
        Ok(Listing {
            tasks: tasks.map(|row| Arc::new(task(tenant, row))).collect(),
            more: rows.len() > limit,
        })
    }

    pub(super) async fn get(
        &self,
        tenant: TenantId,
        reach: Reach,
        id: TaskId,
    ) -> Result<Option<Arc<Task>>, StoreError> {
        let call = Call::new(GET, tenant)
            .with(owner_within(reach), Type::UUID)
            .with(i64::from(id), Type::INT8);
        let rows = self.connections.run(call).await?;
        Ok(rows.first().map(|row| Arc::new(task(tenant, row))))
    }

    pub(super) async fn insert(
        &self,
        owner: Owner,
        new: NewTask,
        max: usize,
    ) -> Result<Created, StoreError> {
        let NewTask {
            content,
            owner_name,
            key,
        } = new;
        // The one character that a PostgreSQL text cannot contain.
        let owner_name = owner_name.replace('\0', "");
        let digest = key.as_ref().map(|_| content.digest().to_vec());
        let call = Call::new(CREATE, owner.tenant)
            .with(Uuid::from(owner.user), Type::UUID)
            .with(owner_name, Type::TEXT)
            .with(content.title.as_str().to_owned(), Type::TEXT)
            .with(content.completed, Type::BOOL)
            .with(i64::try_from(max).unwrap_or(i64::MAX), Type::INT8)
            .with(key.map(|key| key.as_str().to_owned()), Type::TEXT)
            .with(digest, Type::BYTEA);
        let rows = self.connections.run(call).await?;
        let Some(row) = rows.first() else {
            return Err(StoreError::Full { max });
        };
        let count = usize::try_from(row.get::<_, i64>("task_count")).unwrap_or(max);
        let outcome: &str = row.get("outcome");
        if outcome == "other_request" {
            return Err(StoreError::KeyReused);
        }
        Ok(Created {
            task: Arc::new(Task {
                id: id(row),
                owner,
                owner_name: row.get::<_, &str>("first_owner_name").into(),
                content,
            }),
            usage: Usage { count, max },
            is_replayed: outcome == "replayed",
        })
    }

    pub(super) async fn update(
        &self,
        tenant: TenantId,
        reach: Reach,
        id: TaskId,
        update: TaskUpdate,
    ) -> Result<Option<Arc<Task>>, StoreError> {
        let title = update.title.as_ref().map(|title| title.as_str().to_owned());
        let call = Call::new(UPDATE, tenant)
            .with(owner_within(reach), Type::UUID)
            .with(i64::from(id), Type::INT8)
            .with(title, Type::TEXT)
            .with(update.completed, Type::BOOL);
        let rows = self.connections.run(call).await?;
        Ok(rows.first().map(|row| Arc::new(task(tenant, row))))
    }

    pub(super) async fn remove(&self, tenant: TenantId, id: TaskId) -> Result<(), StoreError> {
        let call = Call::new(DELETE, tenant).with(i64::from(id), Type::INT8);
        self.connections.run(call).await?;
        Ok(())
    }

    /// Deletes expired keys in small batches. A failure is retried the next time.
    pub(super) async fn forget_expired_keys(&self, tenants: &BTreeSet<TenantId>) {
        let mut tenants = tenants.clone();
        tenants.extend(self.connections.tenants());
        for tenant in tenants {
            loop {
                let call = Call::new(FORGET_KEYS, tenant).with(FORGET_AT_ONCE, Type::INT8);
                match self.connections.run(call).await {
                    Ok(rows)
                        if rows
                            .first()
                            .is_some_and(|row| row.get::<_, i64>(0) == FORGET_AT_ONCE) => {}
                    Ok(_) => break,
                    Err(error) => {
                        tracing::debug!(%error, "cannot delete expired idempotency keys");
                        break;
                    }
                }
            }
        }
    }
}

/// A call like that of a request. It returns no rows, because no tenant has this id.
fn probe_call() -> Call {
    Call::without_tenant(GET)
        .with(None::<Uuid>, Type::UUID)
        .with(1_i64, Type::INT8)
}

/// The owner that a task must have; `None` for any.
fn owner_within(reach: Reach) -> Option<Uuid> {
    match reach {
        Reach::Tenant => None,
        Reach::User(user) => Some(user.into()),
    }
}

fn task(tenant: TenantId, row: &Row) -> Task {
    Task {
        id: id(row),
        owner: Owner {
            tenant,
            user: UserId::from(row.get::<_, Uuid>("user_id")),
        },
        owner_name: row.get::<_, &str>("owner_name").into(),
        content: Content {
            title: Title::from_store(row.get("title")),
            completed: row.get("completed"),
        },
    }
}

fn id(row: &Row) -> TaskId {
    TaskId::try_from(row.get::<_, i64>("id")).expect("a check constraint keeps ids positive")
}
