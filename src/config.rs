//! Environment and `.env` to a [`Config`], whole or one named error.
//!
//! Nothing else reads the environment (but dotenvy, for a `$NAME` in the file). No error repeats a value: it might be a secret in
//! the wrong place.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    env::{self, VarError},
    fs, io,
    num::{NonZeroU32, NonZeroUsize},
    path::Path,
};

use axum::http::HeaderValue;
use thiserror::Error;
use tracing_subscriber::EnvFilter;
use url::Url;
use uuid::Uuid;

use crate::{
    auth::{Access, Authority, KeyId, Tenants, verifier::TokenPolicy},
    ids::{TenantId, parse_guid},
    openapi::Docs,
    server::DEFAULT_MAX_CONNECTIONS,
    tasks::{
        postgres::{Database, DatabaseUrlError},
        store::{DEFAULT_MAX_DATABASE_CONNECTIONS, DEFAULT_MAX_TASKS_PER_TENANT, StoreConfig},
    },
};

/// Every variable the service reads.
pub const VARIABLES: [&str; 20] = [
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
    for variable in VARIABLES {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
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
        let settings = Settings(variables);
        if settings.value("METRICS_ADDR").is_some() {
            let problem = "is set, but this version has no metrics yet: leave it empty";
            return Err(invalid("METRICS_ADDR", problem));
        }
        let tokens = TokenPolicy {
            client_id: settings.client_id()?,
            authority: settings.authority()?,
            required_scope: settings.required_scope()?,
            tenant_rate_limit: settings.whole_number("TENANT_RATE_LIMIT")?,
        };
        Ok(Self {
            access: Access { tenants: settings.tenants()?, revoked_keys: settings.revoked_keys()? },
            allowed_origins: settings.allowed_origins()?,
            host: settings.value("HOST").unwrap_or("127.0.0.1").to_owned(),
            port: settings.port()?,
            max_connections: settings.count("MAX_CONNECTIONS", DEFAULT_MAX_CONNECTIONS)?,
            store: StoreConfig {
                database: settings.database()?,
                max_database_connections: settings.database_connections()?,
                max_tasks_per_tenant: settings.count("MAX_TASKS_PER_TENANT", DEFAULT_MAX_TASKS_PER_TENANT)?,
            },
            docs: settings.docs(&tokens)?,
            log_filter: settings.log_filter()?,
            log_format: settings.log_format()?,
            tokens,
        })
    }
}

/// One method per setting. An empty value counts as unset, unless the method says otherwise.
struct Settings<'a>(&'a Variables);

impl Settings<'_> {
    fn raw(&self, variable: &str) -> Option<&str> {
        self.0.get(variable).map(|value| value.trim())
    }

    fn value(&self, variable: &str) -> Option<&str> {
        self.raw(variable).filter(|value| !value.is_empty())
    }

    fn client_id(&self) -> Result<Uuid, ConfigError> {
        const VARIABLE: &str = "AZURE_API_CLIENT_ID";
        let value = self.value(VARIABLE).ok_or(ConfigError::Missing {
            variable: VARIABLE,
            advice: "run ./setup.sh to register the API with Entra and write .env, or try the service \
                     without an Azure account with `cargo run --example sandbox`",
        })?;
        parse_guid(value).map_err(|_| invalid(VARIABLE, "must be the GUID of the API's app registration"))
    }

    fn tenants(&self) -> Result<Tenants, ConfigError> {
        let home = self.home_tenant()?;
        let allowed: BTreeSet<_> = match self.raw("ALLOWED_TENANT_IDS") {
            Some(list) => parse_tenants(list)?,
            None => home.into_iter().collect(),
        };
        if self.flag("ALLOW_ANY_TENANT")? {
            return Ok(Tenants::Any { expected: allowed });
        }
        if allowed.is_empty() {
            return Err(invalid(
                "ALLOWED_TENANT_IDS",
                "lists nobody: name the tenants whose people may sign in, or leave it out and set \
                 AZURE_HOME_TENANT_ID to your own, or set ALLOW_ANY_TENANT=true",
            ));
        }
        Ok(Tenants::Listed(allowed))
    }

    fn home_tenant(&self) -> Result<Option<TenantId>, ConfigError> {
        const VARIABLE: &str = "AZURE_HOME_TENANT_ID";
        let home = self.value(VARIABLE).map(str::parse).transpose();
        home.map_err(|_| invalid(VARIABLE, "must be a tenant's GUID"))
    }

    fn flag(&self, variable: &'static str) -> Result<bool, ConfigError> {
        let value = self.value(variable).unwrap_or("false");
        value.to_ascii_lowercase().parse().map_err(|_| invalid(variable, "must be true or false"))
    }

    fn authority(&self) -> Result<Authority, ConfigError> {
        const VARIABLE: &str = "AZURE_AUTHORITY_HOST";
        let value = self.value(VARIABLE).unwrap_or(Authority::PUBLIC);
        Authority::parse(value).map_err(|error| invalid(VARIABLE, error.to_string()))
    }

    /// Set but empty: no particular scope is asked for.
    fn required_scope(&self) -> Result<Option<String>, ConfigError> {
        let scope = self.raw("REQUIRED_SCOPE").unwrap_or("access_as_user");
        // A scope token (RFC 6749, section 3.3); it is sent back in a header between quotes.
        if scope.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\') {
            Ok(Some(scope.to_owned()).filter(|scope| !scope.is_empty()))
        } else {
            Err(invalid("REQUIRED_SCOPE", "must be one scope, such as access_as_user"))
        }
    }

    fn revoked_keys(&self) -> Result<HashSet<KeyId>, ConfigError> {
        const VARIABLE: &str = "REVOKED_KEY_IDS";
        let key_ids = entries(self.value(VARIABLE).unwrap_or_default()).map(KeyId::parse);
        let key_ids: Option<_> = key_ids.collect();
        key_ids.ok_or_else(|| {
            invalid(VARIABLE, "must list key ids of at most 128 characters, separated by commas")
        })
    }

    fn allowed_origins(&self) -> Result<Vec<HeaderValue>, ConfigError> {
        let list = self.value("ALLOWED_ORIGINS").unwrap_or("http://localhost:3000");
        entries(list).enumerate().map(|(index, entry)| parse_origin(index, entry)).collect()
    }

    fn port(&self) -> Result<u16, ConfigError> {
        let port = self.value("PORT").unwrap_or("8000");
        port.parse().map_err(|_| invalid("PORT", "must be a whole number from 0 to 65535"))
    }

    /// One that is not set has no bound or a default of its own; 0 would refuse everything.
    fn whole_number(&self, variable: &'static str) -> Result<Option<NonZeroU32>, ConfigError> {
        let number = self.value(variable).map(str::parse).transpose();
        number.map_err(|_| invalid(variable, format!("must be a whole number from 1 to {}", u32::MAX)))
    }

    fn count(&self, variable: &'static str, default: usize) -> Result<usize, ConfigError> {
        let number = self.whole_number(variable)?;
        Ok(number.map_or(default, |number| usize::try_from(number.get()).unwrap_or(usize::MAX)))
    }

    fn database(&self) -> Result<Option<Database>, ConfigError> {
        const VARIABLE: &str = "DATABASE_URL";
        let database = self.value(VARIABLE).map(str::parse).transpose();
        database.map_err(|error: DatabaseUrlError| invalid(VARIABLE, error.to_string()))
    }

    fn database_connections(&self) -> Result<NonZeroUsize, ConfigError> {
        let number = self.whole_number("MAX_DATABASE_CONNECTIONS")?;
        let number = number.and_then(|number| NonZeroUsize::try_from(number).ok());
        Ok(number.unwrap_or(DEFAULT_MAX_DATABASE_CONNECTIONS))
    }

    fn docs(&self, tokens: &TokenPolicy) -> Result<Option<Docs>, ConfigError> {
        const SPA: &str = "AZURE_SPA_CLIENT_ID";
        let spa_client_id = self.value(SPA).map(parse_guid).transpose();
        let docs = Docs {
            authority: tokens.authority.clone(),
            client_id: tokens.client_id,
            scope: tokens.required_scope.clone(),
            spa_client_id: spa_client_id
                .map_err(|_| invalid(SPA, "must be the GUID of the single-page app's registration"))?,
        };
        match self.value("DOCS").unwrap_or("on") {
            "on" => Ok(Some(docs)),
            "off" => Ok(None),
            _ => Err(invalid("DOCS", "must be on or off")),
        }
    }

    fn log_filter(&self) -> Result<EnvFilter, ConfigError> {
        let filter = self.value("RUST_LOG").unwrap_or("info");
        EnvFilter::try_new(filter).map_err(|_| {
            invalid("RUST_LOG", "must be a level such as info, or directives such as info,tenant_tasks=debug")
        })
    }

    fn log_format(&self) -> Result<LogFormat, ConfigError> {
        match self.value("LOG_FORMAT").unwrap_or("text") {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(invalid("LOG_FORMAT", "must be text or json")),
        }
    }
}

fn invalid(variable: &'static str, problem: impl Into<String>) -> ConfigError {
    ConfigError::Invalid { variable, problem: problem.into() }
}

fn entries(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

fn parse_tenants(list: &str) -> Result<BTreeSet<TenantId>, ConfigError> {
    let tenants = entries(list).enumerate().map(|(index, entry)| {
        entry.parse().map_err(|_| {
            invalid(
                "ALLOWED_TENANT_IDS",
                format!("must list GUIDs separated by commas: entry {} is not one", index + 1),
            )
        })
    });
    tenants.collect()
}

fn parse_origin(index: usize, entry: &str) -> Result<HeaderValue, ConfigError> {
    // Browsers send an origin in exactly this form, and it is compared as text.
    let origin = Url::parse(entry).ok().map(|url| url.origin().ascii_serialization());
    match HeaderValue::try_from(entry) {
        Ok(value) if origin.as_deref() == Some(entry) => Ok(value),
        Ok(_) | Err(_) => Err(invalid(
            "ALLOWED_ORIGINS",
            format!(
                "must list origins such as http://localhost:3000, in lower case, without a path or a slash \
                 at the end, separated by commas: entry {} is not one",
                index + 1
            ),
        )),
    }
}

fn read_file(path: &Path) -> Result<Variables, ConfigError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Variables::new()),
        Err(error) => return Err(ConfigError::File(error)),
    };
    dotenvy::from_read_iter(text.as_bytes()).collect::<Result<_, _>>().map_err(|error| match error {
        dotenvy::Error::LineParse(line, _) => {
            // It gives the line, maybe with the one after it or without its comment, but not where it is.
            let start = line.lines().next().unwrap_or_default().trim();
            let index = text.lines().position(|candidate| candidate.trim().starts_with(start));
            ConfigError::Line(index.map_or(1, |index| index + 1))
        }
        dotenvy::Error::Io(error) => ConfigError::File(error),
        error => ConfigError::File(io::Error::other(error)),
    })
}
