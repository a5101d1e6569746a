//! Authentication: which tokens are accepted, and each defect for which one is rejected.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    app::{Answer, TestApp, answer},
    tokens::{SigningKey, Token},
    users::{ADMIN, API_CLIENT_ID, CONTOSO, EDITOR, FABRIKAM, NOROLE, NORTHWIND, READER},
};

const MALFORMED: &str = "Token is malformed";
const CLAIM: &str = "Token lacks a required claim or has one of the wrong type";

/// Makes a token from a valid one.
pub(crate) type Edit = fn(Token) -> String;

/// Differences from Entra's usual tokens that do not make a token invalid.
pub(crate) const HARMLESS: [(&str, Edit); 15] = [
    ("no typ", |token| token.without_header("typ").sign()),
    ("another typ", |token| {
        token.with_header("typ", "at+jwt").sign()
    }),
    ("a jwk in the header", |token| {
        token.with_header("jwk", SigningKey::third().jwk()).sign()
    }),
    ("key URLs and certificates in the header", |token| {
        let token = token.with_header("jku", "https://keys.example/jwks");
        let token = token.with_header("x5u", "https://keys.example/x5c");
        token.with_header("x5c", json!(["AAAA"])).sign()
    }),
    ("the bare client ID as audience", |token| {
        token.with("aud", API_CLIENT_ID).sign()
    }),
    ("no name and no email", |token| {
        let token = token.without("name").without("upn");
        token.without("unique_name").sign()
    }),
    ("one scope among several", |token| {
        token
            .with("scp", "Tasks.Read access_as_user profile")
            .sign()
    }),
    ("an unknown role", |token| {
        token.with("roles", json!(["Admin", "NotARole"])).sign()
    }),
    ("a fractional time", |token| {
        token.with("nbf", 1_700_000_000.5).sign()
    }),
    ("a tenant ID in upper case", |token| {
        token.with("tid", CONTOSO.id.to_uppercase()).sign()
    }),
    ("an unread claim twice in different case", |token| {
        token.with("department", "a").with("Department", "b").sign()
    }),
    ("a lone surrogate in an unread claim", |token| {
        with_text(&token, r#""city":"\ud800""#)
    }),
    ("a lone surrogate in an unread name", |token| {
        with_text(&token, r#""\udfff":1,"caf\u00e9":{"tid":"x"}"#)
    }),
    ("a lone surrogate in the name", |token| {
        with_text(&token.without("name"), r#""name":"\ud800""#)
    }),
    ("an unread claim nested deep", |token| {
        let deep = format!(r#""x":{}{}"#, "[".repeat(900), "]".repeat(900));
        with_text(&token, &deep)
    }),
];

/// Signs a token with these members before its claims.
fn with_text(token: &Token, members: &str) -> String {
    let claims = token.claims_text();
    let claims = claims.replacen('{', &format!("{{{members},"), 1);
    token.sign_texts(&token.header_text(), &claims)
}

/// Tokens with one defect each: the case, the error detail in the response, and how to make the token.
pub(crate) const BROKEN: &[(&str, &str, Edit)] = &[
    // Shape.
    ("one segment", MALFORMED, |_| "abc".into()),
    ("two segments", MALFORMED, |token| {
        token.sign().rsplit_once('.').unwrap().0.into()
    }),
    ("four segments", MALFORMED, |token| token.sign() + ".AAAA"),
    ("five segments of an encrypted token", MALFORMED, |token| {
        let header = r#"{"alg":"RSA-OAEP-256","enc":"A256GCM","kid":"key"}"#;
        token.sign_texts(header, "{}") + ".AAAA.AAAA"
    }),
    ("no signature", MALFORMED, |token| {
        let token = token.sign();
        token[..=token.rfind('.').unwrap()].into()
    }),
    ("a signature that is not base64", MALFORMED, |token| {
        token.sign() + "!"
    }),
    ("an empty header", MALFORMED, |token| {
        format!(".{}", token.sign().split_once('.').unwrap().1)
    }),
    ("a space inside", MALFORMED, |token| {
        token.sign().replace('.', " .")
    }),
    ("base64 with padding", MALFORMED, |token| {
        token.sign().replacen('.', "==.", 1)
    }),
    ("standard base64 instead of base64url", MALFORMED, |token| {
        token.sign().replacen("eyJ", "ey+", 1)
    }),
    ("a header that is not an object", MALFORMED, |token| {
        token.sign_texts("[1]", &token.claims_text())
    }),
    ("a header that is not JSON", MALFORMED, |token| {
        token.sign_texts("alg", &token.claims_text())
    }),
    ("claims that are not an object", MALFORMED, |token| {
        token.sign_texts(&token.header_text(), "\"tid\"")
    }),
    (
        "a tenant ID nested deep",
        "Token tenant ID (tid) claim is not a GUID",
        |token| {
            let deep = format!(r#""tid":{}{}"#, "[".repeat(900), "]".repeat(900));
            with_text(&token.without("tid"), &deep)
        },
    ),
    ("a lone surrogate in the user ID", CLAIM, |token| {
        with_text(&token.without("oid"), r#""oid":"\ud800""#)
    }),
    ("more than 1000 values", MALFORMED, |token| {
        token.with("groups", json!(vec![1; 1000])).sign()
    }),
    ("a claim twice", MALFORMED, |token| {
        with_text(&token, r#""tid":"x""#)
    }),
    ("a claim twice, once escaped", MALFORMED, |token| {
        with_text(&token, r#""\u0074id":"x""#)
    }),
    (
        "a claim twice, once with other letters",
        MALFORMED,
        |token| with_text(&token, r#""\u017fcp":"access_as_user""#),
    ),
    ("tid twice in different case", MALFORMED, |token| {
        token.with("TID", "x").sign()
    }),
    ("aud twice in different case", MALFORMED, |token| {
        token.with("AUD", "x").sign()
    }),
    ("a header parameter twice", MALFORMED, |token| {
        token.sign_texts(
            &token.header_text().replacen('{', "{\"alg\":\"none\",", 1),
            &token.claims_text(),
        )
    }),
    ("alg twice in different case", MALFORMED, |token| {
        token.with_header("Alg", "none").sign()
    }),
    ("more than 16 KiB", "Token is too long", |token| {
        token.with("groups", "x".repeat(16 * 1024)).sign()
    }),
    // Header.
    ("no alg", "Token must be signed with RS256", |token| {
        token.without_header("alg").sign()
    }),
    (
        "alg none, unsigned",
        "Token must be signed with RS256",
        |token| {
            let token = token.with_header("alg", "none").sign();
            token[..=token.rfind('.').unwrap()].into()
        },
    ),
    (
        "alg in lower case",
        "Token must be signed with RS256",
        |token| token.with_header("alg", "rs256").sign(),
    ),
    ("RS512", "Token must be signed with RS256", |token| {
        token.with_header("alg", "RS512").sign()
    }),
    ("PS256", "Token must be signed with RS256", |token| {
        token.with_header("alg", "PS256").sign_with_pss()
    }),
    (
        "HS256 with the public key as secret",
        "Token must be signed with RS256",
        |token| {
            token
                .with_header("alg", "HS256")
                .sign_with_hmac(&SigningKey::first().public_der())
        },
    ),
    ("crit", "Token header is not supported", |token| {
        token.with_header("crit", json!(["exp"])).sign()
    }),
    ("b64", "Token header is not supported", |token| {
        token.with_header("b64", false).sign()
    }),
    ("zip", "Token header is not supported", |token| {
        token.with_header("zip", "DEF").sign()
    }),
    ("enc", "Token header is not supported", |token| {
        token.with_header("enc", "A256GCM").sign()
    }),
    (
        "no kid",
        "Token header has no usable key id (kid)",
        |token| token.without_header("kid").sign(),
    ),
    (
        "a kid that is a number",
        "Token header has no usable key id (kid)",
        |token| token.with_header("kid", 7).sign(),
    ),
    (
        "an empty kid",
        "Token header has no usable key id (kid)",
        |token| token.with_header("kid", "").sign(),
    ),
    (
        "a kid that is too long",
        "Token header has no usable key id (kid)",
        |token| token.with_header("kid", "k".repeat(129)).sign(),
    ),
    // Tenant.
    ("no tid", "Token missing tenant ID (tid) claim", |token| {
        token.without("tid").sign()
    }),
    (
        "an empty tid",
        "Token missing tenant ID (tid) claim",
        |token| token.with("tid", "").sign(),
    ),
    (
        "a null tid",
        "Token missing tenant ID (tid) claim",
        |token| token.with("tid", Value::Null).sign(),
    ),
    (
        "a tid that is a list",
        "Token tenant ID (tid) claim is not a GUID",
        |token| token.with("tid", json!([CONTOSO.id])).sign(),
    ),
    (
        "a tid that is a path",
        "Token tenant ID (tid) claim is not a GUID",
        |token| token.with("tid", "../common").sign(),
    ),
    (
        "a tid that is a name",
        "Token tenant ID (tid) claim is not a GUID",
        |token| token.with("tid", "organizations").sign(),
    ),
    (
        "a tid in braces",
        "Token tenant ID (tid) claim is not a GUID",
        |token| token.with("tid", format!("{{{}}}", CONTOSO.id)).sign(),
    ),
    (
        "a tid without hyphens",
        "Token tenant ID (tid) claim is not a GUID",
        |token| token.with("tid", CONTOSO.id.replace('-', "")).sign(),
    ),
    // Issuer, audience, times.
    ("no ver", CLAIM, |token| token.without("ver").sign()),
    ("an unknown ver", CLAIM, |token| {
        token.with("ver", "3.0").sign()
    }),
    ("no issuer", "Token issuer is not accepted", |token| {
        token.without("iss").sign()
    }),
    (
        "another tenant's issuer",
        "Token issuer is not accepted",
        |token| {
            token
                .with("iss", format!("https://sts.windows.net/{}/", FABRIKAM.id))
                .sign()
        },
    ),
    (
        "another host's issuer",
        "Token issuer is not accepted",
        |token| {
            token
                .with(
                    "iss",
                    format!("https://sts.windows.net.example/{}/", CONTOSO.id),
                )
                .sign()
        },
    ),
    (
        "the issuer without a trailing slash",
        "Token issuer is not accepted",
        |token| {
            token
                .with("iss", format!("https://sts.windows.net/{}", CONTOSO.id))
                .sign()
        },
    ),
    (
        "the issuer in a list",
        "Token issuer is not accepted",
        |token| {
            token
                .with(
                    "iss",
                    json!([format!("https://sts.windows.net/{}/", CONTOSO.id)]),
                )
                .sign()
        },
    ),
    (
        "another version's issuer",
        "Token issuer is not accepted",
        |token| token.with("ver", "2.0").sign(),
    ),
    (
        "no audience",
        "Token was not issued for this API",
        |token| token.without("aud").sign(),
    ),
    (
        "another audience",
        "Token was not issued for this API",
        |token| token.with("aud", "api://another").sign(),
    ),
    (
        "the audience of Microsoft Graph",
        "Token was not issued for this API",
        |token| {
            token
                .with("aud", "00000003-0000-0000-c000-000000000000")
                .sign()
        },
    ),
    (
        "the audience in a list",
        "Token was not issued for this API",
        |token| token.with("aud", json!([API_CLIENT_ID])).sign(),
    ),
    ("no exp", CLAIM, |token| token.without("exp").sign()),
    ("exp as a string", CLAIM, |token| {
        token.with("exp", "4102444800").sign()
    }),
    ("exp in the past", "Token has expired", |token| {
        token.with("exp", 1_700_000_000).sign()
    }),
    ("no nbf", CLAIM, |token| token.without("nbf").sign()),
    ("nbf in the year 2100", "Token is not valid yet", |token| {
        token.with("nbf", 4_102_444_800_u64).sign()
    }),
    ("no iat", CLAIM, |token| token.without("iat").sign()),
    ("iat in the year 2100", "Token is not valid yet", |token| {
        token.with("iat", 4_102_444_800_u64).sign()
    }),
    // Signature and signing key.
    ("an unknown key ID", "Unable to find signing key", |token| {
        token
            .signed_by(SigningKey::first().named("nobody's"))
            .sign()
    }),
    (
        "another tenant's key",
        "Unable to find signing key",
        |token| token.signed_by(SigningKey::third()).sign(),
    ),
    (
        "a published key ID with another key",
        "Token signature is invalid",
        |token| {
            token
                .signed_by(SigningKey::second().named(&SigningKey::first().key_id))
                .sign()
        },
    ),
    (
        "the signature of other claims",
        "Token signature is invalid",
        |token| {
            let signature = token
                .clone()
                .with("name", "Mallory")
                .sign()
                .rsplit_once('.')
                .unwrap()
                .1
                .to_owned();
            format!("{}.{signature}", token.sign().rsplit_once('.').unwrap().0)
        },
    ),
    (
        "a PSS signature with alg RS256",
        "Token signature is invalid",
        |token| token.sign_with_pss(),
    ),
    // Claims that are checked only after the signature is verified.
    ("no oid", CLAIM, |token| token.without("oid").sign()),
    ("an oid that is not a GUID", CLAIM, |token| {
        token.with("oid", "admin").sign()
    }),
    ("roles as a string", CLAIM, |token| {
        token.with("roles", "Admin").sign()
    }),
    ("a role that is a number", CLAIM, |token| {
        token.with("roles", json!(["Admin", 1])).sign()
    }),
    ("null roles", CLAIM, |token| {
        token.with("roles", Value::Null).sign()
    }),
    ("scopes in a list", CLAIM, |token| {
        token.with("scp", json!(["access_as_user"])).sign()
    }),
];

#[tokio::test]
async fn v1_token_yields_the_callers_details() {
    let app = TestApp::start().await;
    let answer = app.me(&app.entra.v1(CONTOSO, EDITOR).sign()).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(
        answer.body,
        format!(
            r#"{{"id":"{}","name":"Edgar Editor","email":"editor@contoso.example","tenant_id":"{}","roles":["Editor"],"scopes":"access_as_user"}}"#,
            EDITOR.oid(CONTOSO),
            CONTOSO.id
        )
    );
}

#[tokio::test]
async fn v2_token_yields_the_same_details_as_v1() {
    let app = TestApp::start().await;
    for user in [ADMIN, EDITOR, READER, NOROLE] {
        let v1 = app.me(&app.entra.v1(FABRIKAM, user).sign()).await;
        let v2 = app.me(&app.entra.v2(FABRIKAM, user).sign()).await;
        assert_eq!(v2.status, StatusCode::OK);
        assert_eq!(v2.json(), v1.json());
    }
}

#[tokio::test]
async fn token_with_harmless_difference_is_accepted() {
    let app = TestApp::start().await;
    for (case, change) in HARMLESS {
        let token = change(app.entra.v1(CONTOSO, ADMIN));
        let answer = app.me(&token).await;
        assert_eq!(answer.status, StatusCode::OK, "{case}: {}", answer.body);
    }
}

#[tokio::test]
async fn user_without_name_and_email_gets_defaults() {
    let app = TestApp::start().await;
    let token = app
        .entra
        .v1(CONTOSO, ADMIN)
        .without("name")
        .without("upn")
        .without("unique_name");
    let me = app.me(&token.sign()).await.json();
    assert_eq!((&me["name"], &me["email"]), (&json!("Unknown"), &json!("")));
}

#[tokio::test]
async fn guest_email_is_preferred_to_the_rewritten_name() {
    let app = TestApp::start().await;
    for (name, email, expected) in [
        (
            "ada_contoso.com#EXT#@fabrikam.example",
            Some("ada@contoso.com"),
            "ada@contoso.com",
        ),
        (
            "live.com#ada@outlook.com",
            Some("ada@outlook.com"),
            "ada@outlook.com",
        ),
        ("live.com#ada@outlook.com", None, "live.com#ada@outlook.com"),
        (
            "editor@contoso.example",
            Some("other@contoso.example"),
            "editor@contoso.example",
        ),
    ] {
        let token = app.entra.v1(CONTOSO, EDITOR).without("email");
        let token = token
            .with("preferred_username", name)
            .with("unique_name", name)
            .with("upn", name);
        let token = match email {
            Some(email) => token.with("email", email),
            None => token,
        };
        assert_eq!(app.me(&token.sign()).await.json()["email"], expected);
    }
}

#[tokio::test]
async fn audience_may_end_with_a_slash() {
    let app = TestApp::start().await;
    let uri = format!("api://{API_CLIENT_ID}");
    for (audience, status) in [
        (format!("{uri}/"), StatusCode::OK),
        (format!("{uri}//"), StatusCode::UNAUTHORIZED),
        (format!("{API_CLIENT_ID}/"), StatusCode::UNAUTHORIZED),
        (
            "api://tasks.contoso.example".to_owned(),
            StatusCode::UNAUTHORIZED,
        ),
    ] {
        let token = app.entra.v1(CONTOSO, EDITOR).with("aud", audience.as_str());
        assert_eq!(app.me(&token.sign()).await.status, status, "{audience}");
    }
}

#[tokio::test]
async fn many_roles_are_cut_in_the_response() {
    let app = TestApp::start().await;
    let roles: Vec<_> = (0..200)
        .map(|number| format!("group-{number:03}"))
        .collect();
    for (count, end) in [(10, ""), (11, ", …"), (200, ", …")] {
        let token = app.entra.v1(CONTOSO, EDITOR);
        let token = token.with("roles", json!(roles[..count])).sign();
        let answer = app
            .send(Method::GET, "/api/tasks", Some(&token), None)
            .await;
        let expected = format!("Your roles: {}{end}", roles[..10].join(", "));
        assert!(answer.detail().ends_with(&expected), "{}", answer.detail());
    }
    let long = json!(["x".repeat(1000)]);
    let token = app.entra.v1(CONTOSO, EDITOR).with("roles", long).sign();
    let answer = app
        .send(Method::GET, "/api/tasks", Some(&token), None)
        .await;
    assert!(answer.detail().len() < 300, "{}", answer.detail());
}

#[tokio::test]
async fn email_is_taken_from_the_preferred_claim() {
    let app = TestApp::start().await;
    let mut token = app.entra.v1(CONTOSO, ADMIN);
    for claim in ["email", "unique_name", "upn", "preferred_username"] {
        token = token.with(claim, format!("{claim}@contoso.example"));
        if claim == "email" {
            token = token.without("upn").without("unique_name");
        }
        let me = app.me(&token.sign()).await.json();
        assert_eq!(me["email"], format!("{claim}@contoso.example"));
    }
}

#[tokio::test]
async fn each_broken_token_is_rejected_for_its_defect() {
    let app = TestApp::start().await;
    // A key that only Fabrikam publishes.
    app.entra.publish(FABRIKAM, &[SigningKey::third().jwk()]);

    for &(case, detail, break_it) in BROKEN {
        let good = app.entra.v1(CONTOSO, ADMIN);
        assert_eq!(
            app.me(&good.sign()).await.status,
            StatusCode::OK,
            "{case}: the unbroken token"
        );
        let token = break_it(good);
        let answer = app.me(&token).await;
        assert_eq!(
            (answer.status, answer.detail().as_str()),
            (StatusCode::UNAUTHORIZED, detail),
            "{case}"
        );
        let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{detail}\"");
        assert_eq!(
            answer.header("www-authenticate"),
            Some(challenge.as_str()),
            "{case}"
        );
    }
}

#[tokio::test]
async fn v2_token_requires_v2_issuer() {
    let app = TestApp::start().await;
    let good = app.entra.v2(CONTOSO, ADMIN);
    assert_eq!(app.me(&good.sign()).await.status, StatusCode::OK);
    for issuer in [
        format!("https://sts.windows.net/{}/", CONTOSO.id),
        format!("{}/{}/v2.0", app.entra.authority, FABRIKAM.id),
        format!("{}/{}/v2.0/", app.entra.authority, CONTOSO.id),
    ] {
        let answer = app.me(&good.clone().with("iss", issuer).sign()).await;
        assert_eq!(
            (answer.status, answer.detail()),
            (
                StatusCode::UNAUTHORIZED,
                "Token issuer is not accepted".into()
            )
        );
    }
}

#[tokio::test]
async fn token_times_have_a_leeway_of_60_seconds() {
    let app = TestApp::start().await;
    let now = app.entra.now();
    for (claim, value, status) in [
        ("exp", now - 59, StatusCode::OK),
        ("exp", now - 60, StatusCode::UNAUTHORIZED),
        ("nbf", now + 60, StatusCode::OK),
        ("nbf", now + 61, StatusCode::UNAUTHORIZED),
        ("iat", now + 60, StatusCode::OK),
        ("iat", now + 61, StatusCode::UNAUTHORIZED),
    ] {
        let answer = app
            .me(&app.entra.v1(CONTOSO, ADMIN).with(claim, value).sign())
            .await;
        assert_eq!(answer.status, status, "{claim}: {}", answer.body);
    }
}

#[tokio::test]
async fn unlisted_tenant_is_rejected_without_key_fetch() {
    let app = TestApp::start().await;
    let answer = app.me(&app.entra.v1(NORTHWIND, ADMIN).sign()).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    let detail = format!(
        "Tenant {} is not allowed to access this application",
        NORTHWIND.id
    );
    assert_eq!(answer.detail(), detail);
    assert_eq!(app.entra.fetches(NORTHWIND), 0);
}

#[tokio::test]
async fn open_mode_accepts_all_but_personal_accounts() {
    let app =
        TestApp::start_with(&[("ALLOW_ANY_TENANT", "true"), ("ALLOWED_TENANT_IDS", "")]).await;
    assert_eq!(
        app.me(&app.entra.v1(NORTHWIND, ADMIN).sign()).await.status,
        StatusCode::OK
    );
    let personal = "9188040d-6c67-4c5b-b112-36a304b66dad";
    let token = app.entra.v1(NORTHWIND, ADMIN).with("tid", personal);
    let answer = app
        .me(&token
            .with("iss", format!("https://sts.windows.net/{personal}/"))
            .sign())
        .await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.body);
}

#[tokio::test]
async fn invalid_token_of_allowed_tenant_causes_no_fetch() {
    let app = TestApp::start().await;
    for token in [
        app.entra
            .v1(CONTOSO, ADMIN)
            .with("iss", "https://evil.example/"),
        app.entra.v1(CONTOSO, ADMIN).with("aud", "api://another"),
        app.entra.v1(CONTOSO, ADMIN).with("exp", 1_700_000_000),
        app.entra.v1(CONTOSO, ADMIN).with("nbf", 4_102_444_800_u64),
        app.entra.v1(CONTOSO, ADMIN).with_header("alg", "none"),
    ] {
        assert_eq!(app.me(&token.sign()).await.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(app.entra.fetches(CONTOSO), 0);
}

#[tokio::test]
async fn app_only_token_is_rejected() {
    let app = TestApp::start().await;
    for token in [
        app.entra.v1(CONTOSO, ADMIN).with("idtyp", "app"),
        // Entra's default: neither `idtyp` nor `scp`.
        app.entra.v1(CONTOSO, ADMIN).without("scp"),
        app.entra
            .v2(CONTOSO, ADMIN)
            .with("idtyp", "app")
            .without("scp"),
    ] {
        let answer = app.me(&token.sign()).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
        assert_eq!(
            answer.detail(),
            "This API serves users. Tokens that were issued to an app are rejected"
        );
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(
            challenge.starts_with("Bearer error=\"insufficient_scope\""),
            "{challenge}"
        );
    }
}

#[tokio::test]
async fn missing_scope_is_rejected_and_named() {
    let app = TestApp::start().await;
    let good = || app.entra.v1(CONTOSO, ADMIN);
    for token in [
        good().with("scp", ""),
        good().with("scp", "User.Read"),
        good().with("scp", "access_as_user_too"),
        good().with("scp", "Access_As_User"),
    ] {
        let answer = app.me(&token.sign()).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(
            challenge.starts_with("Bearer error=\"insufficient_scope\", scope=\"access_as_user\""),
            "{challenge}"
        );
    }
}

#[tokio::test]
async fn any_nonempty_scope_suffices_if_none_is_required() {
    let app = TestApp::start_with(&[("REQUIRED_SCOPE", "")]).await;
    let token = app.entra.v1(CONTOSO, ADMIN).with("scp", "User.Read");
    assert_eq!(app.me(&token.sign()).await.status, StatusCode::OK);
    for token in [token.clone().without("scp"), token.with("scp", "")] {
        assert_eq!(app.me(&token.sign()).await.status, StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn exactly_one_bearer_header_is_accepted() {
    let app = TestApp::start().await;
    let token = app.entra.v1(CONTOSO, ADMIN).sign();
    let send = async |values: &[String]| -> Answer {
        let mut request = app.request(Method::GET, "/api/me");
        for value in values {
            request = request.header("authorization", value);
        }
        answer(request).await
    };

    for value in [
        format!("Bearer {token}"),
        format!("bearer {token}"),
        format!("BEARER   {token}"),
    ] {
        assert_eq!(send(&[value]).await.status, StatusCode::OK);
    }
    for values in [
        vec![],
        vec!["Basic YWRtaW46YWRtaW4=".into()],
        vec![token.clone()],
        vec!["DPoP a.b.c".into()],
        vec![String::new()],
    ] {
        let answer = send(&values).await;
        assert_eq!(
            (answer.status, answer.detail()),
            (StatusCode::UNAUTHORIZED, "Not authenticated".into())
        );
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    let good = format!("Bearer {token}");
    for values in [
        vec![good.clone(), good.clone()],
        vec![good, "Basic YTpi".into()],
        vec!["Bearer ".into()],
        vec!["Bearer".into()],
    ] {
        let answer = send(&values).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{values:?}");
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(
            challenge.starts_with("Bearer error=\"invalid_request\""),
            "{challenge}"
        );
    }
}

#[tokio::test]
async fn token_outside_authorization_header_is_ignored() {
    let app = TestApp::start().await;
    let token = app.entra.v1(CONTOSO, ADMIN).sign();
    let in_query = app.request(Method::GET, &format!("/api/me?access_token={token}"));
    let in_header = app
        .request(Method::GET, "/api/me")
        .header("x-authorization", format!("Bearer {token}"));
    for request in [in_query, in_header] {
        assert_eq!(answer(request).await.status, StatusCode::UNAUTHORIZED);
    }
}
