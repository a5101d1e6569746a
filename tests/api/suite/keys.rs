//! Signing keys: which are used, and what happens if they cannot be fetched.

use axum::http::StatusCode;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::support::{
    app::TestApp,
    entra::KeysResponse,
    tokens::SigningKey,
    users::{ADMIN, CONTOSO, FABRIKAM},
};

#[tokio::test]
async fn keys_are_fetched_once_per_tenant() {
    let app = TestApp::start().await;
    for _ in 0..3 {
        for tenant in [CONTOSO, FABRIKAM] {
            assert_eq!(
                app.me(&app.entra.v1(tenant, ADMIN).sign()).await.status,
                StatusCode::OK
            );
        }
    }
    assert_eq!(
        (app.entra.fetches(CONTOSO), app.entra.fetches(FABRIKAM)),
        (1, 1)
    );
}

#[tokio::test]
async fn new_key_takes_one_fetch_and_old_key_is_kept() {
    let app = TestApp::start().await;
    let old = app.entra.v1(CONTOSO, ADMIN).sign();
    assert_eq!(app.me(&old).await.status, StatusCode::OK);

    // Entra's documents omit keys at times and list them again later, so the old key must stay valid.
    app.entra.publish(CONTOSO, &[SigningKey::third().jwk()]);
    let new = app
        .entra
        .v1(CONTOSO, ADMIN)
        .signed_by(SigningKey::third())
        .sign();
    assert_eq!(app.me(&new).await.status, StatusCode::OK);
    assert_eq!(app.me(&old).await.status, StatusCode::OK);
    assert_eq!(app.entra.fetches(CONTOSO), 2);
}

#[tokio::test]
async fn only_signing_keys_of_the_tenant_are_used() {
    let good = SigningKey::first().jwk();
    let mut shorter = BASE64_URL_SAFE_NO_PAD
        .decode(good["n"].as_str().unwrap())
        .unwrap();
    shorter[0] &= 0x7f;
    let shorter = BASE64_URL_SAFE_NO_PAD.encode(shorter);
    let changed = |member: &str, value: Value| {
        let mut key = good.clone();
        key[member] = value;
        key
    };
    let without = |member: &str| {
        let mut key = good.clone();
        key.as_object_mut().unwrap().remove(member);
        key
    };
    let ours = format!("https://login.microsoftonline.com/{}/v2.0", CONTOSO.id);
    let theirs = format!("https://login.microsoftonline.com/{}/v2.0", FABRIKAM.id);
    let personal = "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0";

    for (case, mut key, used) in [
        ("as published", good.clone(), true),
        (
            "the placeholder in other case",
            changed(
                "issuer",
                json!("https://login.microsoftonline.com/{tenantId}/v2.0"),
            ),
            true,
        ),
        ("the tenant's ID", changed("issuer", json!(ours)), true),
        (
            "the configured authority",
            changed("issuer", json!("{authority}/{tenantid}/v2.0")),
            true,
        ),
        ("no issuer, on loopback", without("issuer"), true),
        ("RS256 by name", changed("alg", json!("RS256")), true),
        (
            "the public cloud by name",
            changed("cloud_instance_name", json!("microsoftonline.com")),
            true,
        ),
        ("another tenant", changed("issuer", json!(theirs)), false),
        (
            "personal accounts",
            changed("issuer", json!(personal)),
            false,
        ),
        (
            "another host",
            changed("issuer", json!("https://login.example/{tenantid}/v2.0")),
            false,
        ),
        (
            "the version 1 issuer",
            changed("issuer", json!("https://sts.windows.net/{tenantid}/")),
            false,
        ),
        (
            "another cloud",
            changed("cloud_instance_name", json!("microsoftonline.us")),
            false,
        ),
        ("for encryption", changed("use", json!("enc")), false),
        ("no use", without("use"), false),
        ("another algorithm", changed("alg", json!("RS512")), false),
        ("not RSA", changed("kty", json!("EC")), false),
        (
            "1024 bits",
            changed("n", json!(&good["n"].as_str().unwrap()[..171])),
            false,
        ),
        ("2047 bits", changed("n", json!(shorter)), false),
        ("no modulus", without("n"), false),
        ("no exponent", without("e"), false),
        ("not an object", json!("key"), false),
    ] {
        let app = TestApp::start().await;
        // Each `TestApp` has a separate authority.
        if let Some(issuer) = key["issuer"].as_str() {
            key["issuer"] = json!(issuer.replace("{authority}", &app.entra.authority));
        }
        app.entra
            .publish(CONTOSO, &[key, SigningKey::second().jwk()]);
        let other = app.entra.v1(CONTOSO, ADMIN).signed_by(SigningKey::second());
        assert_eq!(
            app.me(&other.sign()).await.status,
            StatusCode::OK,
            "{case}: the other key of the document"
        );
        let answer = app.me(&app.entra.v1(CONTOSO, ADMIN).sign()).await;
        let expected = if used {
            StatusCode::OK
        } else {
            StatusCode::UNAUTHORIZED
        };
        assert_eq!(answer.status, expected, "{case}: {}", answer.body);
        if !used {
            assert_eq!(answer.detail(), "Unable to find signing key", "{case}");
        }
    }
}

#[tokio::test]
async fn largest_keys_document_is_accepted() {
    for (keys, bytes, status) in [
        (100, 256 * 1024, StatusCode::OK),
        (101, 256 * 1024, StatusCode::SERVICE_UNAVAILABLE),
        (100, 256 * 1024 + 1, StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let app = TestApp::start().await;
        let others = (1..keys).map(|n| SigningKey::second().named(&n.to_string()).jwk());
        let keys: Vec<_> = others.chain([SigningKey::first().jwk()]).collect();
        let document = |padding: &str| json!({ "keys": keys, "padding": padding }).to_string();
        let padding = "p".repeat(bytes - document("").len());
        let response = KeysResponse::Bytes(document(&padding).into_bytes());
        app.entra.set_keys_response(CONTOSO, response);
        let answer = app.me(&app.entra.v1(CONTOSO, ADMIN).sign()).await;
        assert_eq!(answer.status, status, "{bytes} bytes");
    }
}

#[tokio::test]
async fn missing_keys_yield_503_instead_of_401() {
    let too_many_keys: Vec<_> = (0..101)
        .map(|n| SigningKey::first().named(&n.to_string()).jwk())
        .collect();
    let first = SigningKey::first().jwk();
    let too_long = json!({ "keys": [first], "padding": "p".repeat(256 * 1024) }).to_string();
    for response in [
        KeysResponse::Status(500),
        KeysResponse::Status(404),
        KeysResponse::Status(204),
        KeysResponse::RedirectTo(FABRIKAM),
        KeysResponse::Bytes(b"<html>proxy login</html>".to_vec()),
        KeysResponse::Bytes(br#"{"keys":[]}"#.to_vec()),
        KeysResponse::Bytes(br#"{"keys":{}}"#.to_vec()),
        KeysResponse::Bytes(json!({ "keys": too_many_keys }).to_string().into_bytes()),
        KeysResponse::Bytes(too_long.into_bytes()),
    ] {
        let app = TestApp::start().await;
        app.entra.set_keys_response(CONTOSO, response.clone());
        let answer = app.me(&app.entra.v1(CONTOSO, ADMIN).sign()).await;
        assert_eq!(
            answer.status,
            StatusCode::SERVICE_UNAVAILABLE,
            "{response:.60?}"
        );
        assert_eq!(
            answer.detail(),
            "Signing keys are unavailable. Try again later."
        );
        let wait: u64 = answer
            .header("retry-after")
            .expect("Retry-After")
            .parse()
            .unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
        // The other tenant is not affected.
        assert_eq!(
            app.me(&app.entra.v1(FABRIKAM, ADMIN).sign()).await.status,
            StatusCode::OK
        );
    }
}

#[tokio::test]
async fn wait_that_entra_requests_is_passed_on() {
    for (status, requested, expected) in [
        (429, "20", "20"),
        (429, "3600", "30"),
        (429, "soon", "1"),
        (503, "20", "1"),
    ] {
        let app = TestApp::start().await;
        let response = KeysResponse::Full {
            status,
            headers: vec![("retry-after", requested.to_owned())],
            bytes: None,
        };
        app.entra.set_keys_response(CONTOSO, response);
        let answer = app.me(&app.entra.v1(CONTOSO, ADMIN).sign()).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        let wait = answer.header("retry-after");
        assert_eq!(wait, Some(expected), "{status} {requested}");
    }
}

#[tokio::test]
async fn key_id_keeps_the_key_it_was_first_seen_with() {
    let app = TestApp::start().await;
    let good = app.entra.v1(CONTOSO, ADMIN).sign();
    assert_eq!(app.me(&good).await.status, StatusCode::OK);

    let impostor = SigningKey::second().named(&SigningKey::first().key_id);
    app.entra
        .publish(CONTOSO, &[impostor.jwk(), SigningKey::third().jwk()]);
    let new = app.entra.v1(CONTOSO, ADMIN).signed_by(SigningKey::third());
    assert_eq!(
        app.me(&new.sign()).await.status,
        StatusCode::OK,
        "the new document was fetched"
    );
    let forged = app.entra.v1(CONTOSO, ADMIN).signed_by(impostor);
    assert_eq!(
        app.me(&forged.sign()).await.status,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(app.me(&good).await.status, StatusCode::OK);
}

#[tokio::test]
async fn token_that_expires_during_key_fetch_is_rejected() {
    let app = TestApp::start().await;
    app.entra.set_keys_response(
        CONTOSO,
        KeysResponse::Delay(std::time::Duration::from_millis(300)),
    );
    let token = app.entra.v1(CONTOSO, ADMIN).sign();
    let clock = app.clock.clone();
    let (answer, ()) = tokio::join!(app.me(&token), async {
        while app.entra.fetches(CONTOSO) == 0 {
            tokio::task::yield_now().await;
        }
        clock.step(std::time::Duration::from_hours(2));
    });
    assert_eq!(
        (answer.status, answer.detail()),
        (StatusCode::UNAUTHORIZED, "Token has expired".into())
    );
}
