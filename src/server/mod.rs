//! Connections: accepting, limiting and closing them. `axum::serve` has none of these limits.
//!
//! A client has 10 seconds to send the head of its first request. A client that reads nothing of a
//! response for 30 seconds is disconnected. At the connection limit, idle connections are closed to
//! admit new ones, as are connections that have been busy for more than 30 seconds. During a
//! shutdown, clients have one second to send another request, and requests in flight have ten
//! seconds to finish.

mod connection;
mod limits;

use std::{io, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{rt::TokioTimer, service::TowerToHyperService};
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use self::connection::{CLOSE_TIMEOUT, DRAIN_GRACE, DRAIN_TIMEOUT};
pub use self::limits::{Connections, DEFAULT_MAX_CONNECTIONS, Limits};

/// The time limit for a request's head, including the idle time before it. Longer than the 60 seconds
/// after which common proxies close an idle connection.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(75);

/// The largest head of a request, in bytes: a token of 16 KiB, and 16 KiB for everything else. The
/// response to a larger head is 431.
const MAX_HEAD_BYTES: usize = 32 * 1024;

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
        .max_buf_size(MAX_HEAD_BYTES);
    let server = Server {
        http,
        service: TowerToHyperService::new(app),
        permits: Arc::new(Semaphore::new(limits.max_connections)),
        connections,
        limits,
    };
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            (stream, permit) = server.accept(&listener) => server.spawn(stream, permit),
            () = &mut shutdown => break,
        }
    }
    server.drain(listener).await;
}

impl Server {
    /// Accepts a connection and waits for its permit. Meanwhile, further connections wait in the
    /// listen backlog.
    async fn accept(&self, listener: &TcpListener) -> (TcpStream, OwnedSemaphorePermit) {
        let stream = loop {
            match listener.accept().await {
                Ok((stream, _)) => break stream,
                // The client closed the connection while it was in the backlog.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    // Most likely file descriptors are used up: closing connections helps.
                    tracing::warn!(%error, "cannot accept a connection");
                    self.connections.evict_one(&self.limits);
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        };
        loop {
            let permits = Arc::clone(&self.permits);
            if self.permits.available_permits() == 0 {
                self.connections.evict_one(&self.limits);
            }
            if let Ok(Ok(permit)) = timeout(EVICTION_INTERVAL, permits.acquire_owned()).await {
                return (stream, permit);
            }
        }
    }

    fn spawn(&self, stream: TcpStream, permit: OwnedSemaphorePermit) {
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

    /// Finishes the requests in flight, and those that clients send within [`DRAIN_GRACE`].
    async fn drain(self, listener: TcpListener) {
        tracing::info!("shutting down: draining connections");
        // Without open connections, only the listen backlog is served.
        let has_connections = self.connections.open() > 0;
        self.connections.drain();
        if has_connections {
            let _ = timeout(DRAIN_GRACE, self.accept_late(&listener)).await;
        }
        self.accept_backlog(listener);
        tracing::info!("stopped accepting connections");
        let all = u32::try_from(self.limits.max_connections).unwrap_or(u32::MAX);
        let limit = DRAIN_GRACE + DRAIN_TIMEOUT + CLOSE_TIMEOUT;
        if timeout(limit, self.permits.acquire_many(all))
            .await
            .is_err()
        {
            let seconds = limit.as_secs();
            tracing::warn!(seconds, "shutdown: some connections were still open");
        }
    }

    /// Serves clients that do not know about the shutdown yet.
    async fn accept_late(&self, listener: &TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => self.spawn_if_permitted(stream),
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    /// Serves the connections in the listen backlog, which closing the listener would reset.
    fn accept_backlog(&self, listener: TcpListener) {
        let Ok(listener) = listener.into_std() else {
            return;
        };
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(_) => break,
            };
            let stream = stream.set_nonblocking(true).map(|()| stream);
            if let Ok(stream) = stream.and_then(TcpStream::from_std) {
                self.spawn_if_permitted(stream);
            }
        }
    }

    fn spawn_if_permitted(&self, stream: TcpStream) {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            self.spawn(stream, permit);
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
