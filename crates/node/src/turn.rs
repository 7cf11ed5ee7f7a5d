//! A turn: what raft hands out is stored and applied, and what the world owes is collected. Not here:
//! inputs (`node`), and what time alone brings about (`upkeep`).

use etch_api::Error;
use etch_api::internal::{Header, RequestKind};
use etch_api::pb::etcdserverpb::{AlarmRequest, AlarmType, alarm_request::AlarmAction};
use etch_api::pb::raftpb::{ConfChange, ConfChangeType, ConfState};
use etch_disk::mutants::{self, Mutant};
use etch_disk::wal;
use etch_state::{Done, Effect, Reply};
use prost::Message as _;
use raft::eraftpb::ConfChangeType as RaftChangeType;
use raft::eraftpb::{ConfChange as RaftConfChange, Entry, EntryType};
use raft::{Ready, StateRole};

use crate::convert;
use crate::node::{InFlight, Node};
use crate::output::{Commit, LogWrite, Note, Output, SaveSnapshot};

/// Writes handed to the WAL and not yet durable, at the most: one that is being flushed, and one that
/// fills meanwhile. What comes in beyond that waits in raft and becomes one large write.
const WRITES_MAX: usize = 2;
/// Bytes of changes that are committed to the B+tree without waiting for more of them or for the time: what is not
/// committed is held in memory, and a commit of so much costs little more than its bytes.
const COMMIT_BYTES: usize = 4 << 20;
/// Bytes of entries kept in memory behind the applied index, whatever the count allows.
const CATCHUP_BYTES: usize = 64 << 20;

impl<T> Node<T> {
    /// Does whatever can be done now and adds what the world owes to `out`.
    pub fn turn(&mut self, out: &mut Output<T>) {
        self.after_commit(out);
        self.cut_log();
        self.upkeep(out);
        if self.is_lone_leader() {
            let replies = &mut out.replies;
            self.reads.release_all(|caller| replies.push((caller, Ok(Reply::default()))));
        } else {
            self.reads.ask(&mut self.raft, self.clock.now_ms);
        }
        self.campaign_alone();
        while self.written.in_flight.len() < WRITES_MAX {
            self.submit_inbox();
            if !self.raft.has_ready() {
                break;
            }
            let ready = self.raft.ready();
            self.handle(ready, out);
        }
        self.release_messages(out);
        self.commit_if_due();
        self.release_commit(out);
        let replies = &mut out.replies;
        self.reads
            .release(self.state.index(), |caller| replies.push((caller, Ok(Reply::default()))));
        out.replies.extend(self.early.drain(..).map(|(caller, why)| (caller, Err(why))));
    }

    fn handle(&mut self, mut ready: Ready, out: &mut Output<T>) {
        if let Some(soft) = ready.ss() {
            let (leader, leads) = (soft.leader_id, soft.raft_state == StateRole::Leader);
            self.leadership(leader, leads, out);
        }
        self.reads.answered(ready.take_read_states());
        out.messages.append(&mut ready.take_messages());
        self.store(&mut ready, out);
        let write = self.written.handed_out;
        let promises = ready.take_persisted_messages().into_iter().map(|m| (write, m));
        self.written.messages.extend(promises);
        let mut committed = ready.take_committed_entries();
        committed.iter_mut().for_each(convert::change_from_raft);
        let number = ready.number();
        self.raft.advance_append_async(ready);
        if mutants::on(Mutant::I14370) {
            self.raft.on_persist_ready(number);
        }
        self.apply(committed, out);
    }

    /// Entries and hard state go to the log in memory at once and to the WAL without waiting.
    fn store(&mut self, ready: &mut Ready, out: &mut Output<T>) {
        let mut entries = ready.take_entries();
        entries.iter_mut().for_each(convert::change_from_raft);
        self.raft.mut_store().append(&entries);
        if let Some(hard_state) = ready.hs() {
            self.written.held = Some(hard_state.clone());
        }
        if ready.must_sync() {
            self.write(ready.number(), &entries, None, out);
        }
    }

    /// Messages whose promises are durable: all that was handed out before them is.
    fn release_messages(&mut self, out: &mut Output<T>) {
        let durable = match self.written.in_flight.front() {
            Some(write) => write.sequence - 1,
            None => self.written.handed_out,
        };
        while self.written.messages.front().is_some_and(|(write, _)| *write <= durable) {
            out.messages.extend(self.written.messages.pop_front().map(|(_, message)| message));
        }
    }

    fn write(
        &mut self,
        ready: u64,
        entries: &[Entry],
        snapshot: Option<(u64, u64, ConfState)>,
        out: &mut Output<T>,
    ) {
        let hard_state = self.written.held.take();
        self.written.handed_out += 1;
        let sequence = self.written.handed_out;
        let commit = hard_state.as_ref().map(|h| h.commit);
        self.written.in_flight.push_back(InFlight { sequence, ready, commit });
        let batch = wal::Batch {
            entries: entries.iter().map(convert::entry_to_wal).collect(),
            hard_state: hard_state.as_ref().map(convert::hard_state_to_wal),
        };
        out.log.push(LogWrite { sequence, batch, snapshot });
    }

    fn leadership(&mut self, leader: u64, leads: bool, out: &mut Output<T>) {
        settle_election_timeout(self);
        self.view.set_term(self.raft.raft.term);
        if self.view.leader() == leader && leads == (leader == self.config.id) {
            return;
        }
        if self.view.leader() != leader {
            self.view.set_leader(leader);
            out.notes.push(Note::Leader(leader, self.raft.raft.term));
            // Reads under way outlive the loss of a leader, and not the next one's election.
            if leader != 0 {
                self.view.set_leader_changes(self.view.leader_changes() + 1);
                self.clock.led_since = self.clock.now_ms;
                let early = &mut self.early;
                self.reads.leader_changed(|caller| early.push((caller, Error::LeaderChanged)));
            }
        }
        if leads && mutants::on(Mutant::R105) {
            self.view.set_lone_leader(self.conf_state.voters == [self.config.id]);
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
                let run =
                    rest.iter().take_while(|e| e.entry_type == EntryType::EntryNormal).count();
                let (now, later) = rest.split_at(run);
                let batch = now.iter().map(|e| (e.index, e.term, &e.data));
                self.state.apply(batch, &mut done);
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
        if term == self.raft.raft.term && self.is_leader() && !self.state.lessor().is_primary() {
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
            to_raft.set_change_type(self.raft_kind(&change));
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
        out.notes.push(Note::ConfChange(change.r#type(), change.node_id(), outcome.err()));
        if self.state.members().is_removed(self.config.id) {
            out.notes.push(Note::Removed);
        }
        if let Some(caller) = self.pending.take(change.id()) {
            let reply = outcome.map(|()| self.state.empty_reply());
            out.replies.push((caller, reply));
        }
    }

    fn raft_kind(&self, change: &ConfChange) -> RaftChangeType {
        match change.r#type() {
            ConfChangeType::ConfChangeAddNode => RaftChangeType::AddNode,
            ConfChangeType::ConfChangeAddLearnerNode => RaftChangeType::AddLearnerNode,
            ConfChangeType::ConfChangeRemoveNode => RaftChangeType::RemoveNode,
            // Raft knows no peer URLs: to it a member that changes them is added as what it is.
            ConfChangeType::ConfChangeUpdateNode
                if self.conf_state.learners.contains(&change.node_id()) =>
            {
                RaftChangeType::AddLearnerNode
            }
            ConfChangeType::ConfChangeUpdateNode => RaftChangeType::AddNode,
        }
    }

    /// Outcomes find their callers; what they entail is begun.
    fn settle(&mut self, done: Vec<Done>, out: &mut Output<T>) {
        for Done { id, result, effect, kind } in done {
            count(&mut out.applied, kind, result.is_ok());
            let caller = self.pending.take(id);
            match effect {
                Effect::None => {}
                Effect::QuotaExceeded => {
                    self.raise_no_space(caller, out);
                    continue;
                }
                Effect::AlarmsChanged => self.alarms_changed(out),
                Effect::Compaction(revision) => {
                    self.clock.compaction_due = self.clock.now_ms;
                    if let Some(at) = self.deferred.physical.iter().position(|p| *p == id) {
                        self.deferred.physical.swap_remove(at);
                        if let (Some(caller), Ok(reply)) = (caller, result) {
                            self.deferred.compactions.push((revision, caller, reply));
                        }
                        continue;
                    }
                }
                Effect::ClusterVersion { version, lowered } => {
                    self.committed.snapshot_wanted |= lowered;
                    out.notes.push(Note::ClusterVersion(version));
                }
            }
            if let Some(caller) = caller {
                out.replies.push((caller, result));
            }
        }
    }

    /// A write that was applied beyond the quota: its caller hears of it once the alarm is up.
    fn raise_no_space(&mut self, caller: Option<T>, out: &mut Output<T>) {
        let deadline = self.clock.now_ms + self.config.request_timeout_ms;
        self.deferred.no_space.extend(caller.map(|caller| (deadline, caller)));
        if self.deferred.alarm_proposed {
            return;
        }
        self.deferred.alarm_proposed = true;
        out.notes.push(Note::QuotaExceeded);
        let alarm = AlarmRequest {
            action: AlarmAction::Activate.into(),
            member_id: self.config.id,
            alarm: AlarmType::Nospace.into(),
        };
        self.propose(&Header::default(), RequestKind::Alarm, &alarm.encode_to_vec(), None);
    }

    fn alarms_changed(&mut self, out: &mut Output<T>) {
        self.deferred.alarm_proposed = false;
        let waiting = self.deferred.no_space.drain(..);
        out.replies.extend(waiting.map(|(_, caller)| (caller, Err(Error::NoSpace))));
    }

    /// Takes a commit of the B+tree when it is due: everything applied so far, whatever comes in meanwhile.
    fn commit_if_due(&mut self) {
        let index = self.state.index();
        let past_snapshot = index - self.committed.snapshot_index;
        let snapshot_due = past_snapshot > self.config.snapshot_count
            || self.committed.snapshot_wanted && past_snapshot > 0;
        let due = self.committed.hurry
            || self.state.pending_changes() >= self.config.commit_changes
            || self.state.pending_bytes() >= COMMIT_BYTES
            || self.clock.now_ms >= self.clock.commit_due;
        let dirty = self.state.has_pending() || self.committed.index < index;
        if self.committed.busy || !(snapshot_due || dirty && due) {
            return;
        }
        let snapshot = snapshot_due.then(|| SaveSnapshot {
            index,
            term: self.state.term(),
            conf_state: convert::conf_state_to_wal(&self.conf_state),
            members: self.state.members().iter().cloned().collect(),
            removed: self.state.members().removed().collect(),
            version: self.state.members().version(),
        });
        let (batch, revision) = self.state.take_commit();
        self.committed.busy = true;
        self.committed.taken += 1;
        self.committed.hurry = false;
        self.committed.snapshot_wanted = false;
        self.committed.saving.clone_from(&snapshot);
        self.clock.commit_due = self.clock.now_ms + self.config.commit_interval_ms;
        self.committed.staged = Some(Commit { batch, revision, index, snapshot });
    }

    /// Hands out the commit that was taken once the WAL durably records its index as committed (invariant
    /// I4). Under load the next write does; at rest one is made for it.
    fn release_commit(&mut self, out: &mut Output<T>) {
        let Some(staged) = &self.committed.staged else { return };
        if self.written.commit >= staged.index || mutants::on(Mutant::AheadOfLog) {
            out.commit = self.committed.staged.take();
        } else if self.written.in_flight.is_empty() && self.written.held.is_some() {
            self.write(0, &[], None, out);
        }
    }

    /// What follows a finished commit: a saved snapshot is noted in the WAL and lets the log be cut;
    /// callers of physical compactions are answered.
    pub(crate) fn after_commit(&mut self, out: &mut Output<T>) {
        let finished = self.committed.taken - u64::from(self.committed.busy);
        let settled = self.deferred.committing.extract_if(.., |(at, ..)| *at <= finished);
        out.replies.extend(settled.map(|(_, caller, reply)| (caller, Ok(reply))));
        if self.committed.busy {
            return;
        }
        if let Some(saved) = self.committed.saving.take() {
            self.committed.snapshot_index = saved.index;
            self.view.set_snapshot_index(saved.index);
            let record = (saved.index, saved.term, saved.conf_state);
            self.write(0, &[], Some(record), out);
            out.notes.push(Note::SnapshotSaved(saved.index));
        }
    }

    /// Forgets entries that no follower is likely to want: all but the last few behind what is applied. Where nobody
    /// follows none is kept: whoever joins later begins with the store.
    fn cut_log(&mut self) {
        let applied = self.state.index();
        let lone =
            self.conf_state.voters == [self.config.id] && self.conf_state.learners.is_empty();
        let log = self.raft.mut_store();
        let mut to = applied.saturating_sub(self.config.catchup_entries);
        if lone || log.bytes() > CATCHUP_BYTES {
            to = applied;
        }
        log.compact(to);
    }
}

fn count(applied: &mut Vec<(RequestKind, bool, u64)>, kind: Option<RequestKind>, ok: bool) {
    let Some(kind) = kind else { return };
    match applied.iter_mut().find(|(k, o, _)| (*k, *o) == (kind, ok)) {
        Some((.., count)) => *count += 1,
        None => applied.push((kind, ok, 1)),
    }
}

/// Raft draws its election timeout anew at each change of term or role, and at random. Here it is made a
/// function of the seed and of what it was drawn for, so that one seed gives one history.
pub(crate) fn settle_election_timeout<T>(node: &mut Node<T>) {
    let raft = &node.raft.raft;
    let mut hash = node.config.seed ^ node.config.id.rotate_left(17) ^ raft.term.rotate_left(40);
    hash ^= raft.leader_id.rotate_left(29) ^ (raft.state as u64);
    // The finishing steps of SplitMix64.
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    let base = raft.election_timeout();
    let drawn = base + usize::try_from(hash % base as u64).expect("less than a usize");
    node.raft.raft.set_randomized_election_timeout(drawn);
}
