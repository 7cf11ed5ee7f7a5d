//! The raft log in memory: what raft-rs reads entries from. Bounded below by what followers may still
//! want and above by what has been proposed. Not here: the log on disk (`etch_disk::wal`).

use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};

/// The entries after the last compaction, with the hard state and the configuration of the start.
///
/// Entries enter here when raft hands them out, which is before they are durable: raft itself keeps track
/// of what is persisted, and commits nothing on our own vote before that.
pub struct Log {
    /// Entry `offset + 1 + i` lies at `i`.
    entries: VecDeque<Entry>,
    /// Index and term of the last entry that is gone.
    offset: u64,
    offset_term: u64,
    /// Data bytes of `entries`.
    bytes: usize,
    start: RaftState,
}

impl Log {
    /// A log that goes on after `offset`, with what the WAL held.
    pub fn new(
        offset: u64,
        offset_term: u64,
        entries: Vec<Entry>,
        hard_state: HardState,
        conf_state: ConfState,
    ) -> Self {
        let bytes = entries.iter().map(|e| e.data.len()).sum();
        let start = RaftState::new(hard_state, conf_state);
        Self { entries: entries.into(), offset, offset_term, bytes, start }
    }

    /// Appends what raft wants kept. Entries that replace older ones cut what follows them.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            first.index > self.offset && first.index <= self.last() + 1,
            "raft appends at {} to a log of {}..={}",
            first.index,
            self.offset + 1,
            self.last()
        );
        while self.last() >= first.index {
            let cut = self.entries.pop_back().expect("last() is above the offset");
            self.bytes -= cut.data.len();
        }
        for entry in entries {
            self.bytes += entry.data.len();
            self.entries.push_back(entry.clone());
        }
    }

    /// Forgets entries up to `index`, which must be applied.
    pub fn compact(&mut self, index: u64) {
        while self.offset < index {
            let Some(gone) = self.entries.pop_front() else { return };
            self.bytes -= gone.data.len();
            (self.offset, self.offset_term) = (gone.index, gone.term);
        }
    }

    /// The last entry's index.
    pub fn last(&self) -> u64 {
        self.offset + self.entries.len() as u64
    }

    /// Bytes of entries' data held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The term of an entry, if it is here or the last one gone.
    pub fn term_of(&self, index: u64) -> Option<u64> {
        if index == self.offset {
            return Some(self.offset_term);
        }
        let at = index.checked_sub(self.offset + 1)?;
        self.entries.get(usize::try_from(at).ok()?).map(|e| e.term)
    }
}

impl Storage for Log {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(self.start.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        if low <= self.offset {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let from = (low - self.offset - 1) as usize;
        let to = (high - self.offset - 1) as usize;
        let limit = max_size.into().unwrap_or(u64::MAX);
        let mut out = Vec::new();
        let mut size = 0;
        for entry in self.entries.range(from..to) {
            // An entry's own fields take at most this many bytes beside its data.
            size += entry.data.len() as u64 + 24;
            if size > limit && !out.is_empty() {
                break;
            }
            out.push(entry.clone());
        }
        Ok(out)
    }

    fn term(&self, index: u64) -> Result<u64> {
        let missing =
            if index < self.offset { StorageError::Compacted } else { StorageError::Unavailable };
        self.term_of(index).ok_or(Error::Store(missing))
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.offset + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last())
    }

    /// Raft asks for this when a follower needs what is gone. The file is streamed beside raft, never
    /// through it: until a snapshot has been made for that follower there is none.
    fn snapshot(&self, _request_index: u64, _to: u64) -> Result<Snapshot> {
        Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, data: vec![0; 10].into(), ..Entry::default() }
    }

    fn log() -> Log {
        let entries = vec![entry(6, 2), entry(7, 2), entry(8, 3)];
        Log::new(5, 1, entries, HardState::default(), ConfState::default())
    }

    fn read(log: &Log, low: u64, high: u64, max: u64) -> Vec<u64> {
        let context = GetEntriesContext::empty(false);
        log.entries(low, high, max, context).unwrap().iter().map(|e| e.index).collect()
    }

    #[test]
    fn reads_what_is_there_within_the_limit() {
        let log = log();
        assert_eq!((log.first_index().unwrap(), log.last_index().unwrap()), (6, 8));
        assert_eq!(read(&log, 6, 9, u64::MAX), [6, 7, 8]);
        assert_eq!(read(&log, 6, 9, 70), [6, 7]);
        assert_eq!(read(&log, 6, 9, 0), [6], "never less than one");
        assert_eq!((log.term(5).unwrap(), log.term(8).unwrap()), (1, 3));
        assert!(log.term(4).is_err() && log.term(9).is_err());
    }

    #[test]
    fn an_overlapping_append_cuts_the_old_tail() {
        let mut log = log();
        log.append(&[entry(7, 4)]);
        assert_eq!((log.last(), log.bytes()), (7, 20));
        assert_eq!(log.term(7).unwrap(), 4);
    }

    #[test]
    fn compaction_keeps_the_term_of_the_last_entry_gone() {
        let mut log = log();
        log.compact(7);
        assert_eq!((log.offset, log.term(7).unwrap(), log.bytes()), (7, 2, 10));
        let context = GetEntriesContext::empty(false);
        assert!(log.entries(7, 8, None, context).is_err());
    }
}
