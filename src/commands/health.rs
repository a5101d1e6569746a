//! `health`: the health check of a container whose image has neither a shell nor curl.

use std::{net::IpAddr, path::Path, time::Duration};

use anyhow::bail;

use crate::config::env_file;

const TIMEOUT: Duration = Duration::from_secs(3);

pub(super) async fn health(directory: &Path) -> anyhow::Result<()> {
    let (host, port) = env_file::listen_address(directory)?;
    // A service that listens on all addresses is reachable on loopback.
    let host = match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) if address.is_unspecified() => "127.0.0.1".to_owned(),
        Ok(IpAddr::V6(address)) if address.is_unspecified() => "[::1]".to_owned(),
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        Ok(IpAddr::V4(_)) | Err(_) => host,
    };
    let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT);
    let url = format!("http://{host}:{port}/health");
    let Ok(response) = client.build()?.get(&url).send().await else {
        bail!("{url} does not respond");
    };
    if !response.status().is_success() {
        bail!("{url}: {}", response.status());
    }
    Ok(())
}
