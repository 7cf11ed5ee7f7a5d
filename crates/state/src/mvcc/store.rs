//! The store as all threads share it: the index, the newest changes, the B+tree behind them, and the revisions
//! that are published. Not here: writing (`write`), loading (`load`), and what a request asks for (`read`).

use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use etch_api::range::KeyRange;
use etch_disk::backend::{Backend, Batch, Bucket};

use super::hash::HashKv;
use super::index::{Index, Version, Walked};
use super::tail::Tail;
use super::tree::Tree;
use super::{Event, Revision, Stats};

/// How many keys a reader visits before it lets a writer have the index.
pub(super) const WALK: usize = 1000;

/// The reading side of the multi-version store.
///
/// A value is in the tail, in the newest root of the B+tree, or in both: a change is trimmed from the tail only
/// when a root that has it is published. So a reader looks in the tail first, and takes its snapshot after.
pub struct Store {
    pub(super) index: RwLock<Index>,
    recent: RwLock<Recent>,
    /// The last published revision. Raised before the index is unlocked by the batch that reached it.
    pub(super) revision: AtomicI64,
    /// What is below is compacted, or being so; -1 before the first compaction. Raised before anything goes.
    pub(super) compacted: AtomicI64,
    pub(super) hashes: Mutex<Vec<HashKv>>,
    stats: Stats,
}

/// The newest changes, and where the others are.
pub(super) struct Recent {
    pub tail: Tail,
    pub backend: Arc<dyn Backend>,
}

/// Where a version's bytes were found.
pub(super) enum Found {
    Recent(Arc<Event>),
    /// In this root, if anywhere.
    Tree(Tree),
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("revision", &self.revision())
            .field("compact_revision", &self.compact_revision())
            .finish_non_exhaustive()
    }
}

impl Store {
    /// A store over a backend, with an index that holds what the backend does.
    pub(super) fn new(
        backend: Arc<dyn Backend>,
        index: Index,
        revision: i64,
        compacted: i64,
    ) -> Self {
        Self {
            index: RwLock::new(index),
            recent: RwLock::new(Recent { tail: Tail::default(), backend }),
            revision: AtomicI64::new(revision),
            compacted: AtomicI64::new(compacted),
            hashes: Mutex::default(),
            stats: Stats::default(),
        }
    }

    /// The published revision: everything up to it can be read.
    pub fn revision(&self) -> i64 {
        self.revision.load(Ordering::Acquire)
    }

    /// The revision to which the store is compacted, or -1 if it never was. Reads below it are refused.
    pub fn compact_revision(&self) -> i64 {
        self.compacted.load(Ordering::Acquire)
    }

    /// How many keys are alive.
    pub fn current_keys(&self) -> u64 {
        self.index().live()
    }

    /// Counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The B+tree behind this store.
    pub fn backend(&self) -> Arc<dyn Backend> {
        self.recent().backend.clone()
    }

    /// How many published changes are not known to be committed to the B+tree.
    pub fn uncommitted(&self) -> usize {
        self.recent().tail.len()
    }

    /// Tells that the changes up to a main revision are in the newest root of the B+tree, and that this root is
    /// published to readers.
    pub fn committed(&self, revision: i64) {
        let trimmed = self.recent_mut().tail.trim(revision);
        // Freed here, with the lock given back.
        drop(trimmed);
    }

    pub(super) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().expect("a thread panicked with the index locked")
    }

    pub(super) fn recent(&self) -> RwLockReadGuard<'_, Recent> {
        self.recent.read().expect("a thread panicked with the tail locked")
    }

    pub(super) fn recent_mut(&self) -> RwLockWriteGuard<'_, Recent> {
        self.recent.write().expect("a thread panicked with the tail locked")
    }

    /// Where the bytes of a revision are.
    pub(super) fn find(&self, revision: Revision) -> Found {
        let recent = self.recent();
        match recent.tail.get(revision) {
            Some(event) => Found::Recent(event.clone()),
            None => Found::Tree(Tree::new(recent.backend.snapshot())),
        }
    }

    /// The encoded `KeyValue` of a version, copied if it has to come from the B+tree.
    pub(super) fn value(&self, revision: Revision) -> io::Result<Bytes> {
        match self.find(revision) {
            Found::Recent(event) => Ok(event.kv.clone()),
            Found::Tree(tree) => tree.get(revision).map(Bytes::copy_from_slice),
        }
    }

    /// The encoded `KeyValue` of the version that an event replaced or deleted: what `prev_kv` shows. `None`
    /// where there was none, or where it is compacted.
    pub fn previous_kv(&self, event: &Event) -> io::Result<Option<Bytes>> {
        let Some(previous) = event.previous else { return Ok(None) };
        let value = self.value(previous);
        // Asked after the read: whatever a compaction may have taken away must not be missed, nor shown.
        if event.revision.main - 1 < self.compact_revision() {
            return Ok(None);
        }
        value.map(Some)
    }

    /// Visits the keys of a range that are alive at a revision, giving the index free from time to time.
    pub(super) fn walk(
        &self,
        range: &KeyRange,
        at: i64,
        f: &mut dyn FnMut(&[u8], &Version) -> ControlFlow<()>,
    ) {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let walked = self.index().walk(range, after.as_deref(), at, WALK, &mut *f);
            match walked {
                Walked::More(key) => after = Some(key),
                Walked::End | Walked::Stopped => return,
            }
        }
    }

    /// How many keys of a range are alive at a revision.
    pub(super) fn count(&self, range: &KeyRange, at: i64) -> u64 {
        if let Some(count) = self.index().count_quick(range, at) {
            return count;
        }
        let mut count = 0;
        self.walk(range, at, &mut |_, _| {
            count += 1;
            ControlFlow::Continue(())
        });
        count
    }
}

/// Commits a batch and tells the store, for callers that do both on one thread.
pub fn commit(store: &Store, pending: &mut super::Pending) -> io::Result<()> {
    store.backend().commit(&mut pending.batch)?;
    store.committed(pending.revision);
    Ok(())
}

/// The value of a key in the meta bucket that holds a revision.
pub(super) fn put_meta_revision(batch: &mut Batch, key: &'static [u8], main: i64) {
    batch.put(Bucket::Meta, key, Bytes::copy_from_slice(&Revision::new(main, 0).encode()));
}
