//! A cache of verified tokens, so that a token is verified once and not on every request.
//!
//! An entry proves that a key signed exactly these bytes. That never changes. Everything else is
//! checked again on every request: the time, the allow-list, the revoked keys, and whether the key
//! is still trusted. If any check fails, the cache reports a miss. The token is then verified from
//! scratch, and that produces the error.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use prometheus_client::metrics::counter::Counter;
use quick_cache::{Weighter, sync::Cache};

use super::claims::Validity;
use crate::{
    auth::{keys::jwks::SigningKey, principal::Principal},
    ids::KeyId,
};

/// The maximum size of all entries together, in bytes. An entry takes about 500 bytes, more for a
/// user with many roles, so about 60,000 tokens fit.
const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// The number of entries that the cache is allocated for at start.
const INITIAL_ENTRIES: usize = 1000;

/// The bytes that the cache and the allocator add to an entry.
const OVERHEAD: usize = 200;

/// The verified tokens. A full cache evicts the entries that are used least.
pub(crate) struct VerifiedTokens {
    tokens: Cache<TokenDigest, Arc<VerifiedToken>, Bytes>,
    hits: Counter,
    misses: Counter,
}

/// The SHA-256 of a whole token with its signature. A token that differs in any byte is a miss.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub(crate) struct TokenDigest([u8; SHA256_OUTPUT_LEN]);

/// The result of a verification.
pub(crate) struct VerifiedToken {
    pub(crate) principal: Principal,
    pub(crate) validity: Validity,
    pub(crate) key_id: KeyId,
    /// The key that verified the token. Another key with the same id does not match.
    pub(crate) key: Arc<SigningKey>,
}

#[derive(Clone)]
struct Bytes;

impl VerifiedTokens {
    pub(crate) fn new() -> Self {
        Self {
            tokens: Cache::with_weighter(INITIAL_ENTRIES, MAX_BYTES, Bytes),
            hits: Counter::default(),
            misses: Counter::default(),
        }
    }

    pub(crate) fn get(&self, digest: &TokenDigest) -> Option<Arc<VerifiedToken>> {
        self.tokens.get(digest)
    }

    pub(crate) fn insert(&self, digest: TokenDigest, token: VerifiedToken) {
        self.tokens.insert(digest, Arc::new(token));
    }

    pub(crate) fn count_hit(&self) {
        self.hits.inc();
    }

    pub(crate) fn count_miss(&self) {
        self.misses.inc();
    }

    /// The hits and misses since the start, and the current number of tokens.
    pub(crate) fn stats(&self) -> (u64, u64, usize) {
        (self.hits.get(), self.misses.get(), self.tokens.len())
    }
}

impl TokenDigest {
    pub(crate) fn of(unverified_jwt: &str) -> Self {
        let mut bytes = [0; SHA256_OUTPUT_LEN];
        bytes.copy_from_slice(digest(&SHA256, unverified_jwt.as_bytes()).as_ref());
        Self(bytes)
    }
}

impl Weighter<TokenDigest, Arc<VerifiedToken>> for Bytes {
    fn weight(&self, _: &TokenDigest, token: &Arc<VerifiedToken>) -> u64 {
        let content = token.principal.bytes() + token.key_id.bytes();
        let bytes = size_of::<VerifiedToken>() + OVERHEAD + content;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_covers_every_byte() {
        let of = TokenDigest::of;
        assert!(of("a.b.c") == of("a.b.c"));
        for other in ["a.b.d", "a.c.c", "b.b.c", "a.b.c ", "a.b.cc", "A.b.c", ""] {
            assert!(of("a.b.c") != of(other), "{other}");
        }
    }
}
