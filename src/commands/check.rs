//! `check`: finds problems with settings, signing keys and the database before the service starts.

use std::{
    io::{self, Write},
    path::Path,
    time::Duration,
};

use crate::{
    auth::{self, Access},
    clock::SystemClock,
    config::{
        Config,
        env_file::{read_variables, unknown_names},
    },
    registry::client::RegistryClient,
    tasks::store::postgres::{self, config::DatabaseConfig},
};

/// The variables that libraries read from the environment, in upper case.
const LIBRARY_VARIABLES: [&str; 6] = [
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// Prints every result. Returns whether there are no problems.
pub(super) async fn check(directory: &Path) -> anyhow::Result<bool> {
    let mut out = io::stdout();
    for name in unknown_names(directory).unwrap_or_default() {
        let problem = if LIBRARY_VARIABLES.contains(&name.to_uppercase().as_str()) {
            "which libraries read from the environment only. Set it there"
        } else {
            "which is not a setting of this service"
        };
        writeln!(out, "note      .env sets {name}, {problem}")?;
    }
    let problems = match read_variables(directory) {
        Ok(variables) => Config::problems(variables),
        Err(problem) => vec![problem],
    };
    for problem in &problems {
        writeln!(out, "WRONG     {problem}")?;
    }
    if !problems.is_empty() {
        return Ok(false);
    }
    let config = Config::parse(&read_variables(directory)?)?;
    writeln!(out, "ok        settings")?;
    for note in config.notes() {
        writeln!(out, "note      {note}")?;
    }
    let mut is_ok = true;
    if let Some(proxy) = auth::outbound_proxy(&config.tokens.authority) {
        writeln!(
            out,
            "note      signing keys are fetched through the proxy {proxy}"
        )?;
    }
    let access = match &config.store.database {
        Some(database) => with_registry(config.access, database).await?,
        None => config.access,
    };
    let authority = &config.tokens.authority;
    let keys = auth::fetch_keys(authority, &access.tenants, &SystemClock::new()).await?;
    let mut clock_skew = Duration::ZERO;
    for (tenant, outcome) in keys {
        match outcome {
            Ok(fetched) => {
                let keys = fetched.keys;
                writeln!(out, "ok        tenant {tenant}: {keys} signing keys")?;
                clock_skew = clock_skew.max(fetched.clock_skew.unwrap_or_default());
            }
            Err(reason) => {
                is_ok = false;
                writeln!(out, "WRONG     tenant {tenant}: no signing keys: {reason}")?;
            }
        }
    }
    if clock_skew > auth::LEEWAY {
        let seconds = clock_skew.as_secs();
        writeln!(
            out,
            "note      the clock of this machine and that of Entra differ by {seconds} seconds: \
             valid tokens may be rejected. Synchronize it, such as with NTP"
        )?;
    }
    if let Some(database) = &config.store.database {
        is_ok &= check_database(database).await?;
    }
    Ok(is_ok)
}

/// Adds the registry to the settings. If it cannot be read, the check of the database says why.
async fn with_registry(settings: Access, database: &DatabaseConfig) -> io::Result<Access> {
    let Ok(registry) = RegistryClient::read(database).await else {
        return Ok(settings);
    };
    writeln!(
        io::stdout(),
        "ok        registry: {} active and {} suspended tenants, {} revoked keys",
        registry.active.len(),
        registry.suspended.len(),
        registry.revoked_keys.len()
    )?;
    Ok(settings.with_registry(&registry))
}

async fn check_database(database: &DatabaseConfig) -> io::Result<bool> {
    let mut out = io::stdout();
    match postgres::inspect(database).await {
        Ok(found) => {
            let pending = match found.pending_migrations {
                0 => String::new(),
                pending => format!("; pending migrations at the next start: {pending}"),
            };
            writeln!(out, "ok        database{pending}")?;
            for note in found.notes {
                writeln!(out, "note      {note}")?;
            }
        }
        Err(problem) => {
            writeln!(out, "WRONG     database: {problem}")?;
            return Ok(false);
        }
    }
    Ok(true)
}
