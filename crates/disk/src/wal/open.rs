//! Recovery: which segments hold what came after a snapshot, and what they say.
//!
//! Here: opening for writing, with the cut of a torn tail; reading without touching, for tools and for finding
//! the snapshots that the log knows of. Not here: the rule of tears (`read`).

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use etch_api::pb::raftpb::{ConfState, Entry, HardState};
use etch_api::pb::walpb;

use super::read::{Position, Step, step, written_end};
use super::segment::{self, SegmentName, segments};
use super::{Held, Options, RecordKind, Wal, WalError, in_file, record};
use crate::fs::{Disk, Open, read_all};
use crate::mutants::{self, Mutant};

/// Segments that a reader opens before it reads the first one.
const OPEN_AHEAD: usize = 256;

/// What the log says about the time after a snapshot.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// What the log was created with.
    pub metadata: Bytes,
    /// The last hard state.
    pub hard_state: HardState,
    /// The entries after the snapshot, without those that later ones replaced. They may go beyond the hard
    /// state's commit, and then may still be replaced.
    pub entries: Vec<Entry>,
    /// The configuration noted with the snapshot.
    pub conf_state: Option<ConfState>,
    /// Index of the last entry, or the snapshot's.
    pub last_index: u64,
    /// The tail that was cut off ([`Wal::open`]) or passed over ([`read`]).
    pub torn: Option<Torn>,
}

/// Bytes at the end of the log that were never acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The segment.
    pub path: PathBuf,
    /// Where it ends now.
    pub offset: u64,
    /// How many bytes after that were not all zero.
    pub bytes: u64,
    /// What they looked like.
    pub what: &'static str,
}

/// Where the log ends.
struct End {
    offset: u64,
    crc: u32,
    torn: Option<Torn>,
    /// Length of the last segment's file.
    len: u64,
    /// The last segment's bytes up to the last one that is not zero, where some of them are to be cut.
    tail: Vec<u8>,
}

/// Takes the entries after a snapshot, one by one.
pub trait Entries {
    /// Only the first `count` of those taken stay.
    fn truncate(&mut self, count: u64);

    /// The next one. Its index is that of the one before and one.
    fn push(&mut self, entry: Entry);

    /// A hard state says that entries up to this index are committed.
    fn committed(&mut self, _index: u64) {}
}

impl Entries for Vec<Entry> {
    fn truncate(&mut self, count: u64) {
        Vec::truncate(self, count as usize);
    }

    fn push(&mut self, entry: Entry) {
        Vec::push(self, entry);
    }
}

/// Gathers what [`Recovered`] says, record by record.
struct Replay<'e> {
    at: walpb::Snapshot,
    entries: &'e mut dyn Entries,
    /// How many there are.
    count: u64,
    matched: bool,
    /// The term of the entry that the snapshot ends at, as last read.
    term_at: Option<u64>,
    /// The last entry's index, or that of a snapshot beyond it: what the next segment is named after.
    tail_index: u64,
    metadata: Option<Bytes>,
    out: Recovered,
}

pub(super) fn open(
    disk: Arc<dyn Disk>,
    dir: &Path,
    at: &walpb::Snapshot,
    options: Options,
) -> Result<(Wal, Recovered), WalError> {
    let names = select(disk.as_ref(), dir, at.index())?;
    let held = names.into_iter().map(|name| open_file(disk.as_ref(), name, Open::Write));
    let held = held.collect::<Result<Vec<Held>, WalError>>()?;
    for Held { name, file } in &held {
        if !file.try_lock().map_err(in_file(name.path.clone()))? {
            return Err(WalError::Locked(name.path.clone()));
        }
    }
    let mut entries = Vec::new();
    let mut replay = Replay::new(at, &mut entries);
    let end = scan((held.len(), held.iter().map(Held::share)), |at, kind, data| {
        replay.take(at, kind, data)
    })?;
    let (recovered, tail_index) = replay.finish(end.torn.clone())?;
    let recovered = Recovered { entries, ..recovered };

    // All is read and good: from here on things may be changed.
    let tail = &held[held.len() - 1];
    cut(disk.as_ref(), dir, tail, &end)?;
    // Who was killed may have left what only the kernel holds: the end of the log, and the name of a segment
    // just made. From here on both count as durable, so both are made so.
    if !mutants::on(Mutant::UnflushedTail) {
        tail.file.sync().map_err(in_file(tail.name.path.clone()))?;
        disk.sync_dir(dir).map_err(in_file(dir.into()))?;
    }
    let mut filled = 0;
    if end.len < options.segment_bytes {
        // A log that was copied, or cut by another program. Without room it can still be read and served.
        match tail.file.allocate(options.segment_bytes) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::StorageFull => filled = u64::MAX,
            Err(e) => return Err(in_file(tail.name.path.clone())(e)),
        }
    }
    for stale in disk.list(dir).map_err(in_file(dir.into()))? {
        if stale.ends_with(".tmp") {
            disk.remove(&dir.join(&stale)).map_err(in_file(dir.join(stale)))?;
        }
    }
    let wal = Wal {
        disk,
        dir: dir.into(),
        options,
        metadata: recovered.metadata.clone(),
        state: recovered.hard_state,
        last_index: tail_index,
        held: VecDeque::from(held),
        offset: end.offset,
        filled,
        crc: end.crc,
        buf: Vec::new(),
        poisoned: false,
    };
    Ok((wal, recovered))
}

/// What [`Wal::open`] would recover, without a lock and without a change: for tools, also while a server
/// runs. A torn tail is passed over.
pub fn read(disk: &dyn Disk, dir: &Path, at: &walpb::Snapshot) -> Result<Recovered, WalError> {
    let mut entries = Vec::new();
    let recovered = replay(disk, dir, at, &mut entries)?;
    Ok(Recovered { entries, ..recovered })
}

/// As [`read`], but the entries go to `entries` and are not held: no more than one segment is in memory.
pub fn replay(
    disk: &dyn Disk,
    dir: &Path,
    at: &walpb::Snapshot,
    entries: &mut dyn Entries,
) -> Result<Recovered, WalError> {
    let names = select(disk, dir, at.index())?;
    let mut replay = Replay::new(at, entries);
    let end = scan(files(disk, names), |at, kind, data| replay.take(at, kind, data))?;
    Ok(replay.finish(end.torn)?.0)
}

/// Every record from the segment on that `index` lies in, or from the oldest one that is still there: kind, content,
/// place. Without a lock and without a change. Tells of a torn tail.
pub fn records(
    disk: &dyn Disk,
    dir: &Path,
    index: u64,
    mut visit: impl FnMut(Position, RecordKind, &[u8]),
) -> Result<Option<Torn>, WalError> {
    let names = match select(disk, dir, index) {
        Err(WalError::NotFound { .. }) => all_segments(disk, dir)?,
        names => names?,
    };
    let end = scan(files(disk, names), |at, kind, data| {
        visit(Position { seq: at.name.seq, offset: at.offset }, kind, data);
        Ok(())
    })?;
    Ok(end.torn)
}

/// The snapshots that the log has notes of, oldest first, save those beyond what is committed: the log may
/// be opened at any of them whose segment is still there.
pub fn valid_snapshots(disk: &dyn Disk, dir: &Path) -> Result<Vec<walpb::Snapshot>, WalError> {
    let mut notes = Vec::new();
    let commit = scan_notes(disk, dir, |note| notes.push(note))?;
    notes.retain(|n| n.index() <= commit);
    Ok(notes)
}

/// The last of [`valid_snapshots`], found by reading twice what is not held.
pub fn newest_snapshot(disk: &dyn Disk, dir: &Path) -> Result<Option<walpb::Snapshot>, WalError> {
    let commit = scan_notes(disk, dir, drop)?;
    let mut newest = None;
    scan_notes(disk, dir, |note| {
        if note.index() <= commit {
            newest = Some(note);
        }
    })?;
    Ok(newest)
}

/// Shows the notes of snapshots in the whole log. The last commit.
fn scan_notes(
    disk: &dyn Disk,
    dir: &Path,
    mut f: impl FnMut(walpb::Snapshot),
) -> Result<u64, WalError> {
    let mut commit = 0;
    scan(files(disk, all_segments(disk, dir)?), |at, kind, data| {
        match kind {
            RecordKind::Snapshot => f(at.good(record::snapshot(data))?),
            RecordKind::State => commit = at.good(record::state(data))?.commit(),
            _ => {}
        }
        Ok(())
    })?;
    Ok(commit)
}

fn all_segments(disk: &dyn Disk, dir: &Path) -> Result<Vec<SegmentName>, WalError> {
    let names = segments(disk, dir)?;
    if names.is_empty() {
        return Err(WalError::NotFound { dir: dir.into(), index: 0 });
    }
    check_sequence(&names)?;
    Ok(names)
}

/// The segments from the one on that holds what came after `index`.
fn select(disk: &dyn Disk, dir: &Path, index: u64) -> Result<Vec<SegmentName>, WalError> {
    let mut names = segments(disk, dir)?;
    let Some(first) = names.iter().rposition(|s| s.index <= index) else {
        return Err(WalError::NotFound { dir: dir.into(), index });
    };
    names.drain(..first);
    check_sequence(&names)?;
    Ok(names)
}

fn check_sequence(names: &[SegmentName]) -> Result<(), WalError> {
    match names.windows(2).find(|pair| pair[0].seq + 1 != pair[1].seq) {
        Some(pair) => Err(WalError::MissingSegment(pair[1].path.clone())),
        None => Ok(()),
    }
}

fn open_file(disk: &dyn Disk, name: SegmentName, how: Open) -> Result<Held, WalError> {
    let file = disk.open(&name.path, how).map_err(in_file(name.path.clone()))?;
    Ok(Held { name, file })
}

/// The segments one after another, open while they are read: the first ones from now on, so that a server that
/// purges does not take them away, but not more than a process may have open.
fn files(
    disk: &dyn Disk,
    names: Vec<SegmentName>,
) -> (usize, impl Iterator<Item = Result<Held, WalError>>) {
    let count = names.len();
    let mut names = names.into_iter();
    let open = |name| open_file(disk, name, Open::Read);
    let first: Vec<_> = names.by_ref().take(OPEN_AHEAD).map(open).collect();
    (count, first.into_iter().chain(names.map(open)))
}

impl Held {
    fn share(&self) -> Result<Self, WalError> {
        Ok(Self { name: self.name.clone(), file: Arc::clone(&self.file) })
    }
}

/// The place of the record that is being looked at.
struct At<'a> {
    name: &'a SegmentName,
    offset: u64,
}

impl At<'_> {
    fn corrupt(&self, what: &'static str) -> WalError {
        WalError::Corrupt { path: self.name.path.clone(), offset: self.offset, what }
    }

    fn good<T>(&self, decoded: Option<T>) -> Result<T, WalError> {
        decoded.ok_or_else(|| self.corrupt("a record's content does not fit its kind"))
    }
}

/// Goes through all records of all segments, and finds the end.
fn scan(
    (count, segments): (usize, impl Iterator<Item = Result<Held, WalError>>),
    mut visit: impl FnMut(&At<'_>, RecordKind, &[u8]) -> Result<(), WalError>,
) -> Result<End, WalError> {
    let mut running = None;
    for (i, segment) in segments.enumerate() {
        let (Held { name, file }, last) = (segment?, i + 1 == count);
        let mut bytes = read_all(file.as_ref()).map_err(in_file(name.path.clone()))?;
        let mut at = 0;
        let mut heads = [RecordKind::Crc, RecordKind::Metadata].iter();
        let torn = loop {
            let here = At { name: &name, offset: at as u64 };
            let found = step(&bytes, at, running, last);
            // A segment gets its name when its head is durable: without one, it is not torn but damaged.
            if let Some(head) = heads.next()
                && !matches!(&found, Step::Record { kind, .. } if kind == head)
            {
                return Err(here.corrupt("the segment's head is damaged"));
            }
            match found {
                Step::Record { kind, data, crc, next } => {
                    visit(&here, kind, data)?;
                    (running, at) = (Some(crc), next);
                }
                Step::End => break None,
                Step::Torn(what) => break Some(what),
                Step::Corrupt(what) => return Err(here.corrupt(what)),
            }
        };
        if last {
            let len = bytes.len() as u64;
            bytes.truncate(written_end(&bytes).max(at));
            let rest = (bytes.len() - at) as u64;
            let what = torn.or((rest > 0).then_some("a frame header is missing"));
            let torn = what.map(|what| Torn {
                path: name.path.clone(),
                offset: at as u64,
                bytes: rest,
                what,
            });
            let tail = if torn.is_some() { bytes } else { Vec::new() };
            let crc = running.unwrap_or_default();
            return Ok(End { offset: at as u64, crc, torn, len, tail });
        }
    }
    // select and valid_snapshots hand over one segment at least.
    Err(WalError::Invalid("no segment to read"))
}

/// Cuts off a torn tail: keeps a copy of the damaged segment, as etcd does, if there is room, puts zeros in its place, and makes
/// that durable before anything is written over it. A crash half way leaves a tail that is torn at the same
/// place.
fn cut(disk: &dyn Disk, dir: &Path, tail: &Held, end: &End) -> Result<(), WalError> {
    if end.torn.is_none() || mutants::on(Mutant::I5230) {
        return Ok(());
    }
    let mut copy = tail.name.path.clone().into_os_string();
    copy.push(".broken");
    let copy = PathBuf::from(copy);
    let keep = || {
        if disk.exists(&copy) {
            disk.remove(&copy)?;
        }
        let file = disk.open(&copy, Open::Create)?;
        file.write_at(&end.tail, 0)?;
        file.sync()?;
        disk.sync_dir(dir)
    };
    match keep() {
        // The copy is for people to look at: a start does not fail for want of room for it.
        Err(e) if e.kind() == std::io::ErrorKind::StorageFull => {
            let _ = disk.remove(&copy);
        }
        kept => kept.map_err(in_file(copy))?,
    }
    // The file may end inside of a frame: the zeros go up to a whole one.
    let to = (end.tail.len() as u64).next_multiple_of(8);
    segment::zero(tail.file.as_ref(), end.offset, to)
        .and_then(|()| tail.file.sync())
        .map_err(in_file(tail.name.path.clone()))
}

impl<'e> Replay<'e> {
    fn new(at: &walpb::Snapshot, entries: &'e mut dyn Entries) -> Self {
        Self {
            at: at.clone(),
            entries,
            count: 0,
            matched: false,
            term_at: None,
            tail_index: at.index(),
            metadata: None,
            out: Recovered::default(),
        }
    }

    fn take(&mut self, at: &At<'_>, kind: RecordKind, data: &[u8]) -> Result<(), WalError> {
        match kind {
            RecordKind::Crc => Ok(()),
            RecordKind::Metadata => match &self.metadata {
                Some(known) if *known != data => Err(at.corrupt("the segments' metadata differ")),
                _ => {
                    self.metadata = Some(Bytes::copy_from_slice(data));
                    Ok(())
                }
            },
            RecordKind::State => {
                self.out.hard_state = at.good(record::state(data))?;
                self.entries.committed(self.out.hard_state.commit());
                Ok(())
            }
            RecordKind::Entry => self.entry(at, at.good(record::entry(data))?),
            RecordKind::Snapshot => self.note(at.good(record::snapshot(data))?),
        }
    }

    fn entry(&mut self, at: &At<'_>, entry: Entry) -> Result<(), WalError> {
        let (index, start) = (entry.index(), self.at.index());
        self.tail_index = index;
        // An entry replaces the one that had its index, and all after that.
        if index <= start {
            self.term_at = (index == start).then_some(entry.term());
            self.truncate(0);
            return Ok(());
        }
        let place = index - start - 1;
        if place > self.count {
            return Err(at.corrupt("entries are missing before this one"));
        }
        self.truncate(place);
        self.entries.push(entry);
        self.count += 1;
        Ok(())
    }

    fn note(&mut self, note: walpb::Snapshot) -> Result<(), WalError> {
        self.tail_index = self.tail_index.max(note.index());
        if note.index() != self.at.index() {
            return Ok(());
        }
        if note.term() != self.at.term() {
            return Err(WalError::SnapshotMismatch {
                index: self.at.index(),
                term: self.at.term(),
                found: note.term(),
            });
        }
        self.matched = true;
        self.out.conf_state = note.conf_state.clone();
        // A snapshot of our own ends at an entry of the log. One that the leader sent does not: it took the
        // place of the whole log, and what was there before must not come back behind it.
        if note.index() > 0 && self.term_at != Some(note.term()) {
            self.truncate(0);
            self.tail_index = note.index();
        }
        Ok(())
    }

    fn truncate(&mut self, count: u64) {
        if count < self.count {
            self.entries.truncate(count);
            self.count = count;
        }
    }

    fn finish(mut self, torn: Option<Torn>) -> Result<(Recovered, u64), WalError> {
        if !self.matched {
            return Err(WalError::SnapshotNotFound {
                index: self.at.index(),
                term: self.at.term(),
            });
        }
        self.out.metadata = self.metadata.unwrap_or_default();
        self.out.last_index = self.at.index() + self.count;
        self.out.torn = torn;
        Ok((self.out, self.tail_index))
    }
}
