//! Connections to the database: how many, how long they may take, and when one is given up.
//!
//! Whoever cannot get a connection soon is told so. A slow database must not gather requests that
//! nobody waits for any more.

use std::{fmt, num::NonZeroUsize, sync::Arc, time::Duration};

use dashmap::{DashMap, mapref::one::Ref};
use deadpool_postgres::{
    ClientWrapper, Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime,
    Timeouts,
};
use tokio::{runtime::Handle, sync::Semaphore, time::timeout};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    DatabaseError, STATEMENTS,
    config::{CONNECT_TIMEOUT, Database},
    schema,
};
use crate::ids::TenantId;

/// How long a request waits for a connection that others have.
const WAIT_TIMEOUT: Duration = Duration::from_secs(1);

/// How many requests may wait for each connection; more are refused at once.
const WAITING_PER_CONNECTION: usize = 50;

/// How long a new connection may take to be set up. With all the other waits it is less than a request has.
const SET_UP_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the database may take for one statement.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long it may take for all that one request asks of it, the way there and back included, before the
/// connection is given up.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(3);

/// How old a connection may get: after a failover or a change of addresses, that long until all are new.
const MAX_AGE: Duration = Duration::from_mins(30);

/// A pool of so many connections. It makes them when they are needed, and each proves anew that row
/// security binds it.
fn new(database: &Database, size: NonZeroUsize) -> Pool {
    let manager = Manager::from_config(
        database.config.clone(),
        MakeRustlsConnect::new(database.tls.clone()),
        // Whether it is still open is known without asking it.
        ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        },
    );
    Pool::builder(manager)
        .max_size(size.get())
        .timeouts(Timeouts {
            wait: Some(WAIT_TIMEOUT),
            create: Some(CONNECT_TIMEOUT),
            recycle: Some(CONNECT_TIMEOUT),
        })
        .runtime(Runtime::Tokio1)
        .post_create(Hook::async_fn(|client, _| {
            Box::pin(async move {
                let ready = in_time(SET_UP_TIMEOUT, set_up(client)).await;
                ready.map_err(|error| HookError::message(error.to_string()))
            })
        }))
        .pre_recycle(Hook::sync_fn(|_, metrics| {
            if metrics.age() < MAX_AGE {
                Ok(())
            } else {
                Err(HookError::message("old"))
            }
        }))
        .build()
        .expect("a runtime is named")
}

async fn set_up(client: &ClientWrapper) -> Result<(), DatabaseError> {
    // The server gives up too, and never holds a row for a replica that has vanished.
    let millis = STATEMENT_TIMEOUT.as_millis();
    let limits = format!(
        "SET statement_timeout = {millis}; SET idle_in_transaction_session_timeout = {millis}"
    );
    client.batch_execute(&limits).await?;
    schema::check_row_security(client).await?;
    for sql in STATEMENTS {
        client.prepare_cached(sql).await?;
    }
    Ok(())
}

/// Connections for requests, shared out so that no tenant can take them all: one that creates many tasks at
/// once waits for itself, and each wait would hold a connection.
pub(super) struct Connections {
    pool: Pool,
    /// How many each tenant may have at the same time.
    share: usize,
    /// A tenant appears with its first request.
    shares: DashMap<TenantId, Arc<Share>>,
}

/// What one tenant may have.
struct Share {
    /// Requests that have a connection, or wait for one of the tenant's.
    queue: Semaphore,
    /// Requests that have one.
    connections: Semaphore,
}

impl Connections {
    pub(super) fn new(database: &Database, size: NonZeroUsize) -> Self {
        Self {
            pool: new(database, size),
            share: size.get().div_ceil(2),
            shares: DashMap::new(),
        }
    }

    /// Has a connection for as long as it takes to get the tenant's answer.
    ///
    /// # Errors
    ///
    /// What the database says, and [`DatabaseError::Unreachable`] when no connection comes free or can be made
    /// soon, too many wait for one already, or no answer comes in time.
    pub(super) async fn exchange<T>(
        &self,
        tenant: TenantId,
        ask: impl AsyncFnOnce(&ClientWrapper) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, DatabaseError> {
        // Cloned out of the map, so that its shard is free while it is waited for.
        let share = Arc::clone(&*self.share_of(tenant));
        let crowded = || {
            DatabaseError::Unreachable(
                "too many requests of the tenant wait for a connection".into(),
            )
        };
        let _turn = share.queue.try_acquire().map_err(|_| crowded())?;
        let place = timeout(WAIT_TIMEOUT, share.connections.acquire()).await;
        let _place = place.map_err(|_| crowded())?;
        self.exchange_for_anyone(ask).await
    }

    /// The same for what is of no tenant.
    pub(super) async fn exchange_for_anyone<T>(
        &self,
        ask: impl AsyncFnOnce(&ClientWrapper) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, DatabaseError> {
        let status = self.pool.status();
        if status.waiting > status.max_size.saturating_mul(WAITING_PER_CONNECTION) {
            return Err(DatabaseError::Unreachable(
                "too many requests wait for a connection".into(),
            ));
        }
        let mut lent = Lent(Some(self.pool.get().await?));
        let asked = ask(lent.0.as_ref().expect("lent until the answer is there"));
        let answer = in_time(EXCHANGE_TIMEOUT, async {
            asked.await.map_err(DatabaseError::from)
        })
        .await;
        if let (Some(connection), Err(DatabaseError::Unreachable(_))) = (lent.0.take(), &answer) {
            // It would fail whoever has it next.
            drop(Object::take(connection));
        }
        answer
    }

    /// How many there are, and how many there may be.
    pub(super) fn open(&self) -> (usize, usize) {
        let status = self.pool.status();
        (status.size, status.max_size)
    }

    fn share_of(&self, tenant: TenantId) -> Ref<'_, TenantId, Arc<Share>> {
        if let Some(share) = self.shares.get(&tenant) {
            return share;
        }
        let share = || Share {
            queue: Semaphore::new(self.share * WAITING_PER_CONNECTION),
            connections: Semaphore::new(self.share),
        };
        self.shares
            .entry(tenant)
            .or_insert_with(|| Arc::new(share()))
            .downgrade()
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("pool", &self.pool.status())
            .finish_non_exhaustive()
    }
}

/// A connection that is waited for. Should whoever waits go away, it still answers before anyone else has it:
/// else what clients give up would gather behind it.
struct Lent(Option<Object>);

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(connection), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(async move {
                let settled = timeout(EXCHANGE_TIMEOUT, connection.batch_execute("")).await;
                if !matches!(settled, Ok(Ok(()))) {
                    drop(Object::take(connection));
                }
            });
        }
    }
}

/// The work's outcome, if it comes in time.
pub(super) async fn in_time<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, DatabaseError>>,
) -> Result<T, DatabaseError> {
    timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(DatabaseError::Unreachable("no answer in time".into())))
}
