//! The statements on the registry. Each change is one statement and therefore one transaction.

use std::{borrow::Cow, num::NonZeroU32};

use serde::Serialize;
use strum::{Display, EnumString};
use tokio_postgres::{
    Client, Row,
    error::SqlState,
    types::{ToSql, Type},
};
use uuid::Uuid;

use crate::{
    auth::{RegistryContent, TenantProfile},
    ids::{KeyId, TenantId},
    tasks::store::postgres::{config::DatabaseConfig, error::DatabaseError},
};

const VERSION: &str = "SELECT coalesce(max(version), 0) FROM registry_log";

const CONTENT: &str = "SELECT tenant_id, name, status, max_tasks, rate_limit FROM allowed_tenants";

const KEY_IDS: &str = "SELECT key_id FROM revoked_keys";

const TENANTS: &str = "SELECT tenant_id, name, status, max_tasks, rate_limit, note, added_by, \
    to_char(added_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS added_at \
    FROM allowed_tenants ORDER BY tenant_id";

const KEYS: &str = "SELECT key_id, reason, revoked_by, \
    to_char(revoked_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS revoked_at \
    FROM revoked_keys ORDER BY key_id";

/// The time since a tenant was suspended, in seconds; NULL if it is not suspended.
const SUSPENDED_FOR: &str = "SELECT extract(epoch FROM now() - status_since)::float8 \
    FROM allowed_tenants WHERE tenant_id = $1 AND status = 'suspended'";

/// A connection to the registry.
pub struct RegistryClient(Client);

/// Whether the users of a tenant in the registry may sign in.
#[derive(Clone, Copy, Debug, Display, EnumString, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Status {
    /// They may.
    Active,
    /// They may not, although the settings may list the tenant.
    Suspended,
}

/// What a change did.
#[derive(Clone, Copy, Debug, EnumString, Eq, PartialEq)]
#[strum(serialize_all = "snake_case")]
pub enum Outcome {
    /// A new entry was added.
    Added,
    /// An entry was changed or removed.
    Changed,
    /// Everything was already so.
    Unchanged,
    /// There is no such entry.
    Unknown,
}

/// A tenant in the registry. The members are those of the JSON output.
#[derive(Clone, Debug, Serialize)]
pub struct RegisteredTenant {
    /// The tenant.
    pub tenant_id: TenantId,
    /// The name that users see.
    pub name: Option<String>,
    /// Whether its users may sign in.
    pub status: Status,
    /// Its own maximum number of tasks.
    pub max_tasks: Option<NonZeroU32>,
    /// Its own maximum number of requests per second.
    pub rate_limit: Option<NonZeroU32>,
    /// A note for operators.
    pub note: Option<String>,
    /// When it was added, in UTC.
    pub added_at: String,
    /// Who added it.
    pub added_by: String,
}

/// A revoked key in the registry.
#[derive(Clone, Debug, Serialize)]
pub struct RevokedKey {
    /// The key's id.
    pub key_id: String,
    /// When it was revoked, in UTC.
    pub revoked_at: String,
    /// Who revoked it.
    pub revoked_by: String,
    /// Why.
    pub reason: Option<String>,
}

/// What to record about a tenant. `None` keeps a value; `""` and 0 remove it.
#[derive(Clone, Debug, Default)]
pub struct TenantChange {
    /// The name that users see.
    pub name: Option<String>,
    /// The maximum number of tasks.
    pub max_tasks: Option<u32>,
    /// The maximum number of requests per second.
    pub rate_limit: Option<u32>,
    /// A note for operators.
    pub note: Option<String>,
}

impl RegistryClient {
    /// Connects to the database.
    pub async fn connect(database: &DatabaseConfig) -> Result<Self, DatabaseError> {
        Ok(Self(database.open().await?))
    }

    /// Reads the registry once.
    pub async fn read(database: &DatabaseConfig) -> Result<RegistryContent, DatabaseError> {
        Self::connect(database).await?.content().await
    }

    /// The number of the last change.
    pub async fn version(&self) -> Result<i64, DatabaseError> {
        let rows = self.query(VERSION, &[]).await?;
        Ok(rows.first().map_or(0, |row| row.get(0)))
    }

    /// What replicas need of the registry.
    pub async fn content(&self) -> Result<RegistryContent, DatabaseError> {
        let mut content = RegistryContent::default();
        for row in self.query(CONTENT, &[]).await? {
            let tenant = tenant_id(&row)?;
            match status(&row)? {
                Status::Active => content.active.insert(tenant),
                Status::Suspended => content.suspended.insert(tenant),
            };
            let profile = TenantProfile {
                name: row.get("name"),
                max_tasks: limit(&row, "max_tasks"),
                rate_limit: limit(&row, "rate_limit"),
            };
            if profile != TenantProfile::default() {
                content.profiles.insert(tenant, profile);
            }
        }
        for row in self.query(KEY_IDS, &[]).await? {
            content.revoked_keys.extend(KeyId::parse(row.get(0)));
        }
        Ok(content)
    }

    /// All tenants, in the order of their ids.
    pub async fn tenants(&self) -> Result<Vec<RegisteredTenant>, DatabaseError> {
        let rows = self.query(TENANTS, &[]).await?;
        let tenants = rows.iter().map(|row| {
            Ok(RegisteredTenant {
                tenant_id: tenant_id(row)?,
                name: row.get("name"),
                status: status(row)?,
                max_tasks: limit(row, "max_tasks"),
                rate_limit: limit(row, "rate_limit"),
                note: row.get("note"),
                added_at: row.get("added_at"),
                added_by: row.get("added_by"),
            })
        });
        tenants.collect()
    }

    /// All revoked keys, in the order of their ids.
    pub async fn keys(&self) -> Result<Vec<RevokedKey>, DatabaseError> {
        let rows = self.query(KEYS, &[]).await?;
        let keys = rows.iter().map(|row| RevokedKey {
            key_id: row.get("key_id"),
            revoked_at: row.get("revoked_at"),
            revoked_by: row.get("revoked_by"),
            reason: row.get("reason"),
        });
        Ok(keys.collect())
    }

    /// How long a tenant has been suspended, in seconds; `None` if it is not.
    pub async fn suspended_for(&self, tenant: TenantId) -> Result<Option<f64>, DatabaseError> {
        let tenant = Uuid::from(tenant);
        let rows = self.query(SUSPENDED_FOR, &[(&tenant, Type::UUID)]).await?;
        Ok(rows.first().map(|row| row.get(0)))
    }

    /// Adds a tenant, or changes what is recorded about it.
    pub async fn put(
        &self,
        tenant: TenantId,
        change: &TenantChange,
        by: &str,
    ) -> Result<Outcome, DatabaseError> {
        let parameters: [(&(dyn ToSql + Sync), Type); 6] = [
            (&Uuid::from(tenant), Type::UUID),
            (&change.name, Type::TEXT),
            (&change.max_tasks.map(i64::from), Type::INT8),
            (&change.rate_limit.map(i64::from), Type::INT8),
            (&change.note, Type::TEXT),
            (&by, Type::TEXT),
        ];
        self.change("SELECT put_tenant($1, $2, $3, $4, $5, $6)", &parameters)
            .await
    }

    /// Suspends a tenant, or ends its suspension.
    pub async fn set_status(
        &self,
        tenant: TenantId,
        status: Status,
        by: &str,
    ) -> Result<Outcome, DatabaseError> {
        let parameters: [(&(dyn ToSql + Sync), Type); 3] = [
            (&Uuid::from(tenant), Type::UUID),
            (&status.to_string(), Type::TEXT),
            (&by, Type::TEXT),
        ];
        self.change("SELECT set_tenant_status($1, $2, $3)", &parameters)
            .await
    }

    /// Removes a tenant.
    pub async fn remove(&self, tenant: TenantId, by: &str) -> Result<Outcome, DatabaseError> {
        let parameters: [(&(dyn ToSql + Sync), Type); 2] =
            [(&Uuid::from(tenant), Type::UUID), (&by, Type::TEXT)];
        self.change("SELECT remove_tenant($1, $2)", &parameters)
            .await
    }

    /// Revokes a key.
    pub async fn revoke_key(
        &self,
        key_id: &str,
        reason: Option<&str>,
        by: &str,
    ) -> Result<Outcome, DatabaseError> {
        let parameters: [(&(dyn ToSql + Sync), Type); 3] = [
            (&key_id, Type::TEXT),
            (&reason, Type::TEXT),
            (&by, Type::TEXT),
        ];
        self.change("SELECT revoke_key($1, $2, $3)", &parameters)
            .await
    }

    /// Accepts a revoked key again.
    pub async fn restore_key(&self, key_id: &str, by: &str) -> Result<Outcome, DatabaseError> {
        let parameters: [(&(dyn ToSql + Sync), Type); 2] =
            [(&key_id, Type::TEXT), (&by, Type::TEXT)];
        self.change("SELECT restore_key($1, $2)", &parameters).await
    }

    /// Records that a tenant's tasks were erased.
    pub async fn log_erasure(
        &self,
        tenant: TenantId,
        count: u64,
        by: &str,
    ) -> Result<Outcome, DatabaseError> {
        let parameters: [(&(dyn ToSql + Sync), Type); 3] = [
            (&Uuid::from(tenant), Type::UUID),
            (&i64::try_from(count).unwrap_or(i64::MAX), Type::INT8),
            (&by, Type::TEXT),
        ];
        self.change("SELECT log_erasure($1, $2, $3)", &parameters)
            .await
    }

    async fn change(
        &self,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Outcome, DatabaseError> {
        let rows = self.query(sql, parameters).await?;
        let outcome = rows
            .first()
            .and_then(|row| row.get::<_, &str>(0).parse().ok());
        outcome.ok_or_else(unexpected)
    }

    /// Sends an unnamed statement, which connection poolers support in every mode.
    async fn query(
        &self,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, DatabaseError> {
        let rows = self.0.query_typed(sql, parameters).await;
        rows.map_err(|error| match error.code() {
            Some(&SqlState::UNDEFINED_TABLE | &SqlState::UNDEFINED_FUNCTION) => {
                let problem = "the database has no registry of tenants: start this version of the \
                               service once, which creates it";
                DatabaseError::Unusable(Cow::Borrowed(problem))
            }
            Some(_) | None => error.into(),
        })
    }
}

fn tenant_id(row: &Row) -> Result<TenantId, DatabaseError> {
    let id = row.get::<_, Uuid>("tenant_id").to_string();
    TenantId::parse_organization(&id).map_err(|error| {
        DatabaseError::Unusable(format!("allowed_tenants contains {id}: {error}").into())
    })
}

fn status(row: &Row) -> Result<Status, DatabaseError> {
    let status = row.get::<_, &str>("status").parse();
    status.map_err(|_| unexpected())
}

fn limit(row: &Row, column: &str) -> Option<NonZeroU32> {
    let limit = row.get::<_, Option<i64>>(column)?;
    NonZeroU32::new(u32::try_from(limit).ok()?)
}

fn unexpected() -> DatabaseError {
    let problem = "the registry of tenants contains a value that this version does not know";
    DatabaseError::Unusable(Cow::Borrowed(problem))
}
