//! Connections: which are closed, what is rejected before it is a request, and the shutdown.

#![expect(
    clippy::disallowed_methods,
    reason = "the time of connects and of a shutdown is measured in real time"
)]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{net::TcpSocket, task::JoinSet, time::sleep};

use crate::{
    suite::service::{Service, health},
    support::app::{TestApp, answer},
};

fn is_open(stream: &mut TcpStream) -> bool {
    health(stream).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_clients_are_evicted_before_idle_ones() {
    let app = TestApp::start_with(&[("MAX_CONNECTIONS", "2")]).await;
    let (mut idle, mut rejected) = (app.connect(), app.connect());
    assert!(is_open(&mut idle));
    rejected
        .write_all(b"GET /api/me HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    assert!(rejected.read(&mut [0; 4096]).unwrap() > 0);
    assert!(is_open(&mut app.connect()));
    assert!(is_open(&mut idle), "the idle connection was closed");
    assert!(!is_open(&mut rejected), "the rejected connection is open");
}

/// Clients that take all places and do not give them back.
async fn attack(app: &TestApp, request: &'static [u8], sockets: usize) -> JoinSet<()> {
    let address: SocketAddr = app.address.trim_start_matches("http://").parse().unwrap();
    let mut clients = JoinSet::new();
    for _ in 0..sockets {
        clients.spawn(async move {
            // Until the test ends.
            loop {
                let socket = TcpSocket::new_v4().unwrap();
                socket.set_recv_buffer_size(4096).unwrap();
                if let Ok(mut stream) = socket.connect(address).await {
                    let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, request).await;
                    // Completes when the service closes the connection.
                    let closed = stream.ready(tokio::io::Interest::ERROR);
                    let _ = tokio::time::timeout(Duration::from_secs(1), closed).await;
                }
            }
        });
    }
    sleep(Duration::from_millis(300)).await;
    clients
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_served_beside_an_attack_at_the_limit() {
    for (name, request) in [
        ("send nothing", &b""[..]),
        (
            "send half a head",
            b"GET /api/me HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        ),
        (
            "are rejected, then send half a head",
            b"GET /api/me HTTP/1.1\r\nHost: x\r\n\r\nGET /",
        ),
        (
            "do not read",
            b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n",
        ),
    ] {
        let app = TestApp::start_with(&[("MAX_CONNECTIONS", "300")]).await;
        let mut kept = app.connect();
        assert!(is_open(&mut kept));
        let _attack = attack(&app, request, 600).await;
        let mut times = Vec::new();
        for _ in 0..20 {
            let started = Instant::now();
            // On a busy machine a client may be evicted before its request is read. It connects again.
            while !tokio::task::block_in_place(|| is_open(&mut app.connect())) {
                let waited = started.elapsed();
                assert!(waited < Duration::from_secs(5), "{name}: a new client");
            }
            times.push(started.elapsed());
            let is_served = tokio::task::block_in_place(|| is_open(&mut kept));
            assert!(is_served, "{name}: the client that keeps its connection");
            sleep(Duration::from_millis(100)).await;
        }
        times.sort();
        let (median, slowest) = (times[10], times[19]);
        println!("600 clients {name}: new clients p50 {median:?}, slowest {slowest:?}");
        assert!(median < Duration::from_millis(800), "{median:?}");
        assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn input_that_is_not_a_request_is_counted_and_logged() {
    let service = Service::start(&[("METRICS_ADDR", "127.0.0.1:0")]);
    let large = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(40_000));
    for (bytes, input) in [
        (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], "tls"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http2"),
        (
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\n\r\n",
            "proxy_protocol",
        ),
        (b"\r\n\r\n\0\r\nQUIT\n!\x11\0\x0c", "proxy_protocol"),
        (b"GET /a b HTTP/1.1\r\n\r\n", "malformed"),
        (large.as_bytes(), "head_too_large"),
    ] {
        let mut stream = service.connect();
        stream.write_all(bytes).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let expected = match input {
            // The client expects frames.
            "http2" => "",
            "head_too_large" => "HTTP/1.1 431",
            _ => "HTTP/1.1 400",
        };
        assert!(answer.starts_with(expected), "{input}: {answer}");
        let line = tokio::task::block_in_place(|| service.wait_for_line("rejected input"));
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&line["input"], &line["level"]),
            (&input.into(), &"INFO".into())
        );
        // Lines have a minimum distance of one second.
        sleep(Duration::from_millis(1050)).await;
    }
    for _ in 0..20 {
        service.connect().write_all(b"\0\0\r\n\r\n").unwrap();
    }
    let metrics = service.metrics_address.as_ref().unwrap();
    let count = r#"tenant_tasks_rejected_input_total{input="malformed"} 21"#;
    let started = Instant::now();
    loop {
        let page = answer(reqwest::Client::new().get(format!("http://{metrics}/metrics"))).await;
        if page.body.contains(count) {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(10), "{}", page.body);
    }
    service.signal("-TERM");
    let (_, log) = tokio::task::block_in_place(|| service.finish());
    let lines = log.matches("rejected input").count();
    assert!(lines <= 2, "{lines} lines for 20 connections");
}

#[test]
fn new_connections_are_served_for_a_second_after_stop() {
    let service = Service::start(&[]);
    // No connection is open.
    service.signal("-TERM");
    service.wait_for_line("shutting down");
    for _ in 0..4 {
        let mut stream = service.connect();
        let answer = health(&mut stream).unwrap();
        assert!(answer.contains("connection: close"), "{answer}");
        thread::sleep(Duration::from_millis(200));
    }
    assert!(service.finish().0.success());
}

#[test]
fn clients_that_do_not_let_go_do_not_delay_a_shutdown() {
    let service = Service::start(&[]);
    // 50 answers of over 100 KB each, and nobody reads them.
    let request = "GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n".repeat(50);
    let mut clients: Vec<_> = (0..3).map(|_| service.connect()).collect();
    for client in &mut clients {
        client.write_all(request.as_bytes()).unwrap();
    }
    thread::sleep(Duration::from_millis(300));
    let started = Instant::now();
    service.signal("-TERM");
    let (status, log) = service.finish();
    let elapsed = started.elapsed();
    assert!(status.success());
    assert!(elapsed < Duration::from_secs(9), "{elapsed:?}");
    assert!(log.contains("some connections were still open"), "{log}");
}

/// The system completes connects while the process is stopped, up to the backlog.
#[tokio::test(flavor = "multi_thread")]
async fn burst_of_connects_does_not_wait_for_the_service() {
    let service = Service::start(&[]);
    service.signal("-STOP");
    let address: SocketAddr = service.address.parse().unwrap();
    let started = Instant::now();
    let mut connects = JoinSet::new();
    for _ in 0..1000 {
        connects.spawn(tokio::net::TcpStream::connect(address));
    }
    let streams: Vec<_> = connects
        .join_all()
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let elapsed = started.elapsed();
    service.signal("-CONT");
    assert!(elapsed < Duration::from_millis(900), "{elapsed:?}");
    assert_eq!(streams.len(), 1000);
}

#[test]
fn probes_are_logged_at_debug_level() {
    let service = Service::start(&[("RUST_LOG", "debug")]);
    for path in ["/health", "/ready"] {
        let mut stream = service.connect();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        stream.read_to_string(&mut String::new()).unwrap();
        let line = service.wait_for_line(&format!(r#""route":"{path}""#));
        // No keys are cached: that is worth a warning.
        let level = if path == "/ready" { "WARN" } else { "DEBUG" };
        assert!(line.contains(&format!(r#""level":"{level}""#)), "{line}");
    }
}
