//! `check`: finds problems with settings, signing keys and the database before the service starts.

use std::path::Path;

use crate::{
    auth,
    config::{
        Config,
        env_file::{read_variables, unknown_names},
    },
    tasks::store::postgres::{self, config::DatabaseConfig},
};

/// Prints every result. Returns whether there are no problems.
pub(super) async fn check(directory: &Path) -> anyhow::Result<bool> {
    for name in unknown_names(directory).unwrap_or_default() {
        println!("note      .env sets {name}, which is not a setting of this service");
    }
    let problems = match read_variables(directory) {
        Ok(variables) => Config::problems(variables),
        Err(problem) => vec![problem],
    };
    for problem in &problems {
        println!("WRONG     {problem}");
    }
    if !problems.is_empty() {
        return Ok(false);
    }
    let config = Config::parse(&read_variables(directory)?)?;
    println!("ok        settings");
    if config.access.tenants.is_open() {
        println!("note      ALLOW_ANY_TENANT=true: users of any tenant may sign in");
    }
    let mut is_ok = true;
    let keys = auth::fetch_keys(&config.tokens.authority, &config.access.tenants).await?;
    for (tenant, outcome) in keys {
        match outcome {
            Ok(count) => println!("ok        tenant {tenant}: {count} signing keys"),
            Err(reason) => {
                is_ok = false;
                println!("WRONG     tenant {tenant}: no signing keys: {reason}");
            }
        }
    }
    if let Some(database) = &config.store.database {
        is_ok &= check_database(database).await;
    }
    Ok(is_ok)
}

async fn check_database(database: &DatabaseConfig) -> bool {
    match postgres::inspect(database).await {
        Ok(0) => println!("ok        database"),
        Ok(pending) => {
            println!("ok        database; pending migrations at the next start: {pending}");
        }
        Err(problem) => {
            println!("WRONG     database: {problem}");
            return false;
        }
    }
    true
}
