//! What the binary can be told to do: serve, and what an operator needs beside that.
//!
//! Every command ends with 0 when all is well, 1 when something is not, which it then says, and 2 when it was called
//! wrongly. What was asked for goes to standard output, everything else to standard error.

mod check;
mod health;
mod inspect;
mod running;
mod serve;
mod tenants;

use std::{path::Path, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::ids::TenantId;

/// Where `.env` is looked for.
const DIRECTORY: &str = ".";

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The task API for people of any Microsoft Entra ID organisation.
///
/// Settings come from the environment and from .env in the working directory.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 all is well, 1 something is not, 2 called wrongly."
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Serve the API; what is done when no command is given
    Serve,
    /// Say which organisations may sign in, or change it, also for the running service
    #[command(subcommand)]
    Tenants(TenantsCommand),
    /// Say what is wrong with the settings, and whether the signing keys of every allowed tenant can be fetched
    Check,
    /// Look into tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Ask the service on this machine whether it is alive, as a container's health check does
    Health,
}

#[derive(Clone, Debug, Subcommand)]
enum TenantsCommand {
    /// Let people of these organisations in: adds to the list in .env
    Add {
        /// Tenant ids: GUIDs
        #[arg(required = true, value_name = "TENANT_ID")]
        tenants: Vec<TenantId>,
    },
    /// Keep people of these organisations out: takes from the list in .env
    Remove {
        /// Tenant ids: GUIDs
        #[arg(required = true, value_name = "TENANT_ID")]
        tenants: Vec<TenantId>,
    },
    /// Print the tenant ids of the organisations that may sign in, one a line
    List,
}

#[derive(Clone, Debug, Subcommand)]
enum TokenCommand {
    /// Say what the service would make of the token on standard input, and why it would refuse it
    ///
    /// The token is sent nowhere. To check its signature, the signing keys of its tenant are fetched from Entra, if
    /// that tenant is allowed.
    Inspect,
}

/// Does what the command line says.
pub async fn run() -> ExitCode {
    let directory = Path::new(DIRECTORY);
    let outcome = match Arguments::parse().command.unwrap_or(Command::Serve) {
        Command::Serve => serve::serve(directory).await.map(|()| true),
        Command::Tenants(TenantsCommand::Add { tenants }) => tenants::add(directory, &tenants),
        Command::Tenants(TenantsCommand::Remove { tenants }) => {
            tenants::remove(directory, &tenants)
        }
        Command::Tenants(TenantsCommand::List) => tenants::list(directory),
        Command::Check => check::check(directory).await,
        Command::Token(TokenCommand::Inspect) => inspect::inspect(directory).await,
        Command::Health => health::health(directory).await.map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("tenant-tasks: {error}");
            ExitCode::FAILURE
        }
    }
}
