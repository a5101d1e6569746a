//! A tenant's keys document (RFC 7517, section 5) and the signing keys in it.
//!
//! A key that this tenant's tokens may not be signed with is left out alone: the documents
//! of all tenants also carry the keys of personal accounts, told apart only by `issuer`.

use std::fmt;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use crate::auth::authority::Authority;
use crate::ids::TenantId;

/// The most keys a document may hold; Entra's hold 6 to 14.
const MAX_KEYS: usize = 100;

/// RSA moduli this service verifies with, in bits: RFC 7518, section 3.3 asks for 2048, and the
/// work of a verification grows with the square of the size.
const MODULUS_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The name of a signing key: the `kid` of a token's header and of a published key.
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct KeyId(Box<str>);

/// A public key that a tenant's tokens are signed with.
pub(crate) struct SigningKey {
    modulus: Vec<u8>,
    decoding_key: DecodingKey,
}

/// The usable keys of a document, and why the others are not.
pub(crate) struct SigningKeys {
    pub(crate) keys: Vec<(KeyId, SigningKey)>,
    pub(crate) refused: Vec<RefusedKey>,
    /// How many of the keys do not say whose they are: only a stand-in's may.
    pub(crate) without_issuer: usize,
}

/// Why a published key is not used.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(crate) enum RefusedKey {
    /// Not an object with the members of a key, each of its type.
    #[error("not a key this service can read")]
    Malformed,
    /// `kty` is not `RSA`, `use` is not `sig`, or `alg` is another than `RS256`.
    #[error("not an RSA signing key")]
    Kind,
    /// The modulus is too short, or absurdly long.
    #[error("a modulus outside 2048 to 8192 bits")]
    Size,
    /// The key belongs to another issuer, such as that of personal accounts.
    #[error("the key of another issuer")]
    Issuer,
    /// The key belongs to another cloud.
    #[error("the key of another cloud")]
    Cloud,
}

/// Why a whole document is refused.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum BadDocument {
    /// Not JSON with a list of keys.
    #[error("not a keys document")]
    Malformed,
    /// More keys than any document of Entra's.
    #[error("more than {MAX_KEYS} keys")]
    TooManyKeys,
    /// Not one key of it can be used.
    #[error("no usable key")]
    NoUsableKey,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

/// The members this service reads of a key. `x5c`, `x5t` and the rest are ignored.
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
    ///
    /// # Errors
    ///
    /// [`BadDocument`] when not one key of it can be used.
    pub(crate) fn parse(
        document: &[u8],
        authority: &Authority,
        tenant: TenantId,
    ) -> Result<Self, BadDocument> {
        let document: Document =
            serde_json::from_slice(document).map_err(|_| BadDocument::Malformed)?;
        if document.keys.len() > MAX_KEYS {
            return Err(BadDocument::TooManyKeys);
        }
        let mut parsed = Self {
            keys: Vec::new(),
            refused: Vec::new(),
            without_issuer: 0,
        };
        for key in document.keys {
            let has_issuer = key.get("issuer").is_some_and(|issuer| !issuer.is_null());
            match parse_key(key, authority, tenant) {
                Ok(key) => {
                    parsed.keys.push(key);
                    parsed.without_issuer += usize::from(!has_issuer);
                }
                Err(reason) => parsed.refused.push(reason),
            }
        }
        if parsed.keys.is_empty() {
            Err(BadDocument::NoUsableKey)
        } else {
            Ok(parsed)
        }
    }
}

impl KeyId {
    /// The longest key id, in characters; Entra's have 27.
    const MAX_CHARS: usize = 128;

    /// Parses a key id; `None` if it is empty or too long.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        (1..=Self::MAX_CHARS)
            .contains(&text.chars().count())
            .then(|| Self(text.into()))
    }

    /// Its length in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.0.len()
    }
}

impl SigningKey {
    pub(crate) fn decoding_key(&self) -> &DecodingKey {
        &self.decoding_key
    }

    /// Whether this is the same key, not only one of the same name.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        self.modulus == other.modulus
    }
}

/// Quoted and escaped: a key id may come from a token nobody has verified.
impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn parse_key(
    key: Value,
    authority: &Authority,
    tenant: TenantId,
) -> Result<(KeyId, SigningKey), RefusedKey> {
    let key: Jwk = serde_json::from_value(key).map_err(|_| RefusedKey::Malformed)?;
    if key.kty != "RSA"
        || key.usage.as_deref() != Some("sig")
        || key.alg.is_some_and(|alg| alg != "RS256")
    {
        return Err(RefusedKey::Kind);
    }
    check_issuer(
        key.issuer.as_deref(),
        key.cloud_instance_name.as_deref(),
        authority,
        tenant,
    )?;

    let key_id = KeyId::parse(&key.kid).ok_or(RefusedKey::Malformed)?;
    let modulus = parse_unsigned(key.n)?;
    let exponent = parse_unsigned(key.e)?;
    if !MODULUS_BITS.contains(&bit_length(&modulus)) {
        return Err(RefusedKey::Size);
    }
    let decoding_key = DecodingKey::from_rsa_raw_components(&modulus, &exponent);
    Ok((
        key_id,
        SigningKey {
            modulus,
            decoding_key,
        },
    ))
}

/// A key says whose tokens it signs: `https://login.microsoftonline.com/{tenantid}/v2.0`, with
/// that very placeholder or with the tenant's id in its place.
fn check_issuer(
    issuer: Option<&str>,
    cloud: Option<&str>,
    authority: &Authority,
    tenant: TenantId,
) -> Result<(), RefusedKey> {
    let Some(issuer) = issuer else {
        // Only a stand-in for Entra leaves the issuer out.
        return if authority.is_loopback() {
            Ok(())
        } else {
            Err(RefusedKey::Issuer)
        };
    };
    let tid = tenant.to_string();
    let issuer = issuer
        .replace("{tenantid}", &tid)
        .replace("{tenantId}", &tid);
    let public = Authority::public();
    let publisher = [authority, &public]
        .into_iter()
        .find(|publisher| publisher.v2_issuer(tenant) == issuer)
        .ok_or(RefusedKey::Issuer)?;
    // The public cloud's issuer stands in the keys of other clouds too; a stand-in is in no cloud.
    let publisher = if authority.is_loopback() {
        publisher
    } else {
        authority
    };
    if cloud.is_some_and(|cloud| !publisher.is_in_cloud(cloud)) {
        return Err(RefusedKey::Cloud);
    }
    Ok(())
}

/// A `Base64urlUInt` (RFC 7518, section 2), without zeros in front.
fn parse_unsigned(text: Option<String>) -> Result<Vec<u8>, RefusedKey> {
    let mut bytes = text
        .and_then(|text| BASE64_URL_SAFE_NO_PAD.decode(text).ok())
        .ok_or(RefusedKey::Malformed)?;
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    bytes.drain(..zeros);
    Ok(bytes)
}

fn bit_length(unsigned: &[u8]) -> usize {
    unsigned.first().map_or(0, |first| {
        unsigned.len() * 8 - first.leading_zeros() as usize
    })
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

    /// The ids of the keys that are not only for personal accounts.
    fn ids_of_organisations(document: &Value) -> Vec<&str> {
        let keys = document["keys"].as_array().unwrap().iter();
        let keys =
            keys.filter(|key| key["issuer"] == "https://login.microsoftonline.com/{tenantid}/v2.0");
        keys.map(|key| key["kid"].as_str().unwrap()).collect()
    }

    fn assert_no_key_is_lost(document: &Value) {
        let parsed = parse(document);
        let kept: Vec<_> = parsed.keys.iter().map(|(key_id, _)| &*key_id.0).collect();
        assert_eq!(kept, ids_of_organisations(document));
        let count = document["keys"].as_array().unwrap().len();
        assert_eq!(parsed.refused, vec![RefusedKey::Issuer; count - kept.len()]);
    }

    #[test]
    fn of_a_recorded_document_only_the_keys_of_personal_accounts_are_left_out() {
        let excerpt = include_str!("../../../tests/support/entra-keys-excerpt.json");
        let document = serde_json::from_str(excerpt).unwrap();
        assert_eq!(ids_of_organisations(&document).len(), 2);
        assert_no_key_is_lost(&document);
    }

    #[test]
    fn a_key_that_names_a_cloud_is_used_in_that_cloud_alone() {
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
            assert_eq!(&*parsed.keys[0].0.0, expected.as_str().unwrap());
            assert!(parsed.refused.contains(&RefusedKey::Cloud));
        }
    }

    /// A longer record is not shipped: `ENTRA_KEYS_HISTORY` names a file of one.
    #[test]
    fn of_a_recorded_history_no_document_loses_a_key() {
        #[expect(
            clippy::disallowed_methods,
            reason = "where the record is, is no setting of the service"
        )]
        let Ok(path) = std::env::var("ENTRA_KEYS_HISTORY") else {
            eprintln!("left out: ENTRA_KEYS_HISTORY names no record of keys documents");
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
