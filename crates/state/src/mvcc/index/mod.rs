//! The ordered index of keys in memory: for each key its generations and their revisions, never a
//! value. Not here: locks (the store has one around the index), values, and what a request means.
//!
//! `tree` holds the keys (`keys`) and a record of the latest change of each (`record`), with a history
//! where there is more; `log` knows what was lately born and died; `walk` and `compact` pass over many
//! keys in steps, so that nobody holds the lock for long; `build` fills an index from a backend.

mod arena;
mod build;
mod compact;
mod keys;
mod log;
#[cfg(test)]
mod model;
mod range;
mod record;
#[cfg(test)]
mod tests;
mod tree;
mod types;
mod walk;

use std::ops::RangeInclusive;

pub use build::Builder;
pub use types::{Change, Compaction, NewVersion, Put, Restored, Version, Walked};

use super::Revision;
use log::Log;
use record::{Histories, Record};
use tree::{Path, Tree};

/// The keys and their revisions. Changes come in the order of revisions; a revision at which it is
/// asked must not be below the last compaction's.
#[derive(Debug, Default)]
pub struct Index {
    tree: Tree,
    histories: Histories,
    log: Log,
    /// The main revision of the last change.
    last: i64,
}

impl Index {
    /// An index of no keys.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many keys have any retained change, alive or not.
    pub fn len(&self) -> u64 {
        self.tree.len()
    }

    /// True if it has no key.
    pub fn is_empty(&self) -> bool {
        self.tree.len() == 0
    }

    /// How many keys are alive at the latest revision.
    pub fn live(&self) -> u64 {
        self.tree.live()
    }

    /// Writes a version. `size` is asked for the length of its encoded KeyValue, once its numbers are
    /// known.
    pub fn put(&mut self, key: &[u8], at: Revision, size: impl FnOnce(&NewVersion) -> u32) -> Put {
        self.last = at.main;
        let (path, id) = self.tree.find_path(key);
        let leaf = self.tree.leaf_mut(id);
        let put = match leaf.keys.search(key) {
            Ok(i) => {
                let put = leaf.records[i].put(at, size, &mut self.histories);
                if put.previous.is_none() {
                    self.tree.count(&path, true);
                }
                put
            }
            Err(i) => {
                let (record, put) = Record::first(at, size);
                self.tree.insert(&path, id, i, key, record);
                put
            }
        };
        if put.previous.is_none() {
            self.log.push(at.main, key, true);
        }
        put
    }

    /// Deletes a key: the version that it had, or `None` and no change if it is not alive.
    pub fn delete(&mut self, key: &[u8], at: Revision) -> Option<Version> {
        let (path, id) = self.tree.find_path(key);
        let leaf = self.tree.leaf_mut(id);
        let i = leaf.keys.search(key).ok()?;
        let previous = leaf.records[i].delete(at, &mut self.histories)?;
        self.last = at.main;
        self.tree.count(&path, false);
        self.log.push(at.main, key, false);
        Some(previous)
    }

    /// Takes up changes that the backend has, sorted by key and of each key by revision. The oldest
    /// change of a key may be in the midst of a generation, or the tombstone of one that is otherwise
    /// compacted. The log is left alone.
    fn restore<'a>(&mut self, changes: impl Iterator<Item = (&'a [u8], &'a Restored)>) {
        // The place of the last change is that of the next one until the leaf ends or is split.
        let mut place: Option<(Path, u32, Option<Vec<u8>>)> = None;
        for (key, change) in changes {
            self.last = self.last.max(change.revision.main);
            let (path, id, end) = match place.take() {
                Some((path, id, Some(end))) if key < &end[..] => (path, id, Some(end)),
                Some((path, id, None)) => (path, id, None),
                _ => self.tree.find_place(key),
            };
            let leaf = self.tree.leaf_mut(id);
            let mut split = false;
            match leaf.keys.search(key) {
                Ok(i) => {
                    let record = &mut leaf.records[i];
                    let before = record.is_alive();
                    record.restore(change, &mut self.histories);
                    let after = record.is_alive();
                    if before != after {
                        self.tree.count(&path, after);
                    }
                }
                Err(i) => split = self.tree.insert(&path, id, i, key, Record::restored(change)),
            }
            place = (!split).then_some((path, id, end));
        }
    }

    /// The version of a key that is alive at a main revision (`i64::MAX`: at the latest). Of several
    /// changes in one transaction the last one counts.
    pub fn get(&self, key: &[u8], at: i64) -> Option<Version> {
        self.record(key)?.at(at, &self.histories)
    }

    /// The changes of one key in a span of main revisions, in their order, tombstones too.
    pub fn versions_of(&self, key: &[u8], span: RangeInclusive<i64>) -> Vec<Change> {
        self.record(key).map_or_else(Vec::new, |record| record.changes(span, &self.histories))
    }

    fn record(&self, key: &[u8]) -> Option<&Record> {
        let leaf = self.tree.leaf(self.tree.find(key));
        leaf.keys.search(key).ok().map(|i| &leaf.records[i])
    }
}
