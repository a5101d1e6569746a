//! Every path and every layer.
//!
//! The handler's signature says who may call a route.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRef, Request},
    http::{
        HeaderName, HeaderValue, Uri, Version,
        header::{
            CACHE_CONTROL, HOST, LINK, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
        },
    },
    middleware::{self, Next},
    response::{Redirect, Response},
    routing::{any, get},
};
use tower_http::{
    cors::{AllowHeaders, AllowOrigin, CorsLayer},
    set_header::SetResponseHeaderLayer,
};

use crate::{
    auth::Verifier,
    error::ApiError,
    health::{health, ready},
    me::me,
    openapi::{self, Docs},
    tasks::{
        handlers,
        request::MAX_BODY_BYTES,
        response::{Replayed, TaskQuota},
        store::Tasks,
    },
    telemetry::request::{REQUEST_ID, RequestMetrics, observe},
};

/// The time limit of a request, from the end of its head to its response. Clients may send a request
/// until one second after a shutdown has started, and it still gets its response within
/// [`SHUTDOWN_TIMEOUT`](crate::server::SHUTDOWN_TIMEOUT).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(7);

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
        .merge(without_trailing_slash())
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
        .layer(middleware::from_fn(require_host))
        .layer(cors(allowed_origins))
        // Responses contain data of one user, and no cache may keep them.
        .layer(unless_present(CACHE_CONTROL, "no-store"))
        .layer(unless_present(X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(middleware::from_fn_with_state(metrics, observe))
}

fn cors(allowed_origins: &[HeaderValue]) -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(allowed_origins.iter().cloned()))
        .allow_credentials(true)
        .allow_methods(openapi::methods())
        // Telemetry in browsers adds headers of its own. Without them, every call would fail.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([
            WWW_AUTHENTICATE,
            LINK,
            RETRY_AFTER,
            REQUEST_ID,
            TaskQuota::NAME,
            Replayed::NAME,
        ])
        .max_age(PREFLIGHT_MAX_AGE)
}

fn unless_present(name: HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
}

/// Redirects `/api/tasks/` to `/api/tasks`, and so for every path of the API. The redirect is
/// relative, because a proxy may have removed a path prefix.
fn without_trailing_slash<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let redirect = async |uri: Uri| {
        let path = uri.path().trim_end_matches('/');
        let up = "../".repeat(uri.path().len() - path.len());
        let (_, last) = path.rsplit_once('/').unwrap_or_default();
        let query = uri.query().map(|query| format!("?{query}"));
        Redirect::temporary(&format!("{up}{last}{}", query.unwrap_or_default()))
    };
    let paths = openapi::paths().into_iter();
    paths.fold(Router::new(), |router, path| {
        router.route(&format!("{path}/"), any(redirect))
    })
}

/// Rejects a request without exactly one `Host` (RFC 9112, section 3.2): two parties could read
/// different ones. HTTP/1.0 does not require it.
async fn require_host(request: Request, next: Next) -> Result<Response, ApiError> {
    let hosts = request.headers().get_all(HOST).iter().count();
    if hosts == 1 || (hosts == 0 && request.version() == Version::HTTP_10) {
        Ok(next.run(request).await)
    } else {
        Err(ApiError::Host)
    }
}

async fn limit_time(request: Request, next: Next) -> Result<Response, ApiError> {
    let response = tokio::time::timeout(REQUEST_TIMEOUT, next.run(request));
    response.await.map_err(|_| ApiError::Timeout)
}
