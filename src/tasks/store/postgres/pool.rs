//! The connection pool: limits, timeouts, and when a connection is discarded.
//!
//! A request fails if it does not get a connection within a short time. Otherwise requests whose
//! clients have given up would pile up behind a slow database.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use anyhow::anyhow;
use dashmap::DashMap;
use deadpool_postgres::{
    ClientWrapper, Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime,
    Timeouts,
};
use tokio::{runtime::Handle, sync::Semaphore, time::timeout};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    config::{CONNECT_TIMEOUT, DatabaseConfig},
    error::{DatabaseError, with_timeout},
    schema,
};
use crate::ids::TenantId;

/// How long a request waits for a free connection.
const WAIT_TIMEOUT: Duration = Duration::from_secs(1);

/// The number of requests that may wait for each connection. More are rejected at once.
const WAITING_PER_CONNECTION: usize = 50;

/// The time limit for the setup of a new connection. All time limits of an operation add up to less
/// than the time limit of a request.
const SETUP_TIMEOUT: Duration = Duration::from_secs(1);

/// The server's time limit for one statement.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(2);

/// The time limit for one operation on the database, including the network.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(3);

/// The maximum age of a connection. After a failover or a change of addresses, an old connection is
/// used at most this long.
const MAX_AGE: Duration = Duration::from_mins(30);

/// The connections for requests. A tenant gets at most half of them: inserts of one tenant wait for
/// each other, and every waiting insert holds a connection.
pub(super) struct Connections {
    pool: Pool,
    /// The maximum number of connections of a tenant.
    share: usize,
    /// A tenant is added with its first request.
    shares: DashMap<TenantId, Arc<TenantShare>>,
}

/// The limits of one tenant.
struct TenantShare {
    /// The requests that hold a connection or wait for one.
    queue: Semaphore,
    /// The requests that hold a connection.
    connections: Semaphore,
}

/// A connection with a query in progress. If the request is canceled, the query is awaited before
/// the connection returns to the pool, so that abandoned queries cannot pile up on it.
struct Lease(Option<Object>);

impl Connections {
    /// A pool of at most `size` connections. Each is opened when needed. Its setup checks that row
    /// security binds the role, and prepares `statements`.
    pub(super) fn new(
        database: &DatabaseConfig,
        size: NonZeroUsize,
        statements: &'static [&'static str],
    ) -> Self {
        let manager = Manager::from_config(
            database.postgres.clone(),
            MakeRustlsConnect::new(database.tls.clone()),
            // A closed connection is detected without a query.
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let pool = Pool::builder(manager)
            .max_size(size.get())
            .timeouts(Timeouts {
                wait: Some(WAIT_TIMEOUT),
                create: Some(CONNECT_TIMEOUT),
                recycle: Some(CONNECT_TIMEOUT),
            })
            .runtime(Runtime::Tokio1)
            .post_create(Hook::async_fn(move |client, _| {
                Box::pin(async move {
                    let setup = with_timeout(SETUP_TIMEOUT, set_up(client, statements)).await;
                    setup.map_err(|error| HookError::message(error.to_string()))
                })
            }))
            .pre_recycle(Hook::sync_fn(|_, metrics| {
                if metrics.age() < MAX_AGE {
                    Ok(())
                } else {
                    Err(HookError::message("too old"))
                }
            }))
            .build()
            .expect("a runtime is set");
        Self {
            pool,
            share: size.get().div_ceil(2),
            shares: DashMap::new(),
        }
    }

    /// Runs a query of a tenant on a connection.
    ///
    /// # Errors
    ///
    /// [`DatabaseError::Unreachable`] also if no connection is available in time, if too many
    /// requests are already waiting, or if the response takes too long.
    pub(super) async fn run<T>(
        &self,
        tenant: TenantId,
        query: impl AsyncFnOnce(&ClientWrapper) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, DatabaseError> {
        let share = self.share_of(tenant);
        let too_many = || {
            let message = "all connections of the tenant are in use";
            DatabaseError::Unreachable(anyhow!(message))
        };
        let _queue = share.queue.try_acquire().map_err(|_| too_many())?;
        let permit = timeout(WAIT_TIMEOUT, share.connections.acquire()).await;
        let _permit = permit.map_err(|_| too_many())?;
        self.run_without_tenant(query).await
    }

    /// Runs a query that does not belong to a tenant.
    pub(super) async fn run_without_tenant<T>(
        &self,
        query: impl AsyncFnOnce(&ClientWrapper) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, DatabaseError> {
        let status = self.pool.status();
        if status.waiting > status.max_size.saturating_mul(WAITING_PER_CONNECTION) {
            let message = "all connections are in use";
            return Err(DatabaseError::Unreachable(anyhow!(message)));
        }
        let mut lease = Lease(Some(self.pool.get().await?));
        let query = query(lease.0.as_ref().expect("leased until the response"));
        let query = async { query.await.map_err(DatabaseError::from) };
        let result = with_timeout(EXCHANGE_TIMEOUT, query).await;
        if let (Some(connection), Err(DatabaseError::Unreachable(_))) = (lease.0.take(), &result) {
            // Discarded: it would fail the next request too.
            drop(Object::take(connection));
        }
        result
    }

    /// The number of open connections, and their maximum.
    pub(super) fn open(&self) -> (usize, usize) {
        let status = self.pool.status();
        (status.size, status.max_size)
    }

    /// The tenant's limits, cloned so that the map's shard is not locked while a request waits.
    fn share_of(&self, tenant: TenantId) -> Arc<TenantShare> {
        if let Some(share) = self.shares.get(&tenant) {
            return Arc::clone(&share);
        }
        let new = || {
            Arc::new(TenantShare {
                queue: Semaphore::new(self.share * WAITING_PER_CONNECTION),
                connections: Semaphore::new(self.share),
            })
        };
        Arc::clone(&self.shares.entry(tenant).or_insert_with(new))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (Some(connection), Ok(runtime)) = (self.0.take(), Handle::try_current()) else {
            return;
        };
        runtime.spawn(async move {
            let drained = timeout(EXCHANGE_TIMEOUT, connection.batch_execute("")).await;
            if !matches!(drained, Ok(Ok(()))) {
                drop(Object::take(connection));
            }
        });
    }
}

async fn set_up(client: &ClientWrapper, statements: &[&str]) -> Result<(), DatabaseError> {
    // The server has time limits too: it must not hold row locks for a replica that is gone.
    let millis = STATEMENT_TIMEOUT.as_millis();
    let limits = format!(
        "SET statement_timeout = {millis}; SET idle_in_transaction_session_timeout = {millis}"
    );
    client.batch_execute(&limits).await?;
    schema::check_row_security(client).await?;
    for sql in statements {
        client.prepare_cached(sql).await?;
    }
    Ok(())
}
