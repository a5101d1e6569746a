//! Connections: accepting, bounding and ending them.
//!
//! A client that says nothing, or half a request, is dropped after seconds; one that reads nothing of its
//! answer, after half a minute. When every place is taken, those that wait between two requests make room,
//! and those that have kept the server busy for half a minute. On a stop, requests in flight have ten
//! seconds to finish, and nobody else delays it. `axum::serve` has none of these bounds.

use std::{
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::Request,
};
use hyper::{
    body::{Frame, Incoming, SizeHint},
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep, timeout},
};
use tokio_io_timeout::TimeoutStream;

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

/// How long requests in flight may take to finish after a stop.
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

/// How old a connection must be to make room for another while it waits for a request.
const SETTLED: Duration = Duration::from_secs(1);

/// How long to wait when no connection can be accepted, as when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many connections there can be: each needs a file descriptor, and so does all else. Takes as many as
/// the system gives; where that cannot be found out, it is left at `wanted`.
#[must_use]
pub fn connections_for_open_files(wanted: usize) -> usize {
    let files = u64::try_from(wanted.saturating_add(OTHER_FILES)).unwrap_or(u64::MAX);
    let Ok(allowed) = rlimit::increase_nofile_limit(files) else { return wanted };
    let allowed = usize::try_from(allowed).unwrap_or(usize::MAX).saturating_sub(OTHER_FILES).max(1);
    if allowed < wanted {
        tracing::warn!(wanted, allowed, "MAX_CONNECTIONS is more than this process may have open files for");
    }
    wanted.min(allowed)
}

/// Serves `app` within `limits` until `stop` completes, then finishes the requests in flight.
pub async fn serve(listener: TcpListener, app: Router, limits: Limits, stop: impl Future<Output = ()>) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT).max_buf_size(MAX_HEAD_BYTES);
    let service = TowerToHyperService::new(app);
    let max_connections = limits.max_connections.min(Semaphore::MAX_PERMITS);
    let places = Arc::new(Semaphore::new(max_connections));
    let (wishes, wish) = watch::channel(Wish::Serve);
    let room = Arc::new(Room { wanted: AtomicUsize::new(0), at_once: (max_connections / 16).clamp(1, 64) });
    let mut stop = pin!(stop);
    loop {
        let (stream, place) = tokio::select! {
            accepted = accept(&listener, &places, &wishes, &room) => accepted,
            () = &mut stop => break,
        };
        let (activity, room) = (Arc::new(Activity::new()), Arc::clone(&room));
        let connection = Connection { activity, limits, wish: wish.clone(), room, place };
        tokio::spawn(connection.serve(http.clone(), stream, service.clone()));
    }
    drop(listener);
    tracing::info!("stopping: no new connections, requests in flight finish");
    wishes.send_replace(Wish::Stop);
    drop(wish);
    // When the last connection has gone, so has the last receiver.
    if timeout(DRAIN_TIMEOUT + FLUSH_TIMEOUT, wishes.closed()).await.is_err() {
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
    /// Who waits for a request closes, the others finish theirs.
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
        self.wanted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
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
    // Answers are small and written at once: waiting to fill a packet only delays them.
    let _ = stream.set_nodelay(true);
    loop {
        if let Ok(place) = Arc::clone(places).try_acquire_owned() {
            return (stream, place);
        }
        room.ask(wishes);
        sleep(ACCEPT_PAUSE).await;
    }
}

/// One client's connection, and its place among the others.
struct Connection {
    activity: Arc<Activity>,
    limits: Limits,
    wish: watch::Receiver<Wish>,
    room: Arc<Room>,
    #[expect(dead_code, reason = "a place is held for as long as the connection lasts, and never read")]
    place: OwnedSemaphorePermit,
}

/// What a connection is doing, as its requests and its writes tell.
struct Activity {
    opened: Instant,
    begun: AtomicUsize,
    ended: AtomicUsize,
    /// When the requests in flight began without a pause since, in milliseconds since `opened`.
    busy_since: AtomicU64,
    /// The client has not taken yet what there is to write.
    is_blocked: AtomicBool,
}

impl Connection {
    async fn serve(mut self, http: http1::Builder, stream: TcpStream, service: TowerToHyperService<Router>) {
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.limits.write));
        let stream = WatchedStream { stream: Box::pin(stream), activity: Arc::clone(&self.activity) };
        let activity = Arc::clone(&self.activity);
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let active = activity.begin();
            let answer = service.call(Request::from(request.map(Body::new)));
            async move { answer.await.map(|response| response.map(|body| ActiveBody { body, _active: active })) }
        });
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
        let mut first_head = pin!(sleep(self.limits.first_head));
        let mut settled = pin!(sleep(SETTLED));
        let (mut is_settled, mut is_past_first_head) = (false, false);
        loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => return log_end(ended),
                () = &mut settled, if !is_settled => is_settled = true,
                () = &mut first_head, if !is_past_first_head => {
                    is_past_first_head = true;
                    if !self.activity.has_begun() {
                        return;
                    }
                }
                changed = self.wish.changed() => {
                    // Without a server there is nothing to serve for.
                    let wish = changed.map_or(Wish::Stop, |()| *self.wish.borrow_and_update());
                    match wish {
                        Wish::MakeRoom if !is_settled => {}
                        Wish::MakeRoom if self.activity.is_idle() => {
                            if self.room.take() {
                                break;
                            }
                        }
                        Wish::MakeRoom if self.activity.busy_for() >= self.limits.busy => {
                            if self.room.take() {
                                return;
                            }
                        }
                        Wish::Serve | Wish::MakeRoom => {}
                        Wish::Stop => break,
                    }
                }
            }
        }
        connection.as_mut().graceful_shutdown();
        // Who is in the middle of sending a head has this long; who has sent one by then, or is still
        // reading an answer, has longer.
        if let Ok(ended) = timeout(FLUSH_TIMEOUT, connection.as_mut()).await {
            return log_end(ended);
        }
        if !self.activity.is_idle()
            && let Ok(ended) = timeout(DRAIN_TIMEOUT.saturating_sub(FLUSH_TIMEOUT), connection).await
        {
            log_end(ended);
        }
    }
}

fn log_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

impl Activity {
    fn new() -> Self {
        Self {
            opened: Instant::now(),
            begun: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            busy_since: AtomicU64::new(0),
            is_blocked: AtomicBool::new(false),
        }
    }

    fn begin(self: &Arc<Self>) -> Active {
        if self.is_idle() {
            self.busy_since.store(self.age(), Ordering::Relaxed);
        }
        self.begun.fetch_add(1, Ordering::Relaxed);
        Active(Arc::clone(self))
    }

    fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed) > 0
    }

    /// Whether every request that has come in is answered, and the client has taken the answers.
    fn is_idle(&self) -> bool {
        self.begun.load(Ordering::Relaxed) == self.ended.load(Ordering::Relaxed)
            && !self.is_blocked.load(Ordering::Relaxed)
    }

    /// For how long it has not been idle; of no meaning when it is.
    fn busy_for(&self) -> Duration {
        Duration::from_millis(self.age().saturating_sub(self.busy_since.load(Ordering::Relaxed)))
    }

    fn age(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A stream that notes whether the client takes what is written.
struct WatchedStream {
    stream: Pin<Box<TimeoutStream<TcpStream>>>,
    activity: Arc<Activity>,
}

impl WatchedStream {
    fn note<T>(&self, written: Poll<T>) -> Poll<T> {
        self.activity.is_blocked.store(written.is_pending(), Ordering::Relaxed);
        written
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_read(context, buffer)
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.stream.as_mut().poll_write(context, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.stream.as_mut().poll_write_vectored(context, slices);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(context)
    }
}

/// A request from its head to the end of its answer, however that ends.
struct Active(Arc<Activity>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// The body of an answer; once it is gone, the request has ended.
struct ActiveBody {
    body: Body,
    _active: Active,
}

impl HttpBody for ActiveBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
