//! The services that run in this folder, found through the system's list of processes.
//!
//! Linux has one in `/proc`; elsewhere none is found, and a running service notices a change of `.env` by itself.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, Signal, kill_process};

/// A service that is running, and would read its settings again if told to.
pub(super) struct Running {
    pid: i32,
}

impl Running {
    /// All whose working directory is `directory`, as far as they may be looked at.
    pub(super) fn in_directory(directory: &Path) -> Vec<Self> {
        let (Ok(directory), Ok(processes)) = (directory.canonicalize(), fs::read_dir("/proc")) else {
            return Vec::new();
        };
        let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.map(|pid| Self { pid })
            .filter(|process| process.is_service_in(&directory).is_some_and(|is| is))
            .collect()
    }

    /// The number of the process.
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether a setting is in its environment, which wins over the file.
    pub(super) fn has_in_environment(&self, variable: &str) -> bool {
        let environment = fs::read(self.path("environ")).unwrap_or_default();
        let start = format!("{variable}=");
        environment.split(|&byte| byte == 0).any(|entry| entry.starts_with(start.as_bytes()))
    }

    /// Tells it to read its settings again.
    pub(super) fn reload(&self) -> bool {
        Pid::from_raw(self.pid).is_some_and(|pid| kill_process(pid, Signal::HUP).is_ok())
    }

    fn is_service_in(&self, directory: &Path) -> Option<bool> {
        let program = fs::read_link(self.path("exe")).ok()?;
        let name = program.file_name()?.to_str()?;
        // Replaced by a newer one while it runs, it is told to have been deleted.
        let is_ours = name.trim_end_matches(" (deleted)") == env!("CARGO_PKG_NAME");
        let is_here = fs::read_link(self.path("cwd")).ok()? == directory;
        Some(is_ours && is_here && self.listens_for_hangup()?)
    }

    /// One that does not, such as another command or a service about to start, would end on the signal.
    fn listens_for_hangup(&self) -> Option<bool> {
        let status = fs::read_to_string(self.path("status")).ok()?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
        let caught = u64::from_str_radix(caught.trim(), 16).ok()?;
        Some(caught & 1 == 1)
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }
}
