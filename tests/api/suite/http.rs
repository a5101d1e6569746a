//! HTTP as clients and proxies send it, byte by byte.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    thread,
    time::Duration,
};

use axum::http::{Method, StatusCode};
use serde_json::json;

use crate::support::{
    app::{TestApp, answer},
    tasks::{title, title_body},
    users::{ADMIN, CONTOSO, EDITOR},
};

/// Sends these parts, one after the other, and reads to the end of the connection.
fn exchange(app: &TestApp, parts: &[&[u8]]) -> String {
    let mut stream = app.connect();
    for part in parts {
        stream.write_all(part).unwrap();
        thread::sleep(Duration::from_millis(20));
    }
    read(&mut stream)
}

fn read(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn request_has_exactly_one_host() {
    let app = TestApp::start().await;
    for (version, hosts, status) in [
        ("1.1", "Host: a\r\n", "200"),
        ("1.1", "", "400"),
        ("1.1", "Host: a\r\nHost: a\r\n", "400"),
        ("1.1", "Host: a\r\nhost: b\r\n", "400"),
        ("1.0", "", "200"),
        ("1.0", "Host: a\r\nHost: b\r\n", "400"),
    ] {
        let head = format!("GET /health HTTP/{version}\r\n{hosts}Connection: close\r\n\r\n");
        let answer = exchange(&app, &[head.as_bytes()]);
        let expected = format!("HTTP/{version} {status}");
        assert!(answer.starts_with(&expected), "{head}{answer}");
        if status == "400" {
            let body = r#"{"detail":"Send exactly one Host header"}"#;
            assert!(answer.ends_with(body), "{answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_closes_its_sending_side_is_answered() {
    let app = TestApp::start().await;
    let token = app.entra.v1(CONTOSO, ADMIN).sign();
    // The signing keys are fetched first, so that the client closes before the response.
    let mut stream = app.connect();
    let head = format!("GET /api/me HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let answer = read(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("Ada Admin"), "{answer}");
}

#[tokio::test]
async fn trailing_slash_redirects_to_the_path_without() {
    let app = TestApp::start().await;
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    for (path, location) in [
        ("/health/", "../health"),
        ("/api/me/", "../me"),
        ("/api/tasks/?limit=1&after=2", "../tasks?limit=1&after=2"),
        ("/api/tasks/7/", "../7"),
        ("/api/tasks//", "../../tasks"),
        ("/docs", "docs/"),
        ("/", "docs/"),
    ] {
        let answer = answer(client.get(format!("{}{path}", app.address))).await;
        assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT, "{path}");
        assert_eq!(answer.header("location"), Some(location));
    }
    for path in ["/nothing/", "/api/", "/api/tasks/7/8/"] {
        let answer = app.send(Method::GET, path, None, None).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
    }
    // A client that follows the redirect sends the body again.
    let token = app.entra.v1(CONTOSO, EDITOR).sign();
    let body = Some(title_body("one"));
    let created = app
        .send(Method::POST, "/api/tasks/", Some(&token), body)
        .await;
    assert_eq!(title(&created.json()), "one");
}

#[tokio::test]
async fn json_media_types_are_accepted_with_parameters() {
    let app = TestApp::start().await;
    let token = app.entra.v1(CONTOSO, EDITOR).sign();
    for (content_type, status) in [
        ("application/json", 200),
        ("application/json;charset=utf-8", 200),
        ("application/json ;charset=utf-8", 200),
        ("APPLICATION/JSON ; charset=\"utf-8\"", 200),
        ("application/problem+json", 200),
        ("application/jsonp", 415),
        ("text/json", 415),
        ("application/x-www-form-urlencoded", 415),
        ("", 415),
    ] {
        let request = app
            .request(Method::POST, "/api/tasks")
            .bearer_auth(&token)
            .header("content-type", content_type)
            .body(title_body("one").to_string());
        assert_eq!(answer(request).await.status, status, "{content_type}");
    }
}

#[tokio::test]
async fn parameter_given_twice_is_one_error() {
    let app = TestApp::start().await;
    let token = app.entra.v1(CONTOSO, EDITOR).sign();
    for (query, errors) in [
        ("limit=1&limit=2", &["limit"][..]),
        ("limit=x&limit=x&limit=x", &["limit"]),
        ("after=1&limit=0&after=1", &["limit", "after"]),
    ] {
        let path = format!("/api/tasks?{query}");
        let answer = app.send(Method::GET, &path, Some(&token), None).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
        let names: Vec<_> = errors.iter().map(|name| json!(["query", name])).collect();
        let body = answer.json();
        let found = body["errors"].as_array().unwrap().iter();
        let found: Vec<_> = found.map(|error| error["loc"].clone()).collect();
        assert_eq!(found, names, "{query}");
    }
    let path = format!("/api/tasks?{}", "limit=x&".repeat(2000));
    let answer = app.send(Method::GET, &path, Some(&token), None).await;
    assert!(answer.body.len() < 500, "{} bytes", answer.body.len());
}

fn create_head(app: &TestApp, length: usize) -> String {
    let token = app.entra.v1(CONTOSO, EDITOR).sign();
    format!(
        "POST /api/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn announced_oversize_is_rejected_before_it_is_read() {
    let app = TestApp::start().await;
    let mut stream = app.connect();
    let head = create_head(&app, 64 * 1024 + 1);
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = vec![0; 12];
    // The client has not sent any of the body, and does not end it either.
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, b"HTTP/1.1 413");
}

/// Sends `data` after `head` for as long as the service reads, then reads the answer.
fn send_all_then_read(app: &TestApp, head: &str, data: &[u8]) -> String {
    let mut stream = app.connect();
    stream.write_all(head.as_bytes()).unwrap();
    for part in data.chunks(64 * 1024) {
        match stream.write_all(part) {
            Ok(()) => thread::sleep(Duration::from_millis(10)),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
            Err(error) => panic!("{error}"),
        }
    }
    stream.shutdown(Shutdown::Write).unwrap();
    read(&mut stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn sending_client_can_read_its_rejection() {
    let app = TestApp::start().await;
    let data = vec![b'x'; 4 * 1024 * 1024];
    let answer = send_all_then_read(&app, &create_head(&app, data.len()), &data);
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let chunked = create_head(&app, 0).replace("Content-Length: 0", "Transfer-Encoding: chunked");
    let chunk = format!("{:x}\r\n{}\r\n", 100_000, "x".repeat(100_000)).repeat(20);
    let answer = send_all_then_read(&app, &chunked, chunk.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let answer = send_all_then_read(&app, "GET /health HTTP/1.1\r\nHost: x\r\nX-Large: ", &data);
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let anonymous = "POST /api/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 4194304\r\n\r\n";
    let answer = send_all_then_read(&app, anonymous, &data);
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn head_limit_does_not_depend_on_segments() {
    let app = TestApp::start().await;
    for (bytes, status) in [(31 * 1024, "200"), (33 * 1024, "431"), (60 * 1024, "431")] {
        let value = "x".repeat(bytes);
        let head =
            format!("GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: {value}\r\n\r\n");
        let head = head.as_bytes();
        for parts in [
            vec![head],
            head.chunks(8 * 1024).collect(),
            vec![&head[..20_000], &head[20_000..]],
        ] {
            let answer = exchange(&app, &parts);
            let expected = format!("HTTP/1.1 {status}");
            assert!(answer.starts_with(&expected), "{bytes}: {answer}");
        }
    }
    for (lines, status) in [(97, "200"), (99, "431")] {
        let lines = "X: y\r\n".repeat(lines);
        let head = format!("GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}\r\n");
        let answer = exchange(&app, &[head.as_bytes()]);
        let expected = format!("HTTP/1.1 {status}");
        assert!(answer.starts_with(&expected), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn body_with_an_invalid_chunk_is_an_incomplete_body() {
    let app = TestApp::start().await;
    let head = create_head(&app, 0).replace("Content-Length: 0", "Transfer-Encoding: chunked");
    let answer = exchange(&app, &[head.as_bytes(), b"9\r\n{\"title\":\r\nno size\r\n"]);
    assert!(answer.starts_with("HTTP/1.1 422"), "{answer}");
    assert!(answer.contains("body_incomplete"), "{answer}");
}

/// A proxy and the service may disagree about the end of a message with both headers (RFC 9112,
/// section 6.1).
#[tokio::test(flavor = "multi_thread")]
async fn content_length_with_chunks_ends_the_connection() {
    let app = TestApp::start().await;
    let hidden = "GET /ready HTTP/1.1\r\nHost: x\r\n\r\n";
    let message = format!(
        "GET /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: {}\r\n\r\n\
         0\r\n\r\n{hidden}",
        5 + hidden.len()
    );
    let answer = exchange(&app, &[message.as_bytes()]);
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}

#[tokio::test]
async fn no_response_may_be_stored_or_sniffed() {
    let app = TestApp::start().await;
    let token = app.entra.v1(CONTOSO, ADMIN).sign();
    for (method, path, token) in [
        (Method::GET, "/api/me", Some(&*token)),
        (Method::GET, "/api/tasks", Some(&*token)),
        (Method::POST, "/api/tasks", Some(&*token)),
        (Method::PUT, "/api/tasks", Some(&*token)),
        (Method::GET, "/api/me", None),
        (Method::GET, "/health", None),
        (Method::GET, "/nowhere", None),
        (Method::GET, "/openapi.json", None),
    ] {
        let answer = app.send(method.clone(), path, token, None).await;
        assert_eq!(
            answer.header("cache-control"),
            Some("no-store"),
            "{method} {path}"
        );
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
}
