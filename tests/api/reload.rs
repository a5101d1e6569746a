//! Settings that change while the service runs.

use axum::http::{Method, StatusCode};
use tokio::sync::watch;

use crate::{
    service::Service,
    support::{
        app::{Answer, TestApp, answer},
        people::{ADMIN, CONTOSO, FABRIKAM, NORTHWIND, Organisation},
    },
};

/// A service whose allowed tenants are in a file, with the stand-in of a [`TestApp`].
async fn start(allowed: &[Organisation]) -> (TestApp, Service) {
    let app = TestApp::start().await;
    let service = Service::start_with_file(&file(allowed), &[("AZURE_AUTHORITY_HOST", &app.entra.authority)]);
    (app, service)
}

fn file(allowed: &[Organisation]) -> String {
    let tenants: Vec<_> = allowed.iter().map(|organisation| organisation.tenant).collect();
    format!("ALLOWED_TENANT_IDS={}\n", tenants.join(","))
}

async fn me(client: &reqwest::Client, service: &Service, token: &str) -> Answer {
    answer(client.request(Method::GET, format!("http://{}/api/me", service.address)).bearer_auth(token)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sighup_tenants_come_and_go_under_load_and_nobody_else_notices() {
    let (app, service) = start(&[CONTOSO, FABRIKAM]).await;
    let tokens = [CONTOSO, FABRIKAM, NORTHWIND].map(|organisation| app.entra.v1(organisation, ADMIN).sign());
    let [staying, leaving, coming] = &tokens;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    assert_eq!(me(&client, &service, leaving).await.status, StatusCode::OK);
    assert_eq!(me(&client, &service, coming).await.status, StatusCode::FORBIDDEN);

    // Load on a tenant that stays, from before the change until after it.
    let (stop, stopped) = watch::channel(false);
    let load: Vec<_> = (0..4)
        .map(|_| {
            let url = format!("http://{}/api/me", service.address);
            let (stopped, client, staying) = (stopped.clone(), client.clone(), staying.clone());
            tokio::spawn(async move {
                let mut requests = 0;
                while !*stopped.borrow() {
                    let request = client.request(Method::GET, &url).bearer_auth(&staying);
                    assert_eq!(answer(request).await.status, StatusCode::OK);
                    requests += 1;
                }
                requests
            })
        })
        .collect();

    service.rewrite_file(&file(&[CONTOSO, NORTHWIND]));
    service.signal("-HUP");
    tokio::task::block_in_place(|| service.wait_for_line("tenant removed"));
    let (removed, added) = (me(&client, &service, leaving).await, me(&client, &service, coming).await);
    stop.send(true).unwrap();
    let mut requests = 0;
    for load in load {
        requests += load.await.unwrap();
    }
    println!("{requests} requests of the tenant that stayed, none failed");
    assert!(requests > 0);
    assert_eq!((removed.status, added.status), (StatusCode::FORBIDDEN, StatusCode::OK));
    assert_eq!(app.entra.fetches(NORTHWIND), 1, "prefetched, or fetched once for the first request");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_file_is_noticed_without_being_told() {
    let (app, service) = start(&[CONTOSO]).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let token = app.entra.v1(FABRIKAM, ADMIN).sign();
    assert_eq!(me(&client, &service, &token).await.status, StatusCode::FORBIDDEN);
    service.rewrite_file(&file(&[CONTOSO, FABRIKAM]));
    let line = tokio::task::spawn_blocking(move || (service.wait_for_line("tenant added"), service));
    let (line, service) = line.await.unwrap();
    assert!(line.contains(FABRIKAM.tenant), "{line}");
    assert_eq!(me(&client, &service, &token).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_make_no_sense_change_nothing_and_the_log_says_why() {
    let (app, service) = start(&[CONTOSO]).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let token = app.entra.v1(CONTOSO, ADMIN).sign();
    for (broken, reason) in [
        ("ALLOWED_TENANT_IDS=contoso\n", "ALLOWED_TENANT_IDS must list GUIDs"),
        ("ALLOWED_TENANT_IDS=\n", "ALLOWED_TENANT_IDS lists nobody"),
        ("no assignment\n", ".env, line 1"),
    ] {
        service.rewrite_file(broken);
        service.signal("-HUP");
        let line = tokio::task::block_in_place(|| service.wait_for_line("settings not reloaded"));
        assert!(line.contains(reason), "{line}");
        assert_eq!(me(&client, &service, &token).await.status, StatusCode::OK, "{broken}");
    }
}
