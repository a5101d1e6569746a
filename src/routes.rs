//! Every path and every layer.
//!
//! The handler's signature says who may call a route.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRef, Request},
    http::{
        HeaderValue,
        header::{LINK, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    middleware::{self, Next},
    response::Response,
    routing::get,
};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::{
    auth::Verifier,
    error::ApiError,
    health::{health, ready},
    me::me,
    openapi::{self, Docs},
    tasks::{handlers, request::MAX_BODY_BYTES, store::Tasks},
    telemetry::request::{REQUEST_ID, RequestMetrics, observe},
};

/// The time limit of a request, from the end of its head to its response. One second less than a
/// shutdown waits for requests in flight, so that each of them gets a response.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(9);

/// How long a browser may cache a preflight response. Chromium's maximum.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_hours(2);

/// The state of handlers and extractors.
#[derive(Clone, FromRef)]
pub struct AppState {
    /// Verifies tokens.
    pub verifier: Arc<Verifier>,
    /// Stores tasks.
    pub tasks: Tasks,
}

/// The API, for single-page apps from `allowed_origins`. Without `docs`, it has no description.
pub fn router(
    state: AppState,
    allowed_origins: &[HeaderValue],
    docs: Option<&Docs>,
    metrics: RequestMetrics,
) -> Router {
    let routes = Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/api/me", get(me))
        .route("/api/tasks", get(handlers::list).post(handlers::create))
        .route(
            "/api/tasks/{id}",
            get(handlers::get)
                .patch(handlers::update)
                .delete(handlers::remove),
        )
        // `/openapi.json`, and `/docs` with its assets.
        .merge(docs.map(openapi::router).unwrap_or_default())
        .fallback(async || ApiError::RouteNotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .with_state(state);
    layered(routes, allowed_origins, metrics)
}

/// Adds the layers to routes. Public, so that a benchmark can measure the layers without the
/// handlers.
pub fn layered(routes: Router, allowed_origins: &[HeaderValue], metrics: RequestMetrics) -> Router {
    routes
        // The last layer is the outermost one, so that a rejected preflight is logged too.
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn(limit_time))
        .layer(cors(allowed_origins))
        .layer(middleware::from_fn_with_state(metrics, observe))
}

fn cors(allowed_origins: &[HeaderValue]) -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(allowed_origins.iter().cloned()))
        .allow_credentials(true)
        .allow_methods(openapi::methods())
        // Telemetry in browsers adds headers of its own. Without them, every call would fail.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([WWW_AUTHENTICATE, LINK, RETRY_AFTER, REQUEST_ID])
        .max_age(PREFLIGHT_MAX_AGE)
}

async fn limit_time(request: Request, next: Next) -> Result<Response, ApiError> {
    let response = tokio::time::timeout(REQUEST_TIMEOUT, next.run(request));
    response.await.map_err(|_| ApiError::Timeout)
}
