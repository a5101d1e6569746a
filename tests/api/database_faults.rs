//! A database that is down, slow, or gone in the middle: who needs it is told to come back, nobody else notices,
//! and what was being written is done or not done.

#![expect(
    clippy::disallowed_methods,
    reason = "how long a failing database is waited for is real time"
)]

use std::time::{Duration, Instant};

use axum::http::{Method, StatusCode};
use serde_json::json;

use crate::{
    commands::run,
    support::{
        app::{Answer, TestApp},
        postgres::{self, Database},
        proxy::{Fault, Proxy},
        users::{ADMIN, API_CLIENT_ID, CONTOSO, EDITOR, FABRIKAM},
    },
};

/// How long service may take to resume by itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// The service, with a proxy between it and its database.
async fn start(fault: Fault) -> (TestApp, Proxy, Database) {
    let database = Database::create().await;
    let proxy = Proxy::start(postgres::upstream(), fault).await;
    let app = TestApp::start_with(&[("DATABASE_URL", &database.url_through(proxy.port))]).await;
    // Whoever asks whether it is ready must have its keys.
    assert_eq!(
        app.me(&app.entra.v1(CONTOSO, ADMIN).sign()).await.status,
        StatusCode::OK
    );
    (app, proxy, database)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_check_says_whether_the_database_would_do_and_leaves_it_as_it_is() {
    let (app, proxy, database) = start(Fault::None).await;
    let fresh = Database::create().await;
    let check = |url: String| {
        let settings = [
            ("AZURE_API_CLIENT_ID", API_CLIENT_ID),
            ("AZURE_AUTHORITY_HOST", &*app.entra.authority),
            ("ALLOWED_TENANT_IDS", CONTOSO.id),
            ("DATABASE_URL", &*url),
        ];
        let (said, _, code, _) = tokio::task::block_in_place(|| run(&["check"], None, &settings));
        (said.lines().last().unwrap_or_default().to_owned(), code)
    };
    assert_eq!(
        check(database.url()),
        ("ok        database".to_owned(), Some(0))
    );
    for _ in 0..2 {
        let behind = "ok        database; the next start brings its tables forward by 1 steps";
        assert_eq!(
            check(fresh.url()),
            (behind.to_owned(), Some(0)),
            "it makes no tables"
        );
    }
    proxy.set_fault(Fault::Refuse);
    let (said, code) = check(database.url_through(proxy.port));
    assert!(
        said.starts_with("WRONG     database: the database cannot be reached"),
        "{said}"
    );
    assert_eq!(code, Some(1));
}

async fn ready(app: &TestApp) -> Answer {
    app.send(Method::GET, "/ready", None, None).await
}

async fn until_ready(app: &TestApp) {
    let begun = Instant::now();
    while ready(app).await.status != StatusCode::OK {
        assert!(
            begun.elapsed() < PATIENCE,
            "not ready again after {PATIENCE:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Every use of the store is refused for the moment, and nothing else is.
async fn assert_only_tasks_are_unavailable(app: &TestApp) {
    for (method, path, body) in [
        (Method::GET, "/api/tasks", None),
        (Method::POST, "/api/tasks", Some(json!({ "title": "x" }))),
        (
            Method::PATCH,
            "/api/tasks/1",
            Some(json!({ "completed": true })),
        ),
        (Method::DELETE, "/api/tasks/1", None),
    ] {
        let answer = app.send_as((CONTOSO, ADMIN), method, path, body).await;
        assert_eq!(
            answer.status,
            StatusCode::SERVICE_UNAVAILABLE,
            "{path}: {}",
            answer.body
        );
        assert_eq!(answer.detail(), "Tasks are unavailable, try again later");
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
    // What needs no store is refused for what is wrong with it.
    let answer = app
        .send_as((CONTOSO, EDITOR), Method::DELETE, "/api/tasks/1", None)
        .await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn while_the_database_is_down_only_tasks_are_unavailable_and_they_come_back() {
    let (app, proxy, _database) = start(Fault::None).await;
    app.create((CONTOSO, ADMIN), "before").await;
    proxy.set_fault(Fault::Refuse);
    assert_only_tasks_are_unavailable(&app).await;
    proxy.set_fault(Fault::None);
    until_ready(&app).await;
    assert_eq!(app.titles((CONTOSO, ADMIN)).await, ["before"]);
}

#[tokio::test]
async fn a_service_that_starts_before_its_database_serves_when_it_is_there() {
    let (app, proxy, _database) = start(Fault::Refuse).await;
    assert_only_tasks_are_unavailable(&app).await;
    proxy.set_fault(Fault::None);
    until_ready(&app).await;
    assert_eq!(app.create((CONTOSO, ADMIN), "at last").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_stands_still_gathers_no_requests() {
    let (app, proxy, _database) = start(Fault::None).await;
    app.create((CONTOSO, ADMIN), "before").await;
    proxy.set_fault(Fault::Stall);
    let token = app.entra.v1(CONTOSO, ADMIN).sign();
    let timed = async || {
        let begun = Instant::now();
        let answer = app
            .send(Method::GET, "/api/tasks", Some(&token), None)
            .await;
        (answer.status, begun.elapsed())
    };
    let answers = futures_util::future::join_all((0..800).map(|_| timed())).await;
    assert!(
        answers
            .iter()
            .all(|(status, _)| *status == StatusCode::SERVICE_UNAVAILABLE)
    );
    let slowest = answers.iter().map(|(_, time)| *time).max().unwrap();
    let at_once = answers
        .iter()
        .filter(|(_, time)| *time < Duration::from_millis(900))
        .count();
    println!("of 800 requests at once {at_once} were refused at once, the last after {slowest:?}");
    assert!(slowest < Duration::from_secs(6), "{slowest:?}");
    assert!(at_once > 0, "there is no bound to the queue");

    let begun = Instant::now();
    assert_eq!(app.me(&token).await.status, StatusCode::OK);
    assert!(
        begun.elapsed() < Duration::from_millis(500),
        "who needs no database waits for it"
    );
    proxy.set_fault(Fault::None);
    until_ready(&app).await;
    assert_eq!(app.titles((CONTOSO, ADMIN)).await, ["before"]);
}

/// Clients that give up and come again: what they gave up must not gather behind a connection that stands still.
#[tokio::test(flavor = "multi_thread")]
async fn what_clients_gave_up_does_not_gather_behind_a_connection() {
    let (app, proxy, database) = start(Fault::None).await;
    app.create((CONTOSO, ADMIN), "before").await;
    proxy.set_fault(Fault::Stall);
    let token = app.entra.v1(CONTOSO, ADMIN).sign();
    for _ in 0..20 {
        let request = app.request(Method::POST, "/api/tasks").bearer_auth(&token);
        let request = request
            .header("content-type", "application/json")
            .body(r#"{"title":"given up"}"#);
        request
            .timeout(Duration::from_millis(50))
            .send()
            .await
            .unwrap_err();
    }
    // A connection is given up three seconds after its client.
    tokio::time::sleep(Duration::from_millis(3500)).await;
    proxy.set_fault(Fault::None);
    until_ready(&app).await;
    assert_eq!(app.titles((CONTOSO, ADMIN)).await, ["before"]);
    drop(database);
}

/// One tenant's creations wait for each other; another's requests must not.
#[tokio::test(flavor = "multi_thread")]
async fn an_organisation_that_waits_for_itself_leaves_connections_for_others() {
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
            Some(json!({ "title": "waits" })),
        )
    });
    let others = async {
        let mut times = Vec::new();
        for _ in 0..20 {
            let begun = Instant::now();
            assert_eq!(app.titles((FABRIKAM, ADMIN)).await, ["first"]);
            times.push(begun.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        times.sort();
        times[10]
    };
    let (creations, median) = tokio::join!(futures_util::future::join_all(creations), others);
    println!(
        "beside 40 creations that wait, another tenant's lists took {median:?} (median of 20)"
    );
    assert!(median < Duration::from_millis(500), "{median:?}");
    assert!(
        creations
            .iter()
            .all(|answer| answer.status == StatusCode::SERVICE_UNAVAILABLE)
    );
    client.batch_execute("ROLLBACK").await.unwrap();
    app.create((CONTOSO, ADMIN), "second").await;
}

/// Many probes ask the database no more often than one does.
#[tokio::test(flavor = "multi_thread")]
async fn probes_do_not_keep_the_database_busy() {
    let (app, proxy, _database) = start(Fault::None).await;
    assert_eq!(ready(&app).await.status, StatusCode::OK);
    proxy.set_fault(Fault::Stall);
    // Found out a moment ago.
    assert_eq!(ready(&app).await.status, StatusCode::OK);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let begun = Instant::now();
    let answers = futures_util::future::join_all((0..100).map(|_| ready(&app))).await;
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == StatusCode::SERVICE_UNAVAILABLE)
    );
    assert!(
        begun.elapsed() < Duration::from_secs(9),
        "each probe waited for its own: {:?}",
        begun.elapsed()
    );
}

/// The connection breaks after more and more of what the service sends for one task, and at last only the answer
/// is lost.
#[tokio::test]
async fn a_write_whose_answer_was_lost_is_done_or_not_done_but_never_half() {
    let (app, proxy, database) = start(Fault::None).await;
    let client = database.connect().await;
    let create = async |title: &str| {
        app.send_as(
            (CONTOSO, ADMIN),
            Method::POST,
            "/api/tasks",
            Some(json!({ "title": title })),
        )
        .await
        .status
    };
    assert_eq!(create("first").await, StatusCode::OK);
    let (mut done, mut not_done) = (0, 0);
    let cuts = (0..400).step_by(20).map(Fault::CutAfter);
    for (number, fault) in cuts.chain([Fault::LoseAnswers; 5]).enumerate() {
        // A connection that is there and prepared, so that what is cut is the write.
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
        // The server may still be at work on it.
        client
            .batch_execute(&format!("{begin}; SELECT FROM tenants FOR UPDATE; COMMIT"))
            .await
            .unwrap();
        client.batch_execute(&begin).await.unwrap();
        let sql = "SELECT count(*), max(id), (SELECT task_count FROM tenants), (SELECT last_task_id FROM tenants), \
                   count(*) FILTER (WHERE title = $1) FROM tasks";
        let row = client.query_one(sql, &[&title]).await.unwrap();
        client.batch_execute("COMMIT").await.unwrap();
        let [tasks, last, counted, given, of_this] =
            [0, 1, 2, 3, 4].map(|column| row.get::<_, i64>(column));
        assert_eq!((tasks, last), (counted, given), "{title}");
        assert!(of_this <= 1, "{title}");
        *(if of_this == 1 {
            &mut done
        } else {
            &mut not_done
        }) += 1;
    }
    println!("of 25 writes without an answer {done} were done, {not_done} not");
    assert!(done > 0 && not_done > 0, "{done} done, {not_done} not");
    assert_eq!(create("last").await, StatusCode::OK);
}
