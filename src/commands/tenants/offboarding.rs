//! The tasks of a tenant that leaves: exported, and erased.

use std::{
    io::{self, BufWriter, Write},
    time::Duration,
};

use anyhow::bail;
use serde::Serialize;
use tokio::time::sleep;

use super::{progress::progress, registry::Registry};
use crate::{
    ids::{TaskId, TenantId, UserId},
    tasks::store::postgres::{config::DatabaseConfig, tenant::TenantData},
};

/// How long after its suspension a tenant's tasks can be erased. By then, every replica that reaches
/// the database rejects the tenant, and requests in flight have ended.
const QUIET: Duration = Duration::from_secs(10);

/// A line of the export.
#[derive(Serialize)]
struct ExportedTask<'a> {
    id: TaskId,
    title: &'a str,
    completed: bool,
    owner_id: UserId,
    owner_name: &'a str,
    tenant_id: TenantId,
}

/// Writes the tasks to standard output, oldest first.
pub(super) async fn export(database: &DatabaseConfig, tenant: TenantId) -> anyhow::Result<()> {
    let data = TenantData::connect(database, tenant).await?;
    let bar = progress(data.count().await?);
    let mut out = BufWriter::new(io::stdout());
    let mut after = None;
    loop {
        let tasks = data.next_tasks(after).await?;
        let Some(last) = tasks.last() else {
            break;
        };
        after = Some(last.id);
        for task in &tasks {
            let line = ExportedTask {
                id: task.id,
                title: task.content.title.as_str(),
                completed: task.content.completed,
                owner_id: task.owner.user,
                owner_name: &task.owner_name,
                tenant_id: tenant,
            };
            serde_json::to_writer(&mut out, &line)?;
            writeln!(out)?;
        }
        bar.inc(tasks.len() as u64);
    }
    out.flush()?;
    bar.finish_and_clear();
    Ok(())
}

/// Deletes the tasks in batches. If this is interrupted, it can be repeated.
pub(super) async fn erase(registry: &Registry, tenant: TenantId) -> anyhow::Result<()> {
    let Some(seconds) = registry.client.suspended_for(tenant).await? else {
        bail!("{tenant} is not suspended: run tenants suspend first. Nothing was erased.");
    };
    let data = TenantData::connect(&registry.database, tenant).await?;
    let count = data.count().await?;
    eprintln!("Tasks to delete: {count}. Type the tenant's ID again to continue:");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if answer.trim().parse() != Ok(tenant) {
        bail!("this is not the ID of the tenant. Nothing was erased.");
    }
    sleep(QUIET.saturating_sub(Duration::from_secs_f64(seconds.max(0.0)))).await;
    let bar = progress(count);
    let mut erased = 0;
    loop {
        let deleted = data.erase_some().await?;
        if deleted == 0 {
            break;
        }
        erased += deleted;
        bar.inc(deleted);
    }
    bar.finish_and_clear();
    registry.log_erasure(tenant, erased).await?;
    writeln!(io::stdout(), "{tenant}: erased. Deleted tasks: {erased}")?;
    Ok(())
}
