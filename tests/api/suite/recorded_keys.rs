//! Replays a record of the keys documents that Entra published over time.
//!
//! The repository contains a few days. `ENTRA_KEYS_HISTORY` names a file with a longer record.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    env, fs,
    time::Duration,
};

use serde_json::Value;
use tenant_tasks::auth::RequestLog;

use crate::support::{
    app::TestApp,
    tokens::SigningKey,
    users::{ADMIN, CONTOSO},
};

const EXCERPT: &str = include_str!("../../support/entra-keys-times.json");

// Durations in seconds.
const MINUTE: u64 = 60;
const DAY: u64 = 24 * 60 * MINUTE;
/// The interval at which due refreshes are started.
const STEP: u64 = 6 * MINUTE;

/// The published documents: the start of each, in seconds since the first one, and the indexes of its key IDs.
struct Record {
    key_ids: Vec<String>,
    documents: Vec<(u64, HashSet<usize>)>,
}

impl Record {
    fn read() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "a setting of the tests, not of the service"
        )]
        let text = if let Ok(path) = env::var("ENTRA_KEYS_HISTORY") {
            fs::read_to_string(path).unwrap()
        } else {
            println!("skipped: all but a few days, because ENTRA_KEYS_HISTORY is not set");
            EXCERPT.to_owned()
        };
        let record: Value = serde_json::from_str(&text).unwrap();
        let keys = record["keys"].as_array().unwrap();
        let documents = record["documents"].as_array().unwrap();
        let start = documents[0][0].as_u64().unwrap();
        let indexes = |document: &Value| -> HashSet<usize> {
            let indexes = document[1].as_array().unwrap().iter();
            indexes
                .map(|index| usize::try_from(index.as_u64().unwrap()).unwrap())
                .collect()
        };
        Self {
            key_ids: keys
                .iter()
                .map(|key| key["kid"].as_str().unwrap().to_owned())
                .collect(),
            documents: documents
                .iter()
                .map(|document| (document[0].as_u64().unwrap() - start, indexes(document)))
                .collect(),
        }
    }

    /// The document published at that time.
    fn at(&self, time: u64) -> &HashSet<usize> {
        let index = self.documents.partition_point(|(from, _)| *from <= time);
        &self.documents[index - 1].1
    }
}

/// A cache that replaces all keys with those of the newest document, for comparison.
#[derive(Default)]
struct ReplacingCache {
    cached: HashSet<usize>,
    rejected: usize,
}

impl ReplacingCache {
    fn verify(&mut self, key: usize) {
        self.rejected += usize::from(!self.cached.contains(&key));
    }
}

/// Every hour, the service receives a token for each key that Entra publishes at that time or that one of its fetches
/// returned in the last 24 hours. It must accept all of them. For comparison, the same tokens go to a cache that
/// replaces its keys every hour, and to one that also replaces them for an unknown key.
#[tokio::test]
async fn keys_seen_within_24_hours_are_always_accepted() {
    let record = Record::read();
    let app = TestApp::start().await;
    let keys: Vec<_> = record
        .key_ids
        .iter()
        .map(|key_id| SigningKey::first().named(key_id))
        .collect();
    let expiry = app.entra.now() + 400 * 24 * 60 * MINUTE;
    let tokens: Vec<_> = keys
        .iter()
        .map(|key| {
            app.entra
                .v1(CONTOSO, ADMIN)
                .with("exp", expiry)
                .signed_by(key.clone())
                .sign()
        })
        .collect();

    let mut last_seen: HashMap<usize, u64> = HashMap::new();
    let (mut requests, mut rejected) = (0, 0);
    let (mut replacing, mut refetching) = (ReplacingCache::default(), ReplacingCache::default());
    let end = record.documents.last().unwrap().0;
    for step in 0..end / STEP {
        let (time, minute) = (step * STEP, step * STEP / MINUTE % 60);
        let published = record.at(time);
        let document: Vec<_> = published.iter().map(|&key| keys[key].jwk()).collect();
        app.entra.publish(CONTOSO, &document);
        let before = app.entra.fetches(CONTOSO);
        app.verifier.start_due_fetches().await;
        if minute == 0 {
            replacing.cached.clone_from(published);
            refetching.cached.clone_from(published);
        }
        if minute == 30 {
            let recent = last_seen
                .iter()
                .filter(|(_, seen)| time - **seen < DAY)
                .map(|(&key, _)| key);
            let expected: BTreeSet<_> = recent.chain(published.iter().copied()).collect();
            for key in expected {
                requests += 1;
                rejected += usize::from(
                    app.verifier
                        .verify(&tokens[key], &RequestLog::default())
                        .await
                        .is_err(),
                );
                replacing.verify(key);
                if !refetching.cached.contains(&key) {
                    refetching.cached.clone_from(published);
                }
                refetching.verify(key);
            }
        }
        if app.entra.fetches(CONTOSO) > before {
            last_seen.extend(published.iter().map(|&key| (key, time)));
        }
        app.clock.step(Duration::from_secs(STEP));
    }
    println!(
        "{} hours, {requests} requests: {rejected} rejected; {} by a cache that replaces its keys hourly; {} by one that also refetches",
        end / (60 * MINUTE),
        replacing.rejected,
        refetching.rejected
    );
    assert_eq!(rejected, 0);
    assert!(
        replacing.rejected > 0 && refetching.rejected > 0,
        "the record does not contain keys that disappear and return"
    );
}
