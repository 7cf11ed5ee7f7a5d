//! Compaction, in steps that never hold the writer for long. Not here: when to compact, and how long to rest between
//! two steps.

use std::io;
use std::ops::ControlFlow;

use etch_api::Error;
use etch_disk::backend::Bucket;

use super::Revision;
use super::dropped::Dropped;
use super::hash::Hasher;
use super::index::Compaction;
use super::load::{FINISHED, SCHEDULED};
use super::store::{Store, put_meta_revision};
use super::tree::Tree;
use super::write::{State, WriteBatch, Writer};

/// Bytes that a step reads for the hash, at most, but for the last value.
const SCAN_BYTES: usize = 1 << 20;

/// What a step of a compaction came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is more to do.
    Again,
    /// The next step needs the deletes of the compaction before to be committed first.
    Waits,
    /// The compaction to this revision is complete, once the pending writes are committed.
    Done(i64),
    /// No compaction is under way.
    Idle,
}

/// A compaction under way: first the index, then a look through what is stored for the hash, then the deletes. One
/// that is lost is found again when the store is opened.
#[derive(Debug)]
pub(super) struct Job {
    at: i64,
    phase: Phase,
    /// What is to be deleted, whole once the index is done.
    dropped: Dropped,
    /// The hash, unless the compaction before was not complete when this one came: a hash must be over everything
    /// since that one (etcd's rule), and over nothing that it dropped.
    hash: Option<Hashing>,
}

#[derive(Debug)]
struct Hashing {
    hasher: Hasher,
    next: Revision,
    /// Anything is kept at all. Where nothing is, etcd hashes even what goes.
    any_kept: bool,
}

/// How far the look through what is stored has come.
enum Scan {
    More,
    /// What the compaction before dropped is still there to be read.
    Waits,
    Complete,
}

#[derive(Debug)]
enum Phase {
    Index(Compaction),
    Scan,
    Delete,
}

impl WriteBatch<'_> {
    /// Compacts to a revision: from now on reads below it are refused, first in this batch and, once it is
    /// finished, everywhere. [`Writer::compact_step`] does the work.
    pub fn compact(&mut self, at: i64) -> Result<(), Error> {
        let state = &mut *self.state;
        if at <= state.compacted {
            return Err(Error::Compacted);
        }
        if at > state.revision {
            return Err(Error::FutureRev);
        }
        let complete = state.jobs.is_empty() && state.scheduled == state.finished;
        let hash = complete.then(|| Hashing {
            hasher: Hasher::new(state.compacted, at),
            next: Revision::default(),
            any_kept: false,
        });
        state.compacted = at;
        state.scheduled = Some(at);
        put_meta_revision(&mut state.pending, SCHEDULED, at);
        state.jobs.push_back(Job::new(at, hash));
        Ok(())
    }
}

impl Writer {
    /// Whether a compaction has steps to do.
    pub fn is_compacting(&self) -> bool {
        !self.state.jobs.is_empty()
    }

    /// Whether the next step is one in the index.
    pub fn compacts_index(&self) -> bool {
        self.state.jobs.front().is_some_and(|job| matches!(job.phase, Phase::Index(_)))
    }

    /// Does a step of the oldest compaction: at most `limit` keys of the index, or as many stored changes read for
    /// the hash, or as many deletes. Compactions that came while one was under way follow it.
    ///
    /// An error means that the B+tree cannot be read; the compaction then goes on without its hash.
    pub fn compact_step(&mut self, limit: usize) -> io::Result<Step> {
        let Some(mut job) = self.state.jobs.pop_front() else { return Ok(Step::Idle) };
        let step = job.step(&self.store, &mut self.state, limit.max(1));
        if !matches!(step, Ok(Step::Done(_))) {
            self.state.jobs.push_front(job);
        }
        step
    }
}

impl Job {
    fn new(at: i64, hash: Option<Hashing>) -> Self {
        Self { at, phase: Phase::Index(Compaction::new(at)), dropped: Dropped::default(), hash }
    }

    /// A compaction that was scheduled before the store was opened.
    pub fn resumed(at: i64) -> Self {
        Self::new(at, None)
    }

    fn step(&mut self, store: &Store, state: &mut State, limit: usize) -> io::Result<Step> {
        match &mut self.phase {
            Phase::Index(compaction) => {
                let mut index =
                    store.index.write().expect("a thread panicked with the index locked");
                let mut dropped = Vec::new();
                let done = index.compact_step(compaction, limit, &mut dropped);
                drop(index);
                self.dropped.add(dropped);
                if done {
                    self.phase = Phase::Scan;
                }
            }
            Phase::Scan => {
                let scan = self.scan(store, limit);
                if scan.is_err() {
                    self.hash = None;
                }
                if !matches!(scan, Ok(Scan::More | Scan::Waits)) {
                    self.phase = Phase::Delete;
                }
                if matches!(scan?, Scan::Waits) {
                    return Ok(Step::Waits);
                }
            }
            Phase::Delete => {
                let changes = self.dropped.take(limit);
                store.stats().compacted_keys.add(changes.len() as u64);
                for (revision, tombstone) in changes {
                    if tombstone {
                        state.pending.delete(Bucket::Key, revision.encode_tombstone());
                    } else {
                        state.pending.delete(Bucket::Key, revision.encode());
                    }
                }
                if self.dropped.is_empty() {
                    self.finish(store, state);
                    return Ok(Step::Done(self.at));
                }
            }
        }
        Ok(Step::Again)
    }

    fn finish(&mut self, store: &Store, state: &mut State) {
        put_meta_revision(&mut state.pending, FINISHED, self.at);
        state.finished = Some(self.at);
        store.stats().compactions.add(1);
        if let Some(hash) = self.hash.take() {
            store.remember(hash.hasher.finish(self.at));
        }
    }

    /// Reads on for the hash.
    fn scan(&mut self, store: &Store, limit: usize) -> io::Result<Scan> {
        let Some(hash) = &mut self.hash else { return Ok(Scan::Complete) };
        if hash.next == Revision::default() {
            if !store.has_dropped(hash.hasher.compacted)? {
                return Ok(Scan::Waits);
            }
            hash.any_kept = store.any_alive(self.at) || keeps_tombstone(store, self.at)?;
        }
        let Hashing { hasher, next, any_kept } = hash;
        let (dropped, mut bytes) = (&mut self.dropped, 0);
        let more = store.scan(*next, self.at, limit, &mut |revision, tombstone, key, value| {
            hasher.add((revision, tombstone), key, value, || {
                !*any_kept || !dropped.contains((revision, tombstone))
            });
            bytes += value.len();
            if bytes < SCAN_BYTES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if let Some(from) = more {
            *next = from;
        }
        Ok(if more.is_some() { Scan::More } else { Scan::Complete })
    }
}

impl Store {
    /// Whether what the last compaction dropped is gone from where a scan reads: its deletes are committed. Until
    /// then a scan would hash what other members have no more.
    fn has_dropped(&self, compacted: i64) -> io::Result<bool> {
        let recent = self.recent();
        if compacted <= 0 {
            return Ok(true);
        }
        let finished = Tree::new(recent.backend.snapshot()).meta_revision(FINISHED)?;
        let forgotten = recent.tail.first().is_none_or(|first| first > compacted);
        Ok(forgotten && finished.is_some_and(|finished| finished >= compacted))
    }
}

/// Whether a key's last change at a revision that is compacted to is a delete: such a tombstone stays.
fn keeps_tombstone(store: &Store, at: i64) -> io::Result<bool> {
    let mut any = false;
    store.scan(Revision::new(at, 0), at, usize::MAX, &mut |_, tombstone, _, _| {
        any |= tombstone;
        ControlFlow::Continue(())
    })?;
    Ok(any)
}
