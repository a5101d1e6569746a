//! A token that has been verified is remembered, and yet refused as soon as anything speaks against it.

use std::{collections::HashSet, time::Duration};

use axum::http::StatusCode;
use tenant_tasks::auth::{Access, AuthError, Caller, InvalidToken, KeyId, Tenants};

use crate::{
    open_mode::resident,
    support::{
        app::TestApp,
        entra::KeysResponse,
        tokens::SigningKey,
        users::{ADMIN, CONTOSO, EDITOR, FABRIKAM},
    },
};

/// A service that has just accepted this token, twice.
async fn accepted() -> (TestApp, String) {
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
    Access {
        tenants: Tenants::Listed(tenants),
        revoked_keys,
    }
}

#[tokio::test]
async fn a_token_that_differs_in_one_byte_is_not_the_one_that_was_verified() {
    let (app, token) = accepted().await;
    for index in (0..token.len()).step_by(7).chain([token.len() - 2]) {
        let mut bytes = token.clone().into_bytes();
        bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
        let other = String::from_utf8(bytes).unwrap();
        assert!(
            app.verifier
                .verify(&other, &Caller::default())
                .await
                .is_err(),
            "byte {index}"
        );
    }
    assert_eq!(app.me(&token).await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_same_payload_with_another_signature_is_refused() {
    let (app, token) = accepted().await;
    let (message, _) = token.rsplit_once('.').unwrap();
    let other = app.entra.v1(CONTOSO, EDITOR).sign();
    let (_, foreign_signature) = other.rsplit_once('.').unwrap();
    for signature in [foreign_signature, "AAAA", ""] {
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
async fn it_expires_to_the_second() {
    let app = TestApp::start().await;
    let token = app
        .entra
        .v1(CONTOSO, ADMIN)
        .with("exp", app.entra.now() + 600)
        .sign();
    assert_eq!(app.me(&token).await.status, StatusCode::OK);
    // A minute of leeway.
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
async fn its_tenant_is_refused_on_the_very_next_request_after_it_was_removed() {
    let (app, token) = accepted().await;
    app.verifier
        .replace_access(access(&[FABRIKAM.id], HashSet::new()));
    assert_eq!(app.me(&token).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn its_key_is_refused_on_the_very_next_request_after_it_was_revoked() {
    let (app, token) = accepted().await;
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
        "and good again when that is taken back"
    );
}

#[tokio::test]
async fn it_is_refused_when_its_key_has_not_been_seen_for_a_day() {
    let (app, token) = accepted().await;
    app.entra
        .set_keys_response(CONTOSO, KeysResponse::Status(503));
    app.clock
        .step(Duration::from_hours(24) - Duration::from_secs(1));
    assert_eq!(app.me(&token).await.status, StatusCode::OK);
    app.clock.step(Duration::from_secs(1));
    assert_eq!(app.me(&token).await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn another_key_under_the_same_key_id_does_not_vouch_for_it() {
    let (app, token) = accepted().await;
    let impostor = SigningKey::third().named(&SigningKey::first().key_id);
    app.verifier
        .replace_access(access(&[FABRIKAM.id], HashSet::new()));
    app.entra.publish(CONTOSO, &[impostor.jwk()]);
    app.verifier
        .replace_access(access(&[CONTOSO.id], HashSet::new()));
    // Waits for the impostor's document: from here on its key is the one at hand.
    let theirs = app.entra.v1(CONTOSO, ADMIN).signed_by(impostor).sign();
    app.verifier
        .verify(&theirs, &Caller::default())
        .await
        .unwrap();
    let error = app
        .verifier
        .verify(&token, &Caller::default())
        .await
        .unwrap_err();
    assert_eq!(error, AuthError::InvalidToken(InvalidToken::Signature));
}

#[tokio::test]
async fn it_is_not_remembered_who_was_refused_for_the_scope() {
    let app = TestApp::start().await;
    let token = app.entra.v1(CONTOSO, ADMIN).with("scp", "User.Read").sign();
    for _ in 0..3 {
        assert_eq!(app.me(&token).await.status, StatusCode::FORBIDDEN);
    }
}

/// Some 60 MB of what tokens say, each with as many roles as a token can hold: more than is remembered.
#[tokio::test]
async fn more_tokens_than_are_remembered_take_no_more_memory_and_all_stay_good() {
    const TOKENS: usize = 6000;
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
        .verify(&first, &Caller::default())
        .await
        .unwrap();
    let before = resident();
    for number in 1..=TOKENS {
        app.verifier
            .verify(&token(number), &Caller::default())
            .await
            .unwrap();
    }
    let grown = resident().saturating_sub(before);
    println!("{TOKENS} tokens with 7 KB of roles each: {grown} KiB more memory");
    assert!(grown < 48 * 1024, "{grown} KiB");
    app.verifier
        .verify(&first, &Caller::default())
        .await
        .unwrap();
}
