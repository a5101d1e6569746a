//! `tenants`: who may sign in, said and changed in `.env`, and the running service told of it.

use std::{collections::BTreeSet, path::Path};

use super::{Error, running::Running};
use crate::{
    auth::Tenants,
    config::{
        self, Config,
        env_file::{EnvFile, VARIABLE},
    },
    ids::TenantId,
};

pub(super) fn list(directory: &Path) -> Result<bool, Error> {
    let tenants = config::parse_tenants_setting(&config::read_variables(directory)?)?;
    if tenants.is_open() {
        eprintln!(
            "ALLOW_ANY_TENANT=true: people of any organisation may sign in; these are expected:"
        );
    }
    for tenant in tenants.expected() {
        println!("{tenant}");
    }
    Ok(true)
}

pub(super) fn add(directory: &Path, tenants: &[TenantId]) -> Result<bool, Error> {
    change(directory, |allowed| {
        let outcome = |&tenant| {
            let outcome = if allowed.insert(tenant) {
                "added"
            } else {
                "already on the list"
            };
            format!("{tenant}: {outcome}")
        };
        Ok(tenants.iter().map(outcome).collect())
    })
}

pub(super) fn remove(directory: &Path, tenants: &[TenantId]) -> Result<bool, Error> {
    change(directory, |allowed| {
        for tenant in tenants {
            if !allowed.remove(tenant) {
                // Said to have been kept out, somebody misspelt would still come in.
                return Err(format!("{tenant} is not on the list; nothing was changed").into());
            }
        }
        if allowed.is_empty() {
            return Err("nobody would be left who may sign in; nothing was changed".into());
        }
        Ok(tenants
            .iter()
            .map(|tenant| format!("{tenant}: removed"))
            .collect())
    })
}

/// Changes the list in `.env`, and says what has come of it once it has.
fn change(
    directory: &Path,
    change: impl FnOnce(&mut BTreeSet<TenantId>) -> Result<Vec<String>, Error>,
) -> Result<bool, Error> {
    let environment = config::read_environment()?;
    if environment.contains_key(VARIABLE) {
        return Err(format!(
            "{VARIABLE} is set in the environment, which wins over .env: change it there"
        )
        .into());
    }
    let file = EnvFile::open(directory)?;
    // From what is held, not from what may be there by now; the environment wins over it.
    let mut variables = file.variables()?;
    variables.extend(environment);
    let old = match config::parse_tenants_setting(&variables)? {
        Tenants::Listed(old) => old,
        Tenants::Any { .. } => {
            let problem = "ALLOW_ANY_TENANT=true lets people of any organisation in, whatever the list says; \
                           nothing was changed";
            return Err(problem.into());
        }
    };
    let mut new = old.clone();
    let outcomes = change(&mut new)?;
    if new != old {
        file.set_tenants(&old, &new)?;
    }
    println!("{}", outcomes.join("\n"));
    Ok(new == old || tell(directory, &new))
}

/// Tells the services that run here; whether each of them will let in whom the list says, and nobody else.
fn tell(directory: &Path, allowed: &BTreeSet<TenantId>) -> bool {
    let services = Running::in_directory(directory);
    if services.is_empty() {
        println!(
            ".env is written; no service was found running in this folder, one started here will know"
        );
    }
    let mut do_all_know = true;
    for service in services {
        let pid = service.pid();
        let environment = service.environment();
        let variables =
            config::read_variables_with(directory, environment.iter().map(String::as_str));
        // Its own environment wins over the file, and cannot be changed from outside.
        let config = variables.map_err(|problem| problem.to_string()).and_then(|variables| {
            let tenants = config::parse_tenants_setting(&variables);
            if tenants.is_ok_and(|tenants| tenants != Tenants::Listed(allowed.clone())) {
                return Err(format!(
                    "{VARIABLE} or ALLOW_ANY_TENANT is in its environment, which wins: start it anew"
                ));
            }
            Config::parse(&variables).map_err(|problem| format!("it would not take .env over: {problem}"))
        });
        if let Err(problem) = config {
            do_all_know = false;
            eprintln!(
                ".env is written, but the service that runs here, process {pid}, goes on as before: {problem}"
            );
        } else if service.reload() {
            println!(".env is written; told the service that runs here, process {pid}");
        } else {
            println!(
                ".env is written; the service that runs here, process {pid}, will notice within two seconds"
            );
        }
    }
    do_all_know
}
