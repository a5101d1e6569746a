//! Tasks as clients see them: one, or a list of any length.
//!
//! A list is read and written a chunk at a time, at the pace of whoever reads it. Its answer needs the
//! memory of one chunk, and no lock is held between two.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    http::{HeaderName, HeaderValue, header::CONTENT_TYPE, header::LINK},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde::Serialize;
use tokio::{task::yield_now, time::sleep};

use super::{
    Page, Task,
    store::{Listing, StoreError, Tasks},
};
use crate::{
    error::ApiError,
    ids::{Reach, TaskId, TenantId, UserId},
};

/// How many tasks of a list without a limit are read and written at once: some 50 KiB.
const CHUNK: usize = 256;

/// How many chunks of a list are written as fast as they are read; then every other one is preceded by a
/// pause. A list of 100,000 tasks would otherwise keep a processor to itself for 50 ms, and on a small
/// machine everybody else would notice.
const BURST: usize = 40;
const PAUSE: Duration = Duration::from_millis(1);

/// About how long a task is as JSON, in bytes, for room to be made once.
const USUAL_BYTES: usize = 224;

/// A task as clients see it.
#[derive(Serialize)]
pub(super) struct TaskBody<'a> {
    id: TaskId,
    title: &'a str,
    completed: bool,
    owner_name: &'a str,
    tenant_id: TenantId,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner_id: Option<UserId>,
}

impl<'a> TaskBody<'a> {
    pub(super) fn new(task: &'a Task) -> Self {
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

/// The answer to `GET /api/tasks`.
///
/// # Errors
///
/// When the store cannot answer for the first chunk. If it fails later, the answer breaks off, so that
/// no client takes a part of the list for the whole.
pub async fn list_response(
    tasks: Tasks,
    tenant: TenantId,
    reach: Reach,
    page: Page,
) -> Result<Response, ApiError> {
    let first = Page { limit: page.limit.or(Some(CHUNK)), ..page };
    let listing = tasks.list(tenant, reach, first).await?;
    let mut list =
        List { tasks, tenant, reach, after: page.after, chunks: 0, is_started: false, is_ended: false };
    if page.limit.is_some() || !listing.more {
        return Ok((next_page(page, &listing), JSON, list.write(&listing, true)).into_response());
    }
    let first = list.write(&listing, false);
    let chunks = stream::try_unfold((Some(first), list), |(written, mut list)| async move {
        let chunk = match written {
            Some(chunk) => chunk,
            None if list.is_ended => return Ok(None),
            None => list.next().await?,
        };
        Ok::<_, StoreError>(Some((chunk, (None, list))))
    });
    Ok((JSON, Body::from_stream(chunks)).into_response())
}

const JSON: [(HeaderName, HeaderValue); 1] = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];

/// A list that is being written.
struct List {
    tasks: Tasks,
    tenant: TenantId,
    reach: Reach,
    /// The last task that is written.
    after: Option<TaskId>,
    chunks: usize,
    is_started: bool,
    is_ended: bool,
}

impl List {
    async fn next(&mut self) -> Result<Bytes, StoreError> {
        // A reader that is faster than the list must not keep other requests waiting.
        if self.chunks > BURST && self.chunks.is_multiple_of(2) {
            sleep(PAUSE).await;
        } else {
            yield_now().await;
        }
        let page = Page { after: self.after, limit: Some(CHUNK) };
        let listing = self.tasks.list(self.tenant, self.reach, page).await?;
        Ok(self.write(&listing, !listing.more))
    }

    fn write(&mut self, listing: &Listing, is_last: bool) -> Bytes {
        let mut json = Vec::with_capacity(listing.tasks.len() * USUAL_BYTES + 2);
        for task in &listing.tasks {
            json.push(if self.is_started { b',' } else { b'[' });
            self.is_started = true;
            serde_json::to_writer(&mut json, &TaskBody::listed(task, self.reach))
                .expect("texts and numbers, written to memory");
            self.after = Some(task.id);
        }
        self.chunks += 1;
        if is_last {
            json.extend_from_slice(if self.is_started { b"]" } else { b"[]" });
            self.is_ended = true;
        }
        json.into()
    }
}

/// Where the list goes on, if it does (RFC 8288).
fn next_page(page: Page, listing: &Listing) -> Option<[(HeaderName, String); 1]> {
    let (limit, last) = (page.limit?, listing.tasks.last()?);
    let link = format!("</api/tasks?limit={limit}&after={}>; rel=\"next\"", last.id);
    listing.more.then_some([(LINK, link)])
}
