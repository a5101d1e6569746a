//! Changes of settings while the service runs.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::http::{Method, StatusCode};
use serde_json::Value;
use tenant_tasks::clock::SystemClock;
use tokio::task::JoinSet;

use crate::{
    suite::service::Service,
    support::{
        app::{Answer, answer, listen},
        entra::MockEntra,
        users::{ADMIN, CONTOSO, FABRIKAM, NORTHWIND, Tenant},
    },
};

/// Starts a service with its allow-list in `.env`, and the mock Entra that it trusts.
async fn start(allowed: &[Tenant]) -> (MockEntra, Service) {
    let entra = MockEntra::start(listen().await, Arc::new(SystemClock::new()));
    let service = Service::start_with_file(
        &file(allowed),
        &[("AZURE_AUTHORITY_HOST", &entra.authority)],
    );
    (entra, service)
}

fn file(allowed: &[Tenant]) -> String {
    let tenants: Vec<_> = allowed.iter().map(|tenant| tenant.id).collect();
    format!("ALLOWED_TENANT_IDS={}\n", tenants.join(","))
}

async fn me(client: &reqwest::Client, service: &Service, token: &str) -> Answer {
    answer(
        client
            .request(Method::GET, format!("http://{}/api/me", service.address))
            .bearer_auth(token),
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_changes_tenants_without_affecting_others() {
    let (entra, service) = start(&[CONTOSO, FABRIKAM]).await;
    let tokens = [CONTOSO, FABRIKAM, NORTHWIND].map(|tenant| entra.v1(tenant, ADMIN).sign());
    let [kept, removed_token, added_token] = &tokens;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    assert_eq!(
        me(&client, &service, removed_token).await.status,
        StatusCode::OK
    );
    assert_eq!(
        me(&client, &service, added_token).await.status,
        StatusCode::FORBIDDEN
    );

    // Load on a tenant that stays allowed, before, during and after the change.
    let answers = Arc::new(AtomicUsize::new(0));
    let mut load = JoinSet::new();
    for _ in 0..4 {
        let url = format!("http://{}/api/me", service.address);
        let (answers, client, kept) = (Arc::clone(&answers), client.clone(), kept.clone());
        load.spawn(async move {
            loop {
                let request = client.request(Method::GET, &url).bearer_auth(&kept);
                assert_eq!(answer(request).await.status, StatusCode::OK);
                answers.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    let mut more_answers = async || {
        let target = answers.load(Ordering::SeqCst) + 500;
        while answers.load(Ordering::SeqCst) < target {
            assert!(load.try_join_next().is_none(), "a request failed");
            tokio::task::yield_now().await;
        }
    };
    more_answers().await;
    service.rewrite_file(&file(&[CONTOSO, NORTHWIND]));
    service.signal("-HUP");
    tokio::task::block_in_place(|| service.wait_for_line("tenant removed"));
    let (removed, added) = (
        me(&client, &service, removed_token).await,
        me(&client, &service, added_token).await,
    );
    more_answers().await;
    println!(
        "{} requests of the tenant that stayed allowed, none failed",
        answers.load(Ordering::SeqCst)
    );
    assert_eq!(
        (removed.status, added.status),
        (StatusCode::FORBIDDEN, StatusCode::OK)
    );
    assert_eq!(entra.fetches(NORTHWIND), 1, "the keys are fetched once");
}

#[tokio::test(flavor = "multi_thread")]
async fn env_file_change_is_applied_without_a_signal() {
    let (entra, service) = start(&[CONTOSO]).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let token = entra.v1(FABRIKAM, ADMIN).sign();
    assert_eq!(
        me(&client, &service, &token).await.status,
        StatusCode::FORBIDDEN
    );
    service.rewrite_file(&file(&[CONTOSO, FABRIKAM]));
    let line =
        tokio::task::spawn_blocking(move || (service.wait_for_line("tenant added"), service));
    let (line, service) = line.await.unwrap();
    assert!(line.contains(FABRIKAM.id), "{line}");
    assert_eq!(me(&client, &service, &token).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_settings_that_need_a_restart_are_named() {
    let (_entra, service) = start(&[CONTOSO]).await;
    // PORT is set in the environment, which takes precedence.
    let more = "PORT=1\nMAX_TASKS_PER_TENANT=7\nREVOKED_KEY_IDS=old\nDOCS=off\nOTHER=1\n";
    service.rewrite_file(&format!("{}{more}", file(&[CONTOSO])));
    service.signal("-HUP");
    let line = tokio::task::block_in_place(|| service.wait_for_line("need a restart"));
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["settings"], "DOCS, MAX_TASKS_PER_TENANT");
    assert_eq!(line["level"], "WARN");
}

#[tokio::test(flavor = "multi_thread")]
async fn env_file_that_is_a_fifo_does_not_stop_the_service() {
    let (entra, service) = start(&[CONTOSO]).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let token = entra.v1(CONTOSO, ADMIN).sign();
    service.replace_file_by_fifo();
    let line = tokio::task::block_in_place(|| service.wait_for_line("settings not reloaded"));
    assert!(
        line.contains("cannot read .env: it is not a regular file"),
        "{line}"
    );
    assert_eq!(me(&client, &service, &token).await.status, StatusCode::OK);
    service.rewrite_file(&file(&[CONTOSO, FABRIKAM]));
    tokio::task::block_in_place(|| service.wait_for_line("tenant added"));
    service.signal("-TERM");
    let (status, _) = tokio::task::block_in_place(|| service.finish());
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_settings_are_logged_and_not_applied() {
    let (entra, service) = start(&[CONTOSO]).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let token = entra.v1(CONTOSO, ADMIN).sign();
    for (invalid, reason) in [
        (
            "ALLOWED_TENANT_IDS=contoso\n",
            "ALLOWED_TENANT_IDS must list the GUIDs",
        ),
        ("ALLOWED_TENANT_IDS=\n", "ALLOWED_TENANT_IDS is empty"),
        ("PORT=0\nALLOWED_TENANT_IDS=a, b\n", ".env, line 2"),
        (&"#".repeat(1024 * 1024 + 1), "it is larger than 1 MiB"),
    ] {
        service.rewrite_file(invalid);
        service.signal("-HUP");
        let line = tokio::task::block_in_place(|| service.wait_for_line("settings not reloaded"));
        assert!(line.contains(reason), "{line}");
        assert_eq!(
            me(&client, &service, &token).await.status,
            StatusCode::OK,
            "{invalid}"
        );
    }
}
