//! The database itself keeps tenants apart, even from statements that forget to, and the service refuses
//! to work where it would not.

use tenant_tasks::{
    config::Config,
    tasks::store::{Tasks, postgres::DatabaseError},
};
use tokio_postgres::{Client, error::SqlState};

use crate::{
    service::command,
    support::{
        app::{TestApp, settings},
        postgres::{self, Database},
        users::{ADMIN, API_CLIENT_ID, CONTOSO, EDITOR, FABRIKAM, Tenant},
    },
};

/// The service with two tasks of contoso and one of fabrikam, and a connection as its role.
async fn with_tasks() -> (TestApp, Client) {
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
async fn a_statement_that_names_no_tenant_reads_and_changes_only_the_tenant_of_the_transaction() {
    let (app, client) = with_tasks().await;
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
        (
            answer.json()[0]["title"].as_str(),
            answer.json()[0]["completed"].as_bool()
        ),
        (Some("fabrikam 1"), Some(false))
    );
    assert_eq!(app.create((FABRIKAM, ADMIN), "fabrikam 2").await, 2);
    assert_eq!(app.create((CONTOSO, ADMIN), "contoso 11").await, 11);
}

#[tokio::test]
async fn no_row_can_be_written_into_another_tenant() {
    let (_app, client) = with_tasks().await;
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
async fn who_forgets_the_tenant_sees_nothing_on_a_new_connection_and_on_a_used_one() {
    let (_app, client) = with_tasks().await;
    for attempt in ["a new connection", "a used one", "a used one, once more"] {
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

/// What the service says to this database.
async fn opened(url: &str) -> Result<Tasks, DatabaseError> {
    let settings = settings("http://127.0.0.1:9", &[("DATABASE_URL", url)]);
    Tasks::open(&Config::parse(&settings).unwrap().store).await
}

#[tokio::test]
async fn a_role_that_row_security_does_not_bind_is_refused() {
    let database = Database::create().await;
    opened(&database.url())
        .await
        .expect("the role of the other tests is good");
    let role = |attribute: &str| format!("{}_{attribute}", postgres::role());
    for attribute in ["SUPERUSER", "BYPASSRLS"] {
        let name = role(attribute).to_lowercase();
        let sql = format!(
            "CREATE ROLE {name} LOGIN PASSWORD '{}' {attribute}",
            postgres::role()
        );
        database.execute_as_superuser(&sql).await;
        let refused = opened(&database.url_as(&name)).await;
        database
            .execute_as_superuser(&format!("DROP ROLE {name}"))
            .await;
        let error = refused.map(drop).unwrap_err();
        assert!(matches!(error, DatabaseError::Unusable(_)), "{error}");
        assert!(
            error
                .to_string()
                .to_lowercase()
                .contains(&attribute.to_lowercase()),
            "{error}"
        );
    }
    for (weakened, mended) in [
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
        database.execute_as_superuser(weakened).await;
        let error = opened(&database.url()).await.map(drop).unwrap_err();
        assert!(
            matches!(error, DatabaseError::Unusable(_)),
            "{weakened}: {error}"
        );
        database.execute_as_superuser(mended).await;
        opened(&database.url()).await.expect(mended);
    }
}

#[tokio::test]
async fn a_connection_made_after_the_tables_were_weakened_serves_nobody() {
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

/// Tables made by someone else, who lends the service what it needs of them and no more.
#[tokio::test]
async fn a_role_that_owns_nothing_will_do() {
    let database = Database::create().await;
    opened(&database.url()).await.expect("tables");
    let name = format!("{}_guest", postgres::role());
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
    app.create((CONTOSO, ADMIN), "as a guest").await;
    assert_eq!(app.titles((CONTOSO, ADMIN)).await, ["as a guest"]);
    assert_eq!(app.titles((FABRIKAM, ADMIN)).await, Vec::<String>::new());
    drop(app);
    database
        .execute_as_superuser(&format!("DROP OWNED BY {name}"))
        .await;
}

#[tokio::test]
async fn the_binary_says_what_is_wrong_with_the_role_and_does_not_start() {
    let database = Database::create().await;
    let name = format!("{}_boss", postgres::role());
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

/// What users write does not reach the log, not even where the database's client would write it down.
#[tokio::test]
async fn neither_titles_nor_names_reach_the_log() {
    let database = Database::create().await;
    let entra = crate::support::entra::MockEntra::start(
        crate::support::app::listen().await,
        std::sync::Arc::new(tenant_tasks::clock::SystemClock::new()),
    );
    let service = crate::service::Service::start(&[
        ("RUST_LOG", "trace,tokio_postgres=trace"),
        ("AZURE_AUTHORITY_HOST", &entra.authority),
        ("DATABASE_URL", &database.url()),
    ]);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.post(format!("http://{}/api/tasks", service.address));
    let request = request.bearer_auth(entra.v1(CONTOSO, ADMIN).sign());
    let request = request
        .header("content-type", "application/json")
        .body(r#"{"title":"s3cret"}"#);
    assert_eq!(crate::support::app::answer(request).await.status, 200);
    service.signal("-TERM");
    let (_, log) = service.finish();
    assert!(log.contains("/api/tasks"), "{log}");
    for secret in ["s3cret", "Ada Admin", postgres::role()] {
        let told: Vec<_> = log.lines().filter(|line| line.contains(secret)).collect();
        assert!(told.is_empty(), "{secret}: {told:#?}");
    }
}
