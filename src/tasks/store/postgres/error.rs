//! Why the database did not do an operation.

use std::time::Duration;

use deadpool_postgres::PoolError;
use thiserror::Error;
use tokio::time::timeout;
use tokio_postgres::error::{DbError, SqlState};

use crate::tasks::StoreError;

/// Why the database did not do an operation.
#[derive(Debug, Error)]
pub enum DatabaseError {
    /// The database must not be used like this. A retry does not help.
    #[error("{0}")]
    Unusable(&'static str),
    /// There is no connection, the connection broke, or the server cannot work now.
    #[error("the database cannot be reached: {0:#}")]
    Unreachable(anyhow::Error),
    /// The server rejects the operation. Printed without `DETAIL`, which may repeat row content.
    #[error("the database rejects the operation: {} ({})", .0.message(), .0.code().code())]
    Rejected(#[source] Box<DbError>),
}

impl DatabaseError {
    /// Whether the check constraint of this name rejected the operation.
    pub(super) fn violates(&self, constraint: &str) -> bool {
        match self {
            Self::Rejected(error) => {
                *error.code() == SqlState::CHECK_VIOLATION && error.constraint() == Some(constraint)
            }
            Self::Unusable(_) | Self::Unreachable(_) => false,
        }
    }
}

impl From<tokio_postgres::Error> for DatabaseError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(rejection) if !is_transient(rejection.code()) => {
                Self::Rejected(Box::new(rejection.clone()))
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

/// Runs `work` with a time limit.
pub(super) async fn with_timeout<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, DatabaseError>>,
) -> Result<T, DatabaseError> {
    match timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(DatabaseError::Unreachable(anyhow::anyhow!(
            "no response within {limit:?}"
        ))),
    }
}

/// Whether a new connection may help: a broken connection (class 08), no resources (53), a server
/// that starts or stops (57P) or is a standby now, another replica's lock, or a connection in a
/// state that its next user cannot recover from.
fn is_transient(code: &SqlState) -> bool {
    let has_class = |class: &str| code.code().starts_with(class);
    has_class("08")
        || has_class("53")
        || has_class("57P")
        || [
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::READ_ONLY_SQL_TRANSACTION,
            SqlState::IN_FAILED_SQL_TRANSACTION,
            // Prepared statements that are gone or do not match the tables any more.
            SqlState::FEATURE_NOT_SUPPORTED,
            SqlState::INVALID_SQL_STATEMENT_NAME,
        ]
        .contains(code)
}
