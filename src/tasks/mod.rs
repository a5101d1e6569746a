//! Tasks: the domain types. They do not depend on tokens or on axum.
//!
//! To store another resource, replace [`Content`] and [`TaskUpdate`]. Types with titles or names have
//! no `Debug`, so that neither can slip into a log.

pub mod handlers;
pub mod request;
pub mod response;
pub mod store;
pub mod title;

use std::{sync::Arc, time::Duration};

use aws_lc_rs::digest::{Context, SHA256};
use strum::{IntoStaticStr, VariantNames};
use thiserror::Error;
use utoipa::{IntoParams, ToSchema};

use self::title::Title;
use crate::ids::{Owner, TaskId};

/// A task in the store.
#[derive(Clone, Eq, PartialEq)]
pub struct Task {
    /// The id, counted from 1 in each tenant.
    pub id: TaskId,
    /// The owner and their tenant.
    pub owner: Owner,
    /// The owner's name when the task was created. In memory, the owner's tasks share the text.
    pub owner_name: Arc<str>,
    /// What users write.
    pub content: Content,
}

/// The part of a task that users write. The store in memory does not read its fields.
#[derive(Clone, Eq, PartialEq)]
pub struct Content {
    /// The title.
    pub title: Title,
    /// Whether the task is done.
    pub completed: bool,
}

/// A task to create. The store assigns the id.
#[derive(Clone)]
pub struct NewTask {
    /// What the user wrote.
    pub content: Content,
    /// The owner's current name.
    pub owner_name: String,
    /// With a key, a repeated request creates one task.
    pub key: Option<IdempotencyKey>,
}

/// A client's name for a request that it may repeat, remembered for a day for each user. The rules
/// are those of draft-ietf-httpapi-idempotency-key-header.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct IdempotencyKey(Arc<str>);

/// A created task, and how much of the tenant's limit is used.
pub struct Created {
    /// The task.
    pub task: Arc<Task>,
    /// The tenant's number of tasks.
    pub usage: Usage,
    /// Whether an earlier request with the same key created the task.
    pub is_replayed: bool,
}

/// A tenant's number of tasks and its limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Usage {
    /// The number of tasks.
    pub count: usize,
    /// The maximum number of tasks.
    pub max: usize,
}

/// The changes to a task. A member that is left out stays the same.
#[derive(Clone, Default, ToSchema)]
pub struct TaskUpdate {
    /// A new title.
    #[schema(nullable = false)]
    pub title: Option<Title>,
    /// Whether the task is done.
    #[schema(nullable = false)]
    pub completed: Option<bool>,
}

/// Which part of a list to return.
#[derive(Clone, Copy, Debug, Default, Eq, IntoParams, PartialEq)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// Maximum number of tasks to return
    #[param(minimum = 1, maximum = 1000, nullable = false)]
    pub limit: Option<usize>,
    /// Return only tasks with a larger id
    #[param(nullable = false)]
    pub after: Option<TaskId>,
}

/// One page of a list of tasks.
#[derive(Clone, Default)]
pub struct Listing {
    /// The tasks, oldest first. They are shared with the store, not copied.
    pub tasks: Vec<Arc<Task>>,
    /// Whether there are more tasks after the last one.
    pub more: bool,
}

/// Why a store operation failed. A failed operation has changed nothing. Exception: after
/// `Unavailable`, the whole operation may have been applied.
#[derive(Debug, Error, IntoStaticStr, VariantNames)]
pub enum StoreError {
    /// The store cannot be reached, or failed.
    #[error("the task store is unavailable: {0}")]
    #[strum(serialize = "store_unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Like `Unavailable`, for a creation without a key. A client that repeats it may create a second
    /// task.
    #[error("the task store is unavailable: {0}")]
    #[strum(serialize = "store_unacknowledged")]
    Unacknowledged(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The user has used the key for another request.
    #[error("the idempotency key was used for another request")]
    #[strum(serialize = "idempotency_key_reused")]
    KeyReused,
    /// The tenant has reached its limit of tasks.
    #[error("the tenant has reached its limit of {max} tasks")]
    #[strum(serialize = "too_many_tasks")]
    Full {
        /// The limit.
        max: usize,
    },
}

#[cfg(test)]
impl Task {
    /// A task for unit tests.
    fn example() -> Self {
        let id = "11111111-1111-4111-8111-111111111111";
        Self {
            id: TaskId::FIRST,
            owner: Owner {
                tenant: id.parse().unwrap(),
                user: id.parse().unwrap(),
            },
            owner_name: "Ada".into(),
            content: Content {
                title: Title::parse("Buy milk".to_owned()).unwrap(),
                completed: false,
            },
        }
    }
}

impl IdempotencyKey {
    /// How long a key is remembered.
    pub const LIFETIME: Duration = Duration::from_hours(24);

    /// Parses a key of 1 to 255 visible ASCII characters.
    pub fn parse(text: &str) -> Option<Self> {
        let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        let is_valid = is_visible && (1..=255).contains(&text.len());
        is_valid.then(|| Self(text.into()))
    }

    /// The characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Content {
    /// A digest with which two requests with the same key are compared.
    fn digest(&self) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        context.update(&[u8::from(self.completed)]);
        context.update(self.title.as_str().as_bytes());
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }

    /// Applies an update.
    pub fn apply(&mut self, update: TaskUpdate) {
        let TaskUpdate { title, completed } = update;
        if let Some(title) = title {
            self.title = title;
        }
        if let Some(completed) = completed {
            self.completed = completed;
        }
    }
}

impl Usage {
    /// Whether the tenant has at least 80 % of its maximum number of tasks.
    pub fn is_near_limit(self) -> bool {
        self.count.saturating_mul(5) >= self.max.saturating_mul(4)
    }
}

impl Page {
    /// The largest `limit`.
    pub(crate) const MAX_LIMIT: usize = 1000;
}
