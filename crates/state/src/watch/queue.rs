//! What stands between the node thread and a net thread: one bounded queue a stream, and one doorbell a
//! net thread. Not here: who puts events in (`hub`) and who takes them out (`stream`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Wake;
use crate::mvcc::Event;

/// An event for one subscription of the stream.
pub(super) struct Delivery {
    /// The subscription's number in its stream.
    pub subscription: u32,
    pub event: Arc<Event>,
}

/// The bell of one net thread: which of its streams have something to read.
///
/// However many streams an apply batch reaches, the thread is woken once.
pub struct Doorbell {
    wake: Arc<dyn Wake>,
    ready: Mutex<Vec<u64>>,
}

impl Doorbell {
    /// A bell that wakes this thread.
    pub fn new(wake: Arc<dyn Wake>) -> Arc<Self> {
        Arc::new(Self { wake, ready: Mutex::new(Vec::new()) })
    }

    /// Moves the tokens of the streams that have something new to the end of `into`. A stream is named
    /// once until it is polled; one that was dropped meanwhile may still be named.
    pub fn take_ready(&self, into: &mut Vec<u64>) {
        into.append(&mut lock(&self.ready));
    }

    /// Notes a stream; says whether it is the first, so that the thread needs a call of [`Self::ring`].
    pub(super) fn note(&self, token: u64) -> bool {
        let mut ready = lock(&self.ready);
        ready.push(token);
        ready.len() == 1
    }

    pub(super) fn ring(&self) {
        self.wake.wake();
    }
}

/// How much a stream's queue holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueBound {
    pub events: usize,
    pub bytes: usize,
}

#[derive(Default)]
struct Inner {
    entries: Vec<Delivery>,
    bytes: usize,
    /// The first revision that did not fit; nothing goes in after it.
    lost_from: Option<i64>,
    /// The net thread was told and has not looked yet.
    signalled: bool,
}

/// The queue of one stream.
pub(super) struct Queue {
    inner: Mutex<Inner>,
    bound: QueueBound,
    pub doorbell: Arc<Doorbell>,
    pub token: u64,
}

/// What came of putting a batch into a queue.
pub(super) struct Appended {
    /// How many events went in.
    pub events: usize,
    /// The stream has to be noted at its doorbell.
    pub signal: bool,
}

impl Queue {
    pub(super) fn new(bound: QueueBound, doorbell: Arc<Doorbell>, token: u64) -> Self {
        Self { inner: Mutex::new(Inner::default()), bound, doorbell, token }
    }

    /// Appends a batch of whole revisions, or, if it does not fit, notes where the stream lost track.
    pub(super) fn append(&self, batch: &mut Vec<Delivery>) -> Appended {
        let bytes: usize = batch.iter().map(|delivery| delivery.event.weight()).sum();
        let mut inner = lock(&self.inner);
        let fits = inner.entries.len() + batch.len() <= self.bound.events
            && inner.bytes + bytes <= self.bound.bytes;
        let mut events = 0;
        if inner.lost_from.is_some() {
            batch.clear();
        } else if fits {
            events = batch.len();
            inner.entries.append(batch);
            inner.bytes += bytes;
        } else {
            inner.lost_from = batch.first().map(|delivery| delivery.event.revision.main);
            batch.clear();
        }
        let signal = !std::mem::replace(&mut inner.signalled, true);
        Appended { events, signal }
    }

    /// Moves everything into the empty `into`; tells where the stream lost track, if it did.
    pub(super) fn take(&self, into: &mut Vec<Delivery>) -> Option<i64> {
        debug_assert!(into.is_empty(), "what was taken before is delivered first");
        let mut inner = lock(&self.inner);
        std::mem::swap(&mut inner.entries, into);
        inner.bytes = 0;
        inner.signalled = false;
        inner.lost_from
    }

    /// Marks the stream as lost from this revision on, as an overflow does.
    pub(super) fn lose(&self, from: i64) -> bool {
        let mut inner = lock(&self.inner);
        inner.lost_from.get_or_insert(from);
        !std::mem::replace(&mut inner.signalled, true)
    }

    /// Lets events in again, for subscriptions made from now on. The caller holds the hub's lock.
    pub(super) fn recover(&self) {
        let mut inner = lock(&self.inner);
        debug_assert!(inner.entries.is_empty(), "nothing goes in after an overflow");
        inner.lost_from = None;
    }
}

/// A lock whose holder panicked guards data that is still whole: all writers move complete values.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
