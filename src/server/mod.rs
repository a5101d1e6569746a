//! Connections: accepting, bounding and ending them.
//!
//! A client that says nothing, or half a request, is dropped after seconds; one that reads nothing of its
//! answer, after half a minute. When every place is taken, those that wait between two requests make room,
//! and those that have kept the server busy for half a minute. On a stop, whoever is about to send a request
//! has a second to do so, requests in flight have ten to finish, and nobody else delays it. `axum::serve` has
//! none of these bounds.

mod connection;

use std::{
    convert::Infallible,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{rt::TokioTimer, service::TowerToHyperService};
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};

use self::connection::Connection;

/// How many connections may be open at the same time unless the operator says otherwise.
pub const DEFAULT_MAX_CONNECTIONS: usize = 10_000;

/// What a client may take of the server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many connections may be open at the same time.
    pub max_connections: usize,
    /// How long a new connection may take to send the head of its first request.
    pub first_head: Duration,
    /// How long a client may read nothing of an answer that waits for it.
    pub write: Duration,
    /// For how long a client may have requests in flight without a pause and keep its place while
    /// others wait for one: it may read its answers a byte at a time.
    pub busy: Duration,
}

impl Limits {
    /// The usual limits, for so many connections.
    #[must_use]
    pub fn new(max_connections: usize) -> Self {
        Self {
            max_connections,
            first_head: Duration::from_secs(10),
            write: Duration::from_secs(30),
            busy: Duration::from_secs(30),
        }
    }
}

/// The connections of a server, counted for whoever watches.
#[derive(Debug, Default)]
pub struct Tally {
    accepted: AtomicU64,
    closed: AtomicU64,
}

impl Tally {
    /// How many have been accepted since the start.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// How many are open now.
    pub fn open(&self) -> u64 {
        let closed = self.closed.load(Ordering::Relaxed);
        self.accepted().saturating_sub(closed)
    }
}

/// A place among the connections; given back, and counted as closed, when it is dropped.
struct Place {
    #[expect(
        dead_code,
        reason = "held for as long as the connection lasts, and never read"
    )]
    permit: OwnedSemaphorePermit,
    tally: Arc<Tally>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.tally.closed.fetch_add(1, Ordering::Relaxed);
    }
}

/// How long clients that keep a connection may still send a request after a stop. Closed at once, it would
/// fail a request that is on its way; its answer tells them to use another connection.
const LINGER: Duration = Duration::from_secs(1);

/// How long requests in flight may take to finish after that.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the last bytes of an answer may take to leave after that.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a connection may take to send a request's head, the wait between two requests
/// included. Longer than the 60 s after which common proxies give up an idle connection.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(75);

/// The largest head of a request, in bytes: a token of 16 KiB with room to spare. A larger head is answered with 431.
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// File descriptors for what is no client's connection: listening, fetching keys, reading settings.
const OTHER_FILES: usize = 64;

/// How long to wait when no connection can be accepted, as when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many connections there can be: each needs a file descriptor, and so does all else. Takes as many as
/// the system gives; where that cannot be found out, it is left at `wanted`.
#[must_use]
pub fn connections_for_open_files(wanted: usize) -> usize {
    let files = u64::try_from(wanted.saturating_add(OTHER_FILES)).unwrap_or(u64::MAX);
    let Ok(allowed) = rlimit::increase_nofile_limit(files) else {
        return wanted;
    };
    let allowed = usize::try_from(allowed)
        .unwrap_or(usize::MAX)
        .saturating_sub(OTHER_FILES)
        .max(1);
    if allowed < wanted {
        tracing::warn!(
            wanted,
            allowed,
            "MAX_CONNECTIONS is more than this process may have open files for"
        );
    }
    wanted.min(allowed)
}

/// Serves `app` within `limits` until `stop` completes, then finishes the requests in flight.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    limits: Limits,
    tally: Arc<Tally>,
    stop: impl Future<Output = ()>,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES);
    let service = TowerToHyperService::new(app);
    let max_connections = limits.max_connections.min(Semaphore::MAX_PERMITS);
    let places = Arc::new(Semaphore::new(max_connections));
    let (wishes, wish) = watch::channel(Wish::Serve);
    let room = Arc::new(Room {
        wanted: AtomicUsize::new(0),
        at_once: (max_connections / 16).clamp(1, 64),
    });
    let serve_one = |stream: TcpStream, permit| {
        tally.accepted.fetch_add(1, Ordering::Relaxed);
        let place = Place {
            permit,
            tally: Arc::clone(&tally),
        };
        // Answers are small and written at once: waiting to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        let connection = Connection::new(limits, wish.clone(), Arc::clone(&room), place);
        tokio::spawn(connection.serve(http.clone(), stream, service.clone()));
    };
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            (stream, place) = accept(&listener, &places, &wishes, &room) => serve_one(stream, place),
            () = &mut stop => break,
        }
    }
    // Who has connected, or is about to, may not know yet; with nobody there, only who waits to be accepted.
    let linger = if wishes.receiver_count() > 1 {
        LINGER
    } else {
        Duration::ZERO
    };
    wishes.send_replace(Wish::Stop);
    tracing::info!("stopping: requests in flight finish");
    let late = async {
        loop {
            match (
                listener.accept().await,
                Arc::clone(&places).try_acquire_owned(),
            ) {
                (Ok((stream, _)), Ok(place)) => serve_one(stream, place),
                (Ok(_), Err(_)) => {}
                (Err(_), _) => sleep(ACCEPT_PAUSE).await,
            }
        }
    };
    let _: Result<Infallible, _> = timeout(linger, late).await;
    // Whom the system has connected and not told us of yet would be reset with the listener.
    if let Ok(listener) = listener.into_std() {
        while let Ok((stream, _)) = listener.accept() {
            let stream = stream
                .set_nonblocking(true)
                .and_then(|()| TcpStream::from_std(stream));
            if let (Ok(stream), Ok(place)) = (stream, Arc::clone(&places).try_acquire_owned()) {
                serve_one(stream, place);
            }
        }
    }
    tracing::info!("no new connections any more");
    drop(wish);
    // When the last connection has gone, so has the last receiver.
    if timeout(LINGER + DRAIN_TIMEOUT + FLUSH_TIMEOUT, wishes.closed())
        .await
        .is_err()
    {
        tracing::warn!("stopping: some connections were still open after {DRAIN_TIMEOUT:?}");
    }
}

/// Completes when the process is asked to stop: SIGTERM, or SIGINT (Ctrl-C).
///
/// # Errors
///
/// When the system does not let the process listen for signals.
///
/// # Panics
///
/// Outside a tokio runtime.
pub fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// What the server wants of its connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Wish {
    Serve,
    /// Somebody waits for a place: some of those who do not need theirs close.
    MakeRoom,
    /// Each answers one more request at most.
    Stop,
}

/// How many connections are asked to close, so that one newcomer does not end all the others.
struct Room {
    wanted: AtomicUsize,
    at_once: usize,
}

impl Room {
    fn ask(&self, wishes: &watch::Sender<Wish>) {
        self.wanted.store(self.at_once, Ordering::Relaxed);
        wishes.send_replace(Wish::MakeRoom);
    }

    /// Whether a connection that could close is still asked to.
    fn take(&self) -> bool {
        let one_less = |wanted: usize| wanted.checked_sub(1);
        self.wanted
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
            .is_ok()
    }
}

/// A connection and a place for it; while there is none, all others wait in the system's queue.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    wishes: &watch::Sender<Wish>,
    room: &Room,
) -> (TcpStream, OwnedSemaphorePermit) {
    let stream = loop {
        match listener.accept().await {
            Ok((stream, _)) => break stream,
            // The client gave up before its turn came.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                // File descriptors, most likely: those who do not need theirs can help.
                tracing::warn!(%error, "cannot accept a connection");
                room.ask(wishes);
                sleep(ACCEPT_PAUSE).await;
            }
        }
    };
    loop {
        if let Ok(place) = Arc::clone(places).try_acquire_owned() {
            return (stream, place);
        }
        room.ask(wishes);
        sleep(ACCEPT_PAUSE).await;
    }
}
