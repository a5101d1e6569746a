//! The commands of the binary: `serve`, and commands for operators.
//!
//! Every command exits with 0 on success, 1 on failure, and 2 for wrong arguments. Results are
//! printed to standard output, everything else to standard error.

mod check;
mod health;
mod inspect;
mod serve;
mod tenants;

use std::{io, path::Path, process::ExitCode};

use clap::{Parser, Subcommand};

use self::tenants::{KeysCommand, TenantsCommand};

/// A multi-tenant task API secured by Microsoft Entra ID
///
/// Reads its settings from the environment and from .env in the working directory.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 success, 1 failure, 2 wrong arguments."
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Run the API server (default)
    Serve,
    /// List the tenants whose users may sign in, change the list, export or erase a tenant's tasks
    #[command(subcommand)]
    Tenants(TenantsCommand),
    /// List, revoke and restore signing keys
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Check the settings, the signing keys of every listed tenant, and the database
    Check,
    /// Examine tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Check whether the service on this machine responds, for a container's health check
    Health,
}

#[derive(Clone, Debug, Subcommand)]
enum TokenCommand {
    /// Explain why a token, read from standard input, is accepted or rejected
    ///
    /// The token is not sent anywhere. To verify its signature, the signing keys of its tenant are
    /// fetched from Entra if the tenant is allowed.
    Inspect {
        /// Rejected with an explanation that does not repeat it
        #[arg(hide = true, allow_hyphen_values = true)]
        token: Vec<String>,
    },
}

/// Runs the command that the arguments name.
pub async fn run() -> ExitCode {
    // The folder with `.env`.
    let directory = Path::new(".");
    let success = |()| true;
    let outcome = match Arguments::parse().command.unwrap_or(Command::Serve) {
        Command::Serve => serve::serve(directory).await,
        Command::Tenants(command) => tenants::tenants(directory, command).await,
        Command::Keys(command) => tenants::keys(directory, command).await.map(success),
        Command::Check => check::check(directory).await,
        Command::Token(TokenCommand::Inspect { token }) if !token.is_empty() => {
            eprintln!("tenant-tasks: {}", inspect::TOKEN_IS_NOT_AN_ARGUMENT);
            return ExitCode::from(2);
        }
        Command::Token(TokenCommand::Inspect { .. }) => inspect::inspect(directory).await,
        Command::Health => health::health(directory).await.map(success),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // For example `check | head -1`: the reader has what it wanted.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tenant-tasks: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
