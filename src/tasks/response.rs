//! Tasks as clients see them: one, or a list of any length.
//!
//! A list is read and written a chunk at a time, at the pace of whoever reads it. Its answer needs the
//! memory of one chunk, and no lock is held between two. What is created while it is read may be in it.

use std::{sync::Arc, time::Duration, vec};

use axum::{
    BoxError,
    body::{Body, Bytes},
    http::{HeaderName, HeaderValue, header::CONTENT_TYPE, header::LINK},
    response::{IntoResponse, Response},
};
use futures_util::stream::{self, StreamExt};
use serde::Serialize;
use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};
use utoipa::ToSchema;

use super::{
    Page, Task, Title,
    store::{Listing, Tasks},
};
use crate::{
    error::ApiError,
    ids::{Reach, TaskId, TenantId, UserId},
};

/// How many tasks of a list without a limit are read at once.
const READ_AT_ONCE: usize = 256;

/// A chunk is written when it is as large as this, in bytes: usually once for each reading. Titles can be
/// long, and what a slow reader has not taken yet stays in memory.
const CHUNK_BYTES: usize = 64 * 1024;

/// How long a list may take to be read. Who may read it is asked only when it begins.
const LIST_TIMEOUT: Duration = Duration::from_mins(2);

/// How many chunks of a list are written as fast as they are read; then every other one is preceded by a
/// pause. A list of 100,000 tasks would otherwise keep a processor to itself for 50 ms, and on a small
/// machine everybody else would notice.
const BURST: usize = 40;
const PAUSE: Duration = Duration::from_millis(1);

/// About how long a task is as JSON, in bytes, for room to be made once.
const USUAL_BYTES: usize = 224;

/// A task as clients see it.
#[derive(Serialize, ToSchema)]
#[schema(as = Task)]
pub(crate) struct TaskBody<'a> {
    /// Counted from 1 in each organisation.
    id: TaskId,
    #[schema(value_type = Title)]
    title: &'a str,
    completed: bool,
    /// The owner's name on the day the task was created.
    owner_name: &'a str,
    tenant_id: TenantId,
    /// Who owns it; only in an Admin's list.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
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
            Reach::Tenant => Self {
                owner_id: Some(task.owner.user),
                ..Self::new(task)
            },
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
    let first = Page {
        limit: page.limit.or(Some(READ_AT_ONCE)),
        ..page
    };
    let listing = tasks.list(tenant, reach, first).await?;
    let link = next_page(page, &listing);
    let mut list = List {
        tasks,
        tenant,
        reach,
        goes_on: listing.more && page.limit.is_none(),
        after: page.after,
        read: listing.tasks.into_iter(),
        begun: Instant::now(),
        chunks: 0,
        is_started: false,
        is_ended: false,
    };
    let first = list.write();
    if list.is_ended {
        return Ok((link, JSON, first).into_response());
    }
    let rest = stream::try_unfold(list, |mut list| async move {
        if list.is_ended {
            return Ok(None);
        }
        let chunk = list.next().await?;
        Ok::<_, BoxError>(Some((chunk, list)))
    });
    let chunks = stream::iter([Ok(first)]).chain(rest);
    Ok((link, JSON, Body::from_stream(chunks)).into_response())
}

const JSON: [(HeaderName, HeaderValue); 1] =
    [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];

/// A list that is being written.
struct List {
    tasks: Tasks,
    tenant: TenantId,
    reach: Reach,
    /// Read, and not written yet.
    read: vec::IntoIter<Arc<Task>>,
    /// Whether there is more to read after that.
    goes_on: bool,
    /// The last task that is written.
    after: Option<TaskId>,
    begun: Instant,
    chunks: usize,
    is_started: bool,
    is_ended: bool,
}

impl List {
    async fn next(&mut self) -> Result<Bytes, BoxError> {
        if self.begun.elapsed() > LIST_TIMEOUT {
            return Err(format!("a list was not read within {LIST_TIMEOUT:?}").into());
        }
        // A reader that is faster than the list must not keep other requests waiting.
        if self.chunks > BURST && self.chunks.is_multiple_of(2) {
            sleep(PAUSE).await;
        } else {
            yield_now().await;
        }
        if self.read.len() == 0 {
            let page = Page {
                after: self.after,
                limit: Some(READ_AT_ONCE),
            };
            let listing = self.tasks.list(self.tenant, self.reach, page).await?;
            self.goes_on = listing.more;
            self.read = listing.tasks.into_iter();
        }
        Ok(self.write())
    }

    fn write(&mut self) -> Bytes {
        let mut json = Vec::with_capacity((self.read.len() * USUAL_BYTES + 2).min(CHUNK_BYTES));
        while json.len() < CHUNK_BYTES
            && let Some(task) = self.read.next()
        {
            json.push(if self.is_started { b',' } else { b'[' });
            self.is_started = true;
            serde_json::to_writer(&mut json, &TaskBody::listed(&task, self.reach))
                .expect("texts and numbers, written to memory");
            self.after = Some(task.id);
        }
        self.chunks += 1;
        if self.read.len() == 0 && !self.goes_on {
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
