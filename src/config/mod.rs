//! Parses the environment and `.env` into a [`Config`], or into an error that names a setting.
//!
//! Nothing else reads the environment, except dotenvy for a `$NAME` in `.env`, and libraries for
//! their standard variables. No error contains a value: it may be a secret in the wrong variable.

pub mod env_file;
pub mod env_text;
pub mod reload;
pub mod settings;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use axum::http::HeaderValue;
use tracing_subscriber::EnvFilter;
use url::Url;

use self::settings::{ConfigError, Settings, Variables};
use crate::{
    auth::{Access, Tenants, verifier::TokenPolicy},
    openapi::Docs,
    tasks::store::StoreConfig,
    telemetry::log::LogFormat,
};

/// Values with which parsing succeeds if all other variables are unset.
const VALID: [(&str, &str); 4] = [
    (
        "AZURE_API_CLIENT_ID",
        "11111111-1111-4111-8111-111111111111",
    ),
    (
        "AZURE_HOME_TENANT_ID",
        "11111111-1111-4111-8111-111111111111",
    ),
    ("ALLOWED_TENANT_IDS", "11111111-1111-4111-8111-111111111111"),
    ("ALLOW_ANY_TENANT", "true"),
];

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
        Self::from_settings(&Settings::new(variables))
    }

    fn from_settings(settings: &Settings<'_>) -> Result<Self, ConfigError> {
        let tokens = TokenPolicy {
            authority: settings.authority()?,
            client_id: settings.client_id()?,
            required_scope: settings.required_scope()?,
            tenant_rate_limit: settings.tenant_rate_limit()?,
        };
        let database = settings.database()?;
        Ok(Self {
            tokens,
            access: Access::from_settings(
                settings.tenants(database.is_some())?,
                settings.revoked_keys()?,
            ),
            allowed_origins: settings.allowed_origins()?,
            host: settings.host().to_owned(),
            port: settings.port()?,
            max_connections: settings.max_connections()?,
            store: StoreConfig {
                database,
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

    /// The allow-list of a service without a registry.
    pub fn tenants(variables: &Variables) -> Result<Tenants, ConfigError> {
        Settings::new(variables).tenants(false)
    }

    /// What an operator should know about valid settings, one sentence each.
    pub fn notes(&self) -> Vec<&'static str> {
        let is_public = |address: SocketAddr| match address.ip() {
            IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_private() && !ip.is_link_local(),
            IpAddr::V6(ip) => {
                !ip.is_loopback() && !ip.is_unique_local() && !ip.is_unicast_link_local()
            }
        };
        let notes = [
            (
                self.access.tenants.is_open(),
                "ALLOW_ANY_TENANT=true: users of any tenant may sign in",
            ),
            (
                !self.tokens.authority.is_known(),
                "AZURE_AUTHORITY_HOST is not a known cloud; its tokens may be rejected",
            ),
            (
                self.store.database.is_none(),
                "tasks are stored in memory and are lost when the process ends; DATABASE_URL is \
                 not set",
            ),
            (
                self.metrics_addr.is_some_and(is_public),
                "METRICS_ADDR is neither loopback nor private; only Prometheus should reach it",
            ),
        ];
        let notes = notes.into_iter().filter(|(applies, _)| *applies);
        notes.map(|(_, note)| note).collect()
    }

    /// All missing and invalid variables. Empty if [`Config::parse`] succeeds.
    pub fn problems(mut variables: Variables) -> Vec<ConfigError> {
        let mut problems = Vec::new();
        // Each turn makes one more variable valid, so the loop ends.
        while let Err(problem) = Self::parse(&variables) {
            let variable = problem.variable();
            problems.push(problem);
            let Some(variable) = variable else {
                break;
            };
            variables.remove(variable);
            variables.extend(valid_variables().remove_entry(variable));
        }
        problems
    }
}

/// The variables that a reload applies: those from which [`Access`] is parsed.
fn reloadable() -> BTreeSet<&'static str> {
    let variables = Variables::new();
    let settings = Settings::new(&variables);
    // Without values, parsing fails after it has looked up the variables.
    let _ = (settings.tenants(false), settings.revoked_keys());
    settings.looked_up()
}

/// Every variable that the service reads: those that [`Config::parse`] looks up.
///
/// # Panics
///
/// If a required setting has no entry in `VALID`.
pub fn variables() -> BTreeSet<&'static str> {
    let valid = valid_variables();
    let settings = Settings::new(&valid);
    Config::from_settings(&settings).expect("the values are valid");
    settings.looked_up()
}

fn valid_variables() -> Variables {
    VALID
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ranges of RFC 1918, RFC 3927 and RFC 4193, the loopback addresses, and public addresses.
    #[test]
    fn public_metrics_addresses_are_noted() {
        for (address, is_noted) in [
            ("127.0.0.1:9090", false),
            ("10.0.0.1:9090", false),
            ("169.254.0.1:9090", false),
            ("[::1]:9090", false),
            ("[fd00::1]:9090", false),
            ("[fe80::1]:9090", false),
            ("0.0.0.0:9090", true),
            ("203.0.113.1:9090", true),
            ("[::]:9090", true),
            ("[2001:db8::1]:9090", true),
        ] {
            let mut variables = valid_variables();
            variables.insert("METRICS_ADDR".to_owned(), address.to_owned());
            let notes = Config::parse(&variables).unwrap().notes();
            let found = notes.iter().any(|note| note.starts_with("METRICS_ADDR"));
            assert_eq!(found, is_noted, "{address}");
        }
    }
}
