//! What the service says of itself to programs and to people: `/openapi.json`, and `/docs` to try it on.
//!
//! Each handler describes itself in its attribute. Here is what they share: identifiers, refusals, and how to sign
//! in, which depends on the settings. Whatever a caller can see must be here; a test sends every operation.

use std::collections::BTreeMap;

use axum::{
    Router,
    http::{HeaderValue, header::CONTENT_SECURITY_POLICY},
    middleware,
    response::Response as AxumResponse,
};
use utoipa::{
    IntoParams, IntoResponses, OpenApi, PartialSchema, ToSchema,
    openapi::{
        self, HeaderBuilder, KnownFormat, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder,
        Schema, SchemaFormat, SecurityRequirement, Type,
        content::ContentBuilder,
        header::Header,
        path::{Operation, PathItem},
        security::{
            AuthorizationCode, Flow, HttpAuthScheme, HttpBuilder, OAuth2, Scopes, SecurityScheme,
        },
    },
};
use utoipa_swagger_ui::{Config, SwaggerUi, oauth};
use uuid::Uuid;

use crate::{
    auth::Authority,
    error::RefusalBody,
    ids::{TaskId, TenantId, UserId},
    routes,
    tasks::{
        Title, handlers,
        request::{FieldError, MAX_PAGE},
    },
};

/// What the description and its page need of the settings.
#[derive(Clone, Debug)]
pub struct Docs {
    /// Where one signs in.
    pub authority: Authority,
    /// The API's client id.
    pub client_id: Uuid,
    /// The scope to ask for; `None` if none is required.
    pub scope: Option<String>,
    /// The client id that the page signs in with; without one, it takes a token that was got elsewhere.
    pub spa_client_id: Option<Uuid>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "tenant-tasks",
        description = "The tasks of people from any Microsoft Entra ID organisation. An organisation sees its own \
                       and nobody else's. Every failure is JSON with a `detail` for a person.",
    ),
    paths(
        routes::health,
        routes::ready,
        routes::me,
        handlers::list,
        handlers::create,
        handlers::update,
        handlers::remove
    ),
    components(schemas(RefusalBody, FieldError))
)]
struct Description;

/// The names of the ways to sign in.
const ENTRA: &str = "entra";
const BEARER: &str = "bearer";

/// The description, for these settings.
#[must_use]
pub fn document(docs: &Docs) -> openapi::OpenApi {
    let mut document = Description::openapi();
    let components = document.components.get_or_insert_default();
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some(
            "An access token that Entra issued to a person for this API",
        ))
        .build();
    components.add_security_scheme(BEARER, SecurityScheme::Http(bearer));
    let mut ways = vec![SecurityRequirement::new(BEARER, [""; 0])];
    if docs.spa_client_id.is_some() {
        let scopes = docs.scopes();
        let known = scopes
            .iter()
            .map(|scope| (scope.clone(), "Tasks on your behalf".to_owned()));
        let known: Scopes = known.collect();
        let (authorize, token) = (
            docs.authority.sign_in_url("authorize"),
            docs.authority.sign_in_url("token"),
        );
        let flow = Flow::AuthorizationCode(AuthorizationCode::new(authorize, token, known));
        components.add_security_scheme(ENTRA, SecurityScheme::OAuth2(OAuth2::new([flow])));
        ways.insert(0, SecurityRequirement::new(ENTRA, scopes));
    }
    for (path, item) in &mut document.paths.paths {
        for operation in operations(item) {
            for response in operation.responses.responses.values_mut() {
                if let RefOr::T(response) = response {
                    let request_id = header(Type::String, "This request in the log");
                    response
                        .headers
                        .insert("X-Request-Id".to_owned(), request_id.into());
                }
            }
            let tag = if path.starts_with("/api/") {
                "API"
            } else {
                "Operation"
            };
            operation.tags = Some(vec![tag.to_owned()]);
            if path.starts_with("/api/") {
                operation.security = Some(ways.clone());
            }
        }
    }
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [
        &mut item.get,
        &mut item.post,
        &mut item.patch,
        &mut item.delete,
    ]
    .into_iter()
    .flatten()
}

/// `/openapi.json` and `/docs`.
pub(crate) fn router<S: Clone + Send + Sync + 'static>(docs: &Docs) -> Router<S> {
    let mut page = SwaggerUi::new("/docs")
        .url("/openapi.json", document(docs))
        .config(
            Config::default()
                .validator_url("none")
                .display_request_duration(true),
        );
    if let Some(client_id) = docs.spa_client_id {
        let oauth = oauth::Config::new()
            .client_id(&client_id.to_string())
            .scopes(docs.scopes())
            .use_pkce_with_authorization_code_grant(true);
        page = page.oauth(oauth);
    }
    // The page loads nothing from elsewhere, and signs in at the authority alone.
    let policy = format!(
        "default-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self' {}; frame-ancestors 'none'",
        docs.authority.origin()
    );
    let policy = HeaderValue::try_from(policy).expect("an authority is a URL");
    Router::from(page).layer(middleware::map_response(
        move |mut response: AxumResponse| {
            response
                .headers_mut()
                .insert(CONTENT_SECURITY_POLICY, policy.clone());
            std::future::ready(response)
        },
    ))
}

impl Docs {
    /// What to ask Entra for, so that its token is for this API.
    fn scopes(&self) -> Vec<String> {
        let scope = self.scope.as_deref().unwrap_or(".default");
        vec![format!("api://{}/{scope}", self.client_id)]
    }
}

/// The query of `GET /api/tasks`.
pub(crate) struct PageParameters;

impl IntoParams for PageParameters {
    fn into_params(
        _: impl Fn() -> Option<openapi::path::ParameterIn>,
    ) -> Vec<openapi::path::Parameter> {
        let limit = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(1))
            .maximum(Some(MAX_PAGE));
        let parameter = |name: &str, description: &str, schema: RefOr<Schema>| {
            openapi::path::ParameterBuilder::new()
                .name(name)
                .parameter_in(openapi::path::ParameterIn::Query)
                .required(openapi::Required::False)
                .description(Some(description))
                .schema(Some(schema))
                .build()
        };
        vec![
            parameter("limit", "At most so many tasks", limit.into()),
            parameter("after", "Only tasks with a larger id", TaskId::schema()),
        ]
    }
}

/// What any request that needs a caller may be refused with.
pub(crate) struct Refused;

impl IntoResponses for Refused {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let challenge = || {
            (
                "WWW-Authenticate",
                header(
                    Type::String,
                    "What is wrong with the credentials (RFC 6750)",
                ),
            )
        };
        BTreeMap::from([
            refusal(
                "400",
                "More than one `Authorization` header, or an empty token",
                Some(challenge()),
            ),
            refusal(
                "401",
                "Not signed in, or anything wrong with the token",
                Some(challenge()),
            ),
            refusal(
                "403",
                "The organisation, the role or the scope is not enough",
                Some(challenge()),
            ),
            refusal("408", "The request took too long", None),
            refusal(
                "429",
                "The organisation sends too many requests",
                Some(retry_after()),
            ),
        ])
    }
}

/// What any request that needs keys or the store may be refused with.
pub(crate) struct StoreRefused;

impl IntoResponses for StoreRefused {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        BTreeMap::from([refusal(
            "503",
            "Signing keys or tasks are unavailable at the moment",
            Some(retry_after()),
        )])
    }
}

/// What a wrong path or query is refused with.
pub(crate) struct InvalidParameter;

impl IntoResponses for InvalidParameter {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        BTreeMap::from([refusal(
            "422",
            "Something is wrong in the path, the query or the body",
            None,
        )])
    }
}

/// What a wrong body is refused with.
pub(crate) struct InvalidBody;

impl IntoResponses for InvalidBody {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut responses = InvalidParameter::responses();
        responses.extend([
            refusal("413", "The body is larger than 64 KiB", None),
            refusal("415", "The body is not sent as JSON", None),
        ]);
        responses
    }
}

fn refusal(
    status: &str,
    description: &str,
    header: Option<(&str, Header)>,
) -> (String, RefOr<Response>) {
    let body = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(RefusalBody::name())))
        .build();
    let mut response = ResponseBuilder::new()
        .description(description)
        .content("application/json", body);
    if let Some((name, header)) = header {
        response = response.header(name, header);
    }
    (status.to_owned(), response.build().into())
}

fn retry_after() -> (&'static str, Header) {
    (
        "Retry-After",
        header(Type::Integer, "After how many seconds to try again"),
    )
}

fn header(of: Type, description: &str) -> Header {
    HeaderBuilder::new()
        .schema(Some(ObjectBuilder::new().schema_type(of).build()))
        .description(Some(description))
        .build()
}

// Schemas of what parses itself: the derived ones would be of the fields inside.

impl PartialSchema for TaskId {
    fn schema() -> RefOr<Schema> {
        let id = ObjectBuilder::new().schema_type(Type::Integer);
        id.format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
            .minimum(Some(1))
            .maximum(Some(i64::MAX))
            .into()
    }
}

impl PartialSchema for TenantId {
    fn schema() -> RefOr<Schema> {
        guid()
    }
}

impl PartialSchema for UserId {
    fn schema() -> RefOr<Schema> {
        guid()
    }
}

fn guid() -> RefOr<Schema> {
    let format = SchemaFormat::KnownFormat(KnownFormat::Uuid);
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(format))
        .into()
}

impl PartialSchema for Title {
    fn schema() -> RefOr<Schema> {
        const CONTROL: &str = r"\u0000-\u001f\u007f-\u009f";
        const WHITE: &str = r"\u0020\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000";
        let pattern = format!("^[^{CONTROL}]*[^{CONTROL}{WHITE}][^{CONTROL}]*$");
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(
                "Not blank, without control characters; kept exactly as sent",
            ))
            .min_length(Some(1))
            .max_length(Some(Title::MAX_CHARS))
            .pattern(Some(pattern))
            .examples(["Buy milk"])
            .into()
    }
}

impl ToSchema for TaskId {}
impl ToSchema for TenantId {}
impl ToSchema for UserId {}
impl ToSchema for Title {}
