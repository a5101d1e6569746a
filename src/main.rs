//! Reads the configuration, builds the parts, serves, stops.

use std::{path::Path, process::ExitCode, sync::Arc};

use tenant_tasks::{
    auth::Verifier,
    clock::SystemClock,
    config::{self, Config},
    logging,
    routes::{self, AppState},
    server,
    tasks::store::Tasks,
};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tenant-tasks: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::parse(&config::read_variables(Path::new("."))?)?;
    logging::start(config.log_filter, config.log_format);

    let verifier = Arc::new(Verifier::new(config.tokens, Arc::new(SystemClock))?);
    let state = AppState { verifier, tasks: Tasks::in_memory() };
    let app = routes::router(state, &config.allowed_origins);

    let stop = server::stop_signal()?;
    let listener = TcpListener::bind((config.host.as_str(), config.port)).await.map_err(|error| {
        format!("HOST and PORT: cannot listen on {}:{}: {error}", config.host, config.port)
    })?;
    tracing::info!(address = %listener.local_addr()?, "listening");
    server::serve(listener, app, stop).await;
    Ok(())
}
