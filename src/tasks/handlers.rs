//! One function per route: who may, what they sent, the store, the answer.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    NewTask, Page, TaskUpdate,
    request::{CreateTask, TaskPath},
    response::{TaskBody, list_response},
    store::Tasks,
};
use crate::{
    auth::{Admin, Editor, Reader},
    error::{ApiError, RefusalBody},
    ids::TaskId,
    openapi::{InvalidBody, InvalidParameter, PageParameters, Refused, StoreRefused},
};

/// Tasks, oldest first: all of the organisation's for an Admin, their own for others.
///
/// Without `limit` it is everything there is.
#[utoipa::path(
    get,
    operation_id = "listTasks",
    path = "/api/tasks",
    params(PageParameters),
    responses(
        (status = 200, description = "The tasks", body = [TaskBody],
            headers(("Link" = String, description = "Where the list goes on, if it does: `rel=\"next\"`"))),
        InvalidParameter,
        Refused,
        StoreRefused,
    ),
)]
pub(crate) async fn list(
    reader: Reader,
    State(tasks): State<Tasks>,
    page: Page,
) -> Result<Response, ApiError> {
    list_response(tasks, reader.tenant(), reader.reach(), page).await
}

/// Creates a task of the caller's own.
#[utoipa::path(
    post,
    operation_id = "createTask",
    path = "/api/tasks",
    request_body = CreateTask,
    responses(
        (status = 200, description = "The task", body = TaskBody),
        (status = 409, description = "The organisation has as many tasks as it may", body = RefusalBody),
        InvalidBody,
        Refused,
        StoreRefused,
    ),
)]
pub(crate) async fn create(
    editor: Editor,
    State(tasks): State<Tasks>,
    CreateTask { title }: CreateTask,
) -> Result<Response, ApiError> {
    let new = NewTask {
        title,
        owner_name: editor.name().to_owned(),
    };
    let task = tasks.insert(editor.owner(), new).await?;
    Ok(Json(TaskBody::new(&task)).into_response())
}

/// Changes a task: any of the organisation's for an Admin, their own for an Editor.
#[utoipa::path(
    patch,
    operation_id = "updateTask",
    path = "/api/tasks/{id}",
    params(("id" = TaskId, Path, description = "The task's id")),
    request_body = TaskUpdate,
    responses(
        (status = 200, description = "The task as it is now", body = TaskBody),
        (status = 404, description = "There is no such task within the caller's reach", body = RefusalBody),
        InvalidBody,
        Refused,
        StoreRefused,
    ),
)]
pub(crate) async fn update(
    editor: Editor,
    State(tasks): State<Tasks>,
    TaskPath(id): TaskPath,
    update: TaskUpdate,
) -> Result<Response, ApiError> {
    let task = tasks
        .update(editor.tenant(), editor.reach(), id, update)
        .await?;
    let task = task.ok_or(ApiError::TaskNotFound)?;
    Ok(Json(TaskBody::new(&task)).into_response())
}

/// Deletes a task of the organisation; that it is not there is no error.
#[utoipa::path(
    delete,
    operation_id = "deleteTask",
    path = "/api/tasks/{id}",
    params(("id" = TaskId, Path, description = "The task's id")),
    responses(
        (status = 200, description = "It is no longer there", body = Deleted),
        InvalidParameter,
        Refused,
        StoreRefused,
    ),
)]
pub(crate) async fn remove(
    admin: Admin,
    State(tasks): State<Tasks>,
    TaskPath(id): TaskPath,
) -> Result<Json<Deleted>, ApiError> {
    tasks.remove(admin.tenant(), id).await?;
    Ok(Json(Deleted { status: "deleted" }))
}

/// The answer to a deletion.
#[derive(Serialize, ToSchema)]
pub(crate) struct Deleted {
    status: &'static str,
}
