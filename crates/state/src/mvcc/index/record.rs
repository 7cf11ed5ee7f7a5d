//! The changes of one key: the latest in a record of fixed size, the older ones, if any, in a history.
//! Not here: which key it is, and where it stands in the tree.

use std::ops::RangeInclusive;

use etch_disk::mutants::{self, Mutant};

use super::arena::{Arena, NONE};
use super::keys::grow;
use super::types::{Change, NewVersion, Put, Restored, Version};
use crate::mvcc::Revision;

/// The bit of a sub revision that marks a tombstone.
const TOMBSTONE: u32 = 1 << 31;

/// The latest change of a key. Of a tombstone, `created` and `version` tell what it ended; both are 0
/// where that was compacted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    created: i64,
    version: i64,
    latest: Item,
    history: u32,
}

/// One change, without what its generation tells.
#[derive(Clone, Copy, Debug)]
struct Item {
    main: i64,
    sub: u32,
    size: u32,
}

/// A generation that ended before the latest change.
#[derive(Clone, Copy, Debug)]
struct Ended {
    /// Where in `older` its tombstone is.
    tombstone: u32,
    created: i64,
    /// The version of its last put.
    version: i64,
}

/// The changes before the latest, in the order of revisions.
#[derive(Debug, Default)]
pub(super) struct History {
    older: Vec<Item>,
    ended: Vec<Ended>,
}

/// The histories of all keys that have one.
pub(super) type Histories = Arena<History>;

impl Item {
    fn new(revision: Revision, tombstone: bool, size: u32) -> Self {
        let sub = u32::try_from(revision.sub).unwrap_or(TOMBSTONE);
        assert!(sub < TOMBSTONE, "a transaction has fewer than 2^31 changes");
        let flag = if tombstone { TOMBSTONE } else { 0 };
        Self { main: revision.main, sub: sub | flag, size }
    }

    fn revision(&self) -> Revision {
        Revision::new(self.main, i64::from(self.sub & !TOMBSTONE))
    }

    fn is_tombstone(&self) -> bool {
        self.sub & TOMBSTONE != 0
    }

    /// Whether a compaction at `at` keeps this, the last change up to there. A tombstone stays at
    /// exactly that revision, so that a watcher from there on is told of it.
    fn survives(&self, at: i64) -> bool {
        !self.is_tombstone() || self.main == at && !mutants::on(Mutant::I18089)
    }
}

impl History {
    /// The version at a place of `older` that is a put.
    fn version(&self, i: usize, record: &Record) -> Version {
        let next = self.ended.partition_point(|e| (e.tombstone as usize) < i);
        let (created, version) = match self.ended.get(next) {
            Some(e) => (e.created, e.version - (e.tombstone as i64 - i as i64 - 1)),
            None => {
                let later = self.older.len() as i64 - 1 - i as i64;
                (record.created, record.version - later - i64::from(record.is_alive()))
            }
        };
        let Item { size, .. } = self.older[i];
        Version { modified: self.older[i].revision(), created, version, size }
    }

    fn drop_first(&mut self, n: usize, dropped: &mut Vec<(Revision, bool)>) {
        dropped.extend(self.older.drain(..n).map(|item| (item.revision(), item.is_tombstone())));
        self.older.shrink_to(self.older.len() * 2);
        self.ended.retain_mut(|e| {
            let stays = e.tombstone as usize >= n;
            e.tombstone = e.tombstone.wrapping_sub(n as u32);
            stays
        });
        self.ended.shrink_to(self.ended.len() * 2);
    }
}

impl Record {
    /// A key's first version, and what there is to say of it.
    pub fn first(revision: Revision, size: impl FnOnce(&NewVersion) -> u32) -> (Self, Put) {
        let new = NewVersion { created: revision.main, version: 1 };
        let latest = Item::new(revision, false, size(&new));
        let record = Self { created: new.created, version: new.version, latest, history: NONE };
        (record, Put { created: new.created, version: new.version, previous: None })
    }

    /// The oldest change that the backend still has of a key.
    pub fn restored(change: &Restored) -> Self {
        let Restored { revision, tombstone, created, version, size } = *change;
        let (created, version, size) = if tombstone { (0, 0, 0) } else { (created, version, size) };
        Self { created, version, latest: Item::new(revision, tombstone, size), history: NONE }
    }

    /// True if the latest change is not a delete.
    pub fn is_alive(&self) -> bool {
        !self.latest.is_tombstone()
    }

    /// The latest version, if it is alive.
    pub fn alive(&self) -> Option<Version> {
        let Self { created, version, latest, .. } = *self;
        let modified = latest.revision();
        self.is_alive().then_some(Version { modified, created, version, size: latest.size })
    }

    /// The version at a main revision.
    #[inline]
    pub fn at(&self, at: i64, histories: &Histories) -> Option<Version> {
        if self.latest.main <= at { self.alive() } else { self.older_at(at, histories) }
    }

    fn older_at(&self, at: i64, histories: &Histories) -> Option<Version> {
        let history = self.history(histories)?;
        let i = history.older.partition_point(|item| item.main <= at).checked_sub(1)?;
        (!history.older[i].is_tombstone()).then(|| history.version(i, self))
    }

    fn history<'a>(&self, histories: &'a Histories) -> Option<&'a History> {
        (self.history != NONE).then(|| &histories[self.history])
    }

    /// Moves the latest change into the history, before the next one takes its place.
    fn archive(&mut self, next: Revision, histories: &mut Histories) {
        let last = self.latest.revision();
        assert!(next > last, "a change at {next:?} comes after one at {last:?}");
        if self.history == NONE {
            self.history = histories.add(History::default());
        }
        let history = &mut histories[self.history];
        if self.latest.is_tombstone() {
            let tombstone = u32::try_from(history.older.len()).expect("a history fits memory");
            let Self { created, version, .. } = *self;
            history.ended.push(Ended { tombstone, created, version });
        }
        // Doubling from one: most histories are short.
        let len = history.older.len();
        grow(&mut history.older, 1, len);
        history.older.push(self.latest);
    }

    /// Writes the next version.
    pub fn put(
        &mut self,
        revision: Revision,
        size: impl FnOnce(&NewVersion) -> u32,
        histories: &mut Histories,
    ) -> Put {
        let previous = self.alive();
        self.archive(revision, histories);
        let new = match previous {
            Some(p) => NewVersion { created: p.created, version: p.version + 1 },
            None => NewVersion { created: revision.main, version: 1 },
        };
        let NewVersion { created, version } = new;
        (self.created, self.version) = (created, version);
        self.latest = Item::new(revision, false, size(&new));
        Put { created, version, previous }
    }

    /// Ends the generation, if there is one to end.
    pub fn delete(&mut self, revision: Revision, histories: &mut Histories) -> Option<Version> {
        let previous = self.alive()?;
        self.archive(revision, histories);
        self.latest = Item::new(revision, true, 0);
        Some(previous)
    }

    /// Takes up a further change of the backend. A tombstone of a dead key says nothing and is left out.
    pub fn restore(&mut self, change: &Restored, histories: &mut Histories) {
        if change.tombstone {
            self.delete(change.revision, histories);
        } else {
            self.put(change.revision, |_| change.size, histories);
        }
    }

    /// Drops what no read at or above `at` sees. False if nothing is left of the key.
    pub fn compact(
        &mut self,
        at: i64,
        histories: &mut Histories,
        dropped: &mut Vec<(Revision, bool)>,
    ) -> bool {
        if self.history != NONE {
            let history = &mut histories[self.history];
            let mut n = history.older.partition_point(|item| item.main <= at);
            if self.latest.main > at && n > 0 && history.older[n - 1].survives(at) {
                n -= 1;
            }
            if n > 0 {
                history.drop_first(n, dropped);
            }
            if history.older.is_empty() {
                histories.remove(self.history);
                self.history = NONE;
            }
        }
        let stays = self.latest.main > at || self.latest.survives(at);
        if !stays {
            dropped.push((self.latest.revision(), true));
        }
        stays
    }

    /// The put that etcd says a compaction at `at` keeps of those up to there. It names none where the key
    /// was deleted and written again in that very transaction, for it looks at the generation that ends
    /// there; its hashes follow from that.
    pub fn kept(&self, at: i64, histories: &Histories) -> Option<Revision> {
        let older = self.history(histories).map_or(&[][..], |h| &h.older);
        let upto = &older[..older.partition_point(|item| item.main <= at)];
        let latest = (self.latest.main <= at).then_some(&self.latest);
        let mut back = latest.into_iter().chain(upto.iter().rev());
        let item = back.next()?;
        let ends_here = |item: &Item| item.main == at && item.is_tombstone();
        let reborn = back.take_while(|item| item.main == at).any(ends_here);
        (!item.is_tombstone() && !reborn).then(|| item.revision())
    }

    /// The changes in a span of main revisions.
    pub fn changes(&self, span: RangeInclusive<i64>, histories: &Histories) -> Vec<Change> {
        let older = self.history(histories).map_or(&[][..], |h| &h.older);
        let first = older.partition_point(|item| item.main < *span.start());
        let mut previous = first.checked_sub(1).map(|i| &older[i]);
        let mut changes = Vec::new();
        for item in older[first..].iter().chain([&self.latest]) {
            if item.main > *span.end() {
                break;
            }
            if item.main >= *span.start() {
                changes.push(Change {
                    revision: item.revision(),
                    tombstone: item.is_tombstone(),
                    previous: previous.filter(|p| !p.is_tombstone()).map(Item::revision),
                });
            }
            previous = Some(item);
        }
        changes
    }
}
