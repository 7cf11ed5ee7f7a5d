//! From a data directory to a member's parts: which files are there, what they hold, and whether they
//! belong together. Nothing is changed before everything has been found in order, but for a torn tail of
//! the WAL. Not here: the formats (`etch_disk`), and what the tables mean (`etch_state`).

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use etch_api::pb::etcdserverpb::Metadata;
use etch_api::pb::raftpb::{self, ConfChange, ConfChangeType, EntryType};
use etch_api::pb::walpb;
use etch_disk::backend::{self, Backend, Bolt};
use etch_disk::fs::Disk;
use etch_disk::wal::{self, Torn, Wal, WalError};
use etch_state::members::{Member, cluster_id};
use etch_state::{State, StateConfig};
use prost::Message as _;
use raft::eraftpb::{ConfState, HardState};

use crate::convert::entry_to_raft;
use crate::log::Log;

/// Where the files are, and what to do where there are none.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// `DATA/member/wal`, or `--wal-dir`.
    pub wal_dir: PathBuf,
    /// `DATA/member/snap`.
    pub snap_dir: PathBuf,
    /// The member that a new directory is made for.
    pub new_member: Member,
    /// The others of a new cluster of several.
    pub others: Vec<Member>,
    /// The name and the peer URLs that were asked for, if both were: an old directory of somebody else's is
    /// refused then.
    pub claimed: Option<(String, Vec<String>)>,
    /// May a new directory be made?
    pub may_create: bool,
    /// Make this member the only one of a new cluster with the old data (`--force-new-cluster`).
    pub force_new_cluster: bool,
    /// How the WAL is written.
    pub wal: wal::Options,
    /// How the B+tree is written.
    pub backend: backend::Options,
    /// What the state is told.
    pub state: StateConfig,
}

/// Who a directory belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The member.
    pub member: u64,
    /// Its cluster.
    pub cluster: u64,
}

/// A member's parts as its files left them.
pub struct Recovered {
    /// Who we are.
    pub identity: Identity,
    /// What the node starts with.
    pub member: MemberParts,
    /// The WAL, open for writing.
    pub wal: Wal,
    /// The B+tree.
    pub backend: Arc<Bolt>,
    /// True if the directory was made just now.
    pub is_new: bool,
    /// A tail of the WAL that was cut off.
    pub torn: Option<Torn>,
}

/// What the node starts with.
pub struct MemberParts {
    /// The replicated state, as the B+tree holds it.
    pub state: State,
    /// The log behind the newest raft snapshot.
    pub(crate) log: Log,
    /// Raft's configuration at the applied index.
    pub(crate) conf_state: ConfState,
    /// The newest raft snapshot.
    pub snapshot_index: u64,
    /// The commit index that the WAL records.
    pub(crate) durable_commit: u64,
}

/// Why a directory cannot be served.
#[derive(Debug)]
pub enum RecoverError {
    /// The WAL.
    Wal(WalError),
    /// A file or a directory.
    Io(PathBuf, io::Error),
    /// The parts do not belong together, or are nothing for us.
    Refused(String),
}

impl fmt::Display for RecoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wal(error) => write!(f, "{error}"),
            Self::Io(path, error) => {
                let (path, why) = (path.display().to_string(), error.to_string());
                // The database names its file itself.
                if why.starts_with(&path) { f.write_str(&why) } else { write!(f, "{path}: {why}") }
            }
            Self::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for RecoverError {}

impl From<WalError> for RecoverError {
    fn from(error: WalError) -> Self {
        Self::Wal(error)
    }
}

impl Recovery {
    /// Opens the directory, or makes it.
    pub fn open(&self, disk: &Arc<dyn Disk>) -> Result<Recovered, RecoverError> {
        let exists = wal::exists(disk.as_ref(), &self.wal_dir);
        if !exists && !self.may_create {
            return Err(RecoverError::Refused(
                "cannot join an existing cluster: this release serves a cluster of one member"
                    .into(),
            ));
        }
        if exists && !disk.exists(&self.db()) {
            self.check_database_may_be_gone(disk.as_ref())?;
        }
        self.prepare_snap_dir(disk.as_ref())?;
        let backend = self.open_backend(disk)?;
        let state = State::open(Arc::clone(&backend) as Arc<dyn Backend>, &self.state)
            .map_err(|e| RecoverError::Io(self.db(), e))?;
        if exists && !(state.index() == 0 && self.may_create && self.is_blank(disk.as_ref())?) {
            self.reopen(disk, backend, state)
        } else {
            self.create(disk, backend, state)
        }
    }

    /// A first start that was cut short before its first entry was durable: the log knows nothing, not even
    /// who is in the cluster, and would wait for a leader for ever. It is made anew.
    fn is_blank(&self, disk: &dyn Disk) -> Result<bool, RecoverError> {
        let found = wal::read(disk, &self.wal_dir, &walpb::Snapshot::of(0, 0, None));
        match found {
            Ok(log) => Ok(log.entries.is_empty() && log.hard_state.term() == 0),
            // It begins later, so there is much in it.
            Err(WalError::NotFound { .. } | WalError::SnapshotNotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// A WAL that begins at its first entry makes the B+tree anew; one that has been cut cannot.
    fn check_database_may_be_gone(&self, disk: &dyn Disk) -> Result<(), RecoverError> {
        let newest = wal::valid_snapshots(disk, &self.wal_dir)?.pop();
        match newest.map_or(0, |s| s.index()) {
            0 => Ok(()),
            index => Err(RecoverError::Refused(format!(
                "failed to find database snapshot file (snap: snapshot file doesn't exist): {} is gone, \
                 and the WAL in {} goes back to index {index} only",
                self.db().display(),
                self.wal_dir.display()
            ))),
        }
    }

    /// Nobody in the table has the name or the URLs that were asked for: somebody else's directory.
    fn check_claim(&self, state: &State) -> Result<(), RecoverError> {
        let Some((name, urls)) = &self.claimed else { return Ok(()) };
        let members = state.members();
        let ours = |m: &Member| m.name == *name || m.peer_urls.iter().any(|u| urls.contains(u));
        if members.is_empty() || members.iter().any(ours) {
            return Ok(());
        }
        let known: Vec<&str> = members.iter().map(|m| m.name.as_str()).collect();
        Err(RecoverError::Refused(format!(
            "{} belongs to a cluster of other members ({}), none of which has the name {name:?} or one \
             of the peer URLs that were asked for",
            self.db().display(),
            known.join(", ")
        )))
    }

    fn db(&self) -> PathBuf {
        self.snap_dir.join("db")
    }

    /// Makes the directory and removes what an interrupted write has left there.
    fn prepare_snap_dir(&self, disk: &dyn Disk) -> Result<(), RecoverError> {
        let at = |e| RecoverError::Io(self.snap_dir.clone(), e);
        disk.create_dir_all(&self.snap_dir).map_err(at)?;
        for name in disk.list(&self.snap_dir).map_err(at)? {
            if name.starts_with("tmp") {
                disk.remove(&self.snap_dir.join(&name)).map_err(at)?;
            }
        }
        Ok(())
    }

    fn open_backend(&self, disk: &Arc<dyn Disk>) -> Result<Arc<Bolt>, RecoverError> {
        Bolt::open(Arc::clone(disk), &self.db(), self.backend.clone())
            .map_err(|e| RecoverError::Io(self.db(), e))
    }

    /// A new member of a new cluster: the additions of its members are the log's first entries, by id.
    fn create(
        &self,
        disk: &Arc<dyn Disk>,
        backend: Arc<Bolt>,
        state: State,
    ) -> Result<Recovered, RecoverError> {
        if state.index() > 0 {
            return Err(RecoverError::Refused(format!(
                "{} holds entries up to {}, but there is no WAL in {}",
                self.db().display(),
                state.index(),
                self.wal_dir.display()
            )));
        }
        let mut founders = self.others.clone();
        founders.push(self.new_member.clone());
        founders.sort_by_key(|m| m.id);
        let identity = Identity { member: self.new_member.id, cluster: cluster_id(&founders) };
        let metadata = Metadata::of(identity.member, identity.cluster).encode_to_vec();
        let added = |(member, index): (&Member, u64)| {
            let kind = ConfChangeType::ConfChangeAddNode;
            let change = ConfChange::of(0, kind, member.id, member.to_json()).encode_to_vec();
            raftpb::Entry::typed(EntryType::EntryConfChange, 1, index, Bytes::from(change))
        };
        let first: Vec<raftpb::Entry> = founders.iter().zip(1..).map(added).collect();
        let commit = first.len() as u64;
        let batch = wal::Batch {
            entries: first.clone(),
            hard_state: Some(raftpb::HardState::of(1, 0, commit)),
        };
        if wal::exists(disk.as_ref(), &self.wal_dir) {
            // Blank, or we would not be here.
            let at = |e| RecoverError::Io(self.wal_dir.clone(), e);
            disk.remove_dir_all(&self.wal_dir).map_err(at)?;
        }
        let mut wal = Wal::create(Arc::clone(disk), &self.wal_dir, &metadata, self.wal)?;
        wal.append(&batch)?;
        wal.sync()?;
        self.sync_new_directories(disk.as_ref())?;
        let hard_state = HardState { term: 1, commit, ..HardState::default() };
        let entries = first.iter().map(entry_to_raft).collect();
        let log = Log::new(0, 0, entries, hard_state, ConfState::default());
        let conf_state = ConfState::default();
        let member =
            MemberParts { state, log, conf_state, snapshot_index: 0, durable_commit: commit };
        Ok(Recovered { identity, member, wal, backend, is_new: true, torn: None })
    }

    /// New directories are as durable as their names: every one that may be new is flushed, from the files'
    /// own up to the one that the data directory stands in. So it is at each start: who was killed while making
    /// them may have left names that only the kernel holds.
    fn sync_new_directories(&self, disk: &dyn Disk) -> Result<(), RecoverError> {
        for dir in self.snap_dir.ancestors().take(4).chain(self.wal_dir.ancestors().skip(1).take(3))
        {
            let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
            disk.sync_dir(dir).map_err(|e| RecoverError::Io(dir.into(), e))?;
        }
        Ok(())
    }

    /// A member that has been here before.
    fn reopen(
        &self,
        disk: &Arc<dyn Disk>,
        backend: Arc<Bolt>,
        state: State,
    ) -> Result<Recovered, RecoverError> {
        if !self.force_new_cluster {
            self.check_claim(&state)?;
        }
        let newest = wal::valid_snapshots(disk.as_ref(), &self.wal_dir)?.pop();
        let at = newest.unwrap_or_else(|| walpb::Snapshot::of(0, 0, None));
        let (snapshot_index, snapshot_term) = (at.index(), at.term());
        if state.index() < snapshot_index {
            return Err(RecoverError::Refused(format!(
                "database file ({} index {}) does not match with snapshot (index {snapshot_index}): \
                 failed to find database snapshot file (snap: snapshot file doesn't exist)",
                self.db().display(),
                state.index(),
            )));
        }
        let (mut wal, found) = Wal::open(Arc::clone(disk), &self.wal_dir, &at, self.wal)?;
        self.sync_new_directories(disk.as_ref())?;
        let metadata = Metadata::decode(found.metadata.clone()).map_err(|e| {
            RecoverError::Refused(format!("the WAL's metadata cannot be read: {e}"))
        })?;
        let identity = Identity { member: metadata.node_id(), cluster: metadata.cluster_id() };
        let mut entries = found.entries;
        let mut hard_state = found.hard_state;
        let last = entries.last().map_or(snapshot_index, raftpb::Entry::index);
        if last < state.index() {
            return Err(RecoverError::Refused(format!(
                "{} holds entries up to {}, but the WAL in {} ends at {last}: files of two members, or a \
                 WAL that has lost its end",
                self.db().display(),
                state.index(),
                self.wal_dir.display()
            )));
        }
        let durable_commit = hard_state.commit();
        // The B+tree holds only what was committed, so its index is as good as a recorded commit.
        let mut commit = durable_commit.max(state.index()).max(snapshot_index);
        if self.force_new_cluster {
            let forced =
                self.force_alone(&state, identity.member, commit, &mut entries, &hard_state);
            commit = forced.last().map_or(commit, raftpb::Entry::index);
            hard_state = raftpb::HardState::of(hard_state.term(), hard_state.vote(), commit);
            wal.append(&wal::Batch { entries: forced, hard_state: Some(hard_state) })?;
            wal.sync()?;
        } else {
            self.check_membership(&state, identity.member)?;
        }
        let (voters, learners) = state.members().voters_and_learners();
        let conf_state = ConfState { voters, learners, ..ConfState::default() };
        let hard_state = HardState {
            term: hard_state.term().max(snapshot_term),
            vote: hard_state.vote(),
            commit,
            ..HardState::default()
        };
        let entries = entries.iter().map(entry_to_raft).collect();
        let log = Log::new(snapshot_index, snapshot_term, entries, hard_state, conf_state.clone());
        Ok(Recovered {
            identity,
            member: MemberParts { state, log, conf_state, snapshot_index, durable_commit },
            wal,
            backend,
            is_new: false,
            torn: found.torn,
        })
    }

    /// We must be in the member table. Voters beside us that have never started are in it after a
    /// MemberAdd: without them there is no majority, as in etcd. Those that have run hold data of their own.
    fn check_membership(&self, state: &State, us: u64) -> Result<(), RecoverError> {
        let members = state.members();
        if members.is_removed(us) {
            return Err(RecoverError::Refused(
                "the member has been permanently removed from the cluster".into(),
            ));
        }
        if !members.is_empty() && members.get(us).is_none() {
            return Err(RecoverError::Refused(format!(
                "{} does not know member {us:x}, whose WAL is in {}: files of two members",
                self.db().display(),
                self.wal_dir.display()
            )));
        }
        let others =
            members.iter().filter(|m| m.id != us && !m.is_learner && m.is_started()).count();
        if others > 0 && self.others.is_empty() {
            return Err(RecoverError::Refused(format!(
                "this member belongs to a cluster of {}; this release serves a cluster of one member \
                 (--force-new-cluster makes it the only one, with the data it has)",
                others + 1
            )));
        }
        Ok(())
    }

    /// Drops what was never committed, and appends the removal of everybody else, also of those whose
    /// addition is committed and not yet in the B+tree. Returns the entries that were appended.
    fn force_alone(
        &self,
        state: &State,
        us: u64,
        commit: u64,
        entries: &mut Vec<raftpb::Entry>,
        hard_state: &raftpb::HardState,
    ) -> Vec<raftpb::Entry> {
        entries.retain(|e| e.index() <= commit);
        let mut others: BTreeSet<u64> = state.members().iter().map(|m| m.id).collect();
        for change in entries.iter().filter(|e| e.index() > state.index()).filter_map(conf_change) {
            match change.r#type() {
                ConfChangeType::ConfChangeRemoveNode => others.remove(&change.node_id()),
                _ => others.insert(change.node_id()),
            };
        }
        others.remove(&us);
        let term = hard_state.term();
        let mut index = commit;
        let mut appended = Vec::new();
        for other in others {
            index += 1;
            let change =
                ConfChange::of(0, ConfChangeType::ConfChangeRemoveNode, other, Bytes::new());
            let data = Bytes::from(change.encode_to_vec());
            appended.push(raftpb::Entry::typed(EntryType::EntryConfChange, term, index, data));
        }
        entries.extend(appended.iter().cloned());
        appended
    }
}

/// The configuration change that an entry is; none if it is another kind of entry, or broken, which apply
/// will say.
fn conf_change(entry: &raftpb::Entry) -> Option<ConfChange> {
    (entry.r#type() == EntryType::EntryConfChange)
        .then(|| ConfChange::decode(entry.data()).ok())
        .flatten()
}
