//! A bearer token before and after its signature has been checked.
//!
//! Only the key id and the claims are read from an [`UnverifiedToken`], and only
//! [`UnverifiedToken::verify`] makes [`SignedClaims`] of it. `jwk`, `jku`, `x5u` and `x5c`
//! are never looked at: a token does not choose the key it is checked with.

pub(crate) mod cache;
pub(crate) mod claims;
pub(crate) mod json;

use std::ops::Deref;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, crypto};

use crate::auth::{
    error::InvalidToken,
    keys::jwks::{KeyId, SigningKey},
    token::claims::Claims,
    token::json::Members,
};

/// The longest token, in bytes. Entra's are 1 to 4 KiB, more with many groups.
pub(crate) const MAX_BYTES: usize = 16 * 1024;

/// Header parameters that change what a signature covers or how it is read
/// (RFC 7515, section 4.1.11; RFC 7797; RFC 7516). Entra sends none of them.
pub(crate) const UNSUPPORTED: [&str; 4] = ["crit", "b64", "zip", "enc"];

/// A token of the right shape. Nothing in it is to be believed yet.
pub(crate) struct UnverifiedToken<'a> {
    /// The first two segments with the dot between them: what the signature covers.
    message: &'a str,
    signature: &'a str,
    pub(crate) unverified_key_id: KeyId,
    pub(crate) unverified_claims: Claims,
}

/// Claims that a tenant's signing key vouches for.
pub(crate) struct SignedClaims(Claims);

impl<'a> UnverifiedToken<'a> {
    /// Parses the compact serialisation (RFC 7515, section 7.1) in time that does not
    /// depend on the number of dots.
    ///
    /// # Errors
    ///
    /// Why the text is not a token this service could accept from anyone.
    pub(crate) fn parse(unverified_jwt: &'a str) -> Result<Self, InvalidToken> {
        if unverified_jwt.len() > MAX_BYTES {
            return Err(InvalidToken::TooLong);
        }
        let (message, signature) = unverified_jwt
            .rsplit_once('.')
            .ok_or(InvalidToken::Malformed)?;
        // A fourth segment would leave a dot in the claims, which is not base64url.
        let (header, claims) = message.split_once('.').ok_or(InvalidToken::Malformed)?;

        let header = parse_segment(header)?;
        let unverified_key_id = parse_header(&header)?;
        let unverified_claims = Claims::new(parse_segment(claims)?);
        if decode(signature)?.is_empty() {
            return Err(InvalidToken::Malformed);
        }
        Ok(Self {
            message,
            signature,
            unverified_key_id,
            unverified_claims,
        })
    }

    /// Checks the signature, RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518, section 3.3).
    ///
    /// # Errors
    ///
    /// [`InvalidToken::Signature`] if `key` did not sign these very bytes.
    pub(crate) fn verify(self, key: &SigningKey) -> Result<SignedClaims, InvalidToken> {
        match crypto::verify(
            self.signature,
            self.message.as_bytes(),
            key.decoding_key(),
            Algorithm::RS256,
        ) {
            Ok(true) => Ok(SignedClaims(self.unverified_claims)),
            Ok(false) | Err(_) => Err(InvalidToken::Signature),
        }
    }
}

#[cfg(fuzzing)]
impl UnverifiedToken<'_> {
    pub(crate) fn assume_signed(self) -> SignedClaims {
        SignedClaims(self.unverified_claims)
    }
}

impl Deref for SignedClaims {
    type Target = Claims;

    fn deref(&self) -> &Claims {
        &self.0
    }
}

fn parse_segment(segment: &str) -> Result<Members, InvalidToken> {
    Members::parse(&decode(segment)?)
}

fn decode(segment: &str) -> Result<Vec<u8>, InvalidToken> {
    BASE64_URL_SAFE_NO_PAD
        .decode(segment)
        .map_err(|_| InvalidToken::Malformed)
}

fn parse_header(header: &Members) -> Result<KeyId, InvalidToken> {
    if header.string("alg") != Some("RS256") {
        return Err(InvalidToken::Algorithm);
    }
    if UNSUPPORTED.iter().any(|name| header.value(name).is_some()) {
        return Err(InvalidToken::UnsupportedHeader);
    }
    header
        .string("kid")
        .and_then(KeyId::parse)
        .ok_or(InvalidToken::KeyId)
}
