//! Row security: the database isolates tenants even if a statement does not filter by tenant. The service rejects a
//! database or a role without this protection.

use tenant_tasks::{
    config::Config,
    tasks::store::{Tasks, postgres::error::DatabaseError},
};
use tokio_postgres::{Client, error::SqlState};

use crate::{
    suite::service::command,
    support::{
        app::{TestApp, settings},
        postgres::{self, Database},
        tasks::{is_completed, title, title_body},
        users::{ADMIN, API_CLIENT_ID, CONTOSO, EDITOR, FABRIKAM, Tenant},
    },
};

/// Starts the service with two tasks in contoso and one in fabrikam, and connects to the database with its role.
async fn start_with_tasks() -> (TestApp, Client) {
    let app = TestApp::start().await;
    for (who, title) in [
        ((CONTOSO, ADMIN), "contoso 1"),
        ((CONTOSO, EDITOR), "contoso 2"),
        ((FABRIKAM, ADMIN), "fabrikam 1"),
    ] {
        app.create(who, title).await;
    }
    let client = app.database.as_ref().unwrap().connect().await;
    (app, client)
}

async fn begin(client: &Client, tenant: Tenant) {
    client
        .batch_execute(&postgres::begin(tenant))
        .await
        .unwrap();
}

async fn titles(client: &Client) -> Vec<String> {
    let rows = client
        .query("SELECT title FROM tasks ORDER BY title", &[])
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn row_security_limits_statements_to_one_tenant() {
    let (app, client) = start_with_tasks().await;
    begin(&client, CONTOSO).await;
    assert_eq!(titles(&client).await, ["contoso 1", "contoso 2"]);
    assert_eq!(
        client
            .query("SELECT FROM tenants", &[])
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        client
            .execute("UPDATE tasks SET completed = true", &[])
            .await
            .unwrap(),
        2
    );
    assert_eq!(
        client
            .execute("UPDATE tenants SET last_task_id = 10", &[])
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        client
            .execute("DELETE FROM tasks WHERE title LIKE '%2'", &[])
            .await
            .unwrap(),
        1
    );
    client.batch_execute("COMMIT").await.unwrap();

    assert_eq!(app.titles((CONTOSO, ADMIN)).await, ["contoso 1"]);
    let answer = app
        .send_as(
            (FABRIKAM, ADMIN),
            "GET".parse().unwrap(),
            "/api/tasks",
            None,
        )
        .await;
    assert_eq!(
        (title(&answer.json()[0]), is_completed(&answer.json()[0])),
        ("fabrikam 1", false)
    );
    assert_eq!(app.create((FABRIKAM, ADMIN), "fabrikam 2").await, 2);
    assert_eq!(app.create((CONTOSO, ADMIN), "contoso 11").await, 11);
}

#[tokio::test]
async fn rows_cannot_be_written_to_another_tenant() {
    let (_app, client) = start_with_tasks().await;
    let insert = format!(
        "INSERT INTO tasks VALUES ('{}', 9, gen_random_uuid(), false, 'someone', 'x')",
        FABRIKAM.id
    );
    let moved = format!("UPDATE tasks SET tenant_id = '{}'", FABRIKAM.id);
    let counter = format!("INSERT INTO tenants VALUES ('{}', 1, 1, 1)", FABRIKAM.id);
    for sql in [insert, moved, counter] {
        begin(&client, CONTOSO).await;
        let error = client.batch_execute(&sql).await.unwrap_err();
        assert_eq!(
            error.code(),
            Some(&SqlState::INSUFFICIENT_PRIVILEGE),
            "{sql}: {error:?}"
        );
        client.batch_execute("ROLLBACK").await.unwrap();
    }
}

/// An empty list would hide a statement that forgets the tenant.
#[tokio::test]
async fn statement_without_a_tenant_setting_is_an_error() {
    let (_app, client) = start_with_tasks().await;
    for (attempt, code) in [
        ("new connection", SqlState::UNDEFINED_OBJECT),
        ("used connection", SqlState::INVALID_TEXT_REPRESENTATION),
        ("used again", SqlState::INVALID_TEXT_REPRESENTATION),
    ] {
        for sql in [
            "SELECT title FROM tasks",
            "SELECT FROM tenants",
            "UPDATE tasks SET title = 'x'",
            "DELETE FROM tasks",
            "DELETE FROM tenants",
        ] {
            let error = client.execute(sql, &[]).await.unwrap_err();
            assert_eq!(error.code(), Some(&code), "{attempt}: {sql}");
        }
        // A call of a function sets the tenant for itself only.
        let call = format!("SELECT FROM list_tasks('{}', NULL, 0, 10)", CONTOSO.id);
        assert_eq!(client.query(&call, &[]).await.unwrap().len(), 2);
    }
}

/// Opens the store at this URL.
pub(crate) async fn open(url: &str) -> Result<Tasks, DatabaseError> {
    let settings = settings("http://127.0.0.1:9", &[("DATABASE_URL", url)]);
    Tasks::open(&Config::parse(&settings).unwrap().store).await
}

#[tokio::test]
async fn role_that_bypasses_row_security_is_rejected() {
    let database = Database::create().await;
    open(&database.url())
        .await
        .expect("the role of the other tests is accepted");
    let role = |attribute: &str| format!("{}_{attribute}", postgres::role());
    for attribute in ["SUPERUSER", "BYPASSRLS"] {
        let name = role(attribute).to_lowercase();
        let sql = format!(
            "CREATE ROLE {name} LOGIN PASSWORD '{}' {attribute}",
            postgres::role()
        );
        database.execute_as_superuser(&sql).await;
        let result = open(&database.url_as(&name)).await;
        database
            .execute_as_superuser(&format!("DROP ROLE {name}"))
            .await;
        let error = result.map(drop).unwrap_err();
        assert!(matches!(error, DatabaseError::Unusable(_)), "{error}");
        assert!(
            error
                .to_string()
                .to_lowercase()
                .contains(&attribute.to_lowercase()),
            "{error}"
        );
    }
    for (weaken, restore) in [
        (
            "ALTER TABLE tasks NO FORCE ROW LEVEL SECURITY",
            "ALTER TABLE tasks FORCE ROW LEVEL SECURITY",
        ),
        (
            "ALTER TABLE tenants NO FORCE ROW LEVEL SECURITY",
            "ALTER TABLE tenants FORCE ROW LEVEL SECURITY",
        ),
        (
            "ALTER TABLE tasks DISABLE ROW LEVEL SECURITY",
            "ALTER TABLE tasks ENABLE ROW LEVEL SECURITY",
        ),
        (
            "CREATE POLICY more ON tasks USING (true)",
            "DROP POLICY more ON tasks",
        ),
        (
            "CREATE POLICY more ON tenants FOR SELECT USING (true)",
            "DROP POLICY more ON tenants",
        ),
        (
            "ALTER POLICY tasks_of_setting ON tasks WITH CHECK (true)",
            "DROP POLICY tasks_of_setting ON tasks; CREATE POLICY tasks_of_setting ON tasks \
             USING (tenant_id = current_setting('app.tenant')::uuid)",
        ),
        (
            "ALTER TABLE tasks OWNER TO CURRENT_USER",
            &format!("ALTER TABLE tasks OWNER TO {}", postgres::role()),
        ),
        (
            "ALTER FUNCTION get_task RENAME TO got_task",
            "ALTER FUNCTION got_task RENAME TO get_task",
        ),
    ] {
        database.execute_as_superuser(weaken).await;
        let error = open(&database.url()).await.map(drop).unwrap_err();
        assert!(
            matches!(error, DatabaseError::Unusable(_)),
            "{weaken}: {error}"
        );
        database.execute_as_superuser(restore).await;
        open(&database.url()).await.expect(restore);
    }
    // A restrictive policy hides more rows, and shows none.
    database
        .execute_as_superuser("CREATE POLICY more ON tasks AS RESTRICTIVE USING (true)")
        .await;
    open(&database.url()).await.expect("a restrictive policy");
}

/// Another schema in the search path contains a table of the same name.
#[tokio::test]
async fn search_path_that_finds_other_tables_is_rejected() {
    let database = Database::create().await;
    open(&database.url()).await.expect("the tables are created");
    let other = Database::create().await;
    let schema = other.schema();
    let create =
        format!("CREATE TABLE {schema}.tasks (LIKE tasks); GRANT ALL ON {schema}.tasks TO PUBLIC");
    database.execute_as_superuser(&create).await;
    let url = database.direct_url().replace(
        &format!("search_path%3D{}", database.schema()),
        &format!("search_path%3D{schema}%2C{}", database.schema()),
    );
    let error = open(&url).await.map(drop).unwrap_err().to_string();
    assert!(error.contains("search path"), "{error}");
}

#[tokio::test]
async fn new_connection_rechecks_row_security() {
    let app = TestApp::start().await;
    let database = app.database.as_ref().unwrap();
    database
        .execute_as_superuser("ALTER TABLE tasks NO FORCE ROW LEVEL SECURITY")
        .await;
    let answer = app
        .send_as((CONTOSO, ADMIN), "GET".parse().unwrap(), "/api/tasks", None)
        .await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    database
        .execute_as_superuser("ALTER TABLE tasks FORCE ROW LEVEL SECURITY")
        .await;
    assert_eq!(app.titles((CONTOSO, ADMIN)).await, Vec::<String>::new());
}

/// Another role owns the tables and grants the service only the necessary privileges.
#[tokio::test]
async fn role_without_table_ownership_is_accepted() {
    let database = Database::create().await;
    open(&database.url()).await.expect("the tables are created");
    let name = format!("{}_grantee", postgres::role());
    let create = format!("CREATE ROLE {name} LOGIN PASSWORD '{}'", postgres::role());
    database.execute_as_superuser(&create).await;
    let schema = database.schema();
    let owner = postgres::role();
    let grant = format!(
        "ALTER ROLE {name} NOINHERIT; GRANT {owner} TO {name}; \
         GRANT USAGE ON SCHEMA {schema} TO {name}; GRANT SELECT ON schema_steps TO {name}; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON tenants, tasks, idempotency_keys TO {name}; \
         GRANT SELECT ON allowed_tenants, revoked_keys, registry_log TO {name}"
    );
    database.execute_as_superuser(&grant).await;
    let url = database.url_as(&name);
    for (revoke, grant) in [
        ("INSERT ON tasks FROM", "GRANT INSERT ON tasks TO"),
        ("UPDATE ON tenants FROM", "GRANT UPDATE ON tenants TO"),
        (
            "SELECT ON schema_steps FROM",
            "GRANT SELECT ON schema_steps to",
        ),
    ] {
        let sql = format!("REVOKE {revoke} {name}");
        database.execute_as_superuser(&sql).await;
        let error = open(&url).await.map(drop).unwrap_err();
        assert!(error.to_string().contains(grant), "{error}");
        let sql = format!("GRANT {} {name}", revoke.replace("FROM", "TO"));
        database.execute_as_superuser(&sql).await;
    }
    let function = "FUNCTION get_task(uuid,uuid,bigint)";
    let revoke = format!("REVOKE EXECUTE ON {function} FROM PUBLIC");
    database.execute_as_superuser(&revoke).await;
    let error = open(&url).await.map(drop).unwrap_err().to_string();
    let missing = format!("privileges are missing: GRANT EXECUTE ON {function} TO {name}");
    assert_eq!(error, missing);
    let grant = format!("GRANT EXECUTE ON {function} TO PUBLIC");
    database.execute_as_superuser(&grant).await;
    let app = TestApp::start_with(&[("DATABASE_URL", &url)]).await;
    app.create((CONTOSO, ADMIN), "with grants").await;
    assert_eq!(app.titles((CONTOSO, ADMIN)).await, ["with grants"]);
    assert_eq!(app.titles((FABRIKAM, ADMIN)).await, Vec::<String>::new());
    drop(app);
    database
        .execute_as_superuser(&format!("DROP OWNED BY {name}"))
        .await;
}

#[tokio::test]
async fn only_the_owner_applies_pending_migrations() {
    let database = Database::create().await;
    open(&database.url()).await.expect("the tables are created");
    let (owner, schema) = (postgres::role(), database.schema());
    let name = format!("{owner}_no_owner");
    let prepare = format!(
        "CREATE ROLE {name} LOGIN PASSWORD '{owner}'; \
         GRANT USAGE, CREATE ON SCHEMA {schema} TO {name}; GRANT SELECT ON schema_steps TO {name}; \
         DELETE FROM schema_steps WHERE step = (SELECT max(step) FROM schema_steps)"
    );
    database.execute_as_superuser(&prepare).await;
    let error = open(&database.url_as(&name)).await.map(drop).unwrap_err();
    let expected = "the role does not own the tables: the owner must apply them";
    assert!(error.to_string().contains(expected), "{error}");
    open(&database.url()).await.expect("the owner migrates");
    database
        .execute_as_superuser(&format!("DROP OWNED BY {name}"))
        .await;
}

/// A table of another application, in another schema of the search path.
#[tokio::test]
async fn table_of_another_role_does_not_prevent_migrations() {
    let (database, other) = (Database::create().await, Database::create().await);
    other.execute_as_superuser("CREATE TABLE tasks ()").await;
    // The search path is at the end of the URL.
    let url = format!("{}%2C{}", database.direct_url(), other.schema());
    open(&url).await.expect("the tables are created");
}

#[tokio::test]
async fn role_that_cannot_write_is_rejected() {
    let database = Database::create().await;
    let schema = database.schema();
    let take = format!(
        "ALTER SCHEMA {schema} OWNER TO CURRENT_USER; GRANT USAGE ON SCHEMA {schema} TO {}",
        postgres::role()
    );
    database.execute_as_superuser(&take).await;
    let error = open(&database.url()).await.map(drop).unwrap_err();
    let expected = format!("GRANT CREATE ON SCHEMA {schema} TO {}", postgres::role());
    assert!(error.to_string().contains(&expected), "{error}");

    let url = database.direct_url();
    let read_only = "%20-cdefault_transaction_read_only%3Don&target_session_attrs=any";
    let error = open(&format!("{url}{read_only}")).await.map(drop);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("the database is read-only"), "{error}");
}

/// Citus runs a function where the rows are only if the function is distributed. These tables stand
/// for its catalogs.
#[tokio::test]
async fn function_that_citus_does_not_distribute_is_named() {
    let database = Database::create().await;
    open(&database.url()).await.expect("the tables are created");
    let client = database.connect().await;
    let catalogs = "
        CREATE TABLE pg_dist_partition (logicalrelid regclass);
        CREATE TABLE pg_dist_object (classid oid, objid oid, distribution_argument_index integer);
        INSERT INTO pg_dist_object SELECT 'pg_proc'::regclass, p::regprocedure, 0 FROM unnest(ARRAY[
            'list_tasks(uuid,uuid,bigint,bigint)', 'update_task(uuid,uuid,bigint,text,boolean)',
            'add_task(uuid,uuid,text,text,boolean,bigint,text,bytea)', 'delete_task(uuid,bigint)', 'count_tasks(uuid)',
            'forget_keys(uuid,bigint)',
            'erase_tasks(uuid,bigint)']) AS p;
        INSERT INTO pg_dist_object
            VALUES ('pg_proc'::regclass, 'get_task(uuid,uuid,bigint)'::regprocedure, NULL)";
    client.batch_execute(catalogs).await.unwrap();
    open(&database.url())
        .await
        .expect("the tables are not distributed");
    let distribute = "INSERT INTO pg_dist_partition VALUES ('tasks'), ('tenants')";
    client.batch_execute(distribute).await.unwrap();
    let error = open(&database.url())
        .await
        .map(drop)
        .unwrap_err()
        .to_string();
    let remedy = "create_distributed_function('get_task(uuid,uuid,bigint)', 'in_tenant', colocate_with => 'tenants')";
    assert!(error.contains(remedy), "{error}");
    let distribute = "UPDATE pg_dist_object SET distribution_argument_index = 0";
    client.batch_execute(distribute).await.unwrap();
    open(&database.url())
        .await
        .expect("all functions are distributed");
}

/// On reference tables, Citus rejects two statements with 0A000: an `INSERT` in a function in the language SQL, and
/// `now()` in `DO UPDATE`.
#[tokio::test]
async fn functions_contain_only_what_citus_executes() {
    let database = Database::create().await;
    open(&database.url()).await.expect("the tables are created");
    let rejected = r"
        SELECT proname::text FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang
        WHERE pronamespace = current_schema()::regnamespace
            AND (lanname = 'sql' AND prosrc ~* 'INSERT' OR prosrc ~* 'DO UPDATE[^;]*now\(')";
    let rows = database.connect().await.query(rejected, &[]).await.unwrap();
    let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(names, Vec::<String>::new());
}

#[tokio::test]
async fn startup_fails_with_reason_for_superuser_role() {
    let database = Database::create().await;
    let name = format!("{}_superuser_role", postgres::role());
    let create = format!(
        "CREATE ROLE {name} LOGIN PASSWORD '{}' SUPERUSER",
        postgres::role()
    );
    database.execute_as_superuser(&create).await;
    let (mut command, _directory) = command(&[
        ("AZURE_API_CLIENT_ID", API_CLIENT_ID),
        ("AZURE_HOME_TENANT_ID", CONTOSO.id),
        ("AZURE_AUTHORITY_HOST", "http://127.0.0.1:9"),
        ("DATABASE_URL", &database.url_as(&name)),
        ("PORT", "0"),
    ]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.starts_with("tenant-tasks: DATABASE_URL connects as a superuser"),
        "{message}"
    );
    assert_eq!(message.lines().count(), 1, "{message}");
    database
        .execute_as_superuser(&format!("DROP ROLE {name}"))
        .await;
}

/// User data is not logged, even at a log level at which the database client logs statements.
#[tokio::test]
async fn titles_and_user_names_are_not_logged() {
    let database = Database::create().await;
    let entra = crate::support::entra::MockEntra::start(
        crate::support::app::listen().await,
        std::sync::Arc::new(tenant_tasks::clock::SystemClock::new()),
    );
    let service = crate::suite::service::Service::start(&[
        ("RUST_LOG", "trace,tokio_postgres=trace"),
        ("AZURE_AUTHORITY_HOST", &entra.authority),
        ("DATABASE_URL", &database.url()),
    ]);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.post(format!("http://{}/api/tasks", service.address));
    let request = request.bearer_auth(entra.v1(CONTOSO, ADMIN).sign());
    let request = request
        .header("content-type", "application/json")
        .body(title_body("s3cret").to_string());
    assert_eq!(crate::support::app::answer(request).await.status, 200);
    service.signal("-TERM");
    let (_, log) = service.finish();
    assert!(log.contains("/api/tasks"), "{log}");
    for secret in ["s3cret", "Ada Admin", postgres::role()] {
        let leaks: Vec<_> = log.lines().filter(|line| line.contains(secret)).collect();
        assert!(leaks.is_empty(), "{secret}: {leaks:#?}");
    }
}
