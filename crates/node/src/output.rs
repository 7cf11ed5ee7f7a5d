//! What the world owes the node after a turn. Plain data: who writes it, sends it and logs it is the
//! driver's matter.

use etch_api::Error;
use etch_api::internal::RequestKind;
use etch_api::pb::raftpb::{ConfChangeType, ConfState};
use etch_disk::backend::Batch;
use etch_disk::wal;
use etch_state::Reply;
use etch_state::members::Member;
use etch_state::version::Version;
use raft::eraftpb::Message;

/// One write to the WAL. Writes are made in the order in which they were handed out; the flush of one
/// covers all before it.
#[derive(Debug, Default)]
pub struct LogWrite {
    /// Its number, given back in `Node::log_written` once it is durable.
    pub sequence: u64,
    /// Entries and hard state.
    pub batch: wal::Batch,
    /// A raft snapshot that is on disk, by index and term: its record goes into the log, and what lies
    /// before it may go.
    pub snapshot: Option<(u64, u64, ConfState)>,
}

impl LogWrite {
    /// Bytes of the entries.
    pub fn bytes(&self) -> usize {
        self.batch.entries.iter().map(|e| e.data().len()).sum()
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
    /// The members that were removed by then.
    pub removed: Vec<u64>,
    /// The cluster version there.
    pub version: Option<Version>,
}

/// Something that people may want to read in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Leadership changed: the new leader (0: none) and the term.
    Leader(u64, u64),
    /// The cluster version was set.
    ClusterVersion(Version),
    /// A configuration change was applied, or refused and why: what, and whom it concerns.
    ConfChange(ConfChangeType, u64, Option<Error>),
    /// This member was removed from the cluster.
    Removed,
    /// The quota is spent; the alarm is being raised.
    QuotaExceeded,
    /// A raft snapshot at this index is on disk.
    SnapshotSaved(u64),
    /// A compaction goes on without its hash, since the file cannot be read.
    CompactionHashLost(String),
    /// A compaction to this revision is complete.
    Compacted(i64),
    /// A step of a compaction was made in this turn; true for one in the index.
    CompactionStep(bool),
}

/// What one turn yields. Reused from turn to turn: the driver drains it.
#[derive(Debug)]
pub struct Output<T> {
    /// Writes for the WAL, in order.
    pub log: Vec<LogWrite>,
    /// Messages for other members, each by its `to`.
    pub messages: Vec<Message>,
    /// Answers.
    pub replies: Vec<(T, Result<Reply, Error>)>,
    /// A commit for the B+tree.
    pub commit: Option<Commit>,
    /// How many requests of a kind were applied, and whether with success.
    pub applied: Vec<(RequestKind, bool, u64)>,
    /// What happened.
    pub notes: Vec<Note>,
}

impl<T> Default for Output<T> {
    fn default() -> Self {
        Self {
            log: Vec::new(),
            messages: Vec::new(),
            replies: Vec::new(),
            commit: None,
            applied: Vec::new(),
            notes: Vec::new(),
        }
    }
}
