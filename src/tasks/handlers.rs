//! One function per route. The signature says who may call it and what the response is.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Created, NewTask, Page, TaskUpdate,
    request::{CreateTask, RequestKey, TaskPath},
    response::{Replayed, TaskBody, TaskFields, TaskList, TaskQuota, VisibleTask},
    store::Tasks,
};
use crate::{
    auth::{Admin, Editor, Reader, Verifier},
    error::{
        ApiError, ErrorBody,
        responses::{Auth, Body, Invalid, Unavailable},
    },
    ids::TaskId,
};

/// Lists tasks, oldest first.
///
/// An Admin sees all tasks of the organization, other users see their own. Without `limit` the list
/// is complete.
#[utoipa::path(
    get,
    operation_id = "listTasks",
    path = "/api/tasks",
    params(Page),
    responses(
        (status = 200, description = "The tasks", body = [TaskFields],
            headers(("Link" = String, description = "The next page, if there is one: `rel=\"next\"`"))),
        Invalid,
        Auth,
        Unavailable,
    ),
)]
pub(crate) async fn list(
    reader: Reader,
    State(tasks): State<Tasks>,
    page: Page,
) -> Result<TaskList, ApiError> {
    let tenant = reader.principal().tenant();
    Ok(TaskList::start(tasks, tenant, reader.visible(), page).await?)
}

/// Returns one task.
///
/// An Admin sees any task of the organization, other users see their own.
#[utoipa::path(
    get,
    operation_id = "getTask",
    path = "/api/tasks/{id}",
    params(("id" = TaskId, Path, description = "The task's id")),
    responses(
        (status = 200, description = "The task, as in the list", body = TaskFields),
        (status = 404, description = "The task does not exist, or the caller may not see it", body = ErrorBody),
        Invalid,
        Auth,
        Unavailable,
    ),
)]
pub(crate) async fn get(
    reader: Reader,
    State(tasks): State<Tasks>,
    TaskPath(id): TaskPath,
) -> Result<Json<VisibleTask>, ApiError> {
    let (tenant, visible) = (reader.principal().tenant(), reader.visible());
    let task = tasks.get(tenant, visible, id).await?;
    let task = task.ok_or(ApiError::TaskNotFound)?;
    Ok(Json(VisibleTask(task, visible)))
}

/// Creates a task that the caller owns.
///
/// With an `Idempotency-Key`, the request can be repeated for 24 hours: the task is created once, and
/// each response is the first one.
#[utoipa::path(
    post,
    operation_id = "createTask",
    path = "/api/tasks",
    params(("Idempotency-Key" = Option<String>, Header,
        description = "A new random value for each task, 1 to 255 visible ASCII characters",
        min_length = 1, max_length = 255, pattern = "^[!-~]+$")),
    request_body = CreateTask,
    responses(
        (status = 200, description = "The task", body = TaskFields,
            headers(
                ("Task-Quota" = String, description =
                    "From 80 % of the organization's limit of tasks on: `used=80000, max=100000`"),
                ("Idempotent-Replayed" = String, description =
                    "`true` if an earlier request with the same key created the task"),
            )),
        (status = 409, description = "The organization has reached its limit of tasks", body = ErrorBody),
        Invalid,
        Body,
        Auth,
        Unavailable,
    ),
)]
pub(crate) async fn create(
    editor: Editor,
    State(tasks): State<Tasks>,
    State(verifier): State<Arc<Verifier>>,
    RequestKey(key): RequestKey,
    new: CreateTask,
) -> Result<(Option<TaskQuota>, Option<Replayed>, Json<TaskBody>), ApiError> {
    let owner = editor.principal().owner();
    let own_max = verifier.profile(owner.tenant).max_tasks;
    let new = NewTask {
        content: new.into(),
        owner_name: editor.principal().name().to_owned(),
        key,
    };
    let Created {
        task,
        usage,
        is_replayed,
    } = tasks.insert(owner, new, own_max).await?;
    let quota = usage.is_near_limit().then_some(TaskQuota(usage));
    let replayed = is_replayed.then_some(Replayed);
    Ok((quota, replayed, Json(TaskBody(task))))
}

/// Changes a task.
///
/// An Admin may change any task of the organization, an Editor their own.
#[utoipa::path(
    patch,
    operation_id = "updateTask",
    path = "/api/tasks/{id}",
    params(("id" = TaskId, Path, description = "The task's id")),
    request_body = TaskUpdate,
    responses(
        (status = 200, description = "The task after the change", body = TaskFields),
        (status = 404, description = "The task does not exist, or the caller may not change it", body = ErrorBody),
        Invalid,
        Body,
        Auth,
        Unavailable,
    ),
)]
pub(crate) async fn update(
    editor: Editor,
    State(tasks): State<Tasks>,
    TaskPath(id): TaskPath,
    update: TaskUpdate,
) -> Result<Json<TaskBody>, ApiError> {
    let tenant = editor.principal().tenant();
    let task = tasks
        .update(tenant, editor.changeable(), id, update)
        .await?;
    task.map(|task| Json(TaskBody(task)))
        .ok_or(ApiError::TaskNotFound)
}

/// Deletes a task of the organization. A task that does not exist is not an error.
#[utoipa::path(
    delete,
    operation_id = "deleteTask",
    path = "/api/tasks/{id}",
    params(("id" = TaskId, Path, description = "The task's id")),
    responses(
        (status = 200, description = "The task has been deleted or did not exist", body = Deleted),
        Invalid,
        Auth,
        Unavailable,
    ),
)]
pub(crate) async fn remove(
    admin: Admin,
    State(tasks): State<Tasks>,
    TaskPath(id): TaskPath,
) -> Result<Json<Deleted>, ApiError> {
    tasks.remove(admin.principal().tenant(), id).await?;
    Ok(Json(Deleted { status: "deleted" }))
}

/// The response to a deletion.
#[derive(Serialize, ToSchema)]
pub(crate) struct Deleted {
    status: &'static str,
}
