//! `Idempotency-Key`: a repeated creation makes one task.

use std::collections::BTreeSet;

use axum::http::{Method, StatusCode};
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{
    app::{Answer, TestApp, answer},
    tasks::title_body,
    users::{ADMIN, CONTOSO, EDITOR, FABRIKAM, Tenant, User},
};

async fn create(app: &TestApp, caller: (Tenant, User), title: &str, key: &str) -> Answer {
    let request = app.request(Method::POST, "/api/tasks");
    let request = request.bearer_auth(app.entra.v1(caller.0, caller.1).sign());
    let request = request.header("content-type", "application/json");
    let request = request.header("idempotency-key", key);
    answer(request.body(title_body(title).to_string())).await
}

fn is_replayed(answer: &Answer) -> bool {
    answer.header("idempotent-replayed") == Some("true")
}

#[tokio::test]
async fn repeated_creation_returns_the_first_answer() {
    let app = TestApp::start().await;
    let editor = (CONTOSO, EDITOR);
    let first = create(&app, editor, "Buy milk", "key-1").await;
    assert_eq!(first.status, StatusCode::OK);
    assert!(!is_replayed(&first));
    let changed = json!({ "title": "changed", "completed": true });
    app.send_as(editor, Method::PATCH, "/api/tasks/1", Some(changed))
        .await;
    let second = create(&app, editor, "Buy milk", "key-1").await;
    assert_eq!((second.status, &second.body), (first.status, &first.body));
    assert!(is_replayed(&second));
    app.send_as((CONTOSO, ADMIN), Method::DELETE, "/api/tasks/1", None)
        .await;
    assert_eq!(
        create(&app, editor, "Buy milk", "key-1").await.body,
        first.body
    );
    assert_eq!(app.titles(editor).await, Vec::<String>::new());

    // A replay neither uses an id nor counts as a task.
    assert_eq!(
        create(&app, editor, "second", "key-2").await.json()["id"],
        2
    );
}

#[tokio::test]
async fn key_of_another_request_is_rejected() {
    let app = TestApp::start().await;
    create(&app, (CONTOSO, EDITOR), "first", "key").await;
    let other = create(&app, (CONTOSO, EDITOR), "other", "key").await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(other.detail().contains("Idempotency-Key"), "{}", other.body);
    // Keys belong to a user of a tenant.
    for caller in [(CONTOSO, ADMIN), (FABRIKAM, EDITOR)] {
        let created = create(&app, caller, "other", "key").await;
        assert_eq!(created.status, StatusCode::OK);
        assert!(!is_replayed(&created));
    }
}

#[tokio::test]
async fn concurrent_requests_with_a_key_create_one_task() {
    let app = std::sync::Arc::new(TestApp::start().await);
    for round in 0..3 {
        let mut requests = JoinSet::new();
        for _ in 0..16 {
            let (app, key) = (app.clone(), format!("key-{round}"));
            requests.spawn(async move { create(&app, (CONTOSO, EDITOR), "one", &key).await });
        }
        let answers = requests.join_all().await;
        let bodies: BTreeSet<_> = answers.iter().map(|answer| &answer.body).collect();
        assert_eq!(bodies.len(), 1, "{bodies:?}");
        let created = answers.iter().filter(|answer| !is_replayed(answer)).count();
        assert_eq!(created, 1);
    }
    assert_eq!(app.titles((CONTOSO, EDITOR)).await.len(), 3);
}

#[tokio::test]
async fn full_tenant_replays_but_remembers_no_rejection() {
    let app = TestApp::start_with(&[("MAX_TASKS_PER_TENANT", "1")]).await;
    let editor = (CONTOSO, EDITOR);
    let first = create(&app, editor, "first", "key-1").await;
    assert_eq!(
        create(&app, editor, "first", "key-1").await.body,
        first.body
    );
    let full = create(&app, editor, "second", "key-2").await;
    assert_eq!(full.status, StatusCode::CONFLICT);
    app.send_as((CONTOSO, ADMIN), Method::DELETE, "/api/tasks/1", None)
        .await;
    let created = create(&app, editor, "second", "key-2").await;
    assert_eq!(created.status, StatusCode::OK);
    assert!(!is_replayed(&created));
}

#[tokio::test]
async fn invalid_key_is_rejected() {
    let app = TestApp::start().await;
    let long = "x".repeat(256);
    for key in ["", "two words", "\u{e9}", &long] {
        let rejected = create(&app, (CONTOSO, EDITOR), "x", key).await;
        assert_eq!(rejected.status, StatusCode::UNPROCESSABLE_ENTITY, "{key}");
        let loc = &rejected.json()["errors"][0]["loc"];
        assert_eq!(*loc, json!(["header", "Idempotency-Key"]));
    }
    let longest = "x".repeat(255);
    let created = create(&app, (CONTOSO, EDITOR), "x", &longest).await;
    assert_eq!(created.status, StatusCode::OK);
}
