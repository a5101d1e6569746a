//! Metrics for Prometheus. Requests cannot increase the number of time series without limit.

use std::{
    collections::{BTreeMap, HashSet},
    io::Write,
    time::Duration,
};

use axum::{
    body::{Body, to_bytes},
    http::{Method, Request, StatusCode},
};
use serde_json::json;
use tenant_tasks::{
    auth::{Access, Tenants},
    server::Limits,
};
use tower::ServiceExt;

use crate::{
    suite::service::Service,
    support::{
        app::{TestApp, answer},
        entra::KeysResponse,
        tasks::title_body,
        tokens::SigningKey,
        users::{ADMIN, CONTOSO, EDITOR, FABRIKAM, NORTHWIND, READER},
    },
};

/// All time series, by name and labels.
pub(crate) async fn series(app: &TestApp) -> BTreeMap<String, f64> {
    let request = Request::get("/metrics").body(Body::empty()).unwrap();
    let answer = app.metrics.clone().oneshot(request).await.unwrap();
    assert_eq!(
        answer.headers()["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let text = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    let text = str::from_utf8(&text).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn requests_rejections_and_store_calls_are_counted() {
    let app = TestApp::start().await;
    app.create((CONTOSO, EDITOR), "one").await;
    app.titles((CONTOSO, EDITOR)).await;
    app.titles((CONTOSO, EDITOR)).await;
    app.send_as(
        (CONTOSO, READER),
        Method::POST,
        "/api/tasks",
        Some(title_body("x")),
    )
    .await;
    app.send_as(
        (CONTOSO, ADMIN),
        Method::PATCH,
        "/api/tasks/7",
        Some(json!({})),
    )
    .await;
    app.me("abc").await;
    app.send(Method::GET, "/nowhere/abc", None, None).await;
    app.send(Method::GET, "/docs/index.css", None, None).await;
    let series = series(&app).await;
    for (name, value) in [
        (
            r#"http_request_duration_seconds_count{route="/api/tasks",method="POST",status="200"}"#,
            1.0,
        ),
        (
            r#"http_request_duration_seconds_count{route="/api/tasks",method="GET",status="200"}"#,
            2.0,
        ),
        (
            r#"http_request_duration_seconds_bucket{route="/api/tasks",method="GET",status="200",le="10"}"#,
            2.0,
        ),
        (
            r#"http_request_duration_seconds_count{route="/api/tasks/{id}",method="PATCH",status="404"}"#,
            1.0,
        ),
        (
            r#"http_request_duration_seconds_count{route="none",method="GET",status="404"}"#,
            1.0,
        ),
        (
            r#"http_request_duration_seconds_count{route="/docs/{file}",method="GET",status="200"}"#,
            1.0,
        ),
        (r#"refusals_total{reason="missing_role"}"#, 1.0),
        (r#"refusals_total{reason="task_not_found"}"#, 1.0),
        (r#"refusals_total{reason="malformed"}"#, 1.0),
        (r#"refusals_total{reason="route_not_found"}"#, 1.0),
        (
            r#"store_duration_seconds_count{operation="insert",outcome="ok"}"#,
            1.0,
        ),
        (
            r#"store_duration_seconds_count{operation="list",outcome="ok"}"#,
            2.0,
        ),
        (r#"token_cache_lookups_total{outcome="hit"}"#, 2.0),
        (r#"token_cache_lookups_total{outcome="miss"}"#, 4.0),
        (r#"rejected_input_total{input="tls"}"#, 0.0),
        (r#"closed_connections_total{reason="slow_reader"}"#, 0.0),
        ("connections", 1.0),
        ("settings_current", 1.0),
        ("log_lines_dropped_total", 0.0),
        (
            concat!(
                r#"build_info{version=""#,
                env!("CARGO_PKG_VERSION"),
                r#""}"#
            ),
            1.0,
        ),
    ] {
        assert_eq!(
            series.get(&format!("tenant_tasks_{name}")),
            Some(&value),
            "{name}: {series:#?}"
        );
    }
}

#[tokio::test]
async fn key_metrics_are_reported_for_each_listed_tenant() {
    let app = TestApp::start().await;
    app.verifier.start_due_fetches().await;
    app.clock.step(Duration::from_mins(90));
    app.entra
        .set_keys_response(CONTOSO, KeysResponse::Status(500));
    app.verifier.start_due_fetches().await;
    app.entra
        .set_keys_response(CONTOSO, KeysResponse::Published);
    app.entra.publish(
        FABRIKAM,
        &[
            SigningKey::second()
                .named(&SigningKey::first().key_id)
                .jwk(),
            SigningKey::third().jwk(),
        ],
    );
    app.clock.step(Duration::from_mins(90));
    app.entra
        .set_keys_response(CONTOSO, KeysResponse::Status(500));
    app.verifier.start_due_fetches().await;
    for number in 0..5 {
        let unknown = app
            .entra
            .v1(FABRIKAM, ADMIN)
            .signed_by(SigningKey::first().named(&format!("{number}")));
        app.me(&unknown.sign()).await;
    }
    let series = series(&app).await;
    let (contoso, fabrikam) = (CONTOSO.id, FABRIKAM.id);
    for (name, value) in [
        (format!("signing_keys{{tenant=\"{contoso}\"}}"), 2.0),
        (
            format!("signing_keys_age_seconds{{tenant=\"{contoso}\"}}"),
            3.0 * 3600.0,
        ),
        (
            format!("key_fetches_total{{tenant=\"{contoso}\",outcome=\"ok\"}}"),
            1.0,
        ),
        (
            format!("key_fetches_total{{tenant=\"{contoso}\",outcome=\"failed\"}}"),
            2.0,
        ),
        (format!("signing_keys{{tenant=\"{fabrikam}\"}}"), 3.0),
        (
            format!("signing_keys_age_seconds{{tenant=\"{fabrikam}\"}}"),
            0.0,
        ),
        (
            format!("key_fetches_total{{tenant=\"{fabrikam}\",outcome=\"ok\"}}"),
            4.0,
        ),
        (
            format!("key_fetches_suppressed_total{{tenant=\"{fabrikam}\"}}"),
            4.0,
        ),
        (format!("key_conflicts_total{{tenant=\"{fabrikam}\"}}"), 2.0),
        (
            "key_fetches_total{tenant=\"other\",outcome=\"ok\"}".to_owned(),
            0.0,
        ),
    ] {
        assert_eq!(
            series.get(&format!("tenant_tasks_{name}")),
            Some(&value),
            "{name}: {series:#?}"
        );
    }
}

#[tokio::test]
async fn listing_a_tenant_does_not_inherit_shared_counts() {
    let app =
        TestApp::start_with(&[("ALLOW_ANY_TENANT", "true"), ("ALLOWED_TENANT_IDS", "")]).await;
    assert_eq!(
        app.me(&app.entra.v1(NORTHWIND, ADMIN).sign()).await.status,
        StatusCode::OK
    );
    let unknown_tenant = "77777777-7777-4777-8777-777777777777";
    let token = app.entra.v1(CONTOSO, ADMIN).with("tid", unknown_tenant);
    app.me(&token
        .with("iss", format!("https://sts.windows.net/{unknown_tenant}/"))
        .sign())
        .await;
    let tenants = Tenants::Listed([NORTHWIND.id.parse().unwrap()].into());
    app.verifier
        .replace_access(Access::from_settings(tenants, HashSet::new()));
    let series = series(&app).await;
    for (tenant, outcome, count) in [
        (NORTHWIND.id, "ok", 0.0),
        (NORTHWIND.id, "failed", 0.0),
        ("other", "ok", 1.0),
        ("other", "failed", 1.0),
    ] {
        let name =
            format!("tenant_tasks_key_fetches_total{{tenant=\"{tenant}\",outcome=\"{outcome}\"}}");
        assert_eq!(series.get(&name), Some(&count), "{name}: {series:#?}");
    }
}

/// Sends 3,000 requests that vary everything a client controls: method, path, query, headers, body, and the header and
/// claims of a token.
async fn send_varied_requests(app: &TestApp, from: usize) {
    let methods = [
        "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "BREW", "X-1",
    ];
    let paths = [
        "/health",
        "/ready",
        "/api/me",
        "/api/tasks",
        "/api/tasks/7",
        "/openapi.json",
        "/docs",
        "/docs/x",
        "/x",
    ];
    for number in from..from + 1500 {
        let unique = format!("{number:08}");
        let token = match number % 5 {
            0 => String::new(),
            1 => unique.clone(),
            2 => app
                .entra
                .v1(CONTOSO, ADMIN)
                .signed_by(SigningKey::first().named(&unique))
                .unsigned(),
            3 => app
                .entra
                .v1(NORTHWIND, ADMIN)
                .with("tid", format!("{unique}-0000-4000-8000-000000000000"))
                .unsigned(),
            _ => app
                .entra
                .v1(CONTOSO, ADMIN)
                .with("oid", unique.clone())
                .with("roles", json!([unique]))
                .unsigned(),
        };
        let method = Method::from_bytes(methods[number % methods.len()].as_bytes()).unwrap();
        let path = format!("{}?{unique}", paths[number / methods.len() % paths.len()]);
        let request = app
            .request(method, &path)
            .header("user-agent", &unique)
            .header("x-request-id", &unique);
        let request = if token.is_empty() {
            request
        } else {
            request.bearer_auth(token)
        };
        answer(request.body(unique)).await;
        let path = format!("/{number}/{number}");
        app.send(
            Method::from_bytes(format!("M{number}").as_bytes()).unwrap(),
            &path,
            None,
            None,
        )
        .await;
    }
}

#[tokio::test]
async fn time_series_stay_bounded_under_arbitrary_requests() {
    for settings in [&[][..], &[("ALLOW_ANY_TENANT", "true")]] {
        let app = TestApp::start_with(settings).await;
        let before = series(&app).await.len();
        send_varied_requests(&app, 0).await;
        let after_one = series(&app).await.len();
        send_varied_requests(&app, 10_000).await;
        send_varied_requests(&app, 20_000).await;
        let after = series(&app).await.len();
        println!(
            "{settings:?}: {before} time series before, {after_one} after 3,000 requests, {after} after 9,000"
        );
        assert_eq!(after, after_one, "later requests added time series");
        assert!(after < 2000, "{after}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_served_only_on_metrics_addr() {
    let service = Service::start(&[("METRICS_ADDR", "127.0.0.1:0")]);
    let metrics = service
        .metrics_address
        .clone()
        .expect("the metrics address is logged");
    let get = async |address: &str, path: &str| {
        answer(reqwest::Client::new().get(format!("http://{address}{path}"))).await
    };
    let page = get(&metrics, "/metrics").await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(
        page.body.contains("tenant_tasks_settings_current 1"),
        "{}",
        page.body
    );
    for (address, path) in [
        (&service.address, "/metrics"),
        (&metrics, "/api/me"),
        (&metrics, "/health"),
        (&metrics, "/"),
    ] {
        assert_eq!(
            get(address, path).await.status,
            StatusCode::NOT_FOUND,
            "{address}{path}"
        );
    }
    let (occupied, disabled) = (service.address.clone(), [("METRICS_ADDR", "")]);
    assert!(Service::start(&disabled).metrics_address.is_none());
    let (mut command, _directory) = crate::suite::service::command(&[
        ("AZURE_API_CLIENT_ID", crate::support::users::API_CLIENT_ID),
        ("AZURE_HOME_TENANT_ID", CONTOSO.id),
        ("PORT", "0"),
        ("METRICS_ADDR", &occupied),
    ]);
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains(&format!("METRICS_ADDR: cannot listen on {occupied}")),
        "{stderr}"
    );
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_metric_is_0_while_settings_are_invalid() {
    let file = format!("ALLOWED_TENANT_IDS={}\n", CONTOSO.id);
    let service = Service::start_with_file(&file, &[("METRICS_ADDR", "127.0.0.1:0")]);
    let metrics = service.metrics_address.clone().unwrap();
    let is_current = async || {
        let page = answer(reqwest::Client::new().get(format!("http://{metrics}/metrics")))
            .await
            .body;
        page.contains("tenant_tasks_settings_current 1\n")
    };
    assert!(is_current().await);
    for (file, line, expected) in [
        ("ALLOWED_TENANT_IDS=x\n", "settings not reloaded", false),
        (&file, "settings reloaded", true),
    ] {
        service.rewrite_file(file);
        service.signal("-HUP");
        tokio::task::block_in_place(|| service.wait_for_line(line));
        assert_eq!(is_current().await, expected, "{file}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn request_evicted_before_its_answer_counts_as_499() {
    let short = |limits: &mut Limits| limits.busy = Duration::from_millis(100);
    let app = TestApp::start_within(&[("MAX_CONNECTIONS", "1")], short).await;
    let delay = KeysResponse::Delay(Duration::from_secs(2));
    app.entra.set_keys_response(CONTOSO, delay);
    let token = app.entra.v1(CONTOSO, ADMIN).sign();
    let mut stream = app.connect();
    let head = format!("Host: x\r\nAuthorization: Bearer {token}\r\n");
    write!(stream, "GET /api/me HTTP/1.1\r\n{head}\r\n").unwrap();
    while app.entra.fetches(CONTOSO) == 0 {
        tokio::task::yield_now().await;
    }
    let answer = app.send(Method::GET, "/health", None, None).await;
    assert_eq!(answer.status, StatusCode::OK);
    let label = r#"{route="/api/me",method="GET",status="499"}"#;
    let name = format!("tenant_tasks_http_request_duration_seconds_count{label}");
    assert!(series(&app).await[&name] > 0.0);
}
