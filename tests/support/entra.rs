//! A stand-in for Entra on loopback: keys documents, tokens for the asking, and a page to sign in.
//!
//! It counts how often each tenant's keys were fetched, and fails on demand.

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
    http::{StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tenant_tasks::clock::Clock;
use tokio::net::TcpListener;

use super::{
    people::{ORGANISATIONS, Organisation, PEOPLE, Person},
    sign_in,
    tokens::{SigningKey, Token},
};

/// A running stand-in; cloning gives another handle to it.
#[derive(Clone)]
pub struct MockEntra {
    /// Its base URL: what `AZURE_AUTHORITY_HOST` is set to.
    pub authority: String,
    tenants: Arc<Mutex<HashMap<String, Tenant>>>,
    all_fetches: Arc<AtomicUsize>,
    under_way: Arc<AtomicUsize>,
    most_at_once: Arc<AtomicUsize>,
    absent_delay_millis: Arc<AtomicU64>,
    clock: Arc<dyn Clock>,
}

struct Tenant {
    keys: Vec<Value>,
    behaviour: Behaviour,
    fetches: usize,
}

/// How a tenant's keys document is answered.
#[derive(Clone, Debug)]
pub enum Behaviour {
    /// As it should be.
    Serve,
    /// With this status and no document.
    Fail(u16),
    /// As it should be, after a while.
    Delay(Duration),
    /// With a redirect to another tenant's document, which is there.
    RedirectTo(Organisation),
    /// With these bytes in place of the document.
    Bytes(Vec<u8>),
}

impl MockEntra {
    /// Serves on `listener` until the process or the test's runtime ends.
    pub fn start(listener: TcpListener, clock: Arc<dyn Clock>) -> Self {
        let address = listener.local_addr().expect("a bound listener");
        let tenants = ORGANISATIONS.map(|organisation| {
            let keys = vec![
                SigningKey::first().jwk(),
                SigningKey::second().named("retired").jwk(),
            ];
            (
                organisation.tenant.to_owned(),
                Tenant {
                    keys,
                    behaviour: Behaviour::Serve,
                    fetches: 0,
                },
            )
        });
        let entra = Self {
            authority: format!("http://{address}"),
            tenants: Arc::new(Mutex::new(tenants.into_iter().collect())),
            all_fetches: Arc::default(),
            under_way: Arc::default(),
            most_at_once: Arc::default(),
            absent_delay_millis: Arc::default(),
            clock,
        };
        let app = Router::new()
            .route("/{tenant}/discovery/v2.0/keys", get(keys_document))
            .route("/token/{organisation}/{person}", get(token))
            .with_state(entra.clone())
            .merge(sign_in::router(entra.clone()));
        tokio::spawn(async move { axum::serve(listener, app).await });
        entra
    }

    /// Publishes these keys for the organisation from now on.
    pub fn publish(&self, organisation: Organisation, keys: &[Value]) {
        self.with_tenant(organisation.tenant, |tenant| tenant.keys = keys.to_vec());
    }

    /// Answers the organisation's keys document in this way from now on.
    pub fn behave(&self, organisation: Organisation, behaviour: Behaviour) {
        self.with_tenant(organisation.tenant, |tenant| tenant.behaviour = behaviour);
    }

    /// How often the organisation's keys document has been asked for.
    pub fn fetches(&self, organisation: Organisation) -> usize {
        self.with_tenant(organisation.tenant, |tenant| tenant.fetches)
            .unwrap_or_default()
    }

    /// How often any keys document has been asked for, of tenants that do not exist too.
    pub fn all_fetches(&self) -> usize {
        self.all_fetches.load(Ordering::SeqCst)
    }

    /// How many keys documents were asked for at the same time, at most.
    pub fn most_at_once(&self) -> usize {
        self.most_at_once.load(Ordering::SeqCst)
    }

    /// Takes this long from now on to say that a tenant does not exist.
    pub fn delay_absent_tenants(&self, millis: u64) {
        self.absent_delay_millis.store(millis, Ordering::SeqCst);
    }

    /// A good token of version 1.
    pub fn v1(&self, organisation: Organisation, person: Person) -> Token {
        Token::v1(organisation, person, self.now())
    }

    /// A good token of version 2.
    pub fn v2(&self, organisation: Organisation, person: Person) -> Token {
        Token::v2(organisation, person, &self.authority, self.now())
    }

    /// The present, in seconds since the Unix epoch.
    pub fn now(&self) -> u64 {
        self.clock.since_epoch().as_secs()
    }

    fn with_tenant<T>(&self, tenant: &str, act: impl FnOnce(&mut Tenant) -> T) -> Option<T> {
        self.tenants
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_mut(tenant)
            .map(act)
    }
}

async fn keys_document(State(entra): State<MockEntra>, Path(tenant): Path<String>) -> Response {
    entra.all_fetches.fetch_add(1, Ordering::SeqCst);
    let under_way = entra.under_way.fetch_add(1, Ordering::SeqCst) + 1;
    entra.most_at_once.fetch_max(under_way, Ordering::SeqCst);
    let answer = answer_keys(&entra, &tenant).await;
    entra.under_way.fetch_sub(1, Ordering::SeqCst);
    answer
}

async fn answer_keys(entra: &MockEntra, tenant: &str) -> Response {
    let answer = entra.with_tenant(tenant, |tenant| {
        tenant.fetches += 1;
        (tenant.behaviour.clone(), json!({ "keys": tenant.keys }))
    });
    match answer {
        Some((Behaviour::Serve, document)) => Json(document).into_response(),
        Some((Behaviour::Fail(status), _)) => StatusCode::from_u16(status)
            .expect("a status")
            .into_response(),
        Some((Behaviour::Delay(delay), document)) => {
            tokio::time::sleep(delay).await;
            Json(document).into_response()
        }
        Some((Behaviour::RedirectTo(other), _)) => {
            let location = format!("/{}/discovery/v2.0/keys", other.tenant);
            (StatusCode::FOUND, [(LOCATION, location)]).into_response()
        }
        Some((Behaviour::Bytes(bytes), _)) => bytes.into_response(),
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
    Path((organisation, person)): Path<(String, String)>,
    Query(query): Query<TokenQuery>,
) -> Response {
    let organisation = ORGANISATIONS
        .into_iter()
        .find(|known| known.name == organisation);
    let person = PEOPLE.into_iter().find(|known| known.name == person);
    let (Some(organisation), Some(person)) = (organisation, person) else {
        let names = |names: Vec<&str>| names.join(", ");
        let help = format!(
            "no such person: ask for /token/{{organisation}}/{{person}} with one of {} and one of {}\n",
            names(ORGANISATIONS.iter().map(|known| known.name).collect()),
            names(PEOPLE.iter().map(|known| known.name).collect()),
        );
        return (StatusCode::NOT_FOUND, help).into_response();
    };
    match query.version.as_deref() {
        None | Some("1") => entra.v1(organisation, person).sign().into_response(),
        Some("2") => entra.v2(organisation, person).sign().into_response(),
        Some(_) => (StatusCode::BAD_REQUEST, "version is 1 or 2\n").into_response(),
    }
}
