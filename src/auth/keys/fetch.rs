//! Fetches a tenant's keys document from Entra.
//!
//! The server is not trusted to be fast, small or honest: every wait and every size has a bound,
//! and a redirect is a failure.

use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use reqwest::{Client, Response, StatusCode, redirect};
use thiserror::Error;
use tokio::{sync::Semaphore, time::timeout};

use super::jwks::{DocumentError, SigningKeys};
use crate::{
    auth::{authority::Authority, tenants::Tenants},
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
    #[error("status {0}")]
    Status(StatusCode),
    #[error("too many other fetches are in flight")]
    NoPermit,
    #[error("more than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("{0}")]
    Document(#[from] DocumentError),
}

/// The system's TLS certificates cannot be loaded.
#[derive(Debug, Error)]
#[error("cannot set up TLS for fetching signing keys: {0:#}")]
pub struct TlsUnavailable(anyhow::Error);

/// Fetches the keys of every listed tenant once. Returns each tenant's number of usable keys.
pub async fn fetch_keys(
    authority: &Authority,
    tenants: &Tenants,
) -> Result<Vec<(TenantId, Result<usize, FetchError>)>, TlsUnavailable> {
    let source = KeySource::new(authority.clone())?;
    let fetches = tenants.listed().iter().map(|&tenant| {
        let fetch = source.fetch(tenant);
        async move { (tenant, fetch.await.map(|found| found.keys.len())) }
    });
    Ok(stream::iter(fetches).buffered(MAX_FETCHES).collect().await)
}

impl FetchError {
    /// Whether this is Entra's response for a tenant that does not exist.
    pub(super) fn is_absent_tenant(&self) -> bool {
        matches!(self, Self::Status(status) if [400, 404].contains(&status.as_u16()))
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
        let url = self.authority.keys_url(tenant);
        let response = self.client.get(url).send().await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let document = read_body(response).await?;
        Ok(SigningKeys::parse(&document, &self.authority, tenant)?)
    }
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
