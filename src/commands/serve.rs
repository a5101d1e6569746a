//! `serve`: reads the settings, starts the service, and shuts it down.

use std::{future, path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use futures_util::future::OptionFuture;
use tokio::{net::TcpListener, time::sleep};

use crate::{
    auth::Verifier,
    clock::SystemClock,
    config::{Config, env_file, reload::Reloader},
    registry::{access::AccessControl, watcher::Watcher},
    routes::{self, AppState},
    server::{self, Connections, Limits},
    tasks::store::Tasks,
    telemetry::{
        log::{self, Log, LogFormat},
        metrics::{self, MetricsSources},
        otlp::Exporter,
        request::RequestMetrics,
    },
};

/// How often expired idempotency keys are deleted.
const FORGET_KEYS_EVERY: Duration = Duration::from_hours(1);

/// The maximum number of connections to the metrics address. Prometheus needs one.
const METRICS_CONNECTIONS: usize = 16;

/// Runs the service until SIGTERM or SIGINT. Returns false if the start failed and the error was
/// printed as JSON.
pub(super) async fn serve(directory: &Path) -> anyhow::Result<bool> {
    match run(directory).await {
        Ok(()) => Ok(true),
        Err(error) if env_file::log_format(directory) == LogFormat::Json => {
            log::print_start_failure(&error);
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

async fn run(directory: &Path) -> anyhow::Result<()> {
    let shutdown = server::shutdown_signal()?;
    let reloader = Reloader::new(directory.to_owned())?;
    let variables = env_file::read_variables(directory)?;
    let config = Config::parse(&variables)?;
    let notes = config.notes();
    let exporter = config.otlp_endpoint.as_ref().map(Exporter::new);
    let exporter = exporter.transpose()?;
    let log = Log::start(config.log_filter, config.log_format, exporter.as_ref());

    for note in notes {
        tracing::warn!("{note}");
    }
    let clock = Arc::new(SystemClock::new());
    let settings = config.access;
    let verifier = Arc::new(Verifier::new(config.tokens, settings.clone(), clock)?);
    let access = Arc::new(AccessControl::new(Arc::clone(&verifier), settings));
    let tasks = Tasks::open(&config.store).await?;
    if config.store.database.is_some() {
        tracing::info!("tasks and the registry of tenants are stored in PostgreSQL");
    }
    let watcher = match tasks.database() {
        Some(database) => {
            let watcher = Watcher::start(database, Arc::clone(&access));
            Some(Box::pin(watcher).await)
        }
        None => None,
    };
    let requests = RequestMetrics::default();
    let state = AppState {
        verifier: Arc::clone(&verifier),
        tasks: tasks.clone(),
    };
    let docs = config.docs.as_ref();
    let app = routes::router(state, &config.allowed_origins, docs, requests.clone());

    let (host, port) = (config.host, config.port);
    let listener = server::listen(&host, port).await;
    let listener =
        listener.with_context(|| format!("HOST and PORT: cannot listen on {host}:{port}"))?;
    let limits = Limits::new(server::connections_for_open_files(config.max_connections));
    let connections = Arc::new(Connections::default());
    if let Some(address) = config.metrics_addr {
        let listener = TcpListener::bind(address).await;
        let listener =
            listener.with_context(|| format!("METRICS_ADDR: cannot listen on {address}"))?;
        tracing::info!(address = %listener.local_addr()?, "metrics");
        let page = metrics::router(MetricsSources {
            requests,
            verifier: Arc::clone(&verifier),
            tasks: tasks.clone(),
            connections: Arc::clone(&connections),
            max_connections: limits.max_connections,
            dropped_log_lines: Some(log.dropped.clone()),
            are_settings_current: reloader.is_current(),
            registry: watcher.as_ref().map(Watcher::status),
        });
        let limits = Limits::new(METRICS_CONNECTIONS);
        // Serves until the process ends, so that Prometheus can scrape during a shutdown.
        let serve = server::serve(listener, page, limits, Arc::default(), future::pending());
        tokio::spawn(serve);
    }
    tracing::info!(address = %listener.local_addr()?, "listening");

    tokio::spawn(forget_expired_keys(tasks.clone(), Arc::clone(&verifier)));
    tokio::spawn(reloader.run(access, tasks, variables));
    tokio::spawn(OptionFuture::from(watcher.map(Watcher::run)));
    tokio::spawn(async move { verifier.keep_keys_fresh().await });
    server::serve(listener, app, limits, connections, shutdown).await;
    if let Some(exporter) = exporter {
        exporter.finish();
    }
    Ok(())
}

async fn forget_expired_keys(tasks: Tasks, verifier: Arc<Verifier>) {
    loop {
        sleep(FORGET_KEYS_EVERY).await;
        let tenants = &verifier.access().tenants;
        tasks.forget_expired_keys(tenants.listed()).await;
    }
}
