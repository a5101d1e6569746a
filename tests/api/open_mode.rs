//! Open mode, and any mode under a flood of strangers: memory and fetches stay bounded.

use std::{fs, time::Duration};

use axum::http::StatusCode;
use tenant_tasks::{auth::AuthError, clock::Clock};

use crate::support::{
    app::TestApp,
    people::{ADMIN, CONTOSO, FABRIKAM, NORTHWIND, Organisation},
    tokens::Token,
};

/// An organisation nobody has heard of.
fn stranger(number: usize) -> Organisation {
    let tenant = format!("{number:08x}-0000-4000-8000-000000000000");
    Organisation { name: "stranger", tenant: Box::leak(tenant.into_boxed_str()) }
}

/// A token that gets as far as its key, and no further.
fn strangers_token(good: &Token, number: usize) -> String {
    let tenant = format!("{number:08x}-0000-4000-8000-000000000000");
    let issuer = format!("https://sts.windows.net/{tenant}/");
    good.clone().with("tid", tenant).with("iss", issuer).unsigned()
}

async fn open() -> TestApp {
    TestApp::start_with(&[("ALLOW_ANY_TENANT", "true")]).await
}

/// Resident memory of this process, in KiB.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn a_tenant_entra_does_not_know_is_remembered_as_such_for_a_while() {
    let app = open().await;
    let token = app.entra.v1(stranger(7), ADMIN).sign();
    for _ in 0..5 {
        let answer = app.me(&token).await;
        assert_eq!(
            (answer.status, answer.detail()),
            (StatusCode::UNAUTHORIZED, "Unable to find signing key".into())
        );
    }
    assert_eq!(app.entra.all_fetches(), 1);
    app.clock.step(Duration::from_mins(5));
    app.me(&token).await;
    assert_eq!(app.entra.all_fetches(), 2);
}

#[tokio::test]
async fn a_flood_of_strangers_fetches_little_and_pushes_out_no_tenant_with_users() {
    let app = open().await;
    let good = app.entra.v1(CONTOSO, ADMIN).sign();
    assert_eq!(app.me(&good).await.status, StatusCode::OK);
    let template = app.entra.v1(CONTOSO, ADMIN);
    for number in 0..5000 {
        let refused = app.verifier.verify(&strangers_token(&template, number)).await;
        assert!(matches!(refused, Err(AuthError::InvalidToken(_) | AuthError::KeysUnavailable { .. })));
    }
    assert_eq!(app.me(&good).await.status, StatusCode::OK);
    assert_eq!(app.entra.fetches(CONTOSO), 1, "its keys were still at hand");

    // A newcomer has to wait for a second or so, not for the end of the flood.
    app.clock.step(Duration::from_secs(1));
    assert_eq!(app.me(&app.entra.v1(FABRIKAM, ADMIN).sign()).await.status, StatusCode::OK);
}

#[tokio::test]
async fn strangers_tokens_for_a_real_tenant_earn_it_no_place_among_the_known() {
    let app = open().await;
    let forged = app.entra.v1(NORTHWIND, ADMIN).unsigned();
    assert_eq!(app.me(&forged).await.detail(), "Token signature is invalid");
    // Its keys are not refreshed: nobody has proven to belong to it.
    app.clock.step(Duration::from_hours(2));
    app.verifier.start_due_fetches().await;
    assert_eq!(app.entra.fetches(NORTHWIND), 1);
    // With one good token it is known, and its keys are refreshed, until a day without any.
    assert_eq!(app.me(&app.entra.v1(NORTHWIND, ADMIN).sign()).await.status, StatusCode::OK);
    app.clock.step(Duration::from_hours(2));
    app.verifier.start_due_fetches().await;
    assert_eq!(app.entra.fetches(NORTHWIND), 2);
    app.clock.step(Duration::from_hours(25));
    app.verifier.start_due_fetches().await;
    assert_eq!(app.entra.fetches(NORTHWIND), 2);
}

/// `ALLOW_ANY_TENANT`, and how many of 100,000 requests may fetch: the burst of strangers, and
/// five a second for as long as the flood lasts.
#[tokio::test]
async fn a_hundred_thousand_random_tenants_leave_memory_and_fetches_where_they_were() {
    for (case, settings) in
        [("open mode", [("ALLOW_ANY_TENANT", "true")]), ("list mode", [("ALLOW_ANY_TENANT", "false")])]
    {
        let app = TestApp::start_with(&settings).await;
        let template = app.entra.v1(CONTOSO, ADMIN);
        let flood = async |numbers: std::ops::Range<usize>| {
            for number in numbers {
                assert!(app.verifier.verify(&strangers_token(&template, number)).await.is_err());
            }
        };
        let started = app.clock.monotonic();
        flood(0..20_000).await;
        let before = resident();
        flood(20_000..100_000).await;
        let (after, fetches) = (resident(), u64::try_from(app.entra.all_fetches()).unwrap());
        let lasted = app.clock.since(started);
        println!(
            "{case}: {fetches} fetches in {lasted:.1?}; {before} KiB after 20,000, {after} KiB after 100,000"
        );
        let most = if case == "open mode" { 20 + 5 * (lasted.as_secs() + 1) } else { 0 };
        assert!(fetches <= most, "{case}: {fetches} fetches in {lasted:?}");
        // Other tests run in this process too, so the bound is wide; a leak would be wider.
        assert!(after < before + 64 * 1024, "{case}: from {before} to {after} KiB");
    }
}
