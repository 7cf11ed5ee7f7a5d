//! Reading history back for watchers that start in the past or have fallen behind. Not here: who they are.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use etch_api::Error;
use etch_api::range::KeyRange;

use super::read::ReadError;
use super::store::{Found, Store};
use super::tree::{Tree, corrupt};
use super::value::KeyValue;
use super::{Event, EventKind, Revision};

/// How much one read of history may bring. A revision is never split: one that is larger than the budget comes
/// whole, alone.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Events.
    pub events: usize,
    /// Bytes of their `KeyValue`s.
    pub bytes: usize,
    /// Changes looked at, whether they match or not.
    pub visited: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { events: 1000, bytes: 4 << 20, visited: 20_000 }
    }
}

/// A piece of history.
#[derive(Debug)]
pub struct History {
    /// The changes, in the order of revisions.
    pub events: Vec<Arc<Event>>,
    /// Where to go on: every matching change below this revision has been brought.
    pub next: i64,
}

/// Gathers whole revisions until the budget is spent.
struct Gather {
    events: Vec<Arc<Event>>,
    bytes: usize,
    visited: usize,
    /// The revision being gathered, and how many events there were before it.
    current: (i64, usize),
    budget: Budget,
}

impl Gather {
    fn new(budget: Budget, from: i64) -> Self {
        Self { events: Vec::new(), bytes: 0, visited: 0, current: (from, 0), budget }
    }

    /// Called before each change: false if the budget is spent and its revision is not begun.
    fn visit(&mut self, main: i64) -> bool {
        if main != self.current.0 {
            if self.events.len() >= self.budget.events
                || self.bytes >= self.budget.bytes
                || self.visited >= self.budget.visited
            {
                return false;
            }
            self.current = (main, self.events.len());
        }
        self.visited += 1;
        true
    }

    fn push(&mut self, event: Arc<Event>) {
        self.bytes += event.kv.len();
        self.events.push(event);
    }

    /// Takes back the last revision where it made the whole too large and is not alone. Answers where to go on.
    fn settle(&mut self, next: i64) -> i64 {
        let (main, before) = self.current;
        let over = self.events.len() > self.budget.events || self.bytes > self.budget.bytes;
        if over && before > 0 && before < self.events.len() {
            self.events.truncate(before);
            return main;
        }
        next
    }
}

impl Store {
    /// Changes to keys of a range, from one main revision to another, both included, within a budget. Revisions
    /// that are not published yet are not looked at. `Compacted` if `from` is below the compacted revision.
    ///
    /// A tombstone or version exactly at the compacted revision is still there.
    pub fn history(
        &self,
        range: &KeyRange,
        from: i64,
        to: i64,
        budget: Budget,
    ) -> Result<History, ReadError> {
        let from = from.max(1);
        let to = to.min(self.revision());
        let mut gather = Gather::new(budget, from);
        let outcome = if from > to {
            Ok(from)
        } else if let KeyRange::Single(key) = range {
            self.history_of(key, from, to, &mut gather)
        } else {
            self.history_in(range, from, to, &mut gather)
        };
        // After the reads: a compaction that has overtaken them must not look like history without events.
        if from < self.compact_revision() {
            return Err(Error::Compacted.into());
        }
        let next = outcome?;
        let next = gather.settle(next);
        Ok(History { events: gather.events, next })
    }

    /// One key: its changes are in the index.
    fn history_of(&self, key: &Bytes, from: i64, to: i64, gather: &mut Gather) -> io::Result<i64> {
        let changes = self.index().versions_of(key, from..=to);
        for change in changes {
            let main = change.revision.main;
            if !gather.visit(main) {
                return Ok(main);
            }
            let event = match self.find(change.revision) {
                Found::Recent(event) => event,
                Found::Tree(_) if change.tombstone => {
                    self.event_of(change.revision, true, key.clone(), &[])
                }
                Found::Tree(tree) => {
                    self.event_of(change.revision, false, key.clone(), tree.get(change.revision)?)
                }
            };
            gather.push(event);
        }
        Ok(to + 1)
    }

    /// A range: the changes are looked through in the order of revisions, first in the tree and then in the tail.
    fn history_in(
        &self,
        range: &KeyRange,
        from: i64,
        to: i64,
        gather: &mut Gather,
    ) -> io::Result<i64> {
        let mut next = from;
        let (boundary, tree) = {
            let recent = self.recent();
            let boundary = recent.tail.first().unwrap_or(i64::MAX);
            (boundary, (from < boundary).then(|| Tree::new(recent.backend.snapshot())))
        };
        if let Some(tree) = tree {
            match self.scan_tree(&tree, range, (from, to.min(boundary - 1)), gather)? {
                Some(stopped) => return Ok(stopped),
                None => next = boundary,
            }
        }
        if next > to {
            return Ok(to + 1);
        }
        let recent = self.recent();
        if recent.tail.first().is_none_or(|first| first > next) {
            // Trimmed meanwhile: the next call finds it in the tree.
            return Ok(next);
        }
        for event in recent.tail.from(Revision::new(next, 0)) {
            let main = event.revision.main;
            if main > to {
                break;
            }
            if !gather.visit(main) {
                return Ok(main);
            }
            if range.contains(&event.key) {
                gather.push(event.clone());
            }
        }
        Ok(to + 1)
    }

    /// Looks through the tree; answers where the budget ended, if it did.
    fn scan_tree(
        &self,
        tree: &Tree,
        range: &KeyRange,
        (from, to): (i64, i64),
        gather: &mut Gather,
    ) -> io::Result<Option<i64>> {
        let (mut stopped, mut broken) = (None, None);
        tree.scan(Revision::new(from, 0), &mut |revision, tombstone, _, value| {
            if revision.main > to {
                return ControlFlow::Break(());
            }
            if !gather.visit(revision.main) {
                stopped = Some(revision.main);
                return ControlFlow::Break(());
            }
            let Some(kv) = KeyValue::decode(value) else {
                broken = Some(corrupt(revision, "is damaged"));
                return ControlFlow::Break(());
            };
            if range.contains(kv.key) {
                let key = Bytes::copy_from_slice(kv.key);
                gather.push(self.event_of(revision, tombstone, key, value));
            }
            ControlFlow::Continue(())
        })?;
        broken.map_or(Ok(stopped), Err)
    }

    /// An event made from what is stored.
    fn event_of(
        &self,
        revision: Revision,
        tombstone: bool,
        key: Bytes,
        stored: &[u8],
    ) -> Arc<Event> {
        let previous = || self.index().get(&key, revision.main - 1).map(|version| version.modified);
        let event = if tombstone {
            let previous = previous();
            let modified = revision.main;
            let kv = KeyValue { key: &key, modified, ..KeyValue::default() };
            let mut out = bytes::BytesMut::with_capacity(kv.encoded_len());
            kv.encode(&mut out);
            Event::new(revision, EventKind::Delete, key, out.freeze(), previous)
        } else {
            // A key that is created has no previous version, even if it was deleted just before.
            let created = KeyValue::decode(stored).is_none_or(|kv| kv.created == revision.main);
            let previous = if created { None } else { previous() };
            let kv = Bytes::copy_from_slice(stored);
            Event::new(revision, EventKind::Put, key, kv, previous)
        };
        Arc::new(event)
    }
}
