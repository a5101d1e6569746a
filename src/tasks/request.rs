//! What clients send: the id in the path, the page in the query, and the two bodies.
//!
//! Each is parsed into a domain type. Invalid input produces one [`FieldError`] for each invalid
//! member, in FastAPI's format.

use axum::{
    Json,
    body::{Bytes, HttpBody},
    extract::{
        FromRequest, FromRequestParts, Path, Query, Request,
        rejection::{BytesRejection, JsonRejection},
    },
    http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_TYPE, request::Parts},
};
use serde::Serialize;
use serde_json::{Map, Value};
use strum::{IntoStaticStr, VariantNames};
use thiserror::Error;
use utoipa::ToSchema;

use super::{
    Content, IdempotencyKey, Page, TaskUpdate,
    title::{Title, TitleError},
};
use crate::ids::TaskId;

/// The largest body, in bytes.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// The body of `POST /api/tasks`.
#[derive(Clone, ToSchema)]
pub struct CreateTask {
    /// The title.
    pub title: Title,
}

/// The `{id}` of a path.
#[derive(Clone, Copy, Debug)]
pub struct TaskPath(pub TaskId);

/// The `Idempotency-Key` of a request, if it has one.
#[derive(Clone, Debug)]
pub struct RequestKey(pub Option<IdempotencyKey>);

/// Why a path, a query or a body is rejected.
#[derive(Clone, Debug, Error, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum RequestError {
    /// Invalid members, one entry for each.
    #[error("invalid request")]
    #[strum(serialize = "invalid_input")]
    Invalid(Vec<FieldError>),
    /// A body larger than [`MAX_BODY_BYTES`].
    #[error("body too large")]
    TooLarge,
    /// A body whose `Content-Type` is not JSON.
    #[error("media type is not JSON")]
    MediaType,
}

/// What is wrong with one member, for a program (`loc`, `type`) and for a user (`msg`).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FieldError {
    /// The location: `body`, `header`, `path` or `query`, then the member's name.
    pub loc: Vec<&'static str>,
    /// What is wrong.
    pub msg: String,
    /// The kind of error as a fixed identifier: Pydantic's, if it has one.
    #[serde(rename = "type")]
    pub kind: &'static str,
}

impl FieldError {
    fn new(loc: &[&'static str], msg: impl Into<String>, kind: &'static str) -> Self {
        Self {
            loc: loc.to_vec(),
            msg: msg.into(),
            kind,
        }
    }
}

impl From<FieldError> for RequestError {
    fn from(error: FieldError) -> Self {
        Self::Invalid(vec![error])
    }
}

/// A new task is not done.
impl From<CreateTask> for Content {
    fn from(CreateTask { title }: CreateTask) -> Self {
        Self {
            title,
            completed: false,
        }
    }
}

impl<S: Send + Sync> FromRequest<S> for CreateTask {
    type Rejection = RequestError;

    async fn from_request(request: Request, state: &S) -> Result<Self, RequestError> {
        let members = read_object(request, state).await?;
        match members.get("title") {
            Some(title) => Ok(Self {
                title: parse_title(title)?,
            }),
            None => Err(FieldError::new(&["body", "title"], "Field required", "missing").into()),
        }
    }
}

impl<S: Send + Sync> FromRequest<S> for TaskUpdate {
    type Rejection = RequestError;

    async fn from_request(request: Request, state: &S) -> Result<Self, RequestError> {
        let members = read_object(request, state).await?;
        let title = members.get("title").map(parse_title).transpose();
        let completed = members.get("completed").map(parse_completed).transpose();
        let (title, completed) = both(title, completed)?;
        Ok(Self { title, completed })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for TaskPath {
    type Rejection = RequestError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, RequestError> {
        let id = Path::<String>::from_request_parts(parts, state).await.ok();
        let id = id.and_then(|Path(id)| id.parse().ok());
        id.map(Self)
            .ok_or_else(|| invalid_id(&["path", "id"]).into())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Page {
    type Rejection = RequestError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, RequestError> {
        let query = Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let Ok(Query(parameters)) = query else {
            let message = "Input should be a query string";
            return Err(FieldError::new(&["query"], message, "query_parsing").into());
        };
        let limit = parameter(&parameters, "limit", |value| match value.parse() {
            Ok(limit @ 1..=Self::MAX_LIMIT) => Ok(limit),
            Ok(_) | Err(_) => Err(invalid_limit()),
        });
        let after = parameter(&parameters, "after", |value| {
            value.parse().map_err(|_| invalid_id(&["query", "after"]))
        });
        let (limit, after) = both(limit, after)?;
        Ok(Self { limit, after })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RequestKey {
    type Rejection = RequestError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, RequestError> {
        const NAME: &str = "Idempotency-Key";
        let mut values = parts.headers.get_all(NAME).iter();
        let Some(value) = values.next() else {
            return Ok(Self(None));
        };
        let key = value.to_str().ok().and_then(IdempotencyKey::parse);
        let key = key.filter(|_| values.next().is_none()).ok_or_else(|| {
            let message = "Input should be one key of 1 to 255 visible ASCII characters";
            FieldError::new(&["header", NAME], message, "value_error")
        })?;
        Ok(Self(Some(key)))
    }
}

/// Both values, or the errors of both.
fn both<A, B>(
    first: Result<A, FieldError>,
    second: Result<B, FieldError>,
) -> Result<(A, B), RequestError> {
    match (first, second) {
        (Ok(first), Ok(second)) => Ok((first, second)),
        (first, second) => {
            let errors = first.err().into_iter().chain(second.err());
            Err(RequestError::Invalid(errors.collect()))
        }
    }
}

/// A query parameter that may occur once.
fn parameter<T>(
    parameters: &[(String, String)],
    name: &'static str,
    parse: impl FnOnce(&str) -> Result<T, FieldError>,
) -> Result<Option<T>, FieldError> {
    let mut values = parameters.iter().filter(|(known, _)| known == name);
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some((_, value)), None) => parse(value).map(Some),
        (Some(_), Some(_)) => {
            let message = "The parameter occurs more than once";
            Err(FieldError::new(&["query", name], message, "value_error"))
        }
    }
}

async fn read_object<S: Send + Sync>(
    request: Request,
    state: &S,
) -> Result<Map<String, Value>, RequestError> {
    const LOC: [&str; 1] = ["body"];
    if !is_json(request.headers()) {
        return Err(RequestError::MediaType);
    }
    // With a `Content-Length`, the size is known before the body is read.
    let size = request.body().size_hint().lower();
    if usize::try_from(size).is_ok_and(|size| size > MAX_BODY_BYTES) {
        return Err(RequestError::TooLarge);
    }
    let body = Bytes::from_request(request, state).await;
    let body = body.map_err(|error| unreadable_body(&error))?;
    match Json::from_bytes(&body) {
        Ok(Json(members)) => Ok(members),
        Err(JsonRejection::JsonDataError(_)) => {
            let message = "Input should be a valid JSON object";
            Err(FieldError::new(&LOC, message, "dict_type").into())
        }
        Err(error) => Err(FieldError::new(&LOC, error.body_text(), "json_invalid").into()),
    }
}

/// Whether the media type is `application/json` or ends in `+json` (RFC 6839, section 3.1).
/// Parameters, such as `charset`, are ignored.
fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::to_str);
    let Some(Ok(content_type)) = content_type else {
        return false;
    };
    let (media_type, _) = content_type.split_once(';').unwrap_or((content_type, ""));
    let media_type = media_type.trim().to_ascii_lowercase();
    let subtype = media_type.strip_prefix("application/");
    subtype.is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
}

fn unreadable_body(error: &BytesRejection) -> RequestError {
    if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return RequestError::TooLarge;
    }
    let message = "The body could not be read to its end";
    FieldError::new(&["body"], message, "body_incomplete").into()
}

fn invalid_id(loc: &[&'static str]) -> FieldError {
    FieldError::new(loc, "Input should be a valid integer from 1", "int_parsing")
}

fn invalid_limit() -> FieldError {
    let message = format!(
        "Input should be a valid integer from 1 to {}",
        Page::MAX_LIMIT
    );
    FieldError::new(&["query", "limit"], message, "int_parsing")
}

fn parse_title(title: &Value) -> Result<Title, FieldError> {
    const LOC: [&str; 2] = ["body", "title"];
    let Value::String(text) = title else {
        let message = "Input should be a valid string";
        return Err(FieldError::new(&LOC, message, "string_type"));
    };
    Title::parse(text.clone()).map_err(|error| {
        let kind = match error {
            TitleError::Empty => "string_too_short",
            TitleError::TooLong => "string_too_long",
            TitleError::Blank | TitleError::Control => "value_error",
        };
        FieldError::new(&LOC, error.to_string(), kind)
    })
}

fn parse_completed(completed: &Value) -> Result<bool, FieldError> {
    let message = "Input should be a valid boolean";
    completed
        .as_bool()
        .ok_or_else(|| FieldError::new(&["body", "completed"], message, "bool_type"))
}
