//! What the world owes the node after a turn. Plain data: who writes it, sends it and logs it is the
//! driver's matter.

use etch_api::Error;
use etch_disk::backend::Batch;
use etch_state::Reply;
use etch_state::members::Member;
use etch_state::version::Version;
use raft::eraftpb::{ConfState, Entry, HardState};

/// One write to the WAL. Writes are made in the order in which they were handed out; the flush of one
/// covers all before it.
#[derive(Debug, Default)]
pub struct LogWrite {
    /// Raft's number for it, given back in `Node::log_written`. 0 if raft does not wait for it.
    pub number: u64,
    /// Entries to append; where they begin at an index that is there already they replace the old tail.
    pub entries: Vec<Entry>,
    /// The hard state that goes behind them.
    pub hard_state: Option<HardState>,
    /// A raft snapshot that is on disk: its record goes into the log, and what lies before may go.
    pub snapshot: Option<(u64, u64, ConfState)>,
}

impl LogWrite {
    /// The commit index that is durable once this write is.
    pub fn commit(&self) -> Option<u64> {
        self.hard_state.as_ref().map(|h| h.commit)
    }

    /// Bytes of the entries' data.
    pub fn bytes(&self) -> usize {
        self.entries.iter().map(|e| e.data.len()).sum()
    }
}

/// One commit of the B+tree: changes, with the applied index that they go up to. One at a time.
#[derive(Debug)]
pub struct Commit {
    /// The changes.
    pub batch: Batch,
    /// The store's revision that they go up to.
    pub revision: i64,
    /// The applied index that they go up to.
    pub index: u64,
    /// A raft snapshot to save once the commit is durable.
    pub snapshot: Option<SaveSnapshot>,
}

/// A raft snapshot: where the log may begin, and who the members are there. The data is the B+tree.
#[derive(Clone, Debug)]
pub struct SaveSnapshot {
    /// The index that it stands at.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// Raft's configuration there.
    pub conf_state: ConfState,
    /// The members there.
    pub members: Vec<Member>,
    /// The cluster version there.
    pub version: Option<Version>,
}

/// Something that people may want to read in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Leadership changed: the new leader (0: none) and the term.
    Leader(u64, u64),
    /// A member published itself.
    Published,
    /// The cluster version was set.
    ClusterVersion(Version),
    /// A configuration change was applied, or refused and why.
    ConfChange(Option<Error>),
    /// This member was removed from the cluster.
    Removed,
    /// The quota is spent; the alarm is being raised.
    QuotaExceeded,
    /// A compaction to this revision is complete.
    Compacted(i64),
}

/// What one turn yields. Reused from turn to turn: the driver drains it.
#[derive(Debug)]
pub struct Output<T> {
    /// Writes for the WAL, in order.
    pub log: Vec<LogWrite>,
    /// Answers.
    pub replies: Vec<(T, Result<Reply, Error>)>,
    /// A commit for the B+tree.
    pub commit: Option<Commit>,
    /// What happened.
    pub notes: Vec<Note>,
}

impl<T> Default for Output<T> {
    fn default() -> Self {
        Self { log: Vec::new(), replies: Vec::new(), commit: None, notes: Vec::new() }
    }
}
