//! Fuzzes the parser of keys documents. No input may cause a panic, and the parser must use exactly the keys that the
//! independent check below accepts.

#![no_main]

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tenant_tasks::auth::fuzzing::merge_keys;

const TENANT: &str = "11111111-1111-4111-8111-111111111111";

fuzz_target!(|data: &[u8]| {
    let Some((accepted, rejected)) = merge_keys(data, TENANT.parse().unwrap()) else {
        return;
    };
    let document: Value = serde_json::from_slice(data).unwrap();
    let keys = document["keys"].as_array().unwrap();
    assert!(keys.len() <= 100 && accepted >= 1 && accepted + rejected <= keys.len());
    let usable = keys.iter().filter(|key| is_usable(key)).count();
    assert_eq!(usable, keys.len() - rejected);
});

fn is_usable(key: &Value) -> bool {
    let host = "https://login.microsoftonline.com/";
    let issuers = ["{tenantid}", "{tenantId}", TENANT].map(|tenant| format!("{host}{tenant}/v2.0"));
    let text = |name: &str| key[name].as_str();
    text("kty") == Some("RSA")
        && text("use") == Some("sig")
        && (key["alg"].is_null() || text("alg") == Some("RS256"))
        && text("kid").is_some_and(|kid| (1..=128).contains(&kid.chars().count()))
        && text("issuer").is_some_and(|issuer| issuers.iter().any(|known| known == issuer))
        && (key["cloud_instance_name"].is_null()
            || text("cloud_instance_name").is_some_and(is_public_cloud))
        && text("n")
            .and_then(bits)
            .is_some_and(|bits| (2048..=8192).contains(&bits.len()))
        && text("e")
            .and_then(bits)
            .is_some_and(|bits| (2..=33).contains(&bits.len()) && bits.ends_with('1'))
}

fn is_public_cloud(name: &str) -> bool {
    ["login.microsoftonline.com", "microsoftonline.com", "com"].contains(&name)
}

/// The binary digits of a base64url number, without leading zeros.
fn bits(number: &str) -> Option<String> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(number).ok()?;
    let text: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    Some(text.trim_start_matches('0').to_owned())
}
