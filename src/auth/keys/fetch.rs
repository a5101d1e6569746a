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
        let response = source.request(tenant).await;
        let fetched = match response {
            Ok(response) => {
                let clock_skew = clock_skew(response.headers(), clock);
                let found = source.read(tenant, response).await;
                found.map(|found| FetchedKeys {
                    keys: found.ids().len(),
                    clock_skew,
                })
            }
            Err(error) => Err(error),
        };
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
    pub(super) async fn fetch(&self, tenant: TenantId) -> Result<SigningKeys, FetchError> {
        let permit = timeout(TIMEOUT, self.permits.acquire());
        let _permit = permit.await.map_err(|_| FetchError::NoPermit)?;
        let response = self.request(tenant).await?;
        self.read(tenant, response).await
    }

    /// Returns a response with status 200, whose body has not been read.
    async fn request(&self, tenant: TenantId) -> Result<Response, FetchError> {
        let url = self.authority.keys_url(tenant);
        let response = self.client.get(url).send().await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(ResponseSummary::of(&response)));
        }
        Ok(response)
    }

    async fn read(&self, tenant: TenantId, response: Response) -> Result<SigningKeys, FetchError> {
        let summary = ResponseSummary::of(&response);
        let document = read_body(response).await?;
        let keys = SigningKeys::parse(&document, &self.authority, tenant);
        keys.map_err(|error| match error {
            DocumentError::Malformed => FetchError::NotAKeysDocument(summary, document.len()),
            error => FetchError::Document(error),
        })
    }
}

impl ResponseSummary {
    fn of(response: &Response) -> Self {
        let headers = response.headers();
        let text = |name| text(headers, name).map(Unverified::text);
        let is_limited = response.status() == StatusCode::TOO_MANY_REQUESTS;
        let retry_after = self::text(headers, RETRY_AFTER).filter(|_| is_limited);
        Self {
            status: response.status(),
            content_type: text(CONTENT_TYPE),
            content_encoding: text(CONTENT_ENCODING),
            retry_after: retry_after
                .and_then(|seconds| seconds.parse().ok())
                .map(Duration::from_secs),
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

fn clock_skew(headers: &HeaderMap, clock: &dyn Clock) -> Option<Duration> {
    let date = httpdate::parse_http_date(text(headers, DATE)?).ok()?;
    let date = date.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(date.abs_diff(clock.since_epoch()))
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
