//! Entra's own keys documents, as recorded over time, replayed hour by hour.
//!
//! A few days are shipped. `ENTRA_KEYS_HISTORY` names a file with a longer record.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    env, fs,
    time::Duration,
};

use serde_json::Value;
use tenant_tasks::auth::Caller;

use crate::support::{
    app::TestApp,
    tokens::SigningKey,
    users::{ADMIN, CONTOSO},
};

const EXCERPT: &str = include_str!("../support/entra-keys-times.json");

/// Durations in seconds.
const MINUTE: u64 = 60;
const DAY: u64 = 24 * 60 * MINUTE;
/// How often it is looked whether a refresh is due.
const STEP: u64 = 6 * MINUTE;

/// Which key ids were published from when on, in seconds since the first document.
struct Record {
    key_ids: Vec<String>,
    documents: Vec<(u64, HashSet<usize>)>,
}

impl Record {
    fn read() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "where the record is, is no setting of the service"
        )]
        let text = if let Ok(path) = env::var("ENTRA_KEYS_HISTORY") {
            fs::read_to_string(path).unwrap()
        } else {
            println!("left out: all but a few days, ENTRA_KEYS_HISTORY names no longer record");
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

    /// The document that was published at that time.
    fn at(&self, time: u64) -> &HashSet<usize> {
        let index = self.documents.partition_point(|(from, _)| *from <= time);
        &self.documents[index - 1].1
    }
}

/// Caches as they are commonly written, to compare with.
#[derive(Default)]
struct Replacing {
    held: HashSet<usize>,
    refused: usize,
}

impl Replacing {
    fn ask(&mut self, key: usize) {
        self.refused += usize::from(!self.held.contains(&key));
    }
}

/// Asked at half past each hour with a token of every key that Entra publishes just then or
/// that a fetch of ours has seen in the last 24 hours, the service refuses none. Beside it run
/// a cache that replaces its keys every hour, and one that also does so for an unknown key.
#[tokio::test]
async fn no_key_seen_in_the_last_24_hours_is_ever_refused() {
    let record = Record::read();
    let app = TestApp::start().await;
    let keys: Vec<_> = record
        .key_ids
        .iter()
        .map(|key_id| SigningKey::first().named(key_id))
        .collect();
    let after_the_end = app.entra.now() + 400 * 24 * 60 * MINUTE;
    let tokens: Vec<_> = keys
        .iter()
        .map(|key| {
            app.entra
                .v1(CONTOSO, ADMIN)
                .with("exp", after_the_end)
                .signed_by(key.clone())
                .sign()
        })
        .collect();

    let mut last_seen: HashMap<usize, u64> = HashMap::new();
    let (mut asked, mut refused) = (0, 0);
    let (mut replacing, mut refetching) = (Replacing::default(), Replacing::default());
    let end = record.documents.last().unwrap().0;
    for step in 0..end / STEP {
        let (time, minute) = (step * STEP, step * STEP / MINUTE % 60);
        let published = record.at(time);
        let document: Vec<_> = published.iter().map(|&key| keys[key].jwk()).collect();
        app.entra.publish(CONTOSO, &document);
        let before = app.entra.fetches(CONTOSO);
        app.verifier.start_due_fetches().await;
        if minute == 0 {
            replacing.held.clone_from(published);
            refetching.held.clone_from(published);
        }
        if minute == 30 {
            let recent = last_seen
                .iter()
                .filter(|(_, seen)| time - **seen < DAY)
                .map(|(&key, _)| key);
            let wanted: BTreeSet<_> = recent.chain(published.iter().copied()).collect();
            for key in wanted {
                asked += 1;
                refused += usize::from(
                    app.verifier
                        .verify(&tokens[key], &Caller::default())
                        .await
                        .is_err(),
                );
                replacing.ask(key);
                if !refetching.held.contains(&key) {
                    refetching.held.clone_from(published);
                }
                refetching.ask(key);
            }
        }
        if app.entra.fetches(CONTOSO) > before {
            last_seen.extend(published.iter().map(|&key| (key, time)));
        }
        app.clock.step(Duration::from_secs(STEP));
    }
    println!(
        "{} hours, {asked} requests: {refused} refused; by a cache that replaces, {}; by one that also refetches, {}",
        end / (60 * MINUTE),
        replacing.refused,
        refetching.refused
    );
    assert_eq!(refused, 0);
    assert!(
        replacing.refused > 0 && refetching.refused > 0,
        "the record has keys that come back"
    );
}
