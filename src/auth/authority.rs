//! Entra's base URL, and the URLs and issuers derived from it.

use thiserror::Error;
use url::{Host, Url};

use crate::ids::TenantId;

/// The base URL of a cloud's sign-in service, such as `https://login.microsoftonline.com`.
///
/// Clouds and their authorities:
/// <https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud>
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Authority {
    /// Scheme, host and port, without a trailing slash.
    origin: String,
    host: String,
    is_loopback: bool,
}

/// The host of the public cloud, of US Government, and of the cloud operated by 21Vianet in China.
const CLOUDS: [&str; 3] = [
    "login.microsoftonline.com",
    "login.microsoftonline.us",
    CHINA,
];
const CHINA: &str = "login.partner.microsoftonline.cn";

/// The old host of the cloud in China. It issues tokens in the name of the present one, and Azure
/// Kubernetes Service still sets it.
const OLD_CHINA: &str = "login.chinacloudapi.cn";

/// Why a text cannot be an [`Authority`].
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[expect(missing_docs, reason = "the error texts say what the variants mean")]
pub enum AuthorityError {
    #[error("must be a URL such as {}", Authority::PUBLIC)]
    NotAUrl,
    #[error("must not have a path, a query or a user name")]
    NotAnOrigin,
    #[error("must use https, except on loopback")]
    Insecure,
    #[error("names another host of the public cloud: use {}", Authority::PUBLIC)]
    OtherPublicHost,
    #[error("names the German cloud, which was closed: use {}", Authority::PUBLIC)]
    ClosedCloud,
    #[error("names a tenant of Azure AD B2C or External ID, whose users are not supported")]
    ExternalUsers,
}

impl Authority {
    /// The public cloud's authority.
    pub const PUBLIC: &'static str = "https://login.microsoftonline.com";

    /// The public cloud's authority. Its issuer also appears in the keys of other clouds.
    pub(super) fn public() -> Self {
        Self::parse(Self::PUBLIC).expect("a valid authority")
    }

    /// Parses an authority. A trailing slash is ignored.
    pub fn parse(text: &str) -> Result<Self, AuthorityError> {
        let url = Url::parse(text).map_err(|_| AuthorityError::NotAUrl)?;
        let host = url.host().ok_or(AuthorityError::NotAUrl)?;
        let is_loopback = match &host {
            Host::Domain(name) => *name == "localhost",
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.is_loopback(),
        };
        let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if !is_bare || !url.username().is_empty() || url.password().is_some() {
            return Err(AuthorityError::NotAnOrigin);
        }
        match url.scheme() {
            "https" => {}
            "http" if is_loopback => {}
            _ => return Err(AuthorityError::Insecure),
        }
        let host = match host.to_string() {
            host if host == OLD_CHINA => CHINA.to_owned(),
            host => host,
        };
        check_host(&host)?;
        let origin = url.origin().ascii_serialization();
        Ok(Self {
            origin: origin.replace(OLD_CHINA, CHINA),
            host,
            is_loopback,
        })
    }

    /// The URL of the tenant's keys document. Its keys verify tokens of both versions.
    pub fn keys_url(&self, tenant: TenantId) -> String {
        format!("{}/{tenant}/discovery/v2.0/keys", self.origin)
    }

    /// The OAuth 2.0 endpoint for users of any tenant: `authorize` or `token`.
    pub fn sign_in_url(&self, endpoint: &str) -> String {
        format!("{}/organizations/oauth2/v2.0/{endpoint}", self.origin)
    }

    /// Scheme, host and port, in the form that browsers compare.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The issuer of the tenant's version 1 tokens.
    pub fn v1_issuer(&self, tenant: TenantId) -> String {
        // US Government uses the public cloud's host here; China does not.
        let host = if self.host == CHINA {
            "sts.chinacloudapi.cn"
        } else {
            "sts.windows.net"
        };
        format!("https://{host}/{tenant}/")
    }

    /// The issuer of the tenant's version 2 tokens.
    pub fn v2_issuer(&self, tenant: TenantId) -> String {
        format!("{}/{tenant}/v2.0", self.origin)
    }

    /// Whether the authority belongs to the cloud with this `cloud_instance_name`, such as
    /// `microsoftonline.com`.
    pub(super) fn is_in_cloud(&self, name: &str) -> bool {
        self.host
            .strip_suffix(name)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }

    /// Whether tokens of this authority can be expected to work: a known cloud, or loopback.
    pub fn is_known(&self) -> bool {
        self.is_loopback || CLOUDS.contains(&self.host.as_str())
    }

    /// Whether the authority is on this machine, as the local Entra of tests and sandbox is.
    pub fn is_loopback(&self) -> bool {
        self.is_loopback
    }
}

/// Rejects the hosts that can never issue the tokens of an organization's users.
fn check_host(host: &str) -> Result<(), AuthorityError> {
    match host {
        "login.windows.net" | "sts.windows.net" | "login.microsoft.com" => {
            Err(AuthorityError::OtherPublicHost)
        }
        "login.microsoftonline.de" => Err(AuthorityError::ClosedCloud),
        _ if host.ends_with(".b2clogin.com") || host.ends_with(".ciamlogin.com") => {
            Err(AuthorityError::ExternalUsers)
        }
        _ => Ok(()),
    }
}
