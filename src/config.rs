//! Environment and `.env` to a [`Config`], whole or one named error.
//!
//! Nothing else reads the environment (but dotenvy, for a `$NAME` in the file). No error repeats a value: it might be a secret in
//! the wrong place.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    env::{self, VarError},
    fs, io,
    net::SocketAddr,
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
        let tokens = problems.note(settings.client_id()).zip(problems.note(settings.authority()));
        let scope = problems.note(settings.required_scope());
        let rate = problems.note(settings.whole_number("TENANT_RATE_LIMIT"));
        let access = problems.note(settings.tenants()).zip(problems.note(settings.revoked_keys()));
        let allowed_origins = problems.note(settings.allowed_origins());
        let port = problems.note(settings.port());
        let max_connections = problems.note(settings.count("MAX_CONNECTIONS", DEFAULT_MAX_CONNECTIONS));
        let database = problems.note(settings.database()).zip(problems.note(settings.database_connections()));
        let max_tasks = problems.note(settings.count("MAX_TASKS_PER_TENANT", DEFAULT_MAX_TASKS_PER_TENANT));
        let metrics_addr = problems.note(settings.metrics_addr());
        let otlp_endpoint = problems.note(settings.otlp_endpoint());
        let docs = problems.note(settings.docs()).zip(problems.note(settings.spa_client_id()));
        let log = problems.note(settings.log_filter()).zip(problems.note(settings.log_format()));
        problems.or(move || {
            let ((client_id, authority), required_scope) = (tokens?, scope?);
            let ((tenants, revoked_keys), (database, max_database_connections)) = (access?, database?);
            let ((is_shown, spa_client_id), (log_filter, log_format)) = (docs?, log?);
            let (page_authority, page_scope) = (authority.clone(), required_scope.clone());
            let docs = Docs { authority: page_authority, client_id, scope: page_scope, spa_client_id };
            Some(Self {
                tokens: TokenPolicy { client_id, authority, required_scope, tenant_rate_limit: rate? },
                access: Access { tenants, revoked_keys },
                allowed_origins: allowed_origins?,
                host: settings.host().to_owned(),
                port: port?,
                max_connections: max_connections?,
                store: StoreConfig { database, max_database_connections, max_tasks_per_tenant: max_tasks? },
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
        if self.0.is_empty() { Ok(whole().expect("what is missing has been noted")) } else { Err(self.0) }
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
    Ok(names.filter(|name| !VARIABLES.contains(&name.as_str())).collect())
}

/// Whether the environment has this setting, which then wins over the file.
#[must_use]
pub fn is_in_environment(variable: &str) -> bool {
    env::var_os(variable).is_some()
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

    fn host(&self) -> &str {
        self.value("HOST").unwrap_or("127.0.0.1")
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

    fn metrics_addr(&self) -> Result<Option<SocketAddr>, ConfigError> {
        const VARIABLE: &str = "METRICS_ADDR";
        let address = self.value(VARIABLE).map(str::parse).transpose();
        address.map_err(|_| invalid(VARIABLE, "must be an address and a port, such as 127.0.0.1:9090"))
    }

    fn otlp_endpoint(&self) -> Result<Option<Url>, ConfigError> {
        const VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let Some(value) = self.value(VARIABLE) else { return Ok(None) };
        if !cfg!(feature = "otlp") {
            return Err(invalid(VARIABLE, "is set, but this binary was built without --features otlp"));
        }
        match Url::parse(value) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(Some(url)),
            Ok(_) | Err(_) => Err(invalid(VARIABLE, "must be a URL such as http://127.0.0.1:4318")),
        }
    }

    /// Whether the description and its page are shown.
    fn docs(&self) -> Result<bool, ConfigError> {
        match self.value("DOCS").unwrap_or("on") {
            "on" => Ok(true),
            "off" => Ok(false),
            _ => Err(invalid("DOCS", "must be on or off")),
        }
    }

    fn spa_client_id(&self) -> Result<Option<Uuid>, ConfigError> {
        const VARIABLE: &str = "AZURE_SPA_CLIENT_ID";
        let spa_client_id = self.value(VARIABLE).map(parse_guid).transpose();
        spa_client_id.map_err(|_| invalid(VARIABLE, "must be the GUID of the single-page app's registration"))
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
    parse_file(&text)
}

/// The variables that the text of an `.env` sets.
///
/// # Errors
///
/// [`ConfigError::Line`] for the first line that makes no sense.
pub fn parse_file(text: &str) -> Result<Variables, ConfigError> {
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
