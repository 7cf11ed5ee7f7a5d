//! What other threads may know of the member without asking it: a few numbers, published as they change.
//! Not here: the store's revision (the store publishes it itself).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The member as seen from outside. Written by the node alone.
#[derive(Debug, Default)]
pub struct View {
    leader: AtomicU64,
    term: AtomicU64,
    committed: AtomicU64,
    applied: AtomicU64,
    applied_term: AtomicU64,
    leader_changes: AtomicU64,
    pending: AtomicU64,
    failed: AtomicU64,
    snapshot_index: AtomicU64,
    lone_leader: AtomicBool,
    stopped: AtomicBool,
}

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident, $set:ident;)*) => {
        $(
            $(#[$doc])*
            pub fn $name(&self) -> u64 {
                self.$name.load(Ordering::Acquire)
            }

            pub(crate) fn $set(&self, value: u64) {
                self.$name.store(value, Ordering::Release);
            }
        )*
    };
}

impl View {
    numbers! {
        /// The leader's id; 0 while there is none.
        leader, set_leader;
        /// Raft's term.
        term, set_term;
        /// The highest index known to be committed.
        committed, set_committed;
        /// The highest index applied and published.
        applied, set_applied;
        /// The term of the entry at that index.
        applied_term, set_applied_term;
        /// How often the leader has changed since the start.
        leader_changes, set_leader_changes;
        /// Proposals that somebody waits for.
        pending, set_pending;
        /// Proposals that have failed or run out of time since the start.
        failed, set_failed;
        /// The index of the newest raft snapshot.
        snapshot_index, set_snapshot_index;
    }

    /// True while we are leader and the only voter and have applied an entry of our own term. Whatever
    /// is published then holds every write that was ever acknowledged, so a read that starts now is
    /// linearizable as it is.
    pub fn is_lone_leader(&self) -> bool {
        self.lone_leader.load(Ordering::Acquire)
    }

    pub(crate) fn set_lone_leader(&self, value: bool) {
        self.lone_leader.store(value, Ordering::Release);
    }

    /// True once the node has stopped for good.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    pub(crate) fn set_stopped(&self) {
        self.stopped.store(true, Ordering::Release);
    }
}
