//! Test vectors in the format of Project Wycheproof, for tokens, signatures and keys documents.
//!
//! The repository contains a few vectors that were made for this project. `WYCHEPROOF` names a
//! folder with Wycheproof's files.

use std::{collections::BTreeMap, fs, path::Path};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{UnverifiedToken, is_signed_by};
use crate::auth::{
    authority::Authority,
    error::{InvalidToken, MalformedToken},
    keys::jwks::{SigningKey, SigningKeys},
};

const VECTORS: &str = include_str!("../../../tests/support/wycheproof-vectors.json");
const TENANT: &str = "11111111-1111-4111-8111-111111111111";

/// Vectors from the repository and, if `WYCHEPROOF` is set, from one of Wycheproof's files.
struct Vectors {
    /// Each vector with its group, which contains the key.
    vectors: Vec<(Value, Value)>,
    is_complete: bool,
}

impl Vectors {
    fn read(file: &str) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "a variable of the tests, not a setting of the service"
        )]
        let folder = std::env::var("WYCHEPROOF").ok();
        let vectors: Value = serde_json::from_str(VECTORS).unwrap();
        let mut documents = vec![vectors[file].clone()];
        if let Some(folder) = &folder {
            let path = Path::new(folder).join(format!("{file}_test.json"));
            documents.push(serde_json::from_slice(&fs::read(path).unwrap()).unwrap());
        } else {
            eprintln!("skipped: all but a few vectors, because WYCHEPROOF is not set");
        }
        let groups = documents
            .iter()
            .flat_map(|document| document["testGroups"].as_array().unwrap());
        let vectors = groups.flat_map(|group| {
            let tests = group["tests"].as_array().unwrap().iter();
            tests.map(|test| (test.clone(), group.clone()))
        });
        Self {
            vectors: vectors.collect(),
            is_complete: folder.is_some(),
        }
    }

    fn with_result(&self, result: &str) -> impl Iterator<Item = &(Value, Value)> {
        let vectors = self.vectors.iter();
        vectors.filter(move |(test, _)| test["result"] == result)
    }
}

/// The JWK or the JWK Set of a group. A group with symmetric keys has only `private`.
fn jwk(group: &Value) -> &Value {
    ["public", "keyJwk", "private"]
        .iter()
        .find_map(|member| group.get(member))
        .unwrap()
}

fn parse_keys(keys: &Value) -> Result<SigningKeys, String> {
    let mut keys = keys.as_array().unwrap().clone();
    for key in &mut keys {
        key["issuer"] = "https://login.microsoftonline.com/{tenantid}/v2.0".into();
    }
    let document = json!({ "keys": keys }).to_string();
    let tenant = TENANT.parse().unwrap();
    SigningKeys::parse(document.as_bytes(), &Authority::public(), tenant)
        .map_err(|error| error.to_string())
}

/// The key with this modulus and exponent. Its `use` is not checked.
fn key(jwk: &Value) -> SigningKey {
    let key = json!({ "kty": "RSA", "use": "sig", "kid": "key", "n": jwk["n"], "e": jwk["e"] });
    parse_keys(&json!([key])).unwrap().keys.pop().unwrap().1
}

/// Verifies a JWS as the service verifies a token: segments and header, key, signature. The payload
/// need not contain claims.
fn verify(jws: &str, keys: &Value) -> Result<(), String> {
    let mut mismatch = "signature";
    match UnverifiedToken::parse(jws) {
        // The payload of most vectors is not JSON.
        Ok(_)
        | Err(InvalidToken::Malformed(MalformedToken::Json {
            segment: "payload", ..
        })) => {}
        Err(InvalidToken::Malformed(MalformedToken::Empty("payload"))) => {
            mismatch = "empty payload";
        }
        Err(InvalidToken::Malformed(MalformedToken::Segments(_))) => {
            return Err("segments".to_owned());
        }
        Err(InvalidToken::Malformed(MalformedToken::Empty(segment))) => {
            return Err(format!("empty {segment}"));
        }
        Err(InvalidToken::Malformed(_)) => return Err("malformed".to_owned()),
        Err(InvalidToken::Algorithm(_)) => return Err("algorithm".to_owned()),
        Err(error) => return Err(error.to_string()),
    }
    let (_, key) = parse_keys(keys)?.keys.pop().unwrap();
    let is_signed = has_signature_of(&key, jws);
    is_signed.then_some(()).ok_or(mismatch.to_owned())
}

/// Only the signature step: it accepts any payload.
fn has_signature_of(key: &SigningKey, jws: &str) -> bool {
    let (message, signature) = jws.rsplit_once('.').unwrap();
    is_signed_by(key, message.as_bytes(), signature)
}

/// The expected reason for the rejection of a vector, if its name or its header determines it.
fn expected_reason(test: &Value, jwk: &Value) -> Option<&'static str> {
    let (name, jws) = (test["comment"].as_str()?, test["jws"].as_str()?);
    let header = jws.split('.').next()?;
    let header = BASE64_URL_SAFE_NO_PAD.decode(header).ok()?;
    let header: Value = serde_json::from_slice(&header).ok()?;
    let segments = jws.split('.').count();
    Some(match name {
        _ if segments != 3 => "segments",
        _ if header.get("alg")? != "RS256" => "algorithm",
        "rejectsMissingSignature" => "empty signature",
        "rejectsMissingPayload" => "empty payload",
        _ if jwk["use"] != "sig" || jwk["alg"] != "RS256" => {
            "no usable key: 1 × not an RS256 signing key, according to kty, use or alg"
        }
        _ => "signature",
    })
}

fn print(what: &str, counts: &BTreeMap<String, usize>) {
    eprintln!("{what}: {counts:?}");
}

#[test]
fn invalid_jws_are_rejected_for_their_reason() {
    let vectors = Vectors::read("json_web_signature");
    let mut counts = BTreeMap::new();
    for (test, group) in vectors.with_result("invalid") {
        let jwk = jwk(group);
        // A vector of the JSON serialization is an object (RFC 7515, section 7.2).
        let jws = test["jws"]
            .as_str()
            .map_or_else(|| test["jws"].to_string(), str::to_owned);
        let reason = verify(&jws, &json!([jwk])).expect_err(&test.to_string());
        if let Some(expected) = expected_reason(test, jwk) {
            assert_eq!(reason, expected, "{test}");
        }
        *counts.entry(reason).or_default() += 1;
    }
    print("invalid JWS", &counts);
    if vectors.is_complete {
        assert!(counts.values().sum::<usize>() >= 355);
    }
}

#[test]
fn only_rs256_passes_the_signature_step() {
    let vectors = Vectors::read("json_web_signature");
    let (mut accepted, mut rejected) = (0, 0);
    for (test, group) in vectors.with_result("valid") {
        let jws = test["jws"].as_str().unwrap();
        let jwk = jwk(group);
        if jwk["alg"] == "RS256" {
            assert!(has_signature_of(&key(jwk), jws), "{test}");
            if jwk["use"] == "sig" {
                assert_eq!(verify(jws, &json!([jwk])), Ok(()), "{test}");
            }
            accepted += 1;
        } else {
            verify(jws, &json!([jwk])).expect_err(&test.to_string());
            rejected += 1;
        }
    }
    eprintln!("valid JWS: {accepted} with RS256 accepted, {rejected} others rejected");
    if vectors.is_complete {
        assert!(accepted >= 8 && rejected >= 38);
    }
}

#[test]
fn forged_rsa_signatures_are_rejected() {
    let vectors = Vectors::read("rsa_signature_2048_sha256");
    let mut counts = BTreeMap::new();
    for (test, group) in &vectors.vectors {
        let bytes = |member: &str| {
            let hex = test[member].as_str().unwrap().as_bytes().chunks(2);
            let hex = hex.map(|pair| std::str::from_utf8(pair).unwrap());
            hex.map(|pair| u8::from_str_radix(pair, 16).unwrap())
                .collect::<Vec<_>>()
        };
        let signature = BASE64_URL_SAFE_NO_PAD.encode(bytes("sig"));
        let is_signed = is_signed_by(&key(jwk(group)), &bytes("msg"), &signature);
        let result = test["result"].as_str().unwrap();
        // An "acceptable" signature lacks the NULL that RFC 8017, section 9.2 requires. It is
        // rejected.
        assert_eq!(is_signed, result == "valid", "{test}");
        *counts.entry(result.to_owned()).or_default() += 1;
    }
    print("RSA signatures", &counts);
    if vectors.is_complete {
        assert!(counts["invalid"] >= 249 && counts["valid"] >= 9);
    }
}

#[test]
fn only_keys_for_rs256_signatures_are_used() {
    let vectors = Vectors::read("json_web_key");
    let mut counts = BTreeMap::new();
    for (test, group) in &vectors.vectors {
        let result = verify(test["jws"].as_str().unwrap(), &jwk(group)["keys"]);
        let is_rs256 = jwk(group)["keys"][0]["alg"] == "RS256";
        // The service does not detect weak primes (ROCA). It trusts the keys that Entra publishes.
        let is_roca = test["comment"] == "rejectsKeyWithRocaVulnerability";
        let expected = is_rs256 && (test["result"] == "valid" || is_roca);
        assert_eq!(result.is_ok(), expected, "{test}: {result:?}");
        if group["comment"].as_str().unwrap().starts_with("exponent") {
            let reason = result.as_ref().unwrap_err();
            assert!(reason.contains("a public exponent"), "{test}: {reason}");
        }
        let outcome = result.err().unwrap_or_else(|| "accepted".to_owned());
        *counts.entry(outcome).or_default() += 1;
    }
    print("keys documents", &counts);
    if vectors.is_complete {
        assert!(counts.values().sum::<usize>() >= 26);
    }
}
