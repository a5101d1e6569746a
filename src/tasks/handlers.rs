//! One function per route: who may, what they sent, the store, the answer.

use axum::{
    Json,
    extract::State,
    http::{HeaderName, header::LINK},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{
    NewTask, Page, Task, TaskUpdate,
    input::{CreateTask, TaskPath},
    store::{Listing, Tasks},
};
use crate::{
    auth::{Admin, Editor, Reader},
    error::ApiError,
    ids::{Reach, TaskId, TenantId, UserId},
};

/// `GET /api/tasks`: all of the tenant's tasks for an Admin, their own for others.
pub(crate) async fn list(
    reader: Reader,
    State(tasks): State<Tasks>,
    page: Page,
) -> Result<Response, ApiError> {
    let reach = reader.reach();
    let listing = tasks.list(reader.tenant(), reach, page).await?;
    Ok(answer_list(&listing, reach, page))
}

/// The answer to `GET /api/tasks`.
pub fn answer_list(listing: &Listing, reach: Reach, page: Page) -> Response {
    let body: Vec<_> = listing.tasks.iter().map(|task| TaskBody::listed(task, reach)).collect();
    (next_page(page, listing), Json(body)).into_response()
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

/// A task as clients see it.
#[derive(Serialize)]
struct TaskBody<'a> {
    id: TaskId,
    title: &'a str,
    completed: bool,
    owner_name: &'a str,
    tenant_id: TenantId,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner_id: Option<UserId>,
}

/// The answer to a deletion.
#[derive(Serialize)]
pub(crate) struct Deleted {
    status: &'static str,
}

impl<'a> TaskBody<'a> {
    fn new(task: &'a Task) -> Self {
        Self {
            id: task.id,
            title: task.title.as_str(),
            completed: task.completed,
            owner_name: &task.owner_name,
            tenant_id: task.owner.tenant,
            owner_id: None,
        }
    }

    /// In a list of everybody's tasks, each says whose it is.
    fn listed(task: &'a Task, reach: Reach) -> Self {
        match reach {
            Reach::Tenant => Self { owner_id: Some(task.owner.user), ..Self::new(task) },
            Reach::User(_) => Self::new(task),
        }
    }
}

/// Where the list goes on, if it does (RFC 8288).
fn next_page(page: Page, listing: &Listing) -> Option<[(HeaderName, String); 1]> {
    let (limit, last) = (page.limit?, listing.tasks.last()?);
    let link = format!("</api/tasks?limit={limit}&after={}>; rel=\"next\"", last.id);
    listing.more.then_some([(LINK, link)])
}
