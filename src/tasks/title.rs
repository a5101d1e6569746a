//! The title of a task.
//!
//! Only [`Title::parse`] creates a [`Title`] from input, so the store holds only valid titles.

use thiserror::Error;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

/// A title: 1 to 500 characters, not blank, no control characters, stored exactly as sent.
#[derive(Clone, Eq, PartialEq)]
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
    pub(super) fn from_store(text: String) -> Self {
        Self(text.into())
    }

    /// The title as it was sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The derive macro does not support these bounds and patterns.
impl PartialSchema for Title {
    fn schema() -> RefOr<Schema> {
        const CONTROL: &str = r"\u0000-\u001f\u007f-\u009f";
        const WHITE: &str = r"\u0020\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000";
        let pattern = format!("^[^{CONTROL}]*[^{CONTROL}{WHITE}][^{CONTROL}]*$");
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(
                "Not blank, without control characters, stored exactly as sent",
            ))
            .min_length(Some(1))
            .max_length(Some(Title::MAX_CHARS))
            .pattern(Some(pattern))
            .examples(["Buy milk"])
            .into()
    }
}

impl ToSchema for Title {}
