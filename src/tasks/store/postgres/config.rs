//! `DATABASE_URL`, parsed: which server, which role, and whether the connection uses TLS.

use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use deadpool_postgres::Connect;
use futures_util::future::BoxFuture;
use thiserror::Error;
use tokio::task::JoinHandle;
use tokio_postgres::{
    Client,
    config::{Host, SslMode},
};
use tokio_postgres_rustls::MakeRustlsConnect;
use url::{Host as UrlHost, form_urlencoded};

use super::{
    error::{DatabaseError, with_timeout},
    tls::{self, Roots, TlsError},
};

/// The default time limit for opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long sent data may stay unacknowledged before the system closes the connection.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(5);

/// The idle time after which the system checks whether the server is still there. A firewall may
/// have dropped the connection without a word.
const KEEPALIVES_IDLE: Duration = Duration::from_mins(1);

/// The parameters of libpq that this client supports.
const PARAMETERS: [&str; 20] = [
    "application_name",
    "channel_binding",
    "connect_timeout",
    "dbname",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "load_balance_hosts",
    "options",
    "password",
    "port",
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
];

/// A database server, and how to connect to it.
#[derive(Clone)]
pub struct DatabaseConfig {
    pub(super) postgres: tokio_postgres::Config,
    /// The time limit for opening a connection.
    pub(super) connect_timeout: Duration,
    tls: rustls::ClientConfig,
}

/// The configuration for the next connection. It can be replaced while the service runs.
#[derive(Clone)]
pub struct SharedConfig(Arc<ArcSwap<DatabaseConfig>>);

/// Why a `DATABASE_URL` is invalid. The errors do not repeat it: it may contain a password.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
#[expect(missing_docs, reason = "the error texts say what the variants mean")]
pub enum DatabaseUrlError {
    #[error(
        "must have the form postgres://user:password@host:5432/database?sslmode=verify-full. \
         Percent-encode special characters, @ as %40"
    )]
    Malformed,
    #[error("has the parameter {0}, which this service does not support")]
    UnsupportedParameter(String),
    #[error("must name a user and a host")]
    Incomplete,
    #[error(
        "has sslmode=allow or sslmode=prefer, which do not verify the server. \
         Use sslmode=verify-full, or sslmode=disable for a connection without TLS"
    )]
    UnverifiedSslMode,
    #[error("has an unknown sslmode: use verify-full, verify-ca, require or disable")]
    UnknownSslMode,
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl FromStr for DatabaseConfig {
    type Err = DatabaseUrlError;

    /// Accepts libpq's parameters. `sslmode` differs from libpq: `require` and `verify-ca` verify
    /// certificate and host name like `verify-full`, because encryption to an unverified server
    /// protects nothing. Without `sslmode`, only a connection within this machine is unencrypted.
    fn from_str(text: &str) -> Result<Self, DatabaseUrlError> {
        if !(text.starts_with("postgres://") || text.starts_with("postgresql://")) {
            return Err(DatabaseUrlError::Malformed);
        }
        let (address, query) = text.split_once('?').unwrap_or((text, ""));
        let parameters = form_urlencoded::parse(query.as_bytes()).into_owned();
        let mut parameters: BTreeMap<_, _> = parameters.collect();
        let mut names = parameters.keys();
        if let Some(name) = names.find(|name| !PARAMETERS.contains(&name.as_str())) {
            // Part of a password with an unencoded `?` is not repeated.
            let is_name = name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            return Err(if is_name {
                DatabaseUrlError::UnsupportedParameter(name.clone())
            } else {
                DatabaseUrlError::Malformed
            });
        }
        let ssl_mode = parameters.remove("sslmode");
        let ssl_root_cert = parameters.remove("sslrootcert");
        // The service writes, so it needs the primary if there are several servers.
        parameters
            .entry("target_session_attrs".to_owned())
            .or_insert_with(|| "read-write".to_owned());

        let mut query = form_urlencoded::Serializer::new(String::new());
        let query = query.extend_pairs(&parameters).finish();
        // tokio-postgres does not decode + as a space.
        let url = format!("{address}?{}", query.replace('+', "%20"));
        let mut postgres: tokio_postgres::Config =
            url.parse().map_err(|_| DatabaseUrlError::Malformed)?;
        // Part of a password with an unencoded `@`.
        let is_cut = |host: &Host| matches!(host, Host::Tcp(name) if name.contains('@'));
        if postgres.get_hosts().iter().any(is_cut) {
            return Err(DatabaseUrlError::Malformed);
        }
        if postgres.get_hosts().is_empty() || postgres.get_user().is_none_or(str::is_empty) {
            return Err(DatabaseUrlError::Incomplete);
        }

        let roots = match (ssl_mode.as_deref(), ssl_root_cert.as_deref()) {
            (Some("disable"), _) => Roots::Unused,
            (None, None) if is_local(&postgres) => Roots::Unused,
            (None | Some("require" | "verify-ca" | "verify-full"), None | Some("system")) => {
                Roots::System
            }
            (None | Some("require" | "verify-ca" | "verify-full"), Some(file)) => Roots::File(file),
            (Some("allow" | "prefer"), _) => return Err(DatabaseUrlError::UnverifiedSslMode),
            (Some(_), _) => return Err(DatabaseUrlError::UnknownSslMode),
        };
        postgres.ssl_mode(match roots {
            Roots::Unused => SslMode::Disable,
            Roots::System | Roots::File(_) => SslMode::Require,
        });
        let connect_timeout = postgres.get_connect_timeout().copied();
        let connect_timeout = connect_timeout.unwrap_or(CONNECT_TIMEOUT);
        postgres.connect_timeout(connect_timeout);
        if !parameters.contains_key("tcp_user_timeout") {
            postgres.tcp_user_timeout(TCP_USER_TIMEOUT);
        }
        if !parameters.contains_key("keepalives_idle") {
            postgres.keepalives_idle(KEEPALIVES_IDLE);
        }
        if postgres.get_application_name().is_none() {
            postgres.application_name("tenant-tasks");
        }
        let tls = tls::client_config(&roots)?;
        Ok(Self {
            postgres,
            connect_timeout,
            tls,
        })
    }
}

impl DatabaseConfig {
    /// Opens a connection within its time limit.
    pub(crate) async fn open(&self) -> Result<Client, DatabaseError> {
        let connect = async { Ok(self.connect().await?) };
        let (client, _) = with_timeout(self.connect_timeout, connect).await?;
        Ok(client)
    }

    /// Opens a connection. The task ends when the client is dropped.
    async fn connect(&self) -> Result<(Client, JoinHandle<()>), tokio_postgres::Error> {
        let tls = MakeRustlsConnect::new(self.tls.clone());
        let (client, connection) = self.postgres.connect(tls).await?;
        let task = tokio::spawn(async move {
            // The client reports the connection's errors, too.
            let _ = connection.await;
        });
        Ok((client, task))
    }
}

impl SharedConfig {
    pub(super) fn new(config: DatabaseConfig) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(config)))
    }

    pub(crate) fn current(&self) -> Arc<DatabaseConfig> {
        self.0.load_full()
    }

    pub(super) fn replace(&self, config: DatabaseConfig) {
        self.0.store(Arc::new(config));
    }
}

/// The pool connects with the current configuration.
impl Connect for SharedConfig {
    fn connect(
        &self,
        _: &tokio_postgres::Config,
    ) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), tokio_postgres::Error>> {
        let config = self.current();
        Box::pin(async move { config.connect().await })
    }
}

/// Whether the connection stays within this machine.
fn is_local(postgres: &tokio_postgres::Config) -> bool {
    let is_local_host = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => match UrlHost::parse(name) {
            Ok(UrlHost::Domain(name)) => name == "localhost",
            Ok(UrlHost::Ipv4(address)) => address.is_loopback(),
            Ok(UrlHost::Ipv6(address)) => address.is_loopback(),
            // An IPv6 address without brackets.
            Err(_) => name == "::1",
        },
    };
    postgres.get_hosts().iter().all(is_local_host)
        && postgres.get_hostaddrs().iter().all(IpAddr::is_loopback)
}

/// Omits the password.
impl fmt::Debug for DatabaseConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseConfig")
            .field("hosts", &self.postgres.get_hosts())
            .field("name", &self.postgres.get_dbname())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_connections_are_unencrypted_by_default() {
        for (hosts, mode) in [
            ("localhost", SslMode::Disable),
            ("127.0.0.1,[::1]:5433", SslMode::Disable),
            ("%2Fvar%2Frun%2Fpostgresql", SslMode::Disable),
            ("db", SslMode::Require),
            ("10.0.0.1", SslMode::Require),
            ("localhost,db.example:5433", SslMode::Require),
            ("localhost.example", SslMode::Require),
            ("localhost/x?hostaddr=10.0.0.1&dbname=", SslMode::Require),
            ("localhost/x?sslrootcert=system&dbname=", SslMode::Require),
            ("localhost/x?sslmode=require&dbname=", SslMode::Require),
            ("db/x?sslmode=disable&dbname=", SslMode::Disable),
        ] {
            let url = format!("postgres://me@{hosts}/tasks");
            let database: DatabaseConfig = url.parse().expect(hosts);
            assert_eq!(database.postgres.get_ssl_mode(), mode, "{hosts}");
        }
    }

    #[test]
    fn time_limits_of_the_url_take_precedence() {
        for (query, user_timeout, idle) in [
            ("", TCP_USER_TIMEOUT, KEEPALIVES_IDLE),
            (
                "tcp_user_timeout=7",
                Duration::from_secs(7),
                KEEPALIVES_IDLE,
            ),
            (
                "keepalives_idle=7",
                TCP_USER_TIMEOUT,
                Duration::from_secs(7),
            ),
        ] {
            let url = format!("postgres://me@localhost/tasks?{query}");
            let database: DatabaseConfig = url.parse().expect(query);
            let postgres = &database.postgres;
            assert_eq!(postgres.get_tcp_user_timeout(), Some(&user_timeout));
            assert_eq!(postgres.get_keepalives_idle(), idle);
        }
    }

    #[test]
    fn debug_output_hides_the_password() {
        let url = "postgres://me:s3cret@localhost/tasks";
        let database: DatabaseConfig = url.parse().expect("a URL");
        let output = format!("{database:?}");
        assert!(output.contains("localhost") && output.contains("tasks"));
        assert!(!output.contains("s3cret"));
    }
}
