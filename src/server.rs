//! Connections: accepting, bounding and ending them.
//!
//! No client can hold a place for longer than it uses it. One that says nothing, or half a request, is
//! dropped after seconds; one that does not read its answer, after half a minute; and when every place is
//! taken, those that wait between two requests make room. On a stop, requests in flight have ten seconds
//! to finish, and nobody else delays it. `axum::serve` has none of these bounds.

use std::{
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
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
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
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
}

impl Limits {
    /// The usual limits, for so many connections.
    #[must_use]
    pub fn new(max_connections: usize) -> Self {
        Self { max_connections, first_head: Duration::from_secs(10), write: Duration::from_secs(30) }
    }
}

/// How long requests in flight may take to finish after a stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the last bytes of an answer may take to leave after that.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a connection may take to send a request's head, the wait between two requests
/// included. Longer than the 60 s after which common proxies give up an idle connection.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(75);

/// The largest head of a request, in bytes, and so the memory a connection can hold: a token of
/// 16 KiB with room to spare. A larger head is answered with 431.
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// How old a connection must be to make room for another while it waits for a request.
const SETTLED: Duration = Duration::from_secs(1);

/// How long to wait when no connection can be accepted, as when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `app` within `limits` until `stop` completes, then finishes the requests in flight.
pub async fn serve(listener: TcpListener, app: Router, limits: Limits, stop: impl Future<Output = ()>) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT).max_buf_size(MAX_HEAD_BYTES);
    let service = TowerToHyperService::new(app);
    let max_connections = limits.max_connections.min(Semaphore::MAX_PERMITS);
    let places = Arc::new(Semaphore::new(max_connections));
    let (wishes, wish) = watch::channel(Wish::Serve);
    let mut stop = pin!(stop);
    loop {
        let (stream, place) = tokio::select! {
            accepted = accept(&listener, &places, &wishes) => accepted,
            () = &mut stop => break,
        };
        let connection = Connection { activity: Arc::default(), limits, wish: wish.clone(), place };
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
    /// Every place is taken: who waits for a request closes.
    MakeRoom,
    /// Who waits for a request closes, the others finish theirs.
    Stop,
}

/// A connection once there is a place for it; until then, clients wait in the system's queue.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    wishes: &watch::Sender<Wish>,
) -> (TcpStream, OwnedSemaphorePermit) {
    let place = loop {
        if let Ok(place) = Arc::clone(places).try_acquire_owned() {
            break place;
        }
        wishes.send_replace(Wish::MakeRoom);
        sleep(ACCEPT_PAUSE).await;
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Answers are small and written at once: waiting to fill a packet only delays them.
                let _ = stream.set_nodelay(true);
                return (stream, place);
            }
            // The client gave up before its turn came.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One client's connection, and its place among the others.
struct Connection {
    activity: Arc<Activity>,
    limits: Limits,
    wish: watch::Receiver<Wish>,
    #[expect(dead_code, reason = "a place is held for as long as the connection lasts, and never read")]
    place: OwnedSemaphorePermit,
}

/// What a connection is doing, as its requests tell.
#[derive(Default)]
struct Activity {
    begun: AtomicUsize,
    ended: AtomicUsize,
}

impl Connection {
    async fn serve(mut self, http: http1::Builder, stream: TcpStream, service: TowerToHyperService<Router>) {
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.limits.write));
        let activity = Arc::clone(&self.activity);
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let active = activity.begin();
            let answer = service.call(Request::from(request.map(Body::new)));
            async move { answer.await.map(|response| response.map(|body| ActiveBody { body, _active: active })) }
        });
        let stream = Box::pin(stream);
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
                _ = self.wish.changed() => {
                    let wish = *self.wish.borrow_and_update();
                    match wish {
                        Wish::MakeRoom if is_settled && self.activity.is_idle() => break,
                        Wish::Serve | Wish::MakeRoom => {}
                        Wish::Stop => break,
                    }
                }
            }
        }
        connection.as_mut().graceful_shutdown();
        let patience = if self.activity.is_idle() { FLUSH_TIMEOUT } else { DRAIN_TIMEOUT };
        if let Ok(ended) = timeout(patience, connection).await {
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
    fn begin(self: &Arc<Self>) -> Active {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Active(Arc::clone(self))
    }

    fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed) > 0
    }

    /// Whether no request has come in of which the answer is not written yet.
    fn is_idle(&self) -> bool {
        self.begun.load(Ordering::Relaxed) == self.ended.load(Ordering::Relaxed)
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
