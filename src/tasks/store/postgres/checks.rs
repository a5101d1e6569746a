//! Checks that the service can use the database, and that the database separates tenants.

use tokio_postgres::{Client, types::Type};

use super::{error::DatabaseError, probe_call};

/// The result of a check that changes nothing.
#[derive(Debug)]
pub struct Inspection {
    /// The number of pending migrations.
    pub pending_migrations: usize,
    /// What an operator should know, one sentence each.
    pub notes: Vec<&'static str>,
}

/// The functions that requests and commands call with a tenant, as `regprocedure` spells them.
const FUNCTIONS: [&str; 8] = [
    "list_tasks(uuid,uuid,bigint,bigint)",
    "get_task(uuid,uuid,bigint)",
    "add_task(uuid,uuid,text,text,boolean,bigint,text,bytea)",
    "update_task(uuid,uuid,bigint,text,boolean)",
    "delete_task(uuid,bigint)",
    "count_tasks(uuid)",
    "erase_tasks(uuid,bigint)",
    "forget_keys(uuid,bigint)",
];

/// The missing privileges, as `GRANT` statements. The functions run with the caller's rights.
const MISSING_GRANTS: &str = "
    WITH missing AS (
        SELECT string_agg(privilege, ', ') || ' ON ' || name AS privilege
        FROM (VALUES ('tasks', 'SELECT'), ('tasks', 'INSERT'), ('tasks', 'UPDATE'),
            ('tasks', 'DELETE'), ('tenants', 'SELECT'), ('tenants', 'INSERT'), ('tenants', 'UPDATE'),
            ('idempotency_keys', 'SELECT'), ('idempotency_keys', 'INSERT'),
            ('idempotency_keys', 'UPDATE'), ('idempotency_keys', 'DELETE'),
            ('allowed_tenants', 'SELECT'), ('revoked_keys', 'SELECT'), ('registry_log', 'SELECT')
        ) AS needed (name, privilege)
        WHERE NOT has_table_privilege(to_regclass(name), privilege)
        GROUP BY name
        UNION ALL
        SELECT 'EXECUTE ON FUNCTION ' || name FROM unnest($1) AS name
        WHERE NOT has_function_privilege(to_regprocedure(name), 'EXECUTE')
    )
    SELECT 'GRANT ' || privilege || ' TO ' || quote_ident(current_user) FROM missing ORDER BY 1";

/// The functions that Citus runs on the coordinator only, although it distributes the tables. A copy
/// of a function on the workers proves nothing.
const NOT_DISTRIBUTED: &str = "
    SELECT name FROM unnest($1) AS name
    WHERE EXISTS (
        SELECT FROM pg_dist_partition WHERE logicalrelid = to_regclass('tasks')
    ) AND NOT EXISTS (
        SELECT FROM pg_dist_object
        WHERE classid = 'pg_proc'::regclass AND objid = to_regprocedure(name)
            AND distribution_argument_index IS NOT NULL
    )
    ORDER BY 1";

/// One row of booleans: what must hold for the tables that the search path finds.
const ISOLATION: &str = "
    SELECT count(*) = 3
            AND count(DISTINCT c.relnamespace) = 1
            AND bool_and((
                SELECT count(*) = cardinality($1) AND bool_and(f.pronamespace = c.relnamespace)
                FROM pg_proc AS f JOIN unnest($1) AS name ON f.oid = to_regprocedure(name)
            )) AS same_schema,
        bool_and(row_security_active(c.oid)) AS active,
        bool_and(pg_has_role(c.relowner, 'MEMBER')) AS owned,
        bool_and((
            SELECT count(*) = 1 AND bool_and(
                p.polcmd = '*' AND p.polroles = '{0}' AND p.polwithcheck IS NULL
                AND pg_get_expr(p.polqual, p.polrelid)
                    = '(tenant_id = (current_setting(''app.tenant''::text))::uuid)'
            )
            FROM pg_policy AS p WHERE p.polrelid = c.oid AND p.polpermissive
        )) AS policies
    FROM pg_class AS c
    WHERE c.oid IN (to_regclass('tenants'), to_regclass('tasks'), to_regclass('idempotency_keys'))";

/// Rejects a role that is exempt from row security, and a server that does not accept writes.
pub(super) async fn check_role(client: &Client) -> Result<(), DatabaseError> {
    let sql = "SELECT rolsuper, rolbypassrls, \
               pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean \
               FROM pg_roles WHERE rolname = current_user";
    let role = client.query_typed_one(sql, &[]).await?;
    let problems = [
        "DATABASE_URL connects as a superuser, and row security does not bind superusers: \
         create a role for the service, as src/docs/postgres.md shows",
        "DATABASE_URL connects as a role with BYPASSRLS, and row security does not bind it: \
         create a role for the service, as src/docs/postgres.md shows",
        "the database is read-only: the server is a standby, or the role's transactions are \
         read-only",
    ];
    for (index, problem) in problems.into_iter().enumerate() {
        if role.get(index) {
            return Err(DatabaseError::Unusable(problem.into()));
        }
    }
    Ok(())
}

/// Checks that the role may apply migrations. `applied` is the number of those that are applied.
pub(super) async fn check_can_migrate(
    client: &Client,
    applied: usize,
) -> Result<(), DatabaseError> {
    let sql = "SELECT coalesce(has_schema_privilege(current_schema(), 'CREATE'), false), \
               coalesce((SELECT bool_and(pg_has_role(relowner, 'USAGE')) FROM pg_class \
               WHERE oid IN (to_regclass('tenants'), to_regclass('tasks'))), true), \
               quote_ident(coalesce(current_schema(), 'public')), quote_ident(current_user)";
    let row = client.query_typed_one(sql, &[]).await?;
    let (may_create, is_owner): (bool, bool) = (row.get(0), row.get(1));
    let (schema, role): (String, String) = (row.get(2), row.get(3));
    let problem = if !may_create {
        format!("the role may not create tables: GRANT CREATE ON SCHEMA {schema} TO {role}")
    } else if applied > 0 && !is_owner {
        "migrations are pending, and the role does not own the tables: the owner must apply them"
            .to_owned()
    } else {
        return Ok(());
    };
    Err(DatabaseError::Unusable(problem.into()))
}

/// Checks that every request can be served: isolation, privileges, and a call like that of a request.
pub(super) async fn check_usable(client: &Client) -> Result<(), DatabaseError> {
    check_isolation(client).await?;
    let functions = [(&&FUNCTIONS[..] as _, Type::TEXT_ARRAY)];
    let missing = client.query_typed(MISSING_GRANTS, &functions).await?;
    if !missing.is_empty() {
        let grants: Vec<String> = missing.iter().map(|row| row.get(0)).collect();
        let problem = format!("privileges are missing: {}", grants.join("; "));
        return Err(DatabaseError::Unusable(problem.into()));
    }
    check_log_is_append_only(client).await?;
    if has_citus(client).await? {
        let local = client.query_typed(NOT_DISTRIBUTED, &functions).await?;
        if let Some(row) = local.first() {
            let function: &str = row.get(0);
            let problem = format!(
                "Citus distributes the tables, but not the function {function}. As its owner, on \
                 the coordinator: SELECT create_distributed_function('{function}', 'in_tenant', \
                 colocate_with => 'tenants')"
            );
            return Err(DatabaseError::Unusable(problem.into()));
        }
    }
    probe_call().send(client).await?;
    Ok(())
}

/// Rejects privileges with which the service could hide a change of the registry.
async fn check_log_is_append_only(client: &Client) -> Result<(), DatabaseError> {
    let sql = "SELECT has_table_privilege(to_regclass('registry_log'), 'UPDATE, DELETE, TRUNCATE')";
    let may_change: Option<bool> = client.query_typed_one(sql, &[]).await?.get(0);
    if may_change == Some(false) {
        return Ok(());
    }
    let problem = "the role may change rows of the table registry_log: \
                   REVOKE UPDATE, DELETE, TRUNCATE ON registry_log FROM the role and its owner";
    Err(DatabaseError::Unusable(problem.into()))
}

async fn has_citus(client: &Client) -> Result<bool, DatabaseError> {
    let sql = "SELECT to_regclass('pg_dist_partition') IS NOT NULL \
               AND to_regclass('pg_dist_object') IS NOT NULL";
    Ok(client.query_typed_one(sql, &[]).await?.get(0))
}

/// Whether the time limits that the service sets on its sessions have no effect: a connection pooler
/// gives the session of one client to another, and the role has no limit.
pub(super) async fn lacks_time_limit(
    client: &Client,
    other: &Client,
) -> Result<bool, DatabaseError> {
    const SETTING: &str = "SELECT coalesce(current_setting('tenant_tasks.session', true), '') <> '' \
                           AND current_setting('statement_timeout') = '0'";
    client
        .batch_execute("SET tenant_tasks.session = 'shared'")
        .await?;
    let is_shared = other.query_typed_one(SETTING, &[]).await?.get(0);
    client.batch_execute("RESET tenant_tasks.session").await?;
    Ok(is_shared)
}

/// Checks that the tables are those of the service, and that exactly its policies bind this role.
///
/// Policies do not bind a superuser, a role with BYPASSRLS, or an owner without FORCE. A second
/// permissive policy would show the rows of other tenants. The owner of a table can change both.
pub(super) async fn check_isolation(client: &Client) -> Result<(), DatabaseError> {
    let functions = [(&&FUNCTIONS[..] as _, Type::TEXT_ARRAY)];
    let row = client.query_typed_one(ISOLATION, &functions).await?;
    let problems = [
        (
            "same_schema",
            "the search path does not find the tables tenants, tasks and idempotency_keys and the \
             service's functions in one schema that the role may use",
        ),
        (
            "active",
            "row security does not bind the role of DATABASE_URL: the tables tenants, tasks and \
             idempotency_keys must have row level security enabled, and forced if the role owns them",
        ),
        (
            "owned",
            "the tables tenants, tasks and idempotency_keys belong to a role of which the role of DATABASE_URL is not \
             a member",
        ),
        (
            "policies",
            "the row security policies of the tables tenants, tasks and idempotency_keys are not those of the \
             service, or there are more permissive policies",
        ),
    ];
    for (name, problem) in problems {
        if row.get::<_, Option<bool>>(name) != Some(true) {
            return Err(DatabaseError::Unusable(problem.into()));
        }
    }
    Ok(())
}
