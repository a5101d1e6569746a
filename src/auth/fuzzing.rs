//! Entry points for the fuzzers in `tests/fuzz`. Not compiled into the service.

use std::{collections::HashSet, time::Duration};

use uuid::Uuid;

use super::{
    authority::Authority,
    error::AuthError,
    keys::{jwks::SigningKeys, set::KeySet},
    principal::Principal,
    token::{UnverifiedToken, claims::Expectations},
};
use crate::ids::TenantId;

/// Verifies a token without the allow-list, the key and the signature. It accepts what an attacker
/// with a tenant's signing key could get accepted.
pub fn accept_as_if_signed(
    unverified_jwt: &str,
    client_id: Uuid,
    required_scope: Option<&str>,
    now: Duration,
) -> Result<Principal, AuthError> {
    let token = UnverifiedToken::parse(unverified_jwt)?;
    let tenant = token.unverified_claims.tenant()?;
    let expectations = Expectations::new(Authority::public(), client_id);
    expectations.check(&token.unverified_claims, tenant, now)?;
    Principal::from_claims(&token.assume_signed(), required_scope)
}

/// Parses a keys document and merges it twice. Returns the number of cached keys and of rejected
/// keys; `None` if no key is usable.
pub fn merge_keys(document: &[u8], tenant: TenantId) -> Option<(usize, usize)> {
    let parse = || SigningKeys::parse(document, &Authority::public(), tenant).ok();
    let (first, second) = (parse()?, parse()?);
    let rejected = first.rejected.len();
    let ids: HashSet<_> = first.ids().into_iter().cloned().collect();
    let (once, changes) = KeySet::default().merge(first.keys, Duration::ZERO);
    assert_eq!(changes.new.len(), ids.len());
    let (twice, again) = once.merge(second.keys, Duration::from_secs(1));
    assert!(again.new.is_empty() && again.conflicting == changes.conflicting);
    for key_id in &ids {
        assert!(twice.get(key_id, Duration::from_secs(1)).is_some());
    }
    Some((ids.len(), rejected))
}
