//! The binary in a process of its own.

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

/// How long to wait for a line of the log before a test has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// The binary, running in a folder of its own, with nothing in its environment but settings.
pub(crate) struct Service {
    pub(crate) address: String,
    /// Where its metrics are, if anywhere.
    pub(crate) metrics_address: Option<String>,
    process: Child,
    lines: mpsc::Receiver<String>,
    directory: tempfile::TempDir,
}

/// The binary, not yet running, and its empty folder.
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

/// As few settings as will do, and these.
fn minimal_with<'a>(settings: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let minimal = [
        ("AZURE_API_CLIENT_ID", API_CLIENT_ID),
        ("AZURE_HOME_TENANT_ID", CONTOSO.id),
        // Nobody listens there, so no test leaves this machine.
        ("AZURE_AUTHORITY_HOST", "http://127.0.0.1:9"),
        ("PORT", "0"),
        ("LOG_FORMAT", "json"),
    ];
    [&minimal, settings].concat()
}

impl Service {
    /// With as few settings as will do, and these.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_with_file("", settings)
    }

    /// The same with a `.env` in its folder.
    pub(crate) fn start_with_file(file: &str, settings: &[(&str, &str)]) -> Self {
        let (command, directory) = command(&minimal_with(settings));
        Self::spawn(command, directory, file)
    }

    /// The same in a process that may have so many files open.
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

    /// The next line of the log that contains `text`.
    pub(crate) fn wait_for_line(&self, text: &str) -> String {
        loop {
            let line = self
                .lines
                .recv_timeout(PATIENCE)
                .unwrap_or_else(|_| panic!("no line with {text:?}"));
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Gives `.env` another content, at one stroke.
    pub(crate) fn rewrite_file(&self, file: &str) {
        write_file(self.directory.path(), file);
    }

    /// What `.env` holds now.
    pub(crate) fn file(&self) -> String {
        std::fs::read_to_string(self.directory.path().join(".env")).unwrap()
    }

    /// Runs another command of the binary in its folder, and gives what that says.
    pub(crate) fn command(&self, arguments: &[&str]) -> String {
        let output = self.output_of(arguments);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same with one that is to fail: what it says of that, and its exit code.
    pub(crate) fn command_that_fails(&self, arguments: &[&str]) -> (String, Option<i32>) {
        let output = self.output_of(arguments);
        (
            String::from_utf8(output.stderr).unwrap(),
            output.status.code(),
        )
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
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
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

    /// Waits for the end, and gives the exit status and the log not read so far.
    pub(crate) fn finish(mut self) -> (ExitStatus, String) {
        let status = self.process.wait().unwrap();
        (status, self.lines.iter().collect::<Vec<_>>().join("\n"))
    }
}

/// A request whose answer leaves the connection open.
pub(crate) fn health(stream: &mut TcpStream) -> io::Result<String> {
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// A test that fails leaves no process behind.
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
