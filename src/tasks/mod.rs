//! Tasks: what they are, and what a caller may ask of them.
//!
//! A [`Title`] can only be made by parsing, so what the store holds is always valid.

pub mod handlers;
pub mod request;
pub mod response;
pub mod store;

use std::sync::Arc;

use thiserror::Error;
use utoipa::ToSchema;

use crate::ids::{Owner, TaskId};

/// A task as the store holds it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Task {
    /// Counted from 1 in each tenant.
    pub id: TaskId,
    /// Whose task it is, and in which tenant.
    pub owner: Owner,
    /// The owner's name on the day the task was created; shared by their tasks.
    pub owner_name: Arc<str>,
    /// What is to be done.
    pub title: Title,
    /// Whether it has been done.
    pub completed: bool,
}

/// What is needed to create a task; the store adds the id.
#[derive(Clone, Debug)]
pub struct NewTask {
    /// What is to be done.
    pub title: Title,
    /// The creator's name, kept with the task.
    pub owner_name: String,
}

/// The members of a task that a caller wants changed; one that is left out stays as it is.
#[derive(Clone, Debug, Default, ToSchema)]
pub struct TaskUpdate {
    /// A new title.
    #[schema(nullable = false)]
    pub title: Option<Title>,
    /// Done, or not done after all.
    #[schema(nullable = false)]
    pub completed: Option<bool>,
}

/// 1 to 500 characters, not blank, without control characters, kept exactly as sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Title(Box<str>);

/// Why a text cannot be a [`Title`].
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum TitleError {
    /// No character at all.
    #[error("String should have at least 1 character")]
    Empty,
    /// More than [`Title::MAX_CHARS`] characters.
    #[error("String should have at most {} characters", Title::MAX_CHARS)]
    TooLong,
    /// A control character, such as a line break.
    #[error("String should not contain control characters")]
    Control,
    /// Nothing but white space.
    #[error("String should not be blank")]
    Blank,
}

/// Which part of a list is wanted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Page {
    /// Only tasks with a larger id than this.
    pub after: Option<TaskId>,
    /// At most this many tasks; `None` for all of them.
    pub limit: Option<usize>,
}

impl Title {
    /// The longest title, in Unicode scalar values.
    pub const MAX_CHARS: usize = 500;

    /// Parses a title, and keeps it exactly as it is.
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

    /// A title that was parsed before it was stored.
    fn from_store(text: String) -> Self {
        Self(text.into())
    }

    /// The title as it was sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
