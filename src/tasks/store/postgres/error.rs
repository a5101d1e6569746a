//! Database errors, and whether a retry may help.

use std::{borrow::Cow, error::Error as _, io, time::Duration};

use anyhow::anyhow;
use deadpool_postgres::PoolError;
use thiserror::Error;
use tokio::time::timeout;
use tokio_postgres::error::{DbError, SqlState};

use super::tls;
use crate::tasks::StoreError;

/// Why a database operation failed.
#[derive(Debug, Error)]
pub enum DatabaseError {
    /// The database or its role is configured incorrectly. A retry does not help.
    #[error("{0}")]
    Unusable(Cow<'static, str>),
    /// There is no connection, the connection broke, or the server is temporarily unable to work.
    #[error("the database cannot be reached: {0:#}")]
    Unreachable(anyhow::Error),
    /// The server rejects the operation. Printed without `DETAIL`, which may repeat row content.
    #[error("the database rejects the operation: {} ({})", .0.message(), .0.code().code())]
    Rejected(#[source] Box<DbError>),
}

impl DatabaseError {
    pub(super) fn no_response_within(limit: Duration) -> Self {
        let limit = humantime::format_duration(limit);
        Self::Unreachable(anyhow!("no response within {limit}"))
    }
}

impl From<tokio_postgres::Error> for DatabaseError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(rejection) if !is_transient(rejection) => {
                Self::Rejected(Box::new(rejection.clone()))
            }
            Some(_) | None => match tls_problem(&error) {
                Some(problem) => Self::Unreachable(anyhow!(problem)),
                None => Self::Unreachable(error.into()),
            },
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
pub(crate) async fn with_timeout<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, DatabaseError>>,
) -> Result<T, DatabaseError> {
    match timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(DatabaseError::no_response_within(limit)),
    }
}

/// Whether a call failed without an effect and may succeed at once: it ran on a node of a distributed
/// database that its rows have just left, where the tenant is not set.
pub(super) fn may_be_repeated(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| {
        [
            SqlState::UNDEFINED_OBJECT,
            SqlState::INVALID_TEXT_REPRESENTATION,
            SqlState::INSUFFICIENT_PRIVILEGE,
        ]
        .contains(code)
    })
}

/// Whether the connection must not be used again: it is unclear what the server received, the server
/// stops, or it is now a standby. An error of class 08 from the server can be about another node.
pub(super) fn breaks_connection(error: &tokio_postgres::Error) -> bool {
    error.code().is_none_or(|code| {
        code.code().starts_with("57P") || *code == SqlState::READ_ONLY_SQL_TRANSACTION
    })
}

/// Whether a retry may help: a connection broke (class 08), the server lacks resources (53), starts
/// or stops (57P) or is now a standby, another session holds a lock, or a time limit passed.
fn is_transient(error: &DbError) -> bool {
    let code = error.code();
    let has_class = |class: &str| code.code().starts_with(class);
    // A connection pooler reports everything with this code, a wrong password too.
    let is_login_rejected = *code == SqlState::PROTOCOL_VIOLATION
        && ["authentication failed", "no such user", "no such database"]
            .iter()
            .any(|text| error.message().contains(text));
    (has_class("08") && !is_login_rejected)
        || has_class("53")
        || has_class("57P")
        || [
            SqlState::LOCK_NOT_AVAILABLE,
            // A time limit of the server.
            SqlState::QUERY_CANCELED,
            SqlState::READ_ONLY_SQL_TRANSACTION,
        ]
        .contains(code)
}

/// What is wrong with the server's certificate, if that is the reason.
fn tls_problem(error: &tokio_postgres::Error) -> Option<String> {
    let mut source = error.source();
    while let Some(error) = source {
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        if let Some(error) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Some(tls::explain(error));
        }
        source = error.source();
    }
    None
}
