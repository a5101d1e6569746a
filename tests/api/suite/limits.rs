//! Limits per client and per tenant.

use std::{
    future,
    io::{self, ErrorKind, Read, Write},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{Method, StatusCode},
    routing::get,
};
use tenant_tasks::server::{Connections, Limits, connections_for_open_files, serve};
use tokio::net::TcpSocket;

use crate::{
    suite::{metrics::series, service::health},
    support::{
        app::{TestApp, listen},
        tasks::{title, title_body},
        users::{ADMIN, CONTOSO, EDITOR, FABRIKAM, READER, Tenant, User},
    },
};

const CONTOSO_EDITOR: (Tenant, User) = (CONTOSO, EDITOR);

/// How many connections were closed for this reason.
async fn closed(app: &TestApp, reason: &str) -> Option<f64> {
    let name = format!(r#"tenant_tasks_closed_connections_total{{reason="{reason}"}}"#);
    series(app).await.get(&name).copied()
}

/// Ten requests. Their answers, over a megabyte each, exceed the buffers of two sockets.
async fn requests_for_long_lists(app: &TestApp) -> String {
    for _ in 0..2000 {
        app.create(CONTOSO_EDITOR, &"x".repeat(500)).await;
    }
    let token = app.entra.v1(CONTOSO, EDITOR).sign();
    format!("GET /api/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n")
        .repeat(10)
}

#[tokio::test]
async fn creation_beyond_the_tenants_task_limit_is_rejected() {
    let app = TestApp::start_with(&[("MAX_TASKS_PER_TENANT", "2")]).await;
    for title in ["one", "two"] {
        app.create(CONTOSO_EDITOR, title).await;
    }
    let body = title_body("three");
    let answer = app
        .send_as((CONTOSO, ADMIN), Method::POST, "/api/tasks", Some(body))
        .await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert_eq!(
        answer.detail(),
        "Your organization has reached its limit of 2 tasks. Delete a task before creating another."
    );

    app.create((FABRIKAM, EDITOR), "another tenant's").await;
    app.send_as((CONTOSO, ADMIN), Method::DELETE, "/api/tasks/1", None)
        .await;
    assert_eq!(
        app.create(CONTOSO_EDITOR, "four").await,
        3,
        "an ID is never reused"
    );
}

#[tokio::test]
async fn quota_is_announced_from_80_percent_of_the_limit() {
    let app = TestApp::start_with(&[("MAX_TASKS_PER_TENANT", "5")]).await;
    for quota in [
        None,
        None,
        None,
        Some("used=4, max=5"),
        Some("used=5, max=5"),
    ] {
        let body = title_body("x");
        let answer = app
            .send_as(CONTOSO_EDITOR, Method::POST, "/api/tasks", Some(body))
            .await;
        assert_eq!(answer.header("task-quota"), quota);
    }
}

#[tokio::test]
async fn rate_limit_applies_to_each_tenant_separately() {
    let app = TestApp::start_with(&[("TENANT_RATE_LIMIT", "5")]).await;
    let list = async |caller| app.send_as(caller, Method::GET, "/api/tasks", None).await;
    for user in [ADMIN, EDITOR, READER, ADMIN, EDITOR] {
        assert_eq!(list((CONTOSO, user)).await.status, StatusCode::OK);
    }
    let rejected = list((CONTOSO, READER)).await;
    assert_eq!(rejected.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(rejected.header("retry-after"), Some("1"));
    assert_eq!(list((FABRIKAM, EDITOR)).await.status, StatusCode::OK);

    app.clock.step(Duration::from_millis(200));
    assert_eq!(
        list((CONTOSO, READER)).await.status,
        StatusCode::OK,
        "one more request is allowed"
    );
    assert_eq!(
        list((CONTOSO, READER)).await.status,
        StatusCode::TOO_MANY_REQUESTS
    );
    app.clock.step(Duration::from_secs(1));
    for _ in 0..5 {
        assert_eq!(list((CONTOSO, READER)).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn rate_limit_counts_rejected_verified_tokens() {
    let app = TestApp::start_with(&[("TENANT_RATE_LIMIT", "5")]).await;
    let token = app
        .entra
        .v1(CONTOSO, EDITOR)
        .with("scp", "User.Read")
        .sign();
    let forged = format!("{}{}", &token[..token.len() - 20], "A".repeat(20));
    for _ in 0..10 {
        // Its tenant is not verified.
        assert_eq!(app.me(&forged).await.status, StatusCode::UNAUTHORIZED);
    }
    for _ in 0..5 {
        assert_eq!(app.me(&token).await.status, StatusCode::FORBIDDEN);
    }
    assert_eq!(app.me(&token).await.status, StatusCode::TOO_MANY_REQUESTS);
    let valid = app.entra.v1(CONTOSO, EDITOR).sign();
    assert_eq!(app.me(&valid).await.status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn no_rate_limit_applies_by_default() {
    let app = TestApp::start().await;
    for _ in 0..200 {
        assert_eq!(
            app.send_as((CONTOSO, READER), Method::GET, "/api/tasks", None)
                .await
                .status,
            StatusCode::OK
        );
    }
}

#[tokio::test]
async fn list_of_any_length_is_complete_and_in_order() {
    let app = TestApp::start().await;
    let mut created = 0;
    for tasks in [0, 1, 255, 256, 257, 600] {
        while created < tasks {
            created += 1;
            app.create(CONTOSO_EDITOR, &created.to_string()).await;
        }
        let expected: Vec<_> = (1..=tasks).map(|number| number.to_string()).collect();
        assert_eq!(app.titles(CONTOSO_EDITOR).await, expected);
        assert_eq!(app.titles((CONTOSO, ADMIN)).await, expected);
    }
    let after = app
        .send_as((CONTOSO, ADMIN), Method::GET, "/api/tasks?after=10", None)
        .await
        .json();
    assert_eq!(after.as_array().unwrap().len(), 590);
    let answer = app
        .send_as((CONTOSO, ADMIN), Method::GET, "/api/tasks?limit=500", None)
        .await;
    assert_eq!(answer.json().as_array().unwrap().len(), 500);
    assert_eq!(
        answer.header("link"),
        Some(r#"<?limit=500&after=500>; rel="next""#)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_without_a_complete_request_is_closed() {
    let app =
        TestApp::start_within(&[], |limits| limits.first_head = Duration::from_millis(300)).await;
    for beginning in ["", "G", "GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: "] {
        let mut stream = app.connect();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        stream.write_all(beginning.as_bytes()).unwrap();
        match stream.read(&mut [0]) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("{beginning:?}: {other:?}"),
        }
    }
    assert_eq!(closed(&app, "late_head").await, Some(3.0));
    // After its first request, a connection may pause for longer.
    let mut idle = app.connect();
    assert!(health(&mut idle).unwrap().starts_with("HTTP/1.1 200"));
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(health(&mut idle).unwrap().starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_idle_connection_is_closed_at_connection_limit() {
    let app = TestApp::start_with(&[("MAX_CONNECTIONS", "3")]).await;
    let mut idle_connections: Vec<_> = (0..3).map(|_| app.connect()).collect();
    for stream in &mut idle_connections {
        assert!(health(stream).unwrap().starts_with("HTTP/1.1 200"));
    }
    let mut new_connection = app.connect();
    assert!(
        health(&mut new_connection)
            .unwrap()
            .starts_with("HTTP/1.1 200")
    );
    let answers = idle_connections
        .iter_mut()
        .filter_map(|stream| health(stream).ok());
    assert_eq!(
        answers
            .filter(|answer| answer.starts_with("HTTP/1.1 200"))
            .count(),
        2
    );
    assert_eq!(closed(&app, "connection_limit").await, Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_stay_open_without_new_ones() {
    let app = TestApp::start_with(&[("MAX_CONNECTIONS", "3")]).await;
    let mut idle_connections: Vec<_> = (0..3).map(|_| app.connect()).collect();
    for round in 0..2 {
        for stream in &mut idle_connections {
            assert!(
                health(stream).unwrap().starts_with("HTTP/1.1 200"),
                "round {round}"
            );
        }
        tokio::time::sleep(Duration::from_millis(1500)).await;
    }
}

/// The answers exceed the socket buffers, and the client reads 64 bytes every 50 ms.
#[tokio::test(flavor = "multi_thread")]
async fn slow_reader_is_evicted_at_connection_limit() {
    let short_timeout = |limits: &mut Limits| limits.busy = Duration::from_secs(2);
    let app = TestApp::start_within(&[("MAX_CONNECTIONS", "3")], short_timeout).await;
    let requests = requests_for_long_lists(&app).await;
    let address: SocketAddr = app.address.trim_start_matches("http://").parse().unwrap();
    for _ in 0..3 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(address).await.unwrap().into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.write_all(requests.as_bytes()).unwrap();
        tokio::task::spawn_blocking(move || {
            for _ in 0..600 {
                std::thread::sleep(Duration::from_millis(50));
                if !matches!(stream.read(&mut [0; 64]), Ok(1..)) {
                    return;
                }
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut new_connection = app.connect();
    let answer = tokio::task::spawn_blocking(move || health(&mut new_connection))
        .await
        .unwrap();
    assert!(answer.unwrap().starts_with("HTTP/1.1 200"));
}

#[test]
fn connection_limit_does_not_exceed_open_file_limit() {
    assert_eq!(connections_for_open_files(10), 10);
    assert!(connections_for_open_files(1 << 40) < 1 << 40);
}

#[tokio::test]
async fn page_of_longest_titles_is_complete() {
    let app = TestApp::start().await;
    let longest = "\u{1F4DD}".repeat(500);
    for _ in 0..70 {
        app.create(CONTOSO_EDITOR, &longest).await;
    }
    for path in ["/api/tasks", "/api/tasks?limit=60"] {
        let answer = app.send_as(CONTOSO_EDITOR, Method::GET, path, None).await;
        assert!(
            answer.body.len() > 120_000,
            "{} bytes fit into one chunk",
            answer.body.len()
        );
        let tasks = answer.json();
        assert!(
            tasks
                .as_array()
                .unwrap()
                .iter()
                .all(|task| title(task) == longest)
        );
        assert_eq!(
            tasks.as_array().unwrap().len(),
            if path.contains("limit") { 60 } else { 70 }
        );
        let next = r#"<?limit=60&after=60>; rel="next""#;
        assert_eq!(
            answer.header("link"),
            path.contains("limit").then_some(next)
        );
    }
}

/// A list has a time limit of two minutes, also for a client that never stops reading.
#[tokio::test]
async fn late_end_of_a_response_counts_as_slow_reader() {
    let body = async || {
        let late = io::Error::from(ErrorKind::TimedOut);
        Body::from_stream(futures_util::stream::iter([Ok("x"), Err(late)]))
    };
    let app = Router::new().route("/", get(body));
    let listener = listen().await;
    let url = format!("http://{}", listener.local_addr().unwrap());
    let connections = Arc::new(Connections::default());
    let shared = Arc::clone(&connections);
    tokio::spawn(serve(
        listener,
        app,
        Limits::new(2),
        shared,
        future::pending(),
    ));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let response = async { client.get(url).send().await?.bytes().await };
    assert!(response.await.is_err());
    let counts = connections.closed.counts();
    let slow_readers = counts.get_or_create(&[("reason", "slow_reader")]).get();
    assert_eq!(slow_readers, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_does_not_read_is_disconnected() {
    let app = TestApp::start_within(&[], |limits| limits.write = Duration::from_millis(300)).await;
    let requests = requests_for_long_lists(&app).await;
    let mut stream = app.connect();
    stream.write_all(requests.as_bytes()).unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut read = 0;
    let mut buffer = vec![0; 1 << 20];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        read += length;
    }
    assert!(
        read < 10 * 1_200_000,
        "the client received all {read} bytes"
    );
    assert_eq!(closed(&app, "slow_reader").await, Some(1.0));
}
