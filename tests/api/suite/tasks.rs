//! The task routes: storage, responses and validation.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    app::{TestApp, answer},
    users::{ADMIN, CONTOSO, EDITOR, FABRIKAM},
};

#[tokio::test]
async fn single_task_is_the_same_as_in_the_list() {
    let app = TestApp::start().await;
    app.create((CONTOSO, EDITOR), "Buy milk").await;
    for (caller, has_owner_id) in [((CONTOSO, EDITOR), false), ((CONTOSO, ADMIN), true)] {
        let list = app.send_as(caller, Method::GET, "/api/tasks", None).await;
        let path = "/api/tasks/1";
        let task = app.send_as(caller, Method::GET, path, None).await;
        assert_eq!(format!("[{}]", task.body), list.body);
        assert_eq!(task.json()["owner_id"].is_string(), has_owner_id);
    }
}

#[tokio::test]
async fn task_can_be_created_listed_updated_and_deleted() {
    let app = TestApp::start().await;
    let editor = (CONTOSO, EDITOR);
    let tenant = CONTOSO.id;

    let created = app
        .send_as(
            editor,
            Method::POST,
            "/api/tasks",
            Some(json!({ "title": "Buy milk" })),
        )
        .await;
    let task = |title: &str, completed: bool| {
        format!(
            r#"{{"id":1,"title":"{title}","completed":{completed},"owner_name":"Edgar Editor","tenant_id":"{tenant}"}}"#
        )
    };
    assert_eq!(
        (created.status, created.body),
        (StatusCode::OK, task("Buy milk", false))
    );

    let own = app.send_as(editor, Method::GET, "/api/tasks", None).await;
    assert_eq!(own.body, format!("[{}]", task("Buy milk", false)));

    let done = app
        .send_as(
            editor,
            Method::PATCH,
            "/api/tasks/1",
            Some(json!({ "completed": true })),
        )
        .await;
    assert_eq!(
        (done.status, done.body),
        (StatusCode::OK, task("Buy milk", true))
    );

    let renamed = app
        .send_as(
            editor,
            Method::PATCH,
            "/api/tasks/1",
            Some(json!({ "title": "Buy oats" })),
        )
        .await;
    assert_eq!(renamed.body, task("Buy oats", true));

    let unchanged = app
        .send_as(editor, Method::PATCH, "/api/tasks/1", Some(json!({})))
        .await;
    assert_eq!(unchanged.body, task("Buy oats", true));

    let admin = (CONTOSO, ADMIN);
    let all = app.send_as(admin, Method::GET, "/api/tasks", None).await;
    let with_owner =
        task("Buy oats", true).replace('}', &format!(r#","owner_id":"{}"}}"#, EDITOR.oid(CONTOSO)));
    assert_eq!(all.body, format!("[{with_owner}]"));

    for _ in 0..2 {
        let deleted = app
            .send_as(admin, Method::DELETE, "/api/tasks/1", None)
            .await;
        assert_eq!(
            (deleted.status, deleted.body.as_str()),
            (StatusCode::OK, r#"{"status":"deleted"}"#)
        );
    }
    assert_eq!(
        app.send_as(editor, Method::GET, "/api/tasks", None)
            .await
            .body,
        "[]"
    );
    assert_eq!(
        app.send_as(admin, Method::GET, "/api/tasks", None)
            .await
            .body,
        "[]"
    );
}

#[tokio::test]
async fn ids_start_at_one_per_tenant_and_are_not_reused() {
    let app = TestApp::start().await;
    assert_eq!(app.create((CONTOSO, ADMIN), "a").await, 1);
    assert_eq!(app.create((CONTOSO, EDITOR), "b").await, 2);
    assert_eq!(app.create((FABRIKAM, ADMIN), "c").await, 1);
    app.send_as((CONTOSO, ADMIN), Method::DELETE, "/api/tasks/2", None)
        .await;
    assert_eq!(app.create((CONTOSO, ADMIN), "d").await, 3);
}

#[tokio::test]
async fn title_is_stored_exactly_as_sent() {
    let app = TestApp::start().await;
    let longest = "ü".repeat(500);
    for title in [
        "x",
        "  two  spaces  ",
        "emoji 🦀 and é, composed or e\u{301}",
        r#"<b>"quotes"\</b>"#,
        &longest,
    ] {
        app.create((CONTOSO, EDITOR), title).await;
    }
    let titles = app.titles((CONTOSO, EDITOR)).await;
    assert_eq!(
        titles,
        [
            "x",
            "  two  spaces  ",
            "emoji 🦀 and é, composed or e\u{301}",
            r#"<b>"quotes"\</b>"#,
            &longest
        ]
    );
}

#[tokio::test]
async fn invalid_body_is_rejected_and_changes_nothing() {
    let app = TestApp::start().await;
    app.create((CONTOSO, EDITOR), "unchanged").await;
    let too_long = "x".repeat(501);
    let cases: Vec<(&str, Value, &str, &str)> = vec![
        ("POST", json!({}), "title", "missing"),
        ("POST", json!({ "Title": "x" }), "title", "missing"),
        ("POST", json!({ "title": null }), "title", "string_type"),
        ("POST", json!({ "title": 7 }), "title", "string_type"),
        ("POST", json!({ "title": "" }), "title", "string_too_short"),
        (
            "POST",
            json!({ "title": too_long }),
            "title",
            "string_too_long",
        ),
        (
            "POST",
            json!({ "title": " \u{2003}" }),
            "title",
            "value_error",
        ),
        (
            "POST",
            json!({ "title": "two\nlines" }),
            "title",
            "value_error",
        ),
        (
            "POST",
            json!({ "title": "nul\u{0}" }),
            "title",
            "value_error",
        ),
        ("POST", json!(["title"]), "body", "dict_type"),
        ("POST", json!("title"), "body", "dict_type"),
        ("POST", json!(null), "body", "dict_type"),
        ("PATCH", json!({ "title": "" }), "title", "string_too_short"),
        ("PATCH", json!({ "title": null }), "title", "string_type"),
        (
            "PATCH",
            json!({ "completed": "true" }),
            "completed",
            "bool_type",
        ),
        ("PATCH", json!({ "completed": 1 }), "completed", "bool_type"),
        (
            "PATCH",
            json!({ "completed": null }),
            "completed",
            "bool_type",
        ),
        ("PATCH", json!([]), "body", "dict_type"),
    ];
    for (method, body, member, kind) in cases {
        let path = if method == "POST" {
            "/api/tasks"
        } else {
            "/api/tasks/1"
        };
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let answer = app
            .send_as((CONTOSO, EDITOR), method, path, Some(body.clone()))
            .await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
        let error = &answer.json()["errors"][0];
        assert_eq!(error["type"], kind, "{body}");
        assert_eq!(
            error["loc"].as_array().unwrap().last().unwrap(),
            member,
            "{body}"
        );
        assert_eq!(
            answer.detail(),
            format!("{member}: {}", error["msg"].as_str().unwrap()),
            "{body}"
        );
    }
    assert_eq!(app.titles((CONTOSO, EDITOR)).await, ["unchanged"]);
}

#[tokio::test]
async fn all_invalid_members_are_reported_together() {
    let app = TestApp::start().await;
    app.create((CONTOSO, EDITOR), "task").await;
    let body = json!({ "title": "", "completed": "no" });
    let answer = app
        .send_as((CONTOSO, EDITOR), Method::PATCH, "/api/tasks/1", Some(body))
        .await;
    let expected = json!({
        "detail": "title: String should have at least 1 character; completed: Input should be a valid boolean",
        "errors": [
            { "loc": ["body", "title"], "msg": "String should have at least 1 character", "type": "string_too_short" },
            { "loc": ["body", "completed"], "msg": "Input should be a valid boolean", "type": "bool_type" },
        ],
    });
    assert_eq!(answer.json(), expected);
}

#[tokio::test]
async fn unknown_members_are_ignored() {
    let app = TestApp::start().await;
    let body = json!({ "title": "x", "id": 99, "completed": true, "tenant_id": FABRIKAM.id, "owner_id": "me" });
    let answer = app
        .send_as((CONTOSO, EDITOR), Method::POST, "/api/tasks", Some(body))
        .await;
    let task = answer.json();
    assert_eq!(
        (&task["id"], &task["completed"], &task["tenant_id"]),
        (&json!(1), &json!(false), &json!(CONTOSO.id))
    );
}

#[tokio::test]
async fn body_that_is_not_json_is_rejected() {
    let app = TestApp::start().await;
    let token = app.entra.v1(CONTOSO, EDITOR).sign();
    let json = Some("application/json");
    let deep = format!("{{\"title\":{}1{}}}", "[".repeat(5000), "]".repeat(5000));
    for (media_type, body, status) in [
        (json, r#"{"title":"x"}"#, StatusCode::OK),
        (
            Some("application/json; charset=utf-8"),
            r#"{"title":"x"}"#,
            StatusCode::OK,
        ),
        (
            Some("application/x-www-form-urlencoded"),
            r#"{"title":"x"}"#,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ),
        (
            Some("text/plain"),
            r#"{"title":"x"}"#,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ),
        (None, r#"{"title":"x"}"#, StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (json, "", StatusCode::UNPROCESSABLE_ENTITY),
        (json, "{", StatusCode::UNPROCESSABLE_ENTITY),
        (json, r#"{"title":"x"} "#, StatusCode::OK),
        (json, r#"{"title":"x"}{}"#, StatusCode::UNPROCESSABLE_ENTITY),
        (
            json,
            r#"{"title":"\ud800"}"#,
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        (json, deep.as_str(), StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        let mut request = app
            .request(Method::POST, "/api/tasks")
            .bearer_auth(&token)
            .body(body.to_owned());
        if let Some(media_type) = media_type {
            request = request.header("content-type", media_type);
        }
        let answer = answer(request).await;
        assert_eq!(
            answer.status, status,
            "{media_type:?} {body:.40}: {}",
            answer.body
        );
        if status == StatusCode::UNPROCESSABLE_ENTITY {
            assert_eq!(answer.json()["errors"][0]["type"], "json_invalid");
        }
    }
    let not_utf8 = app.request(Method::POST, "/api/tasks").bearer_auth(&token);
    let not_utf8 = not_utf8
        .header("content-type", "application/json")
        .body(b"{\"title\":\"\xff\"}".to_vec());
    assert_eq!(
        answer(not_utf8).await.status,
        StatusCode::UNPROCESSABLE_ENTITY
    );
}

#[tokio::test]
async fn body_over_64_kib_is_rejected() {
    let app = TestApp::start().await;
    let empty = json!({ "title": "x", "padding": "" }).to_string().len();
    let padded = |bytes: usize| json!({ "title": "x", "padding": "p".repeat(bytes - empty) });
    let editor = (CONTOSO, EDITOR);
    let fits = app
        .send_as(editor, Method::POST, "/api/tasks", Some(padded(64 * 1024)))
        .await;
    assert_eq!(fits.status, StatusCode::OK, "{}", fits.body);
    let answer = app
        .send_as(
            editor,
            Method::POST,
            "/api/tasks",
            Some(padded(64 * 1024 + 1)),
        )
        .await;
    assert_eq!(
        (answer.status, answer.detail()),
        (
            StatusCode::PAYLOAD_TOO_LARGE,
            "The body is larger than 64 KiB".into()
        )
    );
}

#[tokio::test]
async fn task_id_in_path_must_be_a_positive_integer() {
    let app = TestApp::start().await;
    for id in [
        "0",
        "+1",
        "01",
        "-1",
        "1.5",
        "one",
        "%ff",
        "9223372036854775808",
        "1e3",
        "0x1",
        "%20",
    ] {
        for method in [Method::PATCH, Method::DELETE] {
            let body = (method == Method::PATCH).then(|| json!({}));
            let answer = app
                .send_as((CONTOSO, ADMIN), method, &format!("/api/tasks/{id}"), body)
                .await;
            assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{id}");
            assert_eq!(
                answer.json()["errors"][0]["loc"],
                json!(["path", "id"]),
                "{id}"
            );
        }
    }
    let last = "/api/tasks/9223372036854775807";
    let answer = app
        .send_as((CONTOSO, ADMIN), Method::PATCH, last, Some(json!({})))
        .await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn long_list_can_be_read_page_by_page() {
    let app = TestApp::start().await;
    let admin = (CONTOSO, ADMIN);
    for number in 1..=5 {
        app.create(
            if number == 3 {
                admin
            } else {
                (CONTOSO, EDITOR)
            },
            &number.to_string(),
        )
        .await;
    }
    let pages = async |caller| {
        let mut path = "/api/tasks?limit=2".to_owned();
        let mut pages: Vec<Vec<u64>> = Vec::new();
        loop {
            let answer = app.send_as(caller, Method::GET, &path, None).await;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
            pages.push(
                answer
                    .json()
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|task| task["id"].as_u64().unwrap())
                    .collect(),
            );
            let Some(link) = answer.header("link") else {
                return pages;
            };
            let query = link.strip_prefix('<').unwrap();
            let query = query.strip_suffix(">; rel=\"next\"").unwrap();
            path = format!("/api/tasks{query}");
        }
    };
    assert_eq!(pages(admin).await, [vec![1, 2], vec![3, 4], vec![5]]);
    assert_eq!(pages((CONTOSO, EDITOR)).await, [vec![1, 2], vec![4, 5]]);
    assert_eq!(app.titles(admin).await, ["1", "2", "3", "4", "5"]);

    let after = app
        .send_as(admin, Method::GET, "/api/tasks?after=3&unknown=x", None)
        .await;
    assert_eq!(after.json().as_array().unwrap().len(), 2);
    assert_eq!(after.header("link"), None);
}

#[tokio::test]
async fn invalid_page_parameters_are_rejected() {
    let app = TestApp::start().await;
    for (query, member) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=-1", "limit"),
        ("limit=ten", "limit"),
        ("limit=", "limit"),
        ("after=0", "after"),
        ("after=x", "after"),
        ("limit=1000&after=-7", "after"),
    ] {
        let answer = app
            .send_as(
                (CONTOSO, ADMIN),
                Method::GET,
                &format!("/api/tasks?{query}"),
                None,
            )
            .await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{query}");
        assert_eq!(
            answer.json()["errors"][0]["loc"],
            json!(["query", member]),
            "{query}"
        );
    }
    let largest = app
        .send_as((CONTOSO, ADMIN), Method::GET, "/api/tasks?limit=1000", None)
        .await;
    assert_eq!(largest.status, StatusCode::OK);
}

#[tokio::test]
async fn unknown_path_or_method_gets_a_json_error() {
    let app = TestApp::start().await;
    for path in ["/nowhere", "/api", "/api/tasks/1/2", "/API/TASKS"] {
        let answer = app.send(Method::GET, path, None, None).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (StatusCode::NOT_FOUND, r#"{"detail":"Not Found"}"#),
            "{path}"
        );
    }
    for (method, path, allow) in [
        (Method::PUT, "/api/tasks", "GET,HEAD,POST"),
        (Method::DELETE, "/api/tasks", "GET,HEAD,POST"),
        (Method::PUT, "/api/tasks/1", "GET,HEAD,PATCH,DELETE"),
        (Method::POST, "/health", "GET,HEAD"),
        (Method::POST, "/api/me", "GET,HEAD"),
    ] {
        let answer = app.send(method.clone(), path, None, None).await;
        assert_eq!(
            answer.status,
            StatusCode::METHOD_NOT_ALLOWED,
            "{method} {path}"
        );
        assert_eq!(answer.body, r#"{"detail":"Method Not Allowed"}"#);
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
    }
}
