//! Parses the environment and `.env` into a [`Config`], or into an error that names a setting.
//!
//! Nothing else reads the environment, except dotenvy for a `$NAME` in `.env`, and libraries for
//! their standard variables. No error contains a value: it may be a secret in the wrong variable.

pub mod env_file;
pub mod reload;
pub mod settings;

use std::{net::SocketAddr, path::Path};

use axum::http::HeaderValue;
use tracing_subscriber::EnvFilter;
use url::Url;

use self::settings::{ConfigError, Settings, Variables};
use crate::{
    auth::{Access, verifier::TokenPolicy},
    openapi::Docs,
    tasks::store::StoreConfig,
    telemetry::log::LogFormat,
};

/// Every setting, parsed.
#[derive(Debug)]
pub struct Config {
    /// Which tokens are accepted.
    pub tokens: TokenPolicy,
    /// The allow-list and the revoked keys, which can change while the service runs.
    pub access: Access,
    /// The origins of single-page apps that may call the API.
    pub allowed_origins: Vec<HeaderValue>,
    /// The address or host name to listen on.
    pub host: String,
    /// The port to listen on; 0 lets the system choose.
    pub port: u16,
    /// The maximum number of connections.
    pub max_connections: usize,
    /// Where tasks are stored.
    pub store: StoreConfig,
    /// The address that serves metrics for Prometheus; `None` for none.
    pub metrics_addr: Option<SocketAddr>,
    /// The base URL of a collector for traces (OTLP over HTTP); `None` for none.
    pub otlp_endpoint: Option<Url>,
    /// What `/openapi.json` and `/docs` need; `None` hides both.
    pub docs: Option<Docs>,
    /// Which log lines are written.
    pub log_filter: EnvFilter,
    /// The format of log lines.
    pub log_format: LogFormat,
}

impl Config {
    /// Parses the variables.
    ///
    /// # Errors
    ///
    /// The first variable that is missing or invalid.
    pub fn parse(variables: &Variables) -> Result<Self, ConfigError> {
        let settings = Settings(variables);
        Ok(Self {
            tokens: TokenPolicy {
                authority: settings.authority()?,
                client_id: settings.client_id()?,
                required_scope: settings.required_scope()?,
                tenant_rate_limit: settings.tenant_rate_limit()?,
            },
            access: Access {
                tenants: settings.tenants()?,
                revoked_keys: settings.revoked_keys()?,
            },
            allowed_origins: settings.allowed_origins()?,
            host: settings.host().to_owned(),
            port: settings.port()?,
            max_connections: settings.max_connections()?,
            store: StoreConfig {
                database: settings.database()?,
                max_database_connections: settings.max_database_connections()?,
                max_tasks_per_tenant: settings.max_tasks_per_tenant()?,
            },
            metrics_addr: settings.metrics_addr()?,
            otlp_endpoint: settings.otlp_endpoint()?,
            docs: settings.docs()?,
            log_filter: settings.log_filter()?,
            log_format: settings.log_format()?,
        })
    }

    /// All missing and invalid variables, for `check`. Empty if [`Config::parse`] succeeds.
    pub fn problems(variables: &Variables) -> Vec<ConfigError> {
        let settings = Settings(variables);
        [
            settings.client_id().err(),
            settings.authority().err(),
            settings.required_scope().err(),
            settings.tenant_rate_limit().err(),
            settings.tenants().err(),
            settings.revoked_keys().err(),
            settings.allowed_origins().err(),
            settings.port().err(),
            settings.max_connections().err(),
            settings.database().err(),
            settings.max_database_connections().err(),
            settings.max_tasks_per_tenant().err(),
            settings.metrics_addr().err(),
            settings.otlp_endpoint().err(),
            settings.docs_enabled().err(),
            settings.spa_client_id().err(),
            settings.log_filter().err(),
            settings.log_format().err(),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// The host and port to listen on. Parses only HOST and PORT, so that a health check works even if
/// other settings are invalid.
pub fn listen_address(directory: &Path) -> Result<(String, u16), ConfigError> {
    let variables =
        env_file::read_variables(directory).or_else(|_| settings::read_environment())?;
    let settings = Settings(&variables);
    Ok((settings.host().to_owned(), settings.port()?))
}
