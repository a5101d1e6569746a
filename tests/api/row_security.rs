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

#[tokio::test]
async fn no_rows_are_visible_without_a_tenant_setting() {
    let (_app, client) = start_with_tasks().await;
    for attempt in ["new connection", "used connection", "used connection again"] {
        assert_eq!(titles(&client).await, Vec::<String>::new(), "{attempt}");
        assert_eq!(
            client
                .query("SELECT FROM tenants", &[])
                .await
                .unwrap()
                .len(),
            0,
            "{attempt}"
        );
        assert_eq!(
            client
                .execute("UPDATE tasks SET title = 'x'", &[])
                .await
                .unwrap(),
            0,
            "{attempt}"
        );
        assert_eq!(
            client.execute("DELETE FROM tasks", &[]).await.unwrap(),
            0,
            "{attempt}"
        );
        begin(&client, CONTOSO).await;
        assert_eq!(titles(&client).await.len(), 2, "{attempt}");
        client.batch_execute("COMMIT").await.unwrap();
    }
}

/// Opens the store at this URL.
async fn open(url: &str) -> Result<Tasks, DatabaseError> {
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
    let grant = format!(
        "GRANT USAGE ON SCHEMA {schema} TO {name}; GRANT SELECT ON schema_steps TO {name}; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON tenants, tasks TO {name}"
    );
    database.execute_as_superuser(&grant).await;
    let url = database.url_as(&name);
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
