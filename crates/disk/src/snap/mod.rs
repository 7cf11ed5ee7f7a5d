//! Raft's snapshot files.
