//! Helpers for tests that measure memory.

use std::{env, fs, process::Command, thread};

/// The resident memory of this process, in KiB.
pub(crate) fn resident_kib() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap_or("0");
    line.split_whitespace()
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// Runs the calling test alone in a child process, because it measures memory. Returns `false` in the child.
pub(crate) fn is_repeated_in_child() -> bool {
    if env::var_os("IN_CHILD_PROCESS").is_some() {
        return false;
    }
    // libtest names the thread of a test by the path of the test.
    let test = thread::current().name().unwrap().to_owned();
    let mut child = Command::new(env::current_exe().unwrap());
    let output = child
        .args(["--exact", &test, "--nocapture"])
        .env("IN_CHILD_PROCESS", "yes")
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    println!("{printed}");
    assert!(output.status.success(), "{errors}");
    assert!(printed.contains("1 passed"), "the child ran no test");
    true
}
