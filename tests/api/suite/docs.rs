//! The `OpenAPI` document is complete and correct, and the docs page loads nothing from other hosts.

use axum::http::{Method, StatusCode};
use serde_json::Value;

use crate::support::{
    app::TestApp,
    users::{ADMIN, API_CLIENT_ID, CONTOSO, SPA_CLIENT_ID},
};

async fn document(app: &TestApp) -> Value {
    let answer = app.send(Method::GET, "/openapi.json", None, None).await;
    assert_eq!(answer.status, StatusCode::OK);
    answer.json()
}

fn operations(document: &Value) -> Vec<(Method, String, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        let item = item.as_object().unwrap();
        item.iter().map(|(method, operation)| {
            (
                method.to_uppercase().parse().unwrap(),
                path.clone(),
                operation,
            )
        })
    });
    operations.collect()
}

#[tokio::test]
async fn openapi_document_matches_the_routes() {
    let app = TestApp::start().await;
    let document = document(&app).await;
    let described = operations(&document);
    let token = app.entra.v1(CONTOSO, ADMIN).sign();
    for (method, path, operation) in &described {
        let answer = app
            .send(
                method.clone(),
                &path.replace("{id}", "1"),
                Some(&token),
                None,
            )
            .await;
        assert!(
            !answer.body.contains("Not Found") && answer.status != StatusCode::METHOD_NOT_ALLOWED,
            "{method} {path}: {}",
            answer.body
        );
        assert!(
            !operation["responses"][answer.status.as_str()].is_null(),
            "{method} {path}: {}",
            answer.status
        );
        let anonymous = app
            .send(method.clone(), &path.replace("{id}", "1"), None, None)
            .await;
        let requires_token = anonymous.status == StatusCode::UNAUTHORIZED;
        assert_eq!(path.starts_with("/api/"), requires_token, "{method} {path}");
        assert_eq!(
            operation["security"].is_array(),
            requires_token,
            "{method} {path}: {}",
            anonymous.status
        );
    }
    // Every path of the router is described.
    let source = include_str!("../../../src/routes.rs")
        .split(".route(")
        .skip(1);
    let routes = source.filter_map(|route| route.split('"').nth(1));
    let routes: Vec<_> = routes.filter(|path| path.starts_with('/')).collect();
    assert!(routes.contains(&"/api/tasks"), "{routes:?}");
    for path in routes {
        assert!(
            document["paths"][path].is_object(),
            "{path} is not described"
        );
    }
    // The `Allow` header of a 405 response lists all methods of a path.
    for path in document["paths"].as_object().unwrap().keys() {
        let answer = app
            .send(Method::PUT, &path.replace("{id}", "1"), None, None)
            .await;
        for method in answer
            .header("allow")
            .unwrap()
            .split(',')
            .filter(|method| *method != "HEAD")
        {
            let is_described = described
                .iter()
                .any(|(known, known_path, _)| known == method && known_path == path);
            assert!(is_described, "{method} {path} is not described");
        }
    }
}

#[tokio::test]
async fn equal_rejections_are_described_once() {
    let app = TestApp::start().await;
    let document = document(&app).await;
    let mut inline = Vec::new();
    for (method, path, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            if !status.starts_with('2') && response["$ref"].is_null() {
                inline.push((method.clone(), path.clone(), status.clone()));
            }
        }
    }
    // The caller may see a task and not be allowed to change it.
    let path = "/api/tasks/{id}".to_owned();
    assert_eq!(inline, [(Method::PATCH, path, "404".to_owned())]);
}

#[tokio::test]
async fn docs_page_signs_in_with_spa_client_id() {
    let app = TestApp::start_with(&[("AZURE_SPA_CLIENT_ID", SPA_CLIENT_ID)]).await;
    let document = document(&app).await;
    let schemes = &document["components"]["securitySchemes"];
    assert_eq!(schemes.as_object().unwrap().len(), 1, "one way to sign in");
    let flow = &schemes["entra"]["flows"]["authorizationCode"];
    for (member, endpoint) in [("authorizationUrl", "authorize"), ("tokenUrl", "token")] {
        let url = format!(
            "{}/organizations/oauth2/v2.0/{endpoint}",
            app.entra.authority
        );
        assert_eq!(flow[member], url);
    }
    let scope = format!("api://{API_CLIENT_ID}/access_as_user");
    assert!(flow["scopes"][&scope].is_string(), "{flow}");
    let page = app
        .send(Method::GET, "/docs/swagger-initializer.js", None, None)
        .await
        .body;
    for text in [
        SPA_CLIENT_ID,
        &scope,
        "\"usePkceWithAuthorizationCodeGrant\": true",
        "\"persistAuthorization\": true",
        "\"layout\": \"BaseLayout\"",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
}

#[tokio::test]
async fn docs_page_takes_a_token_without_spa_client_id() {
    let app = TestApp::start().await;
    let document = document(&app).await;
    let schemes = document["components"]["securitySchemes"]
        .as_object()
        .unwrap();
    assert_eq!(schemes.keys().collect::<Vec<_>>(), ["bearer"]);
    let page = app
        .send(Method::GET, "/docs/swagger-initializer.js", None, None)
        .await
        .body;
    assert!(!page.contains("initOAuth"), "{page}");
}

#[tokio::test]
async fn docs_page_policy_allows_only_self_and_authority() {
    let app = TestApp::start().await;
    let page = app.send(Method::GET, "/docs/", None, None).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(
        !page.body.contains("http://") && !page.body.contains("https://"),
        "{}",
        page.body
    );
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'self';"), "{policy}");
    assert!(!policy.contains("script-src"), "{policy}");
    assert!(
        policy.contains(&format!("connect-src 'self' {};", app.entra.authority)),
        "{policy}"
    );
}

#[tokio::test]
async fn docs_files_are_compressed_and_cached_by_content() {
    let app = TestApp::start().await;
    let page = app.send(Method::GET, "/docs/", None, None).await.body;
    let names = page
        .split(['"', '\''])
        .filter_map(|part| part.strip_prefix("./"));
    let names: Vec<_> = names.collect();
    assert!(names.contains(&"swagger-ui-bundle.js"), "{page}");
    for name in ["", "oauth2-redirect.html", "oauth2-redirect.js"]
        .iter()
        .chain(&names)
    {
        let request = || app.request(Method::GET, &format!("/docs/{name}"));
        let first = request().send().await.unwrap();
        assert_eq!(first.status(), StatusCode::OK, "{name}");
        assert_eq!(first.headers()["cache-control"], "no-cache");
        assert_eq!(first.headers()["x-content-type-options"], "nosniff");
        let content_type = first.headers()["content-type"].to_str().unwrap();
        let is_text = content_type.starts_with("text/");
        assert_eq!(is_text, content_type.ends_with("; charset=utf-8"), "{name}");
        assert!(
            is_text || name.contains("favicon"),
            "{name}: {content_type}"
        );
        if name.contains("bundle") || name.contains("preset") {
            assert_eq!(first.headers()["content-encoding"], "gzip", "{name}");
        }
        let tag = first.headers()["etag"].clone();
        let length = first.headers()["content-length"]
            .to_str()
            .unwrap()
            .to_owned();
        let bytes = first.bytes().await.unwrap();
        assert_eq!(length, bytes.len().to_string());
        let second = request().header("if-none-match", tag).send().await.unwrap();
        assert_eq!(second.status(), StatusCode::NOT_MODIFIED, "{name}");
    }
    let missing = app.send(Method::GET, "/docs/secret", None, None).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn docs_can_be_disabled() {
    let app = TestApp::start_with(&[("DOCS", "off")]).await;
    for path in ["/", "/openapi.json", "/docs", "/docs/", "/docs/index.css"] {
        let answer = app.send(Method::GET, path, None, None).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (StatusCode::NOT_FOUND, r#"{"detail":"Not Found"}"#)
        );
    }
}
