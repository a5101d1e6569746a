//! Several replicas with one database. After crashes of replicas or of the database, no acknowledged write is lost and
//! no ID is assigned twice. A rolling restart fails no request.

#![expect(
    clippy::disallowed_methods,
    reason = "load and recovery are measured in real time"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::http::{Method, StatusCode};
use serde_json::Value;
use tenant_tasks::{clock::SystemClock, config::Config, tasks::store::Tasks};
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::{
    suite::service::Service,
    support::{
        app::{TestApp, listen, settings},
        entra::MockEntra,
        postgres::{Database, ThrowAway, begin, connect, say_left_out},
        tasks::{title_and_completed_body, title_body},
        users::{ADMIN, CONTOSO, FABRIKAM, Tenant},
    },
};

/// The time limit for a replica to be ready, and for a request to succeed under load.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The number of concurrent clients, half of them in each tenant.
const CLIENTS: usize = 8;

/// The number of clients that send a key with each creation and repeat it until it is acknowledged.
const KEYED_CLIENTS: usize = 4;

/// Replicas of the service. A replacement takes the index of the replica that it replaces.
pub(crate) struct Replicas {
    pub(crate) entra: MockEntra,
    database_url: String,
    pub(crate) services: Vec<Service>,
    /// The addresses, in the order of `services`.
    addresses: Arc<RwLock<Vec<String>>>,
}

impl Replicas {
    pub(crate) async fn start(count: usize, database_url: &str) -> Self {
        let entra = MockEntra::start(listen().await, Arc::new(SystemClock::new()));
        let mut replicas = Self {
            entra,
            database_url: database_url.to_owned(),
            services: Vec::new(),
            addresses: Arc::default(),
        };
        // Started together, so that they create the tables concurrently.
        replicas.services = (0..count).map(|_| replicas.launch()).collect();
        for service in &replicas.services {
            wait_until_ready(&service.address).await;
            replicas
                .addresses
                .write()
                .unwrap()
                .push(service.address.clone());
        }
        replicas
    }

    fn launch(&self) -> Service {
        self.launch_with(&self.database_url)
    }

    /// Starts a replica that reaches the database at this URL.
    pub(crate) fn launch_with(&self, database_url: &str) -> Service {
        let allowed = format!("{},{}", CONTOSO.id, FABRIKAM.id);
        Service::start(&[
            ("AZURE_AUTHORITY_HOST", &self.entra.authority),
            ("ALLOWED_TENANT_IDS", &allowed),
            ("DATABASE_URL", database_url),
            ("RUST_LOG", "warn,tenant_tasks=info,tower_http=off"),
        ])
    }

    /// Starts a replacement for a replica that has received a signal, and waits until the old one has exited.
    pub(crate) async fn replace(&mut self, index: usize) {
        let service = self.launch();
        wait_until_ready(&service.address).await;
        self.addresses.write().unwrap()[index].clone_from(&service.address);
        let old = std::mem::replace(&mut self.services[index], service);
        tokio::task::spawn_blocking(|| old.finish()).await.unwrap();
    }

    /// Starts clients that create, update, delete and list tasks until [`Load::finish`].
    fn start_load(&self) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let tenant = if number % 2 == 0 { CONTOSO } else { FABRIKAM };
            let client = LoadClient {
                number,
                token: self.entra.v1(tenant, ADMIN).sign(),
                http: http_client(),
                addresses: Arc::clone(&self.addresses),
                next_replica: number,
                key: None,
                acknowledged: Arc::clone(&acknowledged),
                record: Record {
                    tenant,
                    ..Record::default()
                },
            };
            clients.spawn(client.run(Arc::clone(&stop)));
        }
        Load {
            stop,
            acknowledged,
            clients,
        }
    }
}

fn http_client() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(15))
        .build()
        .unwrap()
}

pub(crate) async fn wait_until_ready(address: &str) {
    let (http, started) = (http_client(), Instant::now());
    loop {
        match http.get(format!("http://{address}/ready")).send().await {
            Ok(answer) if answer.status() == StatusCode::OK => return,
            Ok(_) | Err(_) => assert!(started.elapsed() < TIMEOUT, "{address} is not ready"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    clients: JoinSet<Record>,
}

impl Load {
    /// Waits until this many more requests are acknowledged, and for a random time after that.
    async fn wait_for_requests(&self, requests: usize) {
        let (target, started) = (
            self.acknowledged.load(Ordering::SeqCst) + requests,
            Instant::now(),
        );
        while self.acknowledged.load(Ordering::SeqCst) < target {
            assert!(
                started.elapsed() < TIMEOUT,
                "requests are no longer acknowledged"
            );
            tokio::time::sleep(Duration::from_millis(fastrand::u64(1..20))).await;
        }
    }

    async fn finish(self) -> Vec<Record> {
        self.stop.store(true, Ordering::SeqCst);
        self.clients.join_all().await
    }
}

/// The responses that one client received.
#[derive(Default)]
struct Record {
    tenant: Tenant,
    /// The ID of each created task.
    created: Vec<u64>,
    /// The possible states of each task that was created and not deleted. There is more than one state only after an
    /// unacknowledged change.
    tasks: BTreeMap<u64, Vec<Option<(String, bool)>>>,
    /// The titles of tasks whose creation was not acknowledged.
    unacknowledged: BTreeSet<String>,
    requests: usize,
    /// The creations that were made by an earlier request with the same key.
    replayed: usize,
    failures: Vec<String>,
}

/// A client that uses the replicas in turn. If it cannot connect, it tries the next one, because nothing was sent.
struct LoadClient {
    number: usize,
    token: String,
    http: reqwest::Client,
    addresses: Arc<RwLock<Vec<String>>>,
    next_replica: usize,
    /// The key of the creation in progress.
    key: Option<String>,
    acknowledged: Arc<AtomicUsize>,
    record: Record,
}

impl LoadClient {
    async fn run(mut self, stop: Arc<AtomicBool>) -> Record {
        let mut count = 0;
        while !stop.load(Ordering::SeqCst) {
            count += 1;
            let title = format!("{}-{count}", self.number);
            let Some(id) = self.create(&title).await else {
                continue;
            };
            if count % 2 == 0 {
                self.patch(id, &format!("{title}, renamed")).await;
            }
            if count % 3 == 0 {
                self.delete(id).await;
            }
            self.send(Method::GET, "/api/tasks?limit=10", None).await;
        }
        self.record
    }

    async fn create(&mut self, title: &str) -> Option<u64> {
        self.key = (self.number < KEYED_CLIENTS).then(|| fastrand::u64(..).to_string());
        let started = Instant::now();
        let task = loop {
            let sent = self.send(Method::POST, "/api/tasks", Some(title_body(title)));
            match sent.await {
                None if self.key.is_some() => assert!(started.elapsed() < TIMEOUT, "{title}"),
                answer => break answer,
            }
        };
        self.key = None;
        let Some(task) = task else {
            self.record.unacknowledged.insert(title.to_owned());
            return None;
        };
        let id = task["id"].as_u64().unwrap();
        self.record.created.push(id);
        self.record
            .tasks
            .insert(id, vec![Some((title.to_owned(), false))]);
        Some(id)
    }

    async fn patch(&mut self, id: u64, title: &str) {
        let body = title_and_completed_body(title, true);
        let answer = self
            .send(Method::PATCH, &format!("/api/tasks/{id}"), Some(body))
            .await;
        let states = self.record.tasks.get_mut(&id).unwrap();
        if answer.is_some() {
            states.clear();
        }
        states.push(Some((title.to_owned(), true)));
    }

    async fn delete(&mut self, id: u64) {
        let answer = self
            .send(Method::DELETE, &format!("/api/tasks/{id}"), None)
            .await;
        if answer.is_some() {
            self.record.tasks.remove(&id);
        } else {
            self.record.tasks.get_mut(&id).unwrap().push(None);
        }
    }

    /// Sends a request and returns the body if the status is 200.
    async fn send(&mut self, method: Method, path: &str, body: Option<Value>) -> Option<Value> {
        self.record.requests += 1;
        let mut outcome = String::new();
        for _ in 0..4 {
            self.next_replica += 1;
            let address = {
                let addresses = self.addresses.read().unwrap();
                addresses[self.next_replica % addresses.len()].clone()
            };
            let mut request = self
                .http
                .request(method.clone(), format!("http://{address}{path}"));
            request = request.bearer_auth(&self.token);
            if let Some(key) = &self.key {
                request = request.header("idempotency-key", key);
            }
            if let Some(body) = &body {
                request = request
                    .header("content-type", "application/json")
                    .body(body.to_string());
            }
            match request.send().await {
                Ok(answer) if answer.status() == StatusCode::OK => {
                    if answer.headers().contains_key("idempotent-replayed") {
                        self.record.replayed += 1;
                    }
                    let Ok(text) = answer.text().await else { break };
                    self.acknowledged.fetch_add(1, Ordering::SeqCst);
                    return Some(serde_json::from_str(&text).unwrap());
                }
                Ok(answer) => {
                    outcome = format!("{method} {path}: {}", answer.status());
                    break;
                }
                Err(error) if error.is_connect() => outcome = format!("{method} {path}: {error:?}"),
                Err(error) => {
                    outcome = format!("{method} {path}: {error:?}");
                    break;
                }
            }
        }
        self.record.failures.push(outcome);
        tokio::time::sleep(Duration::from_millis(5)).await;
        None
    }
}

/// Compares the responses that the clients received with the content of the database.
async fn compare(records: &[Record], database: &Client) {
    for tenant in [CONTOSO, FABRIKAM] {
        let records: Vec<_> = records
            .iter()
            .filter(|record| record.tenant == tenant)
            .collect();
        database.batch_execute(&begin(tenant)).await.unwrap();
        let rows = database
            .query("SELECT id, title, completed FROM tasks", &[])
            .await
            .unwrap();
        let counters = database
            .query_one("SELECT task_count, last_task_id FROM tenants", &[])
            .await
            .unwrap();
        database.batch_execute("COMMIT").await.unwrap();

        let mut found: BTreeMap<u64, (String, bool)> = rows
            .iter()
            .map(|row| {
                (
                    u64::try_from(row.get::<_, i64>(0)).unwrap(),
                    (row.get(1), row.get(2)),
                )
            })
            .collect();
        assert_eq!(
            counters.get::<_, i64>(0),
            i64::try_from(found.len()).unwrap(),
            "the task count of {} is wrong",
            tenant.name
        );
        let created: Vec<_> = records.iter().flat_map(|record| &record.created).collect();
        assert_eq!(
            created.iter().collect::<BTreeSet<_>>().len(),
            created.len(),
            "an ID was assigned twice"
        );
        assert!(
            counters.get::<_, i64>(1) >= i64::try_from(**created.iter().max().unwrap()).unwrap()
        );
        for record in &records {
            for (id, states) in &record.tasks {
                let state = found.remove(id);
                assert!(
                    states.contains(&state),
                    "task {id} is {state:?}, expected one of {states:?}"
                );
            }
        }
        let unacknowledged: BTreeSet<_> = records
            .iter()
            .flat_map(|record| &record.unacknowledged)
            .collect();
        for (id, (title, _)) in found {
            assert!(
                unacknowledged.contains(&title),
                "task {id}, {title:?}, was deleted or never created"
            );
        }
    }
}

fn report(scenario: &str, records: &[Record]) {
    let sum = |count: fn(&Record) -> usize| records.iter().map(count).sum::<usize>();
    println!(
        "{scenario}: {} requests, {} tasks created, {} kept; {} requests failed, {} of them unacknowledged creations without a key; \
         {} repeated creations had been made already",
        sum(|record| record.requests),
        sum(|record| record.created.len()),
        sum(|record| record.tasks.len()),
        sum(|record| record.failures.len()),
        sum(|record| record.unacknowledged.len()),
        sum(|record| record.replayed),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_replicas_lose_no_writes_and_reuse_no_ids() {
    let database = Database::create().await;
    let mut replicas = Replicas::start(2, &database.url()).await;
    let load = replicas.start_load();
    for kill in 0..20 {
        load.wait_for_requests(40).await;
        replicas.services[kill % 2].signal("-KILL");
        replicas.replace(kill % 2).await;
    }
    let records = load.finish().await;
    report("20 kills of a replica", &records);
    compare(&records, &database.connect().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn database_crashes_lose_no_writes_and_reuse_no_ids() {
    // Ends the process if there is no PostgreSQL server to test with. The server that crashes is a separate one.
    Database::create().await;
    let Some(server) = ThrowAway::start() else {
        return say_left_out(
            "the crash of a database: PostgreSQL is not installed on this machine",
        );
    };
    let superuser = connect(&server.url("postgres", "postgres")).await;
    for sql in [
        "CREATE ROLE tasks LOGIN PASSWORD 'tasks'",
        "CREATE DATABASE tasks OWNER tasks",
    ] {
        superuser.batch_execute(sql).await.unwrap();
    }
    let replicas = Replicas::start(2, &server.url("tasks", "tasks")).await;
    let load = replicas.start_load();
    let mut longest = Duration::ZERO;
    for _ in 0..10 {
        load.wait_for_requests(100).await;
        server.crash();
        let started = Instant::now();
        load.wait_for_requests(20).await;
        longest = longest.max(started.elapsed());
    }
    let records = load.finish().await;
    report("10 crashes of the database", &records);
    println!("longest recovery: {longest:?}");
    compare(&records, &connect(&server.url("tasks", "tasks")).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rolling_restart_fails_no_request() {
    let database = Database::create().await;
    let mut replicas = Replicas::start(2, &database.url()).await;
    let load = replicas.start_load();
    for restart in 0..6 {
        load.wait_for_requests(200).await;
        replicas.services[restart % 2].signal("-TERM");
        replicas.replace(restart % 2).await;
    }
    load.wait_for_requests(200).await;
    let records = load.finish().await;
    report("6 rolling restarts", &records);
    let failures: Vec<_> = records.iter().flat_map(|record| &record.failures).collect();
    assert!(failures.is_empty(), "{failures:#?}");
    compare(&records, &database.connect().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_started_together_share_schema_and_ids() {
    let database = Database::create().await;
    let settings = settings("http://127.0.0.1:9", &[("DATABASE_URL", &database.url())]);
    let config = Config::parse(&settings).unwrap();
    // Calls in one process start closer together than processes do.
    let opened = futures_util::future::join_all((0..12).map(|_| Tasks::open(&config.store))).await;
    let errors: Vec<_> = opened
        .iter()
        .filter_map(|open| open.as_ref().err())
        .collect();
    assert!(errors.is_empty(), "{errors:?}");

    let replicas = Replicas::start(6, &database.url()).await;
    let admin = replicas.entra.v1(CONTOSO, ADMIN).sign();
    let http = http_client();
    let create = async |service: &Service| {
        let request = http
            .post(format!("http://{}/api/tasks", service.address))
            .bearer_auth(&admin);
        let request = request
            .header("content-type", "application/json")
            .body(title_body("x").to_string());
        let answer: Value =
            serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap();
        answer["id"].as_u64().unwrap()
    };
    let ids = futures_util::future::join_all(replicas.services.iter().map(create)).await;
    assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), (1..=6).collect());
    let steps = database
        .connect()
        .await
        .query("SELECT step FROM schema_steps", &[])
        .await
        .unwrap();
    assert_eq!(steps.len(), 5);
}

/// Each deleted task decrements the tenant's task count once. The count enforces `MAX_TASKS_PER_TENANT`.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_deletes_of_a_task_count_once() {
    let app = TestApp::start_with(&[("MAX_TASKS_PER_TENANT", "3")]).await;
    for id in 1..=20 {
        assert_eq!(app.create((CONTOSO, ADMIN), "x").await, id);
        let path = format!("/api/tasks/{id}");
        let delete = || app.send_as((CONTOSO, ADMIN), Method::DELETE, &path, None);
        let answers = futures_util::future::join_all((0..10).map(|_| delete())).await;
        assert!(answers.iter().all(|answer| answer.status == StatusCode::OK));
    }
    let client = app.database.as_ref().unwrap().connect().await;
    client.batch_execute(&begin(CONTOSO)).await.unwrap();
    let counted: i64 = client
        .query_one("SELECT task_count FROM tenants", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(counted, 0);
}
