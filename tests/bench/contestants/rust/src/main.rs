//! A contestant of tests/bench/run: axum with `tower-oauth2-resource-server`.
//!
//! The middleware picks the tenant by the token's issuer, keeps its keys, and verifies every token on every request.
//! Settings: `PORT`, `AUTHORITY`, `CLIENT_ID`, `ALLOWED_TENANT_IDS`.

use std::{
    collections::{BTreeMap, HashMap},
    env,
    error::Error,
    sync::{Arc, RwLock},
};

use axum::{
    Extension, Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, patch},
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tower_oauth2_resource_server::{
    server::OAuth2ResourceServer, tenant::TenantConfiguration, validation::ClaimsValidationSpec,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let guard = guard(
        &env::var("AUTHORITY")?,
        &env::var("CLIENT_ID")?,
        &env::var("ALLOWED_TENANT_IDS")?,
    )
    .await?;
    let app = Router::new()
        .route("/api/tasks", get(list).post(create))
        .route("/api/tasks/{id}", patch(update).delete(remove))
        .layer(guard.into_layer())
        .route("/health", get(async || Json(Status { status: "healthy" })))
        .with_state(Tenants::default());
    let listener = TcpListener::bind(("127.0.0.1", env::var("PORT")?.parse()?)).await?;
    Ok(axum::serve(listener, app).await?)
}

/// The middleware with each tenant's keys, issuer and audience.
async fn guard(
    authority: &str,
    client_id: &str,
    tenants: &str,
) -> Result<OAuth2ResourceServer<Claims>, Box<dyn Error>> {
    let audiences = vec![format!("api://{client_id}")];
    let mut server = OAuth2ResourceServer::builder();
    for tenant in tenants.split(',') {
        let issuer = format!("https://sts.windows.net/{tenant}/");
        let configuration = TenantConfiguration::builder(&issuer)
            .jwks_url(format!("{authority}/{tenant}/discovery/v2.0/keys"))
            .claims_validation(ClaimsValidationSpec::recommended(&issuer, &audiences))
            .build()
            .await?;
        server = server.add_tenant(configuration);
    }
    Ok(server.build().await?)
}

/// The verified caller.
#[derive(Clone, Deserialize)]
struct Claims {
    tid: String,
    oid: String,
    name: String,
    #[serde(default)]
    roles: Vec<String>,
}

impl Claims {
    fn is_admin(&self) -> bool {
        self.has_one_of(&["Admin"])
    }

    fn has_one_of(&self, accepted: &[&str]) -> bool {
        self.roles
            .iter()
            .any(|role| accepted.contains(&role.as_str()))
    }

    /// Rejects users without any of these roles.
    fn only(&self, accepted: &[&str]) -> Result<(), Refusal> {
        if self.has_one_of(accepted) {
            Ok(())
        } else {
            Err(refusal(StatusCode::FORBIDDEN, "A role is missing"))
        }
    }
}

/// Tenant, then user, then task id.
#[derive(Clone, Default)]
struct Tenants(Arc<RwLock<HashMap<String, Tenant>>>);

#[derive(Default)]
struct Tenant {
    last_id: u64,
    users: HashMap<String, BTreeMap<u64, Task>>,
}

#[derive(Clone, Serialize)]
struct Task {
    id: u64,
    title: String,
    completed: bool,
    owner_name: String,
    tenant_id: String,
}

/// A task in an Admin's list.
#[derive(Serialize)]
struct OwnedTask<'a> {
    #[serde(flatten)]
    task: &'a Task,
    owner_id: &'a str,
}

#[derive(Deserialize)]
struct NewTask {
    title: String,
}

#[derive(Deserialize)]
struct TaskUpdate {
    title: Option<String>,
    completed: Option<bool>,
}

#[derive(Serialize)]
struct Status {
    status: &'static str,
}

type Refusal = (StatusCode, Json<Detail>);

#[derive(Serialize)]
struct Detail {
    detail: &'static str,
}

fn refusal(status: StatusCode, detail: &'static str) -> Refusal {
    (status, Json(Detail { detail }))
}

async fn list(
    Extension(claims): Extension<Claims>,
    State(tenants): State<Tenants>,
) -> Result<Response, Refusal> {
    claims.only(&["Admin", "Editor", "Reader"])?;
    let tenants = tenants.0.read().expect("no handler panics");
    let users = tenants.get(&claims.tid).map(|tenant| &tenant.users);
    if claims.is_admin() {
        let everybodys = users.into_iter().flatten().flat_map(|(owner_id, tasks)| {
            tasks.values().map(move |task| OwnedTask { task, owner_id })
        });
        return Ok(Json(everybodys.collect::<Vec<_>>()).into_response());
    }
    let own = users.and_then(|users| users.get(&claims.oid));
    Ok(Json(
        own.into_iter()
            .flat_map(BTreeMap::values)
            .collect::<Vec<_>>(),
    )
    .into_response())
}

async fn create(
    Extension(claims): Extension<Claims>,
    State(tenants): State<Tenants>,
    Json(NewTask { title }): Json<NewTask>,
) -> Result<Json<Task>, Refusal> {
    claims.only(&["Admin", "Editor"])?;
    let mut tenants = tenants.0.write().expect("no handler panics");
    let tenant = tenants.entry(claims.tid.clone()).or_default();
    tenant.last_id += 1;
    let task = Task {
        id: tenant.last_id,
        title,
        completed: false,
        owner_name: claims.name,
        tenant_id: claims.tid,
    };
    tenant
        .users
        .entry(claims.oid)
        .or_default()
        .insert(task.id, task.clone());
    Ok(Json(task))
}

async fn update(
    Extension(claims): Extension<Claims>,
    State(tenants): State<Tenants>,
    Path(id): Path<u64>,
    Json(update): Json<TaskUpdate>,
) -> Result<Json<Task>, Refusal> {
    claims.only(&["Admin", "Editor"])?;
    let mut tenants = tenants.0.write().expect("no handler panics");
    let users = tenants
        .entry(claims.tid.clone())
        .or_default()
        .users
        .iter_mut();
    let task = users
        .filter(|(user, _)| claims.is_admin() || **user == claims.oid)
        .find_map(|(_, tasks)| tasks.get_mut(&id))
        .ok_or_else(|| refusal(StatusCode::NOT_FOUND, "Task not found"))?;
    task.title = update.title.unwrap_or_else(|| task.title.clone());
    task.completed = update.completed.unwrap_or(task.completed);
    Ok(Json(task.clone()))
}

async fn remove(
    Extension(claims): Extension<Claims>,
    State(tenants): State<Tenants>,
    Path(id): Path<u64>,
) -> Result<Json<Status>, Refusal> {
    claims.only(&["Admin"])?;
    let mut tenants = tenants.0.write().expect("no handler panics");
    for tasks in tenants.entry(claims.tid).or_default().users.values_mut() {
        tasks.remove(&id);
    }
    Ok(Json(Status { status: "deleted" }))
}
