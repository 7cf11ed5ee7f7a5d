//! The node's own thread: sleeps until it is told something or time is up, lets the node take a turn, and
//! hands on what the world owes. Not here: every decision.

use std::sync::Arc;
use std::sync::mpsc::Sender;
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

/// A write with no more than this is made here, if there is none before it: to wake a thread for it, and to be
/// woken by that, costs more than goes undone meanwhile.
const OWN_WRITE_BYTES: usize = 16 << 10;

/// What the thread works with.
pub struct NodeThread {
    /// The member.
    pub node: Node<Caller>,
    /// What it is told.
    pub inbox: Arc<Inbox>,
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
    /// When the compaction under way made its first step.
    pub compacting: Option<Instant>,
    /// The process's clock.
    pub clock: Clock,
    /// The log.
    pub log: Logger,
}

impl NodeThread {
    /// Runs until it is told to stop and everything applied is in the B+tree.
    pub fn run(mut self) {
        let mut commands = Vec::new();
        let mut out = Output::default();
        let mut batches: Vec<Vec<(usize, Outcome)>> =
            self.mailboxes.iter().map(|_| Vec::new()).collect();
        let mut stopping = false;
        let mut wrote = false;
        loop {
            let patience = self.node.wake_at().saturating_sub(self.clock.now_ms());
            let patience = if wrote { 0 } else { patience };
            self.inbox.take(&mut commands, Duration::from_millis(patience));
            self.node.advance(self.clock.now_ms());
            for command in commands.drain(..) {
                stopping |= matches!(command, Command::Stop);
                self.handle(command);
            }
            let began = Instant::now();
            self.node.turn(&mut out);
            self.count_applied(&mut out, began);
            self.count_compaction(&out, began);
            let own = self.own_write(&mut out);
            let sent = self.hand_out(&mut out, &mut batches);
            if !sent || stopping && self.node.is_settled() {
                return;
            }
            wrote = own.is_some();
            if let Some(write) = own {
                let durable = self.writer.lock().write(write, || None);
                self.node.log_written(durable.sequence);
            }
        }
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
                    self.compacting.get_or_insert(began);
                    self.metrics.compaction_step(*in_index, began.elapsed());
                }
                Note::Compacted(_) => {
                    let first = self.compacting.take().unwrap_or(began);
                    self.metrics.compacted(first.elapsed(), unix_ms() / 1000);
                }
                _ => {}
            }
        }
    }

    /// False if a thread that we depend on is gone: it has said why.
    fn hand_out(
        &mut self,
        out: &mut Output<Caller>,
        batches: &mut [Vec<(usize, Outcome)>],
    ) -> bool {
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
        for (caller, outcome) in out.replies.drain(..) {
            match caller {
                Caller::Net { thread, slot } => batches[thread].push((slot, outcome)),
                Caller::Task(answer) => drop(answer.send(outcome)),
            }
        }
        for (mailbox, batch) in self.mailboxes.iter().zip(batches) {
            mailbox.deliver(batch);
        }
        for note in out.notes.drain(..) {
            notes::log(&self.log, &self.node, &note);
        }
        sent
    }
}
