//! Measures how the time of store operations grows with tasks per tenant, tenants, and users per tenant.
//!
//! `bench_store` prints one line per size: the microseconds of each operation, without HTTP.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use mimalloc::MiMalloc;
use tenant_tasks::{
    ids::{Owner, Reach, TaskId, TenantId, UserId},
    tasks::{Content, NewTask, Page, TaskUpdate, store::Tasks, title::Title},
};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The number of calls of each operation at each size.
const TIMES: usize = 20_000;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!(
        "{:>9} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8}",
        "tasks", "tenants", "users", "create", "page", "patch", "delete"
    );
    for tasks in [100, 1_000, 10_000, 100_000, 1_000_000] {
        measure(tasks, 1, 1).await;
    }
    for tenants in [100, 10_000] {
        measure(100_000, tenants, 1).await;
    }
    for users in [100, 10_000] {
        measure(100_000, 1, users).await;
    }
}

/// Measures a store with `tasks` tasks in total, in `tenants` tenants with `users` users each.
async fn measure(tasks: usize, tenants: usize, users: usize) {
    let store = Tasks::in_memory(usize::MAX);
    let owner = |number: usize| Owner {
        tenant: tenant(number % tenants),
        user: user(number / tenants % users),
    };
    for number in 0..tasks {
        insert(&store, owner(number)).await;
    }
    let per_tenant = tasks / tenants;
    // Spreads the calls over all IDs with a large stride.
    let place = |turn: usize| (turn * 7_919_317) % tasks;
    let id = |turn: usize| -> TaskId {
        (place(turn) / tenants % per_tenant + 1)
            .to_string()
            .parse()
            .expect("an ID")
    };
    let ids: Vec<_> = (0..TIMES)
        .map(|turn| (owner(place(turn)), id(turn)))
        .collect();

    let create = time(async |turn| insert(&store, owner(place(turn))).await).await;
    let page = time(async |turn| {
        let (owner, after) = ids[turn];
        let page = Page {
            after: Some(after),
            limit: Some(10),
        };
        black_box(
            store
                .list(owner.tenant, Reach::Tenant, page)
                .await
                .expect("the store in memory does not fail"),
        );
    })
    .await;
    let patch = time(async |turn| {
        let (owner, id) = ids[turn];
        let update = TaskUpdate {
            title: None,
            completed: Some(true),
        };
        black_box(
            store
                .update(owner.tenant, Reach::Tenant, id, update)
                .await
                .expect("the store in memory does not fail"),
        );
    })
    .await;
    let delete = time(async |turn| {
        let (owner, id) = ids[turn];
        store
            .remove(owner.tenant, id)
            .await
            .expect("the store in memory does not fail");
    })
    .await;
    println!(
        "{tasks:>9} {tenants:>9} {users:>9} {create:>8.2} {page:>8.2} {patch:>8.2} {delete:>8.2}"
    );
}

async fn insert(store: &Tasks, owner: Owner) {
    let title =
        Title::parse("A title of forty characters, no more: ok".to_owned()).expect("a valid title");
    store
        .insert(
            owner,
            NewTask {
                content: Content {
                    title,
                    completed: false,
                },
                owner_name: "Edgar Editor".to_owned(),
                key: None,
            },
            None,
        )
        .await
        .expect("the store in memory does not fail");
}

/// The microseconds of one call, on average.
#[expect(
    clippy::disallowed_methods,
    reason = "the benchmark measures real time"
)]
async fn time(operation: impl AsyncFn(usize)) -> f64 {
    let started = Instant::now();
    for turn in 0..TIMES {
        operation(turn).await;
    }
    let each: Duration = started.elapsed() / u32::try_from(TIMES).expect("TIMES fits into 32 bits");
    each.as_secs_f64() * 1e6
}

fn tenant(number: usize) -> TenantId {
    format!("{number:08x}-0000-4000-8000-000000000000")
        .parse()
        .expect("a GUID")
}

fn user(number: usize) -> UserId {
    format!("00000000-0000-4000-8000-{number:012x}")
        .parse()
        .expect("a GUID")
}
