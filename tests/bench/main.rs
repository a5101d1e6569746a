//! The reference servers of the benchmark: a mock Entra with its tokens, and two floors.
//!
//! The first floor runs the service's code from the connection to the store and back, without authentication. The
//! second floor also verifies the signature of each token, but does not check its claims.
//!
//! `bench DIR ROUNDS NEW_PER_ROUND` writes the tokens into DIR. When all servers listen, it writes `ready.json` there.
//! It serves until it is stopped. `tests/bench/run` starts it.

#[expect(dead_code, reason = "the benchmark does not use all test fixtures")]
#[path = "../support/mod.rs"]
mod support;

/// For the fixtures that start a service. This binary does not use them.
const ON_POSTGRES: bool = false;

use std::{
    env,
    fs::{self, File},
    hint::black_box,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use mimalloc::MiMalloc;
use serde::Deserialize;
use serde_json::{Value, json};
use support::{
    entra::MockEntra,
    tokens::SigningKey,
    users::{ADMIN, API_CLIENT_ID, CONTOSO, EDITOR, FABRIKAM, Tenant, User},
};
use tenant_tasks::{
    clock::SystemClock,
    config::{Config, settings::Variables},
    ids::{Owner, Reach},
    routes, server,
    tasks::{Content, NewTask, Page, response::TaskList, store::Tasks, title::Title},
    telemetry::{log::Log, request::RequestMetrics},
};
use tokio::net::TcpListener;

/// The same allocator as in the service.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The number of tokens that the load `many` sends in turn.
const MANY: usize = 10_000;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [directory, rounds, new_per_round] = arguments.as_slice() else {
        return Err("usage: bench DIR ROUNDS NEW_PER_ROUND".into());
    };
    let (directory, rounds, new_per_round) = (
        PathBuf::from(directory),
        rounds.parse::<usize>()?,
        new_per_round.parse::<usize>()?,
    );

    let stop = server::shutdown_signal()?;
    let clock = Arc::new(SystemClock::new());
    let entra = MockEntra::start(TcpListener::bind("127.0.0.1:0").await?, clock);
    let (floor, rsa_floor) = (
        TcpListener::bind("127.0.0.1:0").await?,
        TcpListener::bind("127.0.0.1:0").await?,
    );
    let url =
        |listener: &TcpListener| Ok::<_, io::Error>(format!("http://{}", listener.local_addr()?));

    let mut tokens = Tokens {
        entra: &entra,
        count: 0,
    };
    let many = tokens.write(&directory.join("many.txt"), MANY)?;
    let new: Vec<_> = (1..=rounds)
        .map(|round| tokens.write(&directory.join(format!("new-{round}.txt")), new_per_round))
        .collect::<io::Result<_>>()?;
    let ready = json!({
        "entra": entra.authority,
        "floor": url(&floor)?,
        "floor_rsa": url(&rsa_floor)?,
        "client_id": API_CLIENT_ID,
        "tenants": { CONTOSO.name: CONTOSO.id, FABRIKAM.name: FABRIKAM.id },
        "tokens": users().map(|(tenant, user)| named_token(&entra, tenant, user))
            .into_iter().collect::<serde_json::Map<_, _>>(),
        "many": many,
        "new": new,
        "rsa_verify_seconds": seconds_of_one_verification(&entra),
    });

    // The same logging as in the service, so that the floors bear the same cost.
    let settings = Variables::from([
        ("AZURE_API_CLIENT_ID".to_owned(), API_CLIENT_ID.to_owned()),
        ("ALLOWED_TENANT_IDS".to_owned(), CONTOSO.id.to_owned()),
    ]);
    let config = Config::parse(&settings)?;
    let _log = Log::start(config.log_filter, config.log_format, None);
    fs::write(directory.join("ready.json.tmp"), ready.to_string())?;
    fs::rename(
        directory.join("ready.json.tmp"),
        directory.join("ready.json"),
    )?;
    let limits = server::Limits::new(config.max_connections);
    let routes = |check: MethodRouter<Tasks>| {
        let routes = Router::new()
            .route("/health", get(async || "healthy"))
            .route("/api/tasks", check.post(create))
            .with_state(Tasks::in_memory(usize::MAX));
        routes::layered(routes, &config.allowed_origins, RequestMetrics::default())
    };
    tokio::spawn(server::serve(
        rsa_floor,
        routes(get(list_if_signed)),
        limits,
        Arc::default(),
        std::future::pending(),
    ));
    server::serve(floor, routes(get(list)), limits, Arc::default(), stop).await;
    Ok(())
}

fn users() -> [(Tenant, User); 4] {
    [
        (CONTOSO, ADMIN),
        (CONTOSO, EDITOR),
        (FABRIKAM, ADMIN),
        (FABRIKAM, EDITOR),
    ]
}

fn named_token(entra: &MockEntra, tenant: Tenant, user: User) -> (String, Value) {
    let token = entra.v1(tenant, user).sign();
    (format!("{}/{}", tenant.name, user.name), token.into())
}

/// Writes distinct valid tokens of the editor in contoso.
struct Tokens<'a> {
    entra: &'a MockEntra,
    count: usize,
}

impl Tokens<'_> {
    fn write(&mut self, path: &Path, count: usize) -> io::Result<PathBuf> {
        let mut file = BufWriter::new(File::create(path)?);
        for _ in 0..count {
            self.count += 1;
            let token = self
                .entra
                .v1(CONTOSO, EDITOR)
                .with("uti", format!("token-{}", self.count));
            writeln!(file, "{}", token.sign())?;
        }
        file.flush()?;
        Ok(path.to_owned())
    }
}

/// The signing key of the mock Entra, in the form in which the service caches it.
static KEY: LazyLock<DecodingKey> = LazyLock::new(|| {
    let jwk = SigningKey::first().jwk();
    let part = |name: &str| {
        let text = jwk[name].as_str().expect("a key has this part");
        BASE64_URL_SAFE_NO_PAD.decode(text).expect("base64url")
    };
    DecodingKey::from_rsa_raw_components(&part("n"), &part("e"))
});

fn is_signed(token: &str) -> bool {
    let (message, signature) = token.rsplit_once('.').expect("a token has dots");
    crypto::verify(signature, message.as_bytes(), &KEY, Algorithm::RS256).expect("a usable key")
}

/// Measures the verification of one signature, in seconds: the median of several batches.
#[expect(
    clippy::disallowed_methods,
    reason = "the benchmark measures real time"
)]
fn seconds_of_one_verification(entra: &MockEntra) -> f64 {
    const BATCHES: usize = 21;
    const PER_BATCH: u32 = 500;
    let token = entra.v1(CONTOSO, EDITOR).sign();
    let mut batches: Vec<_> = (0..BATCHES)
        .map(|_| {
            let started = Instant::now();
            for _ in 0..PER_BATCH {
                assert!(black_box(is_signed(&token)), "the signature does not match");
            }
            started.elapsed() / PER_BATCH
        })
        .collect();
    batches.sort();
    batches.get(BATCHES / 2).map_or(0.0, Duration::as_secs_f64)
}

fn owner() -> Owner {
    let parse = "the IDs of the mock Entra are GUIDs";
    Owner {
        tenant: CONTOSO.id.parse().expect(parse),
        user: EDITOR.oid(CONTOSO).parse().expect(parse),
    }
}

async fn list(State(tasks): State<Tasks>, page: Page) -> Response {
    let Owner { tenant, user } = owner();
    let list = TaskList::start(tasks, tenant, Reach::User(user), page).await;
    list.expect("the store in memory does not fail")
        .into_response()
}

async fn list_if_signed(tasks: State<Tasks>, headers: HeaderMap, page: Page) -> Response {
    let value = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    match value.and_then(|value| value.strip_prefix("Bearer ")) {
        Some(token) if is_signed(token) => list(tasks, page).await,
        Some(_) | None => StatusCode::UNAUTHORIZED.into_response(),
    }
}

#[derive(Deserialize)]
struct Create {
    title: String,
}

async fn create(State(tasks): State<Tasks>, Json(Create { title }): Json<Create>) -> Json<Value> {
    let title = Title::parse(title).expect("a valid title");
    let new = NewTask {
        content: Content {
            title,
            completed: false,
        },
        owner_name: EDITOR.full_name().to_owned(),
        key: None,
    };
    let created = tasks
        .insert(owner(), new, None)
        .await
        .expect("the store in memory does not fail");
    Json(json!({ "id": created.task.id }))
}
