//! The life of signing keys: days pass in milliseconds, because the clock is stepped.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::{Method, StatusCode};
use proptest::{prelude::*, test_runner::TestRunner};
use tenant_tasks::{
    auth::{Access, AuthError, Caller, InvalidToken, KeyId, Tenants},
    clock::Clock,
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
/// An hour and a bit: a refresh is due whatever its jitter.
const NEXT_HOUR: Duration = Duration::from_secs(66 * 60 + 1);

/// A token of the tenant's admin that is good for all the days of a test.
fn lasting(app: &TestApp, tenant: Tenant, key: SigningKey) -> String {
    let token: Token = app.entra.v1(tenant, ADMIN);
    token
        .with("exp", app.entra.now() + 30 * 24 * 3600)
        .signed_by(key)
        .sign()
}

/// Steps until a refresh is due, and waits for it.
async fn next_hour(app: &TestApp) {
    app.clock.step(NEXT_HOUR);
    app.verifier.start_due_fetches().await;
}

#[tokio::test]
async fn keys_are_fetched_at_the_start_which_does_not_wait_for_them() {
    let app = TestApp::start().await;
    for tenant in [CONTOSO, FABRIKAM] {
        app.entra
            .set_keys_response(tenant, KeysResponse::Delay(SECOND / 3));
    }
    let fetches = app.verifier.start_due_fetches();
    let ready = app.send(Method::GET, "/ready", None, None).await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        ready.detail(),
        "The signing keys of no allowed tenant are at hand yet"
    );
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
        "the first request found its key at hand"
    );
}

#[tokio::test]
async fn the_service_is_ready_with_the_keys_of_one_tenant() {
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
async fn keys_are_refreshed_hourly_and_callers_do_not_notice() {
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
        () = &mut refresh => panic!("the refresh ended before the answer"),
        answer = app.me(&token) => assert_eq!(answer.status, StatusCode::OK),
    }
    refresh.await;
    assert_eq!(app.entra.fetches(CONTOSO), 2);
}

#[tokio::test]
async fn a_key_is_trusted_for_24_hours_after_it_was_last_seen() {
    let app = TestApp::start().await;
    let (staying, leaving) = (SigningKey::first(), SigningKey::second());
    let token = lasting(&app, CONTOSO, leaving.clone());
    app.entra.publish(CONTOSO, &[staying.jwk(), leaving.jwk()]);
    app.verifier.start_due_fetches().await;
    app.entra.publish(CONTOSO, &[staying.jwk()]);
    for _ in 0..21 {
        next_hour(&app).await;
        assert_eq!(app.me(&token).await.status, StatusCode::OK);
    }
    app.clock
        .step((24 * HOUR).saturating_sub(21 * NEXT_HOUR + SECOND));
    assert_eq!(
        app.me(&token).await.status,
        StatusCode::OK,
        "a second before the end"
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

    // Seen again, it is trusted again.
    app.entra.publish(CONTOSO, &[staying.jwk(), leaving.jwk()]);
    next_hour(&app).await;
    assert_eq!(app.me(&token).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_outage_costs_nobody_a_request_for_24_hours_and_ends_by_itself() {
    let app = TestApp::start().await;
    app.verifier.start_due_fetches().await;
    let token = lasting(&app, CONTOSO, SigningKey::first());
    let retired = lasting(&app, CONTOSO, SigningKey::second().named("retired"));
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
        "without anyone having asked"
    );
}

#[tokio::test]
async fn failures_back_off_and_callers_in_between_cost_no_fetch() {
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
        "the next caller after the wait finds it mended"
    );
}

#[tokio::test]
async fn unknown_key_ids_cause_two_fetches_30_seconds_apart_and_then_one_in_five_minutes() {
    let app = TestApp::start().await;
    app.verifier.start_due_fetches().await;
    let token = app
        .entra
        .v1(CONTOSO, ADMIN)
        .signed_by(SigningKey::first().named("nobody's"))
        .sign();
    let mut fetched_at = Vec::new();
    // Ends before the hourly refresh can be due.
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
async fn a_failed_attempt_for_an_unknown_key_counts_and_good_users_keep_their_keys() {
    let app = TestApp::start().await;
    app.verifier.start_due_fetches().await;
    app.entra
        .set_keys_response(CONTOSO, KeysResponse::Status(500));
    let unknown = app
        .entra
        .v1(CONTOSO, ADMIN)
        .signed_by(SigningKey::first().named("nobody's"))
        .sign();
    let good = app.entra.v1(CONTOSO, ADMIN).sign();
    for _ in 0..20 {
        // Whether there is such a key cannot be found out now.
        assert_eq!(
            app.me(&unknown).await.status,
            StatusCode::SERVICE_UNAVAILABLE
        );
        assert_eq!(app.me(&good).await.status, StatusCode::OK);
    }
    assert_eq!(app.entra.fetches(CONTOSO), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_first_requests_at_once_cause_one_fetch() {
    let app = TestApp::start().await;
    app.entra
        .set_keys_response(CONTOSO, KeysResponse::Delay(SECOND / 2));
    let token = app.entra.v1(CONTOSO, ADMIN).sign();
    let mut requests = JoinSet::new();
    for _ in 0..1000 {
        // Past the sockets: a thousand of them are more than many a laptop lets a process have.
        let (verifier, token) = (Arc::clone(&app.verifier), token.clone());
        requests.spawn(async move { verifier.verify(&token, &Caller::default()).await });
    }
    assert!(requests.join_all().await.iter().all(Result::is_ok));
    assert_eq!(app.entra.fetches(CONTOSO), 1);
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_end_the_fetch_for_the_others() {
    let app = TestApp::start().await;
    app.entra
        .set_keys_response(CONTOSO, KeysResponse::Delay(SECOND / 2));
    let token = app.entra.v1(CONTOSO, ADMIN).sign();
    let first = app.me(&token);
    tokio::select! {
        biased;
        _ = first => panic!("answered before it could hang up"),
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
async fn a_slow_tenant_holds_up_nobody_else() {
    let app = TestApp::start().await;
    app.entra
        .set_keys_response(CONTOSO, KeysResponse::Delay(2 * SECOND));
    let (slow, quick) = (
        app.entra.v1(CONTOSO, ADMIN).sign(),
        app.entra.v1(FABRIKAM, ADMIN).sign(),
    );
    let mut slow = Box::pin(app.me(&slow));
    for _ in 0..20 {
        tokio::select! {
            biased;
            _ = &mut slow => panic!("the slow one came first"),
            answer = app.me(&quick) => assert_eq!(answer.status, StatusCode::OK),
        }
    }
    assert_eq!(slow.await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_keys_document_that_takes_longer_than_three_seconds_is_a_failure() {
    let app = TestApp::start().await;
    app.entra
        .set_keys_response(CONTOSO, KeysResponse::Delay(4 * SECOND));
    let answer = app.me(&app.entra.v1(CONTOSO, ADMIN).sign()).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_random_key_ids_costs_two_fetches_at_most_and_good_users_nothing() {
    let app = Arc::new(TestApp::start().await);
    app.verifier.start_due_fetches().await;

    // The same load twice: first of users whose key is known, then of random key ids.
    let known = app.entra.v1(CONTOSO, ADMIN).with("oid", "none").sign();
    let claim = "Token lacks a required claim or has one of the wrong type";
    let beside_known = time_beside(&app, vec![known; BURST], claim).await;
    assert_eq!(app.entra.fetches(CONTOSO), 1);

    let random = (0..BURST).map(|number| {
        let key = SigningKey::first().named(&format!("random {number}"));
        app.entra.v1(CONTOSO, ADMIN).signed_by(key).unsigned()
    });
    let beside_random = time_beside(&app, random.collect(), "Unable to find signing key").await;
    let fetches = app.entra.fetches(CONTOSO) - 1;
    println!(
        "{BURST} random key ids: {fetches} fetches; good requests took {beside_random:?} (median, p99), \
         beside as many with a known key id {beside_known:?}"
    );
    assert!((1..=2).contains(&fetches), "{fetches}");
}

/// How many requests a burst has.
const BURST: usize = 10_000;

/// How long a good request takes, median and 99th percentile, while all of `load` is sent and
/// answered with 401 and `detail`.
#[expect(
    clippy::disallowed_methods,
    reason = "how long requests take is measured in real time"
)]
async fn time_beside(
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
async fn no_more_than_64_fetches_are_under_way_at_once() {
    let tenants: Vec<_> = (0..200).map(absent_tenant).collect();
    let app = TestApp::start_with(&[("ALLOWED_TENANT_IDS", &tenants.join(","))]).await;
    // Long enough for all to be asked for in the meantime.
    app.entra.delay_absent_tenants(100);
    app.verifier.start_due_fetches().await;
    assert_eq!(
        app.entra.most_at_once(),
        16,
        "refreshes leave room for callers"
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
                .verify(&token, &Caller::default())
                .await
                .unwrap_err()
        });
    }
    let refusals = callers.join_all().await;
    assert!(
        refusals
            .iter()
            .all(|refusal| matches!(refusal, AuthError::KeysUnavailable { .. }))
    );
    assert_eq!(
        (app.entra.all_fetches(), app.entra.most_at_once()),
        (200, 64)
    );
}

#[tokio::test]
async fn who_is_no_longer_let_in_when_a_fetch_ends_is_refused() {
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
async fn a_key_can_be_revoked_at_once_and_costs_no_fetch() {
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

    // The same for a key that has served until now.
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

/// What may happen to a tenant's keys.
#[derive(Clone, Debug)]
enum Event {
    Publish(Vec<usize>),
    Fail,
    Step(u64),
    Refresh,
    /// A token signed with the key of this number.
    Ask(usize),
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
        8 => (0..KEYS).prop_map(Event::Ask),
        1 => prop::option::of(0..KEYS).prop_map(Event::Revoke),
    ];
    prop::collection::vec(event, 1..80)
}

/// Whatever is published, fails, passes, is asked for or revoked: a key seen within 24 hours
/// is found, one unseen or revoked never, and fetches keep to their allowance.
#[test]
fn a_key_is_found_if_and_only_if_it_was_seen_within_24_hours_and_is_not_revoked() {
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
    /// Whether the last fetch failed: then the next one is a new try, not for an unknown key.
    has_failed: bool,
    /// When each key was last published at a fetch that could see it.
    seen: [Option<Duration>; KEYS],
    revoked: Option<usize>,
    /// When a fetch was made for an unknown key, while others were at hand.
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
            .map(|key| lasting(&app, CONTOSO, key.clone()))
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
        model.check_allowance();
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
                self.note_fetches(before);
            }
            Event::Ask(number) => self.ask(*number, &tokens[*number]).await,
            Event::Revoke(number) => {
                self.revoked = *number;
                let revoked_keys = number.map(|number| KeyId::parse(&keys[number].key_id).unwrap());
                let access = self.app.verifier.access().as_ref().clone();
                // What is due is fetched first, so that the new settings start nothing unseen.
                let before = self.app.entra.fetches(CONTOSO);
                self.app.verifier.start_due_fetches().await;
                self.note_fetches(before);
                self.app.verifier.replace_access(Access {
                    revoked_keys: revoked_keys.into_iter().collect(),
                    ..access
                });
            }
        }
    }

    async fn ask(&mut self, number: usize, token: &str) {
        let was_usable = !self.has_failed && (0..KEYS).any(|number| self.is_fresh(number));
        let before = self.app.entra.fetches(CONTOSO);
        let result = self.app.verifier.verify(token, &Caller::default()).await;
        let fetches = self.note_fetches(before);
        assert!(fetches <= 1, "one caller, {fetches} fetches");
        if fetches == 1 && was_usable {
            self.fetched_for_unknown.push(self.now());
        }
        let expected = self.is_fresh(number) && self.revoked != Some(number);
        match result {
            Ok(_) => assert!(expected, "key {number} was found"),
            Err(AuthError::InvalidToken(InvalidToken::RevokedKey)) => {
                assert_eq!(self.revoked, Some(number))
            }
            Err(AuthError::InvalidToken(InvalidToken::UnknownKey)) => {
                assert!(!expected, "key {number} is unknown");
            }
            Err(AuthError::KeysUnavailable { .. }) => {
                assert!(!expected, "key {number} is unavailable")
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn note_fetches(&mut self, before: usize) -> usize {
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

    fn is_fresh(&self, number: usize) -> bool {
        self.seen[number].is_some_and(|seen| self.app.clock.since(seen) < 24 * HOUR)
    }

    fn check_allowance(&self) {
        let times = &self.fetched_for_unknown;
        for (index, first) in times.iter().enumerate() {
            for (further, later) in times[index + 1..].iter().enumerate() {
                let (fetches, span) = (further + 2, later.saturating_sub(*first));
                assert!(span >= 30 * SECOND, "{fetches} fetches in {span:?}");
                let earned = 2 + usize::try_from(span.as_secs() / 300).unwrap();
                assert!(fetches <= earned, "{fetches} fetches in {span:?}");
            }
        }
    }

    fn now(&self) -> Duration {
        self.app.clock.monotonic()
    }
}
