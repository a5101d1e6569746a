//! Settings that change while the service runs.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::http::{Method, StatusCode};
use tenant_tasks::clock::SystemClock;
use tokio::task::JoinSet;

use crate::{
    service::Service,
    support::{
        app::{Answer, answer, listen},
        entra::MockEntra,
        users::{ADMIN, CONTOSO, FABRIKAM, NORTHWIND, Tenant},
    },
};

/// A service whose allowed tenants are in a file, and the stand-in it trusts.
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
async fn on_sighup_tenants_come_and_go_under_load_and_nobody_else_notices() {
    let (entra, service) = start(&[CONTOSO, FABRIKAM]).await;
    let tokens = [CONTOSO, FABRIKAM, NORTHWIND].map(|tenant| entra.v1(tenant, ADMIN).sign());
    let [staying, leaving, coming] = &tokens;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    assert_eq!(me(&client, &service, leaving).await.status, StatusCode::OK);
    assert_eq!(
        me(&client, &service, coming).await.status,
        StatusCode::FORBIDDEN
    );

    // Load on a tenant that stays, from before the change until after it.
    let answered = Arc::new(AtomicUsize::new(0));
    let mut load = JoinSet::new();
    for _ in 0..4 {
        let url = format!("http://{}/api/me", service.address);
        let (answered, client, staying) = (Arc::clone(&answered), client.clone(), staying.clone());
        load.spawn(async move {
            loop {
                let request = client.request(Method::GET, &url).bearer_auth(&staying);
                assert_eq!(answer(request).await.status, StatusCode::OK);
                answered.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    let mut more_answers = async || {
        let enough = answered.load(Ordering::SeqCst) + 500;
        while answered.load(Ordering::SeqCst) < enough {
            assert!(load.try_join_next().is_none(), "a request failed");
            tokio::task::yield_now().await;
        }
    };
    more_answers().await;
    service.rewrite_file(&file(&[CONTOSO, NORTHWIND]));
    service.signal("-HUP");
    tokio::task::block_in_place(|| service.wait_for_line("tenant removed"));
    let (removed, added) = (
        me(&client, &service, leaving).await,
        me(&client, &service, coming).await,
    );
    more_answers().await;
    println!(
        "{} requests of the tenant that stayed, none failed",
        answered.load(Ordering::SeqCst)
    );
    assert_eq!(
        (removed.status, added.status),
        (StatusCode::FORBIDDEN, StatusCode::OK)
    );
    assert_eq!(
        entra.fetches(NORTHWIND),
        1,
        "prefetched, or fetched once for the first request"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_file_is_noticed_without_being_told() {
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
async fn settings_that_make_no_sense_change_nothing_and_the_log_says_why() {
    let (entra, service) = start(&[CONTOSO]).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let token = entra.v1(CONTOSO, ADMIN).sign();
    for (broken, reason) in [
        (
            "ALLOWED_TENANT_IDS=contoso\n",
            "ALLOWED_TENANT_IDS must list GUIDs",
        ),
        ("ALLOWED_TENANT_IDS=\n", "ALLOWED_TENANT_IDS lists nobody"),
        ("no assignment\n", ".env, line 1"),
    ] {
        service.rewrite_file(broken);
        service.signal("-HUP");
        let line = tokio::task::block_in_place(|| service.wait_for_line("settings not reloaded"));
        assert!(line.contains(reason), "{line}");
        assert_eq!(
            me(&client, &service, &token).await.status,
            StatusCode::OK,
            "{broken}"
        );
    }
}
