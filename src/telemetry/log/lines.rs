//! Lines on their way to standard error, gathered in memory and written by a thread of their own.
//!
//! A library's channel would hand each line over alone, and wake a thread for it.

use std::{
    io::{self, Write},
    mem,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

/// How long lines are gathered before they are written.
const GATHER: Duration = Duration::from_millis(10);

/// How long the end of the process waits for the last lines to be written.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// How much may wait to be written, in bytes; what comes while nobody reads standard error is dropped beyond that.
const MAX_WAITING: usize = 16 * 1024 * 1024;

/// Where lines are put; cloning gives another handle to the same place.
#[derive(Clone, Debug)]
pub(super) struct Lines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    news: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// The thread waits for the next line, rather than for more of them.
    is_idle: bool,
    is_over: bool,
}

/// The thread that writes; dropping it writes what has not been written yet.
#[derive(Debug)]
pub(super) struct Writer {
    lines: Lines,
    thread: JoinHandle<()>,
}

impl Lines {
    /// Starts a thread that writes to `output`.
    ///
    /// # Panics
    ///
    /// When the system has no thread to give.
    pub(super) fn start(output: impl Write + Send + 'static) -> (Self, Writer) {
        let lines = Self(Arc::default());
        let thread = {
            let lines = lines.clone();
            thread::Builder::new()
                .name("log".to_owned())
                .spawn(move || lines.write_to(output))
        };
        (
            lines.clone(),
            Writer {
                lines,
                thread: thread.expect("a thread"),
            },
        )
    }

    /// How many lines nobody will read.
    pub(super) fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, line: &[u8]) {
        let mut waiting = self.waiting();
        if waiting.bytes.len() + line.len() > MAX_WAITING {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.bytes.extend_from_slice(line);
        if mem::take(&mut waiting.is_idle) {
            self.0.news.notify_one();
        }
    }

    fn write_to(&self, mut output: impl Write) {
        let mut bytes = Vec::new();
        loop {
            let mut waiting = self.waiting();
            while waiting.bytes.is_empty() && !waiting.is_over {
                waiting.is_idle = true;
                waiting = self
                    .0
                    .news
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if waiting.bytes.is_empty() {
                return;
            }
            waiting.is_idle = false;
            let is_over = waiting.is_over;
            drop(waiting);
            if !is_over {
                thread::sleep(GATHER);
            }
            mem::swap(&mut bytes, &mut self.waiting().bytes);
            let lost = write(&mut output, &bytes);
            self.0.dropped.fetch_add(lost, Ordering::Relaxed);
            bytes.clear();
        }
    }
}

/// Writes all of it; how many lines could not be written.
fn write(output: &mut impl Write, mut bytes: &[u8]) -> u64 {
    while !bytes.is_empty() {
        match output.write(bytes) {
            Ok(0) => break,
            Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Somebody else has made standard error non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(GATHER),
            Err(_) => break,
        }
    }
    let _ = output.flush();
    u64::try_from(bytes.split(|&byte| byte == b'\n').count() - 1).unwrap_or(u64::MAX)
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

/// Whole lines: that is what they are formatted as.
impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut waiting = self.lines.waiting();
        waiting.is_over = true;
        drop(waiting);
        self.lines.0.news.notify_one();
        // While nobody reads standard error, the thread does not end; the process must.
        let mut waits = LAST_WRITE.as_millis() / GATHER.as_millis();
        while waits > 0 && !self.thread.is_finished() {
            thread::sleep(GATHER);
            waits -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Takes nothing until it is told to.
    struct Stuck(mpsc::Receiver<()>, mpsc::Sender<usize>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            let _ = self.1.send(bytes.len());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn while_nobody_reads_lines_are_dropped_and_counted_and_nothing_waits() {
        let ((go, stuck), (written, sizes)) = (mpsc::channel(), mpsc::channel());
        let (lines, writer) = Lines::start(Stuck(stuck, written));
        let line = [b'x'; 1024];
        for _ in 0..40 * 1024 {
            lines.put(&line);
        }
        assert!(lines.dropped() >= 8 * 1024, "{}", lines.dropped());
        drop(go);
        drop(writer);
        let bytes: usize = sizes.iter().sum();
        let kept = 40 * 1024 - usize::try_from(lines.dropped()).unwrap();
        assert_eq!(
            bytes,
            kept * line.len(),
            "what was not dropped is written, to the end"
        );
    }

    #[test]
    fn the_process_ends_though_nobody_reads_and_what_cannot_be_written_is_counted() {
        let ((_go, stuck), (written, _sizes)) = (mpsc::channel(), mpsc::channel());
        let (lines, writer) = Lines::start(Stuck(stuck, written));
        lines.put(b"never read\n");
        drop(writer);

        let full = io::Cursor::new([0; 8]);
        let (lines, writer) = Lines::start(full);
        for _ in 0..3 {
            lines.put(b"a line\n");
        }
        drop(writer);
        assert_eq!(lines.dropped(), 2);
    }
}
