//! The allow-list and the revoked keys in `.env`, for a service without `DATABASE_URL`.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::Path,
};

use anyhow::bail;

use crate::{
    config::{
        Config,
        env_file::{self, EnvFile},
        env_text::{self, List},
        settings::{ConfigError, Settings, Variables},
    },
    ids::TenantId,
};

pub(super) fn list(variables: &Variables) -> anyhow::Result<()> {
    let mut out = io::stdout();
    let tenants = Config::tenants(variables)?;
    if tenants.is_open() {
        eprintln!(
            "ALLOW_ANY_TENANT=true: users of any tenant may sign in. Keys of these are fetched in advance:"
        );
    }
    for tenant in tenants.listed() {
        writeln!(out, "{tenant}")?;
    }
    Ok(())
}

pub(super) fn show(variables: &Variables, tenant: TenantId) -> anyhow::Result<bool> {
    let mut out = io::stdout();
    let tenants = Config::tenants(variables)?;
    let is_listed = tenants.listed().contains(&tenant);
    let is_allowed = is_listed || tenants.is_open();
    let answer = match (is_listed, is_allowed) {
        (true, _) => "on the list",
        (false, true) => "not on the list, but ALLOW_ANY_TENANT=true allows it",
        (false, false) => "not on the list",
    };
    writeln!(out, "{tenant}: {answer}")?;
    Ok(is_allowed)
}

pub(super) fn add(directory: &Path, tenants: &[TenantId]) -> anyhow::Result<()> {
    change_tenants(directory, |listed| {
        let mut outcomes = Vec::new();
        for &tenant in tenants {
            let is_new = listed.insert(tenant.to_string());
            let outcome = if is_new {
                "added"
            } else {
                "already on the list"
            };
            outcomes.push(format!("{tenant}: {outcome}"));
        }
        Ok(outcomes)
    })
}

pub(super) fn remove(directory: &Path, tenants: &[TenantId]) -> anyhow::Result<()> {
    change_tenants(directory, |listed| {
        let mut outcomes = Vec::new();
        for tenant in tenants {
            if !listed.remove(&tenant.to_string()) {
                // Success would hide a typo: the intended tenant would stay allowed.
                bail!("{tenant} is not on the list. Nothing was changed.");
            }
            outcomes.push(format!("{tenant}: removed"));
        }
        if listed.is_empty() {
            bail!("the list would be empty. Nothing was changed.");
        }
        Ok(outcomes)
    })
}

fn change_tenants(
    directory: &Path,
    change: impl FnOnce(&mut BTreeSet<String>) -> anyhow::Result<Vec<String>>,
) -> anyhow::Result<()> {
    let old = |variables: &Variables| {
        let tenants = Config::tenants(variables)?;
        if tenants.is_open() {
            bail!("ALLOW_ANY_TENANT=true allows every tenant, listed or not. Nothing was changed.");
        }
        Ok(tenants.listed().iter().map(TenantId::to_string).collect())
    };
    change_list(directory, List::TENANTS, old, change)
}

pub(super) fn revoked_keys(variables: &Variables) -> anyhow::Result<BTreeSet<String>> {
    let keys = Settings::new(variables).revoked_keys()?;
    Ok(keys.iter().map(ToString::to_string).collect())
}

/// Revokes the keys, or restores them.
pub(super) fn change_keys(
    directory: &Path,
    key_ids: &[String],
    revoke: bool,
) -> anyhow::Result<()> {
    change_list(directory, List::KEYS, revoked_keys, |revoked| {
        let mut outcomes = Vec::new();
        for key_id in key_ids {
            if !List::KEYS.accepts(key_id) {
                bail!("a key id with other characters than Entra's cannot be written to .env");
            }
            let outcome = match (revoke, revoked.contains(key_id)) {
                (true, true) => "already revoked",
                (true, false) => "revoked",
                (false, true) => "restored",
                (false, false) => "is not revoked",
            };
            if revoke {
                revoked.insert(key_id.clone());
            } else {
                revoked.remove(key_id);
            }
            outcomes.push(format!("{key_id}: {outcome}"));
        }
        Ok(outcomes)
    })
}

/// Changes a list in `.env`. Validates the whole new file first, with the service's parser.
fn change_list(
    directory: &Path,
    list: List,
    old: impl FnOnce(&Variables) -> anyhow::Result<BTreeSet<String>>,
    change: impl FnOnce(&mut BTreeSet<String>) -> anyhow::Result<Vec<String>>,
) -> anyhow::Result<()> {
    let mut out = io::stdout();
    let environment = env_file::read_environment()?;
    let variable = list.variable;
    if environment.contains_key(variable) {
        bail!("{variable} is set in the environment, which overrides .env. Change it there.");
    }
    let file = EnvFile::open(directory)?;
    let mut variables = file.variables()?;
    variables.extend(environment.clone());
    let old = old(&variables)?;
    let mut new = old.clone();
    let outcomes = change(&mut new)?;
    if new == old {
        writeln!(out, "{}", outcomes.join("\n"))?;
        return Ok(());
    }
    let text = file.with_list(list, &new)?;
    let mut variables = env_text::parse(&text)?;
    variables.extend(environment);
    for problem in Config::problems(variables) {
        // A missing variable may be set in the service's own environment.
        if !matches!(problem, ConfigError::Missing { .. }) {
            bail!(
                "{problem}. Fix this first: the service would not apply .env. Nothing was changed."
            );
        }
    }
    file.replace(&text)?;
    writeln!(out, "{}", outcomes.join("\n"))?;
    writeln!(
        out,
        ".env updated. A running service applies it within two seconds."
    )?;
    Ok(())
}
