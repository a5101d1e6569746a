//! The access matrix: every route for every role, on own tasks, tasks of other users and tasks of another tenant.

use std::fs;

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use strum::VariantArray;
use tenant_tasks::auth::role::Role;

use crate::support::{
    app::TestApp,
    tasks::{title, title_body},
    users::{ADMIN, CONTOSO, EDITOR, FABRIKAM, NOROLE, READER, USERS, User},
};

const NOT_FOUND: &str = r#"{"detail":"Task not found"}"#;

/// What a user does: a method and its target.
const OPERATIONS: [(&str, &str); 13] = [
    ("GET", "me"),
    ("GET", "list"),
    ("GET", "own"),
    ("GET", "other user's"),
    ("GET", "other tenant's"),
    ("POST", "list"),
    ("PATCH", "own"),
    ("PATCH", "other user's"),
    ("PATCH", "other tenant's"),
    ("DELETE", "own"),
    ("DELETE", "other user's"),
    ("DELETE", "other tenant's"),
    ("DELETE", "missing"),
];

/// The status of each operation, in their order. One row per user.
/// The order: me, list, GET of three targets, POST, PATCH of three targets, DELETE of four.
#[rustfmt::skip]
const MATRIX: [(User, [u16; OPERATIONS.len()]); USERS.len()] = [
    (ADMIN,  [200, 200, 200, 200, 404, 200, 200, 200, 404, 200, 200, 200, 200]),
    (EDITOR, [200, 200, 200, 404, 404, 200, 200, 404, 404, 403, 403, 403, 403]),
    (READER, [200, 200, 200, 404, 404, 403, 403, 403, 403, 403, 403, 403, 403]),
    (NOROLE, [200, 403, 403, 403, 403, 403, 403, 403, 403, 403, 403, 403, 403]),
];

#[tokio::test]
async fn each_role_allows_exactly_its_operations() {
    for (user, row) in MATRIX {
        for ((method, target), expected) in OPERATIONS.into_iter().zip(row) {
            let app = TestApp::start().await;
            let path = match target {
                "me" => "/api/me".to_owned(),
                "list" => "/api/tasks".to_owned(),
                _ => format!("/api/tasks/{}", prepare(&app, user, target).await),
            };
            let body = match method {
                "POST" | "PATCH" => Some(title_body("changed")),
                _ => None,
            };
            let case = format!("{method} {target} as {}", user.name);
            let method = Method::from_bytes(method.as_bytes()).unwrap();

            let answer = app
                .send_as((CONTOSO, user), method.clone(), &path, body)
                .await;
            assert_eq!(answer.status.as_u16(), expected, "{case}: {}", answer.body);
            if expected == 404 {
                assert_eq!(answer.body, NOT_FOUND, "{case}");
            }
            // In every case the other tenant's tasks are unchanged.
            if target == "other tenant's" {
                assert_eq!(
                    app.titles((FABRIKAM, ADMIN)).await,
                    ["filler 1", "filler 2", "task"],
                    "{case}"
                );
            }
        }
    }
}

#[test]
fn every_role_is_registered_and_has_a_test_user() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/setup/roles.json");
    let roles: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let names: Vec<_> = Role::VARIANTS.iter().map(<&str>::from).collect();
    let registered = roles.as_array().unwrap().iter();
    let registered: Vec<_> = registered
        .map(|role| role["value"].as_str().unwrap())
        .collect();
    assert_eq!(registered, names);
    for name in names {
        let has_role = |user: &User| user.roles_claim() == Some(json!([name]));
        assert!(
            USERS.iter().any(has_role),
            "no test user has the role {name}"
        );
    }
}

/// Creates the target of an operation and returns its ID. Contoso has no task with the ID of another tenant's task.
async fn prepare(app: &TestApp, user: User, target: &str) -> u64 {
    let other = if user == ADMIN { EDITOR } else { ADMIN };
    match target {
        // Readers cannot create tasks, so the user has the Editor role here.
        "own" => create_as_editor(app, user).await,
        "other user's" => app.create((CONTOSO, other), "task").await,
        "other tenant's" => {
            for title in ["filler 1", "filler 2"] {
                app.create((FABRIKAM, ADMIN), title).await;
            }
            app.create((FABRIKAM, ADMIN), "task").await
        }
        _ => 1,
    }
}

async fn create_as_editor(app: &TestApp, user: User) -> u64 {
    let token = app
        .entra
        .v1(CONTOSO, user)
        .with("roles", json!(["Editor"]))
        .sign();
    let answer = app
        .send(
            Method::POST,
            "/api/tasks",
            Some(&token),
            Some(title_body("task")),
        )
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    answer.json()["id"].as_u64().unwrap()
}

#[tokio::test]
async fn missing_role_error_lists_required_and_own_roles() {
    let app = TestApp::start().await;
    for (user, method, path, detail) in [
        (
            READER,
            Method::POST,
            "/api/tasks",
            "Insufficient permissions. Required: Admin, Editor. Your roles: Reader",
        ),
        (
            NOROLE,
            Method::POST,
            "/api/tasks",
            "Insufficient permissions. Required: Admin, Editor. Your roles: none",
        ),
        (
            EDITOR,
            Method::DELETE,
            "/api/tasks/1",
            "Insufficient permissions. Required: Admin. Your roles: Editor",
        ),
    ] {
        let answer = app.send_as((CONTOSO, user), method, path, None).await;
        assert_eq!(
            (answer.status, answer.detail().as_str()),
            (StatusCode::FORBIDDEN, detail)
        );
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(
            challenge.starts_with("Bearer error=\"insufficient_scope\""),
            "{challenge}"
        );
    }
}

#[tokio::test]
async fn role_names_must_match_exactly() {
    let app = TestApp::start().await;
    for roles in [
        json!(["admin"]),
        json!(["Admin "]),
        json!(["Administrator"]),
        json!([]),
    ] {
        let token = app
            .entra
            .v1(CONTOSO, ADMIN)
            .with("roles", roles.clone())
            .sign();
        let answer = app
            .send(Method::GET, "/api/tasks", Some(&token), None)
            .await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{roles}");
    }
}

#[tokio::test]
async fn user_with_two_roles_has_the_higher_one() {
    let app = TestApp::start().await;
    app.create((CONTOSO, EDITOR), "task of another user").await;
    let token = app
        .entra
        .v1(CONTOSO, READER)
        .with("roles", json!(["Reader", "Admin"]))
        .sign();
    let answer = app
        .send(Method::GET, "/api/tasks", Some(&token), None)
        .await;
    assert_eq!(title(&answer.json()[0]), "task of another user");
}

#[tokio::test]
async fn health_is_available_without_a_token() {
    let app = TestApp::start().await;
    let health = app.send(Method::GET, "/health", None, None).await;
    assert_eq!(
        (health.status, health.body.as_str()),
        (StatusCode::OK, r#"{"status":"healthy"}"#)
    );
}
