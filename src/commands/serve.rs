//! `serve`: reads the configuration, builds the parts, serves, stops.

use std::{future, path::Path, sync::Arc};

use tokio::net::TcpListener;

use super::Error;
use crate::{
    auth::Verifier,
    clock::SystemClock,
    config::{self, Config, reload::Reloader},
    routes::{self, AppState},
    server::{self, Limits, Tally},
    tasks::store::Tasks,
    telemetry::{
        log::Log,
        metrics::{self, Watched},
        request::RequestMetrics,
        store::Timings,
    },
};

/// How many connections there may be to where the metrics are: Prometheus needs one.
const METRICS_CONNECTIONS: usize = 16;

pub(super) async fn serve(directory: &Path) -> Result<(), Error> {
    let stop = server::stop_signal()?;
    let reloader = Reloader::new(directory.to_owned())?;
    let config = Config::parse(&config::read_variables(directory)?)?;
    #[cfg(feature = "otlp")]
    let exporter = config
        .otlp_endpoint
        .as_ref()
        .map(crate::telemetry::otlp::Exporter::new)
        .transpose()?;
    let log = Log::start(
        config.log_filter,
        config.log_format,
        #[cfg(feature = "otlp")]
        exporter.as_ref(),
    );

    let verifier = Arc::new(Verifier::new(
        config.tokens,
        config.access,
        Arc::new(SystemClock::new()),
    )?);
    let (requests, timings) = match config.metrics_addr {
        Some(_) => (Some(RequestMetrics::default()), Some(Timings::default())),
        None => (None, None),
    };
    let mut tasks = Tasks::open(&config.store).await?;
    if let Some(timings) = &timings {
        tasks = tasks.timed(timings.clone());
    }
    let state = AppState {
        verifier: Arc::clone(&verifier),
        tasks: tasks.clone(),
    };
    let app = routes::router(
        state,
        &config.allowed_origins,
        config.docs.as_ref(),
        requests.clone(),
    );

    let listener = TcpListener::bind((config.host.as_str(), config.port))
        .await
        .map_err(|error| {
            format!(
                "HOST and PORT: cannot listen on {}:{}: {error}",
                config.host, config.port
            )
        })?;
    let limits = Limits::new(server::connections_for_open_files(config.max_connections));
    let connections = Arc::new(Tally::default());
    if let (Some(address), Some(requests), Some(timings)) = (config.metrics_addr, requests, timings)
    {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| format!("METRICS_ADDR: cannot listen on {address}: {error}"))?;
        tracing::info!(address = %listener.local_addr()?, "metrics");
        let watched = Watched {
            verifier: Arc::clone(&verifier),
            tasks,
            connections: Arc::clone(&connections),
            max_connections: limits.max_connections,
            dropped_log_lines: Box::new(log.dropped()),
            are_settings_current: Box::new(reloader.is_current()),
        };
        let page = metrics::router(&requests, &timings, watched);
        let limits = Limits::new(METRICS_CONNECTIONS);
        // Until the process ends, so that a stop can be watched too.
        tokio::spawn(server::serve(
            listener,
            page,
            limits,
            Arc::default(),
            future::pending(),
        ));
    }
    tracing::info!(address = %listener.local_addr()?, "listening");

    tokio::spawn(reloader.run(Arc::clone(&verifier)));
    tokio::spawn(async move { verifier.keep_keys_fresh().await });
    server::serve(listener, app, limits, connections, stop).await;
    #[cfg(feature = "otlp")]
    if let Some(exporter) = exporter {
        exporter.finish();
    }
    Ok(())
}
