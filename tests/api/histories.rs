//! Random histories of one task are linearizable, also while replicas are killed or stopped, connections are cut, and
//! answers are lost. `HISTORY_SEED` repeats the choices of a run.

#![expect(
    clippy::disallowed_methods,
    reason = "a setting of the tests, not of the service"
)]

use std::{
    env,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::http::{Method, StatusCode};
use fastrand::Rng;
use serde_json::{Value, json};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    replicas::{Replicas, wait_until_ready},
    support::{
        postgres::{self, Database},
        proxy::{Fault, Proxy},
        users::{ADMIN, CONTOSO},
    },
};

const HISTORIES: u64 = 200;
const CLIENTS: usize = 3;
const OPERATIONS: usize = 6;

/// How often a replica is killed, in histories. A start takes most of the test's time.
const KILL_EVERY: u64 = 20;

/// What a correct store does with a task: the specification.
#[derive(Clone, Debug, Default)]
struct TaskModel {
    was_created: bool,
    title: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
enum Operation {
    /// With the same key in all clients.
    Create,
    Update(String),
    Delete,
    Read,
    List,
}

#[derive(Clone, Debug, PartialEq)]
enum Answer {
    Done,
    /// The title that the answer contains; `None` if there is no task.
    Title(Option<String>),
}

impl SequentialSpec for TaskModel {
    type Op = Operation;
    type Ret = Answer;

    fn invoke(&mut self, operation: &Operation) -> Answer {
        match operation {
            Operation::Create => {
                if !self.was_created {
                    self.was_created = true;
                    self.title = Some("new".to_owned());
                }
                Answer::Done
            }
            Operation::Update(title) => {
                if self.title.is_some() {
                    self.title = Some(title.clone());
                }
                Answer::Title(self.title.clone())
            }
            Operation::Delete => {
                self.title = None;
                Answer::Done
            }
            Operation::Read | Operation::List => Answer::Title(self.title.clone()),
        }
    }
}

/// A fault that a store could have, to show that the check detects it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Defect {
    None,
    LostUpdate,
    StaleRead,
}

/// The start or the end of an operation of a client.
enum Event {
    Invoked(usize, Operation),
    Returned(usize, Answer),
}

/// What the clients of a history share.
struct History {
    events: Mutex<Vec<Event>>,
    key: String,
    token: String,
    addresses: Vec<String>,
    http: reqwest::Client,
    defect: Defect,
}

impl History {
    /// A change with an unknown outcome is the last operation of its client: the check takes exponentially longer with
    /// each of them.
    async fn run_client(self: Arc<Self>, client: usize, mut rng: Rng) {
        let mut id = None;
        let mut last_read = None;
        for turn in 0..OPERATIONS {
            let operation = match (id, rng.u8(..100)) {
                (None, _) => Operation::Create,
                (_, 0..40) => Operation::Read,
                (_, 40..50) => Operation::List,
                (_, 50..92) => Operation::Update(format!("{client}-{turn}")),
                (_, 92..) => Operation::Delete,
            };
            let is_read = matches!(operation, Operation::Read | Operation::List);
            self.record(Event::Invoked(client, operation.clone()));
            let mut answer = match (self.defect, &operation) {
                (Defect::LostUpdate, Operation::Update(title)) if rng.u8(..4) == 0 => {
                    Some(Answer::Title(Some(title.clone())))
                }
                _ => self.send(&mut rng, &operation, &mut id).await,
            };
            if let (Operation::Read, Some(read)) = (&operation, &answer) {
                let earlier = last_read.replace(read.clone());
                if self.defect == Defect::StaleRead && rng.u8(..4) == 0 {
                    answer = earlier.or(answer);
                }
            }
            match answer {
                Some(answer) => self.record(Event::Returned(client, answer)),
                None if is_read => {}
                None => return,
            }
        }
    }

    fn record(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }

    /// Whether one order of the operations explains all answers. A read without an answer says nothing.
    fn is_linearizable(&self) -> bool {
        let events = self.events.lock().unwrap();
        let mut tester = LinearizabilityTester::new(TaskModel::default());
        for (index, event) in events.iter().enumerate() {
            match event {
                Event::Invoked(client, operation) => {
                    let mut later = events[index + 1..].iter();
                    let next = later.find(|event| match event {
                        Event::Invoked(other, _) | Event::Returned(other, _) => other == client,
                    });
                    let has_answer = matches!(next, Some(Event::Returned(..)));
                    if has_answer || !matches!(operation, Operation::Read | Operation::List) {
                        tester.on_invoke(*client, operation.clone()).unwrap();
                    }
                }
                Event::Returned(client, answer) => {
                    tester.on_return(*client, answer.clone()).unwrap();
                }
            }
        }
        tester.is_consistent()
    }

    /// Sends a request. Returns `None` if its outcome is unknown.
    async fn send(
        &self,
        rng: &mut Rng,
        operation: &Operation,
        id: &mut Option<u64>,
    ) -> Option<Answer> {
        let address = &self.addresses[rng.usize(..self.addresses.len())];
        let task = format!("/api/tasks/{}", id.unwrap_or_default());
        let (method, path, body) = match operation {
            Operation::Create => (Method::POST, "/api/tasks", Some(json!({ "title": "new" }))),
            Operation::Update(title) => (Method::PATCH, &*task, Some(json!({ "title": title }))),
            Operation::Delete => (Method::DELETE, &*task, None),
            Operation::Read => (Method::GET, &*task, None),
            Operation::List => (Method::GET, "/api/tasks", None),
        };
        let mut request = self.http.request(method, format!("http://{address}{path}"));
        request = request
            .bearer_auth(&self.token)
            .header("idempotency-key", &self.key);
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        // A short limit loses answers.
        let millis = if rng.u8(..10) == 0 {
            rng.u64(1..6)
        } else {
            1000
        };
        let response = request
            .timeout(Duration::from_millis(millis))
            .send()
            .await
            .ok()?;
        let status = response.status();
        let body: Value = serde_json::from_str(&response.text().await.ok()?).ok()?;
        let title = |task: &Value| task["title"].as_str().map(str::to_owned);
        match (operation, status) {
            (Operation::Create, StatusCode::OK) => {
                *id = body["id"].as_u64();
                Some(Answer::Done)
            }
            (Operation::Delete, StatusCode::OK) => Some(Answer::Done),
            (Operation::List, StatusCode::OK) => {
                let mut tasks = body.as_array()?.iter();
                let task = tasks.find(|task| task["id"].as_u64() == *id);
                Some(Answer::Title(task.and_then(title)))
            }
            (Operation::Read | Operation::Update(_), StatusCode::OK) => {
                Some(Answer::Title(title(&body)))
            }
            (Operation::Read | Operation::Update(_), StatusCode::NOT_FOUND) => {
                Some(Answer::Title(None))
            }
            _ => None,
        }
    }
}

/// Runs histories and returns the seeds of those that are not linearizable.
async fn inconsistent(first_seed: u64, histories: u64, defect: Defect) -> Vec<u64> {
    let database = Database::create().await;
    let proxy = Proxy::start(postgres::upstream(), Fault::None).await;
    // One replica reaches the database through a proxy that can fail.
    let mut replicas = Replicas::start(1, &database.url()).await;
    let behind_proxy = replicas.launch_with(&database.url_through(proxy.port));
    wait_until_ready(&behind_proxy.address).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut found = Vec::new();
    for seed in first_seed..first_seed + histories {
        let mut rng = Rng::with_seed(seed);
        let history = Arc::new(History {
            events: Mutex::default(),
            key: format!("history-{seed}"),
            token: replicas.entra.v1(CONTOSO, ADMIN).sign(),
            addresses: vec![
                replicas.services[0].address.clone(),
                behind_proxy.address.clone(),
            ],
            http: http.clone(),
            defect,
        });
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            clients.spawn(Arc::clone(&history).run_client(client, rng.fork()));
        }
        sleep(Duration::from_millis(rng.u64(..4))).await;
        let pause = Duration::from_millis(rng.u64(1..30));
        match rng.u8(..5) {
            0 if seed % KILL_EVERY == 0 => {
                replicas.services[0].signal("-KILL");
                replicas.replace(0).await;
            }
            1 => {
                replicas.services[0].signal("-STOP");
                sleep(pause).await;
                replicas.services[0].signal("-CONT");
            }
            fault @ (2 | 3) => {
                proxy.set_fault(if fault == 2 {
                    Fault::Refuse
                } else {
                    Fault::LoseAnswers
                });
                sleep(pause).await;
                proxy.set_fault(Fault::None);
            }
            _ => {}
        }
        clients.join_all().await;
        if !tokio::task::block_in_place(|| history.is_linearizable()) {
            found.push(seed);
        }
    }
    found
}

fn seed() -> u64 {
    let seed = env::var("HISTORY_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("HISTORY_SEED={seed}");
    seed
}

#[tokio::test(flavor = "multi_thread")]
async fn histories_of_a_task_are_linearizable() {
    let found = inconsistent(seed(), HISTORIES, Defect::None).await;
    assert!(found.is_empty(), "not linearizable: {found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn defects_of_a_store_are_detected() {
    for defect in [Defect::LostUpdate, Defect::StaleRead] {
        let found = inconsistent(seed(), 20, defect).await;
        println!("{defect:?}: {} of 20 histories", found.len());
        assert!(!found.is_empty(), "{defect:?} is not detected");
    }
}
