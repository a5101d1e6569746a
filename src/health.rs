//! The probes `/health` and `/ready`, for supervisors and load balancers.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    auth::Verifier,
    error::{ApiError, responses::Unavailable},
    tasks::store::Tasks,
};

/// The response of a service that works.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    status: &'static str,
}

/// Whether the process is running. Checks no dependencies.
#[utoipa::path(
    get,
    operation_id = "getHealth",
    path = "/health",
    responses((status = 200, description = "The process is running", body = Health)),
)]
pub(crate) async fn health() -> Json<Health> {
    Json(Health { status: "healthy" })
}

/// Whether the service can handle requests, or what is missing.
#[utoipa::path(
    get,
    operation_id = "getReadiness",
    path = "/ready",
    responses(
        (status = 200, description = "The service is ready to handle requests", body = Health),
        Unavailable,
    ),
)]
pub(crate) async fn ready(
    State(verifier): State<Arc<Verifier>>,
    State(tasks): State<Tasks>,
) -> Result<Json<Health>, ApiError> {
    verifier.readiness()?;
    tasks.readiness().await?;
    Ok(Json(Health { status: "ready" }))
}
