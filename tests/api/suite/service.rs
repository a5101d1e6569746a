//! Runs the binary as a separate process.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::support::users::{API_CLIENT_ID, CONTOSO};

/// The time limit for a log line or an answer.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A running binary in a temporary folder. Its environment contains only settings.
pub(crate) struct Service {
    pub(crate) address: String,
    /// The address of `/metrics`, if it is enabled.
    pub(crate) metrics_address: Option<String>,
    process: Child,
    lines: mpsc::Receiver<String>,
    directory: tempfile::TempDir,
}

/// Returns a command for the binary, and its empty folder.
pub(crate) fn command(settings: &[(&str, &str)]) -> (Command, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenant-tasks"));
    command
        .current_dir(&directory)
        .env_clear()
        .envs(settings.iter().copied())
        .stderr(Stdio::piped());
    (command, directory)
}

/// The minimal settings and these.
fn minimal_with<'a>(settings: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let minimal = [
        ("AZURE_API_CLIENT_ID", API_CLIENT_ID),
        ("AZURE_HOME_TENANT_ID", CONTOSO.id),
        // Nothing listens on this port, so tests do not connect to other machines.
        ("AZURE_AUTHORITY_HOST", "http://127.0.0.1:9"),
        ("PORT", "0"),
        ("LOG_FORMAT", "json"),
    ];
    [&minimal, settings].concat()
}

impl Service {
    /// Starts the binary with the minimal settings and these.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_with_file("", settings)
    }

    /// Like [`Service::start`], with a `.env` in its folder.
    pub(crate) fn start_with_file(file: &str, settings: &[(&str, &str)]) -> Self {
        let (command, directory) = command(&minimal_with(settings));
        Self::spawn(command, directory, file)
    }

    /// Like [`Service::start`], with a limit on open files.
    pub(crate) fn start_with_open_files(limit: u32, settings: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        let script = format!(
            "ulimit -n {limit}; exec {}",
            env!("CARGO_BIN_EXE_tenant-tasks")
        );
        command
            .args(["-c", &script])
            .current_dir(&directory)
            .env_clear();
        command.envs(minimal_with(settings)).stderr(Stdio::piped());
        Self::spawn(command, directory, "")
    }

    fn spawn(mut command: Command, directory: tempfile::TempDir, file: &str) -> Self {
        write_file(directory.path(), file);
        let mut process = command.spawn().unwrap();
        let stderr = BufReader::new(process.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            stderr
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        let mut service = Self {
            address: String::new(),
            metrics_address: None,
            process,
            lines,
            directory,
        };
        while service.address.is_empty() {
            let line: Value = serde_json::from_str(&service.wait_for_line("address")).unwrap();
            let address = line["address"].as_str().unwrap().to_owned();
            if line["message"] == "metrics" {
                service.metrics_address = Some(address);
            } else {
                service.address = address;
            }
        }
        service
    }

    /// Waits for the next log line that contains `text`.
    pub(crate) fn wait_for_line(&self, text: &str) -> String {
        loop {
            let line = self
                .lines
                .recv_timeout(TIMEOUT)
                .unwrap_or_else(|_| panic!("no log line contains {text:?}"));
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Replaces `.env` atomically.
    pub(crate) fn rewrite_file(&self, file: &str) {
        write_file(self.directory.path(), file);
    }

    /// Replaces `.env` by a FIFO without a writer.
    pub(crate) fn replace_file_by_fifo(&self) {
        let fifo = self.directory.path().join("fifo");
        let status = Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(status.success());
        std::fs::rename(fifo, self.directory.path().join(".env")).unwrap();
    }

    /// Reads `.env`.
    pub(crate) fn file(&self) -> String {
        std::fs::read_to_string(self.directory.path().join(".env")).unwrap()
    }

    /// Runs another command of the binary in its folder and returns its standard output.
    pub(crate) fn command(&self, arguments: &[&str]) -> String {
        let output = self.output_of(arguments);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn output_of(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenant-tasks"));
        command
            .args(arguments)
            .current_dir(&self.directory)
            .env_clear()
            .output()
            .unwrap()
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream
    }

    /// Sends a signal, such as `-TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([name, &self.process.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits for the process to exit. Returns its status and the log lines not read so far.
    pub(crate) fn finish(mut self) -> (ExitStatus, String) {
        let status = self.process.wait().unwrap();
        (status, self.lines.iter().collect::<Vec<_>>().join("\n"))
    }
}

/// Sends `GET /health` and leaves the connection open.
pub(crate) fn health(stream: &mut TcpStream) -> io::Result<String> {
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// Ends the process even if the test fails.
impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn write_file(directory: &Path, file: &str) {
    let new = directory.join(".env.new");
    std::fs::write(&new, file).unwrap();
    std::fs::rename(new, directory.join(".env")).unwrap();
}
