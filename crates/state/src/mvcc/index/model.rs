//! The index as a plain map of histories: what the tests hold the real one against. Not here: speed.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow, RangeInclusive};

use etch_api::range::KeyRange;

use super::{Change, Compaction, NewVersion, Put, Restored, Version, Walked};
use crate::mvcc::Revision;
use crate::mvcc::index::range::Span;

#[derive(Clone, Copy, Debug, PartialEq)]
struct Entry {
    revision: Revision,
    alive: Option<Version>,
}

/// The whole history of every key.
#[derive(Debug, Default)]
pub struct Index {
    keys: BTreeMap<Vec<u8>, Vec<Entry>>,
}

fn at(history: &[Entry], at: i64) -> Option<Version> {
    history.iter().rev().find(|e| e.revision.main <= at)?.alive
}

/// The entry that a compaction keeps of those at or below its revision.
fn kept(history: &[Entry], at: i64) -> Option<Entry> {
    let last = history.iter().rev().find(|e| e.revision.main <= at)?;
    (last.alive.is_some() || last.revision.main == at).then_some(*last)
}

impl Index {
    /// An index of no keys.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many keys have any retained change.
    pub fn len(&self) -> u64 {
        self.keys.len() as u64
    }

    /// True if it has no key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many keys are alive at the latest revision.
    pub fn live(&self) -> u64 {
        self.keys.values().filter(|h| at(h, i64::MAX).is_some()).count() as u64
    }

    /// Writes a version.
    pub fn put(
        &mut self,
        key: &[u8],
        revision: Revision,
        size: impl FnOnce(&NewVersion) -> u32,
    ) -> Put {
        let history = self.keys.entry(key.to_vec()).or_default();
        let previous = at(history, i64::MAX);
        let new = match previous {
            Some(p) => NewVersion { created: p.created, version: p.version + 1 },
            None => NewVersion { created: revision.main, version: 1 },
        };
        let NewVersion { created, version } = new;
        let alive = Some(Version { modified: revision, created, version, size: size(&new) });
        history.push(Entry { revision, alive });
        Put { created, version, previous }
    }

    /// Deletes a key.
    pub fn delete(&mut self, key: &[u8], revision: Revision) -> Option<Version> {
        let history = self.keys.get_mut(key)?;
        let previous = at(history, i64::MAX)?;
        history.push(Entry { revision, alive: None });
        Some(previous)
    }

    /// Takes up one change of the backend.
    pub fn restore(&mut self, key: &[u8], change: Restored) {
        let known = self.keys.contains_key(key);
        let Restored { revision, tombstone, created, version, size } = change;
        if known {
            if tombstone {
                self.delete(key, revision);
            } else {
                self.put(key, revision, |_| size);
            }
            return;
        }
        let alive = (!tombstone).then_some(Version { modified: revision, created, version, size });
        self.keys.insert(key.to_vec(), vec![Entry { revision, alive }]);
    }

    /// The version of a key at a main revision.
    pub fn get(&self, key: &[u8], revision: i64) -> Option<Version> {
        at(self.keys.get(key)?, revision)
    }

    fn pass(
        &self,
        range: &KeyRange,
        after: Option<&[u8]>,
        budget: usize,
        mut f: impl FnMut(&[u8], &[Entry]) -> ControlFlow<()>,
    ) -> Walked {
        let span = Span::of(range);
        let from = match after {
            Some(after) if after >= span.start => Bound::Excluded(after),
            _ => Bound::Included(span.start),
        };
        let mut seen = 0;
        for (key, history) in self.keys.range::<[u8], _>((from, Bound::Unbounded)) {
            if !span.before_end(key) {
                break;
            }
            if f(key, history).is_break() {
                return Walked::Stopped;
            }
            seen += 1;
            if seen >= budget {
                return Walked::More(key.clone());
            }
        }
        Walked::End
    }

    /// Visits the keys of a range that are alive at a revision.
    pub fn walk(
        &self,
        range: &KeyRange,
        after: Option<&[u8]>,
        revision: i64,
        budget: usize,
        mut f: impl FnMut(&[u8], &Version) -> ControlFlow<()>,
    ) -> Walked {
        self.pass(range, after, budget, |key, history| match at(history, revision) {
            Some(version) => f(key, &version),
            None => ControlFlow::Continue(()),
        })
    }

    /// The changes of a key in a span of main revisions.
    pub fn versions_of(&self, key: &[u8], span: RangeInclusive<i64>) -> Vec<Change> {
        let mut previous = None;
        let mut out = Vec::new();
        for e in self.keys.get(key).into_iter().flatten() {
            if span.contains(&e.revision.main) {
                let tombstone = e.alive.is_none();
                out.push(Change { revision: e.revision, tombstone, previous });
            }
            previous = e.alive.map(|v| v.modified);
        }
        out
    }

    /// One step of a compaction.
    pub fn compact_step(
        &mut self,
        compaction: &mut Compaction,
        max_keys: usize,
        dropped: &mut Vec<(Revision, bool)>,
    ) -> bool {
        let from = match &compaction.from {
            Some(after) => Bound::Excluded(after.clone()),
            None => Bound::Unbounded,
        };
        let keys: Vec<_> = self
            .keys
            .range((from, Bound::Unbounded))
            .take(max_keys)
            .map(|(key, _)| key.clone())
            .collect();
        for key in &keys {
            let history = self.keys.get_mut(key).expect("it was just listed");
            let keep = kept(history, compaction.at).map(|e| e.revision);
            history.retain(|e| {
                let stays = e.revision.main > compaction.at || Some(e.revision) == keep;
                if !stays {
                    dropped.push((e.revision, e.alive.is_none()));
                }
                stays
            });
            if history.is_empty() {
                self.keys.remove(key);
            }
        }
        let done = keys.len() < max_keys;
        compaction.from = keys.into_iter().last();
        done
    }

    /// The revisions that a compaction at `revision` would leave and that are not tombstones.
    pub fn keep(
        &self,
        revision: i64,
        after: Option<&[u8]>,
        budget: usize,
        mut f: impl FnMut(Revision),
    ) -> Walked {
        self.pass(&KeyRange::All, after, budget, |_, history| {
            // etcd names nothing where the key was deleted and written again in that transaction.
            let ends = |e: &&Entry| e.revision.main == revision && e.alive.is_none();
            if let Some(Entry { revision, alive: Some(_) }) = kept(history, revision)
                && history.iter().find(ends).is_none()
            {
                f(revision);
            }
            ControlFlow::Continue(())
        })
    }
}

/// Builds an index from the changes of a backend.
#[derive(Debug, Default)]
pub struct Builder {
    index: Index,
}

impl Builder {
    /// Nothing restored yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes up the next change, in the order of revisions.
    pub fn push(&mut self, key: &[u8], change: Restored) {
        self.index.restore(key, change);
    }

    /// The index of everything pushed.
    pub fn finish(self) -> Index {
        self.index
    }
}
