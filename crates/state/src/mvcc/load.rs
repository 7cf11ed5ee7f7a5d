//! Opening the store: the index from one scan of the bucket `key`, the revisions, and a compaction that was begun and
//! not finished. Not here: the tables of the other buckets.

use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use etch_disk::backend::{Backend, Batch};
use etch_disk::mutants::{self, Mutant};

use super::Revision;
use super::compact::Job;
use super::index::{Builder, Index, Restored};
use super::store::{Store, put_meta_revision};
use super::tree::{Tree, corrupt};
use super::value::KeyValue;
use super::write::{State, Writer};

/// Meta key: the revision that the last compaction was asked for.
pub(super) const SCHEDULED: &[u8] = b"scheduledCompactRev";
/// Meta key: the revision of the last compaction that is complete.
pub(super) const FINISHED: &[u8] = b"finishedCompactRev";

/// What opening a store brings to light besides the store.
#[derive(Debug)]
pub struct Loaded {
    /// Keys and the leases that they are attached to, in the order of keys. A lease may be gone by now.
    pub attachments: Vec<(Bytes, i64)>,
}

/// What the bucket `meta` says of compactions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks {
    /// The revision that the last one was asked for.
    pub scheduled: Option<i64>,
    /// The revision of the last one that is complete.
    pub finished: Option<i64>,
}

impl Marks {
    pub fn read(tree: &Tree) -> io::Result<Self> {
        let scheduled = tree.meta_revision(SCHEDULED)?;
        Ok(Self { scheduled, finished: tree.meta_revision(FINISHED)? })
    }

    /// The compacted revision, and whether a compaction to it is still to be done.
    pub fn compacted(self) -> (i64, bool) {
        let finished = self.finished.unwrap_or(-1);
        match self.scheduled {
            _ if mutants::on(Mutant::I19179) => (finished, false),
            Some(scheduled) if scheduled > finished && scheduled != 0 => (scheduled, true),
            _ => (finished, false),
        }
    }

    /// The store's revision, where the last change has this one. All of the newest revisions may have been compacted
    /// away, and a compaction may have been cut short after that: the revision must not fall (upstream 17780).
    pub fn newest(self, last: i64) -> i64 {
        match mutants::on(Mutant::I17780) {
            true => last,
            false => last.max(self.finished.unwrap_or(0)).max(self.scheduled.unwrap_or(0)),
        }
    }
}

/// The content of a backend.
struct Content {
    index: Index,
    revision: i64,
    leases: Vec<(Bytes, i64)>,
    marks: Marks,
}

impl Content {
    fn read(backend: &dyn Backend) -> io::Result<Self> {
        let tree = Tree::new(backend.snapshot());
        let marks = Marks::read(&tree)?;
        let (mut builder, mut leases, mut last) = (Builder::new(), HashMap::new(), 1);
        let mut broken = None;
        tree.scan(Revision::new(1, 0), &mut |revision, tombstone, _, value| {
            let Some(kv) = KeyValue::decode(value) else {
                broken = Some(corrupt(revision, "is damaged"));
                return ControlFlow::Break(());
            };
            last = revision.main;
            note_lease(&mut leases, &kv, tombstone);
            let restored = Restored {
                revision,
                tombstone,
                created: kv.created,
                version: kv.version,
                size: value.len() as u32,
            };
            builder.push(kv.key, restored);
            ControlFlow::Continue(())
        })?;
        if let Some(error) = broken {
            return Err(error);
        }
        let mut leases: Vec<(Bytes, i64)> = leases.into_iter().collect();
        leases.sort_unstable();
        Ok(Self { index: builder.finish(), revision: marks.newest(last), leases, marks })
    }

    fn state(&self) -> State {
        let (compacted, unfinished) = self.marks.compacted();
        State {
            revision: self.revision,
            compacted,
            scheduled: self.marks.scheduled,
            finished: self.marks.finished,
            jobs: unfinished.then(|| Job::resumed(compacted)).into_iter().collect(),
            ..State::default()
        }
    }
}

/// Keeps the lease of each key's last version. Few keys have one.
fn note_lease(leases: &mut HashMap<Bytes, i64>, kv: &KeyValue<'_>, tombstone: bool) {
    if kv.lease != 0 && !tombstone {
        match leases.get_mut(kv.key) {
            Some(lease) => *lease = kv.lease,
            None => {
                leases.insert(Bytes::copy_from_slice(kv.key), kv.lease);
            }
        }
    } else if !leases.is_empty() {
        leases.remove(kv.key);
    }
}

/// Notes in a file that nobody serves that it is to be compacted to this revision: whoever opens it does it.
pub(crate) fn schedule_compaction(batch: &mut Batch, at: i64) {
    put_meta_revision(batch, SCHEDULED, at);
}

impl Store {
    /// Opens the store over a backend.
    pub fn open(backend: Arc<dyn Backend>) -> io::Result<(Arc<Self>, Writer, Loaded)> {
        let content = Content::read(&*backend)?;
        let state = content.state();
        let store = Arc::new(Self::new(backend, content.index, content.revision, state.compacted));
        let writer = Writer { store: store.clone(), state };
        Ok((store, writer, Loaded { attachments: content.leases }))
    }
}

impl Writer {
    /// Puts another backend, a snapshot from the leader, in the place of this one. Readers go on: one that is in the
    /// middle finishes at its revision, or is told that it is compacted. What waited to be committed is forgotten.
    pub fn restore(&mut self, backend: Arc<dyn Backend>) -> io::Result<Loaded> {
        let content = Content::read(&*backend)?;
        self.state = content.state();
        let store = &self.store;
        let mut index = store.index.write().expect("a thread panicked with the index locked");
        let mut recent = store.recent_mut();
        // Raised first: a reader that misses something then finds that it is compacted.
        store.compacted.store(self.state.compacted, Ordering::Release);
        let old_index = std::mem::replace(&mut *index, content.index);
        let old_tail = std::mem::take(&mut recent.tail);
        recent.backend = backend;
        store.hashes.lock().expect("a thread panicked with the hashes locked").clear();
        store.revision.store(content.revision, Ordering::Release);
        drop((recent, index));
        drop((old_index, old_tail));
        Ok(Loaded { attachments: content.leases })
    }
}
