//! The connection pool: limits, timeouts, and when a connection is discarded.
//!
//! A request fails if it does not get a connection within a short time. Otherwise requests whose
//! clients have given up would pile up behind a slow database.

use std::{
    num::NonZeroUsize,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use anyhow::anyhow;
use dashmap::DashMap;
use deadpool_postgres::{
    ClientWrapper, Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime,
    Timeouts,
};
use futures_util::future::BoxFuture;
use tokio::{
    runtime::Handle,
    sync::Semaphore,
    time::{timeout, timeout_at},
};
use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};
use uuid::Uuid;

use super::{
    checks,
    config::SharedConfig,
    error::{DatabaseError, breaks_connection, may_be_repeated, with_timeout},
};
use crate::ids::TenantId;

/// How long a request waits for a free connection.
const WAIT_TIMEOUT: Duration = Duration::from_secs(1);

/// The number of requests that may wait for each connection. More are rejected at once. In a tenant's
/// share, requests that hold a connection count too.
const WAITING_PER_CONNECTION: usize = 50;

/// The time limit for the setup of a new connection. All time limits of an operation add up to less
/// than the time limit of a request.
const SETUP_TIMEOUT: Duration = Duration::from_secs(1);

/// The server's time limit for one statement.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(2);

/// The time limit for one call, including the network.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

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
    shares: DashMap<TenantId, TenantShare>,
}

/// The limits of one tenant.
#[derive(Clone)]
struct TenantShare {
    /// The requests that hold a connection or wait for one.
    queue: Arc<Semaphore>,
    /// The requests that hold a connection.
    connections: Arc<Semaphore>,
}

/// A call of a function in the schema. The first parameter is the tenant.
pub(super) struct Call {
    /// The tenant in whose share the call runs; `None` for none.
    tenant: Option<TenantId>,
    sql: &'static str,
    parameters: Vec<(Box<dyn ToSql + Send + Sync>, Type)>,
}

impl Call {
    pub(super) fn new(sql: &'static str, tenant: TenantId) -> Self {
        let call = Self {
            tenant: Some(tenant),
            sql,
            parameters: Vec::new(),
        };
        call.with(Uuid::from(tenant), Type::UUID)
    }

    /// A call with a tenant id that no tenant has.
    pub(super) fn without_tenant(sql: &'static str) -> Self {
        let call = Self {
            tenant: None,
            sql,
            parameters: Vec::new(),
        };
        call.with(Uuid::nil(), Type::UUID)
    }

    /// Adds the next parameter. Its type is named, so that no statement must be prepared first.
    pub(super) fn with(mut self, value: impl ToSql + Send + Sync + 'static, kind: Type) -> Self {
        self.parameters.push((Box::new(value), kind));
        self
    }

    /// Sends the call as one unnamed statement. Connection poolers support these in every mode.
    pub(super) async fn send(
        &self,
        client: &tokio_postgres::Client,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let parameters = self.parameters.iter();
        let parameters: Vec<(&(dyn ToSql + Sync), Type)> = parameters
            .map(|(value, kind)| (&**value as &(dyn ToSql + Sync), kind.clone()))
            .collect();
        client.query_typed(self.sql, &parameters).await
    }
}

impl Connections {
    /// A pool of at most `size` connections. Each is opened when needed. Its setup checks that row
    /// security binds the role.
    pub(super) fn new(config: SharedConfig, size: NonZeroUsize) -> Self {
        let connect_timeout = config.current().connect_timeout;
        let manager = Manager::from_connect(
            tokio_postgres::Config::new(),
            config,
            // A closed connection is detected without a query.
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let pool = Pool::builder(manager)
            .max_size(size.get())
            .timeouts(Timeouts {
                wait: Some(WAIT_TIMEOUT),
                create: Some(connect_timeout),
                recycle: Some(connect_timeout),
            })
            .runtime(Runtime::Tokio1)
            .post_create(Hook::async_fn(move |client, _| {
                Box::pin(async move {
                    let setup = with_timeout(SETUP_TIMEOUT, set_up(client)).await;
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

    /// Runs a call.
    ///
    /// # Errors
    ///
    /// [`DatabaseError::Unreachable`] also if no connection is available in time, if too many
    /// requests are already waiting, or if the response takes too long.
    pub(super) async fn run(&self, call: Call) -> Result<Vec<Row>, DatabaseError> {
        let Some(tenant) = call.tenant else {
            return run(self.pool.clone(), call).await;
        };
        let share = self.share_of(tenant);
        let too_many = || {
            let message = "all connections of the tenant are in use";
            DatabaseError::Unreachable(anyhow!(message))
        };
        let queue = share.queue.try_acquire_owned().map_err(|_| too_many())?;
        let permit = timeout(WAIT_TIMEOUT, share.connections.acquire_owned()).await;
        let permit = permit.map_err(|_| too_many())?;
        let pool = self.pool.clone();
        let call = async move {
            let result = run(pool, call).await;
            drop((queue, permit));
            result
        };
        Running(Some(Box::pin(call))).await
    }

    /// The number of open connections, and their maximum.
    pub(super) fn open(&self) -> (usize, usize) {
        let status = self.pool.status();
        (status.size, status.max_size)
    }

    /// The tenants that have sent requests.
    pub(super) fn tenants(&self) -> Vec<TenantId> {
        self.shares.iter().map(|share| *share.key()).collect()
    }

    /// The tenant's limits, cloned so that the map's shard is not locked while a request waits.
    fn share_of(&self, tenant: TenantId) -> TenantShare {
        if let Some(share) = self.shares.get(&tenant) {
            return share.clone();
        }
        let new = || TenantShare {
            queue: Arc::new(Semaphore::new(self.share * WAITING_PER_CONNECTION)),
            connections: Arc::new(Semaphore::new(self.share)),
        };
        self.shares.entry(tenant).or_insert_with(new).clone()
    }
}

/// A call that may be dropped, for example by the time limit of a request. If it is dropped before its
/// end, a spawned task completes it. The connection and the permits are therefore in use until the
/// server has answered. Otherwise the next call on the connection, perhaps of another tenant, would
/// wait for that answer.
struct Running(Option<BoxFuture<'static, Result<Vec<Row>, DatabaseError>>>);

impl Future for Running {
    type Output = Result<Vec<Row>, DatabaseError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let call = self.0.as_mut().expect("a completed call is not polled");
        let result = ready!(call.as_mut().poll(context));
        self.0 = None;
        Poll::Ready(result)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(call) = self.0.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(call);
        }
    }
}

async fn run(pool: Pool, call: Call) -> Result<Vec<Row>, DatabaseError> {
    let status = pool.status();
    if status.waiting >= status.max_size.saturating_mul(WAITING_PER_CONNECTION) {
        let message = "all connections are in use";
        return Err(DatabaseError::Unreachable(anyhow!(message)));
    }
    let connection = pool.get().await?;
    let deadline = tokio::time::Instant::now() + CALL_TIMEOUT;
    let mut result = timeout_at(deadline, call.send(&connection)).await;
    if matches!(&result, Ok(Err(error)) if may_be_repeated(error)) {
        result = timeout_at(deadline, call.send(&connection)).await;
    }
    match result {
        Ok(Ok(rows)) => Ok(rows),
        Ok(Err(error)) => {
            if connection.is_closed() || breaks_connection(&error) {
                // It would fail the next request too.
                drop(Object::take(connection));
            }
            Err(error.into())
        }
        Err(_) => {
            drop(Object::take(connection));
            Err(DatabaseError::no_response_within(CALL_TIMEOUT))
        }
    }
}

async fn set_up(client: &ClientWrapper) -> Result<(), DatabaseError> {
    // The server has a time limit too: it must not hold row locks for a replica that is gone.
    let millis = STATEMENT_TIMEOUT.as_millis();
    let limits = format!(
        "SET statement_timeout = {millis}; SET default_transaction_isolation = 'read committed'"
    );
    client.batch_execute(&limits).await?;
    checks::check_isolation(client).await
}
