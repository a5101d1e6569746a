//! The cache of verified tokens. A cached token is rejected as soon as it, its key or its tenant becomes invalid.

use std::{collections::HashSet, time::Duration};

use axum::http::StatusCode;
use tenant_tasks::{
    auth::{Access, AuthError, InvalidToken, RequestLog, Tenants},
    ids::KeyId,
};

use crate::{
    suite::memory::{is_repeated_in_child, resident_kib},
    support::{
        app::TestApp,
        entra::KeysResponse,
        tokens::SigningKey,
        users::{ADMIN, CONTOSO, EDITOR, FABRIKAM},
    },
};

/// Starts a service whose cache contains the returned token.
async fn start_with_cached_token() -> (TestApp, String) {
    let app = TestApp::start().await;
    let token = app
        .entra
        .v1(CONTOSO, ADMIN)
        .with("exp", app.entra.now() + 48 * 3600)
        .sign();
    for _ in 0..2 {
        assert_eq!(app.me(&token).await.status, StatusCode::OK);
    }
    (app, token)
}

fn access(tenants: &[&str], revoked_keys: HashSet<KeyId>) -> Access {
    let tenants = tenants
        .iter()
        .map(|tenant| tenant.parse().unwrap())
        .collect();
    Access::from_settings(Tenants::Listed(tenants), revoked_keys)
}

#[tokio::test]
async fn token_differing_in_one_byte_is_rejected() {
    let (app, token) = start_with_cached_token().await;
    for index in (0..token.len()).step_by(7).chain([token.len() - 2]) {
        let mut bytes = token.clone().into_bytes();
        bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(bytes).unwrap();
        assert!(
            app.verifier
                .verify(&altered, &RequestLog::default())
                .await
                .is_err(),
            "byte {index}"
        );
    }
    assert_eq!(app.me(&token).await.status, StatusCode::OK);
}

#[tokio::test]
async fn cached_claims_with_other_signature_are_rejected() {
    let (app, token) = start_with_cached_token().await;
    let (message, _) = token.rsplit_once('.').unwrap();
    let other_token = app.entra.v1(CONTOSO, EDITOR).sign();
    let (_, other_signature) = other_token.rsplit_once('.').unwrap();
    for signature in [other_signature, "AAAA", ""] {
        assert_eq!(
            app.me(&format!("{message}.{signature}")).await.status,
            StatusCode::UNAUTHORIZED
        );
    }
    let changed = app
        .entra
        .v1(CONTOSO, ADMIN)
        .signed_by(SigningKey::second().named("unpublished"))
        .sign();
    assert_eq!(app.me(&changed).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn cached_token_expires_to_the_second() {
    let app = TestApp::start().await;
    let token = app
        .entra
        .v1(CONTOSO, ADMIN)
        .with("exp", app.entra.now() + 600)
        .sign();
    assert_eq!(app.me(&token).await.status, StatusCode::OK);
    // 60 seconds of leeway.
    app.clock.step(Duration::from_secs(600 + 59));
    assert_eq!(app.me(&token).await.status, StatusCode::OK);
    app.clock.step(Duration::from_secs(1));
    let answer = app.me(&token).await;
    assert_eq!(
        (answer.status, answer.detail().as_str()),
        (StatusCode::UNAUTHORIZED, "Token has expired")
    );
}

#[tokio::test]
async fn cached_token_of_removed_tenant_is_rejected() {
    let (app, token) = start_with_cached_token().await;
    app.verifier
        .replace_access(access(&[FABRIKAM.id], HashSet::new()));
    assert_eq!(app.me(&token).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn cached_token_with_revoked_key_is_rejected() {
    let (app, token) = start_with_cached_token().await;
    let key_id = KeyId::parse(&SigningKey::first().key_id).unwrap();
    app.verifier
        .replace_access(access(&[CONTOSO.id], HashSet::from([key_id])));
    let answer = app.me(&token).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(answer.detail(), "Unable to find signing key");
    app.verifier
        .replace_access(access(&[CONTOSO.id], HashSet::new()));
    assert_eq!(
        app.me(&token).await.status,
        StatusCode::OK,
        "the token is accepted after the revocation is withdrawn"
    );
}

#[tokio::test]
async fn cached_token_is_rejected_when_its_key_expires() {
    let (app, token) = start_with_cached_token().await;
    app.entra
        .set_keys_response(CONTOSO, KeysResponse::Status(503));
    app.clock
        .step(Duration::from_hours(24) - Duration::from_secs(1));
    assert_eq!(app.me(&token).await.status, StatusCode::OK);
    app.clock.step(Duration::from_secs(1));
    assert_eq!(app.me(&token).await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn cached_token_is_bound_to_its_key() {
    let (app, token) = start_with_cached_token().await;
    let impostor = SigningKey::third().named(&SigningKey::first().key_id);
    app.verifier
        .replace_access(access(&[FABRIKAM.id], HashSet::new()));
    app.entra.publish(CONTOSO, &[impostor.jwk()]);
    app.verifier
        .replace_access(access(&[CONTOSO.id], HashSet::new()));
    // Waits for the fetch of the impostor's document. From here on its key is the cached one.
    let impostor_token = app.entra.v1(CONTOSO, ADMIN).signed_by(impostor).sign();
    app.verifier
        .verify(&impostor_token, &RequestLog::default())
        .await
        .unwrap();
    let error = app
        .verifier
        .verify(&token, &RequestLog::default())
        .await
        .unwrap_err();
    let is_signature = matches!(error, AuthError::InvalidToken(InvalidToken::Signature(_)));
    assert!(is_signature, "{error}");
}

#[tokio::test]
async fn token_rejected_for_its_scope_is_not_cached() {
    let app = TestApp::start().await;
    let token = app.entra.v1(CONTOSO, ADMIN).with("scp", "User.Read").sign();
    for _ in 0..3 {
        assert_eq!(app.me(&token).await.status, StatusCode::FORBIDDEN);
    }
}

/// The tokens are close to the size limit and have about 60 MB of claims in total, more than the cache holds.
#[tokio::test]
async fn cache_memory_is_bounded_and_tokens_stay_valid() {
    const TOKENS: usize = 6000;
    if crate::ON_POSTGRES || is_repeated_in_child() {
        return;
    }
    let app = TestApp::start().await;
    let roles: Vec<_> = (0..100)
        .map(|number| format!("Editor-of-everything-{number:050}"))
        .collect();
    let token = |number: usize| {
        app.entra
            .v1(CONTOSO, ADMIN)
            .with("roles", roles.clone())
            .with("uti", format!("{number}"))
            .sign()
    };
    let first = token(0);
    app.verifier
        .verify(&first, &RequestLog::default())
        .await
        .unwrap();
    let before = resident_kib();
    for number in 1..=TOKENS {
        app.verifier
            .verify(&token(number), &RequestLog::default())
            .await
            .unwrap();
    }
    let growth = resident_kib().saturating_sub(before);
    println!("{TOKENS} tokens with 7 KB of roles each: {growth} KiB more memory");
    assert!(growth < 48 * 1024, "{growth} KiB");
    // An entry takes about 10 KB of 32 MiB.
    let (_, _, cached) = app.verifier.token_cache_stats();
    assert!((3000..3700).contains(&cached), "{cached} tokens are cached");
    app.verifier
        .verify(&first, &RequestLog::default())
        .await
        .unwrap();
}
