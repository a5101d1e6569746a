//! The binary as an operator meets it: starting, logging, stopping.

#![expect(
    clippy::disallowed_methods,
    reason = "how long a stop takes is measured in real time"
)]

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Output,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::{Method, StatusCode};
use tenant_tasks::clock::SystemClock;

use crate::{
    service::{Service, command, health},
    support::{
        app::{TestApp, answer, listen},
        entra::{KeysResponse, MockEntra},
        users::{ADMIN, API_CLIENT_ID, CONTOSO},
    },
};

/// Starts the binary with settings it should refuse.
fn refused(settings: &[(&str, &str)]) -> (Output, String) {
    let (mut command, _directory) = command(settings);
    let output = command.output().unwrap();
    let message = String::from_utf8(output.stderr.clone()).unwrap();
    (output, message)
}

#[test]
fn started_with_nothing_set_it_says_what_to_do() {
    let (output, message) = refused(&[]);
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
fn a_wrong_setting_ends_the_start_with_one_sentence() {
    let (output, message) = refused(&[("AZURE_API_CLIENT_ID", "s3cret")]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        message,
        "tenant-tasks: AZURE_API_CLIENT_ID must be the GUID of the API's app registration\n"
    );
}

#[test]
fn a_port_that_is_taken_ends_the_start_with_one_sentence() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (output, message) = refused(&[
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
fn settings_are_read_from_a_file_too_and_the_environment_wins() {
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
async fn on_a_stop_signal_a_request_in_flight_is_finished_and_the_exit_is_clean() {
    for signal in ["-TERM", "-INT"] {
        let entra = MockEntra::start(listen().await, Arc::new(SystemClock::new()));
        entra.set_keys_response(CONTOSO, KeysResponse::Delay(Duration::from_secs(1)));
        let service = Service::start(&[("AZURE_AUTHORITY_HOST", &entra.authority)]);
        let token = entra.v1(CONTOSO, ADMIN).sign();
        let (mut idle, mut busy) = (service.connect(), service.connect());
        // In flight: its keys are being fetched, and that takes a second.
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
        service.wait_for_line("stopping");
        assert_eq!(
            idle.read(&mut [0]).unwrap(),
            0,
            "{signal}: the idle connection is closed"
        );
        let mut answer = String::new();
        busy.read_to_string(&mut answer).unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains("Ada Admin"),
            "{signal}: {answer}"
        );
        service.wait_for_line("no new connections");
        assert!(
            TcpStream::connect(&service.address).is_err(),
            "{signal}: no new connection"
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

/// A request that is on its way when the connection it comes by is closed would fail.
#[test]
fn just_after_a_stop_signal_one_more_request_is_answered_on_each_connection() {
    let service = Service::start(&[]);
    let mut kept = service.connect();
    assert!(!health(&mut kept).unwrap().contains("connection: close"));
    service.signal("-TERM");
    service.wait_for_line("stopping");
    for mut stream in [kept, service.connect()] {
        let answer = health(&mut stream).unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"),
            "{answer}"
        );
        assert_eq!(
            stream.read(&mut [0]).unwrap(),
            0,
            "its connection is closed"
        );
    }
    assert!(service.finish().0.success());
}

#[test]
fn a_half_sent_request_does_not_delay_a_stop() {
    let service = Service::start(&[]);
    let mut half_sent = service.connect();
    half_sent
        .write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        .unwrap();
    // An answer on another connection proves that this one has been accepted before it.
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
fn with_few_open_files_strangers_who_wait_do_not_keep_others_out() {
    // A hundred files leave room for 36 connections, far fewer than MAX_CONNECTIONS.
    let service = Service::start_with_open_files(100, &[]);
    let mut waiting = Vec::new();
    for number in 0..120 {
        let mut stream = service.connect();
        assert!(
            health(&mut stream).unwrap().starts_with("HTTP/1.1 200"),
            "connection {number}"
        );
        waiting.push(stream);
    }
    service.signal("-TERM");
    let (_, log) = service.finish();
    assert!(!log.contains("cannot accept"), "it ran out of files: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_read_slowly_is_finished_after_a_stop() {
    let entra = MockEntra::start(listen().await, Arc::new(SystemClock::new()));
    let service = Service::start(&[("AZURE_AUTHORITY_HOST", &entra.authority)]);
    let token = entra.v1(CONTOSO, ADMIN).sign();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/api/tasks", service.address);
    for _ in 0..4000 {
        let new = serde_json::json!({ "title": "\u{1F4DD}".repeat(500) }).to_string();
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
    service.wait_for_line("stopping");
    // Longer than an idle connection would be given.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).unwrap();
    assert!(
        rest.ends_with(b"]\r\n0\r\n\r\n"),
        "{} bytes, and not the end",
        rest.len()
    );
    assert!(service.finish().0.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_a_token_nor_a_persons_name_ever_reaches_the_log() {
    let entra = MockEntra::start(listen().await, Arc::new(SystemClock::new()));
    let settings = [
        ("RUST_LOG", "trace"),
        ("AZURE_AUTHORITY_HOST", &entra.authority),
    ];
    let service = Service::start(&settings);
    let good = entra.v1(CONTOSO, ADMIN).sign();
    let mut stream = service.connect();
    let head = format!("Host: x\r\nConnection: close\r\nAuthorization: Bearer {good}\r\n");
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
    let signature = good.rsplit_once('.').unwrap().1;
    for secret in ["eyJ", "c2VjcmV0", signature, "Ada Admin", "admin@contoso"] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
}

#[tokio::test]
async fn a_head_of_more_than_32_kib_is_refused() {
    let app = TestApp::start().await;
    for (bytes, status) in [
        (24 * 1024, StatusCode::OK),
        (40 * 1024, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
    ] {
        let request = app
            .request(Method::GET, "/health")
            .header("x-fat", "f".repeat(bytes));
        assert_eq!(answer(request).await.status, status);
    }
}

#[tokio::test]
async fn every_answer_carries_a_request_id_of_our_own() {
    let app = TestApp::start().await;
    let mut seen = std::collections::HashSet::new();
    for path in ["/health", "/api/me", "/nowhere"] {
        let request = app
            .request(Method::GET, path)
            .header("x-request-id", "chosen by the caller");
        let answer = answer(request).await;
        let id = answer
            .header("x-request-id")
            .expect("a request id")
            .to_owned();
        assert_eq!(id.len(), 36, "{id}");
        assert!(seen.insert(id));
    }
}

#[tokio::test]
async fn a_body_that_never_arrives_is_answered_in_time() {
    let app = TestApp::start().await;
    let token = app.entra.v1(CONTOSO, ADMIN).sign();
    let address = app.address.trim_start_matches("http://").to_owned();
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
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
