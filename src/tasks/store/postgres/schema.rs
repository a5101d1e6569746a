//! The tables, brought up to date, and the proof that the database itself keeps tenants apart.
//!
//! Steps go forward only and are applied under a lock, so that replicas may start together. Each must leave
//! the tables usable by the version of the service before it, or a rolling deployment would fail.

use std::time::Duration;

use tokio::time::sleep;
use tokio_postgres::{Client, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    DatabaseError,
    config::{CONNECT_TIMEOUT, Database},
    pool::in_time,
};

/// The steps, each applied once, in this order.
const STEPS: [&str; 1] = [include_str!("schema/1.sql")];

/// Held while the steps are applied: any number will do that nobody else uses in this database.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7307199712345021)";

/// How long to wait until the database is tried again, at first and at most.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Makes the tables what this version needs, as a role that row security binds.
///
/// # Errors
///
/// [`DatabaseError::Unusable`] if it does not bind the role, and whatever the database refuses.
pub(super) async fn prepare(database: &Database) -> Result<(), DatabaseError> {
    let client = connect(database).await?;
    if in_time(CONNECT_TIMEOUT, applied(&client)).await? < STEPS.len() {
        migrate(&client).await?;
    }
    in_time(CONNECT_TIMEOUT, check_row_security(&client)).await
}

/// What [`prepare`] would find, without changing anything; how many steps it would have to apply.
///
/// # Errors
///
/// As [`prepare`].
pub(super) async fn inspect(database: &Database) -> Result<usize, DatabaseError> {
    let client = connect(database).await?;
    let applied = in_time(CONNECT_TIMEOUT, applied(&client)).await?;
    if applied > 0 {
        in_time(CONNECT_TIMEOUT, check_row_security(&client)).await?;
    }
    Ok(STEPS.len().saturating_sub(applied))
}

/// Connects, as a role that is not above row security.
async fn connect(database: &Database) -> Result<Client, DatabaseError> {
    let connecting = database
        .config
        .connect(MakeRustlsConnect::new(database.tls.clone()));
    let connecting = Box::pin(async { connecting.await.map_err(DatabaseError::from) });
    let (client, connection) = in_time(CONNECT_TIMEOUT, connecting).await?;
    // Ends with the client. What goes wrong with the connection, the client is told too.
    tokio::spawn(connection);
    in_time(CONNECT_TIMEOUT, refuse_boundless_role(&client)).await?;
    Ok(client)
}

/// Tries until it is done.
pub(super) async fn prepare_later(database: Database) {
    let mut wait = FIRST_RETRY;
    loop {
        sleep(wait).await;
        match prepare(&database).await {
            Ok(()) => break tracing::info!("the database is there"),
            Err(error) => {
                tracing::error!(%error, retry_in_s = wait.as_secs(), "tasks are unavailable")
            }
        }
        wait = LAST_RETRY.min(wait * 2);
    }
}

/// Tells a role by its attributes, for a message that says what is wrong with it.
async fn refuse_boundless_role(client: &Client) -> Result<(), DatabaseError> {
    let sql = "SELECT rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user";
    let role = client.query_one(sql, &[]).await?;
    for (is_set, problem) in [
        (
            role.get(0),
            "DATABASE_URL connects as a superuser, whom row security does not bind: \
             use a role of its own, as the README shows",
        ),
        (
            role.get(1),
            "DATABASE_URL connects as a role with BYPASSRLS, which row security does not bind: \
             use a role of its own, as the README shows",
        ),
    ] {
        if is_set {
            return Err(DatabaseError::Unusable(problem));
        }
    }
    Ok(())
}

/// How many steps the database has seen.
async fn applied(client: &Client) -> Result<usize, DatabaseError> {
    let sql = "SELECT to_regclass('schema_steps') IS NOT NULL";
    if !client.query_one(sql, &[]).await?.get::<_, bool>(0) {
        return Ok(0);
    }
    let sql = "SELECT coalesce(max(step), 0) FROM schema_steps";
    let applied: i32 = client.query_one(sql, &[]).await?.get(0);
    Ok(usize::try_from(applied).unwrap_or(0))
}

async fn migrate(client: &Client) -> Result<(), DatabaseError> {
    // Read committed: what is read after the lock was waited for must be what its last holder left.
    let begin = "BEGIN ISOLATION LEVEL READ COMMITTED; \
                 SET LOCAL lock_timeout = '30s'; SET LOCAL statement_timeout = 0";
    client.batch_execute(begin).await?;
    client.batch_execute(LOCK).await?;
    client
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS schema_steps (
                 step integer PRIMARY KEY,
                 applied_at timestamptz NOT NULL DEFAULT now()
             )",
        )
        .await?;
    // Whoever had the lock before may have done it all.
    let applied = applied(client).await?;
    for (step, sql) in (1_i32..).zip(STEPS).skip(applied) {
        client.batch_execute(sql).await?;
        client
            .execute("INSERT INTO schema_steps (step) VALUES ($1)", &[&step])
            .await?;
        tracing::info!(step, "database schema brought forward");
    }
    client.batch_execute("COMMIT").await?;
    Ok(())
}

/// Asks the database whether its policies bind this very role on this very connection: they do not for a
/// superuser, a role with BYPASSRLS, or an owner without FORCE.
///
/// # Errors
///
/// [`DatabaseError::Unusable`] if they do not.
pub(super) async fn check_row_security(client: &Client) -> Result<(), DatabaseError> {
    let sql = "SELECT row_security_active('tenants') AND row_security_active('tasks')";
    let answer = client.simple_query(sql).await?;
    let is_active = answer.iter().any(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0) == Some("t"),
        _ => false,
    });
    if is_active {
        Ok(())
    } else {
        Err(DatabaseError::Unusable(
            "row security does not bind the role of DATABASE_URL: the tables tenants and tasks must have \
             row level security enabled, and forced if the role owns them",
        ))
    }
}
