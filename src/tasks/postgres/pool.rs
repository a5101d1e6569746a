//! Connections to the database: how many, how long they may take, and when one is given up.
//!
//! Whoever cannot get a connection soon is told so. A slow database must not gather requests that
//! nobody waits for any more.

use std::{num::NonZeroUsize, time::Duration};

use deadpool_postgres::{
    ClientWrapper, Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts,
};
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    DatabaseError, STATEMENTS,
    database::{CONNECT_TIMEOUT, Database},
    schema,
};

/// How long a request waits for a connection that others have.
const WAIT_TIMEOUT: Duration = Duration::from_secs(1);

/// How many requests may wait for each connection; more are refused at once.
const WAITING_PER_CONNECTION: usize = 50;

/// How long the database may take for what one request asks of it.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(2);

/// The same with the way there and back, after which the connection is given up.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(3);

/// How old a connection may get: after a failover or a change of addresses, that long until all are new.
const MAX_AGE: Duration = Duration::from_mins(30);

/// A pool of so many connections. It makes them when they are needed, and each proves anew that row
/// security binds it.
pub(super) fn new(database: &Database, size: NonZeroUsize) -> Pool {
    let manager = Manager::from_config(
        database.config.clone(),
        MakeRustlsConnect::new(database.tls.clone()),
        // Whether it is still open is known without asking it.
        ManagerConfig { recycling_method: RecyclingMethod::Fast },
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
                set_up(client).await.map_err(|error| HookError::message(error.to_string()))?;
                for sql in STATEMENTS {
                    client.prepare_cached(sql).await.map_err(HookError::Backend)?;
                }
                Ok(())
            })
        }))
        .pre_recycle(Hook::sync_fn(|_, metrics| {
            if metrics.age() < MAX_AGE { Ok(()) } else { Err(HookError::message("old")) }
        }))
        .build()
        .expect("a runtime is named")
}

async fn set_up(client: &Client) -> Result<(), DatabaseError> {
    // The server gives up a little before we do, and never holds a row for a replica that has vanished.
    let millis = STATEMENT_TIMEOUT.as_millis();
    let limits =
        format!("SET statement_timeout = {millis}; SET idle_in_transaction_session_timeout = {millis}");
    client.batch_execute(&limits).await?;
    schema::check_row_security(client).await
}

/// Has a connection for as long as it takes to get the answer, and gives it up if it fails in a way that would
/// hurt whoever has it next.
///
/// # Errors
///
/// What the database says, and [`DatabaseError::Unreachable`] when no connection comes free or can be made soon,
/// too many wait for one already, or no answer comes in time.
pub(super) async fn exchange<T>(
    pool: &Pool,
    ask: impl AsyncFnOnce(&ClientWrapper) -> Result<T, tokio_postgres::Error>,
) -> Result<T, DatabaseError> {
    let status = pool.status();
    if status.waiting > status.max_size.saturating_mul(WAITING_PER_CONNECTION) {
        return Err(DatabaseError::Unreachable("too many requests wait for a connection".into()));
    }
    let connection = pool.get().await?;
    let answer = match timeout(EXCHANGE_TIMEOUT, ask(&connection)).await {
        Ok(answer) => answer.map_err(DatabaseError::from),
        Err(_) => Err(DatabaseError::Unreachable("no answer in time".into())),
    };
    if let Err(DatabaseError::Unreachable(_)) = answer {
        drop(Object::take(connection));
    }
    answer
}
