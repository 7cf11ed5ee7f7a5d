//! One member: the loop that joins raft, the files and the replicated state. A plain value: inputs are
//! calls, outputs are what [`Node::turn`] hands back, and both the server and a simulated world drive it.
//!
//! Not here: threads, clocks, sockets, randomness; what requests mean (`etch_state`); files
//! (`etch_disk`).

#![forbid(unsafe_code)]

mod convert;
mod log;
mod logger;
mod node;
mod output;
mod pending;
mod reads;
mod recover;
mod turn;
mod upkeep;
mod view;

#[cfg(test)]
mod tests;

pub use node::{Config, Node};
pub use output::{Commit, LogWrite, Note, Output, SaveSnapshot};
pub use raft::eraftpb::{Message, MessageType};
pub use recover::{Identity, MemberParts, RecoverError, Recovered, Recovery};
pub use view::View;
