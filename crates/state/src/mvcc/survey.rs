//! What the history in a file says, for tools: read from the oldest change to the newest, as often as it takes, in
//! memory that does not grow with the number of keys. Not here: a store that serves, which has the index.
//!
//! Two questions need to know which change of a key is its newest. Where only a number is wanted, a pass looks at as
//! many keys as there is room for, those whose hash lies in one range, and the next pass at the range behind it
//! ([`Newest`]). Where the order of changes counts, as in a hash, a pass looks at a stretch of old changes and
//! strikes out those that a later change replaces (`Stretch`).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher as _};
use std::io;
use std::ops::ControlFlow;

use etch_api::Error;
use etch_disk::backend::{Bucket, Snapshot};

use super::Revision;
use super::hash::{HashKv, Hasher};
use super::load::Marks;
use super::read::ReadError;
use super::tree::{Tree, corrupt};
use super::value::KeyValue;

/// Keys that are known at one time. A table of so many takes 42 MiB, twice that where many keys come and go, and half as
/// much again while it grows to that.
pub const ROOM: usize = (1 << 21) / 8 * 7;

/// Changes that a stretch has at the most for each key that there is room for. Each takes a bit.
const ROWS_A_KEY: usize = 32;

/// A change as the file has it.
#[derive(Clone, Copy, Debug)]
pub struct Row<'s> {
    /// Its place in history.
    pub revision: Revision,
    /// Whether it deletes its key.
    pub tombstone: bool,
    /// What it says; a mark that a jump of the revision leaves says nothing, of a key without a name.
    pub kv: KeyValue<'s>,
    /// The key in the bucket.
    pub stored_key: &'s [u8],
    /// The value in the bucket.
    pub stored_value: &'s [u8],
}

impl<'s> Row<'s> {
    /// Reads a row of the bucket `key`.
    ///
    /// # Errors
    /// The row is damaged.
    pub fn read(stored_key: &'s [u8], stored_value: &'s [u8]) -> io::Result<Self> {
        let Some((revision, tombstone)) = Revision::decode(stored_key) else {
            let text = format!("{stored_key:02x?} in the bucket `key` is not a revision");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        };
        let kv = KeyValue::decode(stored_value).ok_or_else(|| corrupt(revision, "is damaged"))?;
        Ok(Self { revision, tombstone, kv, stored_key, stored_value })
    }
}

/// A key by its hash of 128 bits: one half chooses the pass, the other one the place in a table.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Id([u32; 4]);

impl Id {
    fn of(key: &[u8]) -> Self {
        Self::join(half(key, 0), key)
    }

    fn join(pass: u64, key: &[u8]) -> Self {
        let place = half(key, 1);
        Self([(pass >> 32) as u32, pass as u32, (place >> 32) as u32, place as u32])
    }

    fn pass(&self) -> u64 {
        u64::from(self.0[0]) << 32 | u64::from(self.0[1])
    }
}

fn half(key: &[u8], salt: u8) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u8(salt);
    hasher.write(key);
    hasher.finish()
}

impl Hash for Id {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.0[2]) << 32 | u64::from(self.0[3]));
    }
}

/// Takes a hash for what it is.
#[derive(Default)]
struct Hashed(u64);

impl std::hash::Hasher for Hashed {
    fn write(&mut self, _: &[u8]) {
        unreachable!("an id is written as one number");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type Table<V> = HashMap<Id, V, BuildHasherDefault<Hashed>>;

/// Something about the newest change of each key, for the keys of one pass.
struct Newest<V> {
    of: Table<V>,
    room: usize,
    /// The hashes that this pass looks at, both ends included. The upper one comes down when there is no more room.
    low: u64,
    high: u64,
}

impl<V> Newest<V> {
    fn new(room: usize) -> Self {
        Self { of: Table::default(), room: room.max(1), low: 0, high: u64::MAX }
    }

    /// The key's id, where it belongs to this pass.
    fn id(&self, key: &[u8]) -> Option<Id> {
        let pass = half(key, 0);
        (self.low..=self.high).contains(&pass).then(|| Id::join(pass, key))
    }

    fn insert(&mut self, id: Id, value: V) {
        if let Some(held) = self.of.get_mut(&id) {
            *held = value;
            return;
        }
        while self.holds(&id) && self.of.len() >= self.room {
            self.high = self.low + (self.high - self.low) / 8 * 7;
            let high = self.high;
            self.of.retain(|id, _| id.pass() <= high);
        }
        if self.holds(&id) {
            self.of.insert(id, value);
        }
    }

    fn holds(&self, id: &Id) -> bool {
        (self.low..=self.high).contains(&id.pass())
    }

    /// Forgets this pass's keys and goes on to the next ones; false if there are none.
    fn next_pass(&mut self) -> bool {
        self.of.clear();
        let Some(low) = self.high.checked_add(1) else { return false };
        (self.low, self.high) = (low, low.saturating_add(self.high - self.low));
        true
    }
}

/// Counts the keys that are alive.
pub struct LiveKeys {
    now: Newest<()>,
    /// Of the passes before this one.
    counted: u64,
}

impl LiveKeys {
    /// Nothing seen yet, with room for so many keys at a time.
    pub fn new(room: usize) -> Self {
        Self { now: Newest::new(room), counted: 0 }
    }

    /// Takes a change, in the order of revisions.
    pub fn see(&mut self, row: &Row<'_>) {
        let Some(id) = self.now.id(row.kv.key) else { return };
        if row.tombstone {
            self.now.of.remove(&id);
        } else {
            self.now.insert(id, ());
        }
    }

    /// After a pass over all changes: whether there has to be another one.
    fn next_pass(&mut self) -> bool {
        self.counted += self.now.of.len() as u64;
        self.now.next_pass()
    }
}

/// Old changes one after another, and which of them are still the newest of their keys.
struct Stretch {
    /// By the change's number in the stretch. One bit each.
    kept: Vec<u64>,
    rows: usize,
    /// The number of each key's newest change, while no later one is known.
    newest: Table<u32>,
    /// Where the changes behind it begin; `None` while it takes more, and where it ends the file.
    end: Option<Revision>,
}

/// The key was deleted in the last transaction that counts. etcd names nothing of it, even if it was written again.
const DELETED: u32 = u32::MAX;

impl Stretch {
    fn new() -> Self {
        Self { kept: Vec::new(), rows: 0, newest: Table::default(), end: None }
    }

    fn is_full(&self, room: usize) -> bool {
        self.newest.len() >= room.max(1) || self.rows >= room.max(1).saturating_mul(ROWS_A_KEY)
    }

    /// Takes a change into the stretch. `last` says that it is of the last transaction that counts.
    fn take(&mut self, row: &Row<'_>, last: bool) {
        let number = self.rows;
        self.skip();
        let id = Id::of(row.kv.key);
        let old = match (row.tombstone, last) {
            (true, true) => self.newest.insert(id, DELETED),
            (true, false) => self.newest.remove(&id),
            (false, _) => match self.newest.entry(id) {
                Entry::Occupied(held) if *held.get() == DELETED => return,
                Entry::Occupied(mut held) => Some(held.insert(number as u32)),
                Entry::Vacant(place) => {
                    place.insert(number as u32);
                    None
                }
            },
        };
        if !row.tombstone {
            self.kept[number / 64] |= 1 << (number % 64);
        }
        self.strike(old);
    }

    /// A change that does not count.
    fn skip(&mut self) {
        self.rows += 1;
        self.kept.resize(self.rows.div_ceil(64), 0);
    }

    /// A change behind the stretch.
    fn pass(&mut self, row: &Row<'_>) {
        let old = self.newest.remove(&Id::of(row.kv.key));
        self.strike(old);
    }

    fn strike(&mut self, number: Option<u32>) {
        if let Some(number) = number.filter(|number| *number != DELETED) {
            self.kept[number as usize / 64] &= !(1 << (number % 64));
        }
    }

    fn keeps(&self, number: usize) -> bool {
        self.kept[number / 64] >> (number % 64) & 1 == 1
    }

    fn keeps_any(&self) -> bool {
        self.kept.iter().any(|word| *word != 0)
    }
}

/// The history in a file, as one root has it.
pub struct Survey {
    snapshot: Snapshot,
    room: usize,
    marks: Marks,
    newest: i64,
}

impl Survey {
    /// Of this root, with room for so many keys at a time ([`ROOM`] but in tests).
    ///
    /// # Errors
    /// The file is damaged.
    pub fn new(snapshot: Snapshot, room: usize) -> io::Result<Self> {
        let marks = Marks::read(&Tree::new(snapshot.clone()))?;
        let mut rows = snapshot.cursor(Bucket::Key)?;
        let last = rows.last()?.map(|(key, value)| Row::read(key, value)).transpose()?;
        let newest = marks.newest(last.map_or(1, |row| row.revision.main.max(1)));
        drop(rows);
        Ok(Self { snapshot, room, marks, newest })
    }

    /// The store's revision.
    pub fn revision(&self) -> i64 {
        self.newest
    }

    /// The revisions of the last compaction that was asked for, and of the last that is complete.
    pub fn compactions(&self) -> (Option<i64>, Option<i64>) {
        (self.marks.scheduled, self.marks.finished)
    }

    /// Shows all changes from a revision on, oldest first.
    ///
    /// # Errors
    /// The file is damaged, or what `f` says.
    pub fn rows(
        &self,
        from: Revision,
        mut f: impl FnMut(&Row<'_>) -> io::Result<ControlFlow<()>>,
    ) -> io::Result<()> {
        let mut cursor = self.snapshot.cursor(Bucket::Key)?;
        let mut next = cursor.seek(&from.encode())?;
        while let Some((key, value)) = next {
            if f(&Row::read(key, value)?)?.is_break() {
                break;
            }
            next = cursor.next()?;
        }
        Ok(())
    }

    /// How many keys are alive, after a pass over all changes has shown them to `live`.
    ///
    /// # Errors
    /// The file is damaged.
    pub fn count(&self, mut live: LiveKeys) -> io::Result<u64> {
        while live.next_pass() {
            self.rows(Revision::default(), |row| {
                live.see(row);
                Ok(ControlFlow::Continue(()))
            })?;
        }
        Ok(live.counted)
    }

    /// Shows the keys that are attached to a lease that the file does not have, in the order of their last changes
    /// within a pass.
    ///
    /// # Errors
    /// The file is damaged, or what `f` says.
    pub fn lost_leases(&self, mut f: impl FnMut(&Row<'_>) -> io::Result<()>) -> io::Result<()> {
        let mut lost = Newest::new(self.room / 2);
        let mut asked = (0, true);
        loop {
            self.rows(Revision::new(1, 0), |row| {
                let lease = if row.tombstone { 0 } else { row.kv.lease };
                if lease != asked.0 {
                    let found = self.snapshot.get(Bucket::Lease, &lease.to_be_bytes())?;
                    asked = (lease, lease == 0 || found.is_some());
                }
                if asked.1 && lost.of.is_empty() {
                    return Ok(ControlFlow::Continue(()));
                }
                match lost.id(row.kv.key) {
                    Some(id) if asked.1 => drop(lost.of.remove(&id)),
                    Some(id) => lost.insert(id, row.revision),
                    None => {}
                }
                Ok(ControlFlow::Continue(()))
            })?;
            let mut revisions: Vec<Revision> = lost.of.values().copied().collect();
            revisions.sort_unstable();
            for revision in revisions {
                let key = revision.encode();
                let value = self.snapshot.get(Bucket::Key, &key)?;
                let value = value.ok_or_else(|| corrupt(revision, "is missing"))?;
                f(&Row::read(&key, value)?)?;
            }
            if !lost.next_pass() {
                return Ok(());
            }
        }
    }

    /// The hash of all history up to a revision (0 for the newest), as a member that serves the file has it.
    ///
    /// # Errors
    /// The revision is compacted or yet to come; the file is damaged.
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv, ReadError> {
        let compacted = self.marks.compacted().0;
        if revision > 0 && revision < compacted {
            return Err(Error::Compacted.into());
        }
        if revision > self.newest {
            return Err(Error::FutureRev.into());
        }
        let to = if revision == 0 { self.newest } else { revision };
        let mut hasher = Hasher::new(compacted, to);
        self.hash_old(&mut hasher)?;
        let rest = Revision::new(compacted.saturating_add(1).max(0), 0);
        // To the end, for a row that is damaged makes the file one that no member serves.
        self.rows(rest, |row| {
            add(&mut hasher, row, false);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(hasher.finish(self.newest))
    }

    /// Adds what a compaction would keep of the changes up to the compacted revision.
    fn hash_old(&self, hasher: &mut Hasher) -> io::Result<()> {
        let (mut from, mut any) = (Some(Revision::new(1, 0)), false);
        while let Some(start) = from {
            let stretch = self.stretch(start, hasher)?;
            if stretch.keeps_any() {
                any = true;
                let mut number = 0;
                self.rows(start, |row| {
                    if number == stretch.rows {
                        return Ok(ControlFlow::Break(()));
                    }
                    add(hasher, row, stretch.keeps(number));
                    number += 1;
                    Ok(ControlFlow::Continue(()))
                })?;
            }
            from = stretch.end;
        }
        // etcd leaves nothing out where nothing is kept at all.
        if !any && !self.any_alive(hasher.to)? {
            let compacted = hasher.compacted;
            self.rows(Revision::default(), |row| {
                let is_old = row.revision.main <= compacted;
                if is_old {
                    add(hasher, row, true);
                }
                Ok(if is_old { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            })?;
        }
        Ok(())
    }

    /// The stretch that begins at a revision, compared with everything behind it.
    fn stretch(&self, start: Revision, hasher: &Hasher) -> io::Result<Stretch> {
        let mut stretch = Stretch::new();
        let (mut open, room) = (true, self.room);
        self.rows(start, |row| {
            let main = row.revision.main;
            if open && (main > hasher.compacted || stretch.is_full(room)) {
                open = false;
                stretch.end = Some(row.revision).filter(|_| main <= hasher.compacted);
            }
            if main > hasher.to || (!open && stretch.newest.is_empty()) {
                return Ok(ControlFlow::Break(()));
            }
            let last = main == hasher.to;
            match open {
                // The transaction began in the stretch before, which has forgotten what it deleted.
                true if last && start.main == main && self.deletes(start, row.kv.key)? => {
                    stretch.skip();
                }
                true => stretch.take(row, last),
                false => stretch.pass(row),
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(stretch)
    }

    /// Whether a transaction deletes a key before this change of it.
    fn deletes(&self, before: Revision, key: &[u8]) -> io::Result<bool> {
        let mut found = false;
        self.rows(Revision::new(before.main, 0), |row| {
            found |= row.revision < before && row.tombstone && row.kv.key == key;
            let goes_on = row.revision < before && !found;
            Ok(if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok(found)
    }

    /// Whether any key is alive at a revision, and not one that was deleted in the very transaction and written again.
    fn any_alive(&self, at: i64) -> io::Result<bool> {
        let mut alive = Newest::new(self.room);
        loop {
            self.rows(Revision::new(1, 0), |row| {
                let last = row.revision.main == at;
                if row.revision.main > at {
                    return Ok(ControlFlow::Break(()));
                }
                match alive.id(row.kv.key) {
                    Some(id) if row.tombstone && !last => drop(alive.of.remove(&id)),
                    Some(id) if !last || alive.of.get(&id) != Some(&false) => {
                        alive.insert(id, !row.tombstone);
                    }
                    _ => {}
                }
                Ok(ControlFlow::Continue(()))
            })?;
            if alive.of.values().any(|alive| *alive) {
                return Ok(true);
            }
            if !alive.next_pass() {
                return Ok(false);
            }
        }
    }
}

fn add(hasher: &mut Hasher, row: &Row<'_>, keeps: bool) {
    hasher.add((row.revision, row.tombstone), row.stored_key, row.stored_value, || keeps);
}
