//! The services that run in this folder, found through the system's list of processes.
//!
//! Linux has one in `/proc`; elsewhere none is found, and a running service notices a change of `.env` by itself. A process
//! is held on to before it is looked at, so that what is told is what was found: its number may be another's by then.

use std::{
    fs,
    path::{Path, PathBuf},
};

#[cfg(target_os = "linux")]
use rustix::{
    fd::OwnedFd,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

/// A service that is running, and would read its settings again if told to.
pub(super) struct Running {
    pid: i32,
    #[cfg(target_os = "linux")]
    process: OwnedFd,
}

impl Running {
    /// All whose working directory is `directory`, as far as this user may look at them.
    #[cfg(target_os = "linux")]
    pub(super) fn in_directory(directory: &Path) -> Vec<Self> {
        let (Ok(directory), Ok(processes)) = (directory.canonicalize(), fs::read_dir("/proc"))
        else {
            return Vec::new();
        };
        let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let found = pids.filter_map(|pid| {
            let process = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
            let found = Self { pid, process };
            found.is_service_in(&directory)?.then_some(found)
        });
        found.collect()
    }

    /// None can be found.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn in_directory(_: &Path) -> Vec<Self> {
        Vec::new()
    }

    /// The number of the process.
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// The environment it was started with: `NAME=value`, what is not UTF-8 left out.
    pub(super) fn environment(&self) -> Vec<String> {
        let environment = fs::read(self.path("environ")).unwrap_or_default();
        let entries = environment.split(|&byte| byte == 0);
        entries
            .filter_map(|entry| String::from_utf8(entry.to_vec()).ok())
            .collect()
    }

    /// Tells it to read its settings again.
    pub(super) fn reload(&self) -> bool {
        #[cfg(target_os = "linux")]
        return pidfd_send_signal(&self.process, Signal::HUP).is_ok();
        #[cfg(not(target_os = "linux"))]
        return false;
    }

    #[cfg(target_os = "linux")]
    fn is_service_in(&self, directory: &Path) -> Option<bool> {
        let program = fs::read_link(self.path("exe")).ok()?;
        let name = program.file_name()?.to_str()?;
        // Replaced by a newer one while it runs, it is told to have been deleted.
        let is_ours = name.trim_end_matches(" (deleted)") == env!("CARGO_PKG_NAME");
        let is_here = fs::read_link(self.path("cwd")).ok()? == directory;
        Some(is_ours && is_here && self.listens_for_hangup()?)
    }

    /// One that does not, such as another command or a service about to start, would end on the signal.
    #[cfg(target_os = "linux")]
    fn listens_for_hangup(&self) -> Option<bool> {
        let status = fs::read_to_string(self.path("status")).ok()?;
        let caught = status
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:"))?;
        let caught = u64::from_str_radix(caught.trim(), 16).ok()?;
        Some(caught & 1 == 1)
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }
}
