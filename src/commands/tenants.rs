//! `tenants`: lists the allowed tenants, and changes the allow-list in `.env`.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::Path,
};

use anyhow::bail;

use crate::{
    auth::Tenants,
    config::{
        Config,
        env_file::{self, EnvFile},
        settings::{ALLOWED_TENANT_IDS, ConfigError, Settings},
    },
    ids::TenantId,
};

pub(super) fn list(directory: &Path) -> anyhow::Result<()> {
    let mut out = io::stdout();
    let variables = env_file::read_variables(directory)?;
    let tenants = Settings::new(&variables).tenants()?;
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

pub(super) fn add(directory: &Path, tenants: &[TenantId]) -> anyhow::Result<()> {
    change(directory, |listed| {
        let mut outcomes = Vec::new();
        for &tenant in tenants {
            let is_new = listed.insert(tenant);
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
    change(directory, |listed| {
        let mut outcomes = Vec::new();
        for tenant in tenants {
            if !listed.remove(tenant) {
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

/// Changes the list in `.env`. Validates the whole new file first, with the service's parser.
fn change(
    directory: &Path,
    change: impl FnOnce(&mut BTreeSet<TenantId>) -> anyhow::Result<Vec<String>>,
) -> anyhow::Result<()> {
    let mut out = io::stdout();
    let environment = env_file::read_environment()?;
    if environment.contains_key(ALLOWED_TENANT_IDS) {
        bail!(
            "{ALLOWED_TENANT_IDS} is set in the environment, which overrides .env. Change it there."
        );
    }
    let file = EnvFile::open(directory)?;
    let mut variables = file.variables()?;
    variables.extend(environment.clone());
    let Tenants::Listed(old) = Settings::new(&variables).tenants()? else {
        bail!("ALLOW_ANY_TENANT=true allows every tenant, listed or not. Nothing was changed.");
    };
    let mut new = old.clone();
    let outcomes = change(&mut new)?;
    if new == old {
        writeln!(out, "{}", outcomes.join("\n"))?;
        return Ok(());
    }
    let text = file.with_tenants(&new)?;
    let mut variables = env_file::parse(&text)?;
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
