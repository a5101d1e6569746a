//! The service in the process of a test, called over HTTP.

use std::{
    env,
    io::{self, Write},
    panic,
    process::{self, Command},
    sync::{
        Arc, Once,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use axum::{
    Router,
    http::{HeaderMap, Method, StatusCode},
};
use serde_json::Value;
use tenant_tasks::{
    auth::Verifier,
    clock::Clock,
    config::{Config, settings::Variables},
    routes::{self, AppState},
    server::{self, Connections},
    tasks::store::Tasks,
    telemetry::{
        metrics::{self, MetricsSources},
        request::RequestMetrics,
    },
};
use tokio::net::TcpListener;

use super::{
    entra::MockEntra,
    postgres::Database,
    tasks::{title, title_body},
    users::{API_CLIENT_ID, CONTOSO, FABRIKAM, Tenant, User},
};

/// A running service and its mock Entra.
pub struct TestApp {
    pub address: String,
    pub entra: MockEntra,
    pub clock: Arc<SteppedClock>,
    /// Refreshes keys only when a test calls it, not in the background.
    pub verifier: Arc<Verifier>,
    /// The database of the tasks; `None` if they are in memory.
    pub database: Option<Database>,
    /// Serves `/metrics`.
    pub metrics: Router,
    client: reqwest::Client,
}

/// A response, read completely.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

/// A clock that changes only when a test steps or sets it.
#[derive(Default)]
pub struct SteppedClock {
    stepped_millis: AtomicU64,
    /// How far the system clock was set forward, in seconds. Negative if it was set back.
    set_forward: AtomicI64,
}

impl TestApp {
    /// Starts the service with contoso and fabrikam on the allow-list and default settings.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Like [`TestApp::start`], with some settings changed.
    pub async fn start_with(changes: &[(&str, &str)]) -> Self {
        Self::start_within(changes, |_| {}).await
    }

    /// Like [`TestApp::start_with`], with changed connection limits.
    pub async fn start_within(
        changes: &[(&str, &str)],
        change: impl FnOnce(&mut server::Limits),
    ) -> Self {
        stop_at_first_failure();
        let clock = Arc::new(SteppedClock::default());
        let entra = MockEntra::start(listen().await, clock.clone());
        let mut settings = settings(&entra.authority, changes);
        let database = if crate::ON_POSTGRES {
            Some(Database::create().await)
        } else {
            None
        };
        if let Some(database) = &database {
            settings
                .entry("DATABASE_URL".to_owned())
                .or_insert_with(|| database.url());
        }
        let config = Config::parse(&settings).expect("valid settings");
        let verifier =
            Verifier::new(config.tokens, config.access, clock.clone()).expect("an HTTP client");
        let verifier = Arc::new(verifier);
        let requests = RequestMetrics::default();
        let tasks = Tasks::open(&config.store).await.expect("a store");
        let state = AppState {
            verifier: Arc::clone(&verifier),
            tasks: tasks.clone(),
        };
        let docs = config.docs.as_ref();
        let app = routes::router(state, &config.allowed_origins, docs, requests.clone());
        let mut limits = server::Limits::new(config.max_connections);
        change(&mut limits);
        let listener = listen().await;
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let connections = Arc::new(Connections::default());
        let metrics = metrics::router(MetricsSources {
            requests,
            verifier: Arc::clone(&verifier),
            tasks,
            connections: Arc::clone(&connections),
            max_connections: limits.max_connections,
            dropped_log_lines: None,
            are_settings_current: Arc::new(AtomicBool::new(true)),
            registry: None,
        });
        tokio::spawn(server::serve(
            listener,
            app,
            limits,
            connections,
            std::future::pending(),
        ));
        let client = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client");
        Self {
            address,
            entra,
            clock,
            verifier,
            database,
            metrics,
            client,
        }
    }

    /// Opens a connection, for bytes that an HTTP client does not send.
    pub fn connect(&self) -> std::net::TcpStream {
        let address = self.address.trim_start_matches("http://");
        let stream = std::net::TcpStream::connect(address).expect("a connection");
        let timeout = Some(Duration::from_secs(20));
        stream.set_read_timeout(timeout).expect("a timeout");
        stream
    }

    /// Sends a request with an optional bearer token and JSON body.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Answer {
        let mut request = self.request(method, path);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        answer(request).await
    }

    /// Builds a request that the test completes and sends itself.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.address))
    }

    /// Sends a request with a valid token of the user.
    pub async fn send_as(
        &self,
        (tenant, user): (Tenant, User),
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        let token = self.entra.v1(tenant, user).sign();
        self.send(method, path, Some(&token), body).await
    }

    /// Sends `GET /api/me` with this token.
    pub async fn me(&self, token: &str) -> Answer {
        self.send(Method::GET, "/api/me", Some(token), None).await
    }

    /// Creates a task and returns its ID.
    pub async fn create(&self, caller: (Tenant, User), title: &str) -> u64 {
        let answer = self
            .send_as(caller, Method::POST, "/api/tasks", Some(title_body(title)))
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        answer.json()["id"].as_u64().expect("an ID")
    }

    /// Returns the titles that `GET /api/tasks` lists, in that order.
    pub async fn titles(&self, caller: (Tenant, User)) -> Vec<String> {
        let answer = self.send_as(caller, Method::GET, "/api/tasks", None).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        let tasks = answer.json();
        let titles = tasks.as_array().expect("an array").iter();
        titles.map(|task| title(task).to_owned()).collect()
    }
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.body))
    }

    /// The `detail` of an error.
    pub fn detail(&self) -> String {
        self.json()["detail"]
            .as_str()
            .expect("detail is a string")
            .to_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .get(name)
            .map(|value| value.to_str().expect("the header is ASCII"))
    }
}

impl SteppedClock {
    /// The start of every test, since the Unix epoch: in January 2027.
    const START: Duration = Duration::from_hours(500_000);

    pub fn step(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).expect("the step fits into 64 bits");
        self.stepped_millis.fetch_add(millis, Ordering::SeqCst);
    }

    /// Sets the system clock forward or back. Monotonic time does not change.
    pub fn set_forward(&self, seconds: i64) {
        self.set_forward.fetch_add(seconds, Ordering::SeqCst);
    }

    /// The time since a moment of the monotonic clock.
    pub fn since(&self, moment: Duration) -> Duration {
        self.monotonic().saturating_sub(moment)
    }
}

impl Clock for SteppedClock {
    fn since_epoch(&self) -> Duration {
        let set_forward = self.set_forward.load(Ordering::SeqCst);
        let since_epoch = Self::START + self.monotonic();
        let moved = since_epoch.as_secs().saturating_add_signed(set_forward);
        Duration::new(moved, since_epoch.subsec_nanos())
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.stepped_millis.load(Ordering::SeqCst))
    }
}

/// The settings of a service that trusts the mock Entra at `authority`.
pub fn settings(authority: &str, changes: &[(&str, &str)]) -> Variables {
    let allowed = format!("{},{}", CONTOSO.id, FABRIKAM.id);
    let settings = [
        ("AZURE_API_CLIENT_ID", API_CLIENT_ID),
        ("AZURE_AUTHORITY_HOST", authority),
        ("ALLOWED_TENANT_IDS", &allowed),
    ];
    let settings = settings.iter().chain(changes);
    settings
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Sends the request and reads the complete response.
pub async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.expect("a response");
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.text().await.expect("a text body");
    Answer {
        status,
        headers,
        body,
    }
}

/// Listens on a free loopback port.
pub async fn listen() -> TcpListener {
    server::listen("127.0.0.1", 0).await.expect("a free port")
}

/// With `STOP_AT_FIRST_FAILURE`, ends the process when a test fails. Takes effect when the first
/// [`TestApp`] starts.
///
/// Mutation testing needs only one failure per mutant. libtest has no option to stop after it.
fn stop_at_first_failure() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if env::var_os("STOP_AT_FIRST_FAILURE").is_none() {
            return;
        }
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            print(panic);
            // libtest names the thread of a test after its path.
            let thread = thread::current();
            if let Some(test) = thread.name().filter(|name| name.contains("::")) {
                // `eprintln!` would write to the output that libtest captures.
                let _ = writeln!(io::stderr(), "stopped because {test} failed: {panic}");
                // No test ends its services now.
                let id = process::id().to_string();
                let _ = Command::new("pkill").args(["-TERM", "-P", &id]).status();
                process::exit(101);
            }
        }));
    });
}
