//! What keeps the database from doing what it was asked.

use deadpool_postgres::PoolError;
use thiserror::Error;
use tokio_postgres::error::{DbError, SqlState};

use crate::tasks::store::StoreError;

/// What keeps the database from doing what it was asked.
#[derive(Debug, Error)]
pub enum DatabaseError {
    /// It must not be used like this, and waiting does not change that.
    #[error("{0}")]
    Unusable(&'static str),
    /// There is no connection, the one there was broke, or its server cannot work just now.
    #[error("the database cannot be reached: {}", with_causes(.0.as_ref()))]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It answers that it will not. Told without its `DETAIL`, which repeats what is in a row.
    #[error("the database refuses: {} ({})", .0.message(), .0.code().code())]
    Refused(#[source] Box<DbError>),
}

impl DatabaseError {
    /// Whether it was refused because of the table's check of this name.
    pub(super) fn violates(&self, constraint: &str) -> bool {
        match self {
            Self::Refused(error) => {
                *error.code() == SqlState::CHECK_VIOLATION && error.constraint() == Some(constraint)
            }
            Self::Unusable(_) | Self::Unreachable(_) => false,
        }
    }
}

impl From<tokio_postgres::Error> for DatabaseError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(refusal) if !is_passing(refusal.code()) => {
                Self::Refused(Box::new(refusal.clone()))
            }
            Some(_) | None => Self::Unreachable(error.into()),
        }
    }
}

impl From<PoolError> for DatabaseError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => error.into(),
            error => Self::Unreachable(error.into()),
        }
    }
}

impl From<DatabaseError> for StoreError {
    fn from(error: DatabaseError) -> Self {
        Self::Unavailable(error.into())
    }
}

/// What went wrong, and why: the outermost error alone would say "error connecting to server".
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// Whether this may be over on a new connection: a broken connection (class 08), no room (53), a server that
/// starts or stops (57P) or has become a standby, a lock of another replica's, or a connection in a state that its
/// next user could do nothing with.
fn is_passing(code: &SqlState) -> bool {
    let is_of_class = |class: &str| code.code().starts_with(class);
    is_of_class("08")
        || is_of_class("53")
        || is_of_class("57P")
        || [
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::READ_ONLY_SQL_TRANSACTION,
            SqlState::IN_FAILED_SQL_TRANSACTION,
            // Prepared statements that no longer fit the tables, or are gone.
            SqlState::FEATURE_NOT_SUPPORTED,
            SqlState::INVALID_SQL_STATEMENT_NAME,
        ]
        .contains(code)
}
