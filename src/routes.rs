//! Every path, every layer and limit a request passes on its way to a handler, and the three
//! handlers that touch no task.
//!
//! Who may call a route is in its handler's signature.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, FromRef, Request, State},
    http::{
        HeaderValue, Method,
        header::{AUTHORIZATION, CONTENT_TYPE, LINK, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, patch},
};
use serde::Serialize;
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa::ToSchema;

use crate::{
    auth::{Principal, Verifier},
    error::ApiError,
    ids::{TenantId, UserId},
    openapi::{self, Docs, Refused, StoreRefused},
    tasks::{handlers, request::MAX_BODY_BYTES, store::Tasks},
    telemetry::{
        request::{REQUEST_ID, RequestMetrics, observe},
        trace_context::{TRACEPARENT, TRACESTATE},
    },
};

/// How long a request may take from its last header to its answer. A second less than a stop
/// waits for requests in flight, so that each of them gets one.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(9);

/// How long a browser may remember a preflight answer. Chromium's own limit.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_hours(2);

/// What handlers and extractors draw on.
#[derive(Clone)]
pub struct AppState {
    /// Proves callers.
    pub verifier: Arc<Verifier>,
    /// Keeps tasks.
    pub tasks: Tasks,
}

/// The whole service, for single-page apps served from `allowed_origins`, with its description unless `docs` is
/// `None`, counting requests unless `metrics` is.
pub fn router(
    state: AppState,
    allowed_origins: &[HeaderValue],
    docs: Option<&Docs>,
    metrics: Option<RequestMetrics>,
) -> Router {
    let routes = Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/api/me", get(me))
        .route("/api/tasks", get(handlers::list).post(handlers::create))
        .route(
            "/api/tasks/{id}",
            patch(handlers::update).delete(handlers::remove),
        )
        // `/openapi.json`, and `/docs` with what that page is made of.
        .merge(docs.map(openapi::router).unwrap_or_default())
        .fallback(async || ApiError::RouteNotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .with_state(state);
    layered(routes, allowed_origins, metrics)
}

/// What every request passes, whatever its route; apart from the routes, so that a benchmark can
/// tell the cost of one from the other's.
pub fn layered(
    routes: Router,
    allowed_origins: &[HeaderValue],
    metrics: Option<RequestMetrics>,
) -> Router {
    routes
        // The first layer is the innermost: a refused preflight is logged too.
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn(limit_time))
        .layer(cors(allowed_origins))
        .layer(middleware::from_fn_with_state(metrics, observe))
}

/// Whether the process is alive; says nothing of what it depends on.
#[utoipa::path(get, path = "/health", responses((status = 200, description = "It is", body = Health)))]
pub(crate) async fn health() -> Json<Health> {
    Json(Health { status: "healthy" })
}

/// Whether requests can be served, or what is missing.
#[utoipa::path(
    get,
    path = "/ready",
    responses((status = 200, description = "They can", body = Health), StoreRefused),
)]
pub(crate) async fn ready(
    State(verifier): State<Arc<Verifier>>,
    State(tasks): State<Tasks>,
) -> Result<Json<Health>, ApiError> {
    verifier.readiness()?;
    tasks.readiness().await?;
    Ok(Json(Health { status: "ready" }))
}

/// Who the service takes the caller for.
#[utoipa::path(
    get,
    path = "/api/me",
    responses((status = 200, description = "The caller", body = Me), Refused, StoreRefused),
)]
pub(crate) async fn me(principal: Principal) -> Response {
    Json(Me {
        id: principal.owner().user,
        name: principal.name(),
        email: principal.email(),
        tenant_id: principal.tenant(),
        roles: principal.roles(),
        scopes: principal.scopes(),
    })
    .into_response()
}

/// The verified caller.
#[derive(Serialize, ToSchema)]
pub(crate) struct Me<'a> {
    /// The `oid` claim.
    id: UserId,
    name: &'a str,
    /// The sign-in name, which need not be an email address; empty if the token has none.
    email: &'a str,
    tenant_id: TenantId,
    roles: &'a [String],
    /// The `scp` claim: scopes, separated by spaces.
    scopes: &'a str,
}

/// That all is well.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    status: &'static str,
}

fn cors(allowed_origins: &[HeaderValue]) -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(allowed_origins.iter().cloned()))
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE, TRACEPARENT, TRACESTATE])
        .expose_headers([WWW_AUTHENTICATE, LINK, RETRY_AFTER, REQUEST_ID])
        .max_age(PREFLIGHT_MAX_AGE)
}

async fn limit_time(request: Request, next: Next) -> Result<Response, ApiError> {
    tokio::time::timeout(REQUEST_TIMEOUT, next.run(request))
        .await
        .map_err(|_| ApiError::Timeout)
}

impl FromRef<AppState> for Arc<Verifier> {
    fn from_ref(state: &AppState) -> Self {
        Self::clone(&state.verifier)
    }
}

impl FromRef<AppState> for Tasks {
    fn from_ref(state: &AppState) -> Self {
        state.tasks.clone()
    }
}
