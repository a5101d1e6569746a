//! Random histories of signing keys in simulated time, compared with a model.
//!
//! Each seed generates one history: rollovers, outages, documents that omit keys and later contain
//! them again, two keys under one id, revocations, changes of the allow-list and of the system
//! clock, and requests that are canceled while a fetch is in flight. The model predicts the result
//! of each request and the number of fetches.
//!
//! `KEY_SIMULATION_SEED` runs one seed, and `KEY_SIMULATION_SECONDS` runs new seeds for that time.

mod model;

use std::{
    collections::BTreeMap,
    env,
    sync::{Arc, LazyLock},
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;
use serde_json::{Value, json};
use tenant_tasks::{
    auth::{Access, AuthError, InvalidToken, RequestLog, Tenants, Verifier},
    clock::Clock,
    config::Config,
    ids::KeyId,
};
use tokio::{runtime, sync::Semaphore, task::JoinSet};

use self::model::{Fault, Fetches, Key, Lifetime, Model, Outcome};
use crate::support::{
    app::{SteppedClock, listen, settings},
    entra::{KeysResponse, MockEntra},
    tokens::{SigningKey, Token},
    users::{ADMIN, TENANTS},
};

/// The number of seeds in a run without settings.
const SEEDS: u64 = 200;

/// The number of kinds of events that a run counts: seven results of requests, and two others.
const KINDS: usize = 9;

/// The number of events in one history.
const EVENTS: usize = 60;

/// The number of key ids that can be published. Each can belong to any key pair of [`pairs`].
const KEY_IDS: usize = 4;

fn pairs() -> [SigningKey; 2] {
    [SigningKey::first(), SigningKey::second()]
}

fn key_id(id: usize) -> String {
    format!("key {id}")
}

const LIFETIMES: [Lifetime; 2] = [
    Lifetime {
        from: 0,
        until: 400 * 24 * 3600,
    },
    Lifetime {
        from: 2 * 3600,
        until: 30 * 3600,
    },
];

/// A token for each tenant, key id, key pair and lifetime. All histories share them, because
/// signing is slow.
static TOKENS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let start = SteppedClock::default().since_epoch().as_secs();
    let mut tokens = Vec::new();
    for tenant in TENANTS {
        for id in 0..=KEY_IDS {
            for pair in pairs() {
                for lifetime in LIFETIMES {
                    let token = Token::v1(tenant, ADMIN, start + lifetime.from)
                        .with("exp", start + lifetime.until)
                        .signed_by(pair.clone().named(&key_id(id)));
                    tokens.push(token.sign());
                }
            }
        }
    }
    tokens
});

/// One request: the indexes of its tenant, key and lifetime.
#[derive(Clone, Copy, Debug)]
struct Request {
    tenant: usize,
    key: Key,
    lifetime: usize,
}

impl Request {
    fn random(rng: &mut Rng) -> Self {
        Self {
            tenant: rng.usize(..TENANTS.len()),
            key: Key {
                id: rng.usize(..KEY_IDS),
                // Usually the first pair, so that most key ids have no conflict.
                pair: usize::from(rng.u8(..8) == 0),
            },
            lifetime: usize::from(rng.u8(..6) == 0),
        }
    }

    fn token(self) -> &'static str {
        let index = (self.tenant * (KEY_IDS + 1) + self.key.id) * 2 + self.key.pair;
        &TOKENS[index * 2 + self.lifetime]
    }
}

/// Prints the seed if the test fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("repeat this history with KEY_SIMULATION_SEED={}", self.0);
        }
    }
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "settings of the tests, and the real duration of the run"
)]
fn random_key_histories_match_the_model() {
    let number = |name| env::var(name).ok().map(|value| value.parse().unwrap());
    let mut counts = BTreeMap::new();
    if let Some(seed) = number("KEY_SIMULATION_SEED") {
        return run_history(seed, &mut counts);
    }
    let started = Instant::now();
    let mut seeds = 0;
    let mut run = |seed| {
        seeds += 1;
        run_history(seed, &mut counts);
    };
    if let Some(seconds) = number("KEY_SIMULATION_SECONDS") {
        while started.elapsed().as_secs() < seconds {
            run(fastrand::u64(..));
        }
    } else {
        (0..SEEDS).for_each(run);
    }
    let took = started.elapsed();
    eprintln!("{seeds} histories in {took:.1?}: {counts:?}");
    assert_eq!(counts.len(), KINDS, "a kind of event never happened");
}

/// Runs the history of a seed, and counts its events by kind.
fn run_history(seed: u64, counts: &mut BTreeMap<&'static str, usize>) {
    let printed = Seed(seed);
    // The random part of the service's refresh interval comes from the generator of this thread.
    fastrand::seed(seed);
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let history = runtime.unwrap().block_on(async {
        let mut history = History::start(Rng::with_seed(seed)).await;
        for _ in 0..EVENTS {
            history.next_event().await;
        }
        history.counts
    });
    for (kind, count) in history {
        *counts.entry(kind).or_default() += count;
    }
    drop(printed);
}

/// The service under test, and its model.
struct History {
    rng: Rng,
    clock: Arc<SteppedClock>,
    entra: MockEntra,
    verifier: Arc<Verifier>,
    model: Model,
    /// The number of fetches at the last call of [`History::new_fetches`], by tenant.
    fetches: [usize; TENANTS.len()],
    counts: BTreeMap<&'static str, usize>,
}

impl History {
    async fn start(rng: Rng) -> Self {
        let clock = Arc::new(SteppedClock::default());
        let entra = MockEntra::start(listen().await, clock.clone());
        let config = Config::parse(&settings(&entra.authority, &[])).unwrap();
        let verifier = Verifier::new(config.tokens, config.access, clock.clone()).unwrap();
        let mut history = Self {
            rng,
            clock,
            entra,
            verifier: Arc::new(verifier),
            model: Model::new(TENANTS.len()),
            fetches: [0; TENANTS.len()],
            counts: BTreeMap::new(),
        };
        for tenant in 0..TENANTS.len() {
            history.publish(tenant, vec![Key { id: 0, pair: 0 }]);
        }
        // `settings` lists the first two tenants.
        history.model.listed = [0, 1].into();
        history
    }

    async fn next_event(&mut self) {
        match self.rng.u8(..20) {
            0..=1 => {
                let tenant = self.rng.usize(..TENANTS.len());
                let keys = self.random_document();
                self.publish(tenant, keys);
            }
            2 => self.change_fault(),
            3..=6 => {
                let steps = [1, 2, 29, 31, 299, 301, 3200, 3607, 17_389, 45_001, 86_400];
                let seconds = *self.rng.choice(&steps).unwrap();
                self.clock.step(Duration::from_secs(seconds));
                self.model.now += seconds;
            }
            7 => {
                let steps = [-86_400, -7200, -61, 61, 7200, 86_400];
                let seconds = *self.rng.choice(&steps).unwrap();
                // No token is valid before the start of the history.
                if self.model.set_forward + seconds >= 0 {
                    self.clock.set_forward(seconds);
                    self.model.set_forward += seconds;
                }
            }
            8..=9 => self.refresh().await,
            10 => self.change_access().await,
            11..=12 => self.request_during_a_fetch().await,
            _ => {
                let request = Request::random(&mut self.rng);
                // The second request may hit the cache of verified tokens.
                self.request(request).await;
                self.request(request).await;
            }
        }
    }

    fn count(&mut self, kind: &'static str) {
        *self.counts.entry(kind).or_default() += 1;
    }

    fn random_document(&mut self) -> Vec<Key> {
        let count = self.rng.usize(1..=KEY_IDS);
        (0..count)
            .map(|_| Request::random(&mut self.rng).key)
            .collect()
    }

    fn publish(&mut self, tenant: usize, keys: Vec<Key>) {
        let signing_keys = keys
            .iter()
            .map(|key| pairs()[key.pair].clone().named(&key_id(key.id)));
        let jwks: Vec<Value> = signing_keys.map(|key| key.jwk()).collect();
        self.entra.publish(TENANTS[tenant], &jwks);
        self.model.published[tenant] = keys;
    }

    fn change_fault(&mut self) {
        let tenant = self.rng.usize(..TENANTS.len());
        let fault = if self.rng.u8(..3) == 0 {
            Fault::None
        } else {
            *self.rng.choice(&Fault::ALL).unwrap()
        };
        self.model.faults[tenant] = fault;
        self.set_response(tenant);
    }

    fn set_response(&self, tenant: usize) {
        let response = match self.model.faults[tenant] {
            Fault::None => KeysResponse::Published,
            Fault::Status => KeysResponse::Status(503),
            Fault::Absent => KeysResponse::Status(400),
            Fault::Garbage => KeysResponse::Bytes(b"<html>".to_vec()),
            Fault::NoUsableKey => {
                let mut key = SigningKey::third().jwk();
                key["use"] = "enc".into();
                KeysResponse::Bytes(json!({ "keys": [key] }).to_string().into_bytes())
            }
            Fault::RetryAfter(seconds) => KeysResponse::Full {
                status: 429,
                headers: vec![("retry-after", seconds.to_string())],
                bytes: None,
            },
        };
        self.entra.set_keys_response(TENANTS[tenant], response);
    }

    /// Starts the fetches that are due, and waits for them.
    async fn refresh(&mut self) {
        self.verifier.start_due_fetches().await;
        for tenant in 0..TENANTS.len() {
            let fetches = self.new_fetches(tenant);
            let expected = self.model.refresh(tenant);
            assert!(
                expected.allows(fetches),
                "{fetches} fetches, expected {expected:?}"
            );
            if fetches == 1 {
                self.model.fetched(tenant);
            }
        }
    }

    /// Adds or removes a tenant, revokes a key, or accepts a revoked key again.
    async fn change_access(&mut self) {
        // `replace_access` starts the fetches that are due. After this refresh, only the first
        // fetch of a new tenant is due.
        self.refresh().await;
        let tenant = self.rng.usize(..TENANTS.len());
        if self.rng.bool() {
            let id = self.rng.usize(..KEY_IDS);
            if !self.model.revoked.remove(&id) {
                self.model.revoked.insert(id);
            }
            self.verifier.replace_access(self.access());
        } else if self.model.listed.contains(&tenant) {
            if self.rng.u8(..3) == 0 {
                self.model.remove(tenant);
                self.verifier.replace_access(self.access());
            }
        } else {
            self.count("tenant added");
            self.model.listed.insert(tenant);
            self.add_tenant(tenant).await;
        }
    }

    /// Adds a tenant. A request during its first fetch waits for that fetch.
    async fn add_tenant(&mut self, tenant: usize) {
        let unknown = Request {
            tenant,
            key: Key {
                id: KEY_IDS,
                pair: 0,
            },
            lifetime: 0,
        };
        let held = self.hold(tenant);
        self.verifier.replace_access(self.access());
        assert_eq!(self.model.refresh(tenant), Fetches::Exactly(1));
        let verifier = Arc::clone(&self.verifier);
        let request = tokio::spawn(async move { verify(&verifier, unknown).await });
        self.wait_for_fetch(tenant).await;
        held.close();
        self.model.fetched(tenant);
        let expected = self.model.after_keys(tenant, unknown.key, LIFETIMES[0]);
        assert_eq!(request.await.unwrap(), expected);
        self.release(tenant);
    }

    /// Ends the tenant's fault, and delays the tenant's document until the semaphore is closed.
    fn hold(&mut self, tenant: usize) -> Arc<Semaphore> {
        let closed = Arc::new(Semaphore::new(0));
        self.model.faults[tenant] = Fault::None;
        let held = KeysResponse::Held(Arc::clone(&closed));
        self.entra.set_keys_response(TENANTS[tenant], held);
        closed
    }

    /// Ends [`History::hold`]. Fails if there was a fetch since [`History::wait_for_fetch`].
    fn release(&mut self, tenant: usize) {
        assert_eq!(self.new_fetches(tenant), 0, "one fetch for all requests");
        self.set_response(tenant);
    }

    /// Waits until a fetch has reached the authority.
    async fn wait_for_fetch(&mut self, tenant: usize) {
        loop {
            match self.new_fetches(tenant) {
                0 => tokio::task::yield_now().await,
                fetches => return assert_eq!(fetches, 1),
            }
        }
    }

    /// The number of fetches since the last call.
    fn new_fetches(&mut self, tenant: usize) -> usize {
        let fetches = self.entra.fetches(TENANTS[tenant]);
        let new = fetches - self.fetches[tenant];
        self.fetches[tenant] = fetches;
        new
    }

    fn access(&self) -> Access {
        let listed = self.model.listed.iter();
        let listed = listed.map(|&tenant| TENANTS[tenant].id.parse().unwrap());
        let revoked = self.model.revoked.iter();
        let revoked = revoked.map(|&id| KeyId::parse(&key_id(id)).unwrap());
        Access::from_settings(Tenants::Listed(listed.collect()), revoked.collect())
    }

    async fn request(&mut self, request: Request) {
        let outcome = verify(&self.verifier, request).await;
        let lifetime = LIFETIMES[request.lifetime];
        let expected = self.model.request(request.tenant, request.key, lifetime);
        let fetches = self.new_fetches(request.tenant);
        assert_eq!((outcome, fetches), expected, "{request:?}");
        self.count(outcome.into());
    }

    /// Delays a tenant's keys document while three requests wait for it. One of them is canceled.
    /// Other requests need no key of this document.
    async fn request_during_a_fetch(&mut self) {
        let waiting = Request::random(&mut self.rng);
        let tenant = waiting.tenant;
        let lifetime = LIFETIMES[waiting.lifetime];
        let change = self.rng.u8(..6);
        if change < 2 {
            // After this refresh, `replace_access` below starts no fetch.
            self.refresh().await;
        }
        if !self.model.would_fetch(tenant, waiting.key, lifetime) {
            return;
        }
        let held = self.hold(tenant);
        let mut requests = JoinSet::new();
        let mut send = || {
            let verifier = Arc::clone(&self.verifier);
            requests.spawn(async move { verify(&verifier, waiting).await })
        };
        let cancelled = send();
        send();
        send();
        self.wait_for_fetch(tenant).await;
        self.model.started_for_caller(tenant);
        cancelled.abort();
        self.count("canceled during a fetch");

        // Callers with a cached key do not wait for the fetch.
        for _ in 0..4 {
            let other = Request::random(&mut self.rng);
            let lifetime = LIFETIMES[other.lifetime];
            let waits = other.tenant == tenant && self.model.needs_key(tenant, other.key, lifetime);
            if !waits {
                self.request(other).await;
            }
        }
        match change {
            0 => {
                self.model.revoked.insert(waiting.key.id);
                self.verifier.replace_access(self.access());
            }
            1 => {
                self.model.listed.remove(&tenant);
                self.verifier.replace_access(self.access());
            }
            2 => {
                let later = self.rng.u64(..7200);
                self.clock.step(Duration::from_secs(later));
                self.model.now += later;
            }
            _ => {}
        }
        held.close();
        self.model.fetched(tenant);
        let expected = self.model.after_keys(tenant, waiting.key, lifetime);
        while let Some(outcome) = requests.join_next().await {
            match outcome {
                Ok(outcome) => assert_eq!(outcome, expected, "{waiting:?}"),
                Err(error) => assert!(error.is_cancelled()),
            }
        }
        if change == 1 {
            self.model.remove(tenant);
        }
        self.release(tenant);
    }
}

async fn verify(verifier: &Verifier, request: Request) -> Outcome {
    match verifier
        .verify(request.token(), &RequestLog::default())
        .await
    {
        Ok(_) => Outcome::Accepted,
        Err(AuthError::TenantNotAllowed(_)) => Outcome::TenantNotAllowed,
        Err(AuthError::KeysUnavailable { retry_after }) => {
            Outcome::Unavailable(retry_after.as_secs())
        }
        Err(AuthError::InvalidToken(invalid)) => match invalid {
            InvalidToken::Expired { .. } | InvalidToken::NotYetValid { .. } => Outcome::NotInTime,
            InvalidToken::RevokedKey(_) => Outcome::Revoked,
            InvalidToken::UnknownKey(_) => Outcome::UnknownKey,
            InvalidToken::Signature(_) => Outcome::WrongSignature,
            other => panic!("{other}"),
        },
        Err(other) => panic!("{other}"),
    }
}
