//! The node's own thread: sleeps until it is told something or time is up, and takes the node's turn. Not here: the
//! turn (`helm`).

use std::sync::Arc;

use super::clock::Clock;
use super::helm::{SharedHelm, Turned};
use super::inbox::Inbox;

/// What the thread works with.
pub struct NodeThread {
    /// The member, and what its turns need.
    pub helm: Arc<SharedHelm>,
    /// What it is told.
    pub inbox: Arc<Inbox>,
    /// The process's clock.
    pub clock: Clock,
}

impl NodeThread {
    /// Runs until it is told to stop and everything applied is in the B+tree.
    pub fn run(self) {
        let mut commands = Vec::new();
        let mut until = 0;
        loop {
            self.inbox.take(&mut commands, until, self.clock);
            match self.helm.turn(&mut commands) {
                Turned::Wrote => until = 0,
                Turned::Rests(at) => until = at,
                Turned::Over => return,
            }
        }
    }
}
