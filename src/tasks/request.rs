//! What callers send: the id in the path, the page in the query, and the two bodies.
//!
//! Each is parsed into a type of the domain or refused with one [`FieldError`] for every
//! member that is wrong, in the form FastAPI has taught clients to read.

use axum::{
    Json,
    extract::{
        FromRequest, FromRequestParts, Path, Query, Request,
        rejection::{BytesRejection, JsonRejection},
    },
    http::{StatusCode, request::Parts},
};
use serde::Serialize;
use serde_json::{Map, Value};
use thiserror::Error;
use utoipa::ToSchema;

use super::{Page, TaskUpdate, Title, TitleError};
use crate::ids::TaskId;

/// The largest body, in bytes.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// The longest page a caller may ask for, in tasks.
pub(crate) const MAX_PAGE: usize = 1000;

/// The body of `POST /api/tasks`.
#[derive(Clone, Debug, ToSchema)]
#[schema(as = NewTask)]
pub struct CreateTask {
    /// What is to be done.
    pub title: Title,
}

/// The `{id}` of a path.
#[derive(Clone, Copy, Debug)]
pub struct TaskPath(pub TaskId);

/// Why a path, a query or a body is refused.
#[derive(Clone, Debug, Error)]
pub enum InputError {
    /// One entry for every member that is wrong.
    #[error("invalid input")]
    Invalid(Vec<FieldError>),
    /// More than [`MAX_BODY_BYTES`].
    #[error("a body that is too large")]
    TooLarge,
    /// A body that does not say it is JSON.
    #[error("a media type other than JSON")]
    MediaType,
}

/// What is wrong with one member, for a program (`loc`, `type`) and for a person (`msg`).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FieldError {
    /// Where: `body`, `path` or `query`, then the member's name.
    pub loc: Vec<&'static str>,
    /// What is wrong.
    pub msg: String,
    /// The same as a fixed word; the words are Pydantic's where it has one.
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

impl From<FieldError> for InputError {
    fn from(error: FieldError) -> Self {
        Self::Invalid(vec![error])
    }
}

impl<S: Send + Sync> FromRequest<S> for CreateTask {
    type Rejection = InputError;

    async fn from_request(request: Request, state: &S) -> Result<Self, InputError> {
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
    type Rejection = InputError;

    async fn from_request(request: Request, state: &S) -> Result<Self, InputError> {
        let members = read_object(request, state).await?;
        match (
            members.get("title").map(parse_title).transpose(),
            members.get("completed").map(parse_completed).transpose(),
        ) {
            (Ok(title), Ok(completed)) => Ok(Self { title, completed }),
            (title, completed) => Err(InputError::Invalid(
                title.err().into_iter().chain(completed.err()).collect(),
            )),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for TaskPath {
    type Rejection = InputError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, InputError> {
        let id = Path::<String>::from_request_parts(parts, state).await.ok();
        id.and_then(|Path(id)| id.parse().ok())
            .map(Self)
            .ok_or_else(|| {
                FieldError::new(
                    &["path", "id"],
                    "Input should be a valid integer from 1",
                    "int_parsing",
                )
                .into()
            })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Page {
    type Rejection = InputError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, InputError> {
        let Query(parameters) = Query::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map_err(|_| {
                FieldError::new(
                    &["query"],
                    "Input should be a query string",
                    "query_parsing",
                )
            })?;
        let mut page = Self::default();
        let mut errors = Vec::new();
        for (name, value) in parameters {
            match name.as_str() {
                "limit" => match value.parse() {
                    Ok(limit @ 1..=MAX_PAGE) => page.limit = Some(limit),
                    Ok(_) | Err(_) => errors.push(FieldError::new(
                        &["query", "limit"],
                        format!("Input should be a valid integer from 1 to {MAX_PAGE}"),
                        "int_parsing",
                    )),
                },
                "after" => match value.parse() {
                    Ok(id) => page.after = Some(id),
                    Err(_) => errors.push(FieldError::new(
                        &["query", "after"],
                        "Input should be a valid integer from 1",
                        "int_parsing",
                    )),
                },
                _ => {}
            }
        }
        if errors.is_empty() {
            Ok(page)
        } else {
            Err(InputError::Invalid(errors))
        }
    }
}

async fn read_object<S: Send + Sync>(
    request: Request,
    state: &S,
) -> Result<Map<String, Value>, InputError> {
    match Json::from_request(request, state).await {
        Ok(Json(members)) => Ok(members),
        Err(JsonRejection::MissingJsonContentType(_)) => Err(InputError::MediaType),
        Err(JsonRejection::JsonDataError(_)) => Err(FieldError::new(
            &["body"],
            "Input should be a valid JSON object",
            "dict_type",
        )
        .into()),
        Err(JsonRejection::BytesRejection(error)) => Err(unreadable(&error)),
        Err(error) => Err(FieldError::new(&["body"], error.body_text(), "json_invalid").into()),
    }
}

fn unreadable(error: &BytesRejection) -> InputError {
    if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        InputError::TooLarge
    } else {
        FieldError::new(
            &["body"],
            "The body could not be read to its end",
            "body_incomplete",
        )
        .into()
    }
}

fn parse_title(title: &Value) -> Result<Title, FieldError> {
    const LOC: [&str; 2] = ["body", "title"];
    let Value::String(text) = title else {
        return Err(FieldError::new(
            &LOC,
            "Input should be a valid string",
            "string_type",
        ));
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
    completed.as_bool().ok_or_else(|| {
        FieldError::new(
            &["body", "completed"],
            "Input should be a valid boolean",
            "bool_type",
        )
    })
}
