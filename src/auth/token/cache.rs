//! Tokens whose signature has been checked, so that the next request with one costs no check.
//!
//! An entry proves that a key signed these very bytes, and what they say; that never changes.
//! Whatever can change is asked again for each request: the time, the allow-list, the revoked
//! keys, and whether the key is still trusted. Of a token that fails there is no answer here;
//! it takes the long way, and gets its refusal on that.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use quick_cache::{Weighter, sync::Cache};

use crate::auth::{
    keys::jwks::{KeyId, SigningKey},
    principal::Principal,
    token::claims::Validity,
};

/// All entries together, in bytes. A token weighs some 500, of a person with many roles more,
/// so this is room for some 60,000 of them.
const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// How many entries room is made for at the start.
const EXPECTED: usize = 1000;

/// What the cache and the allocator need for an entry beside its text, in bytes.
const OVERHEAD: usize = 200;

/// The tokens verified of late.
pub(crate) struct VerifiedTokens {
    tokens: Cache<TokenDigest, Arc<VerifiedToken>, Bytes>,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// How far remembering tokens has helped, since the start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TokenCacheUse {
    /// Tokens that needed no verification.
    pub hits: u64,
    /// Tokens that took the long way, good or not.
    pub misses: u64,
    /// Tokens remembered at the moment.
    pub entries: usize,
}

/// The SHA-256 of a whole token, its signature included: of two tokens that differ anywhere,
/// only the one that was verified is found.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub(crate) struct TokenDigest([u8; SHA256_OUTPUT_LEN]);

/// What is known of a token because its signature has been checked.
pub(crate) struct VerifiedToken {
    pub(crate) principal: Principal,
    pub(crate) validity: Validity,
    pub(crate) key_id: KeyId,
    /// The key it was checked with. Another under the same key id proves nothing of it.
    pub(crate) key: Arc<SigningKey>,
}

#[derive(Clone)]
struct Bytes;

impl VerifiedTokens {
    pub(crate) fn new() -> Self {
        let tokens = Cache::with_weighter(EXPECTED, MAX_BYTES, Bytes);
        Self {
            tokens,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    pub(crate) fn find(&self, digest: &TokenDigest) -> Option<Arc<VerifiedToken>> {
        self.tokens.get(digest)
    }

    pub(crate) fn remember(&self, digest: TokenDigest, token: VerifiedToken) {
        self.tokens.insert(digest, Arc::new(token));
    }

    /// Counts a request whose token was known, and still good, or not.
    pub(crate) fn count(&self, is_hit: bool) {
        let counter = if is_hit { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn usage(&self) -> TokenCacheUse {
        TokenCacheUse {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            entries: self.tokens.len(),
        }
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
        let bytes =
            size_of::<VerifiedToken>() + OVERHEAD + token.principal.bytes() + token.key_id.bytes();
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_of_every_byte() {
        let of = TokenDigest::of;
        assert!(of("a.b.c") == of("a.b.c"));
        for other in ["a.b.d", "a.c.c", "b.b.c", "a.b.c ", "a.b.cc", "A.b.c", ""] {
            assert!(of("a.b.c") != of(other), "{other}");
        }
    }
}
