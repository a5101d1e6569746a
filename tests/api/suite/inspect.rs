//! `token inspect` names the defect of each broken token.

use std::{io::Write, process::Stdio, sync::Arc};

use serde_json::json;
use tenant_tasks::clock::SystemClock;

use crate::{
    suite::authentication::{BROKEN, HARMLESS},
    suite::service::command,
    support::{
        app::listen,
        entra::MockEntra,
        tokens::SigningKey,
        users::{
            ADMIN, API_CLIENT_ID, CONTOSO, EDITOR, FABRIKAM, NOROLE, NORTHWIND, PERSONAL_ACCOUNTS,
            READER, SPA_CLIENT_ID,
        },
    },
};

/// The text that `token inspect` must print for each entry of `BROKEN`.
const EXPLANATIONS: &[(&str, &str)] = &[
    ("one segment", "it has 1 instead of 3 segments"),
    ("two segments", "it has 2 instead of 3 segments"),
    ("four segments", "it has 4 instead of 3 segments"),
    (
        "five segments of an encrypted token",
        "it has 5 instead of 3 segments separated by dots: it is encrypted",
    ),
    ("no signature", "its signature is empty"),
    (
        "a signature that is not base64",
        "its signature is not base64url: it has '!'",
    ),
    ("an empty header", "its header is empty"),
    ("a space inside", "its header is not base64url: it has ' '"),
    (
        "base64 with padding",
        "its header is not base64url: it has '='",
    ),
    (
        "standard base64 instead of base64url",
        "its header is not base64url: it has '+'",
    ),
    (
        "a header that is not an object",
        "its header is not a JSON object: invalid type: sequence, expected a JSON object",
    ),
    (
        "a header that is not JSON",
        "its header is not a JSON object: expected value",
    ),
    (
        "claims that are not an object",
        "its payload is not a JSON object: invalid type: string \"tid\", expected a JSON object",
    ),
    ("a tenant ID nested deep", "tid is [[[[[["),
    (
        "a lone surrogate in the user ID",
        "oid is \"\\ud800\", expected a hyphenated GUID",
    ),
    (
        "more than 1000 values",
        "its payload has more than 1000 values or 2048 escapes",
    ),
    ("a claim twice", "its payload has the member \"tid\" twice"),
    (
        "a claim twice, once escaped",
        "its payload has the member \"tid\" twice",
    ),
    (
        "a claim twice, once with other letters",
        "its payload has the member \"scp\" twice",
    ),
    (
        "tid twice in different case",
        "its payload has the member \"tid\" twice",
    ),
    (
        "aud twice in different case",
        "its payload has the member \"aud\" twice",
    ),
    (
        "a header parameter twice",
        "its header has the member \"alg\" twice",
    ),
    (
        "alg twice in different case",
        "its header has the member \"alg\" twice",
    ),
    ("more than 16 KiB", "bytes, more than 16384"),
    ("no alg", "alg is missing"),
    ("alg none, unsigned", "alg is \"none\""),
    ("alg in lower case", "alg is \"rs256\""),
    ("RS512", "alg is \"RS512\""),
    ("PS256", "alg is \"PS256\""),
    ("HS256 with the public key as secret", "alg is \"HS256\""),
    ("crit", "its header has crit"),
    ("b64", "its header has b64"),
    ("zip", "its header has zip"),
    ("enc", "its header has enc"),
    ("no kid", "kid is missing"),
    ("a kid that is a number", "kid is 7,"),
    ("an empty kid", "kid is \"\""),
    ("a kid that is too long", "kid is \"kkkk"),
    ("no tid", "tid is missing or empty"),
    ("an empty tid", "tid is missing or empty"),
    ("a null tid", "tid is missing or empty"),
    ("a tid that is a list", "tid is [\"11111111"),
    ("a tid that is a path", "tid is \"../common\""),
    ("a tid that is a name", "tid is \"organizations\""),
    ("a tid in braces", "tid is \"{11111111"),
    (
        "a tid without hyphens",
        "tid is \"11111111111141118111111111111111\"",
    ),
    ("no ver", "ver is missing"),
    ("an unknown ver", "ver is \"3.0\""),
    ("no issuer", "iss is missing"),
    (
        "another tenant's issuer",
        "expected \"https://sts.windows.net/11111111-1111-4111-8111-111111111111/\"",
    ),
    (
        "another host's issuer",
        "iss is \"https://sts.windows.net.example/",
    ),
    (
        "the issuer without a trailing slash",
        "iss is \"https://sts.windows.net/11111111-1111-4111-8111-111111111111\",",
    ),
    ("the issuer in a list", "iss is [\"https://sts.windows.net/"),
    ("another version's issuer", "for its tid and ver"),
    ("no audience", "aud is missing"),
    ("another audience", "aud is \"api://another\""),
    (
        "the audience of Microsoft Graph",
        "It is for Microsoft Graph",
    ),
    ("the audience in a list", "aud is [\""),
    ("no exp", "exp is missing"),
    (
        "exp as a string",
        "exp is \"4102444800\", expected a number of seconds",
    ),
    ("exp in the past", "exp is 2023-11-14T22:13:20Z: it expired"),
    ("no nbf", "nbf is missing"),
    (
        "nbf in the year 2100",
        "nbf is 2100-01-01T00:00:00Z: it becomes valid in",
    ),
    ("no iat", "iat is missing"),
    (
        "iat in the year 2100",
        "iat is 2100-01-01T00:00:00Z: it becomes valid in",
    ),
    (
        "an unknown key ID",
        "kid is \"nobody's\", and its tenant publishes no signing key with this id",
    ),
    (
        "another tenant's key",
        "and its tenant publishes no signing key with this id",
    ),
    (
        "a published key ID with another key",
        "its signature was not made with the tenant's key",
    ),
    (
        "the signature of other claims",
        "its signature was not made with the tenant's key",
    ),
    (
        "a PSS signature with alg RS256",
        "its signature was not made with the tenant's key",
    ),
    ("no oid", "oid is missing"),
    ("an oid that is not a GUID", "oid is \"admin\""),
    (
        "roles as a string",
        "roles is \"Admin\", expected a list of strings",
    ),
    ("a role that is a number", "roles is [\"Admin\",1]"),
    ("null roles", "roles is null"),
    (
        "scopes in a list",
        "scp is [\"access_as_user\"], expected a string",
    ),
];

/// Runs `token inspect`. Returns what it prints and its exit code.
fn inspect(entra: &MockEntra, settings: &[(&str, &str)], input: &str) -> (String, Option<i32>) {
    let allowed = format!("{},{}", CONTOSO.id, FABRIKAM.id);
    let minimal = [
        ("AZURE_API_CLIENT_ID", API_CLIENT_ID),
        ("AZURE_AUTHORITY_HOST", &*entra.authority),
        ("ALLOWED_TENANT_IDS", &*allowed),
    ];
    let (mut command, _directory) = command(&[&minimal, settings].concat());
    command
        .args(["token", "inspect"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut process = command.spawn().unwrap();
    process
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let result = process.wait_with_output().unwrap();
    let text = [result.stdout, result.stderr].concat();
    (String::from_utf8(text).unwrap(), result.status.code())
}

async fn entra() -> MockEntra {
    MockEntra::start(listen().await, Arc::new(SystemClock::new()))
}

#[tokio::test(flavor = "multi_thread")]
async fn inspect_names_the_defect_of_each_broken_token() {
    let entra = entra().await;
    entra.publish(FABRIKAM, &[SigningKey::third().jwk()]);
    for &(case, detail, break_it) in BROKEN {
        let token = break_it(entra.v1(CONTOSO, ADMIN));
        let (output, code) = inspect(&entra, &[], &token);
        let (_, explanation) = EXPLANATIONS
            .iter()
            .find(|(label, _)| *label == case)
            .unwrap_or_else(|| panic!("no explanation for: {case}"));
        assert!(output.contains(explanation), "{case}: {output}");
        let verdict = format!("This token is rejected with 401 Unauthorized: {detail}.");
        assert!(output.starts_with(&verdict), "{case}: {output}");
        assert_eq!(code, Some(1), "{case}");
        assert!(!output.contains(&token), "{case}: the token is printed");
    }
    assert_eq!(EXPLANATIONS.len(), BROKEN.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn inspect_accepts_valid_token_and_lists_permissions() {
    let entra = entra().await;
    for (case, change) in HARMLESS {
        let (output, code) = inspect(&entra, &[], &change(entra.v1(CONTOSO, ADMIN)));
        assert!(
            output.starts_with("This token is accepted.") && code == Some(0),
            "{case}: {output}"
        );
    }
    for (user, list, create, delete) in [
        (
            ADMIN,
            "see tasks         yes, all of the tenant",
            "yes",
            "yes",
        ),
        (
            EDITOR,
            "see tasks         yes, their own",
            "yes",
            "no (403)",
        ),
        (
            READER,
            "see tasks         yes, their own",
            "no (403)",
            "no (403)",
        ),
    ] {
        let (output, code) = inspect(
            &entra,
            &[],
            &format!("Authorization: Bearer {}\n", entra.v2(CONTOSO, user).sign()),
        );
        for line in [
            list,
            &format!("create tasks      {create}"),
            &format!("delete tasks      {delete}"),
        ] {
            assert!(output.contains(line), "{}: {output}", user.name);
        }
        assert_eq!(code, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inspect_names_tenant_scope_role_and_key_problems() {
    let entra = entra().await;
    let good = || entra.v1(CONTOSO, ADMIN);
    let revoked = [("REVOKED_KEY_IDS", &*SigningKey::first().key_id)];
    let none: &[(&str, &str)] = &[];
    for (settings, token, status, explanation) in [
        (
            none,
            entra.v1(NORTHWIND, ADMIN).sign(),
            "403",
            "is neither in ALLOWED_TENANT_IDS nor active in the registry",
        ),
        (
            none,
            good().with("scp", "User.Read").sign(),
            "403",
            "the token lacks the scope access_as_user: its scp is \"User.Read\"",
        ),
        (
            none,
            good().without("scp").sign(),
            "403",
            "the token has no scp, or idtyp=app",
        ),
        (
            none,
            good().with("idtyp", "app").sign(),
            "403",
            "it was issued to an app, or it is an ID token",
        ),
        (
            &[("REQUIRED_SCOPE", "")],
            good().without("scp").sign(),
            "403",
            "or it is an ID token",
        ),
        (
            none,
            entra.v1(CONTOSO, NOROLE).sign(),
            "403",
            "its roles (none) do not give access to tasks",
        ),
        (
            none,
            good().with("roles", json!(["NotARole"])).sign(),
            "403",
            "its roles (NotARole; none of them is an app role of this API",
        ),
        (&revoked, good().sign(), "401", ", which is revoked"),
        (
            none,
            entra.v2(CONTOSO, ADMIN).with("ver", "1.0").sign(),
            "401",
            "for its tid and ver",
        ),
    ] {
        let (output, code) = inspect(&entra, settings, &token);
        assert!(
            output.contains(explanation) && output.contains(status),
            "{explanation}: {output}"
        );
        assert_eq!(code, Some(1), "{explanation}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inspect_escapes_terminal_control_characters() {
    let entra = entra().await;
    let malicious = "\u{1b}]0;title\u{7}\u{9b}31m\u{202e}x";
    for token in [
        entra.v1(CONTOSO, ADMIN).with("name", malicious),
        entra.v1(CONTOSO, ADMIN).with("roles", json!([malicious])),
        entra.v1(CONTOSO, ADMIN).with("aud", malicious),
        entra.v1(CONTOSO, ADMIN).with("scp", json!([malicious])),
        entra.v1(CONTOSO, ADMIN).with_header("alg", malicious),
    ] {
        let (output, _) = inspect(&entra, &[], &token.sign());
        let is_unsafe = |character: char| {
            character != '\n' && (character.is_control() || character == '\u{202e}')
        };
        assert!(!output.contains(is_unsafe), "{output:?}");
    }
    let (output, _) = inspect(&entra, &[], &format!("a.{malicious}.c"));
    assert!(!output.contains('\u{1b}'), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn token_is_judged_however_it_was_pasted() {
    let entra = entra().await;
    let token = entra.v1(CONTOSO, ADMIN).sign();
    let (start, end) = token.split_at(100);
    for input in [
        format!("{token}\r\n"),
        format!("Bearer {token}"),
        format!("bearer\n{token}\n"),
        format!("AUTHORIZATION: BEARER   {token}"),
        format!("authorization:Bearer {token}"),
        format!("\"{token}\""),
        format!("'Bearer {token}',"),
        format!("-H \"Authorization: Bearer {token}\""),
        format!("  \"Authorization\": \"Bearer {token}\",\n"),
        format!("{start}\n{end}\n"),
        format!("  {start}\r\n    {end}  "),
        format!("\u{feff}{token}"),
        format!("\u{feff}Authorization: Bearer {token}"),
        json!({ "token_type": "Bearer", "access_token": token }).to_string(),
        format!(
            "\u{feff}{:#}\n",
            json!({ "accessToken": token, "expires_on": 1 })
        ),
    ] {
        let (output, code) = inspect(&entra, &[], &input);
        let is_accepted = output.starts_with("This token is accepted.");
        assert!(is_accepted && code == Some(0), "{input}\n{output}");
    }
    let (output, code) = inspect(&entra, &[], r#"{"id_token":"x"}"#);
    assert!(output.contains("JSON without access_token"), "{output}");
    assert_eq!(code, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn inspect_recognizes_what_is_not_an_access_token() {
    let entra = entra().await;
    let valid = || entra.v2(CONTOSO, ADMIN);
    let id_token = "It is an ID token. Send the access token";
    let b2c = "It is a token of Azure AD B2C or External ID";
    let another_api = "99999999-9999-4999-8999-999999999999";
    let custom_uri = "set requestedAccessTokenVersion: 2 in its registration";
    let personal_issuer = format!("{}/{PERSONAL_ACCOUNTS}/v2.0", entra.authority);
    let b2c_issuer = "https://contoso.b2clogin.com/11111111-1111-4111-8111-111111111111/v2.0/";
    for (token, advice) in [
        (valid().with("aud", SPA_CLIENT_ID).sign(), id_token),
        (valid().with("nonce", "n").without("scp").sign(), id_token),
        (
            valid()
                .with("aud", another_api)
                .with("nonce", "n")
                .without("scp")
                .sign(),
            id_token,
        ),
        (valid().without("scp").sign(), "not a token of the app"),
        (
            valid().sign() + ".AAAA.AAAA",
            "remove the token encryption key from its registration",
        ),
        ("EwBIA8l6BAAU".to_owned(), "It is not a JWT."),
        (
            valid().with("aud", "api://contoso.example/tasks").sign(),
            custom_uri,
        ),
        (valid().with("iss", b2c_issuer).sign(), b2c),
        (valid().with("iss", b2c_issuer).without("tid").sign(), b2c),
        (
            valid().with("scp", "User.Read").sign(),
            "The app must request the scope api://a0a0a0a0-0000-4000-8000-00000000a0a0/access_as_user.",
        ),
        (
            entra.v2(NORTHWIND, ADMIN).sign(),
            "tenants add 33333333-3333-4333-8333-333333333333",
        ),
        (
            valid()
                .with("tid", PERSONAL_ACCOUNTS)
                .with("iss", personal_issuer)
                .sign(),
            "It is the token of a personal account.",
        ),
        (
            valid()
                .signed_by(SigningKey::first().named("its own"))
                .sign(),
            "If the tenant configured a signing key for this API alone",
        ),
    ] {
        let settings = [("AZURE_SPA_CLIENT_ID", SPA_CLIENT_ID)];
        let (output, code) = inspect(&entra, &settings, &token);
        assert!(output.contains(advice), "{advice}: {output}");
        assert_eq!(code, Some(1));
    }
    for (claim, value, advice) in [
        ("iss", "https://issuer.example/", b2c),
        ("aud", another_api, custom_uri),
    ] {
        let (output, _) = inspect(&entra, &[], &valid().with(claim, value).sign());
        assert!(!output.contains(advice), "{output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inspect_says_whether_the_signature_was_verified() {
    let entra = entra().await;
    let (valid, not_verified) = ("its signature is valid:", "its signature was not verified:");
    for (token, expected) in [
        (entra.v1(CONTOSO, ADMIN), valid),
        (entra.v1(CONTOSO, NOROLE), valid),
        (entra.v1(CONTOSO, ADMIN).without("scp"), valid),
        (entra.v1(CONTOSO, ADMIN).with("scp", "User.Read"), valid),
        (entra.v1(NORTHWIND, ADMIN), not_verified),
        (
            entra
                .v1(CONTOSO, ADMIN)
                .signed_by(SigningKey::third().named(&SigningKey::first().key_id)),
            not_verified,
        ),
    ] {
        let (output, _) = inspect(&entra, &[], &token.sign());
        assert!(output.contains(expected), "{expected}: {output}");
    }
}

#[test]
fn token_as_an_argument_is_not_printed() {
    let (mut command, _directory) = command(&[]);
    for arguments in [&["eyJsecret.e.s"][..], &["Bearer", "eyJsecret"], &["-x"]] {
        let result = command.args(["token", "inspect"]).args(arguments);
        let result = result.output().unwrap();
        let output = String::from_utf8([result.stdout, result.stderr].concat()).unwrap();
        assert!(
            output.contains("the token is read from standard input"),
            "{output}"
        );
        assert!(!output.contains("eyJsecret"), "{output}");
        assert_eq!(result.status.code(), Some(2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inspect_reports_missing_keys_and_missing_token() {
    let entra = entra().await;
    entra.set_keys_response(CONTOSO, crate::support::entra::KeysResponse::Status(500));
    let (output, code) = inspect(&entra, &[], &entra.v1(CONTOSO, ADMIN).sign());
    assert!(
        output.contains("503")
            && output.contains("the tenant's signing keys cannot be fetched now"),
        "{output}"
    );
    assert_eq!(code, Some(1));
    let (output, code) = inspect(&entra, &[], " \n");
    assert_eq!(
        (output.as_str(), code),
        ("tenant-tasks: standard input is empty\n", Some(1))
    );
    assert_eq!(inspect(&entra, &[("PORT", "x")], "x").1, Some(1));
}
