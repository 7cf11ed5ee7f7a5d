//! The log as it truly came about: each entry as the first member applied it, checked against what every other
//! member applies and against what files hold after a crash. Not here: what the entries say (`judge`).

use std::collections::BTreeMap;

use bytes::Bytes;
use etch_api::pb::raftpb::{self, EntryType};

use crate::history::LogEntry;

/// An entry as a member's files have it, or should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub term: u64,
    pub is_change: bool,
    pub data: Bytes,
}

impl Entry {
    fn of(entry: &raftpb::Entry) -> Self {
        Self {
            term: entry.term(),
            is_change: entry.r#type() != EntryType::EntryNormal,
            data: entry.data.clone().unwrap_or_default(),
        }
    }
}

/// The entries that one member has handed to its log.
#[derive(Debug, Default)]
pub struct Handed(BTreeMap<u64, Entry>);

impl Handed {
    /// Entries that a write holds: they replace what was there from the first one on.
    pub fn append(&mut self, entries: &[raftpb::Entry]) {
        if let Some(first) = entries.first() {
            self.0.split_off(&first.index());
        }
        self.0.extend(entries.iter().map(|e| (e.index(), Entry::of(e))));
    }

    /// What the files hold after a restart, from `first` on.
    pub fn replace(&mut self, first: u64, entries: &[raftpb::Entry]) {
        self.0.split_off(&first);
        self.append(entries);
    }

    pub fn get(&self, index: u64) -> Option<&Entry> {
        self.0.get(&index)
    }
}

/// The committed log.
#[derive(Debug, Default)]
pub struct Record {
    entries: Vec<(Entry, u64)>,
}

impl Record {
    /// The last index.
    pub fn last(&self) -> u64 {
        self.entries.len() as u64
    }

    /// A member has applied this entry.
    pub fn applied(&mut self, index: u64, entry: &Entry, now: u64) -> Result<(), String> {
        let at = index as usize - 1;
        match self.entries.get(at) {
            Some((ours, _)) if ours == entry => Ok(()),
            Some((ours, _)) => Err(format!(
                "entry {index} was applied as one of term {} and now as one of term {}{}",
                ours.term,
                entry.term,
                if ours.term == entry.term { " with other content" } else { "" }
            )),
            None if at == self.entries.len() => {
                self.entries.push((entry.clone(), now));
                Ok(())
            }
            None => Err(format!("entry {index} is applied after entry {}", self.last())),
        }
    }

    /// Whether a member that starts again still has what it must have: everything applied up to `to`.
    pub fn check(&self, handed: &Handed, from: u64, to: u64) -> Result<(), String> {
        for index in from..=to.min(self.last()) {
            let (ours, _) = &self.entries[index as usize - 1];
            match handed.get(index) {
                Some(entry) if entry == ours => {}
                Some(_) => return Err(format!("entry {index} was committed and is another now")),
                None => return Err(format!("entry {index} was committed and is gone")),
            }
        }
        Ok(())
    }

    /// The log as the judges read it.
    pub fn take_log(&mut self) -> Vec<LogEntry> {
        let entries = std::mem::take(&mut self.entries).into_iter().zip(1..);
        entries
            .filter(|((entry, _), _)| !entry.is_change)
            .map(|((entry, at), index)| LogEntry {
                index,
                term: entry.term,
                applied_ns: Some(at),
                data: entry.data,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(term: u64) -> Entry {
        Entry { term, is_change: false, data: Bytes::new() }
    }

    #[test]
    fn what_two_members_apply_must_agree() {
        let mut record = Record::default();
        record.applied(1, &entry(1), 5).unwrap();
        record.applied(1, &entry(1), 6).unwrap();
        assert!(record.applied(1, &entry(2), 7).is_err());
        assert!(record.applied(3, &entry(2), 7).is_err(), "a gap");
        assert_eq!(record.take_log()[0].applied_ns, Some(5));
    }

    #[test]
    fn what_was_committed_must_be_in_the_files() {
        let mut record = Record::default();
        record.applied(1, &entry(1), 5).unwrap();
        record.applied(2, &entry(1), 5).unwrap();
        let mut handed = Handed::default();
        handed.append(&[raftpb::Entry::normal(1, 1, Bytes::new())]);
        assert!(record.check(&handed, 1, 2).is_err());
        handed.append(&[raftpb::Entry::normal(1, 2, Bytes::new())]);
        assert!(record.check(&handed, 1, 2).is_ok());
        handed.replace(2, &[raftpb::Entry::normal(2, 2, Bytes::new())]);
        assert!(record.check(&handed, 1, 2).is_err());
    }
}
