//! Open mode, and any mode under a flood of strangers: memory and fetches stay bounded.

use std::{env, fs, ops::Range, process::Command, time::Duration};

use axum::http::StatusCode;
use tenant_tasks::auth::{AuthError, Caller};

use crate::support::{
    app::TestApp,
    entra::KeysResponse,
    tokens::{SigningKey, Token},
    users::{ADMIN, CONTOSO, FABRIKAM, NORTHWIND, Tenant, absent_tenant},
};

/// An tenant nobody has heard of.
fn stranger(number: usize) -> Tenant {
    Tenant {
        name: "stranger",
        id: Box::leak(absent_tenant(number).into_boxed_str()),
    }
}

/// A token that gets as far as its key, and no further.
fn strangers_token(good: &Token, number: usize) -> String {
    let tenant = absent_tenant(number);
    let issuer = format!("https://sts.windows.net/{tenant}/");
    good.clone()
        .with("tid", tenant)
        .with("iss", issuer)
        .unsigned()
}

async fn open() -> TestApp {
    TestApp::start_with(&[("ALLOW_ANY_TENANT", "true")]).await
}

/// Resident memory of this process, in KiB.
pub(crate) fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap_or("0");
    line.split_whitespace()
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

#[tokio::test]
async fn a_tenant_entra_does_not_know_is_remembered_as_such_for_a_while() {
    let app = open().await;
    let token = app.entra.v1(stranger(7), ADMIN).sign();
    for seconds in [0, 1, 298] {
        app.clock.step(Duration::from_secs(seconds));
        let answer = app.me(&token).await;
        assert_eq!(
            (answer.status, answer.detail()),
            (
                StatusCode::UNAUTHORIZED,
                "Unable to find signing key".into()
            )
        );
        assert_eq!(app.entra.all_fetches(), 1);
    }
    app.clock.step(Duration::from_secs(1));
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
        let refused = app
            .verifier
            .verify(&strangers_token(&template, number), &Caller::default())
            .await;
        assert!(matches!(
            refused,
            Err(AuthError::InvalidToken(_) | AuthError::KeysUnavailable { .. })
        ));
    }
    assert_eq!(
        app.entra.all_fetches(),
        1 + 49,
        "contoso's, and what a burst of strangers may have"
    );
    assert_eq!(app.me(&good).await.status, StatusCode::OK);
    assert_eq!(app.entra.fetches(CONTOSO), 1, "its keys were still at hand");

    // A newcomer has to wait for a second or so, not for the end of the flood.
    app.clock.step(Duration::from_secs(1));
    assert_eq!(
        app.me(&app.entra.v1(FABRIKAM, ADMIN).sign()).await.status,
        StatusCode::OK
    );
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
    // With one good token it is known, and its keys are refreshed, until 30 days without any.
    assert_eq!(
        app.me(&app.entra.v1(NORTHWIND, ADMIN).sign()).await.status,
        StatusCode::OK
    );
    app.clock.step(Duration::from_hours(2));
    app.verifier.start_due_fetches().await;
    assert_eq!(app.entra.fetches(NORTHWIND), 2);
    app.clock.step(Duration::from_hours(31 * 24));
    app.verifier.start_due_fetches().await;
    assert_eq!(app.entra.fetches(NORTHWIND), 2);
}

#[tokio::test]
async fn a_newcomer_who_comes_in_during_a_flood_keeps_their_place() {
    let app = open().await;
    app.entra
        .set_keys_response(FABRIKAM, KeysResponse::Delay(Duration::from_millis(500)));
    let newcomer = app.entra.v1(FABRIKAM, ADMIN).sign();
    let template = app.entra.v1(CONTOSO, ADMIN);
    let flood = async {
        for number in 0..1500 {
            // Time enough for each to be let through, as in a flood that lasts.
            app.clock.step(Duration::from_millis(50));
            assert!(
                app.verifier
                    .verify(&strangers_token(&template, number), &Caller::default())
                    .await
                    .is_err()
            );
        }
    };
    let (answer, ()) = tokio::join!(app.me(&newcomer), flood);
    assert_eq!(answer.status, StatusCode::OK);
    assert!(
        app.entra.all_fetches() > 1000,
        "the flood filled every place there is"
    );
    assert_eq!(app.me(&newcomer).await.status, StatusCode::OK);
    assert_eq!(app.entra.fetches(FABRIKAM), 1);
}

#[tokio::test]
async fn a_stranger_recovers_from_a_failed_fetch_without_being_known() {
    let app = open().await;
    // Someone's forged token has fetched the keys; then there is a rollover, and one failure.
    assert_eq!(
        app.me(&app.entra.v1(CONTOSO, ADMIN).unsigned())
            .await
            .status,
        StatusCode::UNAUTHORIZED
    );
    app.entra.publish(CONTOSO, &[SigningKey::third().jwk()]);
    app.entra
        .set_keys_response(CONTOSO, KeysResponse::Status(500));
    let rolled_over = app
        .entra
        .v1(CONTOSO, ADMIN)
        .signed_by(SigningKey::third())
        .sign();
    assert_eq!(
        app.me(&rolled_over).await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    app.entra
        .set_keys_response(CONTOSO, KeysResponse::Published);
    app.clock.step(Duration::from_secs(1));
    assert_eq!(app.me(&rolled_over).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_listed_tenants_keys_are_fetched_ahead_in_open_mode_too() {
    let app = open().await;
    app.verifier.start_due_fetches().await;
    assert_eq!(
        (
            app.entra.fetches(CONTOSO),
            app.entra.fetches(FABRIKAM),
            app.entra.all_fetches()
        ),
        (1, 1, 2)
    );
}

/// In open mode strangers may fetch 50 times at once, and time stands still here; in list mode
/// they never may. Memory is measured in a process of this test's own.
#[tokio::test]
async fn a_hundred_thousand_random_tenants_leave_memory_and_fetches_where_they_were() {
    const NAME: &str =
        "open_mode::a_hundred_thousand_random_tenants_leave_memory_and_fetches_where_they_were";
    if env::var_os("ALONE").is_none() {
        let mut alone = Command::new(env::current_exe().unwrap());
        let output = alone
            .args(["--exact", NAME, "--nocapture"])
            .env("ALONE", "yes")
            .output()
            .unwrap();
        println!("{}", String::from_utf8_lossy(&output.stdout));
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        return;
    }
    for (case, open, allowed_fetches) in [("open mode", "true", 50), ("list mode", "false", 0)] {
        let app = TestApp::start_with(&[("ALLOW_ANY_TENANT", open)]).await;
        let template = app.entra.v1(CONTOSO, ADMIN);
        let flood = async |numbers: Range<usize>| {
            for number in numbers {
                assert!(
                    app.verifier
                        .verify(&strangers_token(&template, number), &Caller::default())
                        .await
                        .is_err()
                );
            }
        };
        flood(0..20_000).await;
        let before = resident();
        flood(20_000..100_000).await;
        let (after, fetches) = (resident(), app.entra.all_fetches());
        println!(
            "{case}: {fetches} fetches; {before} KiB after 20,000 requests, {after} KiB after 100,000"
        );
        assert_eq!(fetches, allowed_fetches, "{case}");
        assert!(
            before > 0 && after < before + 8 * 1024,
            "{case}: from {before} to {after} KiB"
        );
    }
}
