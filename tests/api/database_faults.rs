//! Database faults. While the database is down or stalled, requests that need it get 503 with `Retry-After`,
//! and all others succeed. An interrupted write is applied completely or not at all.

#![expect(
    clippy::disallowed_methods,
    reason = "timeouts of the database are measured in real time"
)]

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use axum::http::{Method, StatusCode};
use serde_json::Value;
use tenant_tasks::{
    clock::SystemClock,
    config::Config,
    ids::{Reach, TaskId},
    tasks::{Page, store::Tasks},
};
use tokio::{task::block_in_place, time::timeout};

use crate::{
    row_security::open,
    suite::{commands::run, metrics::series, service::Service},
    support::{
        app::{Answer, TestApp, answer, listen, settings},
        entra::MockEntra,
        postgres::{self, Database},
        proxy::{Fault, Proxy},
        tasks::{completed_body, title_body},
        users::{ADMIN, API_CLIENT_ID, CONTOSO, EDITOR, FABRIKAM},
    },
};

/// How long the service may take to recover.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(20);

/// Starts the service with a proxy between it and its database.
async fn start(fault: Fault) -> (TestApp, Proxy, Database) {
    let database = Database::create().await;
    let proxy = Proxy::start(postgres::upstream(), fault).await;
    let app = TestApp::start_with(&[("DATABASE_URL", &database.url_through(proxy.port))]).await;
    // Fetches the signing keys, without which `/ready` returns 503.
    assert_eq!(
        app.me(&app.entra.v1(CONTOSO, ADMIN).sign()).await.status,
        StatusCode::OK
    );
    (app, proxy, database)
}

/// Runs `check` with Contoso as the only tenant. Returns standard output and the exit code.
pub(crate) fn check(authority: &str, database_url: &str) -> (String, Option<i32>) {
    let settings = [
        ("AZURE_API_CLIENT_ID", API_CLIENT_ID),
        ("AZURE_AUTHORITY_HOST", authority),
        ("ALLOWED_TENANT_IDS", CONTOSO.id),
        ("DATABASE_URL", database_url),
    ];
    let (stdout, _, code, _) = block_in_place(|| run(&["check"], None, &settings));
    (stdout, code)
}

#[tokio::test(flavor = "multi_thread")]
async fn check_reports_on_the_database_without_changing_it() {
    let (app, proxy, database) = start(Fault::None).await;
    let fresh = Database::create().await;
    let check = |url: String| {
        let (stdout, code) = check(&app.entra.authority, &url);
        (stdout.lines().last().unwrap_or_default().to_owned(), code)
    };
    assert_eq!(
        check(database.url()),
        ("ok        database".to_owned(), Some(0))
    );
    for _ in 0..2 {
        let pending = "ok        database; pending migrations at the next start: 5";
        assert_eq!(
            check(fresh.url()),
            (pending.to_owned(), Some(0)),
            "check created tables"
        );
    }
    proxy.set_fault(Fault::Refuse);
    let (line, code) = check(database.url_through(proxy.port));
    assert!(
        line.starts_with("WRONG     database: the database cannot be reached"),
        "{line}"
    );
    assert_eq!(code, Some(1));
}

async fn ready(app: &TestApp) -> Answer {
    app.send(Method::GET, "/ready", None, None).await
}

async fn wait_until_ready(app: &TestApp) {
    let started = Instant::now();
    while ready(app).await.status != StatusCode::OK {
        assert!(
            started.elapsed() < RECOVERY_TIMEOUT,
            "not ready again after {RECOVERY_TIMEOUT:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Asserts that requests that use the store get 503, and that all others are unaffected.
async fn assert_only_tasks_are_unavailable(app: &TestApp) {
    let safe = "Try again later: repeating the request is safe.";
    let uncertain = "The task may have been created: look at the list before you try again.";
    for (method, path, body, key, advice) in [
        (Method::GET, "/api/tasks", None, None, safe),
        (
            Method::POST,
            "/api/tasks",
            Some(title_body("x")),
            None,
            uncertain,
        ),
        (
            Method::POST,
            "/api/tasks",
            Some(title_body("x")),
            Some("key"),
            safe,
        ),
        (
            Method::PATCH,
            "/api/tasks/1",
            Some(completed_body(true)),
            None,
            safe,
        ),
        (Method::DELETE, "/api/tasks/1", None, None, safe),
    ] {
        let mut request = app.request(method, path);
        request = request.bearer_auth(app.entra.v1(CONTOSO, ADMIN).sign());
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json");
            request = request.body(body.to_string());
        }
        let answer = answer(request).await;
        assert_eq!(
            answer.status,
            StatusCode::SERVICE_UNAVAILABLE,
            "{path}: {}",
            answer.body
        );
        assert_eq!(answer.detail(), format!("Tasks are unavailable. {advice}"));
        assert!(answer.header("retry-after").is_some(), "{path}");
    }
    let answer = ready(app).await;
    assert_eq!(
        answer.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "{}",
        answer.body
    );
    assert!(answer.header("retry-after").is_some());
    assert_eq!(
        app.send(Method::GET, "/health", None, None).await.status,
        StatusCode::OK
    );
    assert_eq!(
        app.me(&app.entra.v1(CONTOSO, ADMIN).sign()).await.status,
        StatusCode::OK
    );
    // A request without the required role is rejected before the store is used.
    let answer = app
        .send_as((CONTOSO, EDITOR), Method::DELETE, "/api/tasks/1", None)
        .await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn only_tasks_are_unavailable_while_database_is_down() {
    let (app, proxy, _database) = start(Fault::None).await;
    app.create((CONTOSO, ADMIN), "before").await;
    proxy.set_fault(Fault::Refuse);
    assert_only_tasks_are_unavailable(&app).await;
    proxy.set_fault(Fault::None);
    wait_until_ready(&app).await;
    assert_eq!(app.titles((CONTOSO, ADMIN)).await, ["before"]);
}

#[tokio::test]
async fn service_started_before_its_database_recovers() {
    let (app, proxy, _database) = start(Fault::Refuse).await;
    assert_only_tasks_are_unavailable(&app).await;
    proxy.set_fault(Fault::None);
    wait_until_ready(&app).await;
    assert_eq!(app.create((CONTOSO, ADMIN), "after recovery").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn back_off_to_an_absent_database_doubles() {
    let database = Database::create().await;
    let proxy = Proxy::start(postgres::upstream(), Fault::Refuse).await;
    let url = database.url_through(proxy.port);
    block_in_place(|| {
        let service = Service::start(&[("DATABASE_URL", &url)]);
        let next_wait = || {
            let line = service.wait_for_line("cannot connect to database; tasks are unavailable");
            let line: Value = serde_json::from_str(&line).unwrap();
            line["retry_in_s"].as_u64().unwrap()
        };
        let wait = next_wait();
        assert!(wait >= 2);
        assert_eq!(next_wait(), 2 * wait);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_do_not_pile_up_behind_stalled_database() {
    let (app, proxy, _database) = start(Fault::None).await;
    app.create((CONTOSO, ADMIN), "before").await;
    proxy.set_fault(Fault::Stall);
    let token = app.entra.v1(CONTOSO, ADMIN).sign();
    let timed = async || {
        let started = Instant::now();
        let answer = app
            .send(Method::GET, "/api/tasks", Some(&token), None)
            .await;
        (answer.status, started.elapsed())
    };
    let answers = futures_util::future::join_all((0..800).map(|_| timed())).await;
    assert!(
        answers
            .iter()
            .all(|(status, _)| *status == StatusCode::SERVICE_UNAVAILABLE)
    );
    let slowest = answers.iter().map(|(_, time)| *time).max().unwrap();
    let immediate = answers
        .iter()
        .filter(|(_, time)| *time < Duration::from_millis(900))
        .count();
    println!(
        "of 800 concurrent requests {immediate} were rejected immediately, the last after {slowest:?}"
    );
    assert!(slowest < Duration::from_secs(6), "{slowest:?}");
    // A tenant has five connections. For each, at most 50 requests may hold it or wait.
    assert!((1..=550).contains(&immediate), "{immediate}");

    let started = Instant::now();
    assert_eq!(app.me(&token).await.status, StatusCode::OK);
    assert!(
        started.elapsed() < Duration::from_millis(500),
        "a request that does not use the database waited for it"
    );
    proxy.set_fault(Fault::None);
    wait_until_ready(&app).await;
    assert_eq!(app.titles((CONTOSO, ADMIN)).await, ["before"]);
}

/// A second limit applies to the waiting requests of all tenants together.
#[tokio::test]
async fn waiting_requests_of_all_tenants_are_limited() {
    let database = Database::create().await;
    let proxy = Proxy::start(postgres::upstream(), Fault::None).await;
    let url = database.url_through(proxy.port);
    let one = [("DATABASE_URL", &*url), ("MAX_DATABASE_CONNECTIONS", "1")];
    let config = Config::parse(&settings("http://127.0.0.1:9", &one)).unwrap();
    let tasks = Tasks::open(&config.store).await.unwrap();
    let list = async |number| {
        let tenant = format!("{number:08}-0000-4000-8000-000000000000");
        let tenant = tenant.parse().unwrap();
        tasks.list(tenant, Reach::Tenant, Page::default()).await
    };
    assert!(list(0).await.is_ok());
    proxy.set_fault(Fault::Stall);
    let started = Instant::now();
    let requests = (1..=60).map(async |number| {
        assert!(list(number).await.is_err());
        started.elapsed()
    });
    let times = futures_util::future::join_all(requests).await;
    let is_immediate = |time: &&Duration| **time < Duration::from_millis(900);
    // One request has the connection, and fifty wait for it.
    assert_eq!(times.iter().filter(is_immediate).count(), 9);
}

/// Clients time out and retry while the database stalls. Their abandoned writes must not be applied later.
#[tokio::test(flavor = "multi_thread")]
async fn abandoned_requests_do_not_pile_up_on_a_connection() {
    let (app, proxy, database) = start(Fault::None).await;
    app.create((CONTOSO, ADMIN), "before").await;
    proxy.set_fault(Fault::Stall);
    let token = app.entra.v1(CONTOSO, ADMIN).sign();
    for _ in 0..20 {
        let request = app.request(Method::POST, "/api/tasks").bearer_auth(&token);
        let request = request
            .header("content-type", "application/json")
            .body(title_body("abandoned").to_string());
        request
            .timeout(Duration::from_millis(50))
            .send()
            .await
            .unwrap_err();
    }
    // The abandoned exchange times out after three seconds.
    tokio::time::sleep(Duration::from_millis(3500)).await;
    proxy.set_fault(Fault::None);
    wait_until_ready(&app).await;
    let titles = app.titles((CONTOSO, ADMIN)).await;
    // A write that was already sent may be applied. The others must not be.
    let abandoned = titles.iter().filter(|title| *title == "abandoned").count();
    assert!(abandoned <= 1, "{titles:?}");
    drop(database);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_one_message_in_each_direction() {
    let (app, proxy, _database) = start(Fault::None).await;
    let id = app.create((CONTOSO, ADMIN), "one").await;
    let path = format!("/api/tasks/{id}");
    for (method, path, body) in [
        (Method::GET, "/api/tasks", None),
        (Method::GET, &*path, None),
        (Method::POST, "/api/tasks", Some(title_body("two"))),
        (Method::PATCH, &*path, Some(completed_body(true))),
        (Method::DELETE, &*path, None),
    ] {
        let before = proxy.transfers();
        let answer = app
            .send_as((CONTOSO, ADMIN), method.clone(), path, body)
            .await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(proxy.transfers() - before, 2, "{method} {path}");
    }
}

/// Clients that disconnect do not get more connections than their tenant's share.
#[tokio::test(flavor = "multi_thread")]
async fn disconnecting_clients_stay_within_their_share() {
    let database = Database::create().await;
    // The name separates its connections from those of other tests.
    let url = format!("{}&application_name=share", database.url());
    let app = TestApp::start_with(&[("DATABASE_URL", &url)]).await;
    app.create((CONTOSO, ADMIN), "first").await;
    app.create((FABRIKAM, ADMIN), "first").await;
    let blocker = database.connect().await;
    let lock = format!(
        "{}; SELECT FROM tenants FOR UPDATE",
        postgres::begin(CONTOSO)
    );
    blocker.batch_execute(&lock).await.unwrap();
    let token = app.entra.v1(CONTOSO, ADMIN).sign();
    for _ in 0..20 {
        let request = app.request(Method::POST, "/api/tasks").bearer_auth(&token);
        let request = request
            .header("content-type", "application/json")
            .body(title_body("x").to_string());
        let timeout = Duration::from_millis(20);
        request.timeout(timeout).send().await.unwrap_err();
    }
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
               AND application_name = 'share'";
    let busy: i64 = blocker.query_one(sql, &[]).await.unwrap().get(0);
    assert!((1..=5).contains(&busy), "{busy} of 10 connections are busy");
    assert_eq!(app.titles((FABRIKAM, ADMIN)).await, ["first"]);
    blocker.batch_execute("ROLLBACK").await.unwrap();
}

/// If the caller drops a call, a spawned task completes it. Until then, the call keeps its connection.
#[tokio::test]
async fn dropped_calls_do_not_delay_other_tenants() {
    let app = TestApp::start().await;
    app.create((CONTOSO, ADMIN), "first").await;
    let database = app.database.as_ref().unwrap();
    let blocker = database.connect().await;
    let lock = format!("{}; SELECT FROM tasks FOR UPDATE", postgres::begin(CONTOSO));
    blocker.batch_execute(&lock).await.unwrap();
    let tasks = open(&database.url()).await.unwrap();
    let (tenant, other) = (CONTOSO.id.parse().unwrap(), FABRIKAM.id.parse().unwrap());
    for _ in 0..20 {
        let remove = tasks.remove(tenant, TaskId::FIRST);
        let result = timeout(Duration::from_millis(20), remove).await;
        assert!(result.is_err(), "the task is locked");
    }
    let (open, _) = tasks.database_connections().unwrap();
    assert!(open <= 5, "{open} of 10 connections are open");
    let list = tasks.list(other, Reach::Tenant, Page::default());
    assert!(list.await.is_ok());
    blocker.batch_execute("ROLLBACK").await.unwrap();
}

/// Replaces `get_task` by a function that first raises this error this many times.
async fn fail_get_task(database: &Database, code: &str, times: i64) {
    let schema = database.schema();
    let sql = format!(
        "CREATE SEQUENCE IF NOT EXISTS {schema}.failures; GRANT ALL ON {schema}.failures TO PUBLIC; \
         SELECT setval('{schema}.failures', 1, false); \
         CREATE OR REPLACE FUNCTION {schema}.get_task(in_tenant uuid, in_owner uuid, in_id bigint) \
         RETURNS TABLE (id bigint, user_id uuid, owner_name text, title text, completed boolean) \
         LANGUAGE plpgsql AS $$ BEGIN \
         IF nextval('{schema}.failures') <= {times} THEN RAISE EXCEPTION 'failed' USING ERRCODE = '{code}'; END IF; \
         END $$"
    );
    database.execute_as_superuser(&sql).await;
}

async fn backends(database: &Database) -> Vec<i32> {
    let client = database.connect().await;
    let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'tenant-tasks' \
               AND usename = current_user AND query LIKE '%get_task%' ORDER BY pid";
    let rows = client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// After a panic, the connection closes without a response. Other requests are not affected.
#[tokio::test(flavor = "multi_thread")]
async fn panic_in_a_handler_ends_only_its_connection() {
    let database = Database::create().await;
    let entra = MockEntra::start(listen().await, Arc::new(SystemClock::new()));
    let url = database.url();
    let service = block_in_place(|| {
        Service::start(&[
            ("ALLOWED_TENANT_IDS", CONTOSO.id),
            ("AZURE_AUTHORITY_HOST", &entra.authority),
            ("DATABASE_URL", &url),
            // Does not select the line of the panic.
            (
                "RUST_LOG",
                "tenant_tasks::commands=info,tenant_tasks::request=warn",
            ),
        ])
    });
    // No function of the service returns this id.
    let sql = "CREATE OR REPLACE FUNCTION get_task(in_tenant uuid, in_owner uuid, in_id bigint) \
               RETURNS TABLE (id bigint, user_id uuid, owner_name text, title text, completed boolean) \
               LANGUAGE sql AS $$ SELECT 0, in_tenant, '', 'x', false $$";
    database.execute_as_superuser(sql).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let token = entra.v1(CONTOSO, ADMIN).sign();
    let get = |path: &str| {
        let url = format!("http://{}{path}", service.address);
        client.get(url).bearer_auth(&token)
    };
    assert!(get("/api/tasks/1").send().await.is_err());
    let fields = block_in_place(|| {
        ["panicked", r#""status":500"#].map(|text| {
            let line = service.wait_for_line(text);
            serde_json::from_str::<Value>(&line).unwrap()
        })
    });
    let [panic, request] = fields;
    assert_eq!(panic["level"], "ERROR");
    let location = panic["location"].as_str().unwrap();
    assert!(location.starts_with("src/tasks/store/postgres/"), "{panic}");
    assert_eq!(request["route"], "/api/tasks/{id}");
    assert_eq!(answer(get("/api/tasks")).await.status, StatusCode::OK);
}

/// While a shard of a distributed database moves, a call may fail once because the tenant is not set.
#[tokio::test(flavor = "multi_thread")]
async fn call_without_its_tenant_is_repeated_once() {
    let app = TestApp::start().await;
    let database = app.database.as_ref().unwrap();
    app.create((CONTOSO, ADMIN), "one").await;
    for (code, times, status) in [
        ("42704", 1, StatusCode::NOT_FOUND),
        ("22P02", 1, StatusCode::NOT_FOUND),
        ("42501", 1, StatusCode::NOT_FOUND),
        ("42704", 2, StatusCode::SERVICE_UNAVAILABLE),
        ("22012", 1, StatusCode::SERVICE_UNAVAILABLE),
    ] {
        fail_get_task(database, code, times).await;
        let answer = app
            .send_as((CONTOSO, ADMIN), Method::GET, "/api/tasks/1", None)
            .await;
        assert_eq!(answer.status, status, "{code} {times} times");
    }
}

/// An error of class 08 from the server can be about another node of a distributed database.
#[tokio::test(flavor = "multi_thread")]
async fn error_about_another_node_keeps_the_connection() {
    let app = TestApp::start().await;
    let database = app.database.as_ref().unwrap();
    for (code, is_kept) in [("08006", true), ("57P01", false), ("25006", false)] {
        fail_get_task(database, code, 1).await;
        let get = || app.send_as((CONTOSO, ADMIN), Method::GET, "/api/tasks/1", None);
        assert_eq!(get().await.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(get().await.status, StatusCode::NOT_FOUND);
        let before = backends(database).await;
        fail_get_task(database, code, 1).await;
        assert_eq!(get().await.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(get().await.status, StatusCode::NOT_FOUND);
        assert_eq!(backends(database).await == before, is_kept, "{code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_connections_use_the_url_in_env_file() {
    let database = Database::create().await;
    let file = |name: &str| {
        format!(
            "DATABASE_URL=\"{}&application_name={name}\"\n",
            database.url()
        )
    };
    let entra = MockEntra::start(listen().await, Arc::new(SystemClock::new()));
    let settings = [("AZURE_AUTHORITY_HOST", &*entra.authority)];
    let service = Service::start_with_file(&file("first"), &settings);
    let url = format!("http://{}/api/tasks", service.address);
    let token = entra.v1(CONTOSO, ADMIN).sign();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let get = async || answer(client.get(&url).bearer_auth(&token)).await.status;
    assert_eq!(get().await, StatusCode::OK);
    service.rewrite_file(&file("second"));
    service.signal("-HUP");
    let line = block_in_place(|| service.wait_for_line("settings reloaded"));
    assert!(line.contains("no changes"), "{line}");
    let observer = database.connect().await;
    let end =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'first'";
    observer.execute(end, &[]).await.unwrap();
    let started = Instant::now();
    while get().await != StatusCode::OK {
        assert!(started.elapsed() < RECOVERY_TIMEOUT);
    }
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'second'";
    let count: i64 = observer.query_one(count, &[]).await.unwrap().get(0);
    assert!(count > 0, "no new connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_timeout_of_the_url_is_obeyed() {
    let database = Database::create().await;
    let proxy = Proxy::start(postgres::upstream(), Fault::Stall).await;
    let url = database.url_through(proxy.port);
    for (parameter, limit) in [("", "2s"), ("&connect_timeout=1", "1s")] {
        let url = format!("{url}{parameter}");
        let (stdout, _) = check("http://127.0.0.1:9", &url);
        let error = format!("the database cannot be reached: no response within {limit}");
        assert!(stdout.contains(&error), "{parameter}: {stdout}");
    }
}

/// Creations in one tenant wait for a lock. Requests of another tenant must not wait for them.
#[tokio::test(flavor = "multi_thread")]
async fn blocked_tenant_leaves_connections_for_others() {
    let app = TestApp::start().await;
    app.create((CONTOSO, ADMIN), "first").await;
    app.create((FABRIKAM, ADMIN), "first").await;
    let client = app.database.as_ref().unwrap().connect().await;
    let lock = format!(
        "{}; SELECT FROM tenants FOR UPDATE",
        postgres::begin(CONTOSO)
    );
    client.batch_execute(&lock).await.unwrap();
    let creations = (0..40).map(|_| {
        app.send_as(
            (CONTOSO, ADMIN),
            Method::POST,
            "/api/tasks",
            Some(title_body("waits")),
        )
    });
    let others = async {
        let mut times = Vec::new();
        for _ in 0..20 {
            let started = Instant::now();
            assert_eq!(app.titles((FABRIKAM, ADMIN)).await, ["first"]);
            times.push(started.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        times.sort();
        times[10]
    };
    let (creations, median) = tokio::join!(futures_util::future::join_all(creations), others);
    println!("during 40 blocked creations, lists of another tenant took {median:?} (median of 20)");
    assert!(median < Duration::from_millis(500), "{median:?}");
    assert!(
        creations
            .iter()
            .all(|answer| answer.status == StatusCode::SERVICE_UNAVAILABLE)
    );
    client.batch_execute("ROLLBACK").await.unwrap();
    app.create((CONTOSO, ADMIN), "second").await;
}

/// `/ready` caches its result for a second, and concurrent probes share one check.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_probes_share_one_database_check() {
    let (app, proxy, _database) = start(Fault::None).await;
    assert_eq!(ready(&app).await.status, StatusCode::OK);
    proxy.set_fault(Fault::Stall);
    // The result is still cached.
    assert_eq!(ready(&app).await.status, StatusCode::OK);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let started = Instant::now();
    let answers = futures_util::future::join_all((0..100).map(|_| ready(&app))).await;
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == StatusCode::SERVICE_UNAVAILABLE)
    );
    assert!(
        started.elapsed() < Duration::from_secs(9),
        "each probe ran its own check: {:?}",
        started.elapsed()
    );
}

/// The connection is cut after 0 to 380 bytes of a write. In the last five rounds, only the reply is lost.
#[tokio::test]
async fn write_without_reply_is_never_partially_applied() {
    let (app, proxy, database) = start(Fault::None).await;
    let client = database.connect().await;
    let create = async |title: &str| {
        app.send_as(
            (CONTOSO, ADMIN),
            Method::POST,
            "/api/tasks",
            Some(title_body(title)),
        )
        .await
        .status
    };
    assert_eq!(create("first").await, StatusCode::OK);
    let (mut applied, mut not_applied) = (0, 0);
    let cuts = (0..400).step_by(20).map(Fault::CutAfter);
    for (number, fault) in cuts.chain([Fault::LoseAnswers; 5]).enumerate() {
        // Opens the connection and prepares its statements, so that the fault hits the write.
        assert_eq!(
            app.send_as((CONTOSO, ADMIN), Method::GET, "/api/tasks?limit=1", None)
                .await
                .status,
            200
        );
        proxy.set_fault(fault);
        let title = format!("{number}: {fault:?}");
        assert_eq!(
            create(&title).await,
            StatusCode::SERVICE_UNAVAILABLE,
            "{title}"
        );
        proxy.set_fault(Fault::None);

        let begin = postgres::begin(CONTOSO);
        // Waits until the server has finished the write.
        client
            .batch_execute(&format!("{begin}; SELECT FROM tenants FOR UPDATE; COMMIT"))
            .await
            .unwrap();
        client.batch_execute(&begin).await.unwrap();
        let sql = "SELECT count(*), max(id), (SELECT task_count FROM tenants), (SELECT last_task_id FROM tenants), \
                   count(*) FILTER (WHERE title = $1) FROM tasks";
        let row = client.query_one(sql, &[&title]).await.unwrap();
        client.batch_execute("COMMIT").await.unwrap();
        let [tasks, highest_id, task_count, last_id, with_title] =
            [0, 1, 2, 3, 4].map(|column| row.get::<_, i64>(column));
        assert_eq!((tasks, highest_id), (task_count, last_id), "{title}");
        assert!(with_title <= 1, "{title}");
        *(if with_title == 1 {
            &mut applied
        } else {
            &mut not_applied
        }) += 1;
    }
    println!("of 25 writes without a reply {applied} were applied, {not_applied} were not");
    assert!(
        applied > 0 && not_applied > 0,
        "{applied} applied, {not_applied} not"
    );
    assert_eq!(create("last").await, StatusCode::OK);
}

#[tokio::test]
async fn open_connections_are_in_the_metrics() {
    let app = TestApp::start_with(&[("MAX_DATABASE_CONNECTIONS", "3")]).await;
    let assert_connections = async |open: f64| {
        let series = series(&app).await;
        for (end, expected) in [("", open), ("_max", 3.0)] {
            let name = format!("tenant_tasks_database_connections{end}");
            assert_eq!(series.get(&name), Some(&expected), "{name}");
        }
    };
    assert_connections(0.0).await;
    app.create((CONTOSO, ADMIN), "x").await;
    assert_connections(1.0).await;
}

/// A session's time limit holds only if the session belongs to one client.
#[tokio::test(flavor = "multi_thread")]
async fn missing_time_limit_of_shared_sessions_is_noted() {
    let app = TestApp::start().await;
    let database = app.database.as_ref().unwrap();
    let note =
        "note      a connection pooler shares sessions, and the role has no statement_timeout";
    // The setting is that of a session that another client has used.
    let used = format!(
        "{}%20-ctenant_tasks.session%3Dshared",
        database.direct_url()
    );
    for (url, is_noted) in [
        (database.url(), postgres::are_sessions_shared()),
        (format!("{used}%20-cstatement_timeout%3D1s"), false),
        (used, true),
    ] {
        let (stdout, code) = check(&app.entra.authority, &url);
        assert_eq!(stdout.contains(note), is_noted, "{url}: {stdout}");
        assert_eq!(code, Some(0));
    }
}

/// Responds to every login with this error.
fn server_that_rejects(code: &'static str, message: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let fields = format!("SFATAL\0VFATAL\0C{code}\0M{message}\0\0");
            let length = u32::try_from(fields.len() + 4).unwrap();
            let head = [&b"E"[..], &length.to_be_bytes()].concat();
            let _ = stream.write_all(&[&head, fields.as_bytes()].concat());
        }
    });
    port
}

/// A pooler reports everything with the code 08P01. A wrong password is not an outage.
#[tokio::test]
async fn wrong_password_behind_a_pooler_stops_the_start() {
    drop(Database::create().await);
    for (code, message, is_rejected) in [
        (
            "28P01",
            "password authentication failed for user \"x\"",
            true,
        ),
        ("08P01", "password authentication failed", true),
        ("08P01", "SASL authentication failed", true),
        ("08P01", "no such user: x", true),
        (
            "08P01",
            "server login failed: FATAL the database system is starting up",
            false,
        ),
        ("08006", "pgbouncer cannot connect to server", false),
        ("57P03", "the database system is starting up", false),
    ] {
        let port = server_that_rejects(code, message);
        let url = format!("postgres://x:x@127.0.0.1:{port}/x");
        let settings = settings("http://127.0.0.1:9", &[("DATABASE_URL", &url)]);
        let store = Config::parse(&settings).unwrap().store;
        let is_error = Tasks::open(&store).await.is_err();
        assert_eq!(is_error, is_rejected, "{code} {message}");
    }
}

/// Keys are remembered for a day. Expired ones are deleted in batches, and until then have no effect.
#[tokio::test(flavor = "multi_thread")]
async fn expired_keys_have_no_effect_and_are_deleted() {
    let app = TestApp::start().await;
    let database = app.database.as_ref().unwrap();
    let create = async || {
        let request = app.request(Method::POST, "/api/tasks");
        let request = request.bearer_auth(app.entra.v1(CONTOSO, ADMIN).sign());
        let request = request.header("content-type", "application/json");
        let request = request.header("idempotency-key", "key");
        answer(request.body(title_body("x").to_string())).await
    };
    assert_eq!(create().await.json()["id"], 1);
    assert_eq!(create().await.json()["id"], 1);
    let client = database.connect().await;
    let age = async |hours: u32, others: u32| {
        let sql = format!(
            "{}; UPDATE idempotency_keys SET created_at = now() - interval '{hours} hours'; \
             INSERT INTO idempotency_keys SELECT tenant_id, user_id, 'old-' || n, request_digest, task_id, \
             owner_name, created_at FROM idempotency_keys, generate_series(1, {others}) AS n WHERE key = 'key'; \
             COMMIT",
            postgres::begin(CONTOSO)
        );
        client.batch_execute(&sql).await.unwrap();
    };
    let count = async || {
        client
            .batch_execute(&postgres::begin(CONTOSO))
            .await
            .unwrap();
        let sql = "SELECT count(*) FROM idempotency_keys";
        let count: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
        client.batch_execute("COMMIT").await.unwrap();
        count
    };
    let tasks = open(&database.url()).await.unwrap();
    let tenants = [CONTOSO.id.parse().unwrap()].into();
    age(23, 1200).await;
    tasks.forget_expired_keys(&tenants).await;
    assert_eq!(count().await, 1201);
    age(24, 0).await;
    assert_eq!(create().await.json()["id"], 2, "the key has expired");
    tasks.forget_expired_keys(&tenants).await;
    assert_eq!(count().await, 1);
    // In open mode, a tenant that sends requests need not be listed.
    let tasks = open(&database.url()).await.unwrap();
    let tenants = [].into();
    age(25, 0).await;
    tasks.forget_expired_keys(&tenants).await;
    assert_eq!(count().await, 1);
    let tenant = CONTOSO.id.parse().unwrap();
    let list = tasks.list(tenant, Reach::Tenant, Page::default());
    list.await.unwrap();
    tasks.forget_expired_keys(&tenants).await;
    assert_eq!(count().await, 0);
}
