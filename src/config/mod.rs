//! Environment and `.env` to a [`Config`], whole or one named error.
//!
//! Nothing else reads the environment (but dotenvy, for a `$NAME` in the file). No error repeats a value: it might be a secret in
//! the wrong place.

pub mod env_file;
pub mod reload;
mod settings;

use std::{
    collections::{BTreeSet, HashMap},
    env::{self, VarError},
    fs, io,
    net::SocketAddr,
    path::Path,
};

use axum::http::HeaderValue;
use thiserror::Error;
use tracing_subscriber::EnvFilter;
use url::Url;

pub(crate) use self::settings::parse_tenants;
use self::settings::{Settings, invalid};
use crate::{
    auth::{Access, Tenants, verifier::TokenPolicy},
    openapi::Docs,
    server::DEFAULT_MAX_CONNECTIONS,
    tasks::store::{DEFAULT_MAX_TASKS_PER_TENANT, StoreConfig},
};

/// Every variable the service reads.
pub const VARIABLES: [&str; 21] = [
    "AZURE_API_CLIENT_ID",
    "AZURE_HOME_TENANT_ID",
    "ALLOWED_TENANT_IDS",
    "ALLOW_ANY_TENANT",
    "ALLOWED_ORIGINS",
    "AZURE_AUTHORITY_HOST",
    "REQUIRED_SCOPE",
    "REVOKED_KEY_IDS",
    "HOST",
    "PORT",
    "MAX_CONNECTIONS",
    "MAX_TASKS_PER_TENANT",
    "TENANT_RATE_LIMIT",
    "DATABASE_URL",
    "MAX_DATABASE_CONNECTIONS",
    "METRICS_ADDR",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "DOCS",
    "AZURE_SPA_CLIENT_ID",
    "RUST_LOG",
    "LOG_FORMAT",
];

/// Everything an operator can choose, parsed.
#[derive(Debug)]
pub struct Config {
    /// Which tokens are accepted.
    pub tokens: TokenPolicy,
    /// Who may come in: the part that is read again while the service runs.
    pub access: Access,
    /// Where single-page apps that may call the API are served from.
    pub allowed_origins: Vec<HeaderValue>,
    /// The address or name to listen on.
    pub host: String,
    /// The port to listen on; 0 lets the system choose.
    pub port: u16,
    /// How many connections may be open at the same time.
    pub max_connections: usize,
    /// Where tasks are kept.
    pub store: StoreConfig,
    /// Where Prometheus may ask for metrics; `None` for nowhere, and none are kept.
    pub metrics_addr: Option<SocketAddr>,
    /// The base URL of a collector that traces are sent to (OTLP over HTTP); `None` for no traces.
    pub otlp_endpoint: Option<Url>,
    /// What the page to try the API on needs; `None` for no page.
    pub docs: Option<Docs>,
    /// Which log lines are written.
    pub log_filter: EnvFilter,
    /// How they are written.
    pub log_format: LogFormat,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// Why the service does not start: one sentence that names the variable.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A required variable has no value.
    #[error("{variable} is not set: {advice}")]
    Missing {
        /// Its name.
        variable: &'static str,
        /// What to do about it.
        advice: &'static str,
    },
    /// A variable has a value the service cannot use.
    #[error("{variable} {problem}")]
    Invalid {
        /// Its name.
        variable: &'static str,
        /// What is wrong with the value, without repeating it.
        problem: String,
    },
    /// `.env` is there but cannot be read.
    #[error(".env cannot be read: {0}")]
    File(#[source] io::Error),
    /// A line of `.env` is no assignment.
    #[error(".env, line {0}: not of the form NAME=value")]
    Line(usize),
}

/// Variables by name; of an unset one there is no entry.
pub type Variables = HashMap<String, String>;

/// Reads the environment and, for what is not set there, the file `.env` in `directory`.
///
/// # Errors
///
/// When `.env` or a variable cannot be read.
pub fn read_variables(directory: &Path) -> Result<Variables, ConfigError> {
    let mut variables = read_file(&directory.join(".env"))?;
    variables.extend(read_environment()?);
    Ok(variables)
}

/// What a process would read that has this environment, `NAME=value` by `NAME=value`.
///
/// # Errors
///
/// When `.env` cannot be read.
pub fn read_variables_with<'a>(
    directory: &Path,
    environment: impl Iterator<Item = &'a str>,
) -> Result<Variables, ConfigError> {
    let mut variables = read_file(&directory.join(".env"))?;
    let entries = environment.filter_map(|entry| entry.split_once('='));
    let settings = entries.filter(|(name, _)| VARIABLES.contains(name));
    variables.extend(settings.map(|(name, value)| (name.to_owned(), value.to_owned())));
    Ok(variables)
}

/// Where the service listens, whatever else may be wrong with the settings: one that runs goes on with its old ones.
///
/// # Errors
///
/// When the port is none.
pub fn listen_address(directory: &Path) -> Result<(String, u16), ConfigError> {
    let variables = read_variables(directory).or_else(|_| read_environment())?;
    let settings = Settings(&variables);
    Ok((settings.host().to_owned(), settings.port()?))
}

/// The settings in the environment.
///
/// # Errors
///
/// When one is not UTF-8.
pub fn read_environment() -> Result<Variables, ConfigError> {
    let mut variables = Variables::new();
    for variable in VARIABLES {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place that reads the environment"
        )]
        match env::var(variable) {
            Ok(value) => {
                variables.insert(variable.to_owned(), value);
            }
            Err(VarError::NotPresent) => {}
            Err(VarError::NotUnicode(_)) => return Err(invalid(variable, "is not valid UTF-8")),
        }
    }
    Ok(variables)
}

impl Config {
    /// Parses the variables.
    ///
    /// # Errors
    ///
    /// The first variable that is missing or wrong.
    pub fn parse(variables: &Variables) -> Result<Self, ConfigError> {
        Self::parse_all(variables).map_err(|mut problems| problems.swap_remove(0))
    }

    /// Parses the variables, for whoever wants to hear of everything at once.
    ///
    /// # Errors
    ///
    /// Every variable that is missing or wrong, one at least.
    pub fn parse_all(variables: &Variables) -> Result<Self, Vec<ConfigError>> {
        let settings = Settings(variables);
        let mut problems = Problems(Vec::new());
        let tokens = problems
            .note(settings.client_id())
            .zip(problems.note(settings.authority()));
        let scope = problems.note(settings.required_scope());
        let rate = problems.note(settings.whole_number("TENANT_RATE_LIMIT"));
        let access = problems
            .note(settings.tenants())
            .zip(problems.note(settings.revoked_keys()));
        let allowed_origins = problems.note(settings.allowed_origins());
        let port = problems.note(settings.port());
        let max_connections =
            problems.note(settings.count("MAX_CONNECTIONS", DEFAULT_MAX_CONNECTIONS));
        let database = problems
            .note(settings.database())
            .zip(problems.note(settings.database_connections()));
        let max_tasks =
            problems.note(settings.count("MAX_TASKS_PER_TENANT", DEFAULT_MAX_TASKS_PER_TENANT));
        let metrics_addr = problems.note(settings.metrics_addr());
        let otlp_endpoint = problems.note(settings.otlp_endpoint());
        let docs = problems
            .note(settings.docs())
            .zip(problems.note(settings.spa_client_id()));
        let log = problems
            .note(settings.log_filter())
            .zip(problems.note(settings.log_format()));
        problems.or(move || {
            let ((client_id, authority), required_scope) = (tokens?, scope?);
            let ((tenants, revoked_keys), (database, max_database_connections)) =
                (access?, database?);
            let ((is_shown, spa_client_id), (log_filter, log_format)) = (docs?, log?);
            let (page_authority, page_scope) = (authority.clone(), required_scope.clone());
            let docs = Docs {
                authority: page_authority,
                client_id,
                scope: page_scope,
                spa_client_id,
            };
            Some(Self {
                tokens: TokenPolicy {
                    client_id,
                    authority,
                    required_scope,
                    tenant_rate_limit: rate?,
                },
                access: Access {
                    tenants,
                    revoked_keys,
                },
                allowed_origins: allowed_origins?,
                host: settings.host().to_owned(),
                port: port?,
                max_connections: max_connections?,
                store: StoreConfig {
                    database,
                    max_database_connections,
                    max_tasks_per_tenant: max_tasks?,
                },
                metrics_addr: metrics_addr?,
                otlp_endpoint: otlp_endpoint?,
                docs: is_shown.then_some(docs),
                log_filter,
                log_format,
            })
        })
    }
}

/// What has been found wrong so far.
struct Problems(Vec<ConfigError>);

impl Problems {
    fn note<T>(&mut self, setting: Result<T, ConfigError>) -> Option<T> {
        setting.map_err(|problem| self.0.push(problem)).ok()
    }

    /// The whole, if nothing is wrong with any part: then every part is there.
    fn or<T>(self, whole: impl FnOnce() -> Option<T>) -> Result<T, Vec<ConfigError>> {
        if self.0.is_empty() {
            Ok(whole().expect("what is missing has been noted"))
        } else {
            Err(self.0)
        }
    }
}

/// The tenants whose people may sign in, as far as the settings about tenants go.
///
/// # Errors
///
/// When one of these is wrong.
pub fn parse_tenants_setting(variables: &Variables) -> Result<Tenants, ConfigError> {
    Settings(variables).tenants()
}

/// The names in the file `.env` of `directory` that are no setting's: misspelt, perhaps.
///
/// # Errors
///
/// When the file cannot be read.
pub fn unknown_names(directory: &Path) -> Result<BTreeSet<String>, ConfigError> {
    let names = read_file(&directory.join(".env"))?.into_keys();
    Ok(names
        .filter(|name| !VARIABLES.contains(&name.as_str()))
        .collect())
}

fn read_file(path: &Path) -> Result<Variables, ConfigError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Variables::new()),
        Err(error) => return Err(ConfigError::File(error)),
    };
    parse_file(&text)
}

/// The variables that the text of an `.env` sets.
///
/// # Errors
///
/// [`ConfigError::Line`] for the first line that makes no sense.
pub fn parse_file(text: &str) -> Result<Variables, ConfigError> {
    dotenvy::from_read_iter(text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| match error {
            dotenvy::Error::LineParse(line, _) => {
                // It gives the line, maybe with the one after it or without its comment, but not where it is.
                let start = line.lines().next().unwrap_or_default().trim();
                let index = text
                    .lines()
                    .position(|candidate| candidate.trim().starts_with(start));
                ConfigError::Line(index.map_or(1, |index| index + 1))
            }
            dotenvy::Error::Io(error) => ConfigError::File(error),
            error => ConfigError::File(io::Error::other(error)),
        })
}
