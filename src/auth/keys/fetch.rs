//! Fetching a tenant's keys document, and nothing else, from Entra.
//!
//! What answers is not trusted to be quick, small or honest: every wait and every size has
//! a bound, and a redirect is a failure, not an invitation.

use std::{error::Error as _, fmt::Write as _, time::Duration};

use futures_util::stream::{self, StreamExt};
use reqwest::{Client, Response, StatusCode, redirect};
use thiserror::Error;
use tokio::{sync::Semaphore, time::timeout};

use crate::auth::{
    authority::Authority,
    keys::jwks::{BadDocument, SigningKeys},
    tenants::Tenants,
    verifier::TlsUnavailable,
};
use crate::ids::TenantId;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(3);

/// The largest keys document, in bytes; Entra's have at most 22 KB.
const MAX_BYTES: usize = 256 * 1024;

/// Fetches under way at the same time, for whomever; others wait for their turn, up to [`TIMEOUT`].
const MAX_FETCHES: usize = 64;

/// Where keys are fetched from.
pub(crate) struct KeySource {
    turns: Semaphore,
    client: Client,
    authority: Authority,
}

/// Why a fetch brought no keys.
#[derive(Debug, Error)]
pub enum FetchError {
    /// Nobody answered, or not in time.
    #[error("{}", with_causes(.0))]
    Http(#[from] reqwest::Error),
    /// The answer was another than 200.
    #[error("status {0}")]
    Status(StatusCode),
    /// The fetch had to wait for too long.
    #[error("too many other fetches were under way")]
    NoTurn,
    /// The answer was larger than any keys document.
    #[error("more than {MAX_BYTES} bytes")]
    TooLarge,
    /// The answer was no keys document, or one without a usable key.
    #[error("{0}")]
    Document(#[from] BadDocument),
}

/// Fetches the keys of every expected tenant once, and says of each how many can be used.
///
/// # Errors
///
/// [`TlsUnavailable`], when the system's certificates cannot be read.
pub async fn fetch_keys(
    authority: &Authority,
    tenants: &Tenants,
) -> Result<Vec<(TenantId, Result<usize, FetchError>)>, TlsUnavailable> {
    let source = KeySource::new(authority.clone())?;
    let fetches = tenants.expected().iter().map(|&tenant| {
        let fetch = source.fetch(tenant);
        async move { (tenant, fetch.await.map(|found| found.keys.len())) }
    });
    Ok(stream::iter(fetches).buffered(MAX_FETCHES).collect().await)
}

impl FetchError {
    /// Whether this is how Entra answers for a tenant that does not exist.
    pub(crate) fn is_absent_tenant(&self) -> bool {
        matches!(
            self,
            Self::Status(StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND)
        )
    }
}

impl KeySource {
    /// # Errors
    ///
    /// When the system offers no TLS.
    pub(crate) fn new(authority: Authority) -> reqwest::Result<Self> {
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .redirect(redirect::Policy::none())
            .user_agent(concat!("tenant-tasks/", env!("CARGO_PKG_VERSION")));
        // A proxy for the way out must not stand between us and this machine.
        let client = if authority.is_loopback() {
            client.no_proxy()
        } else {
            client
        };
        Ok(Self {
            turns: Semaphore::new(MAX_FETCHES),
            client: client.build()?,
            authority,
        })
    }

    /// # Errors
    ///
    /// [`FetchError`] for anything but a document with at least one usable key.
    pub(crate) async fn fetch(&self, tenant: TenantId) -> Result<SigningKeys, FetchError> {
        let _turn = timeout(TIMEOUT, self.turns.acquire())
            .await
            .map_err(|_| FetchError::NoTurn)?;
        let response = self
            .client
            .get(self.authority.keys_url(tenant))
            .send()
            .await?;
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

/// reqwest's own text stops before the cause an operator needs, such as "connection refused".
pub(crate) fn with_causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
