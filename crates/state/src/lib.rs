//! The replicated machine: `apply` of one log entry after another, and what may be read beside it.
//!
//! Here: keys and their history (`mvcc`), transactions (`txn`), watches (`watch`), leases (`lease`),
//! and the smaller tables. Not here: raft, files (they are `disk`'s), clocks, threads and sockets.

#![forbid(unsafe_code)]

pub mod mvcc;
pub mod watch;
