//! Between raft-rs's messages and etcd's: the same fields under two types. Bytes are shared, not copied.

use etch_api::pb::raftpb;
use raft::eraftpb;

/// An entry of raft's, as the WAL writes it.
pub fn entry_to_wal(entry: &eraftpb::Entry) -> raftpb::Entry {
    let kind = match entry.entry_type {
        eraftpb::EntryType::EntryNormal => {
            return raftpb::Entry::normal(entry.term, entry.index, entry.data.clone());
        }
        eraftpb::EntryType::EntryConfChange => raftpb::EntryType::EntryConfChange,
        eraftpb::EntryType::EntryConfChangeV2 => raftpb::EntryType::EntryConfChangeV2,
    };
    raftpb::Entry::typed(kind, entry.term, entry.index, entry.data.clone())
}

/// An entry from the WAL, as raft wants it.
pub fn entry_to_raft(entry: &raftpb::Entry) -> eraftpb::Entry {
    let entry_type = match entry.r#type() {
        raftpb::EntryType::EntryNormal => eraftpb::EntryType::EntryNormal,
        raftpb::EntryType::EntryConfChange => eraftpb::EntryType::EntryConfChange,
        raftpb::EntryType::EntryConfChangeV2 => eraftpb::EntryType::EntryConfChangeV2,
    };
    eraftpb::Entry {
        entry_type,
        term: entry.term(),
        index: entry.index(),
        data: entry.data.clone().unwrap_or_default(),
        ..eraftpb::Entry::default()
    }
}

/// Raft's hard state, as the WAL writes it.
pub fn hard_state_to_wal(state: &eraftpb::HardState) -> raftpb::HardState {
    raftpb::HardState::of(state.term, state.vote, state.commit)
}

/// Raft's configuration, as files hold it.
pub fn conf_state_to_wal(state: &eraftpb::ConfState) -> raftpb::ConfState {
    raftpb::ConfState::simple(state.voters.clone(), state.learners.clone())
}

/// A configuration change as a proposal. raft-rs looks into those, and numbers the kinds of changes otherwise
/// than etcd does, so that it is shown an empty one and carries ours beside it.
pub(crate) fn change_for_raft(change: Vec<u8>) -> eraftpb::Entry {
    let entry_type = eraftpb::EntryType::EntryConfChange;
    eraftpb::Entry { entry_type, context: change.into(), ..eraftpb::Entry::default() }
}

/// The same entry as it comes out of raft, made what etcd knows. Entries from the log are so already.
pub(crate) fn change_from_raft(entry: &mut eraftpb::Entry) {
    if entry.entry_type == eraftpb::EntryType::EntryConfChange && !entry.context.is_empty() {
        entry.data = std::mem::take(&mut entry.context);
    }
}
