//! The hub: which stream watches what, and the way of a batch of events into the streams' queues. Not
//! here: single watchers, filters and encoding, which are the stream's.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use etch_api::KeyRange;

use super::catchup::Scans;
use super::queue::{Delivery, Doorbell, Queue, lock};
use super::ranges::RangeMap;
use crate::mvcc::Event;

/// What the metrics show.
#[derive(Debug, Default)]
pub struct Counters {
    /// Open streams.
    pub streams: AtomicI64,
    /// Watchers.
    pub watchers: AtomicI64,
    /// Those of them that read history.
    pub slow_watchers: AtomicI64,
    /// Events in the streams' queues.
    pub pending_events: AtomicI64,
    /// Events sent, counted once for every watcher.
    pub events_total: AtomicU64,
}

/// Who wants to hear of a range: a subscription of a stream.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Subscriber {
    slot: u32,
    subscription: u32,
}

/// A stream's place in the hub.
struct Slot {
    queue: Arc<Queue>,
    /// The events of the batch at hand.
    staged: Vec<Delivery>,
}

#[derive(Default)]
struct Inner {
    /// Events up to here are in the queues.
    notified: i64,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    keys: HashMap<Bytes, Vec<Subscriber>>,
    ranges: RangeMap<Vec<Subscriber>>,
    /// Streams that the batch at hand reaches.
    touched: Vec<u32>,
}

/// Where events are handed to the streams that watch their keys. One a member, shared by all threads.
#[derive(Default)]
pub struct Hub {
    inner: Mutex<Inner>,
    /// [`Inner::notified`], to be read without the lock.
    notified: AtomicI64,
    counters: Counters,
    scans: Scans,
}

impl Hub {
    /// A hub over a store that has published `revision`.
    pub fn new(revision: i64) -> Arc<Self> {
        let inner = Inner { notified: revision, ..Inner::default() };
        Arc::new(Self {
            inner: Mutex::new(inner),
            notified: AtomicI64::new(revision),
            counters: Counters::default(),
            scans: Scans::default(),
        })
    }

    /// Hands over the events of an apply batch. Called by the node thread alone, after the store has
    /// published `revision`: the revision of the last event.
    ///
    /// The events come in order and their revisions whole: a revision is in one call or in another.
    /// Costs what matches; never waits for a reader.
    pub fn notify(&self, events: &[Arc<Event>], revision: i64) {
        let mut guard = lock(&self.inner);
        let inner = &mut *guard;
        if !(inner.keys.is_empty() && inner.ranges.is_empty()) {
            for event in events {
                inner.route(event);
            }
        }
        let (queued, bells) = inner.flush();
        inner.notified = revision;
        self.notified.store(revision, Ordering::Release);
        self.counters.pending_events.fetch_add(queued, Ordering::Relaxed);
        drop(guard);
        for bell in bells {
            bell.ring();
        }
    }

    /// Says that the store was replaced by a snapshot, and stands at `revision` now.
    ///
    /// What happened between is not in any queue, so all watchers go on from history.
    pub fn restored(&self, revision: i64) {
        let mut inner = lock(&self.inner);
        let lost = inner.notified + 1;
        self.scans.clear();
        let mut bells = Vec::new();
        for slot in inner.slots.iter().flatten() {
            if slot.queue.lose(lost) {
                note(&slot.queue, &mut bells);
            }
        }
        inner.notified = revision;
        self.notified.store(revision, Ordering::Release);
        drop(inner);
        for bell in bells {
            bell.ring();
        }
    }

    /// Events up to this revision are in the queues, or were taken out of them.
    pub fn notified(&self) -> i64 {
        self.notified.load(Ordering::Acquire)
    }

    /// The figures for the metrics.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    #[cfg(test)]
    pub(super) fn has_no_subscribers(&self) -> bool {
        let inner = lock(&self.inner);
        inner.keys.is_empty() && inner.ranges.is_empty()
    }

    /// The history that was read last.
    pub(super) fn scans(&self) -> &Scans {
        &self.scans
    }

    /// Gives a stream its place.
    pub(super) fn add_stream(&self, queue: Arc<Queue>) -> u32 {
        self.counters.streams.fetch_add(1, Ordering::Relaxed);
        let slot = Some(Slot { queue, staged: Vec::new() });
        let mut inner = lock(&self.inner);
        if let Some(at) = inner.free.pop() {
            inner.slots[at as usize] = slot;
            return at;
        }
        inner.slots.push(slot);
        (inner.slots.len() - 1) as u32
    }

    /// Takes a stream out, whose subscriptions are out already.
    pub(super) fn remove_stream(&self, slot: u32) {
        self.counters.streams.fetch_sub(1, Ordering::Relaxed);
        let mut inner = lock(&self.inner);
        inner.slots[slot as usize] = None;
        inner.free.push(slot);
    }

    /// Adds a range of a stream. Events from the returned revision on go through its queue.
    pub(super) fn subscribe(&self, slot: u32, subscription: u32, range: &KeyRange) -> i64 {
        let mut inner = lock(&self.inner);
        let subscriber = Subscriber { slot, subscription };
        match range {
            KeyRange::Single(key) => match inner.keys.get_mut(key) {
                Some(list) => list.push(subscriber),
                None => {
                    inner.keys.insert(key.clone(), vec![subscriber]);
                }
            },
            range => inner.ranges.entry(range).push(subscriber),
        }
        inner.notified + 1
    }

    /// Takes ranges of a stream out.
    pub(super) fn unsubscribe<'a>(
        &self,
        slot: u32,
        subscriptions: impl Iterator<Item = (u32, &'a KeyRange)>,
    ) {
        let mut inner = lock(&self.inner);
        for (subscription, range) in subscriptions {
            inner.remove(Subscriber { slot, subscription }, range);
        }
    }

    /// Takes all ranges of a stream out after an overflow, and lets new ones in.
    pub(super) fn forsake<'a>(
        &self,
        slot: u32,
        subscriptions: impl Iterator<Item = (u32, &'a KeyRange)>,
    ) {
        let mut inner = lock(&self.inner);
        for (subscription, range) in subscriptions {
            inner.remove(Subscriber { slot, subscription }, range);
        }
        inner.slots[slot as usize].as_ref().expect("a stream in use has a slot").queue.recover();
    }
}

impl Inner {
    /// Stages the event for all who watch its key.
    fn route(&mut self, event: &Arc<Event>) {
        let (slots, touched) = (&mut self.slots, &mut self.touched);
        let mut stage = |to: &Subscriber| {
            let slot = slots[to.slot as usize].as_mut().expect("a subscriber has a slot");
            if slot.staged.is_empty() {
                touched.push(to.slot);
            }
            let event = Arc::clone(event);
            slot.staged.push(Delivery { subscription: to.subscription, event });
        };
        if let Some(list) = self.keys.get(&event.key) {
            list.iter().for_each(&mut stage);
        }
        self.ranges.stab(&event.key, &mut |list| list.iter().for_each(&mut stage));
    }

    /// Moves what is staged into the queues: how many events went in, and whom to wake.
    fn flush(&mut self) -> (i64, Vec<Arc<Doorbell>>) {
        let (mut queued, mut bells) = (0, Vec::new());
        for at in self.touched.drain(..) {
            let slot = self.slots[at as usize].as_mut().expect("a touched stream has a slot");
            let appended = slot.queue.append(&mut slot.staged);
            queued += appended.events as i64;
            if appended.signal {
                note(&slot.queue, &mut bells);
            }
        }
        (queued, bells)
    }

    fn remove(&mut self, subscriber: Subscriber, range: &KeyRange) {
        let strip = |list: &mut Vec<Subscriber>| {
            if let Some(at) = list.iter().position(|other| *other == subscriber) {
                list.swap_remove(at);
            }
            list.is_empty()
        };
        match range {
            KeyRange::Single(key) => {
                if self.keys.get_mut(key).is_some_and(strip) {
                    self.keys.remove(key);
                }
            }
            range => {
                if self.ranges.get_mut(range).is_some_and(strip) {
                    self.ranges.remove(range);
                }
            }
        }
    }
}

/// Notes a stream at its doorbell, and the doorbell among those to ring.
fn note(queue: &Queue, bells: &mut Vec<Arc<Doorbell>>) {
    if queue.doorbell.note(queue.token) {
        bells.push(Arc::clone(&queue.doorbell));
    }
}
