//! What one client, and one tenant, may take of the service.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use axum::http::{Method, StatusCode};
use serde_json::json;
use tenant_tasks::server::{Limits, connections_for_open_files};
use tokio::net::TcpSocket;

use crate::{
    service::health,
    support::{
        app::TestApp,
        users::{ADMIN, CONTOSO, EDITOR, FABRIKAM, READER, Tenant, User},
    },
};

const EDITOR_OF_CONTOSO: (Tenant, User) = (CONTOSO, EDITOR);

fn connect(app: &TestApp) -> TcpStream {
    let stream = TcpStream::connect(app.address.trim_start_matches("http://")).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream
}

/// Requests whose answers, of over a megabyte each, are more than the buffers of two sockets hold.
async fn ten_long_lists(app: &TestApp) -> String {
    for _ in 0..2000 {
        app.create(EDITOR_OF_CONTOSO, &"x".repeat(500)).await;
    }
    let token = app.entra.v1(CONTOSO, EDITOR).sign();
    format!("GET /api/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n")
        .repeat(10)
}

#[tokio::test]
async fn an_organisation_may_have_so_many_tasks_and_no_more() {
    let app = TestApp::start_with(&[("MAX_TASKS_PER_TENANT", "2")]).await;
    for title in ["one", "two"] {
        app.create(EDITOR_OF_CONTOSO, title).await;
    }
    let body = json!({ "title": "three" });
    let answer = app
        .send_as((CONTOSO, ADMIN), Method::POST, "/api/tasks", Some(body))
        .await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert_eq!(
        answer.detail(),
        "Your tenant has 2 tasks, as many as it may: delete some first"
    );

    app.create((FABRIKAM, EDITOR), "another tenant's").await;
    app.send_as((CONTOSO, ADMIN), Method::DELETE, "/api/tasks/1", None)
        .await;
    assert_eq!(
        app.create(EDITOR_OF_CONTOSO, "four").await,
        3,
        "an id is never given twice"
    );
}

#[tokio::test]
async fn an_organisation_that_is_too_fast_waits_and_nobody_else_does() {
    let app = TestApp::start_with(&[("TENANT_RATE_LIMIT", "5")]).await;
    let list = async |who| app.send_as(who, Method::GET, "/api/tasks", None).await;
    for user in [ADMIN, EDITOR, READER, ADMIN, EDITOR] {
        assert_eq!(list((CONTOSO, user)).await.status, StatusCode::OK);
    }
    let refused = list((CONTOSO, READER)).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(list((FABRIKAM, EDITOR)).await.status, StatusCode::OK);

    app.clock.step(Duration::from_millis(200));
    assert_eq!(
        list((CONTOSO, READER)).await.status,
        StatusCode::OK,
        "one more is earned"
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
async fn without_the_setting_no_organisation_is_too_fast() {
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
async fn a_list_of_any_length_comes_whole_and_in_order() {
    let app = TestApp::start().await;
    let mut created = 0;
    for tasks in [0, 1, 255, 256, 257, 600] {
        while created < tasks {
            created += 1;
            app.create(EDITOR_OF_CONTOSO, &created.to_string()).await;
        }
        let expected: Vec<_> = (1..=tasks).map(|number| number.to_string()).collect();
        assert_eq!(app.titles(EDITOR_OF_CONTOSO).await, expected);
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
        Some(r#"</api/tasks?limit=500&after=500>; rel="next""#)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_says_nothing_or_half_a_request_is_closed() {
    let app =
        TestApp::start_within(&[], |limits| limits.first_head = Duration::from_millis(300)).await;
    for beginning in ["", "G", "GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: "] {
        let mut stream = connect(&app);
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
    // One that has sent a request may wait before the next: longer than that.
    let mut patient = connect(&app);
    assert!(health(&mut patient).unwrap().starts_with("HTTP/1.1 200"));
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(health(&mut patient).unwrap().starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_every_place_is_taken_one_that_waits_makes_room_and_no_other() {
    let app = TestApp::start_with(&[("MAX_CONNECTIONS", "3")]).await;
    let mut waiting: Vec<_> = (0..3).map(|_| connect(&app)).collect();
    for stream in &mut waiting {
        assert!(health(stream).unwrap().starts_with("HTTP/1.1 200"));
    }
    let mut newcomer = connect(&app);
    assert!(health(&mut newcomer).unwrap().starts_with("HTTP/1.1 200"));
    let served = waiting.iter_mut().filter_map(|stream| health(stream).ok());
    assert_eq!(
        served
            .filter(|answer| answer.starts_with("HTTP/1.1 200"))
            .count(),
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_closes_while_there_is_a_place_for_whoever_comes() {
    let app = TestApp::start_with(&[("MAX_CONNECTIONS", "3")]).await;
    let mut waiting: Vec<_> = (0..3).map(|_| connect(&app)).collect();
    for round in 0..2 {
        for stream in &mut waiting {
            assert!(
                health(stream).unwrap().starts_with("HTTP/1.1 200"),
                "round {round}"
            );
        }
        tokio::time::sleep(Duration::from_millis(1500)).await;
    }
}

/// More than the buffers of two sockets hold, of which a few bytes are read now and then.
#[tokio::test(flavor = "multi_thread")]
async fn who_reads_a_few_bytes_at_a_time_keeps_no_place_that_others_need() {
    let short = |limits: &mut Limits| limits.busy = Duration::from_secs(2);
    let app = TestApp::start_within(&[("MAX_CONNECTIONS", "3")], short).await;
    let requests = ten_long_lists(&app).await;
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
    let mut newcomer = connect(&app);
    let answer = tokio::task::spawn_blocking(move || health(&mut newcomer))
        .await
        .unwrap();
    assert!(answer.unwrap().starts_with("HTTP/1.1 200"));
}

#[test]
fn there_are_no_more_connections_than_open_files() {
    assert_eq!(connections_for_open_files(10), 10);
    assert!(connections_for_open_files(1 << 40) < 1 << 40);
}

#[tokio::test]
async fn a_page_of_the_longest_titles_comes_whole() {
    let app = TestApp::start().await;
    let longest = "\u{1F4DD}".repeat(500);
    for _ in 0..70 {
        app.create(EDITOR_OF_CONTOSO, &longest).await;
    }
    for path in ["/api/tasks", "/api/tasks?limit=60"] {
        let answer = app
            .send_as(EDITOR_OF_CONTOSO, Method::GET, path, None)
            .await;
        assert!(
            answer.body.len() > 120_000,
            "{} bytes are more than one chunk",
            answer.body.len()
        );
        let tasks = answer.json();
        assert!(
            tasks
                .as_array()
                .unwrap()
                .iter()
                .all(|task| task["title"] == longest.as_str())
        );
        assert_eq!(
            tasks.as_array().unwrap().len(),
            if path.contains("limit") { 60 } else { 70 }
        );
        let next = r#"</api/tasks?limit=60&after=60>; rel="next""#;
        assert_eq!(
            answer.header("link"),
            path.contains("limit").then_some(next)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_its_answer_is_dropped() {
    let app = TestApp::start_within(&[], |limits| limits.write = Duration::from_millis(300)).await;
    let requests = ten_long_lists(&app).await;
    let mut stream = connect(&app);
    stream.write_all(requests.as_bytes()).unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut read = 0;
    let mut buffer = vec![0; 1 << 20];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        read += length;
    }
    assert!(read < 10 * 1_200_000, "all {read} bytes came");
}
