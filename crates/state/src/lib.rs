//! The replicated machine: `apply` of one log entry after another, and what may be read beside it.
//!
//! Here: keys and their history (`mvcc`), transactions (`txn`), watches (`watch`), leases (`lease`),
//! users and permissions (`auth`), and the smaller tables. Not here: raft, files (they are `disk`'s), clocks, threads and sockets.

#![forbid(unsafe_code)]

pub mod alarm;
mod apply;
pub mod auth;
pub mod lease;
pub mod members;
pub mod mvcc;
pub mod offline;
pub mod quota;
mod state;
pub mod txn;
pub mod version;
pub mod watch;

pub use apply::{Done, Effect};
pub use quota::Quota;
pub use state::{State, StateConfig};
pub use txn::Reply;
