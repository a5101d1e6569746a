//! Serves the API's description as `/openapi.json`, and a page to try it as `/docs`.
//!
//! Each handler's attribute describes its operation. This module assembles the description and adds
//! how to sign in, which depends on the settings.

mod page;

use std::collections::BTreeMap;

use axum::{
    Router,
    body::Bytes,
    http::{Method, header::CONTENT_TYPE},
    routing::get,
};
use utoipa::{
    OpenApi, PartialSchema, ToSchema,
    openapi::{
        self, HeaderBuilder, KnownFormat, ObjectBuilder, Ref, RefOr, Schema, SchemaFormat,
        SecurityRequirement, Type,
        path::{Operation, PathItem},
        security::{
            AuthorizationCode, Flow, HttpAuthScheme, HttpBuilder, OAuth2, Scopes, SecurityScheme,
        },
    },
};
use uuid::Uuid;

use crate::{
    auth::Authority,
    error::ErrorBody,
    health,
    ids::TaskId,
    me,
    tasks::{handlers, request::FieldError},
};

/// The settings that the description and the page need.
#[derive(Clone, Debug)]
pub struct Docs {
    /// The authority where users sign in.
    pub authority: Authority,
    /// The API's client id.
    pub client_id: Uuid,
    /// The scope to request; `None` if none is required.
    pub scope: Option<String>,
    /// The client id with which the page signs users in. Without one, users paste a token.
    pub spa_client_id: Option<Uuid>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "tenant-tasks",
        description = "Tasks for users of any Microsoft Entra ID organization. Users see tasks of their own \
                       organization only. Every error is JSON with a `detail` for the user.",
    ),
    paths(
        health::health,
        health::ready,
        me::me,
        handlers::list,
        handlers::create,
        handlers::get,
        handlers::update,
        handlers::remove
    ),
    components(schemas(ErrorBody, FieldError))
)]
struct Description;

/// The names of the security schemes. The page offers only one of them: with two, users would not
/// know which to use.
const ENTRA: &str = "entra";
const BEARER: &str = "bearer";

/// The description of the API with these settings.
pub fn document(docs: &Docs) -> openapi::OpenApi {
    let mut document = Description::openapi();
    let components = document.components.get_or_insert_default();
    let requirement = if docs.spa_client_id.is_some() {
        let scopes = docs.scopes();
        let known = scopes
            .iter()
            .map(|scope| (scope.clone(), "Use the API on your behalf".to_owned()));
        let known: Scopes = known.collect();
        let (authorize, token) = (
            docs.authority.sign_in_url("authorize"),
            docs.authority.sign_in_url("token"),
        );
        let flow = Flow::AuthorizationCode(AuthorizationCode::new(authorize, token, known));
        components.add_security_scheme(ENTRA, SecurityScheme::OAuth2(OAuth2::new([flow])));
        SecurityRequirement::new(ENTRA, scopes)
    } else {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .description(Some(
                "An access token for this API that Entra issued to a user",
            ))
            .build();
        components.add_security_scheme(BEARER, SecurityScheme::Http(bearer));
        SecurityRequirement::new(BEARER, [""; 0])
    };
    for (path, item) in &mut document.paths.paths {
        for (_, operation) in operations(item) {
            for response in operation.responses.responses.values_mut() {
                if let RefOr::T(response) = response {
                    let request_id = request_id_header();
                    response
                        .headers
                        .insert("X-Request-Id".to_owned(), request_id.into());
                }
            }
            share_rejections(operation, &mut components.responses);
            let tag = if path.starts_with("/api/tasks") {
                "Tasks"
            } else if path.starts_with("/api/") {
                "Caller"
            } else {
                "Operation"
            };
            operation.tags = Some(vec![tag.to_owned()]);
            if path.starts_with("/api/") {
                operation.security = Some(vec![requirement.clone()]);
            }
        }
    }
    document
}

/// Describes each rejection once, for all operations that have the same one.
fn share_rejections(
    operation: &mut Operation,
    shared: &mut BTreeMap<String, RefOr<openapi::Response>>,
) {
    for (status, response) in &mut operation.responses.responses {
        if status.starts_with('2') {
            continue;
        }
        let name = format!("Error{status}");
        let first = shared
            .entry(name.clone())
            .or_insert_with(|| response.clone());
        if first == response {
            *response = RefOr::Ref(Ref::from_response_name(name));
        }
    }
}

/// The methods of all operations, without duplicates.
pub(crate) fn methods() -> Vec<Method> {
    let mut methods = Vec::new();
    for item in Description::openapi().paths.paths.values_mut() {
        for (method, _) in operations(item) {
            if !methods.contains(&method) {
                methods.push(method);
            }
        }
    }
    methods
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    let operations = [
        (Method::GET, &mut item.get),
        (Method::POST, &mut item.post),
        (Method::PUT, &mut item.put),
        (Method::PATCH, &mut item.patch),
        (Method::DELETE, &mut item.delete),
        (Method::OPTIONS, &mut item.options),
        (Method::HEAD, &mut item.head),
        (Method::TRACE, &mut item.trace),
    ];
    let operations = operations.into_iter();
    operations.filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// The paths of all operations.
pub(crate) fn paths() -> Vec<String> {
    Description::openapi().paths.paths.into_keys().collect()
}

/// `/openapi.json` and `/docs`.
pub(crate) fn router<S: Clone + Send + Sync + 'static>(docs: &Docs) -> Router<S> {
    // Serialized once: anyone can request it.
    let document = serde_json::to_vec(&document(docs)).expect("the description has text keys");
    let document = Bytes::from(document);
    let respond = async move || ([(CONTENT_TYPE, "application/json")], document);
    page::router(docs).route("/openapi.json", get(respond))
}

impl Docs {
    /// The scopes with which Entra issues a token for this API.
    fn scopes(&self) -> Vec<String> {
        let scope = self.scope.as_deref().unwrap_or(".default");
        vec![format!("api://{}/{scope}", self.client_id)]
    }
}

fn request_id_header() -> openapi::Header {
    HeaderBuilder::new()
        .schema(Some(ObjectBuilder::new().schema_type(Type::String).build()))
        .description(Some("The id of the request in the log"))
        .build()
}

// The derive macro does not support these bounds.

impl PartialSchema for TaskId {
    fn schema() -> RefOr<Schema> {
        let id = ObjectBuilder::new().schema_type(Type::Integer);
        id.format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
            .minimum(Some(1))
            .maximum(Some(i64::MAX))
            .into()
    }
}

impl ToSchema for TaskId {}
