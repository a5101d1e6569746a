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

/// The hosts of the cloud operated by 21Vianet: the current one, then the old one.
const CHINA: [&str; 2] = ["login.partner.microsoftonline.cn", "login.chinacloudapi.cn"];

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
        Ok(Self {
            origin: url.origin().ascii_serialization(),
            host: host.to_string(),
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
        let is_china = CHINA.contains(&self.host.as_str());
        let host = if is_china {
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

    /// Whether the authority is on this machine, as the local Entra of tests and sandbox is.
    pub fn is_loopback(&self) -> bool {
        self.is_loopback
    }
}
