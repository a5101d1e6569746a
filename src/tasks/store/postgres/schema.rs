//! The tables and functions: migrations.
//!
//! Migrations only go forward and run under a lock, so that replicas may start together. After each
//! migration, the previous version of the service must still work, or a rolling deployment fails. A
//! function with the same parameters is replaced, and one with others gets a new name.

use std::{fmt::Write, time::Duration};

use tokio::time::sleep;
use tokio_postgres::Client;

use super::{
    checks::{self, Inspection},
    config::{DatabaseConfig, SharedConfig},
    error::{DatabaseError, with_timeout},
};

/// The migrations, each applied once, in this order.
const MIGRATIONS: [&str; 5] = [
    include_str!("schema/1.sql"),
    include_str!("schema/2.sql"),
    include_str!("schema/3.sql"),
    include_str!("schema/4.sql"),
    include_str!("schema/5.sql"),
];

/// The advisory lock that is held while a migration runs. The number is arbitrary. Nothing else in
/// the database uses it.
const LOCK: i64 = 7_307_199_712_345_021;

/// The back-off between attempts to reach the database. It doubles from the first to the last.
pub(super) const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// The time limit for the checks at the start.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// Applies the pending migrations and checks that requests can be served.
pub(super) async fn prepare(database: &DatabaseConfig) -> Result<(), DatabaseError> {
    let client = connect(database).await?;
    let applied = with_timeout(CHECK_TIMEOUT, applied(&client)).await?;
    if applied < MIGRATIONS.len() {
        checks::check_can_migrate(&client, applied).await?;
        migrate(&client, applied).await?;
    }
    with_timeout(CHECK_TIMEOUT, checks::check_usable(&client)).await
}

/// Does the checks of [`prepare`] and changes nothing.
pub(super) async fn inspect(database: &DatabaseConfig) -> Result<Inspection, DatabaseError> {
    let client = connect(database).await?;
    let applied = with_timeout(CHECK_TIMEOUT, applied(&client)).await?;
    let pending_migrations = MIGRATIONS.len().saturating_sub(applied);
    let check = async {
        if pending_migrations > 0 {
            checks::check_can_migrate(&client, applied).await
        } else {
            checks::check_usable(&client).await
        }
    };
    with_timeout(CHECK_TIMEOUT, check).await?;
    let mut notes = Vec::new();
    let other = connect(database).await?;
    if with_timeout(CHECK_TIMEOUT, checks::lacks_time_limit(&client, &other)).await? {
        notes.push(
            "a connection pooler shares sessions, and the role has no statement_timeout: set it \
             with ALTER ROLE, as src/docs/poolers.md shows",
        );
    }
    Ok(Inspection {
        pending_migrations,
        notes,
    })
}

/// Retries [`prepare`] until it succeeds.
pub(super) async fn prepare_in_background(database: SharedConfig) {
    let mut wait = FIRST_RETRY;
    loop {
        sleep(wait).await;
        match prepare(&database.current()).await {
            Ok(()) => break tracing::info!("connected to database"),
            Err(error) => {
                wait = LAST_RETRY.min(wait * 2);
                log_unreachable(&error, wait);
            }
        }
    }
}

/// Logs that an attempt to reach the database failed, and when the next one follows.
pub(super) fn log_unreachable(error: &DatabaseError, retry_in: Duration) {
    let retry_in_s = retry_in.as_secs();
    tracing::error!(%error, retry_in_s, "cannot connect to database; tasks are unavailable");
}

/// Connects, as a role that is not exempt from row security.
async fn connect(database: &DatabaseConfig) -> Result<Client, DatabaseError> {
    let client = database.open().await?;
    with_timeout(CHECK_TIMEOUT, checks::check_role(&client)).await?;
    Ok(client)
}

/// The number of migrations that the database has.
async fn applied(client: &Client) -> Result<usize, DatabaseError> {
    let sql = "SELECT has_table_privilege(to_regclass('schema_steps'), 'SELECT')";
    match client.query_typed_one(sql, &[]).await?.get(0) {
        None => return Ok(0),
        Some(true) => {}
        Some(false) => {
            let problem = "privileges are missing: GRANT SELECT ON schema_steps to the role";
            return Err(DatabaseError::Unusable(problem.into()));
        }
    }
    let sql = "SELECT coalesce(max(step), 0) FROM schema_steps";
    let applied: i32 = client.query_typed_one(sql, &[]).await?.get(0);
    Ok(usize::try_from(applied).unwrap_or(0))
}

async fn migrate(client: &Client, applied: usize) -> Result<(), DatabaseError> {
    let sql = "SELECT quote_ident(current_schema())";
    let schema: String = client.query_typed_one(sql, &[]).await?.get(0);
    for (step, sql) in (1..).zip(MIGRATIONS).skip(applied) {
        client.batch_execute(&migration(step, sql, &schema)).await?;
        tracing::info!(step, "applied database migration");
    }
    Ok(())
}

/// One statement that applies a migration, unless another replica has applied it. It is one
/// transaction, also behind a connection pooler that does not permit others. Within it, statements
/// are executed one by one, which a distributed database requires.
fn migration(step: i32, sql: &str, schema: &str) -> String {
    let mut block = format!(
        "DO $migration$ BEGIN
        PERFORM set_config('lock_timeout', '30s', true);
        PERFORM pg_advisory_xact_lock({LOCK});
        CREATE TABLE IF NOT EXISTS {schema}.schema_steps (
            step integer PRIMARY KEY,
            applied_at timestamptz NOT NULL DEFAULT now()
        );
        IF EXISTS (SELECT FROM {schema}.schema_steps WHERE step = {step}) THEN RETURN; END IF;\n"
    );
    for statement in statements(sql) {
        let statement = statement.replace("{schema}", schema);
        // A write to memory does not fail.
        let _ = writeln!(block, "EXECUTE $statement${statement}$statement$;");
    }
    block + &format!("INSERT INTO {schema}.schema_steps (step) VALUES ({step}); END $migration$")
}

/// The statements of a migration: empty lines separate them.
fn statements(sql: &str) -> impl Iterator<Item = &str> {
    let is_comment = |part: &str| part.lines().all(|line| line.starts_with("--"));
    sql.split("\n\n").filter(move |part| !is_comment(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A statement ends with a semicolon, and only a function's body has others.
    #[test]
    fn empty_lines_separate_all_statements() {
        for (sql, count) in MIGRATIONS.into_iter().zip([9, 7, 13, 8, 2]) {
            let statements: Vec<_> = statements(sql).collect();
            assert_eq!(statements.len(), count);
            for statement in statements {
                let outside_bodies: String = statement.split("$$").step_by(2).collect();
                assert!(statement.trim_end().ends_with(';'), "{statement}");
                assert_eq!(outside_bodies.matches(';').count(), 1, "{statement}");
            }
        }
    }
}
