//! The node with all that its turns need: whoever holds it lets the node take a turn, and hands on what the world
//! owes. That is the node's thread (`node_thread`), or, where nobody else is kept waiting, the net thread that
//! brings a request (`net`). Not here: every decision, and when it is whose turn.

use std::mem;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, TryLockError};
use std::time::{Duration, Instant};

use etch_api::internal::Header;
use etch_node::{Commit, LogWrite, Node, Note, Output};

use super::clock::{Clock, unix_ms};
use super::inbox::{Caller, Command, Inbox, Outcome};
use super::mailbox::Mailbox;
use super::notes;
use super::wal_thread::SharedWriter;
use crate::logging::Logger;
use crate::metrics::{Metrics, Op};

/// A write with no more than this is made by whoever has the turn, if there is none before it: to wake a thread for
/// it, and to be woken by that, costs more than goes undone meanwhile.
const OWN_WRITE_BYTES: usize = 16 << 10;

/// What turns work with.
pub struct Helm {
    /// The member.
    pub node: Node<Caller>,
    /// The net threads.
    pub mailboxes: Vec<Arc<Mailbox>>,
    /// The log.
    pub writer: SharedWriter,
    /// To the WAL's thread.
    pub wal: Sender<LogWrite>,
    /// To the B+tree's thread.
    pub backend: Sender<Commit>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The process's clock.
    pub clock: Clock,
    /// The log.
    pub log: Logger,
    /// What turns leave behind for the next.
    pub kept: Kept,
}

/// What turns leave behind for the next.
#[derive(Default)]
pub struct Kept {
    out: Output<Caller>,
    /// Outcomes for each net thread.
    batches: Vec<Vec<(usize, Outcome)>>,
    /// When the compaction under way made its first step.
    compacting: Option<Instant>,
    /// How long writes made in turns take: a moving mean.
    write: Duration,
    stopping: bool,
}

/// What came of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// The node has a write of this turn to act upon: the next turn is due at once.
    Wrote,
    /// Nothing is to be done before this time.
    Rests(u64),
    /// The node has stopped, or a thread that it depends on is gone, which has said why.
    Over,
}

impl Helm {
    /// Takes `commands`, which are left empty, and lets the node take a turn. What it owes to the net thread `mine`
    /// stays here, for [`Helm::outcomes`].
    fn turn(
        &mut self,
        commands: &mut Vec<Command>,
        mine: Option<usize>,
        may_write: bool,
    ) -> Turned {
        self.node.advance(self.clock.now_ms());
        for command in commands.drain(..) {
            self.kept.stopping |= matches!(command, Command::Stop);
            self.handle(command);
        }
        let mut out = mem::take(&mut self.kept.out);
        let began = Instant::now();
        self.node.turn(&mut out);
        self.count_applied(&mut out, began);
        self.count_compaction(&out, began);
        let own = if may_write { self.own_write(&mut out) } else { None };
        let sent = self.hand_out(&mut out, mine);
        self.kept.out = out;
        if !sent || self.kept.stopping && self.node.is_settled() {
            return Turned::Over;
        }
        let Some(write) = own else { return Turned::Rests(self.node.wake_at()) };
        self.write(write);
        Turned::Wrote
    }

    fn write(&mut self, write: LogWrite) {
        let began = Instant::now();
        let durable = self.writer.lock().write(write, || None);
        self.kept.write = (self.kept.write * 7 + began.elapsed()) / 8;
        self.node.log_written(durable.sequence);
    }

    fn handle(&mut self, command: Command) {
        let nobody = Header::default();
        match command {
            Command::Propose(kind, body, caller) => {
                self.node.propose(&nobody, kind, &body, Some(caller))
            }
            Command::ProposeAs(user, kind, body, caller) => {
                let header =
                    Header { id: 0, username: &user.username, auth_revision: user.revision };
                self.node.propose(&header, kind, &body, Some(caller));
            }
            Command::ProposePhysical(body, caller) => {
                self.node.propose_physical_compaction(&nobody, &body, caller);
            }
            Command::ProposeChange(kind, member, context, caller) => {
                self.node.propose_change(kind, member, context, caller);
            }
            Command::Read(caller) => self.node.read(caller),
            Command::TransferLeader(to, answer) => {
                // Whoever asked may be gone.
                let _ = answer.send(self.node.transfer_leadership(to));
            }
            Command::LogWritten(sequence) => self.node.log_written(sequence),
            Command::Committed { index, revision } => self.node.committed(index, revision),
            Command::CommitAll(caller) => self.node.commit_all(caller),
            Command::Stop => {
                self.node.stop();
                self.node.hurry_commit();
            }
        }
    }

    /// Takes the write that is better made here: see [`OWN_WRITE_BYTES`].
    fn own_write(&self, out: &mut Output<Caller>) -> Option<LogWrite> {
        match &out.log[..] {
            [write] if write.snapshot.is_none() && write.bytes() <= OWN_WRITE_BYTES => {
                if self.node.writes_alone() { out.log.pop() } else { None }
            }
            _ => None,
        }
    }

    /// A turn's time is shared out among the requests that it has applied.
    fn count_applied(&self, out: &mut Output<Caller>, began: Instant) {
        let total: u64 = out.applied.iter().map(|(.., count)| count).sum();
        if total == 0 {
            return;
        }
        let each = began.elapsed().as_nanos() / u128::from(total);
        let each = Duration::from_nanos(u64::try_from(each).unwrap_or(u64::MAX));
        for (kind, ok, count) in out.applied.drain(..) {
            if let Some(op) = Op::of(kind) {
                let took = each * u32::try_from(count).unwrap_or(u32::MAX);
                self.metrics.ops.applied(op, ok, took, count);
            }
        }
    }

    /// A turn with a step of a compaction is hardly anything else.
    fn count_compaction(&mut self, out: &Output<Caller>, began: Instant) {
        for note in &out.notes {
            match note {
                Note::CompactionStep(in_index) => {
                    self.kept.compacting.get_or_insert(began);
                    self.metrics.compaction_step(*in_index, began.elapsed());
                }
                Note::Compacted(_) => {
                    let first = self.kept.compacting.take().unwrap_or(began);
                    self.metrics.compacted(first.elapsed(), unix_ms() / 1000);
                }
                _ => {}
            }
        }
    }

    /// False if a thread that we depend on is gone: it has said why.
    fn hand_out(&mut self, out: &mut Output<Caller>, mine: Option<usize>) -> bool {
        let mut sent = true;
        // Nobody to send to yet: raft learns at once that a learner cannot be reached.
        for message in out.messages.drain(..) {
            self.node.unreachable(message.to);
        }
        for write in out.log.drain(..) {
            sent &= self.wal.send(write).is_ok();
        }
        if let Some(commit) = out.commit.take() {
            sent &= self.backend.send(commit).is_ok();
        }
        let batches = &mut self.kept.batches;
        batches.resize_with(self.mailboxes.len(), Vec::new);
        for (caller, outcome) in out.replies.drain(..) {
            match caller {
                Caller::Net { thread, slot } => batches[thread].push((slot, outcome)),
                Caller::Task(answer) => drop(answer.send(outcome)),
            }
        }
        for (number, (mailbox, batch)) in self.mailboxes.iter().zip(batches).enumerate() {
            if mine != Some(number) {
                mailbox.deliver(batch);
            }
        }
        for note in out.notes.drain(..) {
            notes::log(&self.log, &self.node, &note);
        }
        sent
    }
}

/// The helm, for the threads that may take it; nobody has it any more once the node has stopped.
pub struct SharedHelm {
    helm: Mutex<Option<Helm>>,
    inbox: Arc<Inbox>,
}

impl SharedHelm {
    /// Shares a helm.
    pub fn new(helm: Helm, inbox: Arc<Inbox>) -> Self {
        Self { helm: Mutex::new(Some(helm)), inbox }
    }

    /// The node's thread has the turn.
    ///
    /// # Panics
    /// If a turn on another thread did: what it left half done must not go on.
    pub fn turn(&self, commands: &mut Vec<Command>) -> Turned {
        let mut held = self.helm.lock().expect("a turn of the node panicked");
        let Some(helm) = held.as_mut() else { return Turned::Over };
        let turned = helm.turn(commands, None, true);
        if turned == Turned::Over {
            // The threads behind it end with it.
            *held = None;
        }
        turned
    }

    /// The net thread `mine` has the turn, if the node is at rest and writes take less than `patience`: true if it had.
    /// `commands` are taken then, and `outcomes` has what came of them, and of whatever else this thread waits for; what
    /// has not come yet goes to its mailbox, as ever. At most one write is made here.
    pub fn turn_at_rest(
        &self,
        mine: usize,
        patience: Duration,
        commands: &mut Vec<Command>,
        outcomes: &mut Vec<(usize, Outcome)>,
    ) -> bool {
        if !self.inbox.is_at_rest() {
            return false;
        }
        let mut held = match self.helm.try_lock() {
            Ok(held) => held,
            Err(TryLockError::WouldBlock) => return false,
            // The node's thread will find it so, and end the process.
            Err(TryLockError::Poisoned(_)) => return false,
        };
        let Some(helm) = held.as_mut().filter(|helm| helm.kept.write < patience) else {
            return false;
        };
        let mut turned = helm.turn(commands, Some(mine), true);
        if turned == Turned::Wrote {
            turned = helm.turn(commands, Some(mine), false);
        }
        mem::swap(&mut helm.kept.batches[mine], outcomes);
        drop(held);
        match turned {
            Turned::Rests(until) => self.inbox.wake_by(until),
            // The node's thread looks, and ends.
            Turned::Wrote | Turned::Over => self.inbox.wake_by(0),
        }
        true
    }
}

#[cfg(test)]
mod tests;
