//! Reloads settings while the service runs: on SIGHUP, and when `.env` changes.
//!
//! Only the allow-list, the revoked keys and `DATABASE_URL` change, without a restart. New connections
//! to the database use the new URL. If any new setting is invalid, the old settings stay in force, and
//! the log says why. Files are read on a thread that may block, because a file system can hang.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::{JoinError, spawn_blocking},
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    Config, env_file, reloadable,
    settings::{ConfigError, DATABASE_URL, Variables},
    variables,
};
use crate::{
    registry::access::{AUDIT, AccessControl},
    tasks::store::Tasks,
};

/// How often `.env` is read. A change is applied when two reads in a row return the same content,
/// so that a half-written file is not applied.
const POLL: Duration = Duration::from_secs(1);

/// How long to read `.env` before a warning is logged.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Watches `.env` for changes.
#[derive(Debug)]
pub struct Reloader {
    directory: PathBuf,
    hangup: Signal,
    /// The content of `.env` that was last loaded; `None` if it cannot be read.
    applied: Option<Vec<u8>>,
    is_current: Arc<AtomicBool>,
}

impl Reloader {
    /// Reads `.env` in `directory`. Call this before the settings are first read, so that no change
    /// is missed. Needs a tokio runtime.
    pub fn new(directory: PathBuf) -> io::Result<Self> {
        let hangup = signal(SignalKind::hangup())?;
        let applied = read_bytes(&directory);
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

    /// Applies changed settings. Does not return. `started_with` are the variables
    /// at the start.
    pub async fn run(
        self,
        access: Arc<AccessControl>,
        tasks: Tasks,
        started_with: Variables,
    ) -> Result<(), JoinError> {
        self.run_with(read_settings, access, tasks, started_with)
            .await
    }

    /// Like [`Reloader::run`], with another source of the settings.
    async fn run_with(
        mut self,
        read_settings: fn(&Path) -> Result<(Variables, Config), ConfigError>,
        access: Arc<AccessControl>,
        tasks: Tasks,
        started_with: Variables,
    ) -> Result<(), JoinError> {
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_seen = self.applied.clone();
        loop {
            let is_requested = tokio::select! {
                Some(()) = self.hangup.recv() => true,
                _ = poll.tick() => false,
            };
            let seen = self.read(read_bytes).await?;
            let is_stable = seen == last_seen;
            if is_requested || (is_stable && seen != self.applied) {
                self.applied.clone_from(&seen);
                let settings = self.read(read_settings).await?;
                self.reload(settings, &access, &tasks, &started_with);
            }
            last_seen = seen;
        }
    }

    /// Calls `read` with the folder of `.env`, on a thread that may block.
    async fn read<T: Send + 'static>(&self, read: fn(&Path) -> T) -> Result<T, JoinError> {
        let directory = self.directory.clone();
        let mut reading = spawn_blocking(move || read(&directory));
        if let Ok(result) = timeout(READ_TIMEOUT, &mut reading).await {
            return result;
        }
        let was_current = self.is_current.swap(false, Ordering::Relaxed);
        let seconds = READ_TIMEOUT.as_secs();
        tracing::error!(target: AUDIT, seconds, "reading .env takes too long; the old settings stay in force");
        let result = reading.await;
        self.is_current.store(was_current, Ordering::Relaxed);
        result
    }

    fn reload(
        &self,
        settings: Result<(Variables, Config), ConfigError>,
        access: &AccessControl,
        tasks: &Tasks,
        started_with: &Variables,
    ) {
        self.is_current.store(settings.is_ok(), Ordering::Relaxed);
        match settings {
            Ok((variables, config)) => {
                access.replace_settings(config.access);
                tasks.replace_database(config.store.database);
                let changed = need_restart(started_with, &variables);
                if !changed.is_empty() {
                    let settings = changed.join(", ");
                    tracing::warn!(target: AUDIT, settings, "changed settings that need a restart");
                }
            }
            Err(error) => {
                tracing::error!(target: AUDIT, %error, "settings not reloaded; the old ones stay in force");
            }
        }
    }
}

fn read_bytes(directory: &Path) -> Option<Vec<u8>> {
    env_file::read_bytes(directory).ok().flatten()
}

fn read_settings(directory: &Path) -> Result<(Variables, Config), ConfigError> {
    let variables = env_file::read_variables(directory)?;
    let config = Config::parse(&variables)?;
    Ok((variables, config))
}

/// The settings whose values differ from those at the start, and which a reload does not apply.
fn need_restart(started_with: &Variables, now: &Variables) -> Vec<&'static str> {
    let reloadable = reloadable();
    let names = variables().into_iter();
    let names = names.filter(|name| !reloadable.contains(name));
    let changed = names.filter(|&name| match (started_with.get(name), now.get(name)) {
        // Only between a database and none.
        (Some(_), Some(_)) if name == DATABASE_URL => false,
        (old, new) => old != new,
    });
    changed.collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::time::sleep;

    use super::*;
    use crate::{
        auth::verifier::Verifier, clock::SystemClock, config::valid_variables, ids::KeyId,
    };

    #[test]
    fn restart_is_needed_for_what_a_reload_does_not_apply() {
        for (name, old, new, is_needed) in [
            ("PORT", Some("1"), Some("2"), true),
            ("PORT", None, Some("2"), true),
            ("PORT", Some("1"), None, true),
            ("PORT", Some("1"), Some("1"), false),
            ("REVOKED_KEY_IDS", Some("a"), Some("b"), false),
            ("NOT_A_SETTING", Some("a"), Some("b"), false),
            // A reload replaces one database by another, but not tasks in memory by a database.
            (DATABASE_URL, Some("a"), Some("b"), false),
            (DATABASE_URL, None, Some("b"), true),
            (DATABASE_URL, Some("a"), None, true),
        ] {
            let variables = |value: Option<&str>| {
                let value = value.map(|value| (name.to_owned(), value.to_owned()));
                value.into_iter().collect()
            };
            let found = need_restart(&variables(old), &variables(new));
            let expected = if is_needed { vec![name] } else { vec![] };
            assert_eq!(found, expected, "{name}: {old:?} to {new:?}");
        }
    }

    /// Ignores the environment of the test.
    fn read_file(folder: &Path) -> Result<(Variables, Config), ConfigError> {
        let variables = env_file::EnvFile::open(folder).unwrap().variables()?;
        let config = Config::parse(&variables)?;
        Ok((variables, config))
    }

    #[tokio::test(start_paused = true)]
    async fn change_is_applied_after_two_equal_reads() {
        let folder = tempfile::tempdir().unwrap();
        let mut valid = valid_variables();
        // Nothing listens on this port.
        let authority = "http://127.0.0.1:9".to_owned();
        valid.insert("AZURE_AUTHORITY_HOST".to_owned(), authority);
        let lines = valid.iter().map(|(name, value)| format!("{name}={value}"));
        let valid = lines.collect::<Vec<_>>().join("\n");
        let write = |revoked: &str| {
            let text = format!("{valid}\nREVOKED_KEY_IDS={revoked}\n");
            fs::write(folder.path().join(".env"), text).unwrap();
        };
        write("old");
        let (_, config) = read_file(folder.path()).unwrap();
        let clock = Arc::new(SystemClock::new());
        let verifier = Verifier::new(config.tokens, config.access.clone(), clock).unwrap();
        let verifier = Arc::new(verifier);
        let access = AccessControl::new(Arc::clone(&verifier), config.access);
        let reloader = Reloader::new(folder.path().to_owned()).unwrap();
        let (access, tasks) = (Arc::new(access), Tasks::in_memory(1));
        tokio::spawn(reloader.run_with(read_file, access, tasks, Variables::new()));
        // The file is read at each full second, and changes between two reads.
        sleep(POLL / 2).await;
        for (written, applied) in [
            ("first", "old"),
            ("second", "old"),
            ("second", "second"),
            ("third", "second"),
            ("third", "third"),
        ] {
            write(written);
            sleep(POLL).await;
            let applied = KeyId::parse(applied).unwrap();
            let access = verifier.access();
            assert!(
                access.revoked_keys.contains(&applied),
                "{written}: {access:?}"
            );
        }
    }
}
