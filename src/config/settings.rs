//! The name, the default and the parser of each setting.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap, HashSet},
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    str::FromStr,
};

use axum::http::HeaderValue;
use thiserror::Error;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};
use url::Url;
use uuid::Uuid;

use crate::{
    auth::{Authority, Tenants},
    ids::{KeyId, TenantId, parse_guid},
    openapi::Docs,
    server::DEFAULT_MAX_CONNECTIONS,
    tasks::store::{
        DEFAULT_MAX_DATABASE_CONNECTIONS, DEFAULT_MAX_TASKS_PER_TENANT,
        postgres::config::{DatabaseConfig, DatabaseUrlError},
    },
    telemetry::{log::LogFormat, otlp},
    text_file::TextFileError,
};

/// The variable with the allow-list.
pub const ALLOWED_TENANT_IDS: &str = "ALLOWED_TENANT_IDS";

/// The variable with the revoked signing keys.
pub const REVOKED_KEY_IDS: &str = "REVOKED_KEY_IDS";

/// The variable with the address of the database.
pub const DATABASE_URL: &str = "DATABASE_URL";

/// The settings for which an empty value has a meaning. Every other empty value counts as unset.
pub const MAY_BE_EMPTY: [&str; 3] = [ALLOWED_TENANT_IDS, "ALLOWED_ORIGINS", "REQUIRED_SCOPE"];

/// The values of variables by name. An unset variable has no entry.
pub type Variables = HashMap<String, String>;

/// Why the settings cannot be used: one sentence with the variable's name.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the error texts say what they mean")]
pub enum ConfigError {
    #[error("{variable} is not set: {advice}")]
    Missing {
        variable: &'static str,
        advice: &'static str,
    },
    #[error("{variable} {problem}")]
    Invalid {
        variable: &'static str,
        problem: String,
    },
    #[error("cannot read .env: {0}")]
    File(#[from] TextFileError),
    #[error(
        ".env, line {0}: not of the form NAME=value. Quote a value that contains spaces or \
         backslashes"
    )]
    Line(usize),
}

impl ConfigError {
    /// The variable with the problem; `None` for a problem with the file.
    pub(super) fn variable(&self) -> Option<&'static str> {
        match self {
            Self::Missing { variable, .. } | Self::Invalid { variable, .. } => Some(variable),
            Self::File(_) | Self::Line(_) => None,
        }
    }
}

/// The parsers of the settings. An empty value counts as unset, unless the method says otherwise.
///
/// The methods record each variable that they look up. [`variables`](super::variables) returns
/// these, so there is no other list of settings.
pub struct Settings<'a> {
    variables: &'a Variables,
    looked_up: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Settings<'a> {
    /// The settings in these variables.
    pub fn new(variables: &'a Variables) -> Self {
        Self {
            variables,
            looked_up: RefCell::default(),
        }
    }

    /// The variables that the methods have looked up, whether they are set or not.
    pub(super) fn looked_up(self) -> BTreeSet<&'static str> {
        self.looked_up.into_inner()
    }

    fn raw(&self, variable: &'static str) -> Option<&str> {
        self.looked_up.borrow_mut().insert(variable);
        self.variables.get(variable).map(|value| value.trim())
    }

    fn value(&self, variable: &'static str) -> Option<&str> {
        self.raw(variable).filter(|value| !value.is_empty())
    }

    /// The parsed value; `None` if the variable is unset. `expected` completes "VARIABLE must …".
    fn parse<T: FromStr>(
        &self,
        variable: &'static str,
        expected: &str,
    ) -> Result<Option<T>, ConfigError> {
        self.parse_with(variable, |value| value.parse().ok(), expected)
    }

    fn parse_with<T>(
        &self,
        variable: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
        expected: &str,
    ) -> Result<Option<T>, ConfigError> {
        let value = self.value(variable).map(parse);
        value
            .map(|value| must(variable, value, expected))
            .transpose()
    }

    fn guid(&self, variable: &'static str, of: &str) -> Result<Option<Uuid>, ConfigError> {
        let expected = format!("be the GUID of {of}");
        self.parse_with(variable, |value| parse_guid(value).ok(), &expected)
    }

    /// One of two words. The first one is the default.
    fn choice<T>(&self, variable: &'static str, words: [(&str, T); 2]) -> Result<T, ConfigError> {
        let [first, second] = words;
        let expected = format!("be {} or {}", first.0, second.0);
        let chosen = match self.value(variable).unwrap_or(first.0) {
            word if word == first.0 => Some(first.1),
            word if word == second.0 => Some(second.1),
            _ => None,
        };
        must(variable, chosen, &expected)
    }

    pub(super) fn client_id(&self) -> Result<Uuid, ConfigError> {
        const VARIABLE: &str = "AZURE_API_CLIENT_ID";
        let client_id = self.guid(VARIABLE, "the API's app registration")?;
        client_id.ok_or(ConfigError::Missing {
            variable: VARIABLE,
            advice: "run ./setup.sh to register the API in Entra and write .env, or try the service \
                     without an Azure account: cargo run --example sandbox",
        })
    }

    fn spa_client_id(&self) -> Result<Option<Uuid>, ConfigError> {
        self.guid("AZURE_SPA_CLIENT_ID", "the single-page app's registration")
    }

    /// The allow-list, which may be empty only if there is a registry of tenants.
    pub(super) fn tenants(&self, has_registry: bool) -> Result<Tenants, ConfigError> {
        let tenants = self.listed_tenants()?;
        if has_registry || tenants.is_open() || !tenants.listed().is_empty() {
            return Ok(tenants);
        }
        let problem = if self.raw(ALLOWED_TENANT_IDS).is_some() {
            "is empty: list at least one tenant ID, unset it and set AZURE_HOME_TENANT_ID, or set \
             ALLOW_ANY_TENANT=true"
        } else {
            "is not set, nor is AZURE_HOME_TENANT_ID: set one of them, or ALLOW_ANY_TENANT=true"
        };
        Err(invalid(ALLOWED_TENANT_IDS, problem))
    }

    /// The allow-list of the settings alone. `ALLOWED_TENANT_IDS`, set but empty, is an empty list.
    pub fn listed_tenants(&self) -> Result<Tenants, ConfigError> {
        let home = self.home_tenant()?;
        let listed: BTreeSet<_> = match self.raw(ALLOWED_TENANT_IDS) {
            Some(list) => parse_tenants(list)?,
            None => home.into_iter().collect(),
        };
        if self.flag("ALLOW_ANY_TENANT")? {
            return Ok(Tenants::Any { listed });
        }
        Ok(Tenants::Listed(listed))
    }

    fn home_tenant(&self) -> Result<Option<TenantId>, ConfigError> {
        let expected = "be the GUID of an organization's tenant";
        let parse = |value: &str| TenantId::parse_organization(value).ok();
        self.parse_with("AZURE_HOME_TENANT_ID", parse, expected)
    }

    fn flag(&self, variable: &'static str) -> Result<bool, ConfigError> {
        let value = self.value(variable).unwrap_or("false");
        let value = value.to_ascii_lowercase().parse().ok();
        must(variable, value, "be true or false")
    }

    pub(super) fn authority(&self) -> Result<Authority, ConfigError> {
        const VARIABLE: &str = "AZURE_AUTHORITY_HOST";
        let value = self.value(VARIABLE).unwrap_or(Authority::PUBLIC);
        Authority::parse(value).map_err(|error| invalid(VARIABLE, error.to_string()))
    }

    /// Set but empty: any scope is accepted.
    pub(super) fn required_scope(&self) -> Result<Option<String>, ConfigError> {
        let scope = self.raw("REQUIRED_SCOPE").unwrap_or("access_as_user");
        // A scope token (RFC 6749, section 3.3). A response header contains it between quotes.
        // `scp` contains the short form: no `api://…/`, no list, and not `.default`.
        let is_allowed = |byte: u8| byte.is_ascii_graphic() && !b"\"\\/:,".contains(&byte);
        let is_short = |scope: &&str| scope.bytes().all(is_allowed) && *scope != ".default";
        let expected = "be one scope in its short form, such as access_as_user and not \
                        api://…/access_as_user or .default";
        let scope = must("REQUIRED_SCOPE", Some(scope).filter(is_short), expected)?;
        Ok(Some(scope.to_owned()).filter(|scope| !scope.is_empty()))
    }

    /// The revoked signing keys.
    pub fn revoked_keys(&self) -> Result<HashSet<KeyId>, ConfigError> {
        let key_ids = entries(self.value(REVOKED_KEY_IDS).unwrap_or_default());
        let key_ids = key_ids.map(KeyId::parse).collect();
        let expected = "list key ids of at most 128 characters, separated by commas";
        must(REVOKED_KEY_IDS, key_ids, expected)
    }

    /// Set but empty: no origin.
    pub(super) fn allowed_origins(&self) -> Result<Vec<HeaderValue>, ConfigError> {
        const VARIABLE: &str = "ALLOWED_ORIGINS";
        let list = self.raw(VARIABLE).unwrap_or("http://localhost:3000");
        let expected = "list origins such as http://localhost:3000, separated by commas, in lower \
                        case, without * and without a trailing slash";
        parse_list(VARIABLE, list, parse_origin, expected)
    }

    /// An IPv6 address may be in brackets, as in a URL.
    pub(super) fn host(&self) -> &str {
        let host = self.value("HOST").unwrap_or("127.0.0.1");
        let address = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        address.unwrap_or(host)
    }

    pub(super) fn port(&self) -> Result<u16, ConfigError> {
        let port = self.parse("PORT", "be a whole number from 0 to 65535")?;
        Ok(port.unwrap_or(8000))
    }

    /// Requests per second of each tenant; `None` for no limit.
    pub(super) fn tenant_rate_limit(&self) -> Result<Option<NonZeroU32>, ConfigError> {
        self.positive("TENANT_RATE_LIMIT")
    }

    pub(super) fn max_connections(&self) -> Result<usize, ConfigError> {
        self.count("MAX_CONNECTIONS", DEFAULT_MAX_CONNECTIONS)
    }

    pub(super) fn max_tasks_per_tenant(&self) -> Result<usize, ConfigError> {
        self.count("MAX_TASKS_PER_TENANT", DEFAULT_MAX_TASKS_PER_TENANT)
    }

    fn positive(&self, variable: &'static str) -> Result<Option<NonZeroU32>, ConfigError> {
        self.parse(
            variable,
            &format!("be a whole number from 1 to {}", u32::MAX),
        )
    }

    fn count(&self, variable: &'static str, default: usize) -> Result<usize, ConfigError> {
        let number = self.positive(variable)?.map(NonZeroU32::get);
        Ok(number.map_or(default, |number| {
            usize::try_from(number).unwrap_or(usize::MAX)
        }))
    }

    /// The database; `None` keeps tasks in memory.
    pub fn database(&self) -> Result<Option<DatabaseConfig>, ConfigError> {
        let database = self.value(DATABASE_URL).map(str::parse).transpose();
        database.map_err(|error: DatabaseUrlError| invalid(DATABASE_URL, error.to_string()))
    }

    pub(super) fn max_database_connections(&self) -> Result<NonZeroUsize, ConfigError> {
        let number = self.positive("MAX_DATABASE_CONNECTIONS")?;
        let number = number.and_then(|number| NonZeroUsize::try_from(number).ok());
        Ok(number.unwrap_or(DEFAULT_MAX_DATABASE_CONNECTIONS))
    }

    pub(super) fn metrics_addr(&self) -> Result<Option<SocketAddr>, ConfigError> {
        let expected = "be an address and a port, such as 127.0.0.1:9090";
        self.parse("METRICS_ADDR", expected)
    }

    pub(super) fn otlp_endpoint(&self) -> Result<Option<Url>, ConfigError> {
        const VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        const EXPECTED: &str = "be a URL such as http://127.0.0.1:4318";
        if !otlp::IS_ENABLED && self.value(VARIABLE).is_some() {
            let problem = "is set, but this binary was built without --features otlp";
            return Err(invalid(VARIABLE, problem));
        }
        let is_http = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
        let parse = |value: &str| value.parse().ok().filter(is_http);
        self.parse_with(VARIABLE, parse, EXPECTED)
    }

    /// See [`Config::docs`](super::Config::docs).
    pub(super) fn docs(&self) -> Result<Option<Docs>, ConfigError> {
        let docs = Docs {
            authority: self.authority()?,
            client_id: self.client_id()?,
            scope: self.required_scope()?,
            spa_client_id: self.spa_client_id()?,
        };
        Ok(self.docs_enabled()?.then_some(docs))
    }

    fn docs_enabled(&self) -> Result<bool, ConfigError> {
        self.choice("DOCS", [("on", true), ("off", false)])
    }

    pub(super) fn log_filter(&self) -> Result<EnvFilter, ConfigError> {
        let text = self.value("RUST_LOG").unwrap_or("info");
        let expected = "be a level (error, warn, info, debug or trace), or directives such as \
                        info,tenant_tasks=debug";
        // The library takes a bare word that is not a level for a target, and logs nothing else.
        let is_target = |directive: &str| {
            !directive.contains(['=', '[', ']', '}']) && directive.parse::<LevelFilter>().is_err()
        };
        let has_target = text.split(',').map(str::trim).any(is_target);
        let filter = EnvFilter::try_new(text).ok();
        must("RUST_LOG", filter.filter(|_| !has_target), expected)
    }

    pub(super) fn log_format(&self) -> Result<LogFormat, ConfigError> {
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        self.choice("LOG_FORMAT", formats)
    }
}

pub(super) fn invalid(variable: &'static str, problem: impl Into<String>) -> ConfigError {
    let problem = problem.into();
    ConfigError::Invalid { variable, problem }
}

/// Returns the value, or the error "VARIABLE must `expected`".
fn must<T>(variable: &'static str, value: Option<T>, expected: &str) -> Result<T, ConfigError> {
    value.ok_or_else(|| invalid(variable, format!("must {expected}")))
}

pub(super) fn entries(list: &str) -> impl Iterator<Item = &str> {
    let entries = list.split(',').map(str::trim);
    entries.filter(|entry| !entry.is_empty())
}

/// Parses a comma-separated list. The error names the position of the invalid entry, from 1.
fn parse_list<T, L: FromIterator<T>>(
    variable: &'static str,
    list: &str,
    parse: fn(&str) -> Option<T>,
    expected: &str,
) -> Result<L, ConfigError> {
    let entries = entries(list).enumerate().map(|(index, entry)| {
        let expected = format!("{expected}: entry {} is not one", index + 1);
        must(variable, parse(entry), &expected)
    });
    entries.collect()
}

/// Parses a comma-separated list of tenants.
pub fn parse_tenants(list: &str) -> Result<BTreeSet<TenantId>, ConfigError> {
    let expected = "list the GUIDs of organizations' tenants, separated by commas";
    parse_list(
        ALLOWED_TENANT_IDS,
        list,
        |entry| TenantId::parse_organization(entry).ok(),
        expected,
    )
}

/// Accepts only the form that browsers send, because origins are compared as text.
fn parse_origin(entry: &str) -> Option<HeaderValue> {
    let origin = Url::parse(entry).ok()?.origin().ascii_serialization();
    HeaderValue::try_from(entry)
        .ok()
        .filter(|_| origin == entry && !entry.contains('*'))
}
