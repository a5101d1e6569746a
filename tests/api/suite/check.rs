//! `check`: what it finds in the responses to a fetch of signing keys.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use tenant_tasks::clock::SystemClock;

use crate::{
    suite::commands::run,
    support::{
        app::listen,
        entra::{KeysResponse, MockEntra},
        tokens::SigningKey,
        users::{API_CLIENT_ID, CONTOSO},
    },
};

/// Runs `check` with Contoso as the only tenant. Returns standard output and the exit code.
fn check(entra: &MockEntra) -> (String, Option<i32>) {
    let settings = [
        ("AZURE_API_CLIENT_ID", API_CLIENT_ID),
        ("AZURE_AUTHORITY_HOST", &*entra.authority),
        ("ALLOWED_TENANT_IDS", CONTOSO.id),
    ];
    let (stdout, _, code, _) = run(&["check"], None, &settings);
    (stdout, code)
}

async fn entra() -> MockEntra {
    MockEntra::start(listen().await, Arc::new(SystemClock::new()))
}

#[tokio::test(flavor = "multi_thread")]
async fn key_that_is_published_twice_counts_once() {
    let entra = entra().await;
    let (first, second) = (SigningKey::first().jwk(), SigningKey::second().jwk());
    entra.publish(CONTOSO, &[first.clone(), second, first]);
    let (output, code) = check(&entra);
    assert!(output.contains(": 2 signing keys\n"), "{output}");
    assert_eq!(code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_keys_are_counted_by_reason() {
    let entra = entra().await;
    let key = |member: &str, value: Value| {
        let mut key = SigningKey::first().jwk();
        key[member] = value;
        key
    };
    let other =
        json!("https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0");
    for (keys, reasons) in [
        (vec![], "no usable key: the document is empty"),
        (
            vec![
                key("issuer", other.clone()),
                key("use", json!("enc")),
                key("issuer", other),
                key("cloud_instance_name", json!("microsoftonline.us")),
                key("kty", json!("EC")),
                key("n", json!("AQAB")),
                json!(1),
            ],
            "no usable key: 1 × not an object with the members of a key; \
             2 × not an RS256 signing key, according to kty, use or alg; \
             1 × a modulus outside 2048 to 8192 bits; \
             2 × the key of another issuer, such as that of personal accounts; \
             1 × the key of another cloud",
        ),
    ] {
        entra.publish(CONTOSO, &keys);
        let (output, code) = check(&entra);
        let line = format!("no signing keys: {reasons}\n");
        assert!(output.contains(&line), "{output}");
        assert_eq!(code, Some(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn response_that_is_not_a_keys_document_is_described() {
    let entra = entra().await;
    let html = ("content-type", "text/html; charset=utf-8".to_owned());
    let gzip = ("content-encoding", "gzip".to_owned());
    let json = ("content-type", "application/json".to_owned());
    for (status, headers, bytes, reason) in [
        (
            200,
            vec![html.clone()],
            "<html>Blocked</html>",
            "not a keys document: status 200 OK, content type text/html; charset=utf-8, 20 bytes",
        ),
        (
            200,
            vec![json.clone(), gzip],
            "\u{1f}x",
            "not a keys document: status 200 OK, content type application/json, content encoding \
             gzip, 2 bytes",
        ),
        (
            200,
            vec![json],
            "",
            "not a keys document: status 200 OK, content type application/json, 0 bytes",
        ),
        (
            403,
            vec![html],
            "",
            "status 403 Forbidden, content type text/html; charset=utf-8",
        ),
    ] {
        let bytes = Some(bytes.as_bytes().to_vec());
        let response = KeysResponse::Full {
            status,
            headers,
            bytes,
        };
        entra.set_keys_response(CONTOSO, response);
        let (output, code) = check(&entra);
        let line = format!("no signing keys: {reason}\n");
        assert!(output.contains(&line), "{output}");
        assert_eq!(code, Some(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clock_that_differs_by_more_than_a_minute_is_noted() {
    let entra = entra().await;
    let minutes = Duration::from_mins(1);
    #[expect(
        clippy::disallowed_methods,
        reason = "compared with the binary's clock"
    )]
    let now = SystemTime::now();
    for (date, is_noted) in [
        (now, false),
        (now + minutes / 2, false),
        (now - minutes / 2, false),
        (now + minutes * 2, true),
        (now - minutes * 2, true),
    ] {
        let date = httpdate::fmt_http_date(date);
        entra.set_keys_response(
            CONTOSO,
            KeysResponse::Full {
                status: 200,
                headers: vec![("date", date.clone())],
                bytes: None,
            },
        );
        let (output, code) = check(&entra);
        let note = "note      the clock of this machine and that of Entra differ by 1";
        assert_eq!(output.contains(note), is_noted, "{date}: {output}");
        assert_eq!(code, Some(0));
    }
}

#[test]
fn outbound_proxy_is_named_without_its_password() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // A proxy that rejects the one request.
    let proxy = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = String::new();
        BufReader::new(&stream).read_line(&mut head).unwrap();
        let response = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(response.as_bytes()).unwrap();
        head
    });
    let url = format!("http://user:s3cret@{address}");
    let settings = [
        ("AZURE_API_CLIENT_ID", API_CLIENT_ID),
        ("ALLOWED_TENANT_IDS", CONTOSO.id),
        ("HTTPS_PROXY", &*url),
    ];
    let (output, _, code, _) = run(&["check"], None, &settings);
    let head = proxy.join().unwrap();
    assert!(
        head.starts_with("CONNECT login.microsoftonline.com:443"),
        "{head}"
    );
    let note = format!("note      signing keys are fetched through the proxy http://{address}\n");
    assert!(output.contains(&note), "{output}");
    assert!(!output.contains("s3cret"), "{output}");
    assert_eq!(code, Some(1));
}
