//! The sign-in page of the mock Entra, for single-page apps: the authorization code flow with PKCE (RFC 6749,
//! section 4.1, and RFC 7636) as Entra implements it. The page signs in the user whose button is clicked.

use std::{
    collections::HashMap,
    fmt::Write,
    sync::{Arc, Mutex, PoisonError},
};

use aws_lc_rs::digest::{SHA256, digest};
use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tower_http::cors::{Any, CorsLayer};
use url::{Url, form_urlencoded};

use super::{
    entra::MockEntra,
    users::{SPA_CLIENT_ID, TENANTS, Tenant, USERS, User},
};

type Parameters = HashMap<String, String>;

/// A user who has signed in and can redeem a code or a refresh token.
#[derive(Clone)]
struct Grant {
    tenant: Tenant,
    user: User,
    /// The parameters of the authorization request. A refresh token keeps them.
    request: Parameters,
}

#[derive(Clone)]
struct SignIn {
    entra: MockEntra,
    /// By authorization code or refresh token. Each can be used once.
    grants: Arc<Mutex<HashMap<String, Grant>>>,
}

/// The endpoints that a browser and its app use, with the same paths as in Entra.
pub(super) fn router(entra: MockEntra) -> Router {
    let sign_in = SignIn {
        entra,
        grants: Arc::default(),
    };
    // Apps that serve several tenants sign in at the tenant `organizations`.
    Router::new()
        .route(
            "/{tenant}/v2.0/.well-known/openid-configuration",
            get(configuration),
        )
        .route("/{tenant}/adminconsent", get(admin_consent))
        .route("/{tenant}/oauth2/v2.0/authorize", get(authorize))
        .route(
            "/{tenant}/oauth2/v2.0/authorize/{tenant}/{user}",
            get(choose),
        )
        .route("/{tenant}/oauth2/v2.0/token", post(token))
        .route("/{tenant}/oauth2/v2.0/logout", get(logout))
        .layer(
            CorsLayer::new()
                .allow_origin(Any)
                .allow_methods(Any)
                .allow_headers(Any),
        )
        .with_state(sign_in)
}

async fn configuration(State(sign_in): State<SignIn>, Path(tenant): Path<String>) -> Json<Value> {
    let authority = &sign_in.entra.authority;
    let endpoint = |name: &str| format!("{authority}/{tenant}/oauth2/v2.0/{name}");
    Json(json!({
        "issuer": format!("{authority}/{{tenantid}}/v2.0"),
        "authorization_endpoint": endpoint("authorize"),
        "token_endpoint": endpoint("token"),
        "end_session_endpoint": endpoint("logout"),
        "jwks_uri": format!("{authority}/{tenant}/discovery/v2.0/keys"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
    }))
}

/// Shows one button per user. Its form repeats the parameters of the authorization request.
async fn authorize(Path(authority): Path<String>, Query(request): Query<Parameters>) -> Response {
    if let Err(problem) = check(&request) {
        return (StatusCode::BAD_REQUEST, problem).into_response();
    }
    let fields = request
        .iter()
        .fold(String::new(), |mut fields, (name, value)| {
            let (name, value) = (escaped(name), escaped(value));
            let _ = write!(
                fields,
                r#"<input type="hidden" name="{name}" value="{value}">"#
            );
            fields
        });
    let mut page = String::from(PAGE_START);
    for tenant in TENANTS {
        let _ = write!(page, "<h2>{}</h2>", tenant.name);
        for user in USERS {
            let _ = write!(
                page,
                r#"<form action="/{}/oauth2/v2.0/authorize/{}/{}">{fields}<button>{} ({})</button></form>"#,
                escaped(&authority),
                tenant.name,
                user.name,
                user.full_name(),
                tenant.name,
            );
        }
    }
    Html(page).into_response()
}

const PAGE_START: &str = r#"<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Sign in: local Entra</title>
<style>
:root { color-scheme: light dark }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 28rem; margin: 2rem auto; padding: 0 1rem }
h2 { font-size: 1rem; margin: 1.5rem 0 .5rem }
button { font: inherit; width: 100%; padding: .5rem; margin: .2rem 0; cursor: pointer }
</style>
<h1>Choose a user</h1>
<p>This is not a Microsoft page. It is a local mock of Entra and does not ask for a password.</p>
"#;

/// Shows the answers of an administrator to an app that asks for consent. Each is a link to the app, as Entra redirects.
async fn admin_consent(Path(tenant): Path<String>, Query(request): Query<Parameters>) -> Response {
    let address = match redirect_uri(&request) {
        Ok(address) => address,
        Err(problem) => return (StatusCode::BAD_REQUEST, problem).into_response(),
    };
    let link = |parameters: &[(&str, &str)], text: String| {
        let mut address = address.clone();
        address.query_pairs_mut().extend_pairs(parameters);
        format!(
            r#"<p><a href="{}">{text}</a></p>"#,
            escaped(address.as_str())
        )
    };
    let mut page = String::from(PAGE_START).replace("Choose a user", "Approve the app");
    let is_asked = |id: &str| tenant == "organizations" || tenant == id;
    for tenant in TENANTS.into_iter().filter(|tenant| is_asked(tenant.id)) {
        let approved = [("admin_consent", "True"), ("tenant", tenant.id)];
        page += &link(&approved, format!("Accept for {}", tenant.name));
    }
    let declined = [
        ("error", "access_denied"),
        (
            "error_description",
            "AADSTS65004: User declined to consent to access the app.",
        ),
    ];
    page += &link(&declined, "Cancel".to_owned());
    Html(page).into_response()
}

/// Redirects the browser to the app with an authorization code.
async fn choose(
    State(sign_in): State<SignIn>,
    Path((_, tenant, user)): Path<(String, String, String)>,
    Query(request): Query<Parameters>,
) -> Response {
    let tenant = TENANTS.into_iter().find(|known| known.name == tenant);
    let user = USERS.into_iter().find(|known| known.name == user);
    let (Some(tenant), Some(user)) = (tenant, user) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let mut address = match check(&request) {
        Ok(address) => address,
        Err(problem) => return (StatusCode::BAD_REQUEST, problem).into_response(),
    };
    let state = request.get("state").cloned().unwrap_or_default();
    let is_fragment = request
        .get("response_mode")
        .is_some_and(|mode| mode == "fragment");
    let code = sign_in.store_grant(Grant {
        tenant,
        user,
        request,
    });
    let client_info = client_info(tenant, user);
    let answer = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("code", &code),
            ("client_info", &client_info),
            ("state", &state),
        ])
        .finish();
    if is_fragment {
        address.set_fragment(Some(&answer));
    } else {
        address.set_query(Some(&answer));
    }
    Redirect::to(address.as_str()).into_response()
}

/// Validates the authorization request and returns its redirect URI, which must be on this machine.
fn check(request: &Parameters) -> Result<Url, &'static str> {
    let parameter = |name: &str| request.get(name).map(String::as_str);
    if parameter("client_id") != Some(SPA_CLIENT_ID) {
        return Err("AADSTS700016: unknown client_id\n");
    }
    if parameter("response_type") != Some("code") {
        return Err("AADSTS700054: response_type must be code\n");
    }
    if parameter("code_challenge_method") != Some("S256") || parameter("code_challenge").is_none() {
        return Err("AADSTS9002325: a proof key for code exchange is required\n");
    }
    redirect_uri(request)
}

fn redirect_uri(request: &Parameters) -> Result<Url, &'static str> {
    let address = request.get("redirect_uri");
    let address = address.and_then(|address| Url::parse(address).ok());
    let is_local = |address: &Url| matches!(address.host_str(), Some("localhost" | "127.0.0.1"));
    address
        .filter(is_local)
        .ok_or("AADSTS50011: the redirect URI must be on localhost\n")
}

/// Exchanges a code with its verifier, or a refresh token, for tokens.
async fn token(State(sign_in): State<SignIn>, body: String) -> Response {
    let form: Parameters = form_urlencoded::parse(body.as_bytes())
        .into_owned()
        .collect();
    let value = |name: &str| form.get(name).map_or("", String::as_str);
    let grant = match value("grant_type") {
        "authorization_code" => sign_in.take_grant(value("code")).filter(|grant| {
            let challenge =
                BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, value("code_verifier").as_bytes()));
            grant.request.get("code_challenge") == Some(&challenge)
                && grant.request.get("redirect_uri").map(String::as_str)
                    == Some(value("redirect_uri"))
        }),
        "refresh_token" => sign_in.take_grant(value("refresh_token")),
        _ => None,
    };
    let Some(grant) = grant else {
        let problem = json!({ "error": "invalid_grant", "error_description": "AADSTS70000: the grant is invalid" });
        return (StatusCode::BAD_REQUEST, Json(problem)).into_response();
    };
    let Grant { tenant, user, .. } = grant;
    let mut id_token = sign_in
        .entra
        .v2(tenant, user)
        .with("aud", SPA_CLIENT_ID)
        .without("scp");
    if let Some(nonce) = grant.request.get("nonce") {
        id_token = id_token.with("nonce", nonce.as_str());
    }
    let scope = grant.request.get("scope").cloned().unwrap_or_default();
    Json(json!({
        "token_type": "Bearer",
        "scope": scope,
        "expires_in": 4500,
        "ext_expires_in": 4500,
        "access_token": sign_in.entra.v2(tenant, user).sign(),
        "id_token": id_token.sign(),
        "client_info": client_info(tenant, user),
        "refresh_token": sign_in.store_grant(grant),
    }))
    .into_response()
}

async fn logout(Query(request): Query<Parameters>) -> Response {
    match request.get("post_logout_redirect_uri") {
        Some(address) => Redirect::to(address).into_response(),
        None => "You have signed out.\n".into_response(),
    }
}

/// Identifies the account to the app.
fn client_info(tenant: Tenant, user: User) -> String {
    let info = json!({ "uid": user.oid(tenant), "utid": tenant.id });
    BASE64_URL_SAFE_NO_PAD.encode(info.to_string())
}

impl SignIn {
    fn store_grant(&self, grant: Grant) -> String {
        let code = uuid::Uuid::new_v4().to_string();
        self.grants
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(code.clone(), grant);
        code
    }

    fn take_grant(&self, code: &str) -> Option<Grant> {
        self.grants
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(code)
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('"', "&quot;")
        .replace('<', "&lt;")
}
