//! A turn: what raft hands out is stored and applied, and what the world owes is collected. Not here:
//! inputs (`node`), and what time alone brings about (`upkeep`).

use etch_api::Error;
use etch_api::internal::{Header, RequestKind};
use etch_api::pb::etcdserverpb::{AlarmRequest, AlarmType, alarm_request::AlarmAction};
use etch_api::pb::raftpb::ConfChange;
use etch_state::{Done, Effect};
use prost::Message as _;
use raft::eraftpb::{ConfChange as RaftConfChange, Entry, EntryType};
use raft::{Ready, StateRole};

use crate::node::Node;
use crate::output::{Commit, LogWrite, Note, Output, SaveSnapshot};

/// Writes handed to the WAL and not yet durable, at the most: one that is being flushed, and one that
/// fills meanwhile. What comes in beyond that waits in raft and becomes one large write.
const WRITES_MAX: usize = 2;
/// Bytes of entries kept in memory behind the applied index, whatever the count allows.
const CATCHUP_BYTES: usize = 64 << 20;

impl<T> Node<T> {
    /// Does whatever can be done now and adds what the world owes to `out`.
    pub fn turn(&mut self, out: &mut Output<T>) {
        self.submit_inbox();
        if !self.is_lone_leader() {
            self.reads.ask(&mut self.raft, self.clock.now_ms);
        }
        self.campaign_alone();
        while self.raft.has_ready() && self.written.in_flight.len() < WRITES_MAX {
            let ready = self.raft.ready();
            self.handle(ready, out);
        }
        self.commit_if_due(out);
        self.publish();
        let replies = &mut out.replies;
        self.reads.release(self.state.index(), |caller| replies.push((caller, Ok(Default::default()))));
        out.replies.extend(self.early.drain(..).map(|(caller, why)| (caller, Err(why))));
    }

    fn handle(&mut self, mut ready: Ready, out: &mut Output<T>) {
        if let Some(soft) = ready.ss() {
            let (leader, leads) = (soft.leader_id, soft.raft_state == StateRole::Leader);
            self.leadership(leader, leads, out);
        }
        self.reads.answered(ready.take_read_states());
        // Nobody to send to yet: raft learns at once that a learner cannot be reached.
        let unreachable: Vec<u64> = ready.take_messages().iter().map(|m| m.to).collect();
        self.store(&mut ready, out);
        let committed = ready.take_committed_entries();
        self.raft.advance_append_async(ready);
        unreachable.into_iter().for_each(|id| self.raft.report_unreachable(id));
        self.apply(committed, out);
    }

    /// Entries and hard state go to the log in memory at once and to the WAL without waiting.
    fn store(&mut self, ready: &mut Ready, out: &mut Output<T>) {
        let entries = ready.take_entries();
        self.raft.mut_store().append(&entries);
        if let Some(hard_state) = ready.hs() {
            self.written.held = Some(hard_state.clone());
        }
        if ready.must_sync() {
            self.write(LogWrite { number: ready.number(), entries, ..LogWrite::default() }, out);
        }
    }

    fn write(&mut self, mut write: LogWrite, out: &mut Output<T>) {
        write.hard_state = self.written.held.take();
        self.written.in_flight.push_back((write.number, write.commit()));
        out.log.push(write);
    }

    fn leadership(&mut self, leader: u64, leads: bool, out: &mut Output<T>) {
        settle_election_timeout(self);
        self.view.set_term(self.raft.raft.term);
        if self.view.leader() == leader && leads == (leader == self.config.id) {
            return;
        }
        if self.view.leader() != leader {
            self.view.set_leader(leader);
            if leader != 0 {
                self.view.set_leader_changes(self.view.leader_changes() + 1);
            }
            out.notes.push(Note::Leader(leader, self.raft.raft.term));
            let early = &mut self.early;
            self.reads.leader_changed(|caller| early.push((caller, Error::LeaderChanged)));
        }
        if !leads {
            self.view.set_lone_leader(false);
            self.state.lessor().demote();
        }
    }

    /// Applies what is committed, strictly in order: runs of requests in one batch each.
    fn apply(&mut self, entries: Vec<Entry>, out: &mut Output<T>) {
        let Some(last) = entries.last() else { return };
        let (last, term) = (last.index, last.term);
        let mut done = Vec::new();
        let mut rest = &entries[..];
        while let Some(first) = rest.first() {
            if first.entry_type == EntryType::EntryNormal {
                let run = rest.iter().take_while(|e| e.entry_type == EntryType::EntryNormal).count();
                let (now, later) = rest.split_at(run);
                let batch = now.iter().map(|e| (e.index, e.term, &e.data));
                self.state.apply(batch, self.clock.now_ms, &mut done);
                rest = later;
            } else {
                self.apply_change(first, out);
                rest = &rest[1..];
            }
        }
        self.raft.advance_apply_to(last);
        self.view.set_committed(self.raft.raft.raft_log.committed);
        self.view.set_applied_term(term);
        self.view.set_applied(last);
        self.settle(done, out);
        if term == self.raft.raft.term && self.is_leader() && !self.view.is_lone_leader() {
            self.began_term();
        }
    }

    /// The first entry of our own term as leader is applied: leases are ours to end, and reads need not
    /// ask if nobody else has a vote.
    fn began_term(&mut self) {
        self.state.lessor().promote(self.clock.now_ms, self.config.election_ms);
        self.view.set_lone_leader(self.conf_state.voters == [self.config.id]);
    }

    fn is_lone_leader(&self) -> bool {
        self.view.is_lone_leader()
    }

    fn apply_change(&mut self, entry: &Entry, out: &mut Output<T>) {
        let change = ConfChange::decode(entry.data.clone())
            .unwrap_or_else(|e| panic!("entry {} is no configuration change: {e}", entry.index));
        let outcome = self.state.apply_change(entry.index, entry.term, &change);
        let mut to_raft = RaftConfChange::default();
        if outcome.is_ok() {
            to_raft.set_change_type(raft_kind(&change));
            to_raft.node_id = change.node_id();
        }
        // A refused change is told to raft as one that changes nothing, so that it may take the next.
        self.conf_state = self
            .raft
            .apply_conf_change(&to_raft)
            .unwrap_or_else(|e| panic!("raft refuses a validated configuration change: {e}"));
        let (voters, learners) = (self.conf_state.voters.clone(), self.conf_state.learners.clone());
        self.state.set_conf_state(&voters, &learners);
        self.view.set_lone_leader(self.view.is_lone_leader() && voters == [self.config.id]);
        out.notes.push(Note::ConfChange(outcome.err()));
        if self.state.members().is_removed(self.config.id) {
            out.notes.push(Note::Removed);
        }
        if let Some(caller) = self.pending.take(change.id()) {
            let reply = outcome.map(|()| self.state.empty_reply());
            out.replies.push((caller, reply));
        }
    }

    /// Outcomes find their callers; what they entail is begun.
    fn settle(&mut self, done: Vec<Done>, out: &mut Output<T>) {
        for Done { id, result, effect } in done {
            let caller = self.pending.take(id);
            match effect {
                Effect::None => {}
                Effect::QuotaExceeded => {
                    self.raise_no_space(caller, out);
                    continue;
                }
                Effect::AlarmsChanged => self.no_space_raised(out),
                Effect::Compaction(revision) => {
                    self.clock.compaction_due = self.clock.now_ms;
                    let physical = self.deferred.physical.iter().position(|p| *p == id);
                    if let (Some(at), Some(caller), Ok(reply)) = (physical, &caller, &result) {
                        let _ = caller;
                        self.deferred.physical.swap_remove(at);
                        let caller = self_take(caller_slot(&mut self.deferred), reply);
                        let _ = caller;
                    }
                    let _ = revision;
                }
                Effect::Published(member) => {
                    if member == self.config.id {
                        self.published = true;
                        out.notes.push(Note::Published);
                    }
                }
                Effect::ClusterVersion(version) => out.notes.push(Note::ClusterVersion(version)),
            }
            if let Some(caller) = caller {
                out.replies.push((caller, result));
            }
        }
    }
}
