//! Tasks: the domain types. They do not depend on tokens or on axum.
//!
//! Only [`Title::parse`] creates a [`Title`] from input, so the store holds only valid titles.

pub mod handlers;
pub mod request;
pub mod response;
pub mod store;

use std::sync::Arc;

use strum::{IntoStaticStr, VariantNames};
use thiserror::Error;
use utoipa::{IntoParams, ToSchema};

use crate::ids::{Owner, TaskId};

/// A task in the store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Task {
    /// The id, counted from 1 in each tenant.
    pub id: TaskId,
    /// The owner and their tenant.
    pub owner: Owner,
    /// The owner's name when the task was created. In memory, the owner's tasks share the text.
    pub owner_name: Arc<str>,
    /// The title.
    pub title: Title,
    /// Whether the task is done.
    pub completed: bool,
}

/// A task to create. The store assigns the id.
#[derive(Clone, Debug)]
pub struct NewTask {
    /// The title.
    pub title: Title,
    /// The owner's current name.
    pub owner_name: String,
}

/// The changes to a task. A member that is left out stays the same.
#[derive(Clone, Debug, Default, ToSchema)]
pub struct TaskUpdate {
    /// A new title.
    #[schema(nullable = false)]
    pub title: Option<Title>,
    /// Whether the task is done.
    #[schema(nullable = false)]
    pub completed: Option<bool>,
}

/// A title: 1 to 500 characters, not blank, no control characters, stored exactly as sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Title(Box<str>);

/// Why a text is not a [`Title`].
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[expect(missing_docs, reason = "the error texts say what the variants mean")]
pub enum TitleError {
    #[error("String should have at least 1 character")]
    Empty,
    #[error("String should have at most {} characters", Title::MAX_CHARS)]
    TooLong,
    #[error("String should not contain control characters")]
    Control,
    #[error("String should not be blank")]
    Blank,
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
#[derive(Clone, Debug, Default)]
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
    /// The tenant has reached its limit of tasks.
    #[error("the tenant has reached its limit of {max} tasks")]
    #[strum(serialize = "too_many_tasks")]
    Full {
        /// The limit.
        max: usize,
    },
}

impl Page {
    /// The largest `limit`.
    pub(crate) const MAX_LIMIT: usize = 1000;
}

impl Title {
    /// The longest title, in Unicode scalar values.
    pub const MAX_CHARS: usize = 500;

    /// Parses a title without changing it.
    ///
    /// # Errors
    ///
    /// The first [`TitleError`] that applies.
    pub fn parse(text: String) -> Result<Self, TitleError> {
        if text.is_empty() {
            Err(TitleError::Empty)
        } else if text.chars().count() > Self::MAX_CHARS {
            Err(TitleError::TooLong)
        } else if text.chars().any(char::is_control) {
            Err(TitleError::Control)
        } else if text.trim().is_empty() {
            Err(TitleError::Blank)
        } else {
            Ok(Self(text.into()))
        }
    }

    /// A title from the store, which was parsed before it was stored.
    fn from_store(text: String) -> Self {
        Self(text.into())
    }

    /// The title as it was sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
