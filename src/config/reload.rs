//! Reloads settings while the service runs: on SIGHUP, and when `.env` changes.
//!
//! Only the allow-list and the revoked keys change, both at once and without a restart. If any new
//! setting is invalid, the old settings stay in force, and the log says why.

use std::{
    fs, io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

use super::{Config, env_file};
use crate::auth::{Access, Tenants, Verifier};

/// How often `.env` is read. A change is applied when two reads in a row return the same content,
/// so that a half-written file is not applied.
const POLL: Duration = Duration::from_secs(1);

/// The log target of changes to the allow-list and the revoked keys.
const AUDIT: &str = "tenant_tasks::audit";

/// Watches `.env` for changes.
#[derive(Debug)]
pub struct Reloader {
    directory: PathBuf,
    hangup: Signal,
    /// The content of `.env` that was last loaded; `None` without a file.
    applied: Option<Vec<u8>>,
    is_current: Arc<AtomicBool>,
}

impl Reloader {
    /// Reads `.env` in `directory`. Call this before the settings are first read, so that no change
    /// is missed. Needs a tokio runtime.
    pub fn new(directory: PathBuf) -> io::Result<Self> {
        let hangup = signal(SignalKind::hangup())?;
        let applied = fs::read(directory.join(".env")).ok();
        Ok(Self {
            directory,
            hangup,
            applied,
            is_current: Arc::new(AtomicBool::new(true)),
        })
    }

    /// Whether the newest settings are in force. False while they are invalid.
    pub fn is_current(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_current)
    }

    /// Applies changed settings to the verifier. Does not return.
    pub async fn run(mut self, verifier: Arc<Verifier>) {
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_seen = self.applied.clone();
        loop {
            let is_requested = tokio::select! {
                Some(()) = self.hangup.recv() => true,
                _ = poll.tick() => false,
            };
            let seen = fs::read(self.directory.join(".env")).ok();
            let is_stable = seen == last_seen;
            if is_requested || (is_stable && seen != self.applied) {
                self.applied.clone_from(&seen);
                self.reload(&verifier);
            }
            last_seen = seen;
        }
    }

    fn reload(&self, verifier: &Verifier) {
        let variables = env_file::read_variables(&self.directory);
        let config = variables.and_then(|variables| Config::parse(&variables));
        self.is_current.store(config.is_ok(), Ordering::Relaxed);
        match config {
            Ok(config) => {
                let old = verifier.access();
                verifier.replace_access(config.access.clone());
                // After the change: a reader of the log may rely on it.
                log_changes(&old, &config.access);
            }
            Err(error) => {
                tracing::error!(target: AUDIT, %error, "settings not reloaded; the old ones stay in force");
            }
        }
    }
}

fn log_changes(old: &Access, new: &Access) {
    if old == new {
        tracing::info!(target: AUDIT, "settings reloaded; no changes");
        return;
    }
    if let (Tenants::Listed(old), Tenants::Listed(new)) = (&old.tenants, &new.tenants) {
        for tenant in new.difference(old) {
            tracing::info!(target: AUDIT, %tenant, "settings reloaded: tenant added");
        }
        for tenant in old.difference(new) {
            tracing::info!(target: AUDIT, %tenant, "settings reloaded: tenant removed");
        }
    } else if new.tenants == old.tenants {
        // Only the revoked keys have changed.
    } else if new.tenants.is_open() {
        tracing::info!(target: AUDIT, "settings reloaded: users of any tenant may sign in");
    } else {
        let tenants = new.tenants.listed().len();
        tracing::info!(target: AUDIT, tenants, "settings reloaded: only listed tenants may sign in");
    }
    for key_id in new.revoked_keys.difference(&old.revoked_keys) {
        tracing::warn!(target: AUDIT, ?key_id, "settings reloaded: signing key revoked");
    }
    for key_id in old.revoked_keys.difference(&new.revoked_keys) {
        tracing::warn!(target: AUDIT, ?key_id, "settings reloaded: signing key restored");
    }
}
