//! The one writer: batches of transactions that change keys, and the writes that wait for the B+tree. Not here:
//! what a request means (`txn`), leases (a [`LeaseHook`] is told), and when to commit.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLockWriteGuard};

use bytes::Bytes;
use etch_api::range::KeyRange;
use etch_disk::backend::{Batch, Bucket};

use super::compact::Job;
use super::index::{Index, Version};
use super::store::Store;
use super::value::{Arena, KeyValue};
use super::{Event, EventKind, Revision};

/// What the store tells, and asks, the owner of leases. Called inside apply, in the order of the log.
pub trait LeaseHook {
    /// Whether the lease is granted.
    fn exists(&self, lease: i64) -> bool;
    /// The lease that a key is attached to, or 0.
    fn lease_of(&self, key: &[u8]) -> i64;
    /// Attaches a key. `lease` is not 0.
    fn attach(&mut self, lease: i64, key: &Bytes);
    /// Detaches a key. `lease` is what [`LeaseHook::lease_of`] said.
    fn detach(&mut self, lease: i64, key: &[u8]);
}

/// Writes on their way to the B+tree.
#[derive(Debug, Default)]
pub struct Pending {
    /// What to commit.
    pub batch: Batch,
    /// The newest main revision in it: what [`Store::committed`] is to be told once it is committed.
    pub revision: i64,
}

/// The writing side of a [`Store`]. There is one.
#[derive(Debug)]
pub struct Writer {
    pub(super) store: Arc<Store>,
    pub(super) state: State,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// The last revision given out.
    pub revision: i64,
    /// What is below is compacted, or being so; -1 before the first compaction.
    pub compacted: i64,
    /// Compactions under way, the oldest first.
    pub jobs: VecDeque<Job>,
    pub pending: Batch,
    pub arena: Arena,
    /// As the meta bucket has them, the pending batch applied.
    pub scheduled: Option<i64>,
    pub finished: Option<i64>,
}

impl Writer {
    /// The reading side.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Opens a batch of transactions. Readers of the index wait until it is finished.
    pub fn begin(&mut self) -> WriteBatch<'_> {
        let index = self.store.index.write().expect("a thread panicked with the index locked");
        WriteBatch {
            index,
            store: &self.store,
            state: &mut self.state,
            events: Vec::new(),
            start: 0,
        }
    }

    /// Takes the writes that wait. They must be committed in the order in which they were taken.
    pub fn take_pending(&mut self) -> Pending {
        Pending { batch: std::mem::take(&mut self.state.pending), revision: self.state.revision }
    }

    /// The writes that wait, for the other tables of the state machine to add theirs.
    pub fn pending_mut(&mut self) -> &mut Batch {
        &mut self.state.pending
    }

    /// How many writes wait.
    pub fn pending_len(&self) -> usize {
        self.state.pending.len()
    }

    /// Bytes of the writes that wait.
    pub fn pending_bytes(&self) -> usize {
        self.state.pending.bytes()
    }
}

/// A batch of transactions: the index stays locked from [`Writer::begin`] to [`WriteBatch::finish`].
///
/// Each transaction runs between [`txn_begin`](WriteBatch::txn_begin) and [`txn_end`](WriteBatch::txn_end).
/// It cannot be undone: what may fail is checked before the first write.
#[derive(Debug)]
#[must_use = "nothing is published before finish"]
pub struct WriteBatch<'a> {
    pub(super) index: RwLockWriteGuard<'a, Index>,
    pub(super) store: &'a Arc<Store>,
    pub(super) state: &'a mut State,
    pub(super) events: Vec<Arc<Event>>,
    /// Where the open transaction's events start.
    start: usize,
}

impl WriteBatch<'_> {
    /// Starts a transaction.
    pub fn txn_begin(&mut self) {
        debug_assert_eq!(self.start, self.events.len(), "a transaction is open");
    }

    /// Ends the transaction: the revision of the store after it, which is a new one only if it changed anything.
    pub fn txn_end(&mut self) -> i64 {
        self.state.revision = self.read_revision();
        self.start = self.events.len();
        self.state.revision
    }

    /// The revision before the open transaction.
    pub fn revision(&self) -> i64 {
        self.state.revision
    }

    /// The revision that the open transaction reads at: its own writes are visible to it.
    pub fn read_revision(&self) -> i64 {
        self.state.revision + i64::from(self.changed())
    }

    /// Whether the open transaction has changed anything.
    pub fn changed(&self) -> bool {
        self.start < self.events.len()
    }

    /// The revision to which the store is compacted, or -1.
    pub fn compact_revision(&self) -> i64 {
        self.state.compacted
    }

    /// The writes that wait for the B+tree, for other tables to add theirs.
    pub fn pending_mut(&mut self) -> &mut Batch {
        &mut self.state.pending
    }

    /// Counters.
    pub fn stats(&self) -> &super::Stats {
        self.store.stats()
    }

    fn next(&self) -> Revision {
        Revision::new(self.state.revision + 1, (self.events.len() - self.start) as i64)
    }

    /// Writes a version and answers the transaction's revision.
    pub fn put(&mut self, leases: &mut dyn LeaseHook, key: &[u8], value: &[u8], lease: i64) -> i64 {
        let at = self.next();
        let mut kv = KeyValue { key, created: 0, modified: at.main, version: 0, value, lease };
        let mut len = 0;
        let put = self.index.put(key, at, |new| {
            (kv.created, kv.version) = (new.created, new.version);
            len = kv.encoded_len();
            u32::try_from(len).expect("a request is smaller than 4 GiB")
        });
        let (whole, key) = self.state.arena.encode(&kv, len);
        let old = if put.previous.is_some() { leases.lease_of(&key) } else { 0 };
        if old != lease {
            if old != 0 {
                leases.detach(old, &key);
            }
            if lease != 0 {
                leases.attach(lease, &key);
            }
        }
        self.state.pending.put(Bucket::Key, at.encode(), whole.clone());
        let stats = self.store.stats();
        stats.puts.add(1);
        stats.put_bytes.add(len as u64);
        // A key that is created has no previous version, even if it was deleted just before.
        let previous = put.previous.filter(|_| put.created != at.main);
        self.event(EventKind::Put, at, key, whole, previous);
        at.main
    }

    /// Deletes the keys of a range and answers how many there were.
    pub fn delete_range(&mut self, leases: &mut dyn LeaseHook, range: &KeyRange) -> u64 {
        self.store.stats().deletes.add(1);
        if let KeyRange::Single(key) = range {
            return u64::from(self.delete(leases, key));
        }
        let mut keys = Vec::new();
        self.index.walk(range, None, self.read_revision(), usize::MAX, |key, _| {
            keys.push(Box::<[u8]>::from(key));
            ControlFlow::Continue(())
        });
        for key in &keys {
            self.delete(leases, key);
        }
        keys.len() as u64
    }

    fn delete(&mut self, leases: &mut dyn LeaseHook, key: &[u8]) -> bool {
        let at = self.next();
        let Some(previous) = self.index.delete(key, at) else { return false };
        let (event, key, stored) = self.state.arena.encode_tombstone(key, at.main);
        let lease = leases.lease_of(&key);
        if lease != 0 {
            leases.detach(lease, &key);
        }
        self.state.pending.put(Bucket::Key, at.encode_tombstone(), stored);
        self.event(EventKind::Delete, at, key, event, Some(previous));
        true
    }

    fn event(
        &mut self,
        kind: EventKind,
        at: Revision,
        key: Bytes,
        kv: Bytes,
        previous: Option<Version>,
    ) {
        // A watcher sees what stood before the transaction, not before the change.
        let previous = match previous.map(|version| version.modified) {
            Some(same) if same.main == at.main => {
                self.index.get(&key, at.main - 1).map(|version| version.modified)
            }
            other => other,
        };
        self.events.push(Arc::new(Event::new(at, kind, key, kv, previous)));
    }

    /// The stored `KeyValue` of a version, wherever it is by now.
    pub(crate) fn value(&self, revision: Revision) -> Bytes {
        let at = self.events.partition_point(|event| event.revision < revision);
        match self.events.get(at) {
            Some(event) if event.revision == revision => event.kv.clone(),
            // Apply cannot go on without the bytes that it decides by, nor decide without them.
            _ => self.store.value(revision).expect("apply reads a value that the index knows"),
        }
    }

    /// Publishes the batch: its changes are visible to readers when this returns, and the events are for the
    /// watchers, in the order of revisions.
    pub fn finish(self) -> Vec<Arc<Event>> {
        assert_eq!(self.start, self.events.len(), "a transaction is open");
        let store = self.store;
        if !self.events.is_empty() {
            store.recent_mut().tail.extend(&self.events);
            // Before the index is unlocked: who holds its lock finds nothing newer than this revision in it.
            store.revision.store(self.state.revision, Ordering::Release);
            store.stats().events.add(self.events.len() as u64);
        }
        store.compacted.store(self.state.compacted, Ordering::Release);
        self.events
    }
}
