//! The log as an operator reads it: one line a request, and one for each decision worth an audit.

use std::{io::Write, sync::Arc, time::Duration};

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use tenant_tasks::clock::SystemClock;

use crate::{
    service::Service,
    support::{
        app::{Answer, answer, listen},
        entra::{KeysResponse, MockEntra},
        tokens::{SigningKey, Token},
        users::{ADMIN, CONTOSO, NORTHWIND, READER, Tenant, User},
    },
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

struct Watched {
    entra: MockEntra,
    service: Service,
}

impl Watched {
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
                .body(r#"{"title":"s3cret"}"#),
        )
        .await
    }

    /// The request's line, found by the id that its answer carries.
    fn line_of(&self, answer: &Answer) -> Value {
        let line = tokio::task::block_in_place(|| {
            self.service
                .wait_for_line(answer.header("x-request-id").unwrap())
        });
        assert!(!line.contains("s3cret"), "{line}");
        serde_json::from_str(&line).unwrap()
    }

    fn good(&self, tenant: Tenant, user: User) -> Token {
        self.entra.v1(tenant, user)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requests_line_says_who_what_how_long_and_in_which_trace() {
    let watched = Watched::start(&[]).await;
    let answer = watched
        .send(Method::POST, &watched.good(CONTOSO, ADMIN))
        .await;
    assert_eq!(answer.status, StatusCode::OK);
    let mut line = watched.line_of(&answer);
    assert!(line["duration_us"].take().as_u64().unwrap() > 0);
    assert_eq!(
        line["timestamp"].take().as_str().unwrap().len(),
        "2027-01-15T08:00:00.000000Z".len()
    );
    let expected = json!({
        "timestamp": null, "level": "INFO", "target": "tenant_tasks::request", "message": "request",
        "request_id": answer.header("x-request-id"), "trace_id": TRACE, "method": "POST", "route": "/api/tasks",
        "status": 200, "duration_us": null, "tenant": CONTOSO.id, "user": ADMIN.oid(CONTOSO),
    });
    assert_eq!(line, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_decision_worth_an_audit_is_a_line_that_says_of_whom() {
    let revoked = SigningKey::second();
    let watched = Watched::start(&[("REVOKED_KEY_IDS", &revoked.key_id)]).await;
    let good = || watched.good(CONTOSO, ADMIN);
    let (contoso, admin) = (json!(CONTOSO.id), json!(ADMIN.oid(CONTOSO)));
    for (token, message, reason, who) in [
        (
            watched.good(NORTHWIND, ADMIN),
            "tenant refused",
            "tenant_not_allowed",
            json!({"unverified_tenant": NORTHWIND.id}),
        ),
        (
            watched.good(CONTOSO, READER),
            "role refused",
            "missing_role",
            json!({"tenant": contoso, "user": READER.oid(CONTOSO), "error": "none of the required roles [Admin, Editor], but [\"Reader\"]"}),
        ),
        (
            good().with("scp", "User.Read"),
            "scope refused",
            "missing_scope",
            json!({"tenant": contoso, "user": admin}),
        ),
        (
            good().with("idtyp", "app"),
            "app refused",
            "app_only",
            json!({"tenant": contoso, "user": admin}),
        ),
        (
            good().signed_by(revoked),
            "revoked key refused",
            "revoked_key",
            json!({"unverified_tenant": contoso}),
        ),
        (
            good().signed_by(SigningKey::third().named(&SigningKey::first().key_id)),
            "signature refused",
            "signature",
            json!({"unverified_tenant": contoso}),
        ),
    ] {
        let line = watched.line_of(&watched.send(Method::POST, &token).await);
        assert_eq!(
            (&line["target"], &line["message"], &line["reason"]),
            (
                &json!("tenant_tasks::audit"),
                &json!(message),
                &json!(reason)
            )
        );
        for (name, value) in who.as_object().unwrap() {
            assert_eq!(&line[name], value, "{message}: {line}");
        }
    }
    let line = watched.line_of(
        &watched
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
        "not {admin}: it is not proven"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_reloaded_and_keys_revoked_are_audited_too() {
    let file = |more: &str| format!("ALLOWED_TENANT_IDS={}\n{more}", CONTOSO.id);
    let service = Service::start_with_file(&file(""), &[]);
    for (more, message) in [
        (
            "REVOKED_KEY_IDS=bad-key\n",
            "settings reloaded: signing key revoked",
        ),
        ("ALLOWED_TENANT_IDS=x\n", "settings not reloaded"),
        ("", "settings reloaded: signing key no longer revoked"),
        (
            "",
            "settings reloaded: tenants and revoked keys are as they were",
        ),
    ] {
        service.rewrite_file(&file(more));
        service.signal("-HUP");
        let line = tokio::task::block_in_place(|| service.wait_for_line(message));
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["target"], "tenant_tasks::audit", "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_before_its_answer_leaves_a_line_too() {
    let watched = Watched::start(&[]).await;
    watched
        .send(Method::GET, &watched.good(CONTOSO, ADMIN))
        .await;
    watched
        .entra
        .set_keys_response(CONTOSO, KeysResponse::Delay(Duration::from_secs(2)));
    let fetches = watched.entra.fetches(CONTOSO);
    let unknown = watched
        .good(CONTOSO, ADMIN)
        .signed_by(SigningKey::first().named("unknown"))
        .sign();
    let mut stream = watched.service.connect();
    write!(
        stream,
        "GET /api/me HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {unknown}\r\n\r\n"
    )
    .unwrap();
    // Until it waits for a fetch of keys.
    while watched.entra.fetches(CONTOSO) == fetches {
        tokio::task::yield_now().await;
    }
    drop(stream);
    let line = tokio::task::block_in_place(|| watched.service.wait_for_line("/api/me"));
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&line["status"], &line["unverified_tenant"]),
        (&json!(499), &json!(CONTOSO.id)),
        "{line}"
    );
}
