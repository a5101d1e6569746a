//! Signing keys over time. Tests step the clock, so days pass in milliseconds.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::{Method, StatusCode};
use proptest::{prelude::*, test_runner::TestRunner};
use tenant_tasks::{
    auth::{Access, AuthError, InvalidToken, RequestLog, Tenants},
    clock::Clock,
    ids::KeyId,
};
use tokio::task::JoinSet;

use crate::support::{
    app::TestApp,
    entra::KeysResponse,
    tokens::{SigningKey, Token},
    users::{ADMIN, CONTOSO, FABRIKAM, Tenant, absent_tenant},
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);
/// The refresh interval with maximum jitter, and a second more.
const REFRESH_DUE: Duration = Duration::from_secs(66 * 60 + 1);

/// A token of the tenant's admin that is valid for 30 days.
fn long_lived_token(app: &TestApp, tenant: Tenant, key: SigningKey) -> String {
    let token: Token = app.entra.v1(tenant, ADMIN);
    token
        .with("exp", app.entra.now() + 30 * 24 * 3600)
        .signed_by(key)
        .sign()
}

/// Steps the clock until a refresh is due, and waits for the refresh.
async fn step_to_refresh(app: &TestApp) {
    app.clock.step(REFRESH_DUE);
    app.verifier.start_due_fetches().await;
}

#[tokio::test]
async fn keys_are_fetched_in_the_background_at_startup() {
    let app = TestApp::start().await;
    for tenant in [CONTOSO, FABRIKAM] {
        app.entra
            .set_keys_response(tenant, KeysResponse::Delay(SECOND / 3));
    }
    let fetches = app.verifier.start_due_fetches();
    let ready = app.send(Method::GET, "/ready", None, None).await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ready.detail(), "No signing keys have been loaded yet");
    assert!(ready.header("retry-after").is_some());
    assert_eq!(
        app.send(Method::GET, "/health", None, None).await.status,
        StatusCode::OK
    );

    fetches.await;
    let ready = app.send(Method::GET, "/ready", None, None).await;
    assert_eq!(
        (ready.status, ready.body.as_str()),
        (StatusCode::OK, r#"{"status":"ready"}"#)
    );
    assert_eq!(
        app.me(&app.entra.v1(CONTOSO, ADMIN).sign()).await.status,
        StatusCode::OK
    );
    assert_eq!(
        app.entra.all_fetches(),
        2,
        "the first request used a cached key"
    );
}

#[tokio::test]
async fn service_is_ready_with_the_keys_of_one_tenant() {
    let app = TestApp::start().await;
    app.entra
        .set_keys_response(CONTOSO, KeysResponse::Status(500));
    app.verifier.start_due_fetches().await;
    assert_eq!(
        app.send(Method::GET, "/ready", None, None).await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn hourly_refresh_does_not_delay_requests() {
    let app = TestApp::start().await;
    app.verifier.start_due_fetches().await;
    app.clock.step(53 * 60 * SECOND);
    app.verifier.start_due_fetches().await;
    assert_eq!(app.entra.fetches(CONTOSO), 1, "not yet due");

    app.entra
        .set_keys_response(CONTOSO, KeysResponse::Delay(SECOND / 2));
    app.clock.step(14 * 60 * SECOND);
    let mut refresh = Box::pin(app.verifier.start_due_fetches());
    let token = app.entra.v1(CONTOSO, ADMIN).sign();
    tokio::select! {
        biased;
        () = &mut refresh => panic!("the request waited for the refresh"),
        answer = app.me(&token) => assert_eq!(answer.status, StatusCode::OK),
    }
    refresh.await;
    assert_eq!(app.entra.fetches(CONTOSO), 2);
}

#[tokio::test]
async fn key_is_trusted_for_24_hours_after_last_seen() {
    let app = TestApp::start().await;
    let (kept, removed) = (SigningKey::first(), SigningKey::second());
    let token = long_lived_token(&app, CONTOSO, removed.clone());
    app.entra.publish(CONTOSO, &[kept.jwk(), removed.jwk()]);
    app.verifier.start_due_fetches().await;
    app.entra.publish(CONTOSO, &[kept.jwk()]);
    for _ in 0..21 {
        step_to_refresh(&app).await;
        assert_eq!(app.me(&token).await.status, StatusCode::OK);
    }
    app.clock
        .step((24 * HOUR).saturating_sub(21 * REFRESH_DUE + SECOND));
    assert_eq!(
        app.me(&token).await.status,
        StatusCode::OK,
        "one second before the key expires"
    );
    app.clock.step(SECOND);
    let answer = app.me(&token).await;
    assert_eq!(
        (answer.status, answer.detail()),
        (
            StatusCode::UNAUTHORIZED,
            "Unable to find signing key".into()
        )
    );

    // The key is published again.
    app.entra.publish(CONTOSO, &[kept.jwk(), removed.jwk()]);
    step_to_refresh(&app).await;
    assert_eq!(app.me(&token).await.status, StatusCode::OK);
}

#[tokio::test]
async fn cached_keys_bridge_an_outage_of_24_hours() {
    let app = TestApp::start().await;
    app.verifier.start_due_fetches().await;
    let token = long_lived_token(&app, CONTOSO, SigningKey::first());
    let retired = long_lived_token(&app, CONTOSO, SigningKey::second().named("retired"));
    app.entra
        .set_keys_response(CONTOSO, KeysResponse::Status(503));
    for hour in 1..=23 {
        app.clock.step(HOUR);
        app.verifier.start_due_fetches().await;
        for token in [&token, &retired] {
            assert_eq!(app.me(token).await.status, StatusCode::OK, "hour {hour}");
        }
    }
    app.clock.step(HOUR);
    let answer = app.me(&token).await;
    assert_eq!(
        (answer.status, answer.header("www-authenticate")),
        (StatusCode::SERVICE_UNAVAILABLE, None)
    );
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=30).contains(&wait), "{wait}");

    app.entra
        .set_keys_response(CONTOSO, KeysResponse::Published);
    app.clock.step(30 * SECOND);
    app.verifier.start_due_fetches().await;
    assert_eq!(
        app.me(&token).await.status,
        StatusCode::OK,
        "the keys were fetched without a request"
    );
}

#[tokio::test]
async fn failed_fetches_back_off_despite_requests() {
    let app = TestApp::start().await;
    app.entra
        .set_keys_response(CONTOSO, KeysResponse::Status(500));
    let token = app.entra.v1(CONTOSO, ADMIN).sign();
    for (fetches, wait) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 30), (7, 30)] {
        for _ in 0..5 {
            let answer = app.me(&token).await;
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
            let retry_after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert_eq!(retry_after, wait);
        }
        assert_eq!(app.entra.fetches(CONTOSO), fetches);
        app.clock.step(Duration::from_secs(wait));
    }
    app.entra
        .set_keys_response(CONTOSO, KeysResponse::Published);
    assert_eq!(
        app.me(&token).await.status,
        StatusCode::OK,
        "the first request after the wait fetches the keys"
    );
}

#[tokio::test]
async fn fetches_for_unknown_key_ids_are_rate_limited() {
    let app = TestApp::start().await;
    app.verifier.start_due_fetches().await;
    let token = app
        .entra
        .v1(CONTOSO, ADMIN)
        .signed_by(SigningKey::first().named("unknown"))
        .sign();
    let mut fetched_at = Vec::new();
    // Stops after 50 minutes, before the hourly refresh.
    for second in (0..50 * 60).step_by(10) {
        let before = app.entra.fetches(CONTOSO);
        for _ in 0..3 {
            assert_eq!(app.me(&token).await.status, StatusCode::UNAUTHORIZED);
        }
        fetched_at.extend((before..app.entra.fetches(CONTOSO)).map(|_| second));
        app.clock.step(10 * SECOND);
    }
    let expected: Vec<_> = [0, 30]
        .into_iter()
        .chain((300..50 * 60).step_by(300))
        .collect();
    assert_eq!(fetched_at, expected);
}

#[tokio::test]
async fn failed_fetch_for_unknown_key_counts_toward_limit() {
    let app = TestApp::start().await;
    app.verifier.start_due_fetches().await;
    app.entra
        .set_keys_response(CONTOSO, KeysResponse::Status(500));
    let unknown = app
        .entra
        .v1(CONTOSO, ADMIN)
        .signed_by(SigningKey::first().named("unknown"))
        .sign();
    let good = app.entra.v1(CONTOSO, ADMIN).sign();
    for _ in 0..20 {
        // The fetch failed, so the key may exist: 503, not 401.
        assert_eq!(
            app.me(&unknown).await.status,
            StatusCode::SERVICE_UNAVAILABLE
        );
        assert_eq!(app.me(&good).await.status, StatusCode::OK);
    }
    assert_eq!(app.entra.fetches(CONTOSO), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_first_requests_cause_one_fetch() {
    let app = TestApp::start().await;
    app.entra
        .set_keys_response(CONTOSO, KeysResponse::Delay(SECOND / 2));
    let token = app.entra.v1(CONTOSO, ADMIN).sign();
    let mut requests = JoinSet::new();
    for _ in 0..1000 {
        // Calls the verifier directly: 1,000 sockets exceed the usual limit of open files.
        let (verifier, token) = (Arc::clone(&app.verifier), token.clone());
        requests.spawn(async move { verifier.verify(&token, &RequestLog::default()).await });
    }
    assert!(requests.join_all().await.iter().all(Result::is_ok));
    assert_eq!(app.entra.fetches(CONTOSO), 1);
}

#[tokio::test]
async fn fetch_continues_after_its_client_disconnects() {
    let app = TestApp::start().await;
    app.entra
        .set_keys_response(CONTOSO, KeysResponse::Delay(SECOND / 2));
    let token = app.entra.v1(CONTOSO, ADMIN).sign();
    let first = app.me(&token);
    tokio::select! {
        biased;
        _ = first => panic!("answered before the client disconnected"),
        () = async { while app.entra.fetches(CONTOSO) == 0 { tokio::task::yield_now().await } } => {}
    }
    let (second, third) = tokio::join!(app.me(&token), app.me(&token));
    assert_eq!(
        (second.status, third.status),
        (StatusCode::OK, StatusCode::OK)
    );
    assert_eq!(app.entra.fetches(CONTOSO), 1);
}

#[tokio::test]
async fn slow_key_fetch_does_not_delay_other_tenants() {
    let app = TestApp::start().await;
    app.entra
        .set_keys_response(CONTOSO, KeysResponse::Delay(2 * SECOND));
    let (slow, fast) = (
        app.entra.v1(CONTOSO, ADMIN).sign(),
        app.entra.v1(FABRIKAM, ADMIN).sign(),
    );
    let mut slow = Box::pin(app.me(&slow));
    for _ in 0..20 {
        tokio::select! {
            biased;
            _ = &mut slow => panic!("the slow tenant was answered first"),
            answer = app.me(&fast) => assert_eq!(answer.status, StatusCode::OK),
        }
    }
    assert_eq!(slow.await.status, StatusCode::OK);
}

#[tokio::test]
async fn key_fetch_times_out_after_three_seconds() {
    let app = TestApp::start().await;
    app.entra
        .set_keys_response(CONTOSO, KeysResponse::Delay(4 * SECOND));
    let answer = app.me(&app.entra.v1(CONTOSO, ADMIN).sign()).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(flavor = "multi_thread")]
async fn burst_of_random_key_ids_causes_at_most_two_fetches() {
    let app = Arc::new(TestApp::start().await);
    app.verifier.start_due_fetches().await;

    // The same load twice: first with a known key ID, then with random key IDs.
    let known = app.entra.v1(CONTOSO, ADMIN).with("oid", "none").sign();
    let claim = "Token lacks a required claim or has one of the wrong type";
    let with_known = latency_during(&app, vec![known; BURST], claim).await;
    assert_eq!(app.entra.fetches(CONTOSO), 1);

    let random = (0..BURST).map(|number| {
        let key = SigningKey::first().named(&format!("random {number}"));
        app.entra.v1(CONTOSO, ADMIN).signed_by(key).unsigned()
    });
    let with_random = latency_during(&app, random.collect(), "Unable to find signing key").await;
    let fetches = app.entra.fetches(CONTOSO) - 1;
    println!(
        "{BURST} random key IDs: {fetches} fetches; valid requests took {with_random:?} (median, p99), \
         during as many requests with a known key ID {with_known:?}"
    );
    assert!((1..=2).contains(&fetches), "{fetches}");
}

/// The number of requests in a burst.
const BURST: usize = 10_000;

/// Sends `load`, which must be rejected with `detail`. Returns the median and 99th percentile of the time that valid
/// requests take meanwhile.
#[expect(
    clippy::disallowed_methods,
    reason = "request times are measured in real time"
)]
async fn latency_during(
    app: &Arc<TestApp>,
    load: Vec<String>,
    detail: &'static str,
) -> (Duration, Duration) {
    let mut senders = JoinSet::new();
    for part in load.chunks(BURST / 10) {
        let (app, part) = (Arc::clone(app), part.to_vec());
        senders.spawn(async move {
            for token in part {
                assert_eq!(app.me(&token).await.detail(), detail);
            }
        });
    }
    let good = app.entra.v1(CONTOSO, ADMIN).sign();
    let mut times = Vec::new();
    while !senders.is_empty() {
        let before = Instant::now();
        assert_eq!(app.me(&good).await.status, StatusCode::OK);
        times.push(before.elapsed());
        while let Some(sent) = senders.try_join_next() {
            sent.unwrap();
        }
    }
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

#[tokio::test]
async fn at_most_64_fetches_run_concurrently() {
    let tenants: Vec<_> = (0..200).map(absent_tenant).collect();
    let app = TestApp::start_with(&[("ALLOWED_TENANT_IDS", &tenants.join(","))]).await;
    // Long enough that 64 fetches start before the first one ends, also on a busy machine. Fetches wait up to 3 s.
    app.entra.delay_absent_tenants(700);
    app.verifier.start_due_fetches().await;
    assert_eq!(
        app.entra.most_at_once(),
        16,
        "refreshes use only part of the limit"
    );

    let mut callers = JoinSet::new();
    for tenant in tenants {
        let token = app
            .entra
            .v1(CONTOSO, ADMIN)
            .with("iss", format!("https://sts.windows.net/{tenant}/"));
        let (verifier, token) = (
            Arc::clone(&app.verifier),
            token.with("tid", tenant).unsigned(),
        );
        callers.spawn(async move {
            verifier
                .verify(&token, &RequestLog::default())
                .await
                .unwrap_err()
        });
    }
    let errors = callers.join_all().await;
    assert!(
        errors
            .iter()
            .all(|error| matches!(error, AuthError::KeysUnavailable { .. }))
    );
    assert_eq!(
        (app.entra.all_fetches(), app.entra.most_at_once()),
        (200, 64)
    );
}

#[tokio::test]
async fn tenant_removed_during_a_fetch_is_rejected() {
    let app = TestApp::start().await;
    app.entra
        .set_keys_response(CONTOSO, KeysResponse::Delay(SECOND / 2));
    let token = app.entra.v1(CONTOSO, ADMIN).sign();
    let (answer, ()) = tokio::join!(app.me(&token), async {
        while app.entra.fetches(CONTOSO) == 0 {
            tokio::task::yield_now().await;
        }
        let tenants = Tenants::Listed([FABRIKAM.id.parse().unwrap()].into());
        app.verifier.replace_access(Access {
            tenants,
            ..app.verifier.access().as_ref().clone()
        });
    });
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn revoked_key_is_rejected_at_once_without_fetch() {
    let app = TestApp::start_with(&[("REVOKED_KEY_IDS", "stolen, retired")]).await;
    let stolen = app
        .entra
        .v1(CONTOSO, ADMIN)
        .signed_by(SigningKey::second().named("retired"))
        .sign();
    let answer = app.me(&stolen).await;
    assert_eq!(
        (answer.status, answer.detail()),
        (
            StatusCode::UNAUTHORIZED,
            "Unable to find signing key".into()
        )
    );
    assert_eq!(app.entra.fetches(CONTOSO), 0);

    // A key that was in use is revoked.
    let good = app.entra.v1(CONTOSO, ADMIN).sign();
    assert_eq!(app.me(&good).await.status, StatusCode::OK);
    let revoked_keys = [KeyId::parse(&SigningKey::first().key_id).unwrap()].into();
    app.verifier.replace_access(Access {
        revoked_keys,
        ..app.verifier.access().as_ref().clone()
    });
    assert_eq!(app.me(&good).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        app.me(&stolen).await.status,
        StatusCode::OK,
        "no longer revoked"
    );
}

/// An event in the life of a tenant's keys.
#[derive(Clone, Debug)]
enum Event {
    Publish(Vec<usize>),
    Fail,
    /// Seconds.
    Step(u64),
    Refresh,
    /// Verify a token signed with the key of this number.
    Verify(usize),
    Revoke(Option<usize>),
}

const KEYS: usize = 5;

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        2 => prop::collection::vec(0..KEYS, 1..KEYS).prop_map(Event::Publish),
        1 => Just(Event::Fail),
        4 => prop_oneof![Just(2), Just(29), Just(31), Just(299), Just(3607), Just(17_389), Just(45_001)]
            .prop_map(Event::Step),
        3 => Just(Event::Refresh),
        8 => (0..KEYS).prop_map(Event::Verify),
        1 => prop::option::of(0..KEYS).prop_map(Event::Revoke),
    ];
    prop::collection::vec(event, 1..80)
}

/// In any sequence of events, a key is found if and only if it was seen within 24 hours and is not revoked. Fetches
/// for unknown keys stay within their rate limit.
#[test]
fn only_recent_and_unrevoked_keys_are_found() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = ProptestConfig {
        cases: 96,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    };
    TestRunner::new(config)
        .run(&events(), |events| {
            runtime.block_on(Model::run(&events));
            Ok(())
        })
        .unwrap();
}

struct Model {
    app: TestApp,
    published: Vec<usize>,
    is_failing: bool,
    /// Whether the last fetch failed. The next fetch is then a retry, not a fetch for an unknown key.
    has_failed: bool,
    /// When a successful fetch last returned each key.
    seen: [Option<Duration>; KEYS],
    revoked: Option<usize>,
    /// When a fetch was made for an unknown key while other keys were cached.
    fetched_for_unknown: Vec<Duration>,
}

impl Model {
    async fn run(events: &[Event]) {
        let app = TestApp::start().await;
        let keys: Vec<_> = (0..KEYS)
            .map(|number| SigningKey::first().named(&format!("key {number}")))
            .collect();
        let tokens: Vec<_> = keys
            .iter()
            .map(|key| long_lived_token(&app, CONTOSO, key.clone()))
            .collect();
        app.entra.publish(CONTOSO, &[keys[0].jwk()]);
        let mut model = Self {
            app,
            published: vec![0],
            is_failing: false,
            has_failed: false,
            seen: [None; KEYS],
            revoked: None,
            fetched_for_unknown: Vec::new(),
        };
        for event in events {
            model.apply(event, &keys, &tokens).await;
        }
        model.check_fetch_limit();
    }

    async fn apply(&mut self, event: &Event, keys: &[SigningKey], tokens: &[String]) {
        match event {
            Event::Publish(numbers) => {
                self.published.clone_from(numbers);
                self.is_failing = false;
                let jwks: Vec<_> = numbers.iter().map(|&number| keys[number].jwk()).collect();
                self.app.entra.publish(CONTOSO, &jwks);
                self.app
                    .entra
                    .set_keys_response(CONTOSO, KeysResponse::Published);
            }
            Event::Fail => {
                self.is_failing = true;
                self.app
                    .entra
                    .set_keys_response(CONTOSO, KeysResponse::Status(500));
            }
            Event::Step(seconds) => self.app.clock.step(Duration::from_secs(*seconds)),
            Event::Refresh => {
                let before = self.app.entra.fetches(CONTOSO);
                self.app.verifier.start_due_fetches().await;
                self.record_fetches(before);
            }
            Event::Verify(number) => self.verify(*number, &tokens[*number]).await,
            Event::Revoke(number) => {
                self.revoked = *number;
                let revoked_keys = number.map(|number| KeyId::parse(&keys[number].key_id).unwrap());
                let access = self.app.verifier.access().as_ref().clone();
                // Runs due fetches first, so that `replace_access` does not start one that goes unrecorded.
                let before = self.app.entra.fetches(CONTOSO);
                self.app.verifier.start_due_fetches().await;
                self.record_fetches(before);
                self.app.verifier.replace_access(Access {
                    revoked_keys: revoked_keys.into_iter().collect(),
                    ..access
                });
            }
        }
    }

    async fn verify(&mut self, number: usize, token: &str) {
        let was_usable = !self.has_failed && (0..KEYS).any(|number| self.is_trusted(number));
        let before = self.app.entra.fetches(CONTOSO);
        let result = self
            .app
            .verifier
            .verify(token, &RequestLog::default())
            .await;
        let fetches = self.record_fetches(before);
        assert!(fetches <= 1, "one request caused {fetches} fetches");
        if fetches == 1 && was_usable {
            self.fetched_for_unknown.push(self.now());
        }
        let expected = self.is_trusted(number) && self.revoked != Some(number);
        match result {
            Ok(_) => assert!(expected, "key {number} was accepted"),
            Err(AuthError::InvalidToken(InvalidToken::RevokedKey(_))) => {
                assert_eq!(self.revoked, Some(number));
            }
            Err(AuthError::InvalidToken(InvalidToken::UnknownKey(_))) => {
                assert!(!expected, "key {number} is unknown");
            }
            Err(AuthError::KeysUnavailable { .. }) => {
                assert!(!expected, "key {number} is unavailable");
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn record_fetches(&mut self, before: usize) -> usize {
        let fetches = self.app.entra.fetches(CONTOSO) - before;
        if fetches > 0 {
            self.has_failed = self.is_failing;
        }
        if fetches > 0 && !self.is_failing {
            for &number in &self.published {
                self.seen[number] = Some(self.now());
            }
        }
        fetches
    }

    fn is_trusted(&self, number: usize) -> bool {
        self.seen[number].is_some_and(|seen| self.app.clock.since(seen) < 24 * HOUR)
    }

    fn check_fetch_limit(&self) {
        let times = &self.fetched_for_unknown;
        for (index, first) in times.iter().enumerate() {
            for (offset, later) in times[index + 1..].iter().enumerate() {
                let (fetches, span) = (offset + 2, later.saturating_sub(*first));
                assert!(span >= 30 * SECOND, "{fetches} fetches in {span:?}");
                let allowed = 2 + usize::try_from(span.as_secs() / 300).unwrap();
                assert!(fetches <= allowed, "{fetches} fetches in {span:?}");
            }
        }
    }

    fn now(&self) -> Duration {
        self.app.clock.monotonic()
    }
}
