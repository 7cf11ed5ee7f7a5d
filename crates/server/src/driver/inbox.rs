//! What the node's thread is told, and by whom. One lock and at most one wake for a whole batch. Not here:
//! what it does with it (`node_thread`).

use std::mem;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use etch_api::Error;
use etch_api::internal::RequestKind;
use etch_api::pb::raftpb::ConfChangeType;
use etch_state::Reply;
use etch_state::auth::AuthInfo;
use tokio::sync::oneshot;

use super::clock::Clock;

/// The outcome of a call.
pub type Outcome = Result<Reply, Error>;

/// Where an outcome goes.
#[derive(Debug)]
pub enum Caller {
    /// A call that a net thread has kept, by its slot there.
    Net {
        /// Which net thread.
        thread: usize,
        /// Which of its calls.
        slot: usize,
    },
    /// A task that waits.
    Task(oneshot::Sender<Outcome>),
}

/// One thing that the node is told. It cannot be printed: bodies may hold hashes of passwords.
pub enum Command {
    /// A request for the log: its kind and the client's own bytes.
    Propose(RequestKind, Bytes, Caller),
    /// The same in a user's name.
    ProposeAs(AuthInfo, RequestKind, Bytes, Caller),
    /// A compaction whose caller waits until its work is done.
    ProposePhysical(Bytes, Caller),
    /// A change of the membership: what, whom, and the member as JSON.
    ProposeChange(ConfChangeType, u64, Bytes, Caller),
    /// Tell the caller when a read is linearizable.
    Read(Caller),
    /// Hand leadership to this voter.
    TransferLeader(u64, oneshot::Sender<Result<(), Error>>),
    /// The WAL is durable up to and with this write.
    LogWritten(u64),
    /// The B+tree holds this index and this revision.
    Committed {
        /// The applied index.
        index: u64,
        /// The store's revision.
        revision: i64,
    },
    /// Tell the caller when everything applied is in the B+tree.
    CommitAll(Caller),
    /// Commit everything, then answer and end.
    Stop,
}

#[derive(Default)]
struct Inner {
    commands: Vec<Command>,
    /// Until when the node's thread sleeps, if it does.
    sleeps_until: Option<u64>,
}

/// The node's inbox. Bounded by the node, which refuses proposals beyond its limit, and by the number of
/// calls that connections may have under way.
#[derive(Default)]
pub struct Inbox {
    inner: Mutex<Inner>,
    filled: Condvar,
}

impl Inbox {
    /// Adds one command.
    pub fn push(&self, command: Command) {
        self.extend(&mut vec![command]);
    }

    /// Adds a batch; `commands` is left empty, with its room.
    pub fn extend(&self, commands: &mut Vec<Command>) {
        if commands.is_empty() {
            return;
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.commands.append(commands);
        if inner.sleeps_until.take().is_some() {
            drop(inner);
            self.filled.notify_one();
        }
    }

    /// Moves what is there to `out`, which must be empty; sleeps until the time `until`, or until it is woken, if
    /// nothing is.
    pub fn take(&self, out: &mut Vec<Command>, until: u64, clock: Clock) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let patience = Duration::from_millis(until.saturating_sub(clock.now_ms()));
        if inner.commands.is_empty() && !patience.is_zero() {
            inner.sleeps_until = Some(until);
            let waited = self.filled.wait_timeout(inner, patience);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
            inner.sleeps_until = None;
        }
        mem::swap(&mut inner.commands, out);
    }

    /// Whether the node's thread sleeps and has nothing to wake for.
    pub fn is_at_rest(&self) -> bool {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.sleeps_until.is_some() && inner.commands.is_empty()
    }

    /// Sees to it that the node's thread does not sleep beyond the time `at`.
    pub fn wake_by(&self, at: u64) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.sleeps_until.take_if(|until| *until > at).is_some() {
            drop(inner);
            self.filled.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_wakes_the_sleeper_and_arrives_in_order() {
        let (inbox, clock) = (Inbox::default(), Clock::start());
        std::thread::scope(|threads| {
            let reader = threads.spawn(|| {
                let mut out = Vec::new();
                while out.is_empty() {
                    inbox.take(&mut out, clock.now_ms() + 60_000, clock);
                }
                out.len()
            });
            inbox.extend(&mut vec![Command::LogWritten(1), Command::LogWritten(2)]);
            assert_eq!(reader.join().unwrap(), 2);
        });
        let mut out = Vec::new();
        inbox.take(&mut out, 0, clock);
        assert!(out.is_empty());
    }
}
