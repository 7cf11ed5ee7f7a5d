//! The threads behind the requests: the node's, the WAL's and the B+tree's, and what passes between them.
//! Not here: decisions (`etch_node`), and connections (`net`).

pub mod auto_compact;
pub mod backend_thread;
pub mod clock;
pub mod helm;
pub mod inbox;
pub mod mailbox;
pub mod node_thread;
pub mod notes;
pub mod wal_thread;
