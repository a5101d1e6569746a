//! The registry of tenants: commands change it, and every replica obeys.

#![expect(
    clippy::disallowed_methods,
    reason = "the time until a change takes effect is measured in real time"
)]

use std::{
    io::Write,
    process::{Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use tenant_tasks::clock::SystemClock;
use tokio::task::block_in_place;

use crate::{
    database_faults::check,
    suite::service::{Service, command},
    support::{
        app::{Answer, TestApp, answer, listen},
        entra::MockEntra,
        postgres::{self, Database},
        proxy::{Fault, Proxy},
        tasks::title_body,
        tokens::SigningKey,
        users::{ADMIN, CONTOSO, EDITOR, FABRIKAM, NORTHWIND, Tenant},
    },
};

/// The time within which every replica must obey a change.
const LIMIT: Duration = Duration::from_secs(2);

/// Replicas with one database, of which the settings list only Fabrikam.
struct Replicas {
    entra: MockEntra,
    database: Database,
    services: Vec<Service>,
    http: reqwest::Client,
}

impl Replicas {
    async fn start(count: usize) -> Self {
        let entra = MockEntra::start(listen().await, Arc::new(SystemClock::new()));
        let mut replicas = Self {
            entra,
            database: Database::create().await,
            services: Vec::new(),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        };
        for _ in 0..count {
            replicas.services.push(replicas.launch(&[]));
        }
        replicas
    }

    /// Starts a replica with these settings changed.
    fn launch(&self, changes: &[(&str, &str)]) -> Service {
        let url = self.database.url();
        let settings = [
            ("AZURE_AUTHORITY_HOST", self.entra.authority.as_str()),
            ("ALLOWED_TENANT_IDS", FABRIKAM.id),
            ("DATABASE_URL", &url),
            ("METRICS_ADDR", "127.0.0.1:0"),
        ];
        block_in_place(|| Service::start(&[&settings, changes].concat()))
    }

    /// Runs a command in another folder, with only `DATABASE_URL` set.
    fn run(&self, arguments: &[&str]) -> Output {
        self.run_with_input(arguments, "")
    }

    fn run_with_input(&self, arguments: &[&str], input: &str) -> Output {
        let url = self.database.url();
        block_in_place(|| {
            let (mut command, _directory) = command(&[("DATABASE_URL", &url)]);
            let command = command.args(arguments).stdin(Stdio::piped());
            let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
            let mut stdin = process.stdin.take().unwrap();
            // A command that does not read its input may have ended.
            let _ = stdin.write_all(input.as_bytes());
            drop(stdin);
            process.wait_with_output().unwrap()
        })
    }

    /// Like [`Replicas::run`]. Returns standard output of a command that must succeed.
    fn success(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    async fn me(&self, service: &Service, tenant: Tenant) -> Answer {
        let token = self.entra.v1(tenant, ADMIN).sign();
        let url = format!("http://{}/api/me", service.address);
        answer(self.http.get(url).bearer_auth(token)).await
    }

    /// Waits until every replica answers a request of the tenant with this status.
    async fn wait_for(&self, tenant: Tenant, status: StatusCode) {
        let started = Instant::now();
        for service in &self.services {
            while self.me(service, tenant).await.status != status {
                assert!(
                    started.elapsed() < LIMIT,
                    "{} does not obey",
                    service.address
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    async fn metric(&self, service: &Service, name: &str) -> Option<f64> {
        let address = service.metrics_address.as_ref().unwrap();
        let page = answer(self.http.get(format!("http://{address}/metrics"))).await;
        let line = page.body.lines().find(|line| line.starts_with(name))?;
        line.rsplit(' ').next()?.parse().ok()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_reach_every_replica_within_two_seconds() {
    let replicas = Replicas::start(3).await;
    replicas.wait_for(FABRIKAM, StatusCode::OK).await;
    replicas.wait_for(CONTOSO, StatusCode::FORBIDDEN).await;
    for (arguments, status) in [
        (["tenants", "add", CONTOSO.id], StatusCode::OK),
        (["tenants", "suspend", CONTOSO.id], StatusCode::FORBIDDEN),
        (["tenants", "resume", CONTOSO.id], StatusCode::OK),
        (["tenants", "remove", CONTOSO.id], StatusCode::FORBIDDEN),
        (["tenants", "add", CONTOSO.id], StatusCode::OK),
    ] {
        let output = replicas.success(&arguments);
        assert!(
            output.contains("Registry in the database updated"),
            "{output}"
        );
        replicas.wait_for(CONTOSO, status).await;
        replicas.wait_for(FABRIKAM, StatusCode::OK).await;
        let again = replicas.success(&arguments);
        assert!(!again.contains("updated"), "not idempotent: {again}");
    }
    let key_id = &SigningKey::first().key_id;
    replicas.success(&["keys", "revoke", key_id, "--reason", "stolen"]);
    replicas.wait_for(CONTOSO, StatusCode::UNAUTHORIZED).await;
    let listed = replicas.success(&["keys", "list"]);
    assert!(
        listed.contains(key_id) && listed.contains("stolen"),
        "{listed}"
    );
    replicas.success(&["keys", "restore", key_id]);
    replicas.wait_for(CONTOSO, StatusCode::OK).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn suspension_overrides_settings_and_open_mode() {
    let mut replicas = Replicas::start(1).await;
    let open = replicas.launch(&[("ALLOW_ANY_TENANT", "true")]);
    replicas.services.push(open);
    replicas.wait_for(FABRIKAM, StatusCode::OK).await;
    replicas.success(&["tenants", "suspend", FABRIKAM.id]);
    replicas.wait_for(FABRIKAM, StatusCode::FORBIDDEN).await;
    let open = replicas.services.last().unwrap();
    assert_eq!(replicas.me(open, NORTHWIND).await.status, StatusCode::OK);
    let line = replicas.services[0].wait_for_line("tenant suspended");
    assert!(
        line.contains("registry changed") && line.contains(FABRIKAM.id),
        "{line}"
    );

    // A replica that starts later rejects the tenant from its first request on.
    let late = replicas.launch(&[]);
    assert_eq!(
        replicas.me(&late, FABRIKAM).await.status,
        StatusCode::FORBIDDEN
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn last_known_registry_applies_during_an_outage() {
    let mut replicas = Replicas::start(1).await;
    let proxy = Proxy::start(postgres::upstream(), Fault::None).await;
    let url = replicas.database.url_through(proxy.port);
    replicas.services = vec![replicas.launch(&[("DATABASE_URL", &url)])];
    replicas.success(&["tenants", "add", CONTOSO.id]);
    replicas.wait_for(CONTOSO, StatusCode::OK).await;
    for fault in [Fault::Stall, Fault::Refuse] {
        proxy.set_fault(fault);
        replicas.success(&["tenants", "suspend", CONTOSO.id]);
        tokio::time::sleep(Duration::from_secs(3)).await;
        let service = &replicas.services[0];
        assert_eq!(replicas.me(service, CONTOSO).await.status, StatusCode::OK);
        assert_eq!(
            replicas.me(service, NORTHWIND).await.status,
            StatusCode::FORBIDDEN
        );
        let age = replicas
            .metric(service, "tenant_tasks_registry_age_seconds")
            .await;
        assert!(age.is_some_and(|age| age > 1.5), "{age:?}");
        service.wait_for_line("its last known content stays in force");

        // A start without the database: only the settings apply.
        let late = replicas.launch(&[("DATABASE_URL", &url)]);
        assert_eq!(
            replicas.me(&late, CONTOSO).await.status,
            StatusCode::FORBIDDEN
        );
        assert_eq!(replicas.me(&late, FABRIKAM).await.status, StatusCode::OK);

        proxy.set_fault(Fault::None);
        replicas.services[0].wait_for_line("can be read again");
        replicas.wait_for(CONTOSO, StatusCode::FORBIDDEN).await;
        replicas.success(&["tenants", "resume", CONTOSO.id]);
        replicas.wait_for(CONTOSO, StatusCode::OK).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_limits_of_the_registry_apply() {
    let replicas = Replicas::start(1).await;
    let (service, token) = (
        &replicas.services[0],
        replicas.entra.v1(CONTOSO, EDITOR).sign(),
    );
    let add = [
        "tenants",
        "add",
        CONTOSO.id,
        "--name",
        "Contoso Ltd",
        "--max-tasks",
        "5",
    ];
    replicas.success(&add);
    replicas.wait_for(CONTOSO, StatusCode::OK).await;
    let me = replicas.me(service, CONTOSO).await.json();
    assert_eq!(me["tenant_name"], "Contoso Ltd");
    let create = async || {
        let url = format!("http://{}/api/tasks", service.address);
        let request = replicas.http.post(url).bearer_auth(&token);
        let request = request.header("content-type", "application/json");
        answer(request.body(title_body("x").to_string())).await
    };
    for (status, quota) in [
        (200, None),
        (200, None),
        (200, None),
        (200, Some("used=4, max=5")),
        (200, Some("used=5, max=5")),
        (409, None),
    ] {
        let created = create().await;
        let found = (created.status.as_u16(), created.header("task-quota"));
        assert_eq!(found, (status, quota), "{}", created.body);
    }
    let ratio = replicas.metric(service, "tenant_tasks_task_limit_used_ratio");
    assert_eq!(ratio.await, Some(1.0));

    replicas.success(&[
        "tenants",
        "add",
        CONTOSO.id,
        "--max-tasks",
        "default",
        "--rate-limit",
        "1",
    ]);
    let started = Instant::now();
    while create().await.status != StatusCode::TOO_MANY_REQUESTS {
        assert!(started.elapsed() < LIMIT, "the rate limit does not apply");
    }
    replicas.success(&["tenants", "add", CONTOSO.id, "--rate-limit", "default"]);
    replicas.wait_for(CONTOSO, StatusCode::OK).await;
    let ratio = replicas.metric(service, "tenant_tasks_task_limit_used_ratio");
    assert_eq!(ratio.await, None, "far from the default limit");
}

#[tokio::test(flavor = "multi_thread")]
async fn registry_lists_and_shows_what_was_recorded() {
    let replicas = Replicas::start(1).await;
    replicas.success(&[
        "tenants", "add", CONTOSO.id, "--name", "Contoso", "--note", "pilot",
    ]);
    replicas.success(&["tenants", "suspend", NORTHWIND.id]);
    let listed: Value =
        serde_json::from_str(&replicas.success(&["tenants", "list", "--json"])).unwrap();
    let found: Vec<_> = listed.as_array().unwrap().iter().collect();
    let summary = |tenant: &Value| json!([tenant["tenant_id"], tenant["status"], tenant["name"]]);
    assert_eq!(
        found
            .iter()
            .map(|tenant| summary(tenant))
            .collect::<Vec<_>>(),
        [
            json!([CONTOSO.id, "active", "Contoso"]),
            json!([NORTHWIND.id, "suspended", null])
        ]
    );
    let shown = replicas.success(&["tenants", "show", CONTOSO.id]);
    assert!(shown.contains("note        pilot"), "{shown}");
    let output = replicas.run(&["tenants", "show", FABRIKAM.id]);
    assert_eq!(output.status.code(), Some(1));
    for (arguments, code) in [
        (["tenants", "remove", FABRIKAM.id], 0),
        (["tenants", "resume", FABRIKAM.id], 1),
    ] {
        let output = replicas.run(&arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("not in the registry"), "{text}");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
    }
    // The settings of a folder are named, because the registry cannot change them.
    let output = block_in_place(|| {
        let url = replicas.database.url();
        let settings = [
            ("DATABASE_URL", url.as_str()),
            ("ALLOWED_TENANT_IDS", CONTOSO.id),
        ];
        let (mut command, _directory) = command(&settings);
        command
            .args(["tenants", "remove", CONTOSO.id])
            .output()
            .unwrap()
    });
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("ALLOWED_TENANT_IDS"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_of_settings_can_be_imported() {
    let replicas = Replicas::start(1).await;
    let ids: Vec<_> = (10..22)
        .map(|n| format!("{n}111111-1111-4111-8111-111111111111"))
        .collect();
    let (list, url) = (ids.join(","), replicas.database.url());
    let import = |arguments: &[&str]| {
        block_in_place(|| {
            let settings = [
                ("DATABASE_URL", url.as_str()),
                ("ALLOWED_TENANT_IDS", &list),
            ];
            let (mut command, _directory) = command(&settings);
            let command = command.args(["tenants", "import"]).args(arguments);
            command.stdin(Stdio::null()).output().unwrap()
        })
    };
    let error = String::from_utf8(import(&[]).stderr).unwrap();
    assert!(
        error.contains("would import 12 tenants: confirm with --yes"),
        "{error}"
    );
    assert_eq!(replicas.success(&["tenants", "list"]), "");
    assert!(import(&["--yes"]).status.success());
    assert_eq!(replicas.success(&["tenants", "list"]).lines().count(), 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn registry_shows_who_added_a_tenant() {
    let replicas = Replicas::start(1).await;
    let url = replicas.database.url();
    for (tenant, user, login_name, shown) in [
        (CONTOSO, "ada", "other", "by ada"),
        (FABRIKAM, "", "max", "by max"),
        (NORTHWIND, "", "", "by unknown"),
    ] {
        let settings = [
            ("DATABASE_URL", &*url),
            ("USER", user),
            ("LOGNAME", login_name),
        ];
        let output = block_in_place(|| {
            let (mut command, _directory) = command(&settings);
            command
                .args(["tenants", "add", tenant.id])
                .output()
                .unwrap()
        });
        assert!(output.status.success());
        let text = replicas.success(&["tenants", "show", tenant.id]);
        let added = text.lines().find(|line| line.starts_with("added")).unwrap();
        assert!(added.ends_with(shown), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn log_of_the_registry_cannot_be_changed() {
    let replicas = Replicas::start(1).await;
    replicas.success(&["tenants", "add", CONTOSO.id]);
    replicas.success(&["tenants", "remove", CONTOSO.id]);
    let client = replicas.database.connect().await;
    let sql = "SELECT string_agg(action, ', ' ORDER BY version) FROM registry_log";
    let actions: String = client.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(actions, "tenant added, tenant removed");
    for sql in [
        "UPDATE registry_log SET by = 'nobody'",
        "DELETE FROM registry_log",
        "TRUNCATE registry_log",
    ] {
        let error = client.batch_execute(sql).await.unwrap_err();
        assert_eq!(
            error.code().map(tokio_postgres::error::SqlState::code),
            Some("42501"),
            "{sql}"
        );
    }
    let role = postgres::role();
    let grant = format!("GRANT UPDATE ON registry_log TO {role}");
    replicas.database.execute_as_superuser(&grant).await;
    let (stdout, code) = check(&replicas.entra.authority, &replicas.database.url());
    assert!(
        stdout.contains("may change rows of the table registry_log"),
        "{stdout}"
    );
    assert_eq!(code, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn erased_tenant_leaves_nothing_behind() {
    let replicas = Replicas::start(1).await;
    let app = TestApp::start_with(&[("DATABASE_URL", &replicas.database.url())]).await;
    for title in ["first", "second", "third"] {
        app.create((CONTOSO, ADMIN), title).await;
    }
    app.create((FABRIKAM, ADMIN), "other").await;
    let exported = replicas.success(&["tenants", "export", CONTOSO.id]);
    let titles: Vec<Value> = exported
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["title"].clone())
        .collect();
    assert_eq!(titles, ["first", "second", "third"]);

    let erase = ["tenants", "erase", CONTOSO.id];
    let refused = replicas.run_with_input(&erase, CONTOSO.id);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        error.contains("is not suspended") && !refused.status.success(),
        "{error}"
    );
    replicas.success(&["tenants", "suspend", CONTOSO.id]);
    let refused = replicas.run_with_input(&erase, FABRIKAM.id);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        error.contains("Nothing was erased") && !refused.status.success(),
        "{error}"
    );
    assert!(error.contains("Tasks to delete: 3."), "{error}");
    let client = replicas.database.connect().await;
    // As if the suspension was long ago.
    let earlier = "UPDATE allowed_tenants SET status_since = now() - interval '1 hour'";
    client.batch_execute(earlier).await.unwrap();
    for count in [3, 0] {
        let erased = replicas.run_with_input(&erase, CONTOSO.id);
        let output = String::from_utf8_lossy(&erased.stdout).into_owned();
        assert!(
            output.contains(&format!("Deleted tasks: {count}")),
            "{output}"
        );
    }
    let app = TestApp::start_with(&[("DATABASE_URL", &replicas.database.url())]).await;
    let titles = app.titles((CONTOSO, ADMIN)).await;
    assert_eq!(titles, Vec::<String>::new());
    assert_eq!(app.titles((FABRIKAM, ADMIN)).await, ["other"]);
    // The counters are gone too.
    let created = app.send_as(
        (CONTOSO, ADMIN),
        Method::POST,
        "/api/tasks",
        Some(title_body("x")),
    );
    assert_eq!(created.await.json()["id"], 1);
}
