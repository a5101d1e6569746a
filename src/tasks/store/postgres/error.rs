//! Database errors, and whether a retry may help.

use std::time::Duration;

use deadpool_postgres::PoolError;
use thiserror::Error;
use tokio::time::timeout;
use tokio_postgres::error::{DbError, SqlState};

use crate::tasks::StoreError;

/// Why a database operation failed.
#[derive(Debug, Error)]
pub enum DatabaseError {
    /// The database or its role is configured incorrectly. A retry does not help.
    #[error("{0}")]
    Unusable(&'static str),
    /// There is no connection, the connection broke, or the server is temporarily unable to work.
    #[error("the database cannot be reached: {0:#}")]
    Unreachable(anyhow::Error),
    /// The server rejects the operation. Printed without `DETAIL`, which may repeat row content.
    #[error("the database rejects the operation: {} ({})", .0.message(), .0.code().code())]
    Rejected(#[source] Box<DbError>),
}

impl DatabaseError {
    /// Whether the operation violates the check constraint with this name.
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
            "no response within {}",
            humantime::format_duration(limit)
        ))),
    }
}

/// Whether a retry on a new connection may help: the connection broke (class 08), the server lacks
/// resources (53), starts or stops (57P) or is now a standby, another session holds a lock, or the
/// state of this connection would make later requests fail too.
fn is_transient(code: &SqlState) -> bool {
    let has_class = |class: &str| code.code().starts_with(class);
    has_class("08")
        || has_class("53")
        || has_class("57P")
        || [
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::READ_ONLY_SQL_TRANSACTION,
            SqlState::IN_FAILED_SQL_TRANSACTION,
            // A prepared statement no longer exists or no longer matches the tables.
            SqlState::FEATURE_NOT_SUPPORTED,
            SqlState::INVALID_SQL_STATEMENT_NAME,
        ]
        .contains(code)
}
