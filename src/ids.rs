//! Identifiers: tenants, users, tasks and signing keys.
//!
//! Every identifier is parsed once, here. A [`TenantId`] is sixteen bytes, so it cannot carry a
//! path, a host or a query.

use std::{fmt, num::NonZeroU64, str::FromStr};

use serde::Serialize;
use thiserror::Error;
use utoipa::ToSchema;
use uuid::{Uuid, uuid};

/// The tenant of personal Microsoft accounts, which is not an organization.
/// <https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference>
const PERSONAL_ACCOUNTS: Uuid = uuid!("9188040d-6c67-4c5b-b112-36a304b66dad");

/// A tenant: the `tid` claim.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, ToSchema)]
#[schema(value_type = Uuid)]
#[serde(transparent)]
pub struct TenantId(Uuid);

/// A user within one tenant: the `oid` claim.
///
/// Not `sub`: Entra issues a different `sub` for every application.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, ToSchema)]
#[schema(value_type = Uuid)]
#[serde(transparent)]
pub struct UserId(Uuid);

/// A task within one tenant: 1, 2, 3, …
///
/// Each tenant has a counter: a shared one would show each tenant how active the others are.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct TaskId(NonZeroU64);

/// A signing key's id: `kid` in a token's header and a keys document (RFC 7517, section 4.5).
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct KeyId(Box<str>);

/// The owner of a task: a user and their tenant.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Owner {
    /// The user's tenant.
    pub tenant: TenantId,
    /// The user within that tenant.
    pub user: UserId,
}

/// The tasks that an operation may touch, all within one tenant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reach {
    /// Every task of the tenant.
    Tenant,
    /// The tasks of this user.
    User(UserId),
}

/// The text is not a hyphenated GUID: 8-4-4-4-12 hexadecimal digits.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("not a hyphenated GUID")]
pub struct NotAGuid;

/// The text does not name the tenant of an organization.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[expect(missing_docs, reason = "the error texts say what the variants mean")]
pub enum NotAnOrganization {
    #[error(transparent)]
    NotAGuid(#[from] NotAGuid),
    #[error("the tenant of personal Microsoft accounts, which cannot be allowed")]
    PersonalAccounts,
    #[error("the nil GUID, which is not a tenant")]
    Nil,
}

/// The text is not a whole number from 1 to 9223372036854775807, without sign and leading zeros.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("not a positive integer")]
pub struct NotATaskId;

/// Parses a hyphenated GUID in either case. Rejects the braced, URN and bare forms.
pub fn parse_guid(text: &str) -> Result<Uuid, NotAGuid> {
    uuid::fmt::Hyphenated::from_str(text)
        .map(Uuid::from)
        .map_err(|_| NotAGuid)
}

impl TenantId {
    /// A tenant for unit tests; each number is another one.
    #[cfg(test)]
    pub(crate) fn numbered(number: usize) -> Self {
        let id = format!("{number:08x}-0000-4000-8000-000000000000");
        id.parse().expect("a GUID")
    }

    /// Whether this can be the tenant of an organization.
    pub fn is_organization(self) -> bool {
        self.0 != PERSONAL_ACCOUNTS && !self.0.is_nil()
    }

    /// Parses the tenant of an organization, for settings and arguments.
    pub fn parse_organization(text: &str) -> Result<Self, NotAnOrganization> {
        let tenant: Self = text.parse()?;
        if tenant.is_organization() {
            Ok(tenant)
        } else if tenant.0.is_nil() {
            Err(NotAnOrganization::Nil)
        } else {
            Err(NotAnOrganization::PersonalAccounts)
        }
    }
}

impl TaskId {
    /// The first task of a tenant.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// The largest id that a signed 64-bit database column can hold.
    const LAST: u64 = i64::MAX.unsigned_abs();

    /// The next id.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Reach {
    /// Whether a task of `user` is included.
    pub fn includes(self, user: UserId) -> bool {
        match self {
            Self::Tenant => true,
            Self::User(own) => own == user,
        }
    }
}

impl KeyId {
    /// The maximum length of a key id, in characters. Entra's have 27.
    const MAX_CHARS: usize = 128;

    /// Parses a key id; `None` if it is empty or too long.
    pub fn parse(text: &str) -> Option<Self> {
        let is_valid = (1..=Self::MAX_CHARS).contains(&text.chars().count());
        is_valid.then(|| Self(text.into()))
    }
}

/// Escaped, because a key id may come from an unverified token.
impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = format!("{self:?}");
        let text = quoted
            .strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'));
        f.write_str(text.unwrap_or(&quoted))
    }
}

/// Quoted and escaped.
impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<TenantId> for Uuid {
    fn from(tenant: TenantId) -> Self {
        tenant.0
    }
}

impl From<UserId> for Uuid {
    fn from(user: UserId) -> Self {
        user.0
    }
}

impl From<Uuid> for UserId {
    fn from(oid: Uuid) -> Self {
        Self(oid)
    }
}

impl From<TaskId> for i64 {
    fn from(id: TaskId) -> Self {
        // Ids do not exceed `LAST`.
        Self::try_from(id.0.get()).unwrap_or(Self::MAX)
    }
}

impl TryFrom<i64> for TaskId {
    type Error = NotATaskId;

    fn try_from(id: i64) -> Result<Self, NotATaskId> {
        u64::try_from(id)
            .ok()
            .and_then(NonZeroU64::new)
            .map(Self)
            .ok_or(NotATaskId)
    }
}

impl FromStr for TenantId {
    type Err = NotAGuid;

    fn from_str(text: &str) -> Result<Self, NotAGuid> {
        parse_guid(text).map(Self)
    }
}

impl FromStr for UserId {
    type Err = NotAGuid;

    fn from_str(text: &str) -> Result<Self, NotAGuid> {
        parse_guid(text).map(Self)
    }
}

impl FromStr for TaskId {
    type Err = NotATaskId;

    fn from_str(text: &str) -> Result<Self, NotATaskId> {
        match text.parse::<NonZeroU64>() {
            Ok(id) if id.get() <= Self::LAST && !text.starts_with(['+', '0']) => Ok(Self(id)),
            Ok(_) | Err(_) => Err(NotATaskId),
        }
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_id_limit_is_in_characters() {
        let longest = "é".repeat(KeyId::MAX_CHARS);
        assert!(KeyId::parse(&longest).is_some());
        assert_eq!(KeyId::parse(&(longest + "x")), None);
    }
}
