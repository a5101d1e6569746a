//! `health`: what a container's health check runs, in an image that has nothing else to ask with.

use std::{net::IpAddr, path::Path, time::Duration};

use super::Error;
use crate::config;

const TIMEOUT: Duration = Duration::from_secs(3);

pub(super) async fn health(directory: &Path) -> Result<(), Error> {
    let (host, port) = config::listen_address(directory)?;
    // One that listens on all addresses is asked on this machine's own.
    let host = match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) if address.is_unspecified() => "127.0.0.1".to_owned(),
        Ok(IpAddr::V6(address)) if address.is_unspecified() => "[::1]".to_owned(),
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        Ok(IpAddr::V4(_)) | Err(_) => host,
    };
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(TIMEOUT)
        .build()?;
    let url = format!("http://{host}:{port}/health");
    let answer = client
        .get(&url)
        .send()
        .await
        .map_err(|_| format!("{url} does not answer"))?;
    if answer.status().is_success() {
        Ok(())
    } else {
        Err(format!("{url}: {}", answer.status()).into())
    }
}
