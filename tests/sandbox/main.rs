//! The service and a mock Entra on this machine, without an Azure account.
//!
//! The API listens on `PORT` (8000), the mock Entra on `ENTRA_PORT` (8001). Apart from these, only `RUST_LOG` and
//! `LOG_FORMAT` are read from the environment. With `--env`, it prints the `.env` with which the service itself runs
//! beside this local Entra.

#[expect(dead_code, reason = "the sandbox does not use all test fixtures")]
#[path = "../support/mod.rs"]
mod support;

/// For the fixtures that start a service. This binary does not use them.
const ON_POSTGRES: bool = false;

use std::{env, process::ExitCode, sync::Arc};

use support::{
    entra::MockEntra,
    users::{API_CLIENT_ID, CONTOSO, FABRIKAM, SPA_CLIENT_ID},
};
use tenant_tasks::{
    auth::Verifier,
    clock::SystemClock,
    config::Config,
    routes::{self, AppState},
    server,
    tasks::store::Tasks,
    telemetry::{log::Log, request::RequestMetrics},
};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sandbox: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    match env::args().nth(1).as_deref() {
        None => {}
        Some("--env") => return print_env_file(),
        Some(_) => return Err("usage: sandbox [--env]".into()),
    }
    let stop = server::shutdown_signal()?;
    let clock = Arc::new(SystemClock::new());
    let entra = MockEntra::start(listen("ENTRA_PORT", "8001").await?, clock.clone());
    let listener = listen("PORT", "8000").await?;

    let mut variables = settings(&entra.authority);
    for name in ["RUST_LOG", "LOG_FORMAT"] {
        variables.extend(variable(name).map(|value| (name, value)));
    }
    let variables = variables.into_iter();
    let variables = variables.map(|(name, value)| (name.to_owned(), value));
    let config = Config::parse(&variables.collect())?;
    let _log = Log::start(config.log_filter, config.log_format, None);
    let verifier = Arc::new(Verifier::new(config.tokens, config.access, clock)?);
    let tasks = Tasks::open(&config.store).await?;
    let state = AppState {
        verifier: Arc::clone(&verifier),
        tasks,
    };
    let docs = config.docs.as_ref();
    let metrics = RequestMetrics::default();
    let app = routes::router(state, &config.allowed_origins, docs, metrics);

    println!(
        "{}",
        instructions(
            &format!("http://{}", listener.local_addr()?),
            &entra.authority
        )
    );
    tokio::spawn(async move { verifier.keep_keys_fresh().await });
    server::serve(
        listener,
        app,
        server::Limits::new(config.max_connections),
        Arc::default(),
        stop,
    )
    .await;
    Ok(())
}

/// Prints the `.env` with which the service itself runs beside the local Entra of this sandbox.
fn print_env_file() -> Result<(), Box<dyn std::error::Error>> {
    let authority = format!("http://127.0.0.1:{}", port("ENTRA_PORT", "8001")?);
    println!("# For the service beside the local Entra of the sandbox.");
    for (name, value) in settings(&authority) {
        println!("{name}={value}");
    }
    println!("PORT=8080");
    Ok(())
}

fn settings(authority: &str) -> Vec<(&'static str, String)> {
    vec![
        ("AZURE_API_CLIENT_ID", API_CLIENT_ID.to_owned()),
        ("AZURE_AUTHORITY_HOST", authority.to_owned()),
        ("AZURE_SPA_CLIENT_ID", SPA_CLIENT_ID.to_owned()),
        (
            "ALLOWED_TENANT_IDS",
            format!("{},{}", CONTOSO.id, FABRIKAM.id),
        ),
    ]
}

fn port(variable_name: &str, default: &str) -> Result<u16, String> {
    let port = variable(variable_name).unwrap_or_else(|| default.to_owned());
    port.parse()
        .map_err(|_| format!("{variable_name} must be a port number"))
}

async fn listen(variable_name: &str, default: &str) -> Result<TcpListener, String> {
    let port = port(variable_name, default)?;
    TcpListener::bind(("127.0.0.1", port))
        .await
        .map_err(|error| {
            format!(
                "cannot listen on 127.0.0.1:{port}: {error}; set {variable_name} to another port"
            )
        })
}

fn variable(name: &str) -> Option<String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the sandbox reads PORT and ENTRA_PORT itself"
    )]
    env::var(name).ok()
}

fn instructions(api: &str, entra: &str) -> String {
    format!(
        r#"API: {api}, local Entra: {entra}

In a browser, open {api}/docs, click Authorize and choose a user.

Or run in another terminal:

  TOKEN=$(curl -s {entra}/token/contoso/admin)
  curl -s {api}/api/me -H "Authorization: Bearer $TOKEN"
  curl -s {api}/api/tasks -H "Authorization: Bearer $TOKEN" \
    -H 'Content-Type: application/json' -d '{{"title":"Try the sandbox"}}'
  curl -s {api}/api/tasks -H "Authorization: Bearer $TOKEN"

Tenants: contoso and fabrikam are on the allow-list, northwind is not.
Users in each tenant: admin, editor, reader, norole. Add ?version=2 for a version 2 token.
Ctrl-C stops the sandbox. Its tasks are in memory and are then lost."#
    )
}
