//! Startup, logging and shutdown of the binary.

#![expect(
    clippy::disallowed_methods,
    reason = "the duration of a shutdown is measured in real time"
)]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Output},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use axum::http::{Method, StatusCode};
use serde_json::Value;
use tenant_tasks::clock::SystemClock;

use crate::{
    suite::service::{Service, command, health},
    support::{
        app::{TestApp, answer, listen},
        entra::{KeysResponse, MockEntra},
        tasks::title_body,
        tokens::SigningKey,
        users::{ADMIN, API_CLIENT_ID, CONTOSO},
    },
};

/// Starts the binary with invalid settings.
fn start_with_invalid(settings: &[(&str, &str)]) -> (Output, String) {
    let (mut command, _directory) = command(settings);
    let output = command.output().unwrap();
    let message = String::from_utf8(output.stderr.clone()).unwrap();
    (output, message)
}

#[test]
fn start_without_settings_explains_what_to_set() {
    let (output, message) = start_with_invalid(&[]);
    assert!(!output.status.success());
    assert_eq!(message.lines().count(), 1, "{message}");
    for hint in [
        "AZURE_API_CLIENT_ID",
        "./setup.sh",
        "cargo run --example sandbox",
    ] {
        assert!(message.contains(hint), "{hint}: {message}");
    }
}

#[test]
fn invalid_setting_ends_startup_with_one_line() {
    let (output, message) = start_with_invalid(&[("AZURE_API_CLIENT_ID", "s3cret")]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        message,
        "tenant-tasks: AZURE_API_CLIENT_ID must be the GUID of the API's app registration\n"
    );
}

#[test]
fn occupied_port_ends_startup_with_an_error() {
    let occupied = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = occupied.local_addr().unwrap().port().to_string();
    let (output, message) = start_with_invalid(&[
        ("AZURE_API_CLIENT_ID", API_CLIENT_ID),
        ("AZURE_HOME_TENANT_ID", CONTOSO.id),
        ("PORT", &port),
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        message.contains(&format!("HOST and PORT: cannot listen on 127.0.0.1:{port}")),
        "{message}"
    );
}

#[test]
fn environment_overrides_the_env_file() {
    let (mut command, directory) = command(&[("PORT", "not a port")]);
    let file = format!(
        "AZURE_API_CLIENT_ID={API_CLIENT_ID}\nAZURE_HOME_TENANT_ID={}\nPORT=0\n",
        CONTOSO.id
    );
    std::fs::write(directory.path().join(".env"), file).unwrap();
    let message = String::from_utf8(command.output().unwrap().stderr).unwrap();
    assert_eq!(
        message,
        "tenant-tasks: PORT must be a whole number from 0 to 65535\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_fetched_and_retried_without_requests() {
    let entra = MockEntra::start(listen().await, Arc::new(SystemClock::new()));
    entra.set_keys_response(CONTOSO, KeysResponse::Status(500));
    let service = Service::start(&[("AZURE_AUTHORITY_HOST", &entra.authority)]);
    service.wait_for_line("failed to fetch signing keys; none are cached");
    let mut unusable = SigningKey::second().jwk();
    unusable["use"] = "enc".into();
    entra.publish(CONTOSO, &[SigningKey::first().jwk(), unusable]);
    entra.set_keys_response(CONTOSO, KeysResponse::Published);
    service.wait_for_line("fetched signing keys");
    service.wait_for_line("skipped a published key");
    // A key that is not cached causes a fetch.
    entra.set_keys_response(CONTOSO, KeysResponse::Status(500));
    let token = entra.v1(CONTOSO, ADMIN).signed_by(SigningKey::second());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/api/me", service.address);
    let answer = answer(client.get(url).bearer_auth(token.sign())).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    let line = service.wait_for_line("failed to fetch signing keys; using cached keys");
    let line: Value = serde_json::from_str(&line).unwrap();
    let usable_for = line["usable_for_s"].as_u64().unwrap();
    assert!((86_000..=86_400).contains(&usable_for), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_signal_lets_requests_in_flight_finish() {
    for signal in ["-TERM", "-INT"] {
        let entra = MockEntra::start(listen().await, Arc::new(SystemClock::new()));
        entra.set_keys_response(CONTOSO, KeysResponse::Delay(Duration::from_secs(1)));
        let service = Service::start(&[("AZURE_AUTHORITY_HOST", &entra.authority)]);
        let token = entra.v1(CONTOSO, ADMIN).sign();
        let (mut idle, mut busy) = (service.connect(), service.connect());
        // The request stays in flight for a second, while its keys are fetched.
        write!(
            busy,
            "GET /api/me HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
        )
        .unwrap();
        while entra.fetches(CONTOSO) == 0 {
            tokio::task::yield_now().await;
        }

        let started = Instant::now();
        service.signal(signal);
        service.wait_for_line("shutting down");
        assert_eq!(
            idle.read(&mut [0]).unwrap(),
            0,
            "{signal}: the idle connection is open"
        );
        let mut answer = String::new();
        busy.read_to_string(&mut answer).unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains("Ada Admin"),
            "{signal}: {answer}"
        );
        service.wait_for_line("stopped accepting connections");
        assert!(
            TcpStream::connect(&service.address).is_err(),
            "{signal}: a new connection was accepted"
        );
        let (status, _) = service.finish();
        assert!(status.success(), "{signal}: {status}");
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "{signal}: {:?}",
            started.elapsed()
        );
    }
}

/// A client may send a request before it notices the shutdown. Closing its connection without an answer would fail it.
#[test]
fn each_connection_serves_one_request_after_a_stop() {
    let service = Service::start(&[]);
    let mut idle = service.connect();
    assert!(!health(&mut idle).unwrap().contains("connection: close"));
    service.signal("-TERM");
    service.wait_for_line("shutting down");
    for mut stream in [idle, service.connect()] {
        let answer = health(&mut stream).unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"),
            "{answer}"
        );
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the connection is open");
    }
    assert!(service.finish().0.success());
}

#[test]
fn incomplete_request_does_not_delay_shutdown() {
    let service = Service::start(&[]);
    let mut half_sent = service.connect();
    half_sent
        .write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        .unwrap();
    // Connections are accepted in order: after an answer on a second one, the first has been accepted.
    let mut probe = service.connect();
    probe
        .write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    probe.read_to_string(&mut String::new()).unwrap();

    let started = Instant::now();
    service.signal("-TERM");
    let (status, _) = service.finish();
    assert!(status.success(), "{status}");
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn idle_connections_do_not_exhaust_open_files() {
    // 100 open files allow 36 connections, far fewer than MAX_CONNECTIONS.
    let service = Service::start_with_open_files(100, &[]);
    let mut idle = Vec::new();
    for number in 0..120 {
        let mut stream = service.connect();
        assert!(
            health(&mut stream).unwrap().starts_with("HTTP/1.1 200"),
            "connection {number}"
        );
        idle.push(stream);
    }
    service.signal("-TERM");
    let (_, log) = service.finish();
    assert!(
        !log.contains("cannot accept"),
        "the service ran out of open files: {log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_reader_gets_full_response_during_shutdown() {
    let entra = MockEntra::start(listen().await, Arc::new(SystemClock::new()));
    let service = Service::start(&[("AZURE_AUTHORITY_HOST", &entra.authority)]);
    let token = entra.v1(CONTOSO, ADMIN).sign();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/api/tasks", service.address);
    for _ in 0..4000 {
        let new = title_body(&"\u{1F4DD}".repeat(500)).to_string();
        let request = client
            .post(&url)
            .bearer_auth(&token)
            .header("content-type", "application/json");
        assert_eq!(answer(request.body(new)).await.status, StatusCode::OK);
    }
    let mut slow = service.connect();
    let head = format!("Host: x\r\nAuthorization: Bearer {token}\r\n");
    write!(slow, "GET /api/tasks HTTP/1.1\r\n{head}\r\n").unwrap();
    let mut read = vec![0; 1024];
    slow.read_exact(&mut read).unwrap();
    service.signal("-TERM");
    service.wait_for_line("shutting down");
    // Longer than idle connections stay open during a shutdown.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).unwrap();
    assert!(
        rest.ends_with(b"]\r\n0\r\n\r\n"),
        "the response ends after {} bytes",
        rest.len()
    );
    assert!(service.finish().0.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_user_names_are_never_logged() {
    let entra = MockEntra::start(listen().await, Arc::new(SystemClock::new()));
    let settings = [
        ("RUST_LOG", "trace"),
        ("AZURE_AUTHORITY_HOST", &entra.authority),
    ];
    let service = Service::start(&settings);
    let valid_token = entra.v1(CONTOSO, ADMIN).sign();
    let mut stream = service.connect();
    let head = format!("Host: x\r\nConnection: close\r\nAuthorization: Bearer {valid_token}\r\n");
    write!(stream, "GET /api/me HTTP/1.1\r\n{head}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("Ada Admin"), "{answer}");

    let token = "eyJzZWNyZXQiOiJ0b2tlbiJ9.eyJ0aWQiOiJzZWNyZXQifQ.c2VjcmV0";
    for request in [
        format!(
            "GET /api/me HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
        ),
        format!("GET /api/tasks/{token} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
        format!(
            "GET /api/tasks?access_token={token} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        ),
        format!(
            "GET /{token} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-Id: {token}\r\n\r\n"
        ),
    ] {
        let mut stream = service.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(!answer.contains("eyJ"), "{answer}");
    }
    service.signal("-TERM");
    let (_, log) = service.finish();
    assert!(log.lines().count() >= 5, "{log}");
    let signature = valid_token.rsplit_once('.').unwrap().1;
    for secret in ["eyJ", "c2VjcmV0", signature, "Ada Admin", "admin@contoso"] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
}

#[tokio::test]
async fn request_head_over_32_kib_is_rejected() {
    let app = TestApp::start().await;
    for (bytes, status) in [
        (24 * 1024, StatusCode::OK),
        (40 * 1024, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
    ] {
        let request = app
            .request(Method::GET, "/health")
            .header("x-large", "x".repeat(bytes));
        assert_eq!(answer(request).await.status, status);
    }
}

#[tokio::test]
async fn every_response_has_a_generated_request_id() {
    let app = TestApp::start().await;
    let mut ids = std::collections::HashSet::new();
    for path in ["/health", "/api/me", "/nowhere"] {
        let request = app
            .request(Method::GET, path)
            .header("x-request-id", "chosen by the client");
        let answer = answer(request).await;
        let id = answer
            .header("x-request-id")
            .expect("a request ID")
            .to_owned();
        assert_eq!(id.len(), 36, "{id}");
        assert!(ids.insert(id));
    }
}

#[tokio::test]
async fn body_that_never_arrives_gets_408() {
    let app = TestApp::start().await;
    let token = app.entra.v1(CONTOSO, ADMIN).sign();
    let mut stream = app.connect();
    let answer = tokio::task::spawn_blocking(move || {
        let head = format!(
            "POST /api/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let answer = answer.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(
        answer.ends_with(r#"{"detail":"The request took too long"}"#),
        "{answer}"
    );
    assert_eq!(
        app.send(Method::GET, "/health", None, None).await.status,
        StatusCode::OK
    );
}

/// Requests without a reader of standard error, more than the buffer of log lines and the pipe hold.
const UNREAD_REQUESTS: usize = 20_000;

#[test]
fn unread_log_drops_lines_and_blocks_nothing() {
    let free_port = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port().to_string()
    };
    let (port, metrics_port) = (free_port(), free_port());
    let metrics_addr = format!("127.0.0.1:{metrics_port}");
    let (mut command, _directory) = command(&[
        ("AZURE_API_CLIENT_ID", API_CLIENT_ID),
        ("AZURE_HOME_TENANT_ID", CONTOSO.id),
        ("AZURE_AUTHORITY_HOST", "http://127.0.0.1:9"),
        ("PORT", &port),
        ("METRICS_ADDR", &metrics_addr),
    ]);
    let mut process = command.spawn().unwrap();
    let connect = |address: &str| {
        let started = Instant::now();
        loop {
            match TcpStream::connect(address) {
                Ok(stream) => break stream,
                Err(error) => assert!(started.elapsed() < Duration::from_secs(20), "{error}"),
            }
            thread::sleep(Duration::from_millis(20));
        }
    };
    let mut stream = connect(&format!("127.0.0.1:{port}"));
    let mut reader = stream.try_clone().unwrap();
    let answers = thread::spawn(move || {
        let mut answers = String::new();
        reader.read_to_string(&mut answers).unwrap();
        answers.matches("HTTP/1.1 401").count()
    });
    let request = "GET /api/me HTTP/1.1\r\nHost: x\r\n\r\n";
    stream
        .write_all(request.repeat(UNREAD_REQUESTS - 1).as_bytes())
        .unwrap();
    let last = "GET /api/me HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(last.as_bytes()).unwrap();
    assert_eq!(answers.join().unwrap(), UNREAD_REQUESTS);

    let mut metrics = connect(&metrics_addr);
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    metrics.write_all(request.as_bytes()).unwrap();
    let mut page = String::new();
    metrics.read_to_string(&mut page).unwrap();
    let dropped = page
        .lines()
        .find_map(|line| line.strip_prefix("tenant_tasks_log_lines_dropped_total "));
    assert_ne!(dropped, Some("0"), "lines are dropped");

    let started = Instant::now();
    let signal = Command::new("kill")
        .arg(process.id().to_string())
        .status()
        .unwrap();
    assert!(signal.success());
    assert!(process.wait().unwrap().success());
    assert!(started.elapsed() < Duration::from_secs(5));
}
