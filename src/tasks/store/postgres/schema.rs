//! The tables: migrations, and the check that row security separates tenants.
//!
//! Migrations only go forward and run under a lock, so that replicas may start together. After each
//! migration, the previous version of the service must still work, or a rolling deployment fails.

use std::time::Duration;

use tokio::time::sleep;
use tokio_postgres::{Client, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    config::{CONNECT_TIMEOUT, DatabaseConfig},
    error::{DatabaseError, with_timeout},
};

/// The migrations, each applied once, in this order.
const MIGRATIONS: [&str; 1] = [include_str!("schema/1.sql")];

/// Held while migrations run. The number is arbitrary. Nothing else in the database uses it.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7307199712345021)";

/// The back-off between attempts to reach the database. It doubles from the first to the last.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Applies the pending migrations and checks that row security binds the role.
pub(super) async fn prepare(database: &DatabaseConfig) -> Result<(), DatabaseError> {
    let client = connect(database).await?;
    let applied = with_timeout(CONNECT_TIMEOUT, applied(&client)).await?;
    if applied < MIGRATIONS.len() {
        migrate(&client).await?;
    }
    with_timeout(CONNECT_TIMEOUT, check_row_security(&client)).await
}

/// Does the checks of [`prepare`] and changes nothing. Returns the number of pending migrations.
pub(super) async fn inspect(database: &DatabaseConfig) -> Result<usize, DatabaseError> {
    let client = connect(database).await?;
    let applied = with_timeout(CONNECT_TIMEOUT, applied(&client)).await?;
    if applied > 0 {
        with_timeout(CONNECT_TIMEOUT, check_row_security(&client)).await?;
    }
    Ok(MIGRATIONS.len().saturating_sub(applied))
}

/// Retries [`prepare`] until it succeeds.
pub(super) async fn prepare_in_background(database: DatabaseConfig) {
    let mut wait = FIRST_RETRY;
    loop {
        sleep(wait).await;
        match prepare(&database).await {
            Ok(()) => break tracing::info!("connected to database"),
            Err(error) => {
                wait = LAST_RETRY.min(wait * 2);
                let retry_in_s = wait.as_secs();
                tracing::error!(%error, retry_in_s, "cannot connect to database; tasks are unavailable");
            }
        }
    }
}

/// Checks that the policies bind this role on this connection. They do not bind a superuser, a role
/// with BYPASSRLS, or an owner without FORCE.
pub(super) async fn check_row_security(client: &Client) -> Result<(), DatabaseError> {
    let sql = "SELECT row_security_active('tenants') AND row_security_active('tasks')";
    let messages = client.simple_query(sql).await?;
    let is_active = messages.iter().any(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0) == Some("t"),
        _ => false,
    });
    if is_active {
        return Ok(());
    }
    Err(DatabaseError::Unusable(
        "row security does not bind the role of DATABASE_URL: the tables tenants and tasks must \
         have row level security enabled, and forced if the role owns them",
    ))
}

/// Connects, as a role that is not exempt from row security.
async fn connect(database: &DatabaseConfig) -> Result<Client, DatabaseError> {
    let tls = MakeRustlsConnect::new(database.tls.clone());
    let connect = database.postgres.connect(tls);
    let connect = Box::pin(async { connect.await.map_err(DatabaseError::from) });
    let (client, connection) = with_timeout(CONNECT_TIMEOUT, connect).await?;
    // Ends when the client is dropped. The client also reports the connection's errors.
    tokio::spawn(connection);
    with_timeout(CONNECT_TIMEOUT, reject_exempt_role(&client)).await?;
    Ok(client)
}

/// Rejects a role that is exempt from row security. The error names the attribute.
async fn reject_exempt_role(client: &Client) -> Result<(), DatabaseError> {
    let sql = "SELECT rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user";
    let role = client.query_one(sql, &[]).await?;
    let problems = [
        "DATABASE_URL connects as a superuser, and row security does not bind superusers: \
         create a role for the service, as src/docs/postgres.md shows",
        "DATABASE_URL connects as a role with BYPASSRLS, and row security does not bind it: \
         create a role for the service, as src/docs/postgres.md shows",
    ];
    for (index, problem) in problems.into_iter().enumerate() {
        if role.get(index) {
            return Err(DatabaseError::Unusable(problem));
        }
    }
    Ok(())
}

/// The number of migrations that the database has.
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
    // Read committed: after waiting for the lock, this must see what the previous holder committed.
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
    // Another replica may have migrated while this one waited for the lock.
    let applied = applied(client).await?;
    for (step, sql) in (1_i32..).zip(MIGRATIONS).skip(applied) {
        client.batch_execute(sql).await?;
        client
            .execute("INSERT INTO schema_steps (step) VALUES ($1)", &[&step])
            .await?;
        tracing::info!(step, "applied database migration");
    }
    client.batch_execute("COMMIT").await?;
    Ok(())
}
