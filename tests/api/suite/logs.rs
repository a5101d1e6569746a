//! The log: one line per request, and one per audited decision.

use std::sync::Arc;

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use tenant_tasks::clock::SystemClock;

use crate::{
    suite::service::Service,
    support::{
        app::{Answer, answer, listen},
        entra::MockEntra,
        tasks::title_body,
        tokens::{SigningKey, Token},
        users::{ADMIN, CONTOSO, NORTHWIND, READER, Tenant, User},
    },
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

struct Fixture {
    entra: MockEntra,
    service: Service,
}

impl Fixture {
    async fn start(settings: &[(&str, &str)]) -> Self {
        let entra = MockEntra::start(listen().await, Arc::new(SystemClock::new()));
        let authority = [("AZURE_AUTHORITY_HOST", &*entra.authority)];
        let service = Service::start(&[&authority, settings].concat());
        Self { entra, service }
    }

    async fn send(&self, method: Method, token: &Token) -> Answer {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.request(
            method,
            format!("http://{}/api/tasks?secret=s3cret", self.service.address),
        );
        let traceparent = format!("00-{TRACE}-b7ad6b7169203331-01");
        let request = request
            .header("traceparent", traceparent)
            .bearer_auth(token.sign());
        answer(
            request
                .header("content-type", "application/json")
                .body(title_body("s3cret").to_string()),
        )
        .await
    }

    /// The log line of the request, found by the `X-Request-Id` of its answer.
    fn line_of(&self, answer: &Answer) -> Value {
        let line = tokio::task::block_in_place(|| {
            self.service
                .wait_for_line(answer.header("x-request-id").unwrap())
        });
        assert!(!line.contains("s3cret"), "{line}");
        serde_json::from_str(&line).unwrap()
    }

    fn token(&self, tenant: Tenant, user: User) -> Token {
        self.entra.v1(tenant, user)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn request_line_has_user_route_duration_and_trace() {
    let fixture = Fixture::start(&[]).await;
    let answer = fixture
        .send(Method::POST, &fixture.token(CONTOSO, ADMIN))
        .await;
    assert_eq!(answer.status, StatusCode::OK);
    let mut line = fixture.line_of(&answer);
    assert!(line["duration_us"].take().as_u64().unwrap() > 0);
    let timestamp = line["timestamp"].take();
    let timestamp = timestamp.as_str().unwrap();
    assert_eq!(timestamp.len(), "2027-01-15T08:00:00.000000Z".len());
    assert!(timestamp.ends_with('Z'), "{timestamp} is not in UTC");
    let expected = json!({
        "timestamp": null, "level": "INFO", "target": "tenant_tasks::request", "message": "request",
        "request_id": answer.header("x-request-id"), "trace_id": TRACE, "method": "POST", "route": "/api/tasks",
        "status": 200, "duration_us": null, "tenant": CONTOSO.id, "user": ADMIN.oid(CONTOSO),
    });
    assert_eq!(line, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_audited_rejection_logs_its_tenant_and_user() {
    let revoked = SigningKey::second();
    let fixture = Fixture::start(&[("REVOKED_KEY_IDS", &revoked.key_id)]).await;
    let good = || fixture.token(CONTOSO, ADMIN);
    let (contoso, admin) = (json!(CONTOSO.id), json!(ADMIN.oid(CONTOSO)));
    for (token, message, reason, subject) in [
        (
            fixture.token(NORTHWIND, ADMIN),
            "tenant rejected",
            "tenant_not_allowed",
            json!({"unverified_tenant": NORTHWIND.id}),
        ),
        (
            fixture.token(CONTOSO, READER),
            "role rejected",
            "missing_role",
            json!({"tenant": contoso, "user": READER.oid(CONTOSO), "error": "one of the roles Admin, Editor is required, and the token has Reader"}),
        ),
        (
            good().with("roles", json!(vec!["group"; 200])),
            "role rejected",
            "missing_role",
            json!({
                "error": format!(
                    "one of the roles Admin, Editor is required, and the token has {}…; none of \
                     them is an app role of this API: the tenant assigned roles of another kind, \
                     or emits groups as roles (emit_as_roles)",
                    "group, ".repeat(10)
                ),
            }),
        ),
        (
            good().with("scp", "User.Read"),
            "scope rejected",
            "missing_scope",
            json!({"tenant": contoso, "user": admin}),
        ),
        (
            good().with("idtyp", "app"),
            "app rejected",
            "app_only",
            json!({"tenant": contoso, "user": admin}),
        ),
        (
            good().signed_by(revoked),
            "revoked key rejected",
            "revoked_key",
            json!({"unverified_tenant": contoso}),
        ),
        (
            good().signed_by(SigningKey::third().named(&SigningKey::first().key_id)),
            "signature rejected",
            "signature",
            json!({"unverified_tenant": contoso}),
        ),
    ] {
        let line = fixture.line_of(&fixture.send(Method::POST, &token).await);
        assert_eq!(
            (&line["target"], &line["message"], &line["reason"]),
            (
                &json!("tenant_tasks::audit"),
                &json!(message),
                &json!(reason)
            )
        );
        for (name, value) in subject.as_object().unwrap() {
            assert_eq!(&line[name], value, "{message}: {line}");
        }
    }
    let line = fixture.line_of(
        &fixture
            .send(Method::POST, &good().with("exp", 1_700_000_000))
            .await,
    );
    assert_eq!(
        (&line["target"], &line["reason"]),
        (&json!("tenant_tasks::request"), &json!("expired"))
    );
    assert_eq!(
        (&line["user"], &line["tenant"]),
        (&Value::Null, &Value::Null),
        "{admin} is not verified and must not be logged"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_reload_and_key_revocation_are_audited() {
    let file = |more: &str| format!("ALLOWED_TENANT_IDS={}\n{more}", CONTOSO.id);
    let service = Service::start_with_file(&file(""), &[]);
    for (more, message) in [
        (
            "REVOKED_KEY_IDS=bad-key\n",
            "settings reloaded: signing key revoked",
        ),
        ("ALLOWED_TENANT_IDS=x\n", "settings not reloaded"),
        ("", "settings reloaded: signing key restored"),
        ("", "settings reloaded; no changes"),
    ] {
        service.rewrite_file(&file(more));
        service.signal("-HUP");
        let line = tokio::task::block_in_place(|| service.wait_for_line(message));
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["target"], "tenant_tasks::audit", "{line}");
    }
}
