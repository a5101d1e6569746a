//! `DATABASE_URL`, parsed: which server, as whom, and how far its certificate is trusted.

use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr, time::Duration};

use thiserror::Error;
use tokio_postgres::config::{Host, SslMode};
use url::{Host as UrlHost, form_urlencoded};

use super::tls::{self, Trust};

/// How long a connection may take to be made, in all.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the system keeps a connection whose other side no longer acknowledges anything.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// A database server, and how to connect to it.
#[derive(Clone)]
pub struct Database {
    pub(super) config: tokio_postgres::Config,
    pub(super) tls: rustls::ClientConfig,
}

/// Why a text is no `DATABASE_URL`; repeats nothing of it, it may hold a password.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
pub enum DatabaseUrlError {
    /// Not a URL of PostgreSQL's, or one with a parameter that is not known.
    #[error("must be of the form postgres://user:password@host:5432/database?sslmode=verify-full")]
    Malformed,
    /// No host, or no user.
    #[error("must name a user and a host")]
    Incomplete,
    /// An `sslmode` that libpq does not have either.
    #[error("has an sslmode other than disable, prefer, require, verify-ca and verify-full")]
    SslMode,
    /// The file in `sslrootcert` cannot be read or holds no certificate.
    #[error("has an sslrootcert that is no readable file of PEM certificates")]
    RootCertificates,
    /// `sslrootcert=system` with an `sslmode` that does not check the name.
    #[error("has sslrootcert=system, which needs sslmode=verify-full")]
    SystemRoots,
    /// The certificates this system trusts cannot be used.
    #[error(
        "asks for a verified certificate, but this system's trusted ones cannot be read: set sslrootcert"
    )]
    SystemCertificates,
}

impl FromStr for Database {
    type Err = DatabaseUrlError;

    /// The parameters are libpq's. Without `sslmode`, a server on another machine must show a certificate
    /// for its name: libpq's own default would send everything to whoever answers.
    fn from_str(text: &str) -> Result<Self, DatabaseUrlError> {
        if !(text.starts_with("postgres://") || text.starts_with("postgresql://")) {
            return Err(DatabaseUrlError::Malformed);
        }
        let (address, query) = text.split_once('?').unwrap_or((text, ""));
        let mut parameters: BTreeMap<_, _> = form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect();
        let mut ssl_mode = parameters.remove("sslmode");
        let mut root_certificates = parameters.remove("sslrootcert");
        if root_certificates.as_deref() == Some("system") {
            // As in libpq: anybody can have a certificate that some public authority has signed.
            if !matches!(ssl_mode.as_deref(), None | Some("verify-full")) {
                return Err(DatabaseUrlError::SystemRoots);
            }
            ssl_mode = Some("verify-full".to_owned());
            root_certificates = None;
        }
        // Tasks are written, too: of several servers only the primary will do.
        parameters
            .entry("target_session_attrs".to_owned())
            .or_insert_with(|| "read-write".to_owned());

        let rest = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(&parameters)
            .finish();
        // It takes %20 for a space, not +.
        let url = format!("{address}?{}", rest.replace('+', "%20"));
        let mut config: tokio_postgres::Config =
            url.parse().map_err(|_| DatabaseUrlError::Malformed)?;
        if config.get_hosts().is_empty() || config.get_user().is_none_or(str::is_empty) {
            return Err(DatabaseUrlError::Incomplete);
        }

        let is_local = config.get_hosts().iter().all(is_local)
            && config.get_hostaddrs().iter().all(IpAddr::is_loopback);
        let (mode, trust) = match ssl_mode.as_deref() {
            Some("disable") => (SslMode::Disable, Trust::Anyone),
            Some("prefer") => (SslMode::Prefer, Trust::Anyone),
            None if is_local && root_certificates.is_none() => (SslMode::Prefer, Trust::Anyone),
            Some("require") if root_certificates.is_none() => (SslMode::Require, Trust::Anyone),
            Some("require" | "verify-ca") => (SslMode::Require, Trust::AnyName),
            Some("verify-full") | None => (SslMode::Require, Trust::Name),
            Some(_) => return Err(DatabaseUrlError::SslMode),
        };
        let tls = tls::client_config(trust, root_certificates.as_deref())?;
        config
            .ssl_mode(mode)
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_user_timeout(LOST_AFTER);
        if config.get_application_name().is_none() {
            config.application_name("tenant-tasks");
        }
        Ok(Self { config, tls })
    }
}

/// A socket in the file system, or an address that never leaves this machine.
fn is_local(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => match UrlHost::parse(name) {
            Ok(UrlHost::Domain(name)) => name == "localhost",
            Ok(UrlHost::Ipv4(address)) => address.is_loopback(),
            Ok(UrlHost::Ipv6(address)) => address.is_loopback(),
            // An IPv6 address without its brackets.
            Err(_) => name == "::1",
        },
    }
}

/// Without the password.
impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("hosts", &self.config.get_hosts())
            .field("name", &self.config.get_dbname())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_sslmode_only_a_server_on_this_machine_may_be_anybody() {
        for (hosts, mode) in [
            ("localhost", SslMode::Prefer),
            ("127.0.0.1,[::1]:5433", SslMode::Prefer),
            ("%2Fvar%2Frun%2Fpostgresql", SslMode::Prefer),
            ("db", SslMode::Require),
            ("10.0.0.1", SslMode::Require),
            ("localhost,db.example:5433", SslMode::Require),
            ("localhost.example", SslMode::Require),
            (
                "localhost/tasks?hostaddr=10.0.0.1&dbname=",
                SslMode::Require,
            ),
            (
                "localhost/tasks?sslrootcert=system&dbname=",
                SslMode::Require,
            ),
        ] {
            let database: Database = format!("postgres://me@{hosts}/tasks").parse().expect(hosts);
            assert_eq!(database.config.get_ssl_mode(), mode, "{hosts}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let database: Database = "postgres://me:s3cret@localhost/tasks"
            .parse()
            .expect("a URL");
        assert!(!format!("{database:?}").contains("s3cret"));
    }
}
