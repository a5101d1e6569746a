//! Several processes with one database: nothing acknowledged is lost and no id is given twice, however they or the
//! database end, and a rolling restart fails nobody.

#![expect(
    clippy::disallowed_methods,
    reason = "load and recovery take real time"
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
use serde_json::{Value, json};
use tenant_tasks::{clock::SystemClock, config::Config, tasks::store::Tasks};
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::{
    service::Service,
    support::{
        app::{TestApp, listen, settings},
        entra::MockEntra,
        postgres::{Database, ThrowAway, begin, connect, say_left_out},
        users::{ADMIN, CONTOSO, FABRIKAM, Tenant},
    },
};

/// How long a replica may take to be ready.
const PATIENCE: Duration = Duration::from_secs(30);

/// Clients at work at the same time, half of them in each tenant.
const CLIENTS: usize = 8;

/// Replicas of the service, whose place in the round is kept while one is replaced.
struct Replicas {
    entra: MockEntra,
    database_url: String,
    services: Vec<Service>,
    /// Where they are, in the order of the services.
    addresses: Arc<RwLock<Vec<String>>>,
}

impl Replicas {
    async fn start(count: usize, database_url: &str) -> Self {
        let entra = MockEntra::start(listen().await, Arc::new(SystemClock::new()));
        let mut replicas = Self {
            entra,
            database_url: database_url.to_owned(),
            services: Vec::new(),
            addresses: Arc::default(),
        };
        // All at once: they make the tables together.
        replicas.services = (0..count).map(|_| replicas.launch()).collect();
        for service in &replicas.services {
            until_ready(&service.address).await;
            replicas
                .addresses
                .write()
                .unwrap()
                .push(service.address.clone());
        }
        replicas
    }

    fn launch(&self) -> Service {
        let allowed = format!("{},{}", CONTOSO.id, FABRIKAM.id);
        Service::start(&[
            ("AZURE_AUTHORITY_HOST", &self.entra.authority),
            ("ALLOWED_TENANT_IDS", &allowed),
            ("DATABASE_URL", &self.database_url),
            ("RUST_LOG", "warn,tenant_tasks=info,tower_http=off"),
        ])
    }

    /// Puts a new replica in the place of one that has ended or is about to, and waits for that one's end.
    async fn replace(&mut self, index: usize) {
        let service = self.launch();
        until_ready(&service.address).await;
        self.addresses.write().unwrap()[index].clone_from(&service.address);
        let old = std::mem::replace(&mut self.services[index], service);
        tokio::task::spawn_blocking(|| old.finish()).await.unwrap();
    }

    /// Clients that create, change and delete until they are told to stop.
    fn load(&self) -> Load {
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
                turn: number,
                acknowledged: Arc::clone(&acknowledged),
                record: Record {
                    tenant,
                    ..Record::default()
                },
            };
            clients.spawn(client.work(Arc::clone(&stop)));
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

async fn until_ready(address: &str) {
    let (http, begun) = (http_client(), Instant::now());
    loop {
        match http.get(format!("http://{address}/ready")).send().await {
            Ok(answer) if answer.status() == StatusCode::OK => return,
            Ok(_) | Err(_) => assert!(begun.elapsed() < PATIENCE, "{address} is not ready"),
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
    /// Until so many more requests were acknowledged, and a random moment more.
    async fn for_a_while(&self, requests: usize) {
        let (wanted, begun) = (
            self.acknowledged.load(Ordering::SeqCst) + requests,
            Instant::now(),
        );
        while self.acknowledged.load(Ordering::SeqCst) < wanted {
            assert!(
                begun.elapsed() < PATIENCE,
                "no request is acknowledged any more"
            );
            tokio::time::sleep(Duration::from_millis(fastrand::u64(1..20))).await;
        }
    }

    async fn finish(self) -> Vec<Record> {
        self.stop.store(true, Ordering::SeqCst);
        self.clients.join_all().await
    }
}

/// What one client knows after its work.
#[derive(Default)]
struct Record {
    tenant: Tenant,
    /// Every id it was given.
    given: Vec<u64>,
    /// What may be found of each task that it made and did not delete: more than one thing only if a change was not
    /// acknowledged.
    tasks: BTreeMap<u64, Vec<Option<(String, bool)>>>,
    /// Titles of tasks that may have been made: no answer came.
    in_doubt: BTreeSet<String>,
    requests: usize,
    failures: Vec<String>,
}

/// Takes one replica after the other, and the next one if it cannot connect: then nothing was sent.
struct LoadClient {
    number: usize,
    token: String,
    http: reqwest::Client,
    addresses: Arc<RwLock<Vec<String>>>,
    turn: usize,
    acknowledged: Arc<AtomicUsize>,
    record: Record,
}

impl LoadClient {
    async fn work(mut self, stop: Arc<AtomicBool>) -> Record {
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
        let Some(task) = self
            .send(Method::POST, "/api/tasks", Some(json!({ "title": title })))
            .await
        else {
            self.record.in_doubt.insert(title.to_owned());
            return None;
        };
        let id = task["id"].as_u64().unwrap();
        self.record.given.push(id);
        self.record
            .tasks
            .insert(id, vec![Some((title.to_owned(), false))]);
        Some(id)
    }

    async fn patch(&mut self, id: u64, title: &str) {
        let body = json!({ "title": title, "completed": true });
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

    /// The answer, if it is one of success.
    async fn send(&mut self, method: Method, path: &str, body: Option<Value>) -> Option<Value> {
        self.record.requests += 1;
        let mut outcome = String::new();
        for _ in 0..4 {
            self.turn += 1;
            let address = {
                let addresses = self.addresses.read().unwrap();
                addresses[self.turn % addresses.len()].clone()
            };
            let mut request = self
                .http
                .request(method.clone(), format!("http://{address}{path}"));
            request = request.bearer_auth(&self.token);
            if let Some(body) = &body {
                request = request
                    .header("content-type", "application/json")
                    .body(body.to_string());
            }
            match request.send().await {
                Ok(answer) if answer.status() == StatusCode::OK => {
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

/// Holds what the clients were told against what the database has.
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
            "tasks, counted"
        );
        let given: Vec<_> = records.iter().flat_map(|record| &record.given).collect();
        assert_eq!(
            given.iter().collect::<BTreeSet<_>>().len(),
            given.len(),
            "an id was given twice"
        );
        assert!(counters.get::<_, i64>(1) >= i64::try_from(**given.iter().max().unwrap()).unwrap());
        for record in &records {
            for (id, states) in &record.tasks {
                let state = found.remove(id);
                assert!(
                    states.contains(&state),
                    "task {id} should be {states:?} and is {state:?}"
                );
            }
        }
        let in_doubt: BTreeSet<_> = records.iter().flat_map(|record| &record.in_doubt).collect();
        for (id, (title, _)) in found {
            assert!(
                in_doubt.contains(&title),
                "nobody made task {id}, {title:?}, or it was deleted"
            );
        }
    }
}

fn report(what: &str, records: &[Record]) {
    let sum = |count: fn(&Record) -> usize| records.iter().map(count).sum::<usize>();
    println!(
        "{what}: {} requests, {} tasks given, {} kept; {} requests failed, {} creations of them in doubt",
        sum(|record| record.requests),
        sum(|record| record.given.len()),
        sum(|record| record.tasks.len()),
        sum(|record| record.failures.len()),
        sum(|record| record.in_doubt.len()),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_killed_at_random_moments_lose_nothing_and_give_no_id_twice() {
    let database = Database::create().await;
    let mut replicas = Replicas::start(2, &database.url()).await;
    let load = replicas.load();
    for kill in 0..20 {
        load.for_a_while(40).await;
        replicas.services[kill % 2].signal("-KILL");
        replicas.replace(kill % 2).await;
    }
    let records = load.finish().await;
    report("a replica killed 20 times", &records);
    compare(&records, &database.connect().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_crashes_at_random_moments_loses_nothing_and_gives_no_id_twice() {
    // The other tests' server must live.
    Database::create().await;
    let Some(server) = ThrowAway::start() else {
        return say_left_out(
            "a database that crashes: PostgreSQL's programs are not on this machine",
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
    let load = replicas.load();
    let mut longest = Duration::ZERO;
    for _ in 0..10 {
        load.for_a_while(100).await;
        server.crash();
        let begun = Instant::now();
        load.for_a_while(20).await;
        longest = longest.max(begun.elapsed());
    }
    let records = load.finish().await;
    report("the database crashed 10 times", &records);
    println!("served again after {longest:?} at the most");
    compare(&records, &connect(&server.url("tasks", "tasks")).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_no_request() {
    let database = Database::create().await;
    let mut replicas = Replicas::start(2, &database.url()).await;
    let load = replicas.load();
    for restart in 0..6 {
        load.for_a_while(200).await;
        replicas.services[restart % 2].signal("-TERM");
        replicas.replace(restart % 2).await;
    }
    load.for_a_while(200).await;
    let records = load.finish().await;
    report("6 restarts in turn", &records);
    let failures: Vec<_> = records.iter().flat_map(|record| &record.failures).collect();
    assert!(failures.is_empty(), "{failures:#?}");
    compare(&records, &database.connect().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_start_together_make_the_tables_once_and_count_together() {
    let database = Database::create().await;
    let settings = settings("http://127.0.0.1:9", &[("DATABASE_URL", &database.url())]);
    let config = Config::parse(&settings).unwrap();
    // Closer together than processes can start.
    let opened = futures_util::future::join_all((0..12).map(|_| Tasks::open(&config.store))).await;
    assert!(opened.iter().all(Result::is_ok), "{opened:?}");

    let replicas = Replicas::start(6, &database.url()).await;
    let admin = replicas.entra.v1(CONTOSO, ADMIN).sign();
    let http = http_client();
    let create = async |service: &Service| {
        let request = http
            .post(format!("http://{}/api/tasks", service.address))
            .bearer_auth(&admin);
        let request = request
            .header("content-type", "application/json")
            .body(r#"{"title":"x"}"#);
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
    assert_eq!(steps.len(), 1);
}

/// The count of a tenant's tasks, which its limit is held against, goes down once for each task.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_many_delete_at_once_is_counted_once() {
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

/// What is compiled into this suite but forgotten in its list would not run.
#[test]
fn every_test_of_the_suite_in_memory_runs_with_a_database_too() {
    let modules = |text: &'static str| {
        text.lines()
            .filter(|line| line.starts_with("mod "))
            .collect::<BTreeSet<_>>()
    };
    assert!(modules(include_str!("postgres.rs")).is_superset(&modules(include_str!("main.rs"))));
}
