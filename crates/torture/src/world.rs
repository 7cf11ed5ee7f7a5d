//! What the clients of one run share: the clock of the history, what was recorded, numbers that are given
//! once. Not here: who asks what (`traffic`, `watcher`).

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use etch_sim::history::{Operation, Outcome, Watch};
use tokio::sync::watch;

/// How far the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Everybody works.
    Load,
    /// No more requests are made.
    Rest,
    /// Nothing is under way any more; watchers go on to this revision and no further.
    Drain(i64),
}

/// What is shared.
pub struct World {
    start: Instant,
    /// Where the server is.
    pub endpoint: String,
    /// How long a client waits for an answer.
    pub limit: Duration,
    /// Told to all.
    pub phase: watch::Sender<Phase>,
    operations: Mutex<Vec<Operation>>,
    watches: Mutex<Vec<Watch>>,
    complaints: Mutex<Vec<String>>,
    starts: Mutex<Vec<u64>>,
    next_client: AtomicU32,
    next_value: AtomicU64,
    newest: AtomicI64,
    answered: AtomicU64,
    member: AtomicU64,
}

impl World {
    /// A world that begins now.
    pub fn new(endpoint: String, limit: Duration) -> Self {
        Self {
            start: Instant::now(),
            endpoint,
            limit,
            phase: watch::Sender::new(Phase::Load),
            operations: Mutex::default(),
            watches: Mutex::default(),
            complaints: Mutex::default(),
            starts: Mutex::default(),
            next_client: AtomicU32::new(1),
            next_value: AtomicU64::new(1),
            newest: AtomicI64::new(1),
            answered: AtomicU64::new(0),
            member: AtomicU64::new(0),
        }
    }

    /// The history's clock.
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A client's number, never given before.
    pub fn client_number(&self) -> u32 {
        self.next_client.fetch_add(1, Ordering::Relaxed)
    }

    /// A number for a value or a lease, never given before.
    pub fn unique(&self) -> u64 {
        self.next_value.fetch_add(1, Ordering::Relaxed)
    }

    /// The highest revision that anybody was told.
    pub fn newest(&self) -> i64 {
        self.newest.load(Ordering::Relaxed)
    }

    /// A revision was told.
    pub fn saw(&self, revision: i64) {
        self.newest.fetch_max(revision, Ordering::Relaxed);
    }

    /// Who answers.
    pub fn member(&self) -> u64 {
        self.member.load(Ordering::Relaxed)
    }

    /// The server has said who it is.
    pub fn set_member(&self, member: u64) {
        self.member.store(member, Ordering::Relaxed);
    }

    /// Requests answered so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// True while requests are to be made.
    pub fn loading(&self) -> bool {
        *self.phase.borrow() == Phase::Load
    }

    /// A request has ended.
    pub fn record(&self, operation: Operation) {
        if matches!(operation.outcome, Outcome::Ok(_)) {
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
        lock(&self.operations).push(operation);
    }

    /// A watch has ended.
    pub fn record_watch(&self, watch: Watch) {
        lock(&self.watches).push(watch);
    }

    /// The server's process was started.
    pub fn started(&self) {
        lock(&self.starts).push(self.now_ns());
    }

    /// When it was, with the member's id.
    pub fn starts(&self) -> Vec<(u64, u64)> {
        lock(&self.starts).iter().map(|at| (self.member(), *at)).collect()
    }

    /// Something is wrong that no judge of histories would see.
    pub fn complain(&self, what: String) {
        lock(&self.complaints).push(what);
    }

    /// All that was recorded, in the order of time.
    pub fn take(&self) -> (Vec<Operation>, Vec<Watch>, Vec<String>) {
        let mut operations = std::mem::take(&mut *lock(&self.operations));
        operations.sort_by_key(|o| o.sent_ns);
        let mut watches = std::mem::take(&mut *lock(&self.watches));
        watches.sort_by_key(|w| w.sent_ns);
        (operations, watches, std::mem::take(&mut *lock(&self.complaints)))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Lists that are only pushed to: whole after every step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
