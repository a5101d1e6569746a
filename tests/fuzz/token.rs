//! Fuzzes token verification. No input may cause a panic, and each accepted token must pass the independent check
//! below.
//!
//! An input is a token as text, or a header and claims as JSON with a line break between them.

#![no_main]

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tenant_tasks::auth::{Principal, fuzzing::accept_as_if_signed};
use uuid::{Uuid, uuid};

const CLIENT_ID: Uuid = uuid!("a0a0a0a0-0000-4000-8000-00000000a0a0");
const NOW: u64 = 1_800_000_000;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = str::from_utf8(data) {
        check(text);
    }
    if let Some(line_break) = data.iter().position(|&byte| byte == b'\n') {
        let (header, claims) = (&data[..line_break], &data[line_break + 1..]);
        let encode = |bytes| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        check(&format!("{}.{}.AAAA", encode(header), encode(claims)));
    }
});

fn check(unverified_jwt: &str) {
    let scope = Some("access_as_user");
    if let Ok(principal) =
        accept_as_if_signed(unverified_jwt, CLIENT_ID, scope, Duration::from_secs(NOW))
    {
        check_accepted(unverified_jwt, &principal);
    }
}

fn check_accepted(token: &str, principal: &Principal) {
    assert!(token.len() <= 16 * 1024);
    let segments: Vec<_> = token.split('.').collect();
    assert_eq!(segments.len(), 3);
    let decode = |segment| -> Option<Value> {
        let json = BASE64_URL_SAFE_NO_PAD.decode(segment).unwrap();
        serde_json::from_str(&String::from_utf8_lossy(&json)).ok()
    };
    let (Some(header), Some(claims)) = (decode(segments[0]), decode(segments[1])) else {
        // A member that the service does not read may contain what this parser rejects.
        return;
    };

    assert_eq!(header["alg"], "RS256");
    assert!((1..=128).contains(&header["kid"].as_str().unwrap().chars().count()));
    for name in ["crit", "b64", "zip", "enc"] {
        assert!(header.get(name).is_none());
    }

    let tid = principal.tenant().to_string();
    assert!(claims["tid"].as_str().unwrap().eq_ignore_ascii_case(&tid));
    let issuer = match claims["ver"].as_str().unwrap() {
        "1.0" => format!("https://sts.windows.net/{tid}/"),
        "2.0" => format!("https://login.microsoftonline.com/{tid}/v2.0"),
        version => panic!("accepted version {version}"),
    };
    assert_eq!(claims["iss"], issuer);
    let audience = claims["aud"].as_str().unwrap();
    assert_eq!(
        audience
            .strip_prefix("api://")
            .map_or(audience, |id| id.strip_suffix('/').unwrap_or(id)),
        CLIENT_ID.to_string()
    );
    let now = NOW as f64;
    assert!(claims["exp"].as_f64().unwrap() > now - 60.0);
    assert!(claims["nbf"].as_f64().unwrap() <= now + 60.0);
    assert!(claims["iat"].as_f64().unwrap() <= now + 60.0);

    let oid = principal.owner().user.to_string();
    assert!(claims["oid"].as_str().unwrap().eq_ignore_ascii_case(&oid));
    assert!(
        claims["scp"]
            .as_str()
            .unwrap()
            .split(' ')
            .any(|scope| scope == "access_as_user")
    );
    assert_ne!(claims["idtyp"], "app");
    if let Some(roles) = claims.get("roles") {
        assert!(roles.as_array().unwrap().iter().all(Value::is_string));
    }
}
