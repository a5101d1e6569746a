//! A bearer token before and after its signature is verified.
//!
//! Only the key id and the claims are read from an [`UnverifiedToken`]. Only
//! [`UnverifiedToken::verify`] turns it into [`SignedClaims`]. The header parameters `jwk`, `jku`,
//! `x5u` and `x5c` are never read: a token must not choose the key that verifies it.

pub(crate) mod cache;
pub(crate) mod claims;
pub(crate) mod json;
#[cfg(test)]
mod wycheproof;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, crypto};

use self::{
    claims::{CLAIMS, Claims, SignedClaims},
    json::{Members, Names},
};
use super::{
    error::{InvalidToken, MalformedToken},
    keys::jwks::SigningKey,
};
use crate::ids::KeyId;

/// The maximum size of a token, in bytes. Entra's have 1 to 4 KiB, or more with many groups.
const MAX_BYTES: usize = 16 * 1024;

/// Header parameters that change what a signature covers or how it is read
/// (RFC 7515, section 4.1.11; RFC 7797; RFC 7516). Entra sends none of them.
const UNSUPPORTED: [&str; 4] = ["crit", "b64", "zip", "enc"];

/// The header parameters that the service reads.
const HEADER: Names = &["alg", "kid", "crit", "b64", "zip", "enc"];

/// A well-formed token. Its content is untrusted until its signature is verified.
pub(super) struct UnverifiedToken<'a> {
    /// The first two segments with the dot between them: the bytes that the signature covers.
    message: &'a str,
    signature: &'a str,
    pub(super) unverified_key_id: KeyId,
    pub(super) unverified_claims: Claims,
}

impl<'a> UnverifiedToken<'a> {
    /// Parses the compact serialization (RFC 7515, section 7.1).
    pub(super) fn parse(unverified_jwt: &'a str) -> Result<Self, InvalidToken> {
        let bytes = unverified_jwt.len();
        if bytes > MAX_BYTES {
            let max = MAX_BYTES;
            return Err(InvalidToken::TooLong { bytes, max });
        }
        // Checked before the header, because that of an encrypted token names another algorithm.
        let Some((message, header, payload, signature)) = split(unverified_jwt) else {
            return Err(wrong_segments(unverified_jwt));
        };
        let header = Members::parse(decode(header, "header")?, HEADER, "header")?;
        let unverified_key_id = parse_header(&header)?;
        let payload = decode(payload, "payload")?;
        decode(signature, "signature")?;
        let payload = Members::parse(payload, CLAIMS, "payload")?;
        Ok(Self {
            message,
            signature,
            unverified_key_id,
            unverified_claims: Claims::new(payload),
        })
    }

    /// Verifies the signature.
    pub(super) fn verify(self, key: &SigningKey) -> Result<SignedClaims, InvalidToken> {
        if is_signed_by(key, self.message.as_bytes(), self.signature) {
            Ok(SignedClaims::new(self.unverified_claims))
        } else {
            Err(InvalidToken::Signature(self.unverified_key_id))
        }
    }
}

/// Whether `signature`, in base64url, is the key's signature of `message`: RSASSA-PKCS1-v1_5 with
/// SHA-256 (RFC 7518, section 3.3).
fn is_signed_by(key: &SigningKey, message: &[u8], signature: &str) -> bool {
    let verified = crypto::verify(signature, message, key.decoding_key(), Algorithm::RS256);
    matches!(verified, Ok(true))
}

#[cfg(fuzzing)]
impl UnverifiedToken<'_> {
    pub(super) fn assume_signed(self) -> SignedClaims {
        SignedClaims::new(self.unverified_claims)
    }
}

/// Key id and claims of a token, for `token inspect`. `None` for a segment that cannot be parsed.
pub(super) fn unverified_members(
    unverified_jwt: &str,
    claims: Names,
) -> (Option<Members>, Option<Members>) {
    let mut segments = unverified_jwt.split('.');
    let mut parse = |segment, names| {
        let json = decode(segments.next()?, segment).ok()?;
        Members::parse(json, names, segment).ok()
    };
    (parse("header", &["kid"]), parse("payload", claims))
}

/// The signed message, its header and payload, and the signature. `None` unless there are three
/// segments.
fn split(unverified_jwt: &str) -> Option<(&str, &str, &str, &str)> {
    let (message, signature) = unverified_jwt.rsplit_once('.')?;
    let (header, payload) = message.split_once('.')?;
    (!payload.contains('.')).then_some((message, header, payload, signature))
}

fn wrong_segments(unverified_jwt: &str) -> InvalidToken {
    InvalidToken::Malformed(match unverified_jwt.split('.').count() {
        5 => MalformedToken::Encrypted,
        count => MalformedToken::Segments(count),
    })
}

fn decode(text: &str, segment: &'static str) -> Result<Vec<u8>, InvalidToken> {
    if text.is_empty() {
        return Err(InvalidToken::Malformed(MalformedToken::Empty(segment)));
    }
    BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| {
        let is_base64url = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        InvalidToken::Malformed(match text.chars().find(|&c| !is_base64url(c)) {
            Some(character) => MalformedToken::Base64 { segment, character },
            None => MalformedToken::CutOff(segment),
        })
    })
}

fn parse_header(header: &Members) -> Result<KeyId, InvalidToken> {
    if header.string("alg").as_deref() != Some("RS256") {
        return Err(InvalidToken::Algorithm(header.evidence("alg")));
    }
    let mut unsupported = UNSUPPORTED.into_iter();
    if let Some(name) = unsupported.find(|name| header.has(name)) {
        return Err(InvalidToken::UnsupportedHeader(name));
    }
    let key_id = header.string("kid").and_then(|kid| KeyId::parse(&kid));
    key_id.ok_or_else(|| InvalidToken::KeyId(header.evidence("kid")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_limit_is_exact() {
        let error = |bytes| UnverifiedToken::parse(&"x".repeat(bytes)).err();
        let one_segment = InvalidToken::Malformed(MalformedToken::Segments(1));
        assert_eq!(error(MAX_BYTES), Some(one_segment));
        let (bytes, max) = (MAX_BYTES + 1, MAX_BYTES);
        assert_eq!(error(bytes), Some(InvalidToken::TooLong { bytes, max }));
    }
}
