//! Tasks in PostgreSQL, for any number of replicas.
//!
//! Each operation is one transaction. It first sets the tenant. Row security then hides the rows of
//! other tenants, even from a statement without a tenant. All parts of the transaction are sent
//! before the first response is awaited, so it costs one round trip, and a client that disconnects
//! cannot leave it half done. Every statement names one tenant in every table, so that a database
//! distributed by tenant runs it on one shard.

pub mod config;
pub mod error;
mod pool;
mod schema;
pub mod tls;

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use deadpool_postgres::ClientWrapper;
use futures_util::future::{join3, join4, join5, try_join};
use tokio::{sync::Mutex, time::Instant};
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use self::{config::DatabaseConfig, error::DatabaseError, pool::Connections};
use crate::{
    ids::{Owner, Reach, TaskId, TenantId, UserId},
    tasks::{Content, Listing, NewTask, Page, StoreError, Task, TaskUpdate, title::Title},
};

const LIST_OF_TENANT: &str = "\
    SELECT id, user_id, owner_name, title, completed FROM tasks \
    WHERE tenant_id = $1 AND id > $2 ORDER BY id LIMIT $3";

const LIST_OF_USER: &str = "\
    SELECT id, user_id, owner_name, title, completed FROM tasks \
    WHERE tenant_id = $1 AND user_id = $4 AND id > $2 ORDER BY id LIMIT $3";

const GET: &str = "\
    SELECT id, user_id, owner_name, title, completed FROM tasks \
    WHERE tenant_id = $1 AND id = $2 AND ($3::uuid IS NULL OR user_id = $3)";

/// Assigns the next id. The tenant's row stays locked until the end of the transaction, so ids
/// follow the order of the commits. A full tenant violates the check constraint.
const TAKE_ID: &str = "\
    INSERT INTO tenants AS t (tenant_id, last_task_id, task_count, max_tasks) VALUES ($1, 1, 1, $2) \
    ON CONFLICT (tenant_id) DO UPDATE SET \
    last_task_id = t.last_task_id + 1, task_count = t.task_count + 1, max_tasks = excluded.max_tasks";

const INSERT: &str = "\
    INSERT INTO tasks (tenant_id, id, user_id, owner_name, title, completed) \
    SELECT tenant_id, last_task_id, $2, $3, $4, $5 FROM tenants WHERE tenant_id = $1 \
    RETURNING id";

const UPDATE: &str = "\
    UPDATE tasks SET title = coalesce($4, title), completed = coalesce($5, completed) \
    WHERE tenant_id = $1 AND id = $2 AND ($3::uuid IS NULL OR user_id = $3) \
    RETURNING id, user_id, owner_name, title, completed";

/// Runs first in a removal: a tenant's removals run one by one, so a task is counted down once.
const LOCK_TENANT: &str = "SELECT FROM tenants WHERE tenant_id = $1 FOR UPDATE";

const COUNT_DOWN: &str = "\
    UPDATE tenants SET task_count = task_count - 1 \
    WHERE tenant_id = $1 AND EXISTS (SELECT FROM tasks WHERE tenant_id = $1 AND id = $2)";

const REMOVE: &str = "DELETE FROM tasks WHERE tenant_id = $1 AND id = $2";

/// The statements that every connection prepares once.
const STATEMENTS: &[&str] = &[
    LIST_OF_TENANT,
    LIST_OF_USER,
    GET,
    TAKE_ID,
    INSERT,
    UPDATE,
    LOCK_TENANT,
    COUNT_DOWN,
    REMOVE,
];

const COMMIT: &str = "COMMIT";

/// The check constraint that a full tenant violates.
const FULL: &str = "tenants_task_count_within_max";

/// How long the result of a readiness probe is cached.
const PROBE_MAX_AGE: Duration = Duration::from_secs(1);

/// Checks whether the service can use the database, and changes nothing. Returns the number of
/// pending migrations.
pub async fn inspect(database: &DatabaseConfig) -> Result<usize, DatabaseError> {
    schema::inspect(database).await
}

/// The tasks of all tenants, in a database.
pub struct PostgresTasks {
    connections: Connections,
    max_per_tenant: i64,
    /// When the last readiness probe ended, and whether it succeeded.
    probe: Mutex<Option<(Instant, bool)>>,
}

impl PostgresTasks {
    /// Applies the pending migrations and checks that row security binds the role. If the database
    /// cannot be reached, this retries in the background, and the store is unavailable meanwhile.
    pub(super) async fn open(
        database: &DatabaseConfig,
        max_connections: NonZeroUsize,
        max_per_tenant: usize,
    ) -> Result<Self, DatabaseError> {
        match schema::prepare(database).await {
            Ok(()) => {}
            Err(error @ DatabaseError::Unreachable(_)) => {
                tracing::error!(%error, "cannot connect to database; tasks are unavailable");
                tokio::spawn(schema::prepare_in_background(database.clone()));
            }
            Err(error) => return Err(error),
        }
        Ok(Self {
            connections: Connections::new(database, max_connections, STATEMENTS),
            max_per_tenant: i64::try_from(max_per_tenant).unwrap_or(i64::MAX),
            probe: Mutex::default(),
        })
    }

    /// The number of open connections, and their maximum.
    pub(super) fn open_connections(&self) -> (usize, usize) {
        self.connections.open()
    }

    /// Whether the database responds. It is queried at most once per second, so that probes cannot
    /// keep it busy.
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
        let query = async |client: &ClientWrapper| client.batch_execute("SELECT 1").await;
        let result = self.connections.run_without_tenant(query).await;
        *probe = Some((Instant::now(), result.is_ok()));
        Ok(result?)
    }

    pub(super) async fn list(
        &self,
        tenant: TenantId,
        reach: Reach,
        page: Page,
    ) -> Result<Listing, StoreError> {
        let tid = Uuid::from(tenant);
        let after = page.after.map_or(0, i64::from);
        let limit = page.limit.unwrap_or(usize::MAX);
        // One more than the limit shows whether there are more.
        let read = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
        let rows = self.connections.run(tenant, async |client| match reach {
            Reach::Tenant => {
                in_tenant(client, tenant, LIST_OF_TENANT, &[&tid, &after, &read]).await
            }
            Reach::User(user) => {
                let user = Uuid::from(user);
                in_tenant(client, tenant, LIST_OF_USER, &[&tid, &after, &read, &user]).await
            }
        });
        let rows = rows.await?;
        let tasks = rows
            .iter()
            .take(limit)
            .map(|row| Arc::new(task(tenant, row)))
            .collect();
        Ok(Listing {
            tasks,
            more: rows.len() > limit,
        })
    }

    pub(super) async fn get(
        &self,
        tenant: TenantId,
        reach: Reach,
        id: TaskId,
    ) -> Result<Option<Arc<Task>>, StoreError> {
        let (tid, id, owner) = (Uuid::from(tenant), i64::from(id), owner_within(reach));
        let rows = self.connections.run(tenant, async |client| {
            in_tenant(client, tenant, GET, &[&tid, &id, &owner]).await
        });
        Ok(rows.await?.first().map(|row| Arc::new(task(tenant, row))))
    }

    pub(super) async fn insert(&self, owner: Owner, new: NewTask) -> Result<Arc<Task>, StoreError> {
        let NewTask {
            content,
            owner_name,
        } = new;
        // The one character that a PostgreSQL text cannot contain.
        let owner_name = owner_name.replace('\0', "");
        let (tid, user) = (Uuid::from(owner.tenant), Uuid::from(owner.user));
        let row = self.connections.run(owner.tenant, async |client| {
            let (take_id, insert) = try_join(
                client.prepare_cached(TAKE_ID),
                client.prepare_cached(INSERT),
            )
            .await?;
            let (begin, title) = (begin(owner.tenant), content.title.as_str());
            let (id, task): (Parameters, Parameters) = (
                &[&tid, &self.max_per_tenant],
                &[&tid, &user, &owner_name, &title, &content.completed],
            );
            let (opened, counted, inserted, committed) = join4(
                client.batch_execute(&begin),
                client.execute(&take_id, id),
                client.query_one(&insert, task),
                client.batch_execute(COMMIT),
            )
            .await;
            // The first failure is the cause of the others.
            opened?;
            counted?;
            let row = inserted?;
            committed?;
            Ok(row)
        });
        match row.await {
            Ok(row) => {
                let (id, owner_name) = (id(&row), owner_name.into());
                Ok(Arc::new(Task {
                    id,
                    owner,
                    owner_name,
                    content,
                }))
            }
            Err(error) if error.violates(FULL) => Err(StoreError::Full {
                max: usize::try_from(self.max_per_tenant).unwrap_or(usize::MAX),
            }),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn update(
        &self,
        tenant: TenantId,
        reach: Reach,
        id: TaskId,
        update: TaskUpdate,
    ) -> Result<Option<Arc<Task>>, StoreError> {
        let (tid, id, owner) = (Uuid::from(tenant), i64::from(id), owner_within(reach));
        let title = update.title.as_ref().map(Title::as_str);
        let rows = self.connections.run(tenant, async |client| {
            in_tenant(
                client,
                tenant,
                UPDATE,
                &[&tid, &id, &owner, &title, &update.completed],
            )
            .await
        });
        Ok(rows.await?.first().map(|row| Arc::new(task(tenant, row))))
    }

    pub(super) async fn remove(&self, tenant: TenantId, id: TaskId) -> Result<(), StoreError> {
        let (tid, id) = (Uuid::from(tenant), i64::from(id));
        let removed = self.connections.run(tenant, async |client| {
            let lock = client.prepare_cached(LOCK_TENANT).await?;
            let (count_down, remove) = try_join(
                client.prepare_cached(COUNT_DOWN),
                client.prepare_cached(REMOVE),
            )
            .await?;
            let begin = begin(tenant);
            let (of_tenant, of_task): (Parameters, Parameters) = (&[&tid], &[&tid, &id]);
            let (opened, locked, counted, removed, committed) = join5(
                client.batch_execute(&begin),
                client.execute(&lock, of_tenant),
                client.execute(&count_down, of_task),
                client.execute(&remove, of_task),
                client.batch_execute(COMMIT),
            )
            .await;
            opened?;
            locked?;
            counted?;
            removed?;
            committed
        });
        Ok(removed.await?)
    }
}

type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Runs one statement in a transaction of the tenant. Everything is sent before the first response
/// is awaited: `join`, unlike `try_join`, sends `COMMIT` even if an earlier part has failed.
async fn in_tenant(
    client: &ClientWrapper,
    tenant: TenantId,
    sql: &str,
    parameters: Parameters<'_>,
) -> Result<Vec<Row>, tokio_postgres::Error> {
    let statement = client.prepare_cached(sql).await?;
    let begin = begin(tenant);
    let (opened, rows, committed) = join3(
        client.batch_execute(&begin),
        client.query(&statement, parameters),
        client.batch_execute(COMMIT),
    )
    .await;
    opened?;
    let rows = rows?;
    committed?;
    Ok(rows)
}

/// Begins a transaction that sees only one tenant's rows. `SET` does not take parameters. A tenant
/// id is a UUID, so it cannot contain a quote. `set_config` would not reach Citus workers.
fn begin(tenant: TenantId) -> String {
    format!("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL app.tenant = '{tenant}'")
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The next request on the connection must not inherit the tenant.
    #[test]
    fn tenant_is_set_for_one_transaction_only() {
        let tenant = "11111111-1111-4111-8111-111111111111"
            .parse()
            .expect("a GUID");
        assert!(begin(tenant).starts_with("BEGIN "));
        assert!(
            begin(tenant)
                .ends_with("; SET LOCAL app.tenant = '11111111-1111-4111-8111-111111111111'")
        );
    }
}
