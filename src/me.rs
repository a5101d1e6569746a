//! `/api/me`: the verified caller.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    auth::{Principal, Verifier},
    error::{
        ApiError,
        responses::{Auth, Unavailable},
    },
    ids::{TenantId, UserId},
};

/// The verified caller.
#[derive(Serialize, ToSchema)]
pub(crate) struct Me {
    /// The `oid` claim.
    id: UserId,
    name: String,
    /// The sign-in name, which need not be an email address. Empty if the token has none.
    email: String,
    tenant_id: TenantId,
    /// The organization's name. Missing if the operator has not recorded one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    tenant_name: Option<String>,
    roles: Vec<String>,
    /// The `scp` claim: scopes separated by spaces.
    scopes: String,
}

/// Returns the verified caller.
#[utoipa::path(
    get,
    operation_id = "getMe",
    path = "/api/me",
    responses((status = 200, description = "The caller", body = Me), Auth, Unavailable),
)]
pub(crate) async fn me(
    principal: Principal,
    State(verifier): State<Arc<Verifier>>,
) -> Result<Json<Me>, ApiError> {
    Ok(Json(Me {
        id: principal.owner().user,
        name: principal.name().to_owned(),
        email: principal.email().to_owned(),
        tenant_id: principal.tenant(),
        tenant_name: verifier.profile(principal.tenant()).name,
        roles: principal.roles().to_vec(),
        scopes: principal.scopes().to_owned(),
    }))
}
