//! Settings that change while the service runs: on SIGHUP, and when `.env` changes.
//!
//! Tenants and revoked keys are replaced together, between two requests. Settings that make
//! no sense change nothing, and the log says why.

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

use crate::{
    auth::{Access, Tenants, Verifier},
    config::{self, Config},
};

/// How often `.env` is looked at. A change is taken over when two looks in a row have seen
/// the same, so that a file is not read while it is being written.
const POLL: Duration = Duration::from_secs(1);

/// Who may come in, and with which keys, is worth an audit.
const AUDIT: &str = "tenant_tasks::audit";

/// Watches for new settings.
#[derive(Debug)]
pub struct Reloader {
    directory: PathBuf,
    hangup: Signal,
    /// What the file held when it was last taken over; `None` if there was none.
    applied: Option<Vec<u8>>,
    is_current: Arc<AtomicBool>,
}

impl Reloader {
    /// Notes what `.env` in `directory` holds now. To be called before the settings are first
    /// read, so that no change falls between, and from within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When the system does not let the process listen for signals.
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

    /// Whether the newest settings are those in force: false while they make no sense.
    pub fn is_current(&self) -> impl Fn() -> bool + Send + Sync + use<> {
        let is_current = Arc::clone(&self.is_current);
        move || is_current.load(Ordering::Relaxed)
    }

    /// Hands new settings to the verifier, for as long as it is polled.
    pub async fn run(mut self, verifier: Arc<Verifier>) {
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_seen = self.applied.clone();
        loop {
            let is_asked = tokio::select! {
                Some(()) = self.hangup.recv() => true,
                _ = poll.tick() => false,
            };
            let seen = fs::read(self.directory.join(".env")).ok();
            let is_settled = seen == last_seen;
            if is_asked || (is_settled && seen != self.applied) {
                self.applied.clone_from(&seen);
                self.reload(&verifier);
            }
            last_seen = seen;
        }
    }

    fn reload(&self, verifier: &Verifier) {
        let config =
            config::read_variables(&self.directory).and_then(|variables| Config::parse(&variables));
        self.is_current.store(config.is_ok(), Ordering::Relaxed);
        match config {
            Ok(config) => {
                let old = verifier.access();
                verifier.replace_access(config.access.clone());
                // Only now, so that who has read the line finds it true.
                log_changes(&old, &config.access);
            }
            Err(error) => {
                tracing::error!(target: AUDIT, %error, "settings not reloaded: the old ones stay in force");
            }
        }
    }
}

fn log_changes(old: &Access, new: &Access) {
    if old == new {
        tracing::info!(target: AUDIT, "settings reloaded: tenants and revoked keys are as they were");
        return;
    }
    match (&old.tenants, &new.tenants) {
        (Tenants::Listed(old), Tenants::Listed(new)) => {
            for tenant in new.difference(old) {
                tracing::info!(target: AUDIT, %tenant, "settings reloaded: tenant added");
            }
            for tenant in old.difference(new) {
                tracing::info!(target: AUDIT, %tenant, "settings reloaded: tenant removed");
            }
        }
        (Tenants::Any { .. } | Tenants::Listed(_), Tenants::Any { .. }) => {
            tracing::info!(target: AUDIT, "settings reloaded: people of any organisation may sign in");
        }
        (Tenants::Any { .. }, Tenants::Listed(new)) => {
            tracing::info!(target: AUDIT, tenants = new.len(), "settings reloaded: only listed tenants may sign in");
        }
    }
    for key_id in new.revoked_keys.difference(&old.revoked_keys) {
        tracing::warn!(target: AUDIT, ?key_id, "settings reloaded: signing key revoked");
    }
    for key_id in old.revoked_keys.difference(&new.revoked_keys) {
        tracing::warn!(target: AUDIT, ?key_id, "settings reloaded: signing key no longer revoked");
    }
}
