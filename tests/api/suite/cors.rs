//! CORS: preflight requests and the response headers that a single-page app needs.

use std::collections::BTreeSet;

use axum::http::{Method, StatusCode};

use crate::support::app::{Answer, TestApp, answer};

const ORIGIN: &str = "http://localhost:3000";

/// Those of the app, and those that Application Insights, Sentry and the Azure SDKs add.
const REQUESTED_HEADERS: &str =
    "authorization,content-type,traceparent,request-id,sentry-trace,baggage,x-ms-client-request-id";

async fn preflight(app: &TestApp, origin: &str, method: &str) -> Answer {
    let request = app
        .request(Method::OPTIONS, "/api/tasks/1")
        .header("origin", origin)
        .header("access-control-request-method", method)
        .header("access-control-request-headers", REQUESTED_HEADERS);
    answer(request).await
}

/// The methods of all routes, from the API's description. Another test compares it with the routes.
async fn methods(app: &TestApp) -> BTreeSet<String> {
    let document = app.send(Method::GET, "/openapi.json", None, None).await;
    let document = document.json();
    let items = document["paths"].as_object().unwrap().values();
    let methods = items.flat_map(|item| item.as_object().unwrap().keys());
    methods.map(|method| method.to_uppercase()).collect()
}

#[tokio::test]
async fn preflight_grants_every_method_and_is_cacheable() {
    let app = TestApp::start().await;
    let methods = methods(&app).await;
    assert!(methods.len() >= 4, "{methods:?}");
    for method in &methods {
        let answer = preflight(&app, ORIGIN, method).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.header("access-control-allow-origin"), Some(ORIGIN));
        assert_eq!(
            answer.header("access-control-allow-credentials"),
            Some("true")
        );
        assert_eq!(answer.header("access-control-max-age"), Some("7200"));
        let methods = answer.header("access-control-allow-methods").unwrap();
        assert!(
            methods.split(',').any(|allowed| allowed == method),
            "{methods}"
        );
        let headers = answer.header("access-control-allow-headers").unwrap();
        assert_eq!(headers, REQUESTED_HEADERS);
        assert!(answer.header("vary").unwrap().contains("origin"));
    }
}

#[tokio::test]
async fn preflight_from_other_origin_is_not_granted() {
    let app = TestApp::start().await;
    for origin in [
        "http://localhost:3001",
        "https://localhost:3000",
        "http://localhost:3000.evil.example",
        "null",
    ] {
        let answer = preflight(&app, origin, "GET").await;
        assert_eq!(
            answer.header("access-control-allow-origin"),
            None,
            "{origin}"
        );
    }
}

#[tokio::test]
async fn error_response_is_readable_by_allowed_origin() {
    let app = TestApp::start().await;
    for (method, path) in [
        (Method::GET, "/api/tasks"),
        (Method::GET, "/nowhere"),
        (Method::PUT, "/health"),
    ] {
        let answer = answer(app.request(method, path).header("origin", ORIGIN)).await;
        assert!(answer.status.is_client_error());
        assert_eq!(
            answer.header("access-control-allow-origin"),
            Some(ORIGIN),
            "{path}"
        );
        let exposed = answer.header("access-control-expose-headers").unwrap();
        for name in ["www-authenticate", "link", "retry-after"] {
            assert!(
                exposed.split(',').any(|header| header == name),
                "{name} in {exposed}"
            );
        }
    }
}

#[tokio::test]
async fn several_origins_can_be_allowed() {
    let app = TestApp::start_with(&[(
        "ALLOWED_ORIGINS",
        "https://tasks.example, https://app.example:8443",
    )])
    .await;
    for (origin, allowed) in [
        ("https://tasks.example", true),
        ("https://app.example:8443", true),
        (ORIGIN, false),
    ] {
        let answer = preflight(&app, origin, "POST").await;
        assert_eq!(
            answer.header("access-control-allow-origin"),
            allowed.then_some(origin)
        );
    }
}
