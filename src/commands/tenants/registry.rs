//! The registry in PostgreSQL: who may sign in, for all replicas.

use std::{
    collections::BTreeSet,
    fmt::Display,
    io::{self, Write},
    num::NonZeroU32,
};

use anyhow::bail;

use super::progress::progress;
use crate::{
    config::{
        env_file,
        settings::{ALLOWED_TENANT_IDS, Settings, Variables},
    },
    ids::TenantId,
    registry::client::{Outcome, RegisteredTenant, RegistryClient, Status, TenantChange},
    tasks::store::postgres::{config::DatabaseConfig, error::DatabaseError},
};

/// The registry, with the tenants that the settings of this machine list.
pub(super) struct Registry {
    pub(super) client: RegistryClient,
    pub(super) database: DatabaseConfig,
    in_settings: BTreeSet<TenantId>,
    is_open: bool,
    /// Who runs the command.
    by: String,
}

impl Registry {
    /// Connects to the registry; `None` if `DATABASE_URL` is not set.
    pub(super) async fn open(variables: &Variables) -> anyhow::Result<Option<Self>> {
        let settings = Settings::new(variables);
        let Some(database) = settings.database()? else {
            return Ok(None);
        };
        let tenants = settings.listed_tenants()?;
        Ok(Some(Self {
            client: RegistryClient::connect(&database).await?,
            database,
            in_settings: tenants.listed().clone(),
            is_open: tenants.is_open(),
            by: env_file::user_name().unwrap_or_else(|| "unknown".to_owned()),
        }))
    }

    pub(super) fn tenants_in_settings(&self) -> Vec<TenantId> {
        self.in_settings.iter().copied().collect()
    }

    pub(super) async fn list(&self, json: bool) -> anyhow::Result<()> {
        let mut out = io::stdout();
        let tenants = self.client.tenants().await?;
        if json {
            writeln!(out, "{}", serde_json::to_string_pretty(&tenants)?)?;
            return Ok(());
        }
        if self.is_open {
            eprintln!(
                "ALLOW_ANY_TENANT=true: users of any tenant may sign in that is not suspended."
            );
        }
        let registered: BTreeSet<_> = tenants.iter().map(|tenant| tenant.tenant_id).collect();
        for tenant in &tenants {
            let RegisteredTenant {
                tenant_id, status, ..
            } = tenant;
            let name = tenant.name.as_deref().unwrap_or_default();
            let line = format!("{tenant_id}  {status:<9}  registry  {name}");
            writeln!(out, "{}", line.trim_end())?;
        }
        for tenant in self.in_settings.difference(&registered) {
            writeln!(out, "{tenant}  active     settings")?;
        }
        Ok(())
    }

    /// Returns whether users of the tenant may sign in.
    pub(super) async fn show(&self, tenant: TenantId, json: bool) -> anyhow::Result<bool> {
        let mut out = io::stdout();
        let tenants = self.client.tenants().await?;
        let in_settings = self.in_settings.contains(&tenant);
        let Some(found) = tenants.iter().find(|entry| entry.tenant_id == tenant) else {
            if json {
                writeln!(out, "null")?;
            } else if in_settings {
                writeln!(
                    out,
                    "{tenant}: not in the registry, but the settings of this folder list it"
                )?;
            } else {
                writeln!(out, "{tenant}: not in the registry")?;
            }
            return Ok(in_settings || self.is_open);
        };
        if json {
            writeln!(out, "{}", serde_json::to_string_pretty(found)?)?;
            return Ok(found.status == Status::Active);
        }
        let limit = |limit: Option<NonZeroU32>| {
            limit.map_or_else(
                || "as in the settings".to_owned(),
                |limit| limit.to_string(),
            )
        };
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
        for (name, value) in [
            ("tenant", tenant.to_string()),
            ("name", text(&found.name)),
            ("status", found.status.to_string()),
            ("max tasks", limit(found.max_tasks)),
            ("rate limit", limit(found.rate_limit)),
            ("note", text(&found.note)),
            ("added", format!("{} by {}", found.added_at, found.added_by)),
        ] {
            writeln!(out, "{name:<11} {value}")?;
        }
        if in_settings {
            writeln!(out, "the settings of this folder list the tenant, too")?;
        }
        Ok(found.status == Status::Active)
    }

    pub(super) async fn add(
        &self,
        tenants: &[TenantId],
        change: &TenantChange,
    ) -> anyhow::Result<()> {
        let put = async |tenant| self.client.put(tenant, change, &self.by).await;
        self.for_each(tenants, put, |outcome| match outcome {
            Outcome::Added => "added",
            Outcome::Changed => "changed",
            Outcome::Unchanged | Outcome::Unknown => "already in the registry",
        })
        .await?;
        for tenant in self.client.tenants().await? {
            if tenant.status == Status::Suspended && tenants.contains(&tenant.tenant_id) {
                let tenant = tenant.tenant_id;
                writeln!(
                    io::stdout(),
                    "{tenant}: is suspended. Run tenants resume to admit its users."
                )?;
            }
        }
        Ok(())
    }

    pub(super) async fn suspend(&self, tenants: &[TenantId]) -> anyhow::Result<()> {
        let suspend = async |tenant| {
            let status = Status::Suspended;
            self.client.set_status(tenant, status, &self.by).await
        };
        self.for_each(tenants, suspend, |outcome| match outcome {
            Outcome::Unchanged => "already suspended",
            Outcome::Added | Outcome::Changed | Outcome::Unknown => "suspended",
        })
        .await?;
        Ok(())
    }

    /// Returns whether all tenants are in the registry.
    pub(super) async fn resume(&self, tenants: &[TenantId]) -> anyhow::Result<bool> {
        let resume = async |tenant| {
            let status = Status::Active;
            self.client.set_status(tenant, status, &self.by).await
        };
        let outcomes = self.for_each(tenants, resume, |outcome| match outcome {
            Outcome::Unchanged => "is not suspended",
            Outcome::Added | Outcome::Changed => "resumed",
            Outcome::Unknown => "not in the registry",
        });
        let outcomes = outcomes.await?;
        Ok(!outcomes.contains(&Outcome::Unknown))
    }

    /// Returns whether none of the tenants is allowed by the settings of this folder.
    pub(super) async fn remove(&self, tenants: &[TenantId]) -> anyhow::Result<bool> {
        for tenant in self.client.tenants().await? {
            if tenant.status == Status::Suspended && tenants.contains(&tenant.tenant_id) {
                let tenant = tenant.tenant_id;
                eprintln!(
                    "{tenant}: its suspension ends, too. A replica whose settings list it, or with \
                     ALLOW_ANY_TENANT=true, admits its users again."
                );
            }
        }
        let remove = async |tenant| self.client.remove(tenant, &self.by).await;
        self.for_each(tenants, remove, |outcome| match outcome {
            Outcome::Unknown | Outcome::Unchanged => "not in the registry",
            Outcome::Added | Outcome::Changed => "removed",
        })
        .await?;
        let listed = tenants
            .iter()
            .filter(|tenant| self.in_settings.contains(tenant));
        let listed: Vec<_> = listed.collect();
        for tenant in &listed {
            eprintln!(
                "{tenant}: the settings of this folder list it ({ALLOWED_TENANT_IDS} or \
                 AZURE_HOME_TENANT_ID), so its users may still sign in. Remove it there, or run \
                 tenants suspend."
            );
        }
        Ok(listed.is_empty())
    }

    pub(super) async fn log_erasure(&self, tenant: TenantId, count: u64) -> anyhow::Result<()> {
        self.client.log_erasure(tenant, count, &self.by).await?;
        Ok(())
    }

    pub(super) async fn revoke(
        &self,
        key_ids: &[String],
        reason: Option<&str>,
    ) -> anyhow::Result<()> {
        let revoke = async |key_id: String| self.client.revoke_key(&key_id, reason, &self.by).await;
        self.for_each(key_ids, revoke, |outcome| match outcome {
            Outcome::Unchanged => "already revoked",
            Outcome::Added | Outcome::Changed | Outcome::Unknown => "revoked",
        })
        .await?;
        Ok(())
    }

    pub(super) async fn restore(&self, key_ids: &[String]) -> anyhow::Result<()> {
        let restore = async |key_id: String| self.client.restore_key(&key_id, &self.by).await;
        self.for_each(key_ids, restore, |outcome| match outcome {
            Outcome::Unchanged | Outcome::Unknown => "is not revoked",
            Outcome::Added | Outcome::Changed => "restored",
        })
        .await?;
        Ok(())
    }

    pub(super) async fn list_keys(&self, json: bool) -> anyhow::Result<()> {
        let mut out = io::stdout();
        let keys = self.client.keys().await?;
        if json {
            writeln!(out, "{}", serde_json::to_string_pretty(&keys)?)?;
            return Ok(());
        }
        for key in keys {
            let reason = key.reason.unwrap_or_default();
            let (key_id, at, by) = (key.key_id, key.revoked_at, key.revoked_by);
            let line = format!("{key_id}  {at}  {by}  {reason}");
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    /// Changes one entry after another, each in a transaction, and prints every outcome.
    async fn for_each<T, F>(
        &self,
        entries: &[T],
        change: impl Fn(T) -> F,
        describe: impl Fn(Outcome) -> &'static str,
    ) -> anyhow::Result<Vec<Outcome>>
    where
        T: Clone + Display,
        F: Future<Output = Result<Outcome, DatabaseError>>,
    {
        let mut outcomes = Vec::new();
        let bar = progress(entries.len() as u64);
        for entry in entries {
            let outcome = match change(entry.clone()).await {
                Ok(outcome) => outcome,
                Err(error) if outcomes.is_empty() => bail!("{entry}: {error}"),
                Err(error) => bail!("{entry}: {error}. The entries before it were processed."),
            };
            let text = describe(outcome);
            bar.suspend(|| writeln!(io::stdout(), "{entry}: {text}"))?;
            bar.inc(1);
            outcomes.push(outcome);
        }
        bar.finish_and_clear();
        let is_changed = |outcome: &Outcome| matches!(outcome, Outcome::Added | Outcome::Changed);
        if outcomes.iter().any(is_changed) {
            writeln!(
                io::stdout(),
                "Registry in the database updated. Every replica applies it within two seconds."
            )?;
        }
        Ok(outcomes)
    }
}
