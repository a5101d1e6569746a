//! Polls the registry, and applies its changes to this replica.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{access::AccessControl, client::RegistryClient};
use crate::tasks::store::postgres::{
    config::SharedConfig,
    error::{DatabaseError, with_timeout},
};

/// How often the version is polled. A change reaches a replica within this time.
const POLL: Duration = Duration::from_secs(1);

/// How long to wait after a failed poll. Connecting again takes time too.
const RETRY: Duration = Duration::from_millis(500);

/// The time limit for a poll that finds no change.
const POLL_TIMEOUT: Duration = Duration::from_secs(1);

/// The time limit for reading the whole registry.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// The time limit of the first poll, which delays the start.
const FIRST_TIMEOUT: Duration = Duration::from_secs(3);

/// Follows the registry over a separate connection, because requests can occupy all others.
pub struct Watcher {
    database: SharedConfig,
    access: Arc<AccessControl>,
    status: Arc<RegistryStatus>,
    client: Option<RegistryClient>,
    version: Option<i64>,
    is_failing: bool,
}

/// How current the registry's content is, for the metrics.
#[derive(Default)]
pub struct RegistryStatus {
    confirmed_at: Mutex<Option<Instant>>,
    active: AtomicUsize,
    suspended: AtomicUsize,
}

impl RegistryStatus {
    /// The time since the database confirmed the content; `None` if it never has.
    pub fn age(&self) -> Option<Duration> {
        let confirmed_at = self.confirmed_at.lock();
        let confirmed_at = *confirmed_at.unwrap_or_else(PoisonError::into_inner);
        confirmed_at.map(|at| at.elapsed())
    }

    /// The numbers of active and suspended tenants.
    pub fn tenants(&self) -> (usize, usize) {
        let load = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (load(&self.active), load(&self.suspended))
    }

    fn confirm(&self) {
        let confirmed_at = self.confirmed_at.lock();
        *confirmed_at.unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

impl Watcher {
    /// Reads the registry once. If that fails, only the settings apply until [`Watcher::run`] succeeds.
    pub async fn start(database: SharedConfig, access: Arc<AccessControl>) -> Self {
        let mut watcher = Self {
            database,
            access,
            status: Arc::default(),
            client: None,
            version: None,
            is_failing: false,
        };
        let result = with_timeout(FIRST_TIMEOUT, Box::pin(watcher.poll())).await;
        watcher.record(result);
        watcher
    }

    /// How current the content is.
    pub fn status(&self) -> Arc<RegistryStatus> {
        Arc::clone(&self.status)
    }

    /// Follows the registry. Does not return.
    pub async fn run(mut self) {
        loop {
            sleep(if self.is_failing { RETRY } else { POLL }).await;
            let result = self.poll().await;
            self.record(result);
        }
    }

    /// Logs only when the outcome changes: an outage takes many polls.
    fn record(&mut self, result: Result<(), DatabaseError>) {
        let was_failing = self.is_failing;
        self.is_failing = result.is_err();
        match result {
            Ok(()) => {
                self.status.confirm();
                if was_failing {
                    tracing::info!("the registry of tenants can be read again");
                }
            }
            Err(error) => {
                // A new connection uses the current DATABASE_URL.
                self.client = None;
                if was_failing {
                    return;
                }
                if self.version.is_some() {
                    tracing::error!(%error, "cannot read the registry of tenants; its last known content stays in force");
                } else {
                    tracing::error!(%error, "cannot read the registry of tenants; only the settings apply");
                }
            }
        }
    }

    async fn poll(&mut self) -> Result<(), DatabaseError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => RegistryClient::connect(&self.database.current()).await?,
        };
        let client = self.client.insert(client);
        let version = with_timeout(POLL_TIMEOUT, client.version()).await?;
        if self.version == Some(version) {
            return Ok(());
        }
        // Read after the version: a change in between is applied now and again at the next poll.
        let content = with_timeout(READ_TIMEOUT, client.content()).await?;
        let (active, suspended) = (content.active.len(), content.suspended.len());
        self.access.replace_registry(content);
        self.version = Some(version);
        self.status.active.store(active, Ordering::Relaxed);
        self.status.suspended.store(suspended, Ordering::Relaxed);
        Ok(())
    }
}
