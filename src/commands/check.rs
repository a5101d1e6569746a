//! `check`: what would keep the service from doing its work, before it is started.

use std::path::Path;

use super::Error;
use crate::{
    auth,
    config::{self, Config},
    tasks::store::postgres::Database,
};

pub(super) async fn check(directory: &Path) -> Result<bool, Error> {
    for name in config::unknown_names(directory).unwrap_or_default() {
        println!("note      .env sets {name}, which is no setting of this service");
    }
    let config = match config::read_variables(directory).map_err(|problem| vec![problem]) {
        Ok(variables) => Config::parse_all(&variables),
        Err(problems) => Err(problems),
    };
    let config = match config {
        Ok(config) => config,
        Err(problems) => {
            for problem in problems {
                println!("WRONG     {problem}");
            }
            return Ok(false);
        }
    };
    println!("ok        settings");
    let mut is_well = true;
    if config.access.tenants.is_open() {
        println!("note      ALLOW_ANY_TENANT=true: people of any organisation may sign in");
    }
    for (tenant, outcome) in
        auth::fetch_keys(&config.tokens.authority, &config.access.tenants).await?
    {
        match outcome {
            Ok(count) => println!("ok        tenant {tenant}: {count} signing keys"),
            Err(reason) => {
                is_well = false;
                println!("WRONG     tenant {tenant}: no signing keys: {reason}");
            }
        }
    }
    if let Some(database) = &config.store.database {
        is_well &= check_database(database).await;
    }
    Ok(is_well)
}

async fn check_database(database: &Database) -> bool {
    match database.inspect().await {
        Ok(0) => println!("ok        database"),
        Ok(steps) => {
            println!(
                "ok        database; the next start brings its tables forward by {steps} steps"
            );
        }
        Err(problem) => {
            println!("WRONG     database: {problem}");
            return false;
        }
    }
    true
}
