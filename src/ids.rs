//! Who and what: tenants, users, tasks, and how far a caller may reach.
//!
//! Every identifier is parsed once, here. What has become a [`TenantId`] is sixteen
//! bytes, so no path, host or query can travel in it.

use std::{fmt, num::NonZeroU64, str::FromStr};

use serde::Serialize;
use thiserror::Error;
use uuid::Uuid;

/// An organisation: the `tid` claim, in Microsoft's words a tenant.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct TenantId(Uuid);

/// A user within one tenant: the `oid` claim.
///
/// Not `sub`, which differs for every application the user signs in to.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct UserId(Uuid);

/// A task within one tenant: 1, 2, 3, …
///
/// Counted per tenant, because a shared counter would tell one organisation how busy
/// the others are.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct TaskId(NonZeroU64);

/// The user a task belongs to, with the tenant that user is known in.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Owner {
    /// The owner's organisation.
    pub tenant: TenantId,
    /// The owner, as that organisation knows them.
    pub user: UserId,
}

/// How far a caller may reach within their own tenant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reach {
    /// Every task of the tenant: an Admin's reach.
    Tenant,
    /// The tasks of this user alone.
    User(UserId),
}

/// The text is not a GUID in its hyphenated form, 8-4-4-4-12 hexadecimal digits.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("not a hyphenated GUID")]
pub struct NotAGuid;

/// The text is not a whole number from 1 to 9223372036854775807.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("not a positive integer")]
pub struct NotATaskId;

/// Parses a GUID in its hyphenated form, in either case.
///
/// # Errors
///
/// [`NotAGuid`] for anything else, the braced, URN and bare forms included.
pub fn parse_guid(text: &str) -> Result<Uuid, NotAGuid> {
    uuid::fmt::Hyphenated::from_str(text)
        .map(Uuid::from)
        .map_err(|_| NotAGuid)
}

impl TenantId {
    /// A tenant known when the program is written.
    pub(crate) const fn new(tid: Uuid) -> Self {
        Self(tid)
    }
}

impl TaskId {
    /// The first task of a tenant.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// The largest id: what a signed 64-bit column of a database can hold.
    const LAST: u64 = i64::MAX.unsigned_abs();

    /// The id that is given after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Reach {
    /// Whether a task of `user` is within this reach.
    #[must_use]
    pub fn includes(self, user: UserId) -> bool {
        match self {
            Self::Tenant => true,
            Self::User(own) => own == user,
        }
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
        // Ids end at `LAST`.
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
            Ok(id) if id.get() <= Self::LAST => Ok(Self(id)),
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
