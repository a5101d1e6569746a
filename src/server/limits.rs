//! The limits on connections, and which connection is evicted at the connection limit.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit},
    time::Instant,
};

/// The default maximum number of connections.
pub const DEFAULT_MAX_CONNECTIONS: usize = 10_000;

/// The minimum age at which a connection without a request can be evicted.
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
    /// How long a connection may be continuously busy before it can be evicted at the connection
    /// limit. Applies to clients that read one byte at a time, which `write` does not limit.
    pub busy: Duration,
}

/// The open connections of a server, oldest first, and the counters for the metrics.
#[derive(Default)]
pub struct Connections {
    open: Mutex<BTreeMap<u64, Arc<ConnectionState>>>,
    accepted: AtomicU64,
    is_draining: AtomicBool,
}

/// A permit for an open connection. Dropping it returns the permit and removes the connection.
pub(super) struct ConnectionPermit {
    connections: Arc<Connections>,
    number: u64,
    pub(super) state: Arc<ConnectionState>,
    #[expect(dead_code, reason = "held as long as the connection, never read")]
    permit: OwnedSemaphorePermit,
}

/// What a connection is doing.
pub(super) struct ConnectionState {
    opened_at: Instant,
    /// The requests whose response is not complete.
    in_flight: AtomicUsize,
    /// When the connection became busy or idle, in milliseconds after `opened_at`.
    changed_at: AtomicU64,
    has_completed_request: AtomicBool,
    is_evicted: AtomicBool,
    /// Notified when the connection is evicted or drained.
    pub(super) signal: Notify,
}

/// A request in flight, from its head to the end of its response.
pub(super) struct InFlight(Arc<ConnectionState>);

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
            opened_at: Instant::now(),
            in_flight: AtomicUsize::new(0),
            changed_at: AtomicU64::new(0),
            has_completed_request: AtomicBool::new(false),
            is_evicted: AtomicBool::new(false),
            signal: Notify::new(),
        });
        self.lock().insert(number, Arc::clone(&state));
        if self.is_draining() {
            state.signal.notify_one();
        }
        ConnectionPermit {
            connections: Arc::clone(self),
            number,
            state,
            permit,
        }
    }

    /// Asks one connection to close: first one without a request, then an idle one, then one that
    /// has been busy for too long. Within a class, the one that has been in this state longest.
    pub(super) fn evict_one(&self, limits: &Limits) {
        let open = self.lock();
        let states = open.values();
        let candidates = states.filter_map(|state| Some((state.eviction_rank(limits)?, state)));
        if let Some((_, state)) = candidates.min_by_key(|&(rank, _)| rank) {
            state.is_evicted.store(true, Ordering::Relaxed);
            state.signal.notify_one();
        }
    }

    /// Asks all connections, and those added later, to finish.
    pub(super) fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
        for state in self.lock().values() {
            state.signal.notify_one();
        }
    }

    fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<ConnectionState>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionPermit {
    /// Whether the next response is the last one.
    pub(super) fn is_draining(&self) -> bool {
        self.connections.is_draining()
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.connections.lock().remove(&self.number);
    }
}

impl ConnectionState {
    pub(super) fn is_evicted(&self) -> bool {
        self.is_evicted.load(Ordering::Relaxed)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) == 0
    }

    /// Whether the connection has received the head of a request.
    pub(super) fn has_request(&self) -> bool {
        self.has_completed_request.load(Ordering::Relaxed) || !self.is_idle()
    }

    pub(super) fn start_request(self: &Arc<Self>) -> InFlight {
        if self.in_flight.fetch_add(1, Ordering::Relaxed) == 0 {
            self.record_change();
        }
        InFlight(Arc::clone(self))
    }

    fn record_change(&self) {
        let millis = self.opened_at.elapsed().as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        self.changed_at.store(millis, Ordering::Relaxed);
    }

    /// How long the connection has been busy or idle.
    pub(super) fn waiting(&self) -> Duration {
        let changed_at = Duration::from_millis(self.changed_at.load(Ordering::Relaxed));
        self.opened_at.elapsed().saturating_sub(changed_at)
    }

    /// The smallest rank is evicted first. `None` if the connection cannot be evicted now.
    fn eviction_rank(&self, limits: &Limits) -> Option<(u8, Reverse<Duration>)> {
        if self.is_evicted() {
            return None;
        }
        let waiting = self.waiting();
        let (class, min) = if !self.has_request() {
            (0, MIN_AGE_TO_EVICT)
        } else if self.is_idle() {
            (1, Duration::ZERO)
        } else {
            (2, limits.busy)
        };
        (waiting >= min).then_some((class, Reverse(waiting)))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.has_completed_request.store(true, Ordering::Relaxed);
        if self.0.in_flight.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.record_change();
        }
    }
}
