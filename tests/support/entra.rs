//! A mock Entra on loopback: keys documents, tokens on request, and a sign-in page.
//!
//! It counts the fetches of each tenant's keys and fails on demand.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{HeaderValue, StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tenant_tasks::clock::Clock;
use tokio::{net::TcpListener, sync::Semaphore};

use super::{
    sign_in,
    tokens::{SigningKey, Token},
    users::{TENANTS, Tenant, USERS, User},
};

/// A running mock Entra. A clone is another handle to the same server.
#[derive(Clone)]
pub struct MockEntra {
    /// Its base URL, the value for `AZURE_AUTHORITY_HOST`.
    pub authority: String,
    tenants: Arc<Mutex<HashMap<String, PublishedKeys>>>,
    all_fetches: Arc<AtomicUsize>,
    in_flight: Arc<AtomicUsize>,
    most_at_once: Arc<AtomicUsize>,
    absent_delay_millis: Arc<AtomicU64>,
    clock: Arc<dyn Clock>,
}

struct PublishedKeys {
    keys: Vec<Value>,
    response: KeysResponse,
    fetches: usize,
}

/// The response to requests for a tenant's keys document.
#[derive(Clone, Debug)]
pub enum KeysResponse {
    /// The published document.
    Published,
    /// This status, without a document.
    Status(u16),
    /// The published document, after a delay.
    Delay(Duration),
    /// The published document, but only after a test closes the semaphore.
    Held(Arc<Semaphore>),
    /// A redirect to the document of another tenant, which exists.
    RedirectTo(Tenant),
    /// These bytes instead of the document.
    Bytes(Vec<u8>),
    /// This status and these headers, with the document or with other bytes.
    Full {
        status: u16,
        headers: Vec<(&'static str, String)>,
        bytes: Option<Vec<u8>>,
    },
}

impl MockEntra {
    /// Serves on `listener` until the process or the test's runtime ends.
    pub fn start(listener: TcpListener, clock: Arc<dyn Clock>) -> Self {
        let address = listener.local_addr().expect("a bound listener");
        let tenants = TENANTS.map(|tenant| {
            let keys = vec![
                SigningKey::first().jwk(),
                SigningKey::second().named("retired").jwk(),
            ];
            (
                tenant.id.to_owned(),
                PublishedKeys {
                    keys,
                    response: KeysResponse::Published,
                    fetches: 0,
                },
            )
        });
        let entra = Self {
            authority: format!("http://{address}"),
            tenants: Arc::new(Mutex::new(tenants.into_iter().collect())),
            all_fetches: Arc::default(),
            in_flight: Arc::default(),
            most_at_once: Arc::default(),
            absent_delay_millis: Arc::default(),
            clock,
        };
        let app = Router::new()
            .route("/{tenant}/discovery/v2.0/keys", get(keys_document))
            .route("/token/{tenant}/{user}", get(token))
            .with_state(entra.clone())
            .merge(sign_in::router(entra.clone()));
        tokio::spawn(async move { axum::serve(listener, app).await });
        entra
    }

    /// Replaces the keys that the tenant publishes.
    pub fn publish(&self, tenant: Tenant, keys: &[Value]) {
        self.with_tenant(tenant.id, |tenant| tenant.keys = keys.to_vec());
    }

    /// Sets the response for the tenant's keys document.
    pub fn set_keys_response(&self, tenant: Tenant, response: KeysResponse) {
        self.with_tenant(tenant.id, |tenant| tenant.response = response);
    }

    /// The number of requests for the tenant's keys document.
    pub fn fetches(&self, tenant: Tenant) -> usize {
        self.with_tenant(tenant.id, |tenant| tenant.fetches)
            .unwrap_or_default()
    }

    /// The number of requests for any keys document, including those of unknown tenants.
    pub fn all_fetches(&self) -> usize {
        self.all_fetches.load(Ordering::SeqCst)
    }

    /// The highest number of concurrent requests for keys documents.
    pub fn most_at_once(&self) -> usize {
        self.most_at_once.load(Ordering::SeqCst)
    }

    /// Delays the error for unknown tenants.
    pub fn delay_absent_tenants(&self, millis: u64) {
        self.absent_delay_millis.store(millis, Ordering::SeqCst);
    }

    /// A valid version 1 token.
    pub fn v1(&self, tenant: Tenant, user: User) -> Token {
        Token::v1(tenant, user, self.now())
    }

    /// A valid version 2 token.
    pub fn v2(&self, tenant: Tenant, user: User) -> Token {
        Token::v2(tenant, user, &self.authority, self.now())
    }

    /// The current time, in seconds since the Unix epoch.
    pub fn now(&self) -> u64 {
        self.clock.since_epoch().as_secs()
    }

    fn with_tenant<T>(
        &self,
        tenant: &str,
        update: impl FnOnce(&mut PublishedKeys) -> T,
    ) -> Option<T> {
        self.tenants
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_mut(tenant)
            .map(update)
    }
}

async fn keys_document(State(entra): State<MockEntra>, Path(tenant): Path<String>) -> Response {
    entra.all_fetches.fetch_add(1, Ordering::SeqCst);
    let in_flight = entra.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
    entra.most_at_once.fetch_max(in_flight, Ordering::SeqCst);
    let answer = answer_keys(&entra, &tenant).await;
    entra.in_flight.fetch_sub(1, Ordering::SeqCst);
    answer
}

async fn answer_keys(entra: &MockEntra, tenant: &str) -> Response {
    let answer = entra.with_tenant(tenant, |tenant| {
        tenant.fetches += 1;
        (tenant.response.clone(), json!({ "keys": tenant.keys }))
    });
    match answer {
        Some((KeysResponse::Published, document)) => Json(document).into_response(),
        Some((KeysResponse::Status(status), _)) => StatusCode::from_u16(status)
            .expect("a valid status")
            .into_response(),
        Some((KeysResponse::Delay(delay), document)) => {
            tokio::time::sleep(delay).await;
            Json(document).into_response()
        }
        Some((KeysResponse::Held(closed), document)) => {
            // The semaphore has no permits: this returns an error when it is closed.
            let _ = closed.acquire().await;
            Json(document).into_response()
        }
        Some((KeysResponse::RedirectTo(other), _)) => {
            let location = format!("/{}/discovery/v2.0/keys", other.id);
            (StatusCode::FOUND, [(LOCATION, location)]).into_response()
        }
        Some((KeysResponse::Bytes(bytes), _)) => bytes.into_response(),
        Some((
            KeysResponse::Full {
                status,
                headers,
                bytes,
            },
            document,
        )) => {
            let bytes = bytes.unwrap_or_else(|| document.to_string().into_bytes());
            let mut response = bytes.into_response();
            *response.status_mut() = StatusCode::from_u16(status).expect("a valid status");
            for (name, value) in headers {
                let value = HeaderValue::try_from(value).expect("a valid header");
                response.headers_mut().insert(name, value);
            }
            response
        }
        None => {
            let delay = entra.absent_delay_millis.load(Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(delay)).await;
            let description = format!("AADSTS90002: Tenant '{tenant}' not found.");
            let body = json!({ "error": "invalid_tenant", "error_description": description });
            (StatusCode::BAD_REQUEST, Json(body)).into_response()
        }
    }
}

#[derive(Deserialize)]
struct TokenQuery {
    version: Option<String>,
}

async fn token(
    State(entra): State<MockEntra>,
    Path((tenant, user)): Path<(String, String)>,
    Query(query): Query<TokenQuery>,
) -> Response {
    let tenant = TENANTS.into_iter().find(|known| known.name == tenant);
    let user = USERS.into_iter().find(|known| known.name == user);
    let (Some(tenant), Some(user)) = (tenant, user) else {
        let names = |names: Vec<&str>| names.join(", ");
        let help = format!(
            "unknown user: request /token/{{tenant}}/{{user}} with a tenant of {} and a user of {}\n",
            names(TENANTS.iter().map(|known| known.name).collect()),
            names(USERS.iter().map(|known| known.name).collect()),
        );
        return (StatusCode::NOT_FOUND, help).into_response();
    };
    match query.version.as_deref() {
        None | Some("1") => entra.v1(tenant, user).sign().into_response(),
        Some("2") => entra.v2(tenant, user).sign().into_response(),
        Some(_) => (StatusCode::BAD_REQUEST, "version must be 1 or 2\n").into_response(),
    }
}
