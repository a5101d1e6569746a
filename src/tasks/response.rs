//! What clients get: one task, or a list of any length.
//!
//! A list is read from the store and written in chunks, at the pace of the client. The response
//! keeps at most one read and one chunk in memory, and holds no lock between chunks. A task that is
//! created while the list is sent may appear in it.

use std::{convert::Infallible, io, sync::Arc, time::Duration, vec};

use axum::{
    BoxError,
    body::{Body, Bytes},
    http::{HeaderName, HeaderValue, header::CONTENT_TYPE, header::LINK},
    response::{IntoResponse, IntoResponseParts, Response, ResponseParts},
};
use futures_util::stream::{self, StreamExt};
use serde::{Serialize, Serializer};
use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};
use utoipa::ToSchema;

use super::{Content, Listing, Page, StoreError, Task, Usage, store::Tasks, title::Title};
use crate::ids::{Reach, TaskId, TenantId, UserId};

/// The number of tasks that a list without a limit reads at a time.
const READ_AT_ONCE: usize = 256;

/// A chunk ends with the task that reaches this size, in bytes. Most reads fit into one chunk, but
/// titles can be long, and a slow client keeps its chunk in memory.
const CHUNK_BYTES: usize = 64 * 1024;

/// The time limit for sending a list: the caller's access is checked only at its start.
const LIST_TIMEOUT: Duration = Duration::from_mins(2);

/// The chunks that are sent without a pause. After them, every second chunk waits for [`PAUSE`].
///
/// Without pauses a list of 100,000 tasks occupies a processor for 65 ms: on two processors the p99
/// of other requests was 17 times as high as without the list. With pauses the list takes 0.4 s.
const UNPACED_CHUNKS: usize = 40;
const PAUSE: Duration = Duration::from_millis(1);

/// The typical size of a task as JSON, in bytes, for the initial capacity of a chunk.
const USUAL_BYTES: usize = 224;

/// The response to a create or an update. It never contains the owner's id.
pub struct TaskBody(pub(crate) Arc<Task>);

/// A task that a caller with this reach reads. An Admin also gets the owner's id.
pub struct VisibleTask(pub(crate) Arc<Task>, pub(crate) Reach);

/// The header `Idempotent-Replayed`: an earlier request with the same key created the task.
pub(crate) struct Replayed;

impl Replayed {
    /// The name of the header.
    pub(crate) const NAME: HeaderName = HeaderName::from_static("idempotent-replayed");
}

impl IntoResponseParts for Replayed {
    type Error = Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Infallible> {
        let value = HeaderValue::from_static("true");
        parts.headers_mut().insert(Self::NAME, value);
        Ok(parts)
    }
}

/// The header `Task-Quota`: how much of its limit a tenant uses, as a dictionary (RFC 9651).
pub(crate) struct TaskQuota(pub(crate) Usage);

impl TaskQuota {
    /// The name of the header.
    pub(crate) const NAME: HeaderName = HeaderName::from_static("task-quota");
}

impl IntoResponseParts for TaskQuota {
    type Error = Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Infallible> {
        let Usage { count, max } = self.0;
        if let Ok(value) = HeaderValue::try_from(format!("used={count}, max={max}")) {
            parts.headers_mut().insert(Self::NAME, value);
        }
        Ok(parts)
    }
}

/// The JSON members of a task.
#[derive(Serialize, ToSchema)]
#[schema(as = Task)]
pub(crate) struct TaskFields<'a> {
    /// Counted from 1 in each organization.
    id: TaskId,
    #[schema(value_type = Title)]
    title: &'a str,
    completed: bool,
    /// The owner's name when the task was created.
    owner_name: &'a str,
    tenant_id: TenantId,
    /// The owner's id. Present only for a caller who sees every task of the organization.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    owner_id: Option<UserId>,
}

/// The response to `GET /api/tasks`: it sends the rest of the list while the client reads.
///
/// If the store fails after the first chunk, the response is aborted, so that no client mistakes a
/// part of the list for the whole.
pub struct TaskList {
    first_chunk: Bytes,
    next_page: Option<HeaderValue>,
    rest: ListWriter,
}

/// The state of a list that is being written.
struct ListWriter {
    tasks: Tasks,
    tenant: TenantId,
    reach: Reach,
    /// Tasks that have been read but not written.
    read: vec::IntoIter<Arc<Task>>,
    /// Whether the store has more tasks after these.
    more: bool,
    /// The last task that was written. At first, the request's `after`.
    after: Option<TaskId>,
    started_at: Instant,
    chunks: usize,
    is_started: bool,
    is_complete: bool,
}

impl<'a> TaskFields<'a> {
    /// The fields that a caller with this reach reads.
    fn visible(task: &'a Task, reach: Reach) -> Self {
        Self {
            owner_id: (reach == Reach::Tenant).then_some(task.owner.user),
            ..Self::from(task)
        }
    }
}

impl<'a> From<&'a Task> for TaskFields<'a> {
    fn from(task: &'a Task) -> Self {
        let Content { title, completed } = &task.content;
        Self {
            id: task.id,
            title: title.as_str(),
            completed: *completed,
            owner_name: &task.owner_name,
            tenant_id: task.owner.tenant,
            owner_id: None,
        }
    }
}

impl Serialize for TaskBody {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        TaskFields::from(&*self.0).serialize(serializer)
    }
}

impl Serialize for VisibleTask {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        TaskFields::visible(&self.0, self.1).serialize(serializer)
    }
}

impl TaskList {
    /// Reads the first chunk of a tenant's tasks.
    pub async fn start(
        tasks: Tasks,
        tenant: TenantId,
        reach: Reach,
        page: Page,
    ) -> Result<Self, StoreError> {
        let limit = page.limit.or(Some(READ_AT_ONCE));
        let listing = tasks.list(tenant, reach, Page { limit, ..page }).await?;
        let next_page = next_page(page, &listing);
        let mut rest = ListWriter {
            tasks,
            tenant,
            reach,
            more: listing.more && page.limit.is_none(),
            after: page.after,
            read: listing.tasks.into_iter(),
            started_at: Instant::now(),
            chunks: 0,
            is_started: false,
            is_complete: false,
        };
        Ok(Self {
            first_chunk: rest.write_chunk(),
            next_page,
            rest,
        })
    }
}

impl IntoResponse for TaskList {
    fn into_response(self) -> Response {
        let body = if self.rest.is_complete {
            Body::from(self.first_chunk)
        } else {
            let rest = stream::try_unfold(self.rest, |mut list| async move {
                if list.is_complete {
                    return Ok(None);
                }
                let chunk = list.next_chunk().await?;
                Ok::<_, BoxError>(Some((chunk, list)))
            });
            Body::from_stream(stream::iter([Ok(self.first_chunk)]).chain(rest))
        };
        let content_type = HeaderValue::from_static("application/json");
        let mut response = ([(CONTENT_TYPE, content_type)], body).into_response();
        if let Some(next_page) = self.next_page {
            response.headers_mut().insert(LINK, next_page);
        }
        response
    }
}

impl ListWriter {
    async fn next_chunk(&mut self) -> Result<Bytes, BoxError> {
        if self.started_at.elapsed() > LIST_TIMEOUT {
            let message = "the client was too slow to read the list";
            return Err(io::Error::new(io::ErrorKind::TimedOut, message).into());
        }
        self.chunks += 1;
        if self.chunks > UNPACED_CHUNKS && self.chunks.is_multiple_of(2) {
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
            self.more = listing.more;
            self.read = listing.tasks.into_iter();
        }
        Ok(self.write_chunk())
    }

    fn write_chunk(&mut self) -> Bytes {
        let mut json = Vec::with_capacity((self.read.len() * USUAL_BYTES + 2).min(CHUNK_BYTES));
        while json.len() < CHUNK_BYTES
            && let Some(task) = self.read.next()
        {
            json.push(if self.is_started { b',' } else { b'[' });
            self.is_started = true;
            let fields = TaskFields::visible(&task, self.reach);
            serde_json::to_writer(&mut json, &fields).expect("a write to memory does not fail");
            self.after = Some(task.id);
        }
        if self.read.len() == 0 && !self.more {
            json.extend_from_slice(if self.is_started { b"]" } else { b"[]" });
            self.is_complete = true;
        }
        json.into()
    }
}

/// The `Link` header of the next page, if there is one (RFC 8288).
fn next_page(page: Page, listing: &Listing) -> Option<HeaderValue> {
    let (limit, last) = (page.limit?, listing.tasks.last()?);
    // Relative, so that it is right behind a proxy that adds a path prefix.
    let link = format!("<?limit={limit}&after={}>; rel=\"next\"", last.id);
    let link = HeaderValue::try_from(link).ok();
    link.filter(|_| listing.more)
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    use crate::tasks::NewTask;

    /// The size of a chunk in bytes: 64 KiB, and less than one task of 1 KiB more.
    const FULL_CHUNK: Range<usize> = 65_536..66_560;

    /// The whole list of a tenant with this number of tasks, with long titles.
    async fn list(tasks: usize) -> TaskList {
        let store = Tasks::in_memory(tasks);
        let Task {
            owner, mut content, ..
        } = Task::example();
        content.title = Title::parse("x".repeat(Title::MAX_CHARS)).unwrap();
        for _ in 0..tasks {
            let new = NewTask {
                content: content.clone(),
                owner_name: "Ada".to_owned(),
                key: None,
            };
            store.insert(owner, new, None).await.unwrap();
        }
        let list = TaskList::start(store, owner.tenant, Reach::Tenant, Page::default());
        list.await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn long_list_is_sent_in_paced_chunks() {
        let started = Instant::now();
        let response = list(17 * READ_AT_ONCE).await.into_response();
        let mut body = response.into_body().into_data_stream();
        let mut chunks = Vec::new();
        while let Some(chunk) = body.next().await {
            chunks.push((chunk.unwrap(), started.elapsed()));
        }
        assert!(FULL_CHUNK.contains(&chunks[0].0.len()));
        assert!(chunks.len() > UNPACED_CHUNKS + 4);
        for (number, (chunk, sent)) in chunks.iter().enumerate() {
            assert!(chunk.len() < FULL_CHUNK.end);
            let paced = number.saturating_sub(UNPACED_CHUNKS) / 2;
            assert_eq!(*sent, PAUSE * u32::try_from(paced).unwrap(), "{number}");
        }
    }

    #[tokio::test]
    async fn list_without_a_limit_is_read_in_parts() {
        let rest = list(READ_AT_ONCE + 1).await.rest;
        assert!(rest.more, "all tasks were read at once");
    }

    #[tokio::test(start_paused = true)]
    async fn list_is_aborted_after_its_time_limit() {
        let mut list = list(READ_AT_ONCE * 2).await.rest;
        tokio::time::advance(LIST_TIMEOUT).await;
        assert!(list.next_chunk().await.is_ok());
        tokio::time::advance(Duration::from_millis(1)).await;
        let error = list.next_chunk().await.unwrap_err();
        let error = error.downcast::<io::Error>().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
