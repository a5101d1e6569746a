//! `token inspect`: of each token of the tests it names the very thing that is broken.

use std::{io::Write, process::Stdio, sync::Arc};

use serde_json::json;
use tenant_tasks::clock::SystemClock;

use crate::{
    authentication::{BROKEN, HARMLESS},
    service::command,
    support::{
        app::listen,
        entra::MockEntra,
        tokens::SigningKey,
        users::{ADMIN, API_CLIENT_ID, CONTOSO, EDITOR, FABRIKAM, NOROLE, NORTHWIND, READER},
    },
};

/// What must be said of each broken token.
const NAMED: &[(&str, &str)] = &[
    ("one segment", "It has 1 segments"),
    ("two segments", "It has 2 segments"),
    ("four segments", "It has 4 segments"),
    (
        "an encrypted token's five",
        "It has 5 segments, separated by dots; a signed token has three. Five would be an",
    ),
    ("no signature", "Its signature is empty"),
    (
        "a signature that is no base64",
        "Its signature has '!', which is not base64url",
    ),
    ("an empty header", "Its header is empty"),
    (
        "a space inside",
        "Its header has ' ', which is not base64url",
    ),
    ("base64 with padding", "Its header has padding (=)"),
    (
        "base64 of the other alphabet",
        "Its header has '+', which is base64 but not base64url",
    ),
    (
        "a header that is no object",
        "In its header: invalid type: sequence, expected a JSON object",
    ),
    ("a header that is no JSON", "In its header: expected value"),
    (
        "claims that are no object",
        "In its claims: invalid type: string \"tid\", expected a JSON object",
    ),
    (
        "claims nested too deep",
        "In its claims: recursion limit exceeded",
    ),
    ("a claim twice", "In its claims: duplicate member \"tid\""),
    (
        "a claim twice but for case",
        "In its claims: duplicate member \"tid\"",
    ),
    (
        "a claim's case twin in other letters",
        "In its claims: duplicate member \"aud\"",
    ),
    (
        "a header parameter twice",
        "In its header: duplicate member \"alg\"",
    ),
    (
        "a header parameter's case twin",
        "In its header: duplicate member \"alg\"",
    ),
    (
        "more than 16 KiB",
        "bytes long, and at most 16384 are taken",
    ),
    ("no alg", "Its algorithm (alg) is missing"),
    ("alg none, unsigned", "Its algorithm (alg) is \"none\""),
    ("alg in small letters", "Its algorithm (alg) is \"rs256\""),
    ("RS512", "Its algorithm (alg) is \"RS512\""),
    ("PS256", "Its algorithm (alg) is \"PS256\""),
    (
        "the public key as a shared secret",
        "Its algorithm (alg) is \"HS256\"",
    ),
    ("crit", "Its header has crit"),
    ("b64", "Its header has b64"),
    ("zip", "Its header has zip"),
    ("enc", "Its header has enc"),
    ("no kid", "Its key id (kid) is missing"),
    ("a kid that is a number", "Its key id (kid) is 7;"),
    ("an empty kid", "Its key id (kid) is \"\""),
    ("a kid too long", "Its key id (kid) is \"kkkk"),
    ("no tid", "Its tenant (tid) is missing"),
    ("an empty tid", "Its tenant (tid) is \"\""),
    ("a null tid", "Its tenant (tid) is null"),
    ("a tid that is a list", "Its tenant (tid) is [\"11111111"),
    ("a tid that is a path", "Its tenant (tid) is \"../common\""),
    (
        "a tid that is a name",
        "Its tenant (tid) is \"organizations\"",
    ),
    ("a tid in braces", "Its tenant (tid) is \"{11111111"),
    (
        "a tid without hyphens",
        "Its tenant (tid) is \"11111111111141118111111111111111\"",
    ),
    ("no ver", "Its version (ver) is missing"),
    ("a ver nobody knows", "Its version (ver) is \"3.0\""),
    ("no issuer", "Its issuer (iss) is missing"),
    (
        "another tenant's issuer",
        "That names another tenant than its tid",
    ),
    (
        "another host's issuer",
        "Its issuer (iss) is \"https://sts.windows.net.example/",
    ),
    (
        "the issuer without its slash",
        "Its issuer (iss) is \"https://sts.windows.net/11111111-1111-4111-8111-111111111111\";",
    ),
    (
        "the issuer in a list",
        "Its issuer (iss) is [\"https://sts.windows.net/",
    ),
    (
        "the issuer of the other version",
        "That is the issuer of the other version than its ver says",
    ),
    ("no audience", "Its audience (aud) is missing"),
    (
        "another audience",
        "Its audience (aud) is \"api://another\"",
    ),
    ("Graph's audience", "It is for Microsoft Graph"),
    ("the audience in a list", "Its audience (aud) is [\""),
    ("no exp", "Its exp is missing"),
    (
        "exp as a text",
        "Its exp is \"4102444800\"; it must be a number of seconds",
    ),
    ("exp long ago", "ago, at 2023-11-14T22:13:20Z"),
    ("no nbf", "Its nbf is missing"),
    (
        "nbf in the year 2100",
        "It is valid only from 2100-01-01T00:00:00Z on (nbf)",
    ),
    ("no iat", "Its iat is missing"),
    (
        "iat in the year 2100",
        "It is valid only from 2100-01-01T00:00:00Z on (iat)",
    ),
    (
        "an unknown key id",
        "Its key id (kid) is \"nobody's\", and its tenant publishes no signing key of that id",
    ),
    (
        "another tenant's key",
        "and its tenant publishes no signing key of that id",
    ),
    (
        "a published key id, another key",
        "Its signature is not one that the tenant's key",
    ),
    (
        "a signature of other claims",
        "Its signature is not one that the tenant's key",
    ),
    (
        "another padding than its alg",
        "Its signature is not one that the tenant's key",
    ),
    ("no oid", "Its oid is missing"),
    ("an oid that is no GUID", "Its oid is \"admin\""),
    (
        "roles as a text",
        "Its roles is \"Admin\"; it must be a list of texts",
    ),
    ("a role that is a number", "Its roles is [\"Admin\",1]"),
    ("null for roles", "Its roles is null"),
    (
        "scopes in a list",
        "Its scp is [\"access_as_user\"]; it must be a text",
    ),
];

/// What is said of a token, and the exit code.
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
    let output = process.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (String::from_utf8(said).unwrap(), output.status.code())
}

async fn entra() -> MockEntra {
    MockEntra::start(listen().await, Arc::new(SystemClock::new()))
}

#[tokio::test(flavor = "multi_thread")]
async fn of_each_broken_token_the_very_thing_is_named() {
    let entra = entra().await;
    entra.publish(FABRIKAM, &[SigningKey::third().jwk()]);
    for &(case, detail, break_it) in BROKEN {
        let token = break_it(entra.v1(CONTOSO, ADMIN));
        let (said, code) = inspect(&entra, &[], &token);
        let named = NAMED
            .iter()
            .find(|(of, _)| *of == case)
            .unwrap_or_else(|| panic!("not in the table: {case}"));
        assert!(said.contains(named.1), "{case}: {said}");
        let verdict = format!("This token would be refused, with 401 Unauthorized: {detail}.");
        assert!(said.starts_with(&verdict), "{case}: {said}");
        assert_eq!(code, Some(1), "{case}");
        assert!(
            !said.contains(&token),
            "the token itself is not repeated: {case}"
        );
    }
    assert_eq!(NAMED.len(), BROKEN.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_token_is_accepted_and_it_is_said_what_its_holder_may_do() {
    let entra = entra().await;
    for (case, change) in HARMLESS {
        let (said, code) = inspect(&entra, &[], &change(entra.v1(CONTOSO, ADMIN)).sign());
        assert!(
            said.starts_with("This token would be accepted.") && code == Some(0),
            "{case}: {said}"
        );
    }
    for (user, see, create, delete) in [
        (
            ADMIN,
            "see tasks              yes, the whole tenant's",
            "yes",
            "yes",
        ),
        (
            EDITOR,
            "see tasks              yes, their own",
            "yes",
            "no, with 403",
        ),
        (
            READER,
            "see tasks              yes, their own",
            "no, with 403",
            "no, with 403",
        ),
    ] {
        let (said, code) = inspect(
            &entra,
            &[],
            &format!("Authorization: Bearer {}\n", entra.v2(CONTOSO, user).sign()),
        );
        for line in [
            see,
            &format!("create and change them {create}"),
            &format!("delete them            {delete}"),
        ] {
            assert!(said.contains(line), "{}: {said}", user.name);
        }
        assert_eq!(code, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tenant_scope_role_app_and_revoked_key_are_named_too() {
    let entra = entra().await;
    let good = || entra.v1(CONTOSO, ADMIN);
    let revoked = [("REVOKED_KEY_IDS", &*SigningKey::first().key_id)];
    let none: &[(&str, &str)] = &[];
    for (settings, token, status, named) in [
        (
            none,
            entra.v1(NORTHWIND, ADMIN).sign(),
            "403",
            "is not in ALLOWED_TENANT_IDS",
        ),
        (
            none,
            good().with("scp", "User.Read").sign(),
            "403",
            "Its scopes (scp) are \"User.Read\", without access_as_user",
        ),
        (
            none,
            good().without("scp").sign(),
            "403",
            "It has no scp, so no scope access_as_user",
        ),
        (
            none,
            good().with("idtyp", "app").sign(),
            "403",
            "Its idtyp is \"app\"",
        ),
        (
            &[("REQUIRED_SCOPE", "")],
            good().without("scp").sign(),
            "403",
            "It has no scp: it is an app's own token",
        ),
        (
            none,
            entra.v1(CONTOSO, NOROLE).sign(),
            "403",
            "Its roles are [], none of Admin, Editor and Reader",
        ),
        (
            none,
            good().with("roles", json!(["Auditor"])).sign(),
            "403",
            "Its roles are [\"Auditor\"], none of",
        ),
        (
            &revoked,
            good().sign(),
            "401",
            "and REVOKED_KEY_IDS lists it",
        ),
        (
            none,
            entra.v2(CONTOSO, ADMIN).with("ver", "1.0").sign(),
            "401",
            "the issuer of the other version",
        ),
    ] {
        let (said, code) = inspect(&entra, settings, &token);
        assert!(
            said.contains(named) && said.contains(status),
            "{named}: {said}"
        );
        assert_eq!(code, Some(1), "{named}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_in_a_token_is_obeyed_by_the_terminal_it_is_shown_on() {
    let entra = entra().await;
    let evil = "\u{1b}]0;title\u{7}\u{9b}31m\u{202e}x";
    for token in [
        entra.v1(CONTOSO, ADMIN).with("name", evil),
        entra.v1(CONTOSO, ADMIN).with("roles", json!([evil])),
        entra.v1(CONTOSO, ADMIN).with("aud", evil),
        entra.v1(CONTOSO, ADMIN).with("scp", json!([evil])),
        entra
            .v1(CONTOSO, ADMIN)
            .with(evil, 1)
            .with(&evil.to_uppercase(), 1),
    ] {
        let (said, _) = inspect(&entra, &[], &token.sign());
        let is_obeyed = |character: char| {
            character != '\n' && (character.is_control() || character == '\u{202e}')
        };
        assert!(!said.contains(is_obeyed), "{said:?}");
    }
    let (said, _) = inspect(&entra, &[], &format!("a.{evil}.c"));
    assert!(!said.contains('\u{1b}'), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_keys_or_without_a_token_it_says_so() {
    let entra = entra().await;
    entra.set_keys_response(CONTOSO, crate::support::entra::KeysResponse::Status(500));
    let (said, code) = inspect(&entra, &[], &entra.v1(CONTOSO, ADMIN).sign());
    assert!(
        said.contains("503") && said.contains("its signature could not be checked"),
        "{said}"
    );
    assert_eq!(code, Some(1));
    let (said, code) = inspect(&entra, &[], " \n");
    assert_eq!(
        (said.as_str(), code),
        (
            "tenant-tasks: there is no token on standard input\n",
            Some(1)
        )
    );
    assert_eq!(inspect(&entra, &[("PORT", "x")], "x").1, Some(1));
}
