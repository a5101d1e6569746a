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

/// How long clients may still send a request on an open connection after the shutdown starts. If it
/// were closed at once, a request on its way would fail. Its response asks the client to reconnect.
pub(super) const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// How long requests in flight may take after that.
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an idle connection may take to close: to send a head that has begun to arrive, or to read
/// the last bytes of a response.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves requests until the client disconnects, exceeds a limit, or has to close.
pub(super) async fn serve(
    permit: ConnectionPermit,
    stream: TcpStream,
    limits: Limits,
    http: http1::Builder,
    service: TowerToHyperService<Router>,
) {
    // Responses are small and written at once. Nagle's algorithm would only delay them.
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
            // The body owns the guard: the request ends with it.
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
            // First, so that a response after the start of a shutdown closes the connection.
            () = state.signal.notified(), if grace.is_none() => {
                if !state.is_evicted() {
                    grace.set(Some(sleep(DRAIN_GRACE)));
                } else if state.has_request() && state.is_idle() {
                    break;
                } else {
                    // A slow client would be slow to finish, too.
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
