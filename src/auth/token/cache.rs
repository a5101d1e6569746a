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

/// The bytes that the cache, the allocator and a key id add to an entry.
const OVERHEAD: usize = 250;

/// The longest signature to look up, in characters: that of a key of 8192 bits.
const MAX_SIGNATURE: usize = 1366;

/// The verified tokens by their signature, which costs less to hash than the whole token. A full
/// cache evicts the entries that are used least.
pub(crate) struct VerifiedTokens {
    tokens: Cache<Digest, (Digest, Arc<VerifiedToken>), Bytes>,
    hits: Counter,
    misses: Counter,
}

/// A SHA-256.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
struct Digest([u8; SHA256_OUTPUT_LEN]);

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

    /// The entry for exactly this token. A token that differs from it in any byte is a miss.
    pub(crate) fn get(&self, unverified_jwt: &str) -> Option<Arc<VerifiedToken>> {
        let (digest, token) = self.tokens.get(&digest_of_signature(unverified_jwt)?)?;
        (digest == Digest::of(unverified_jwt)).then_some(token)
    }

    pub(crate) fn insert(&self, verified_jwt: &str, token: VerifiedToken) {
        if let Some(signature) = digest_of_signature(verified_jwt) {
            let entry = (Digest::of(verified_jwt), Arc::new(token));
            self.tokens.insert(signature, entry);
        }
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

impl Digest {
    fn of(text: &str) -> Self {
        let mut bytes = [0; SHA256_OUTPUT_LEN];
        bytes.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        Self(bytes)
    }
}

fn digest_of_signature(jwt: &str) -> Option<Digest> {
    let (_, signature) = jwt.rsplit_once('.')?;
    (signature.len() <= MAX_SIGNATURE).then(|| Digest::of(signature))
}

impl Weighter<Digest, (Digest, Arc<VerifiedToken>)> for Bytes {
    fn weight(&self, _: &Digest, (_, token): &(Digest, Arc<VerifiedToken>)) -> u64 {
        let bytes = size_of::<VerifiedToken>() + OVERHEAD + token.principal.bytes();
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}
