//! `tenants` and `keys`: lists and changes who may sign in, and which signing keys are revoked.
//!
//! With `DATABASE_URL`, the commands change the registry that all replicas share, from any machine.
//! Otherwise they change `.env`.

mod env_file;
mod offboarding;
mod progress;
mod registry;

use std::{
    io::{self, IsTerminal, Write},
    path::Path,
};

use anyhow::bail;
use clap::{Args, Subcommand};

use self::registry::Registry;
use crate::{
    config::{env_file::read_variables, settings::Variables},
    ids::{KeyId, TenantId},
    registry::client::TenantChange,
};

/// Above this number of tenants, a change needs a confirmation.
const BULK: usize = 10;

#[derive(Clone, Debug, Subcommand)]
pub(super) enum TenantsCommand {
    /// Print the tenants of the registry and of the settings, or the IDs in .env
    List {
        /// Print JSON (needs the registry)
        #[arg(long)]
        json: bool,
    },
    /// Print what is known about a tenant
    Show {
        #[command(flatten)]
        tenant: TenantIdArgument,
        /// Print JSON (needs the registry)
        #[arg(long)]
        json: bool,
    },
    /// Allow tenants, or change what is recorded about them
    Add {
        #[command(flatten)]
        tenants: TenantIds,
        #[command(flatten)]
        record: Record,
        #[command(flatten)]
        confirmation: Confirmation,
    },
    /// Reject the users of tenants until they are resumed, also if the settings list the tenants
    Suspend {
        #[command(flatten)]
        tenants: TenantIds,
        #[command(flatten)]
        confirmation: Confirmation,
    },
    /// End the suspension of tenants
    Resume {
        #[command(flatten)]
        tenants: TenantIds,
        #[command(flatten)]
        confirmation: Confirmation,
    },
    /// Remove tenants. Their tasks are kept
    Remove {
        #[command(flatten)]
        tenants: TenantIds,
        #[command(flatten)]
        confirmation: Confirmation,
    },
    /// Copy the tenants of .env and the environment to the registry
    Import {
        #[command(flatten)]
        confirmation: Confirmation,
    },
    /// Write a tenant's tasks to standard output, one JSON object per line
    Export {
        #[command(flatten)]
        tenant: TenantIdArgument,
    },
    /// Delete all tasks of a suspended tenant. Reads the tenant's ID again from standard input
    Erase {
        #[command(flatten)]
        tenant: TenantIdArgument,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Reject tokens that these signing keys have signed, also if Entra publishes the keys
    Revoke {
        #[command(flatten)]
        keys: KeyIds,
        /// Why (needs the registry)
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Accept revoked signing keys again
    Restore {
        #[command(flatten)]
        keys: KeyIds,
    },
    /// Print the revoked signing keys
    List {
        /// Print JSON (needs the registry)
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args, Clone, Debug)]
pub(super) struct TenantIds {
    /// Tenant IDs (GUIDs)
    #[arg(required = true, value_name = "TENANT_ID", value_parser = TenantId::parse_organization)]
    ids: Vec<TenantId>,
}

#[derive(Args, Clone, Debug)]
pub(super) struct TenantIdArgument {
    /// A tenant ID (GUID)
    #[arg(value_name = "TENANT_ID", value_parser = TenantId::parse_organization)]
    id: TenantId,
}

#[derive(Args, Clone, Debug)]
pub(super) struct KeyIds {
    /// Key IDs: the `kid` in a token's header. Write -- before an ID that starts with a hyphen
    #[arg(required = true, value_name = "KEY_ID", value_parser = parse_key_id)]
    ids: Vec<String>,
}

#[derive(Args, Clone, Debug)]
pub(super) struct Confirmation {
    /// Change more than ten tenants without asking
    #[arg(long)]
    yes: bool,
}

/// What to record. All of it needs the registry.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub(super) struct Record {
    /// The name that users see; "" removes it
    #[arg(long, value_name = "TEXT", value_parser = parse_name)]
    name: Option<String>,
    /// The maximum number of tasks, or "default"
    #[arg(long, value_name = "NUMBER", value_parser = parse_limit)]
    max_tasks: Option<u32>,
    /// The maximum number of requests per second, or "default"
    #[arg(long, value_name = "NUMBER", value_parser = parse_limit)]
    rate_limit: Option<u32>,
    /// A note for operators; "" removes it
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

/// Why a command fails without a database.
const NEEDS_DATABASE: &str =
    "needs the registry of tenants in PostgreSQL, and DATABASE_URL is not set";

pub(super) async fn tenants(directory: &Path, command: TenantsCommand) -> anyhow::Result<bool> {
    let variables = read_variables(directory)?;
    let registry = Registry::open(&variables).await?;
    let Some(registry) = registry else {
        return without_registry(directory, &variables, command);
    };
    match command {
        TenantsCommand::List { json } => registry.list(json).await?,
        TenantsCommand::Show { tenant, json } => return registry.show(tenant.id, json).await,
        TenantsCommand::Add {
            tenants,
            record,
            confirmation,
        } => {
            let Record {
                name,
                max_tasks,
                rate_limit,
                note,
            } = record;
            let change = TenantChange {
                name,
                max_tasks,
                rate_limit,
                note,
            };
            confirm("add or change", &tenants.ids, &confirmation)?;
            registry.add(&tenants.ids, &change).await?;
        }
        TenantsCommand::Suspend {
            tenants,
            confirmation,
        } => {
            confirm("suspend", &tenants.ids, &confirmation)?;
            registry.suspend(&tenants.ids).await?;
        }
        TenantsCommand::Resume {
            tenants,
            confirmation,
        } => {
            confirm("resume", &tenants.ids, &confirmation)?;
            return registry.resume(&tenants.ids).await;
        }
        TenantsCommand::Remove {
            tenants,
            confirmation,
        } => {
            confirm("remove", &tenants.ids, &confirmation)?;
            return registry.remove(&tenants.ids).await;
        }
        TenantsCommand::Import { confirmation } => {
            let tenants = registry.tenants_in_settings();
            confirm("import", &tenants, &confirmation)?;
            registry.add(&tenants, &TenantChange::default()).await?;
        }
        TenantsCommand::Export { tenant } => {
            offboarding::export(&registry.database, tenant.id).await?;
        }
        TenantsCommand::Erase { tenant } => {
            offboarding::erase(&registry, tenant.id).await?;
        }
    }
    Ok(true)
}

fn without_registry(
    directory: &Path,
    variables: &Variables,
    command: TenantsCommand,
) -> anyhow::Result<bool> {
    match command {
        TenantsCommand::List { json: false } => env_file::list(variables)?,
        TenantsCommand::Show {
            tenant,
            json: false,
        } => return env_file::show(variables, tenant.id),
        TenantsCommand::Add {
            tenants, record, ..
        } if record == Record::default() => env_file::add(directory, &tenants.ids)?,
        TenantsCommand::Remove { tenants, .. } => env_file::remove(directory, &tenants.ids)?,
        TenantsCommand::List { .. } | TenantsCommand::Show { .. } => {
            bail!("--json {NEEDS_DATABASE}")
        }
        TenantsCommand::Add { .. } => {
            bail!("a name, a limit or a note {NEEDS_DATABASE}")
        }
        TenantsCommand::Suspend { .. } | TenantsCommand::Resume { .. } => {
            bail!("a suspension {NEEDS_DATABASE}: use tenants remove and tenants add")
        }
        TenantsCommand::Import { .. } => bail!("an import {NEEDS_DATABASE}"),
        TenantsCommand::Export { .. } | TenantsCommand::Erase { .. } => {
            bail!("this {NEEDS_DATABASE}: tasks in memory belong to the running service")
        }
    }
    Ok(true)
}

pub(super) async fn keys(directory: &Path, command: KeysCommand) -> anyhow::Result<()> {
    let variables = read_variables(directory)?;
    let registry = Registry::open(&variables).await?;
    match (command, registry) {
        (KeysCommand::Revoke { keys, reason }, Some(registry)) => {
            registry.revoke(&keys.ids, reason.as_deref()).await
        }
        (KeysCommand::Restore { keys }, Some(registry)) => registry.restore(&keys.ids).await,
        (KeysCommand::List { json }, Some(registry)) => registry.list_keys(json).await,
        (KeysCommand::Revoke { keys, reason: None }, None) => {
            env_file::change_keys(directory, &keys.ids, true)
        }
        (KeysCommand::Restore { keys }, None) => env_file::change_keys(directory, &keys.ids, false),
        (KeysCommand::List { json: false }, None) => {
            for key_id in env_file::revoked_keys(&variables)? {
                writeln!(io::stdout(), "{key_id}")?;
            }
            Ok(())
        }
        (KeysCommand::Revoke { .. }, None) => bail!("a reason {NEEDS_DATABASE}"),
        (KeysCommand::List { .. }, None) => bail!("--json {NEEDS_DATABASE}"),
    }
}

/// Asks before a change of many tenants.
fn confirm(verb: &str, tenants: &[TenantId], confirmation: &Confirmation) -> anyhow::Result<()> {
    let count = tenants.len();
    if count <= BULK || confirmation.yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        bail!("this would {verb} {count} tenants: confirm with --yes. Nothing was changed.");
    }
    eprint!("This will {verb} {count} tenants. Continue? [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        bail!("nothing was changed");
    }
    Ok(())
}

fn parse_key_id(text: &str) -> Result<String, String> {
    let key_id = KeyId::parse(text).map(|_| text.to_owned());
    key_id.ok_or_else(|| "a key ID has 1 to 128 characters".to_owned())
}

fn parse_name(text: &str) -> Result<String, String> {
    let is_valid = text.chars().count() <= 200 && !text.contains(char::is_control);
    let name = is_valid.then(|| text.trim().to_owned());
    name.ok_or_else(|| "a name has at most 200 characters and no control characters".to_owned())
}

/// A limit; 0 for the default.
fn parse_limit(text: &str) -> Result<u32, String> {
    if text == "default" {
        return Ok(0);
    }
    let limit = text.parse().ok().filter(|&limit| limit > 0);
    limit.ok_or_else(|| format!("a whole number from 1 to {}, or \"default\"", u32::MAX))
}
