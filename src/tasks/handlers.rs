//! One function per route: who may, what they sent, the store, the answer.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{
    NewTask, Page, TaskUpdate,
    body::{TaskBody, list_response},
    input::{CreateTask, TaskPath},
    store::Tasks,
};
use crate::{
    auth::{Admin, Editor, Reader},
    error::ApiError,
};

/// `GET /api/tasks`: all of the tenant's tasks for an Admin, their own for others.
pub(crate) async fn list(
    reader: Reader,
    State(tasks): State<Tasks>,
    page: Page,
) -> Result<Response, ApiError> {
    list_response(tasks, reader.tenant(), reader.reach(), page).await
}

/// `POST /api/tasks`: the caller becomes the owner.
pub(crate) async fn create(
    editor: Editor,
    State(tasks): State<Tasks>,
    CreateTask { title }: CreateTask,
) -> Result<Response, ApiError> {
    let new = NewTask { title, owner_name: editor.name().to_owned() };
    let task = tasks.insert(editor.owner(), new).await?;
    Ok(Json(TaskBody::new(&task)).into_response())
}

/// `PATCH /api/tasks/{id}`: whatever is not within reach does not exist.
pub(crate) async fn update(
    editor: Editor,
    State(tasks): State<Tasks>,
    TaskPath(id): TaskPath,
    update: TaskUpdate,
) -> Result<Response, ApiError> {
    let task = tasks.update(editor.tenant(), editor.reach(), id, update).await?;
    let task = task.ok_or(ApiError::TaskNotFound)?;
    Ok(Json(TaskBody::new(&task)).into_response())
}

/// `DELETE /api/tasks/{id}`: deleting what is not there is no error.
pub(crate) async fn remove(
    admin: Admin,
    State(tasks): State<Tasks>,
    TaskPath(id): TaskPath,
) -> Result<Json<Deleted>, ApiError> {
    tasks.remove(admin.tenant(), id).await?;
    Ok(Json(Deleted { status: "deleted" }))
}

/// The answer to a deletion.
#[derive(Serialize)]
pub(crate) struct Deleted {
    status: &'static str,
}
