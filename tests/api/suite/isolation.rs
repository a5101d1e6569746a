//! Tenant isolation: random concurrent operations of several tenants and users, compared with a model.

use std::collections::BTreeMap;

use axum::http::{Method, StatusCode};
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Value, json};

use crate::support::{
    app::{Answer, TestApp},
    tasks::{completed_body, title, title_and_completed_body, title_body},
    users::{ADMIN, CONTOSO, EDITOR, FABRIKAM, NORTHWIND, READER, Tenant, User},
};

/// A request of one user.
#[derive(Clone, Debug)]
enum Operation {
    Create { title: String },
    Rename { id: u64, title: String },
    Complete { id: u64, completed: bool },
    Delete { id: u64 },
    Get { id: u64 },
    List,
}

/// The expected tasks of a tenant: owner, title and state by ID.
#[derive(Default)]
struct Model {
    last_id: u64,
    tasks: BTreeMap<u64, (User, String, bool)>,
}

impl Model {
    /// Applies the operation to the model and checks the service's answer.
    fn check(&mut self, tenant: Tenant, user: User, operation: &Operation, answer: &Answer) {
        let context = format!(
            "{} {}: {operation:?}: {}",
            tenant.name, user.name, answer.body
        );
        let expected = match operation {
            Operation::Create { title } if user != READER => {
                self.last_id += 1;
                self.tasks
                    .insert(self.last_id, (user, title.clone(), false));
                Some(self.json(tenant, self.last_id))
            }
            Operation::Rename { id, title } if self.may_change(user, *id) => {
                self.tasks.get_mut(id).unwrap().1.clone_from(title);
                Some(self.json(tenant, *id))
            }
            Operation::Complete { id, completed } if self.may_change(user, *id) => {
                self.tasks.get_mut(id).unwrap().2 = *completed;
                Some(self.json(tenant, *id))
            }
            Operation::Delete { id } if user == ADMIN => {
                self.tasks.remove(id);
                Some(json!({ "status": "deleted" }))
            }
            Operation::List => Some(self.list(tenant, user)),
            Operation::Get { id } => {
                let list = self.list(tenant, user);
                let task = list
                    .as_array()
                    .unwrap()
                    .iter()
                    .find(|task| task["id"] == *id);
                if task.is_none() {
                    assert_eq!(answer.status, StatusCode::NOT_FOUND, "{context}");
                }
                task.cloned()
            }
            Operation::Rename { .. } | Operation::Complete { .. } if user != READER => {
                assert_eq!(answer.status, StatusCode::NOT_FOUND, "{context}");
                None
            }
            _ => {
                assert_eq!(answer.status, StatusCode::FORBIDDEN, "{context}");
                None
            }
        };
        if let Some(expected) = expected {
            assert_eq!(answer.status, StatusCode::OK, "{context}");
            assert_eq!(answer.json(), expected, "{context}");
        }
    }

    fn may_change(&self, user: User, id: u64) -> bool {
        let owner = self.tasks.get(&id).map(|(owner, ..)| *owner);
        owner.is_some_and(|owner| user == ADMIN || (user == EDITOR && owner == EDITOR))
    }

    fn json(&self, tenant: Tenant, id: u64) -> Value {
        let (owner, title, completed) = &self.tasks[&id];
        let mut task = title_and_completed_body(title, *completed);
        task["id"] = json!(id);
        task["owner_name"] = json!(owner.full_name());
        task["tenant_id"] = json!(tenant.id);
        task
    }

    fn list(&self, tenant: Tenant, user: User) -> Value {
        let visible = self
            .tasks
            .iter()
            .filter(|(_, (owner, ..))| user == ADMIN || *owner == user);
        let tasks = visible.map(|(&id, (owner, ..))| {
            let mut task = self.json(tenant, id);
            if user == ADMIN {
                task["owner_id"] = json!(owner.oid(tenant));
            }
            task
        });
        tasks.collect()
    }
}

async fn perform(app: &TestApp, caller: (Tenant, User), operation: &Operation) -> Answer {
    let (method, path, body) = match operation {
        Operation::Create { title } => (
            Method::POST,
            "/api/tasks".to_owned(),
            Some(title_body(title)),
        ),
        Operation::Rename { id, title } => (
            Method::PATCH,
            format!("/api/tasks/{id}"),
            Some(title_body(title)),
        ),
        Operation::Complete { id, completed } => (
            Method::PATCH,
            format!("/api/tasks/{id}"),
            Some(completed_body(*completed)),
        ),
        Operation::Delete { id } => (Method::DELETE, format!("/api/tasks/{id}"), None),
        Operation::Get { id } => (Method::GET, format!("/api/tasks/{id}"), None),
        Operation::List => (Method::GET, "/api/tasks".to_owned(), None),
    };
    app.send_as(caller, method, &path, body).await
}

fn operations() -> impl Strategy<Value = Vec<(User, Operation)>> {
    let user = prop_oneof![Just(ADMIN), Just(EDITOR), Just(READER)];
    let title = "[a-zß🦀\"\\\\ ]{0,8}[a-z]";
    let id = 1..12_u64;
    let operation = prop_oneof![
        4 => title.prop_map(|title| Operation::Create { title }),
        2 => (id.clone(), title).prop_map(|(id, title)| Operation::Rename { id, title }),
        2 => (id.clone(), any::<bool>()).prop_map(|(id, completed)| Operation::Complete { id, completed }),
        1 => id.clone().prop_map(|id| Operation::Delete { id }),
        2 => id.prop_map(|id| Operation::Get { id }),
        2 => Just(Operation::List),
    ];
    prop::collection::vec((user, operation), 1..40)
}

/// Three tenants send random operations concurrently. The answers to one tenant must depend only on that tenant's
/// operations.
#[test]
fn concurrent_tenants_see_only_their_own_tasks() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 48,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    });
    runner
        .run(&[operations(), operations(), operations()], |tenants| {
            runtime.block_on(async {
                let app = TestApp::start_with(&[("ALLOW_ANY_TENANT", "true")]).await;
                let [contoso, fabrikam, northwind] = &tenants;
                tokio::join!(
                    run_operations(&app, CONTOSO, contoso),
                    run_operations(&app, FABRIKAM, fabrikam),
                    run_operations(&app, NORTHWIND, northwind),
                );
            });
            Ok(())
        })
        .unwrap();
}

async fn run_operations(app: &TestApp, tenant: Tenant, operations: &[(User, Operation)]) {
    let mut model = Model::default();
    for (user, operation) in operations {
        let answer = perform(app, (tenant, *user), operation).await;
        model.check(tenant, *user, operation, &answer);
    }
    for user in [ADMIN, EDITOR, READER] {
        let answer = perform(app, (tenant, user), &Operation::List).await;
        model.check(tenant, user, &Operation::List, &answer);
    }
}

/// Two users of one tenant create tasks concurrently. Each task gets a distinct ID, and none is lost.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_creations_are_kept_with_distinct_ids() {
    let app = TestApp::start().await;
    let create = async |caller| {
        let mut ids = Vec::new();
        for number in 0..50 {
            ids.push(app.create(caller, &number.to_string()).await);
        }
        ids
    };
    let (contoso_admin, contoso_editor, fabrikam) = tokio::join!(
        create((CONTOSO, ADMIN)),
        create((CONTOSO, EDITOR)),
        create((FABRIKAM, ADMIN))
    );
    let mut contoso = [contoso_admin, contoso_editor].concat();
    contoso.sort_unstable();
    assert_eq!(contoso, (1..=100).collect::<Vec<_>>());
    assert_eq!(fabrikam, (1..=50).collect::<Vec<_>>());
    assert_eq!(app.titles((CONTOSO, ADMIN)).await.len(), 100);
}

#[tokio::test]
async fn inaccessible_and_missing_tasks_are_alike() {
    let app = TestApp::start().await;
    app.create((CONTOSO, ADMIN), "an admin's").await;
    for title in ["1", "2", "3"] {
        app.create((FABRIKAM, ADMIN), title).await;
    }
    for (method, body) in [(Method::GET, None), (Method::PATCH, Some(title_body("x")))] {
        let send = async |id: u64| {
            let path = format!("/api/tasks/{id}");
            app.send_as((CONTOSO, EDITOR), method.clone(), &path, body.clone())
                .await
        };
        let (of_another_user, of_another_tenant, missing) =
            (send(1).await, send(3).await, send(99).await);
        for answer in [&of_another_user, &of_another_tenant, &missing] {
            assert_eq!(
                (answer.status, answer.body.as_str()),
                (StatusCode::NOT_FOUND, r#"{"detail":"Task not found"}"#)
            );
            let names = |answer: &Answer| {
                answer
                    .headers
                    .keys()
                    .map(|name| name.as_str().to_owned())
                    .collect::<Vec<_>>()
            };
            assert_eq!(names(answer), names(&missing));
        }
    }
}

/// Tokens that differ only in `tid` or only in `oid` belong to different users. Other claims do not matter.
#[tokio::test]
async fn owner_is_identified_by_tenant_and_oid_only() {
    let app = TestApp::start().await;
    app.create((CONTOSO, EDITOR), "mine").await;
    let of_another_user = app.entra.v1(CONTOSO, EDITOR);
    let of_another_user = of_another_user.with("oid", READER.oid(CONTOSO));
    let of_another_tenant = app.entra.v1(FABRIKAM, EDITOR);
    let of_another_tenant = of_another_tenant.with("oid", EDITOR.oid(CONTOSO));
    for token in [of_another_user.sign(), of_another_tenant.sign()] {
        let answer = app
            .send(Method::GET, "/api/tasks", Some(&token), None)
            .await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (StatusCode::OK, "[]")
        );
    }

    let token = app
        .entra
        .v1(CONTOSO, READER)
        .with("oid", EDITOR.oid(CONTOSO))
        .with("sub", "another")
        .sign();
    let answer = app
        .send(Method::GET, "/api/tasks", Some(&token), None)
        .await;
    assert_eq!(title(&answer.json()[0]), "mine");
}
