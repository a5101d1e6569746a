//! One connection, from its first byte to its last: what it may take, and when it gives up its place.

use std::{
    convert::Infallible,
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
    http::{HeaderValue, header::CONNECTION},
};
use futures_util::future::OptionFuture;
use hyper::{
    body::{Frame, Incoming, SizeHint},
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_io_timeout::TimeoutStream;

use super::{DRAIN_TIMEOUT, FLUSH_TIMEOUT, LINGER, Limits, Place, Room, Wish};

/// How old a connection must be to make room for another while it waits for a request.
const SETTLED: Duration = Duration::from_secs(1);

/// One client's connection, and its place among the others.
pub(super) struct Connection {
    activity: Arc<Activity>,
    limits: Limits,
    wish: watch::Receiver<Wish>,
    room: Arc<Room>,
    #[expect(
        dead_code,
        reason = "a place is held for as long as the connection lasts, and never read"
    )]
    place: Place,
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
    /// The next answer is the last.
    is_stopping: AtomicBool,
}

impl Connection {
    pub(super) fn new(
        limits: Limits,
        wish: watch::Receiver<Wish>,
        room: Arc<Room>,
        place: Place,
    ) -> Self {
        Self {
            activity: Arc::new(Activity::new()),
            limits,
            wish,
            room,
            place,
        }
    }

    /// Answers requests until the client has gone, has taken too long, or is asked to go.
    pub(super) async fn serve(
        mut self,
        http: http1::Builder,
        stream: TcpStream,
        service: TowerToHyperService<Router>,
    ) {
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.limits.write));
        let stream = WatchedStream {
            stream: Box::pin(stream),
            activity: Arc::clone(&self.activity),
        };
        let activity = Arc::clone(&self.activity);
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let active = activity.begin();
            let answer = service.call(Request::from(request.map(Body::new)));
            async move {
                let mut response = answer.await?;
                if active.0.is_stopping.load(Ordering::Relaxed) {
                    response
                        .headers_mut()
                        .insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response.map(|body| ActiveBody {
                    body,
                    _active: active,
                }))
            }
        });
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
        let mut first_head = pin!(sleep(self.limits.first_head));
        let mut is_past_first_head = false;
        let mut linger = pin!(None);
        loop {
            tokio::select! {
                biased;
                // First, so that what is answered after a stop says so.
                changed = self.wish.changed(), if linger.is_none() => {
                    // Without a server there is nothing to serve for.
                    let wish = changed.map_or(Wish::Stop, |()| *self.wish.borrow_and_update());
                    match wish {
                        Wish::Serve => {}
                        Wish::MakeRoom if !self.can_yield() || !self.room.take() => {}
                        Wish::MakeRoom if self.activity.is_idle() => break,
                        // It would take its time over finishing, too.
                        Wish::MakeRoom => return,
                        Wish::Stop => {
                            self.activity.is_stopping.store(true, Ordering::Relaxed);
                            linger.set(Some(sleep(LINGER)));
                        }
                    }
                }
                ended = connection.as_mut() => return log_end(ended),
                Some(()) = OptionFuture::from(linger.as_mut().as_pin_mut()) => break,
                () = &mut first_head, if !is_past_first_head => {
                    is_past_first_head = true;
                    if !self.activity.has_begun() {
                        return;
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
            && let Ok(ended) =
                timeout(DRAIN_TIMEOUT.saturating_sub(FLUSH_TIMEOUT), connection).await
        {
            log_end(ended);
        }
    }

    /// Whether its place may be given to another: it waits for a request, or has been busy for too long.
    fn can_yield(&self) -> bool {
        if self.activity.is_idle() {
            self.activity.age() >= SETTLED
        } else {
            self.activity.busy_for() >= self.limits.busy
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
            is_stopping: AtomicBool::new(false),
        }
    }

    fn begin(self: &Arc<Self>) -> Active {
        if self.is_idle() {
            let millis = u64::try_from(self.age().as_millis()).unwrap_or(u64::MAX);
            self.busy_since.store(millis, Ordering::Relaxed);
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
        self.age().saturating_sub(Duration::from_millis(
            self.busy_since.load(Ordering::Relaxed),
        ))
    }

    fn age(&self) -> Duration {
        self.opened.elapsed()
    }
}

/// A stream that notes whether the client takes what is written.
struct WatchedStream {
    stream: Pin<Box<TimeoutStream<TcpStream>>>,
    activity: Arc<Activity>,
}

impl WatchedStream {
    fn note<T>(&self, written: Poll<T>) -> Poll<T> {
        self.activity
            .is_blocked
            .store(written.is_pending(), Ordering::Relaxed);
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
