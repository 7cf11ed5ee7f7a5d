//! The write-ahead log, in etcd's own files: what raft must remember before it may speak.
//!
//! Here: [`Wal`], the writer, which appends batches to the last segment and goes on to the next one.
//! Below: `record` (one record's bytes), `segment` (files), `read` (what the bytes
//! of a segment say, and the rule of torn tails), `open` (recovery, and reading without touching). Not here:
//! threads, and when to flush: the caller appends as many batches as are waiting and then calls
//! [`Wal::sync`] once. The format and the rule of torn tails are drawn in `docs/format.md`.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use etch_api::pb::raftpb::{ConfState, Entry, HardState};
use etch_api::pb::walpb;

use crate::fs::{Disk, File};
use crate::mutants::{self, Mutant};

mod error;
mod open;
mod read;
mod record;
mod segment;
#[cfg(test)]
mod tests;

pub use error::WalError;
pub use open::{Entries, Recovered, Torn, newest_snapshot, read, records, replay, valid_snapshots};
pub use read::Position;
pub use segment::{SegmentName, segments};

/// A segment is cut once it has reached this many bytes.
pub const SEGMENT_BYTES: u64 = 64_000_000;

/// The buffer is written out when it has grown this large, so that no memory is held for a long stretch of
/// batches without a flush.
const BUFFER: usize = 1 << 20;

/// How far a small write takes zeros along.
const FILL: u64 = 256 << 10;

/// Zeros are written by pages, and so is the page that a write ends in: the kernel then keeps it as one page. What
/// comes in one long write it may keep as one long folio, all of which counts as dirty, and as written, with each
/// later write into it.
const PAGE: usize = 4096;

/// Writes larger than this take no zeros along: what zeros save at the flush is little beside what they cost then.
const SMALL_WRITE: usize = 16 << 10;

/// How a log is written.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Length at which a segment is cut, and to which it is allocated.
    pub segment_bytes: u64,
    /// A small write that comes to blocks never written takes zeros along, up to the next multiple of this, so
    /// that the writes after it find their blocks written (`docs/format.md`). 0: none do.
    pub fill: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: SEGMENT_BYTES, fill: FILL }
    }
}

/// What becomes durable together: entries, and the hard state after them.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Entries in order. One with an index that is there already replaces it and all after it.
    pub entries: Vec<Entry>,
    /// The hard state, where it has changed.
    pub hard_state: Option<HardState>,
}

/// A kind of record, for those who look at a log record by record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// Whose log it is (`etcdserverpb.Metadata`).
    Metadata,
    /// `raftpb.Entry`.
    Entry,
    /// `raftpb.HardState`.
    State,
    /// The running checksum.
    Crc,
    /// `walpb.Snapshot`.
    Snapshot,
}

/// A segment that this log holds: open and locked.
struct Held {
    name: SegmentName,
    file: Arc<dyn File>,
}

/// The log, open for writing.
///
/// After an error of a write or a flush every later call answers [`WalError::Poisoned`]: the kernel may have
/// dropped the pages that it could not write, and a second flush would call them durable.
pub struct Wal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: Options,
    metadata: Bytes,
    /// The last hard state appended; each new segment repeats it.
    state: HardState,
    /// The last index appended, which names the next segment.
    last_index: u64,
    /// Segments from the one that the oldest needed snapshot is in; the last one is written to.
    held: VecDeque<Held>,
    /// Where in the last segment the buffer goes.
    offset: u64,
    /// Up to where the last segment was filled with zeros ahead of the records. It may be behind them.
    filled: u64,
    /// The checksum after the last record in the buffer.
    crc: u32,
    buf: Vec<u8>,
    poisoned: bool,
}

impl Wal {
    /// Makes a new log in `dir`, all or nothing: it is built as `<dir>.tmp` and renamed. `metadata` is
    /// repeated in each segment. What `dir` held is removed, unless it is a log.
    pub fn create(
        disk: Arc<dyn Disk>,
        dir: &Path,
        metadata: &[u8],
        options: Options,
    ) -> Result<Wal, WalError> {
        let at = |path: &Path| in_file(path.to_owned());
        if exists(disk.as_ref(), dir) {
            return Err(WalError::Exists(dir.into()));
        }
        let mut tmp = dir.as_os_str().to_owned();
        tmp.push(".tmp");
        let tmp = PathBuf::from(tmp);
        if disk.exists(&tmp) {
            disk.remove_dir_all(&tmp).map_err(at(&tmp))?;
        }
        disk.create_dir_all(&tmp).map_err(at(&tmp))?;
        let name = segment::name(0, 0);
        let file = segment::create(disk.as_ref(), &tmp.join(&name), options.segment_bytes)?;

        let (mut buf, mut crc) = (Vec::new(), 0);
        record::put_crc(&mut buf, crc);
        record::put_metadata(&mut buf, &mut crc, metadata);
        record::put_snapshot(&mut buf, &mut crc, &walpb::Snapshot::of(0, 0, None));
        file.write_at(&buf, 0).and_then(|()| file.sync()).map_err(at(&tmp.join(&name)))?;
        disk.sync_dir(&tmp).map_err(at(&tmp))?;

        if disk.exists(dir) {
            disk.remove_dir_all(dir).map_err(at(dir))?;
        }
        disk.rename(&tmp, dir).map_err(at(dir))?;
        let parent = dir.parent().filter(|up| !up.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        disk.sync_dir(parent).map_err(at(parent))?;

        let held = Held { name: SegmentName { seq: 0, index: 0, path: dir.join(name) }, file };
        Ok(Wal {
            disk,
            dir: dir.into(),
            options,
            metadata: Bytes::copy_from_slice(metadata),
            state: HardState::default(),
            last_index: 0,
            held: VecDeque::from([held]),
            offset: buf.len() as u64,
            filled: 0,
            crc,
            buf,
            poisoned: false,
        }
        .with_empty_buffer())
    }

    /// Opens the log at a snapshot that it has a note of ([`valid_snapshots`]), or at index 0, term 0, and reads
    /// what came after. A torn tail is cut off and flushed before this returns; anything else that cannot be
    /// read is an error, and nothing is changed.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        at: &walpb::Snapshot,
        options: Options,
    ) -> Result<(Wal, Recovered), WalError> {
        open::open(disk, dir, at, options)
    }

    /// Appends a batch: encodes it behind what waits in the buffer. It is on disk after [`Wal::flush`], and
    /// survives after [`Wal::sync`]. Where the segment is full, this writes, flushes and goes on to the next.
    pub fn append(&mut self, batch: &Batch) -> Result<(), WalError> {
        self.guard(|wal| {
            for entry in &batch.entries {
                record::put_entry(&mut wal.buf, &mut wal.crc, entry);
                wal.last_index = entry.index();
            }
            if let Some(state) = &batch.hard_state
                && !is_empty(state)
            {
                let state = HardState::of(state.term(), state.vote(), state.commit());
                record::put_state(&mut wal.buf, &mut wal.crc, &state);
                wal.state = state;
            }
            wal.after_append()
        })
    }

    /// Writes out what waits in the buffer, without making it durable.
    pub fn flush(&mut self) -> Result<(), WalError> {
        self.guard(Self::write_out)
    }

    /// Makes all that was appended durable: one write, one fdatasync.
    pub fn sync(&mut self) -> Result<(), WalError> {
        self.guard(|wal| {
            wal.write_out()?;
            wal.sync_tail()
        })
    }

    /// Notes, durably, that a snapshot at this index exists. The snapshot itself must be durable by then.
    pub fn save_snapshot(
        &mut self,
        index: u64,
        term: u64,
        conf_state: &ConfState,
    ) -> Result<(), WalError> {
        if index == 0 {
            return Err(WalError::Invalid("a snapshot of nothing"));
        }
        self.guard(|wal| {
            let note = walpb::Snapshot::of(index, term, Some(conf_state.clone()));
            record::put_snapshot(&mut wal.buf, &mut wal.crc, &note);
            wal.last_index = wal.last_index.max(index);
            wal.write_out()?;
            wal.sync_tail()
        })
    }

    /// Lets go of the segments that lie wholly before `index`, the oldest snapshot that may still be
    /// loaded. [`Wal::purge`] may remove them then. Returns how many were let go.
    pub fn release_to(&mut self, index: u64) -> usize {
        let needed = self.held.iter().rposition(|h| h.name.index <= index).unwrap_or(0);
        self.held.drain(..needed).count()
    }

    /// Removes the oldest segments until `max` are left, those that are held excepted; 0 keeps all. Each
    /// removal is made durable before the next, so that no gap can open. Returns what was removed.
    pub fn purge(&mut self, max: usize) -> Result<Vec<PathBuf>, WalError> {
        let mut removed = Vec::new();
        if max == 0 {
            return Ok(removed);
        }
        let first_held = self.held.front().map_or(0, |h| h.name.seq);
        let found = segments(self.disk.as_ref(), &self.dir)?;
        let surplus = found.len().saturating_sub(max);
        for old in found.into_iter().take(surplus).take_while(|s| s.seq < first_held) {
            self.disk.remove(&old.path).map_err(in_file(old.path.clone()))?;
            self.disk.sync_dir(&self.dir).map_err(in_file(self.dir.clone()))?;
            removed.push(old.path);
        }
        Ok(removed)
    }

    /// What was given to [`Wal::create`].
    pub fn metadata(&self) -> &Bytes {
        &self.metadata
    }

    /// Index of the last entry appended, or of a snapshot beyond it.
    pub fn last_index(&self) -> u64 {
        self.last_index
    }

    /// Bytes in the segment that is written to, the buffer included.
    pub fn tail_bytes(&self) -> u64 {
        self.offset + self.buf.len() as u64
    }

    /// Sequence number of the segment that is written to.
    pub fn tail_seq(&self) -> u64 {
        self.tail().name.seq
    }

    /// Makes all durable. Merely dropped, a log loses what was not synced.
    pub fn close(mut self) -> Result<(), WalError> {
        self.sync()
    }

    /// Runs a step that writes: never after one has failed.
    fn guard(
        &mut self,
        step: impl FnOnce(&mut Self) -> Result<(), WalError>,
    ) -> Result<(), WalError> {
        if self.poisoned {
            return Err(WalError::Poisoned);
        }
        // Set first: a step that panics half way leaves it so.
        self.poisoned = true;
        let result = step(self);
        self.poisoned = result.is_err();
        result
    }

    fn after_append(&mut self) -> Result<(), WalError> {
        if self.tail_bytes() >= self.options.segment_bytes {
            self.roll()
        } else if self.buf.len() >= BUFFER {
            self.write_out()
        } else {
            Ok(())
        }
    }

    fn write_out(&mut self) -> Result<(), WalError> {
        if self.buf.is_empty() {
            return Ok(());
        }
        let end = self.tail_bytes();
        let zeros = self.zeros_along(end);
        let Held { name, file } = self.tail();
        let write = || {
            let whole = self.buf.len().saturating_sub(end as usize % PAGE);
            let (pages, last) = self.buf.split_at(whole);
            for (bytes, at) in [(pages, self.offset), (last, self.offset + whole as u64)] {
                if !bytes.is_empty() {
                    file.write_at(bytes, at)?;
                }
            }
            zeros.map_or(Ok(()), |to| segment::zero(file.as_ref(), end, to))
        };
        write().map_err(in_file(name.path.clone()))?;
        self.filled = zeros.unwrap_or(self.filled);
        self.offset = end;
        self.buf.clear();
        // One large batch must not hold its memory for good.
        self.buf.shrink_to(2 * BUFFER);
        Ok(())
    }

    /// Up to where zeros go along with the records in the buffer, which end at `end`: see [`Options::fill`].
    fn zeros_along(&self, end: u64) -> Option<u64> {
        if self.options.fill == 0 || end <= self.filled || self.buf.len() > SMALL_WRITE {
            return None;
        }
        // Not beyond what was allocated: zeros must not fail for want of room that records still find.
        let to = end.next_multiple_of(self.options.fill).min(self.options.segment_bytes);
        (to > end).then_some(to)
    }

    fn sync_tail(&mut self) -> Result<(), WalError> {
        let Held { name, file } = self.tail();
        file.sync().map_err(in_file(name.path.clone()))
    }

    /// Goes on to the next segment. The order is what makes it safe: the old one is durable before the new
    /// one can be seen, and the new one's head is durable before it gets its name.
    fn roll(&mut self) -> Result<(), WalError> {
        self.write_out()?;
        let Held { name, file } = self.tail();
        let path = name.path.clone();
        let seq = name.seq + 1;
        if file.len().map_err(in_file(path.clone()))? > self.offset {
            file.set_len(self.offset).map_err(in_file(path))?;
        }
        self.sync_tail()?;

        let tmp = self.dir.join(segment::NEXT);
        let file = segment::create(self.disk.as_ref(), &tmp, self.options.segment_bytes)?;
        record::put_crc(&mut self.buf, self.crc);
        record::put_metadata(&mut self.buf, &mut self.crc, &self.metadata);
        if !is_empty(&self.state) {
            record::put_state(&mut self.buf, &mut self.crc, &self.state);
        }
        file.write_at(&self.buf, 0).and_then(|()| file.sync()).map_err(in_file(tmp.clone()))?;
        let index = self.last_index + 1;
        let path = self.dir.join(segment::name(seq, index));
        self.disk.rename(&tmp, &path).map_err(in_file(path.clone()))?;
        if !mutants::on(Mutant::I6368) {
            self.disk.sync_dir(&self.dir).map_err(in_file(self.dir.clone()))?;
        }

        self.offset = self.buf.len() as u64;
        self.filled = 0;
        self.buf.clear();
        self.held.push_back(Held { name: SegmentName { seq, index, path }, file });
        Ok(())
    }

    fn tail(&self) -> &Held {
        // A log always holds the segment that it writes to: release_to keeps the last one.
        &self.held[self.held.len() - 1]
    }

    fn with_empty_buffer(mut self) -> Self {
        self.buf.clear();
        self
    }
}

/// True if there is a log in this directory.
pub fn exists(disk: &dyn Disk, dir: &Path) -> bool {
    segments(disk, dir).is_ok_and(|s| !s.is_empty())
}

/// As raft means it: nothing was ever voted for, seen or committed.
fn is_empty(state: &HardState) -> bool {
    state.term() == 0 && state.vote() == 0 && state.commit() == 0
}

fn in_file(path: PathBuf) -> impl FnOnce(io::Error) -> WalError {
    move |error| WalError::Io { path, error }
}
