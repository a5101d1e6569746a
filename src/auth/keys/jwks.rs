//! A tenant's keys document (RFC 7517, section 5) and its signing keys.
//!
//! A key that must not sign this tenant's tokens is skipped, and the others are used. Every
//! document also contains the keys of personal accounts, which only `issuer` distinguishes.

use std::{
    collections::{BTreeMap, HashSet},
    ops::RangeInclusive,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use crate::{
    auth::authority::Authority,
    ids::{KeyId, TenantId},
};

/// The maximum number of keys in a document. Entra's have 6 to 14.
const MAX_KEYS: usize = 100;

/// The accepted RSA modulus sizes, in bits. RFC 7518, section 3.3 requires 2048 or more. The
/// cost of a verification grows with the square of the size.
const MODULUS_BITS: RangeInclusive<usize> = 2048..=8192;

/// The accepted sizes of a public exponent, in bits. It must be odd and at least 3 (RFC 8017, section
/// 3.1). AWS-LC rejects every signature of a key with a longer one.
const EXPONENT_BITS: RangeInclusive<usize> = 2..=33;

/// A public key that verifies a tenant's tokens.
pub(crate) struct SigningKey {
    modulus: Vec<u8>,
    decoding_key: DecodingKey,
}

/// The usable keys of a document, and why the others are not usable.
pub(crate) struct SigningKeys {
    pub(crate) keys: Vec<(KeyId, SigningKey)>,
    pub(crate) rejected: Vec<RejectedKey>,
}

/// Why a published key is not used.
#[derive(Clone, Copy, Debug, Eq, Error, Ord, PartialEq, PartialOrd)]
#[expect(missing_docs, reason = "the error texts say what the variants mean")]
pub enum RejectedKey {
    #[error("not an object with the members of a key")]
    Malformed,
    #[error("not an RS256 signing key, according to kty, use or alg")]
    Kind,
    #[error("a modulus outside 2048 to 8192 bits")]
    Size,
    #[error("a public exponent that is even, less than 3 or longer than 33 bits")]
    Exponent,
    #[error("the key of another issuer, such as that of personal accounts")]
    Issuer,
    #[error("the key of another cloud")]
    Cloud,
}

/// Why a whole document is rejected.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[expect(missing_docs, reason = "the error texts say what the variants mean")]
pub enum DocumentError {
    #[error("not a keys document")]
    Malformed,
    #[error("more than {MAX_KEYS} keys")]
    TooManyKeys,
    #[error("no usable key: {}", count_reasons(.0))]
    NoUsableKey(Vec<RejectedKey>),
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

/// The members of a key that the service reads. It ignores all others, such as `x5c` and `x5t`.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
    kid: String,
    n: Option<String>,
    e: Option<String>,
    issuer: Option<String>,
    cloud_instance_name: Option<String>,
}

impl SigningKeys {
    /// Parses the document that `authority` publishes for `tenant`.
    pub(crate) fn parse(
        document: &[u8],
        authority: &Authority,
        tenant: TenantId,
    ) -> Result<Self, DocumentError> {
        let document: Document =
            serde_json::from_slice(document).map_err(|_| DocumentError::Malformed)?;
        if document.keys.len() > MAX_KEYS {
            return Err(DocumentError::TooManyKeys);
        }
        let mut parsed = Self {
            keys: Vec::new(),
            rejected: Vec::new(),
        };
        for key in document.keys {
            match parse_key(key, authority, tenant) {
                Ok(key) => parsed.keys.push(key),
                Err(reason) => parsed.rejected.push(reason),
            }
        }
        if parsed.keys.is_empty() {
            return Err(DocumentError::NoUsableKey(parsed.rejected));
        }
        Ok(parsed)
    }

    /// The ids of the usable keys. A document may contain a key twice.
    pub(crate) fn ids(&self) -> HashSet<&KeyId> {
        self.keys.iter().map(|(key_id, _)| key_id).collect()
    }
}

impl SigningKey {
    pub(crate) fn decoding_key(&self) -> &DecodingKey {
        &self.decoding_key
    }

    /// Whether this is the same key, and not another key under the same id.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        self.modulus == other.modulus
    }
}

/// The reasons for a sentence, each with the number of keys.
fn count_reasons(rejected: &[RejectedKey]) -> String {
    let mut counts = BTreeMap::new();
    for reason in rejected {
        *counts.entry(reason).or_insert(0) += 1;
    }
    if counts.is_empty() {
        return "the document is empty".to_owned();
    }
    let counts = counts.into_iter();
    let counts = counts.map(|(reason, count): (_, u32)| format!("{count} × {reason}"));
    counts.collect::<Vec<_>>().join("; ")
}

fn parse_key(
    key: Value,
    authority: &Authority,
    tenant: TenantId,
) -> Result<(KeyId, SigningKey), RejectedKey> {
    let key: Jwk = serde_json::from_value(key).map_err(|_| RejectedKey::Malformed)?;
    let is_rsa_signing_key = key.kty == "RSA" && key.usage.as_deref() == Some("sig");
    if !is_rsa_signing_key || key.alg.is_some_and(|alg| alg != "RS256") {
        return Err(RejectedKey::Kind);
    }
    let (issuer, cloud) = (key.issuer.as_deref(), key.cloud_instance_name.as_deref());
    check_issuer(issuer, cloud, authority, tenant)?;

    let key_id = KeyId::parse(&key.kid).ok_or(RejectedKey::Malformed)?;
    let modulus = parse_unsigned(key.n)?;
    let exponent = parse_unsigned(key.e)?;
    if !MODULUS_BITS.contains(&bit_length(&modulus)) {
        return Err(RejectedKey::Size);
    }
    let is_odd = exponent.last().is_some_and(|last| last % 2 == 1);
    if !is_odd || !EXPONENT_BITS.contains(&bit_length(&exponent)) {
        return Err(RejectedKey::Exponent);
    }
    let decoding_key = DecodingKey::from_rsa_raw_components(&modulus, &exponent);
    let key = SigningKey {
        modulus,
        decoding_key,
    };
    Ok((key_id, key))
}

/// Rejects a key that does not sign this tenant's tokens. Its `issuer` ends in `/{tenantid}/v2.0`,
/// with this placeholder or with the tenant's id.
fn check_issuer(
    issuer: Option<&str>,
    cloud: Option<&str>,
    authority: &Authority,
    tenant: TenantId,
) -> Result<(), RejectedKey> {
    let Some(issuer) = issuer else {
        // Only the local Entra of tests and sandbox publishes keys without an issuer.
        let is_local = authority.is_loopback();
        return is_local.then_some(()).ok_or(RejectedKey::Issuer);
    };
    let tid = tenant.to_string();
    let issuer = issuer
        .replace("{tenantid}", &tid)
        .replace("{tenantId}", &tid);
    // The keys of the other clouds name the public cloud's issuer too.
    let public = Authority::public();
    let publisher = [authority, &public]
        .into_iter()
        .find(|publisher| publisher.v2_issuer(tenant) == issuer)
        .ok_or(RejectedKey::Issuer)?;
    // The local Entra does not belong to a cloud: the issuer determines which one to expect.
    let publisher = if authority.is_loopback() {
        publisher
    } else {
        authority
    };
    if cloud.is_some_and(|cloud| !publisher.is_in_cloud(cloud)) {
        return Err(RejectedKey::Cloud);
    }
    Ok(())
}

/// A `Base64urlUInt` (RFC 7518, section 2), without leading zeros.
fn parse_unsigned(text: Option<String>) -> Result<Vec<u8>, RejectedKey> {
    let bytes = text.and_then(|text| BASE64_URL_SAFE_NO_PAD.decode(text).ok());
    let mut bytes = bytes.ok_or(RejectedKey::Malformed)?;
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    bytes.drain(..zeros);
    Ok(bytes)
}

fn bit_length(unsigned: &[u8]) -> usize {
    let Some(first) = unsigned.first() else {
        return 0;
    };
    unsigned.len() * 8 - first.leading_zeros() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: &str = "11111111-1111-4111-8111-111111111111";

    fn parse(document: &Value) -> SigningKeys {
        let authority = Authority::parse(Authority::PUBLIC).unwrap();
        let document = serde_json::to_vec(document).unwrap();
        SigningKeys::parse(&document, &authority, TENANT.parse().unwrap()).unwrap()
    }

    /// The ids of the keys that are not those of personal accounts.
    fn ids_of_tenant_keys(document: &Value) -> Vec<KeyId> {
        let keys = document["keys"].as_array().unwrap().iter();
        let keys =
            keys.filter(|key| key["issuer"] == "https://login.microsoftonline.com/{tenantid}/v2.0");
        keys.map(|key| KeyId::parse(key["kid"].as_str().unwrap()).unwrap())
            .collect()
    }

    fn assert_no_key_is_lost(document: &Value) {
        let parsed = parse(document);
        let kept: Vec<_> = parsed.keys.into_iter().map(|(key_id, _)| key_id).collect();
        assert_eq!(kept, ids_of_tenant_keys(document));
        let count = document["keys"].as_array().unwrap().len();
        assert_eq!(
            parsed.rejected,
            vec![RejectedKey::Issuer; count - kept.len()]
        );
    }

    #[test]
    fn only_keys_of_personal_accounts_are_skipped() {
        let excerpt = include_str!("../../../tests/support/entra-keys-excerpt.json");
        let document = serde_json::from_str(excerpt).unwrap();
        assert_eq!(ids_of_tenant_keys(&document).len(), 2);
        assert_no_key_is_lost(&document);
    }

    #[test]
    fn a_key_is_used_only_in_the_cloud_that_it_names() {
        let excerpt = include_str!("../../../tests/support/entra-keys-excerpt.json");
        let mut document: Value = serde_json::from_str(excerpt).unwrap();
        document["keys"][0]["cloud_instance_name"] = "microsoftonline.us".into();
        document["keys"][1]["cloud_instance_name"] = "microsoftonline.com".into();
        let document = document.to_string();
        for (authority, index) in [
            ("https://login.microsoftonline.us", 0),
            (Authority::PUBLIC, 1),
        ] {
            let authority = Authority::parse(authority).unwrap();
            let parsed =
                SigningKeys::parse(document.as_bytes(), &authority, TENANT.parse().unwrap())
                    .unwrap();
            let expected =
                serde_json::from_str::<Value>(&document).unwrap()["keys"][index]["kid"].clone();
            assert_eq!(parsed.keys.len(), 1);
            assert_eq!(parsed.keys[0].0.to_string(), expected.as_str().unwrap());
            assert!(parsed.rejected.contains(&RejectedKey::Cloud));
        }
    }

    /// The long record is not in this repository: `ENTRA_KEYS_HISTORY` names its file.
    #[test]
    fn no_recorded_document_loses_a_key() {
        #[expect(
            clippy::disallowed_methods,
            reason = "a variable of the tests, not a setting of the service"
        )]
        let Ok(path) = std::env::var("ENTRA_KEYS_HISTORY") else {
            eprintln!("skipped: ENTRA_KEYS_HISTORY is not set");
            return;
        };
        let history: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let documents = history["documents"].as_array().unwrap();
        assert!(!documents.is_empty());
        for document in documents {
            let indexes = document[1].as_array().unwrap().iter();
            let keys = indexes
                .map(|index| &history["keys"][usize::try_from(index.as_u64().unwrap()).unwrap()]);
            assert_no_key_is_lost(&serde_json::json!({ "keys": keys.collect::<Vec<_>>() }));
        }
        eprintln!("{} documents, no key lost", documents.len());
    }
}
