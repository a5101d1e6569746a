//! Each setting's text to its value: what it may be, what it is when it is not set, and what is wrong with it.

use std::{
    collections::{BTreeSet, HashSet},
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
};

use axum::http::HeaderValue;
use tracing_subscriber::EnvFilter;
use url::Url;
use uuid::Uuid;

use super::{ConfigError, LogFormat, Variables};
use crate::{
    auth::{Authority, KeyId, Tenants},
    ids::{TenantId, parse_guid},
    tasks::store::{
        DEFAULT_MAX_DATABASE_CONNECTIONS,
        postgres::{Database, DatabaseUrlError},
    },
};

/// One method per setting. An empty value counts as unset, unless the method says otherwise.
pub(super) struct Settings<'a>(pub(super) &'a Variables);

impl Settings<'_> {
    fn raw(&self, variable: &str) -> Option<&str> {
        self.0.get(variable).map(|value| value.trim())
    }

    fn value(&self, variable: &str) -> Option<&str> {
        self.raw(variable).filter(|value| !value.is_empty())
    }

    pub(super) fn client_id(&self) -> Result<Uuid, ConfigError> {
        const VARIABLE: &str = "AZURE_API_CLIENT_ID";
        let value = self.value(VARIABLE).ok_or(ConfigError::Missing {
            variable: VARIABLE,
            advice: "run ./setup.sh to register the API with Entra and write .env, or try the service \
                     without an Azure account with `cargo run --example sandbox`",
        })?;
        parse_guid(value)
            .map_err(|_| invalid(VARIABLE, "must be the GUID of the API's app registration"))
    }

    pub(super) fn tenants(&self) -> Result<Tenants, ConfigError> {
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
        value
            .to_ascii_lowercase()
            .parse()
            .map_err(|_| invalid(variable, "must be true or false"))
    }

    pub(super) fn authority(&self) -> Result<Authority, ConfigError> {
        const VARIABLE: &str = "AZURE_AUTHORITY_HOST";
        let value = self.value(VARIABLE).unwrap_or(Authority::PUBLIC);
        Authority::parse(value).map_err(|error| invalid(VARIABLE, error.to_string()))
    }

    /// Set but empty: no particular scope is asked for.
    pub(super) fn required_scope(&self) -> Result<Option<String>, ConfigError> {
        let scope = self.raw("REQUIRED_SCOPE").unwrap_or("access_as_user");
        // A scope token (RFC 6749, section 3.3); it is sent back in a header between quotes.
        if scope
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
        {
            Ok(Some(scope.to_owned()).filter(|scope| !scope.is_empty()))
        } else {
            Err(invalid(
                "REQUIRED_SCOPE",
                "must be one scope, such as access_as_user",
            ))
        }
    }

    pub(super) fn revoked_keys(&self) -> Result<HashSet<KeyId>, ConfigError> {
        const VARIABLE: &str = "REVOKED_KEY_IDS";
        let key_ids = entries(self.value(VARIABLE).unwrap_or_default()).map(KeyId::parse);
        let key_ids: Option<_> = key_ids.collect();
        key_ids.ok_or_else(|| {
            invalid(
                VARIABLE,
                "must list key ids of at most 128 characters, separated by commas",
            )
        })
    }

    pub(super) fn allowed_origins(&self) -> Result<Vec<HeaderValue>, ConfigError> {
        let list = self
            .value("ALLOWED_ORIGINS")
            .unwrap_or("http://localhost:3000");
        entries(list)
            .enumerate()
            .map(|(index, entry)| parse_origin(index, entry))
            .collect()
    }

    pub(super) fn host(&self) -> &str {
        self.value("HOST").unwrap_or("127.0.0.1")
    }

    pub(super) fn port(&self) -> Result<u16, ConfigError> {
        let port = self.value("PORT").unwrap_or("8000");
        port.parse()
            .map_err(|_| invalid("PORT", "must be a whole number from 0 to 65535"))
    }

    /// One that is not set has no bound or a default of its own; 0 would refuse everything.
    pub(super) fn whole_number(
        &self,
        variable: &'static str,
    ) -> Result<Option<NonZeroU32>, ConfigError> {
        let number = self.value(variable).map(str::parse).transpose();
        number.map_err(|_| {
            invalid(
                variable,
                format!("must be a whole number from 1 to {}", u32::MAX),
            )
        })
    }

    pub(super) fn count(
        &self,
        variable: &'static str,
        default: usize,
    ) -> Result<usize, ConfigError> {
        let number = self.whole_number(variable)?;
        Ok(number.map_or(default, |number| {
            usize::try_from(number.get()).unwrap_or(usize::MAX)
        }))
    }

    pub(super) fn database(&self) -> Result<Option<Database>, ConfigError> {
        const VARIABLE: &str = "DATABASE_URL";
        let database = self.value(VARIABLE).map(str::parse).transpose();
        database.map_err(|error: DatabaseUrlError| invalid(VARIABLE, error.to_string()))
    }

    pub(super) fn database_connections(&self) -> Result<NonZeroUsize, ConfigError> {
        let number = self.whole_number("MAX_DATABASE_CONNECTIONS")?;
        let number = number.and_then(|number| NonZeroUsize::try_from(number).ok());
        Ok(number.unwrap_or(DEFAULT_MAX_DATABASE_CONNECTIONS))
    }

    pub(super) fn metrics_addr(&self) -> Result<Option<SocketAddr>, ConfigError> {
        const VARIABLE: &str = "METRICS_ADDR";
        let address = self.value(VARIABLE).map(str::parse).transpose();
        address.map_err(|_| {
            invalid(
                VARIABLE,
                "must be an address and a port, such as 127.0.0.1:9090",
            )
        })
    }

    pub(super) fn otlp_endpoint(&self) -> Result<Option<Url>, ConfigError> {
        const VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let Some(value) = self.value(VARIABLE) else {
            return Ok(None);
        };
        if !cfg!(feature = "otlp") {
            return Err(invalid(
                VARIABLE,
                "is set, but this binary was built without --features otlp",
            ));
        }
        match Url::parse(value) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(Some(url)),
            Ok(_) | Err(_) => Err(invalid(
                VARIABLE,
                "must be a URL such as http://127.0.0.1:4318",
            )),
        }
    }

    /// Whether the description and its page are shown.
    pub(super) fn docs(&self) -> Result<bool, ConfigError> {
        match self.value("DOCS").unwrap_or("on") {
            "on" => Ok(true),
            "off" => Ok(false),
            _ => Err(invalid("DOCS", "must be on or off")),
        }
    }

    pub(super) fn spa_client_id(&self) -> Result<Option<Uuid>, ConfigError> {
        const VARIABLE: &str = "AZURE_SPA_CLIENT_ID";
        let spa_client_id = self.value(VARIABLE).map(parse_guid).transpose();
        spa_client_id.map_err(|_| {
            invalid(
                VARIABLE,
                "must be the GUID of the single-page app's registration",
            )
        })
    }

    pub(super) fn log_filter(&self) -> Result<EnvFilter, ConfigError> {
        let filter = self.value("RUST_LOG").unwrap_or("info");
        EnvFilter::try_new(filter).map_err(|_| {
            invalid(
                "RUST_LOG",
                "must be a level such as info, or directives such as info,tenant_tasks=debug",
            )
        })
    }

    pub(super) fn log_format(&self) -> Result<LogFormat, ConfigError> {
        match self.value("LOG_FORMAT").unwrap_or("text") {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(invalid("LOG_FORMAT", "must be text or json")),
        }
    }
}

pub(super) fn invalid(variable: &'static str, problem: impl Into<String>) -> ConfigError {
    ConfigError::Invalid {
        variable,
        problem: problem.into(),
    }
}

fn entries(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
}

pub(crate) fn parse_tenants(list: &str) -> Result<BTreeSet<TenantId>, ConfigError> {
    let tenants = entries(list).enumerate().map(|(index, entry)| {
        entry.parse().map_err(|_| {
            invalid(
                "ALLOWED_TENANT_IDS",
                format!(
                    "must list GUIDs separated by commas: entry {} is not one",
                    index + 1
                ),
            )
        })
    });
    tenants.collect()
}

fn parse_origin(index: usize, entry: &str) -> Result<HeaderValue, ConfigError> {
    // Browsers send an origin in exactly this form, and it is compared as text.
    let origin = Url::parse(entry)
        .ok()
        .map(|url| url.origin().ascii_serialization());
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
