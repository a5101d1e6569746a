//! Open mode. Memory and fetches stay bounded under a flood of tokens from unknown tenants, in list mode too.

use std::{ops::Range, time::Duration};

use axum::http::StatusCode;
use tenant_tasks::auth::{AuthError, RequestLog};

use crate::{
    suite::memory::{is_repeated_in_child, resident_kib},
    support::{
        app::TestApp,
        entra::KeysResponse,
        tokens::{SigningKey, Token},
        users::{ADMIN, CONTOSO, FABRIKAM, NORTHWIND, Tenant, absent_tenant},
    },
};

/// A tenant that does not exist.
fn unknown_tenant(number: usize) -> Tenant {
    Tenant {
        name: "unknown",
        id: Box::leak(absent_tenant(number).into_boxed_str()),
    }
}

/// A token of an unknown tenant that passes all checks before its key is needed.
fn unverifiable_token(template: &Token, number: usize) -> String {
    let tenant = absent_tenant(number);
    let issuer = format!("https://sts.windows.net/{tenant}/");
    template
        .clone()
        .with("tid", tenant)
        .with("iss", issuer)
        .unsigned()
}

async fn assert_rejected(app: &TestApp, token: &str) {
    let result = app.verifier.verify(token, &RequestLog::default()).await;
    assert!(matches!(
        result,
        Err(AuthError::InvalidToken(_) | AuthError::KeysUnavailable { .. })
    ));
}

async fn start_open_mode() -> TestApp {
    TestApp::start_with(&[("ALLOW_ANY_TENANT", "true")]).await
}

#[tokio::test]
async fn unknown_tenant_is_cached_for_five_minutes() {
    let app = start_open_mode().await;
    let token = app.entra.v1(unknown_tenant(7), ADMIN).sign();
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
async fn flood_of_unknown_tenants_evicts_no_proven_tenant() {
    let app = start_open_mode().await;
    let contoso_token = app.entra.v1(CONTOSO, ADMIN).sign();
    assert_eq!(app.me(&contoso_token).await.status, StatusCode::OK);
    let template = app.entra.v1(CONTOSO, ADMIN);
    for number in 0..5000 {
        assert_rejected(&app, &unverifiable_token(&template, number)).await;
    }
    assert_eq!(
        app.entra.all_fetches(),
        1 + 49,
        "one fetch for contoso, and the rest of a burst of 50 for unproven tenants"
    );
    assert_eq!(app.me(&contoso_token).await.status, StatusCode::OK);
    assert_eq!(app.entra.fetches(CONTOSO), 1, "its keys were evicted");

    // A tenant without cached keys is served a second later, before the flood ends.
    app.clock.step(Duration::from_secs(1));
    assert_eq!(
        app.me(&app.entra.v1(FABRIKAM, ADMIN).sign()).await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn forged_token_does_not_promote_its_tenant() {
    let app = start_open_mode().await;
    let forged = app.entra.v1(NORTHWIND, ADMIN).unsigned();
    assert_eq!(app.me(&forged).await.detail(), "Token signature is invalid");
    // Without a verified token, the keys of a tenant are not refreshed.
    app.clock.step(Duration::from_hours(2));
    app.verifier.start_due_fetches().await;
    assert_eq!(app.entra.fetches(NORTHWIND), 1);
    // After a verified token, they are refreshed until 30 days pass without another one.
    assert_eq!(
        app.me(&app.entra.v1(NORTHWIND, ADMIN).sign()).await.status,
        StatusCode::OK
    );
    app.clock.step(Duration::from_hours(2));
    app.verifier.start_due_fetches().await;
    assert_eq!(app.entra.fetches(NORTHWIND), 2);
    for fetches in 3..5 {
        app.clock.step(Duration::from_hours(29 * 24));
        app.verifier.start_due_fetches().await;
        assert_eq!(app.entra.fetches(NORTHWIND), fetches);
        let token = app.entra.v1(NORTHWIND, ADMIN).sign();
        assert_eq!(app.me(&token).await.status, StatusCode::OK);
    }
    app.clock.step(Duration::from_hours(30 * 24));
    app.verifier.start_due_fetches().await;
    assert_eq!(app.entra.fetches(NORTHWIND), 4);
}

#[tokio::test]
async fn tenant_proven_during_a_flood_stays_cached() {
    let app = start_open_mode().await;
    app.entra
        .set_keys_response(FABRIKAM, KeysResponse::Delay(Duration::from_millis(500)));
    let fabrikam_token = app.entra.v1(FABRIKAM, ADMIN).sign();
    let template = app.entra.v1(CONTOSO, ADMIN);
    let flood = async {
        for number in 0..1500 {
            // The fetch limit for unproven tenants allows one fetch every 50 ms.
            app.clock.step(Duration::from_millis(50));
            assert_rejected(&app, &unverifiable_token(&template, number)).await;
        }
    };
    let (answer, ()) = tokio::join!(app.me(&fabrikam_token), flood);
    assert_eq!(answer.status, StatusCode::OK);
    assert!(
        app.entra.all_fetches() > 1000,
        "the flood did not fill the cache"
    );
    assert_eq!(app.me(&fabrikam_token).await.status, StatusCode::OK);
    assert_eq!(app.entra.fetches(FABRIKAM), 1);
}

#[tokio::test]
async fn unproven_tenant_recovers_after_a_failed_fetch() {
    let app = start_open_mode().await;
    // A forged token causes a fetch of the keys. Then the keys roll over, and one fetch fails.
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
async fn listed_tenants_are_prefetched_in_open_mode() {
    let app = start_open_mode().await;
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

/// In open mode, unproven tenants have a burst of 50 fetches, and the clock does not advance here. In list mode they
/// cause no fetch.
#[tokio::test]
async fn flood_of_tenants_uses_bounded_resources() {
    if crate::ON_POSTGRES || is_repeated_in_child() {
        return;
    }
    for (case, allow_any, allowed_fetches) in [("open mode", "true", 50), ("list mode", "false", 0)]
    {
        let app = TestApp::start_with(&[("ALLOW_ANY_TENANT", allow_any)]).await;
        let template = app.entra.v1(CONTOSO, ADMIN);
        let flood = async |numbers: Range<usize>| {
            for number in numbers {
                assert!(
                    app.verifier
                        .verify(
                            &unverifiable_token(&template, number),
                            &RequestLog::default()
                        )
                        .await
                        .is_err()
                );
            }
        };
        flood(0..5000).await;
        let before = resident_kib();
        flood(5000..40_000).await;
        let (after, fetches) = (resident_kib(), app.entra.all_fetches());
        println!(
            "{case}: {fetches} fetches; {before} KiB after 5,000 requests, {after} KiB after 40,000"
        );
        assert_eq!(fetches, allowed_fetches, "{case}");
        assert!(
            before > 0 && after < before + 4 * 1024,
            "{case}: from {before} to {after} KiB"
        );
    }
}
