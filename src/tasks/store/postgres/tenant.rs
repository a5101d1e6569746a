//! All tasks of one tenant, for the commands that export and erase them.

use std::sync::Arc;

use tokio_postgres::{Client, Row, types::Type};
use uuid::Uuid;

use super::{LIST, checks, config::DatabaseConfig, error::DatabaseError, pool::Call, task};
use crate::{
    ids::{TaskId, TenantId},
    tasks::Task,
};

const COUNT: &str = "SELECT task_count FROM count_tasks($1)";

const ERASE: &str = "SELECT erased FROM erase_tasks($1, $2)";

/// The number of tasks that one call reads or deletes. A call must end within the time limit of a
/// statement.
const BATCH: i64 = 2000;

/// A tenant's tasks, read and erased over one connection.
pub struct TenantData {
    client: Client,
    tenant: TenantId,
}

impl TenantData {
    /// Connects to the database.
    pub async fn connect(
        database: &DatabaseConfig,
        tenant: TenantId,
    ) -> Result<Self, DatabaseError> {
        let client = database.open().await?;
        checks::check_isolation(&client).await?;
        Ok(Self { client, tenant })
    }

    /// The number of tasks.
    pub async fn count(&self) -> Result<u64, DatabaseError> {
        let rows = self.send(Call::new(COUNT, self.tenant)).await?;
        Ok(number(&rows))
    }

    /// The next tasks after this one, oldest first; empty after the last.
    pub async fn next_tasks(&self, after: Option<TaskId>) -> Result<Vec<Arc<Task>>, DatabaseError> {
        let call = Call::new(LIST, self.tenant)
            .with(None::<Uuid>, Type::UUID)
            .with(after.map_or(0, i64::from), Type::INT8)
            .with(BATCH, Type::INT8);
        let rows = self.send(call).await?;
        Ok(rows
            .iter()
            .map(|row| Arc::new(task(self.tenant, row)))
            .collect())
    }

    /// Deletes some tasks, oldest first, and returns their number. The tenant must be suspended. After
    /// the last task, this deletes the tenant's counters and returns 0.
    pub async fn erase_some(&self) -> Result<u64, DatabaseError> {
        let call = Call::new(ERASE, self.tenant).with(BATCH, Type::INT8);
        Ok(number(&self.send(call).await?))
    }

    async fn send(&self, call: Call) -> Result<Vec<Row>, DatabaseError> {
        Ok(call.send(&self.client).await?)
    }
}

fn number(rows: &[Row]) -> u64 {
    let number = rows.first().map_or(0, |row| row.get::<_, i64>(0));
    u64::try_from(number).unwrap_or(0)
}
