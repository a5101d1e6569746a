//! The model of the service: the result of each request, and when keys are fetched. Times are in
//! seconds.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use strum::IntoStaticStr;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// How long a key is trusted after it was last published.
const TRUST: u64 = 24 * HOUR;

/// The time from a successful fetch to the next refresh.
const REFRESH: RangeInclusive<u64> = 54 * MINUTE..=66 * MINUTE;

const MAX_BACK_OFF: u64 = 30;

/// The rate limit of fetches for unknown keys: two in a burst, one more every five minutes, and at
/// least 30 seconds between two.
const UNKNOWN_BURST: u64 = 2;
const UNKNOWN_INTERVAL: u64 = 5 * MINUTE;
const UNKNOWN_SPACING: u64 = 30;

const LEEWAY: u64 = MINUTE;

/// A key id, and the key pair that it belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Key {
    pub(super) id: usize,
    pub(super) pair: usize,
}

/// When a token is valid, in seconds since the start of the history.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifetime {
    pub(super) from: u64,
    pub(super) until: u64,
}

/// How the authority responds to a fetch. `None`: with the published document.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    None,
    Status,
    Absent,
    Garbage,
    NoUsableKey,
    RetryAfter(u64),
}

impl Fault {
    pub(super) const ALL: [Self; 7] = [
        Self::None,
        Self::Status,
        Self::Absent,
        Self::Garbage,
        Self::NoUsableKey,
        Self::RetryAfter(7),
        Self::RetryAfter(3600),
    ];
}

/// The result of a request.
#[derive(Clone, Copy, Debug, Eq, IntoStaticStr, PartialEq)]
#[strum(serialize_all = "title_case")]
pub(super) enum Outcome {
    Accepted,
    TenantNotAllowed,
    NotInTime,
    Revoked,
    UnknownKey,
    /// The keys cannot be fetched now. Contains the number of seconds to wait.
    Unavailable(u64),
    WrongSignature,
}

/// The number of fetches that a background refresh must start.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fetches {
    Exactly(usize),
    /// The random part of the refresh interval determines whether one is due.
    AtMostOne,
}

impl Fetches {
    pub(super) fn allows(self, fetches: usize) -> bool {
        match self {
            Self::Exactly(number) => fetches == number,
            Self::AtMostOne => fetches <= 1,
        }
    }
}

#[derive(Debug)]
pub(super) struct Model {
    pub(super) now: u64,
    pub(super) set_forward: i64,
    pub(super) listed: BTreeSet<usize>,
    /// Key ids.
    pub(super) revoked: BTreeSet<usize>,
    pub(super) published: Vec<Vec<Key>>,
    pub(super) faults: Vec<Fault>,
    cached: Vec<Option<TenantKeys>>,
}

/// The cached keys of one tenant, and the state of its fetches.
#[derive(Clone, Debug)]
struct TenantKeys {
    /// The pair of each key id, and when it was last published.
    seen: BTreeMap<usize, (usize, u64)>,
    failures: u32,
    due: RangeInclusive<u64>,
    /// The credit at `credited_at`, in seconds. A fetch for an unknown key costs
    /// [`UNKNOWN_INTERVAL`].
    credit: u64,
    credited_at: u64,
    taken_at: Option<u64>,
}

impl Model {
    pub(super) fn new(tenants: usize) -> Self {
        Self {
            now: 0,
            set_forward: 0,
            listed: BTreeSet::new(),
            revoked: BTreeSet::new(),
            published: vec![Vec::new(); tenants],
            faults: vec![Fault::None; tenants],
            cached: vec![None; tenants],
        }
    }

    /// Removes a tenant from the allow-list, and its keys from the cache.
    pub(super) fn remove(&mut self, tenant: usize) {
        self.listed.remove(&tenant);
        self.cached[tenant] = None;
    }

    /// The number of fetches for this tenant that a background refresh must start.
    pub(super) fn refresh(&mut self, tenant: usize) -> Fetches {
        if !self.listed.contains(&tenant) {
            return Fetches::Exactly(0);
        }
        let now = self.now;
        let due = &self.keys(tenant).due;
        if now < *due.start() {
            Fetches::Exactly(0)
        } else if now >= *due.end() {
            Fetches::Exactly(1)
        } else {
            Fetches::AtMostOne
        }
    }

    /// The result of a request, and the number of fetches that it causes.
    pub(super) fn request(
        &mut self,
        tenant: usize,
        key: Key,
        lifetime: Lifetime,
    ) -> (Outcome, usize) {
        if let Some(outcome) = self.before_keys(tenant, key, lifetime) {
            return (outcome, 0);
        }
        let fetches = usize::from(self.would_fetch(tenant, key, lifetime));
        if fetches == 1 {
            self.started_for_caller(tenant);
            self.fetched(tenant);
        }
        (self.after_keys(tenant, key, lifetime), fetches)
    }

    /// Whether the request needs a key that is not cached.
    pub(super) fn needs_key(&self, tenant: usize, key: Key, lifetime: Lifetime) -> bool {
        let is_cached = self.cached[tenant]
            .as_ref()
            .is_some_and(|keys| keys.pair(key.id, self.now).is_some());
        self.before_keys(tenant, key, lifetime).is_none() && !is_cached
    }

    /// Whether the request causes a fetch.
    pub(super) fn would_fetch(&mut self, tenant: usize, key: Key, lifetime: Lifetime) -> bool {
        let now = self.now;
        if !self.needs_key(tenant, key, lifetime) {
            return false;
        }
        let keys = self.keys(tenant);
        if keys.is_usable(now) && keys.failures == 0 {
            keys.is_unknown_key_allowed(now)
        } else {
            now >= *keys.due.end()
        }
    }

    /// Counts a caller's fetch against the rate limit if other keys are cached.
    pub(super) fn started_for_caller(&mut self, tenant: usize) {
        let now = self.now;
        let keys = self.keys(tenant);
        if keys.is_usable(now) && keys.is_unknown_key_allowed(now) {
            keys.credit = keys.credit_at(now) - UNKNOWN_INTERVAL;
            keys.credited_at = now;
            keys.taken_at = Some(now);
        }
    }

    /// Records the end of a fetch.
    pub(super) fn fetched(&mut self, tenant: usize) {
        let (now, fault) = (self.now, self.faults[tenant]);
        let published = self.published[tenant].clone();
        let keys = self.keys(tenant);
        let requested = match fault {
            Fault::None => {
                keys.store(&published, now);
                return;
            }
            Fault::RetryAfter(seconds) => seconds,
            Fault::Status | Fault::Absent | Fault::Garbage | Fault::NoUsableKey => 0,
        };
        let back_off = 2_u64
            .pow(keys.failures.min(10))
            .max(requested)
            .min(MAX_BACK_OFF);
        keys.failures += 1;
        keys.due = now + back_off..=now + back_off;
    }

    /// The result of a request after the fetch that it waited for.
    pub(super) fn after_keys(&mut self, tenant: usize, key: Key, lifetime: Lifetime) -> Outcome {
        let now = self.now;
        let keys = self.keys(tenant);
        let Some(pair) = keys.pair(key.id, now) else {
            return if keys.failures == 0 && keys.is_usable(now) {
                Outcome::UnknownKey
            } else {
                let wait = keys.due.end().saturating_sub(now);
                Outcome::Unavailable(wait.clamp(1, MAX_BACK_OFF))
            };
        };
        if !self.listed.contains(&tenant) {
            Outcome::TenantNotAllowed
        } else if self.revoked.contains(&key.id) {
            Outcome::Revoked
        } else if pair != key.pair {
            Outcome::WrongSignature
        } else if self.is_in_time(lifetime) {
            Outcome::Accepted
        } else {
            Outcome::NotInTime
        }
    }

    /// The result of a request that is rejected before it needs a key. `None` if it needs one.
    fn before_keys(&self, tenant: usize, key: Key, lifetime: Lifetime) -> Option<Outcome> {
        if !self.listed.contains(&tenant) {
            Some(Outcome::TenantNotAllowed)
        } else if !self.is_in_time(lifetime) {
            Some(Outcome::NotInTime)
        } else if self.revoked.contains(&key.id) {
            Some(Outcome::Revoked)
        } else {
            None
        }
    }

    fn is_in_time(&self, lifetime: Lifetime) -> bool {
        let now = self.now.saturating_add_signed(self.set_forward);
        lifetime.from <= now + LEEWAY && now < lifetime.until + LEEWAY
    }

    /// The tenant's keys. The first fetch is due at once.
    fn keys(&mut self, tenant: usize) -> &mut TenantKeys {
        let now = self.now;
        self.cached[tenant].get_or_insert_with(|| TenantKeys {
            seen: BTreeMap::new(),
            failures: 0,
            due: 0..=0,
            credit: UNKNOWN_BURST * UNKNOWN_INTERVAL,
            credited_at: now,
            taken_at: None,
        })
    }
}

impl TenantKeys {
    /// The pair of a trusted key.
    fn pair(&self, id: usize, now: u64) -> Option<usize> {
        let &(pair, seen) = self.seen.get(&id)?;
        (now - seen < TRUST).then_some(pair)
    }

    fn is_usable(&self, now: u64) -> bool {
        self.seen.keys().any(|&id| self.pair(id, now).is_some())
    }

    fn credit_at(&self, now: u64) -> u64 {
        let credit = self.credit + (now - self.credited_at);
        credit.min(UNKNOWN_BURST * UNKNOWN_INTERVAL)
    }

    fn is_unknown_key_allowed(&self, now: u64) -> bool {
        let is_too_soon = self
            .taken_at
            .is_some_and(|taken| now - taken < UNKNOWN_SPACING);
        !is_too_soon && self.credit_at(now) >= UNKNOWN_INTERVAL
    }

    fn store(&mut self, published: &[Key], now: u64) {
        self.seen.retain(|_, (_, seen)| now - *seen < TRUST);
        for key in published {
            let (pair, seen) = self.seen.entry(key.id).or_insert((key.pair, now));
            // Another key under the id of a trusted key is rejected.
            if *pair == key.pair {
                *seen = now;
            }
        }
        self.failures = 0;
        self.due = now + REFRESH.start()..=now + REFRESH.end();
    }
}
