//! One connection, from its first byte to its last.

use std::{
    convert::Infallible,
    future::{self, poll_fn},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderValue, header::CONNECTION},
};
use http_body_util::BodyExt;
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy, sink},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_io_timeout::TimeoutStream;

use super::{
    events::CloseReason,
    limits::{ConnectionPermit, Limits, Phase},
};

/// How long clients may still send a request on an open connection after a shutdown starts: closing
/// it at once would fail a request on its way. The response announces that the connection closes.
pub(super) const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// How long an idle connection that must close may take to finish a request whose head has begun to
/// arrive.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(200);

/// How long to read from a client that is still sending a rejected request. If the connection was
/// closed at once, the client's system would discard the response (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(2);

/// Serves requests until the client disconnects or exceeds a limit, or the connection must close.
pub(super) async fn serve(
    permit: ConnectionPermit,
    stream: TcpStream,
    limits: Limits,
    http: http1::Builder,
    service: TowerToHyperService<Router>,
) {
    // Most responses are one small write, which Nagle's algorithm would only delay.
    let _ = stream.set_nodelay(true);
    let mut stream = Box::pin(TimeoutStream::new(stream));
    stream.as_mut().set_write_timeout_pinned(Some(limits.write));
    let (state, connections) = (&permit.state, &permit.connections);
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let mut in_flight = state.start_request();
        let response = service.call(Request::from(request.map(Body::new)));
        Box::pin(async move {
            let mut response = response.await?;
            in_flight.respond(response.status().is_client_error());
            if *connections.is_draining.borrow() {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            // The body owns the guard: the request is in flight until the body is dropped.
            Ok::<_, Infallible>(response.map(|body| {
                body.map_err(move |error| {
                    let _guard = &in_flight;
                    error
                })
            }))
        })
    });
    let mut connection = http.serve_connection(TokioIo::new(stream), service);
    let result = tokio::select! {
        biased;
        // First, so that an evicted connection does not start another request.
        limit = must_close(&permit, &limits) => {
            if let Some(limit) = limit {
                connections.closed.record(limit);
            }
            let is_evicted = matches!(limit, Some(CloseReason::ConnectionLimit));
            let Some(grace) = grace(state.phase(), is_evicted, &limits) else {
                return;
            };
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            let finished = poll_fn(|cx| connection.poll_without_shutdown(cx));
            match timeout(grace, finished).await {
                Ok(result) => result,
                Err(_) => return,
            }
        }
        result = poll_fn(|cx| connection.poll_without_shutdown(cx)) => result,
    };
    let parts = connection.into_parts();
    let mut is_rejected = state.phase().0 == Phase::Rejected;
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended early");
        is_rejected |= connections.rejected.record(&error, &parts.read_buf);
        connections.closed.record_error(&error);
    }
    if is_rejected {
        tokio::select! {
            () = linger(parts.io.into_inner()) => {}
            () = state.evicted.notified() => {}
        }
    }
}

/// How long a connection that must close may take for the request in flight, or for one that has begun
/// to arrive. `None` if it must close at once.
fn grace((phase, age): (Phase, Duration), is_evicted: bool, limits: &Limits) -> Option<Duration> {
    match phase {
        Phase::New => None,
        Phase::FirstResponse | Phase::Rejected if is_evicted => None,
        Phase::Busy if is_evicted && age >= limits.busy => None,
        Phase::Rejected | Phase::Idle => Some(CLOSE_TIMEOUT),
        Phase::FirstResponse | Phase::Busy => Some(limits.busy),
    }
}

/// Completes when the connection must close: with the limit that closes it, or with `None`
/// [`DRAIN_GRACE`] after a shutdown has started.
async fn must_close(permit: &ConnectionPermit, limits: &Limits) -> Option<CloseReason> {
    let drained = async {
        // An error would mean that the sender was dropped, and the permit holds it.
        let _ = permit
            .connections
            .is_draining
            .subscribe()
            .wait_for(|&is| is)
            .await;
        sleep(DRAIN_GRACE).await;
    };
    let first_head_is_late = async {
        sleep(limits.first_head).await;
        if permit.state.phase().0 != Phase::New {
            future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = permit.state.evicted.notified() => Some(CloseReason::ConnectionLimit),
        () = drained => None,
        () = first_head_is_late => Some(CloseReason::LateHead),
    }
}

/// Closes the sending side, and discards what the client sends until it closes its side.
async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let _ = stream.shutdown().await;
    let _ = timeout(LINGER, copy(&mut stream, &mut sink())).await;
}
