//! The open connections, their limits, and which one is evicted at the connection limit.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, watch},
    time::Instant,
};

use super::events::{ClosedConnections, RejectedInput};

/// The default maximum number of connections.
pub const DEFAULT_MAX_CONNECTIONS: usize = 10_000;

/// How long a connection without a completed request is safe from eviction.
const MIN_AGE_TO_EVICT: Duration = Duration::from_millis(50);

/// The limits on client connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The maximum number of connections.
    pub max_connections: usize,
    /// How long a new connection may take to send the head of its first request.
    pub first_head: Duration,
    /// How long a client may read nothing while a response is written.
    pub write: Duration,
    /// How long a connection may be busy with a request before it can be evicted. Applies to
    /// clients that read one byte at a time, which `write` does not limit.
    pub busy: Duration,
}

/// The open connections of a server, oldest first, and the counters for the metrics.
#[derive(Default)]
pub struct Connections {
    open: Mutex<BTreeMap<u64, Arc<ConnectionState>>>,
    accepted: AtomicU64,
    pub(super) is_draining: watch::Sender<bool>,
    /// What was rejected before it became a request.
    pub rejected: RejectedInput,
    /// What was closed because of a limit.
    pub closed: ClosedConnections,
}

/// A permit for an open connection. Dropping it returns the permit and removes the connection.
pub(super) struct ConnectionPermit {
    pub(super) connections: Arc<Connections>,
    pub(super) state: Arc<ConnectionState>,
    number: u64,
    #[expect(dead_code, reason = "held as long as the connection, never read")]
    permit: OwnedSemaphorePermit,
}

/// What a connection is doing, since when, and whether it must close for a new one.
pub(super) struct ConnectionState {
    phase: Mutex<(Phase, Instant)>,
    pub(super) evicted: Notify,
}

/// What a connection is doing, in the order of eviction.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Phase {
    /// The head of its first request has not arrived.
    New,
    /// The client is reading its first response.
    FirstResponse,
    /// It is idle, and its last request was rejected.
    Rejected,
    /// It is idle.
    Idle,
    /// A request is in flight.
    Busy,
}

/// A request in flight, from its head to the end of its response.
pub(super) struct InFlight {
    state: Arc<ConnectionState>,
    is_first: bool,
    after: Phase,
}

impl Limits {
    /// The default limits, with this maximum number of connections.
    pub fn new(max_connections: usize) -> Self {
        Self {
            max_connections,
            first_head: Duration::from_secs(10),
            write: Duration::from_secs(30),
            busy: Duration::from_secs(30),
        }
    }
}

impl Connections {
    /// The connections accepted since the start.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// The connections open now.
    pub fn open(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn add(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> ConnectionPermit {
        let number = self.accepted.fetch_add(1, Ordering::Relaxed);
        let state = Arc::new(ConnectionState {
            phase: Mutex::new((Phase::New, Instant::now())),
            evicted: Notify::new(),
        });
        self.lock().insert(number, Arc::clone(&state));
        ConnectionPermit {
            connections: Arc::clone(self),
            state,
            number,
            permit,
        }
    }

    /// Asks one connection to close: the first in the order of [`Phase`], and of these the one that
    /// has been in its phase longest. While a connection is only too young to be evicted, those that
    /// are idle or busy stay open.
    pub(super) fn evict_one(&self, limits: &Limits) {
        let mut open = self.lock();
        let mut first = None;
        let mut is_one_too_young = false;
        for (&number, state) in open.iter() {
            let (phase, age) = state.phase();
            if age < phase.min_age_to_evict(limits) {
                is_one_too_young |= phase < Phase::Idle;
                continue;
            }
            let rank = (phase, Reverse(age), number);
            if first.is_none_or(|other| rank < other) {
                first = Some(rank);
            }
            if phase == Phase::New {
                // Those after it are newer. Under attack, this ends the search early.
                break;
            }
        }
        let Some((phase, _, number)) = first else {
            return;
        };
        if phase >= Phase::Idle && is_one_too_young {
            return;
        }
        if let Some(state) = open.remove(&number) {
            state.evicted.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<ConnectionState>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.connections.lock().remove(&self.number);
    }
}

impl Phase {
    fn min_age_to_evict(self, limits: &Limits) -> Duration {
        match self {
            Self::New | Self::FirstResponse => MIN_AGE_TO_EVICT,
            Self::Rejected | Self::Idle => Duration::ZERO,
            Self::Busy => limits.busy,
        }
    }
}

impl ConnectionState {
    /// The phase and its duration.
    pub(super) fn phase(&self) -> (Phase, Duration) {
        let (phase, since) = *self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        (phase, since.elapsed())
    }

    pub(super) fn start_request(self: &Arc<Self>) -> InFlight {
        InFlight {
            is_first: self.enter(Phase::Busy) == Phase::New,
            state: Arc::clone(self),
            after: Phase::Idle,
        }
    }

    /// Returns the phase before.
    fn enter(&self, phase: Phase) -> Phase {
        let mut current = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, _) = std::mem::replace(&mut *current, (phase, Instant::now()));
        before
    }
}

impl InFlight {
    /// Records that the response is ready for the client to read.
    pub(super) fn respond(&mut self, is_rejection: bool) {
        if is_rejection {
            self.after = Phase::Rejected;
        }
        if self.is_first {
            self.state.enter(Phase::FirstResponse);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.state.enter(self.after);
    }
}
