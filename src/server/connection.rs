//! One connection, from its first byte to its last.

use std::{convert::Infallible, pin::pin, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderValue, header::CONNECTION},
};
use futures_util::future::OptionFuture;
use http_body_util::BodyExt;
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_io_timeout::TimeoutStream;

use super::limits::{ConnectionPermit, Limits};

/// How long clients may still send a request on an open connection after a shutdown starts: closing
/// it at once would fail a request on its way. The response announces that the connection closes.
pub(super) const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// How long requests in flight may take after [`DRAIN_GRACE`].
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long closing an idle connection may take. In this time, the client can complete a request
/// head that has begun to arrive, or read the last bytes of a response.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

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
    let state = &permit.state;
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let in_flight = state.start_request();
        let permit = &permit;
        let response = service.call(Request::from(request.map(Body::new)));
        async move {
            let mut response = response.await?;
            if permit.is_draining() {
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
        }
    });
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let mut first_head = pin!(sleep(limits.first_head));
    let mut is_past_first_head = false;
    let mut grace = pin!(None);
    loop {
        tokio::select! {
            biased;
            // First, so that an evicted connection does not start another request.
            () = state.signal.notified(), if grace.is_none() => {
                if !state.is_evicted() {
                    grace.set(Some(sleep(DRAIN_GRACE)));
                } else if state.has_request() && (state.is_idle() || state.waiting() < limits.busy) {
                    // A request may have started since the eviction: it is answered.
                    break;
                } else {
                    // Not gracefully: a slow client would be slow to finish, too.
                    return;
                }
            }
            result = connection.as_mut() => return log_error(result),
            Some(()) = OptionFuture::from(grace.as_mut().as_pin_mut()) => break,
            () = &mut first_head, if !is_past_first_head => {
                is_past_first_head = true;
                if !state.has_request() {
                    return;
                }
            }
        }
    }
    connection.as_mut().graceful_shutdown();
    if let Ok(result) = timeout(CLOSE_TIMEOUT, connection.as_mut()).await {
        return log_error(result);
    }
    let remaining = DRAIN_TIMEOUT.saturating_sub(CLOSE_TIMEOUT);
    if !state.is_idle()
        && let Ok(result) = timeout(remaining, connection).await
    {
        log_error(result);
    }
}

fn log_error(result: hyper::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended early");
    }
}
