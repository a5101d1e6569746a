//! Fetches a tenant's keys document from Entra.
//!
//! The server is not trusted to be fast, small or honest: every wait and every size has a bound,
//! and a redirect is a failure.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use futures_util::stream::{self, StreamExt};
use hyper_util::client::proxy::matcher::Matcher;
use reqwest::{
    Client, Response, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderMap, HeaderName, RETRY_AFTER},
    redirect,
};
use thiserror::Error;
use tokio::{sync::Semaphore, time::timeout};

use super::jwks::{DocumentError, SigningKeys};
use crate::{
    auth::{authority::Authority, error::Unverified, tenants::Tenants},
    clock::Clock,
    ids::TenantId,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(3);

/// The largest keys document, in bytes. Entra's have at most 22 KB.
const MAX_BYTES: usize = 256 * 1024;

/// The maximum number of concurrent fetches. Others wait, up to [`TIMEOUT`].
const MAX_FETCHES: usize = 64;

/// An HTTP client for keys documents.
pub(super) struct KeySource {
    permits: Semaphore,
    client: Client,
    authority: Authority,
}

/// Why a fetch returned no keys.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the error texts say what the variants mean")]
pub enum FetchError {
    #[error("{0:#}")]
    Http(anyhow::Error),
    #[error("{0}")]
    Status(ResponseSummary),
    #[error("too many other fetches are in flight")]
    NoPermit,
    #[error("more than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("not a keys document: {0}, {1} bytes")]
    NotAKeysDocument(ResponseSummary, usize),
    #[error("{0}")]
    Document(DocumentError),
}

/// A response without the expected document. Distinguishes, for example, a proxy's block page.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ResponseSummary {
    status: StatusCode,
    content_type: Option<Unverified>,
    content_encoding: Option<Unverified>,
    /// How long to wait, according to `Retry-After` of a 429 (RFC 6585, section 4).
    retry_after: Option<Duration>,
}

/// The keys that the authority publishes for a tenant.
pub(super) struct Published {
    pub(super) keys: SigningKeys,
    /// The authority's time since the Unix epoch, if it sent one.
    date: Option<Duration>,
}

/// The result of one fetch, for `check`.
#[derive(Debug)]
pub struct FetchedKeys {
    /// The number of usable keys.
    pub keys: usize,
    /// The difference between the local clock and the authority's `Date`, if it sent one.
    pub clock_skew: Option<Duration>,
}

/// The system's TLS certificates cannot be loaded.
#[derive(Debug, Error)]
#[error("cannot set up TLS for fetching signing keys: {0:#}")]
pub struct TlsUnavailable(anyhow::Error);

/// Fetches the keys of every listed tenant once.
pub async fn fetch_keys(
    authority: &Authority,
    tenants: &Tenants,
    clock: &dyn Clock,
) -> Result<Vec<(TenantId, Result<FetchedKeys, FetchError>)>, TlsUnavailable> {
    let source = KeySource::new(authority.clone())?;
    let source = &source;
    let fetches = tenants.listed().iter().map(|&tenant| async move {
        let fetched = source.fetch(tenant).await.map(|published| FetchedKeys {
            keys: published.keys.ids().len(),
            clock_skew: published
                .date
                .map(|date| date.abs_diff(clock.since_epoch())),
        });
        (tenant, fetched)
    });
    Ok(stream::iter(fetches).buffered(MAX_FETCHES).collect().await)
}

/// The proxy through which keys are fetched, without user and password. `None` without a proxy.
pub fn outbound_proxy(authority: &Authority) -> Option<String> {
    if authority.is_loopback() {
        return None;
    }
    let destination = authority.origin().parse().ok()?;
    let proxy = Matcher::from_env().intercept(&destination)?;
    let (scheme, host) = (proxy.uri().scheme_str()?, proxy.uri().authority()?);
    let host = host.as_str();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    Some(format!("{scheme}://{host}"))
}

impl FetchError {
    /// Whether this is Entra's response for a tenant that does not exist.
    pub(super) fn is_absent_tenant(&self) -> bool {
        matches!(self, Self::Status(response) if [400, 404].contains(&response.status.as_u16()))
    }

    /// How long the authority asks to wait before the next fetch.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status(response) => response.retry_after,
            Self::Http(_)
            | Self::NoPermit
            | Self::TooLarge
            | Self::NotAKeysDocument(..)
            | Self::Document(_) => None,
        }
    }
}

impl From<reqwest::Error> for FetchError {
    fn from(error: reqwest::Error) -> Self {
        Self::Http(error.into())
    }
}

impl KeySource {
    pub(super) fn new(authority: Authority) -> Result<Self, TlsUnavailable> {
        let mut client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .redirect(redirect::Policy::none())
            .user_agent(concat!("tenant-tasks/", env!("CARGO_PKG_VERSION")));
        if authority.is_loopback() {
            // An outbound proxy cannot reach this machine's loopback.
            client = client.no_proxy();
        }
        Ok(Self {
            permits: Semaphore::new(MAX_FETCHES),
            client: client.build().map_err(|e| TlsUnavailable(e.into()))?,
            authority,
        })
    }

    /// Fetches the document and returns its usable keys, at least one.
    pub(super) async fn fetch(&self, tenant: TenantId) -> Result<Published, FetchError> {
        let permit = timeout(TIMEOUT, self.permits.acquire());
        let _permit = permit.await.map_err(|_| FetchError::NoPermit)?;
        let url = self.authority.keys_url(tenant);
        let response = self.client.get(url).send().await?;
        let summary = ResponseSummary::of(&response);
        if summary.status != StatusCode::OK {
            return Err(FetchError::Status(summary));
        }
        let date = date(response.headers());
        let document = read_body(response).await?;
        match SigningKeys::parse(&document, &self.authority, tenant) {
            Ok(keys) => Ok(Published { keys, date }),
            Err(DocumentError::Malformed) => {
                Err(FetchError::NotAKeysDocument(summary, document.len()))
            }
            Err(error) => Err(FetchError::Document(error)),
        }
    }
}

impl ResponseSummary {
    fn of(response: &Response) -> Self {
        let (status, headers) = (response.status(), response.headers());
        let is_limited = status == StatusCode::TOO_MANY_REQUESTS;
        let retry_after = text(headers, RETRY_AFTER).filter(|_| is_limited);
        let retry_after = retry_after.and_then(|seconds| seconds.parse().ok());
        Self {
            status,
            content_type: text(headers, CONTENT_TYPE).map(Unverified::text),
            content_encoding: text(headers, CONTENT_ENCODING).map(Unverified::text),
            retry_after: retry_after.map(Duration::from_secs),
        }
    }
}

impl fmt::Display for ResponseSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}", self.status)?;
        for (name, value) in [
            ("content type", &self.content_type),
            ("content encoding", &self.content_encoding),
        ] {
            if let Some(value) = value {
                write!(f, ", {name} {value}")?;
            }
        }
        Ok(())
    }
}

/// A header that is printable ASCII.
fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// `Date` (RFC 9110, section 6.6.1), as the time since the Unix epoch.
fn date(headers: &HeaderMap) -> Option<Duration> {
    let date = httpdate::parse_http_date(text(headers, DATE)?).ok()?;
    date.duration_since(SystemTime::UNIX_EPOCH).ok()
}

async fn read_body(mut response: Response) -> Result<Vec<u8>, FetchError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_BYTES {
            return Err(FetchError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
