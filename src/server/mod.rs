//! Connections: accepting, limiting and closing them. `axum::serve` has none of these limits.
//!
//! A client has 10 seconds to send the head of its first request. A client that reads nothing of a
//! response for 30 seconds is disconnected. At the connection limit, a connection is closed to admit
//! a new one: one that has not completed a request, else one whose last request was rejected, else
//! an idle one, else one that has been busy for more than 30 seconds. During a shutdown, clients have
//! one second to send another request. A shutdown takes at most [`SHUTDOWN_TIMEOUT`].

mod connection;
mod events;
mod limits;

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use futures_util::future::OptionFuture;
use hyper::server::conn::http1;
use hyper_util::{rt::TokioTimer, service::TowerToHyperService};
#[cfg(target_os = "linux")]
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream, lookup_host},
    signal::unix::{SignalKind, signal},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout, timeout_at},
};

use self::connection::DRAIN_GRACE;
pub use self::limits::{Connections, DEFAULT_MAX_CONNECTIONS, Limits};

/// How long a shutdown takes at most. `docker stop` ends a process after 10 seconds.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(8500);

/// The time limit for a request's head, including the idle time before it. Longer than the 60 seconds
/// after which common proxies close an idle connection.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(75);

/// The largest head of a request, in bytes: a token of 16 KiB, and 16 KiB for everything else. The
/// response to a larger head, or to one with more than 100 header lines, is 431.
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// The number of connections that the system accepts before [`serve`] does. The system may have a
/// lower limit. A client that exceeds the limit waits for a second before it tries again.
const BACKLOG: u32 = 4096;

/// The most bytes of a response that the system accepts before the client can receive them.
#[cfg(target_os = "linux")]
const MAX_UNSENT_BYTES: u32 = 16 * 1024;

/// The file descriptors reserved for other uses: listeners, key fetches, the database, `.env`.
const OTHER_FILES: usize = 64;

/// How long to wait for an evicted connection to close before another one is evicted.
const EVICTION_INTERVAL: Duration = Duration::from_millis(20);

/// How long to wait after a failed `accept`, usually because file descriptors are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections and serves them.
struct Server {
    http: http1::Builder,
    service: TowerToHyperService<Router>,
    limits: Limits,
    permits: Arc<Semaphore>,
    connections: Arc<Connections>,
    /// An accepted connection that waits for a permit. Meanwhile, others wait in the backlog.
    waiting: Option<TcpStream>,
}

/// Listens on the first address of `host` that is available.
pub async fn listen(host: &str, port: u16) -> io::Result<TcpListener> {
    let mut result = Err(io::Error::other("the host name has no address"));
    for address in lookup_host((host, port)).await? {
        result = listen_on(address);
        if result.is_ok() {
            break;
        }
    }
    result
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A restarted service can listen at once.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Limits what the system buffers of a response beyond what the client can receive, so that a
/// request is in flight until its client has read it. Accepted connections inherit the limit.
fn limit_unsent_bytes(listener: &TcpListener) {
    #[cfg(target_os = "linux")]
    if let Err(error) = SockRef::from(listener).set_tcp_notsent_lowat(MAX_UNSENT_BYTES) {
        tracing::debug!(%error, "cannot limit unsent bytes");
    }
}

/// Serves `app` within `limits` until `shutdown` completes, then finishes the requests in flight.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    mut limits: Limits,
    connections: Arc<Connections>,
    shutdown: impl Future<Output = ()>,
) {
    limits.max_connections = limits.max_connections.min(Semaphore::MAX_PERMITS);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_HEAD_BYTES)
        // A client that has sent its request may close its sending side.
        .half_close(true);
    let mut server = Server {
        http,
        service: TowerToHyperService::new(app),
        permits: Arc::new(Semaphore::new(limits.max_connections)),
        connections,
        limits,
        waiting: None,
    };
    limit_unsent_bytes(&listener);
    server.accept_until(&listener, shutdown).await;
    let deadline = Instant::now() + SHUTDOWN_TIMEOUT;
    server.connections.is_draining.send_replace(true);
    tracing::info!("shutting down: draining connections");
    // Clients that do not know about the shutdown yet are served.
    server.accept_until(&listener, sleep(DRAIN_GRACE)).await;
    server.accept_backlog(listener);
    tracing::info!("stopped accepting connections");
    let all = u32::try_from(server.limits.max_connections).unwrap_or(u32::MAX);
    let all_closed = server.permits.acquire_many(all);
    if timeout_at(deadline, all_closed).await.is_err() {
        let open = server.connections.open();
        tracing::warn!(open, "shutdown: some connections were still open");
    }
}

impl Server {
    async fn accept_until(&mut self, listener: &TcpListener, end: impl Future<Output = ()>) {
        let mut end = pin!(end);
        loop {
            let permit = OptionFuture::from(self.waiting.is_some().then(|| self.permit()));
            tokio::select! {
                biased;
                Some(permit) = permit => self.spawn_waiting(permit),
                accepted = listener.accept(), if self.waiting.is_none() => match accepted {
                    Ok((stream, _)) => self.waiting = Some(stream),
                    // The client closed the connection while it was in the backlog.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) => {
                        // Most likely file descriptors are used up: closing connections helps.
                        tracing::warn!(%error, "cannot accept a connection");
                        self.connections.evict_one(&self.limits);
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                () = &mut end => return,
            }
        }
    }

    /// Waits for a permit. Evicts connections until there is one.
    async fn permit(&self) -> OwnedSemaphorePermit {
        loop {
            if self.permits.available_permits() == 0 {
                self.connections.evict_one(&self.limits);
            }
            let permit = Arc::clone(&self.permits).acquire_owned();
            if let Ok(Ok(permit)) = timeout(EVICTION_INTERVAL, permit).await {
                return permit;
            }
        }
    }

    fn spawn_waiting(&mut self, permit: OwnedSemaphorePermit) {
        let Some(stream) = self.waiting.take() else {
            return;
        };
        let permit = self.connections.add(permit);
        let (http, service) = (self.http.clone(), self.service.clone());
        tokio::spawn(connection::serve(
            permit,
            stream,
            self.limits,
            http,
            service,
        ));
    }

    /// Serves the connections in the listen backlog, which closing the listener would reset.
    fn accept_backlog(&mut self, listener: TcpListener) {
        let Ok(listener) = listener.into_std() else {
            return;
        };
        while let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            if self.waiting.is_none() {
                let Ok((stream, _)) = listener.accept() else {
                    return;
                };
                let stream = stream.set_nonblocking(true).map(|()| stream);
                self.waiting = stream.and_then(TcpStream::from_std).ok();
            }
            self.spawn_waiting(permit);
        }
    }
}

/// Completes when the process is asked to stop: SIGTERM or SIGINT (Ctrl-C).
pub fn shutdown_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// The number of connections that the limit on open files allows, at most `wanted`. If needed,
/// raises the process's limit as far as the system permits.
pub fn connections_for_open_files(wanted: usize) -> usize {
    let files = u64::try_from(wanted.saturating_add(OTHER_FILES)).unwrap_or(u64::MAX);
    let Ok(files) = rlimit::increase_nofile_limit(files) else {
        return wanted;
    };
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    let allowed = files.saturating_sub(OTHER_FILES).max(1);
    if allowed < wanted {
        tracing::warn!(
            wanted,
            allowed,
            "MAX_CONNECTIONS exceeds the limit on open files"
        );
    }
    wanted.min(allowed)
}
