//! The member's parts and its inputs: proposals, reads, ticks, and word from the disk. Not here: what is
//! done with raft's output (`turn`), and what happens by itself as time goes by (`upkeep`).

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use etch_api::Error;
use etch_api::internal::{Header, RequestKind, encode_entry_from};
use etch_api::pb::raftpb::{ConfChange, ConfChangeType};
use etch_disk::mutants::{self, Mutant};
use etch_state::State;
use prost::Message as _;
use raft::eraftpb::{ConfState, Entry, HardState, Message, MessageType};
use raft::{RawNode, StateRole};

use crate::log::Log;
use crate::output::{Commit, SaveSnapshot};
use crate::pending::Pending;
use crate::reads::Reads;
use crate::recover::MemberParts;
use crate::view::View;
use crate::{convert, logger, turn};

/// What the member is told at its start. Times are milliseconds.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member's id.
    pub id: u64,
    /// Time between two ticks of raft, and between two heartbeats of a leader (`--heartbeat-interval`).
    pub heartbeat_ms: u64,
    /// Time without a leader before a member stands for election (`--election-timeout`).
    pub election_ms: u64,
    /// Ask before standing (`--pre-vote`).
    pub pre_vote: bool,
    /// Applied entries between two raft snapshots (`--snapshot-count`).
    pub snapshot_count: u64,
    /// Entries kept in memory behind a snapshot for slow followers (`--snapshot-catchup-entries`).
    pub catchup_entries: u64,
    /// The largest entry (`--max-request-bytes`).
    pub max_request_bytes: usize,
    /// How long a caller waits at the most.
    pub request_timeout_ms: u64,
    /// Keys looked at in one step of a compaction (`--compaction-batch-limit`).
    pub compaction_batch: usize,
    /// Pause between two steps (`--compaction-sleep-interval`).
    pub compaction_pause_ms: u64,
    /// Longest time between a change and its commit to the B+tree (`--backend-batch-interval`).
    pub commit_interval_ms: u64,
    /// Changes that are committed at once without waiting for it (`--backend-batch-limit`).
    pub commit_changes: usize,
    /// Seed of what must differ from run to run: request ids and election timeouts.
    pub seed: u64,
}

/// The clock, and what is due when.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    pub now_ms: u64,
    pub tick_due: u64,
    pub lease_due: u64,
    pub compaction_due: u64,
    pub commit_due: u64,
    /// The cluster version is proposed again if it has not come through by then.
    pub version_due: u64,
    /// When the last leader was found.
    pub led_since: u64,
}

/// A write that the WAL has not yet made durable.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub sequence: u64,
    /// Raft's number for it; 0 if raft does not wait for it.
    pub ready: u64,
    /// The commit index that it records.
    pub commit: Option<u64>,
}

/// How far the WAL has come.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Writes handed out since the start.
    pub handed_out: u64,
    /// Those that are not yet durable.
    pub in_flight: VecDeque<InFlight>,
    /// A hard state of which only the commit index is new. Nobody waits for it: it goes along with the
    /// next write, or alone before a commit of the B+tree.
    pub held: Option<HardState>,
    /// The highest commit index that is durably recorded.
    pub commit: u64,
    /// Messages that may leave once the write of this number is durable: votes and acknowledgements promise
    /// what it holds.
    pub messages: VecDeque<(u64, Message)>,
}

/// How far the B+tree has come.
#[derive(Debug, Default)]
pub(crate) struct Committed {
    /// The index that it holds.
    pub index: u64,
    /// A commit is taken, and not done yet.
    pub busy: bool,
    /// Commits taken since the start.
    pub taken: u64,
    /// The one that was taken and waits for the WAL.
    pub staged: Option<Commit>,
    /// Somebody wants a commit now.
    pub hurry: bool,
    /// A raft snapshot is to be saved with the next one: the version was lowered, and an older etcd reads no log
    /// that speaks of a newer one.
    pub snapshot_wanted: bool,
    /// The raft snapshot that is being saved along with it.
    pub saving: Option<SaveSnapshot>,
    /// The index of the newest raft snapshot.
    pub snapshot_index: u64,
}

/// A proposal that waits for a leader, or for its turn.
#[derive(Debug)]
pub(crate) struct Queued {
    pub id: u64,
    /// When its caller gives up; none if nobody waits.
    pub deadline_ms: Option<u64>,
    /// The only term in which it may be proposed, and by its leader alone: what a leader has decided says
    /// nothing under another.
    pub only_in: Option<u64>,
    pub entry: Entry,
}

/// Callers that wait for more than their own entry.
pub(crate) struct Deferred<T> {
    /// Refused for lack of space; told so once the alarm is up, or at this time.
    pub no_space: Vec<(u64, T)>,
    /// The alarm for them is under way.
    pub alarm_proposed: bool,
    /// Physical compactions: told once the compaction to this revision is done and committed.
    pub compactions: Vec<(i64, T, etch_state::Reply)>,
    /// The same, done, waiting for the commit of this number.
    pub committing: Vec<(u64, T, etch_state::Reply)>,
    /// Compactions whose callers want them physical, by request id.
    pub physical: Vec<u64>,
}

/// One member of a cluster. `T` is whatever the driver needs to find a caller again.
pub struct Node<T> {
    pub(crate) config: Config,
    pub(crate) raft: RawNode<Log>,
    pub(crate) state: State,
    pub(crate) view: Arc<View>,
    /// Proposals that raft has not seen yet, in the order of their ids.
    pub(crate) inbox: VecDeque<Queued>,
    pub(crate) pending: Pending<T>,
    pub(crate) reads: Reads<T>,
    pub(crate) deferred: Deferred<T>,
    pub(crate) early: Vec<(T, Error)>,
    pub(crate) written: Written,
    pub(crate) committed: Committed,
    pub(crate) clock: Clock,
    pub(crate) conf_state: ConfState,
    pub(crate) stopped: bool,
}

/// Callers beyond this many are refused: the queue before raft is bounded.
const PENDING_MAX: usize = 100_000;
/// And so they are once those who wait ask for this much together.
const PENDING_BYTES_MAX: usize = 256 << 20;
/// Bytes of uncommitted values beyond which proposals are refused until the B+tree has caught up.
const TAIL_MAX: usize = 512 << 20;
/// One write of the log holds about this much: those who wait for its first entry should not wait long.
pub(crate) const WRITE_BYTES: usize = 4 << 20;
/// Raft's messages to followers carry at most this much, as etcd's do.
const MESSAGE_MAX: u64 = 1 << 20;
/// And a turn applies at most about this much before it hands out what it has.
const APPLY_MAX: u64 = 4 << 20;

impl<T> Node<T> {
    /// The member as its files left it. `start_ms` is the wall clock now; all later times are those
    /// of [`Node::advance`].
    pub fn new(config: Config, parts: MemberParts, start_ms: u64) -> Self {
        let MemberParts { state, log, conf_state, snapshot_index, durable_commit } = parts;
        let applied = state.index();
        let ticks = (config.election_ms / config.heartbeat_ms.max(1)).max(2) as usize;
        let raft_config = raft::Config {
            id: config.id,
            election_tick: ticks,
            heartbeat_tick: 1,
            applied,
            max_size_per_msg: MESSAGE_MAX,
            max_inflight_msgs: 512,
            check_quorum: true,
            pre_vote: config.pre_vote,
            max_committed_size_per_ready: APPLY_MAX,
            ..raft::Config::default()
        };
        let raft = RawNode::new(&raft_config, log, &logger::silent())
            .unwrap_or_else(|e| panic!("raft refuses the log that was recovered: {e}"));
        let view = Arc::new(View::default());
        view.set_applied(applied);
        view.set_applied_term(state.term());
        view.set_committed(raft.raft.raft_log.committed);
        view.set_term(raft.raft.term);
        view.set_snapshot_index(snapshot_index);
        let mut node = Self {
            pending: Pending::new(config.id, start_ms),
            reads: Reads::new(config.seed),
            config,
            raft,
            state,
            view,
            inbox: VecDeque::new(),
            deferred: Deferred {
                no_space: Vec::new(),
                alarm_proposed: false,
                compactions: Vec::new(),
                committing: Vec::new(),
                physical: Vec::new(),
            },
            early: Vec::new(),
            written: Written { commit: durable_commit, ..Written::default() },
            committed: Committed { index: applied, snapshot_index, ..Committed::default() },
            clock: Clock::default(),
            conf_state,
            stopped: false,
        };
        turn::settle_election_timeout(&mut node);
        node
    }

    /// What other threads may look at.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view)
    }

    /// The replicated state, for its shared parts.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Proposes a request: its kind and the client's own bytes. The caller gets the outcome in a later
    /// turn, or why it was not even tried. Without a caller nobody is told.
    pub fn propose(
        &mut self,
        header: &Header<'_>,
        kind: RequestKind,
        body: &[u8],
        caller: Option<T>,
    ) {
        self.enqueue(header, kind, body, caller, None);
    }

    /// What this member asks of the cluster as its leader, and only as long as it is that. Says whether it will be
    /// in the log, if it stays so.
    pub(crate) fn propose_as_leader(
        &mut self,
        header: &Header<'_>,
        kind: RequestKind,
        body: &[u8],
    ) -> bool {
        self.enqueue(header, kind, body, None, Some(self.raft.raft.term))
    }

    fn enqueue(
        &mut self,
        header: &Header<'_>,
        kind: RequestKind,
        body: &[u8],
        caller: Option<T>,
        only_in: Option<u64>,
    ) -> bool {
        if let Err(why) = self.admit(kind) {
            self.refuse(caller, why);
            return false;
        }
        let deadline = self.clock.now_ms + self.config.request_timeout_ms;
        let deadline_ms = caller.is_some().then_some(deadline);
        let id = self.pending.register(caller, deadline, body.len());
        let data = encode_entry_from(&Header { id, ..*header }, kind, body);
        if data.len() > self.config.max_request_bytes {
            let caller = self.pending.take(id);
            self.refuse(caller, Error::RequestTooLarge);
            return false;
        }
        let entry = Entry { data, ..Entry::default() };
        self.inbox.push_back(Queued { id, deadline_ms, only_in, entry });
        true
    }

    /// The same for a compaction whose caller wants to wait until its work is done and committed.
    pub fn propose_physical_compaction(&mut self, header: &Header<'_>, body: &[u8], caller: T) {
        let before = self.inbox.len();
        self.propose(header, RequestKind::Compaction, body, Some(caller));
        if self.inbox.len() > before {
            self.deferred.physical.push(self.pending.last_id());
        }
    }

    /// Proposes a change of the membership; `context` is the member as etcd writes it there.
    pub fn propose_change(&mut self, kind: ConfChangeType, member: u64, context: Bytes, caller: T) {
        if let Err(why) = self.admit(RequestKind::ClusterMemberAttrSet) {
            return self.refuse(Some(caller), why);
        }
        let deadline = self.clock.now_ms + self.config.request_timeout_ms;
        let id = self.pending.register(Some(caller), deadline, context.len());
        let change = ConfChange::of(id, kind, member, context);
        // Who can say at once what will come of it does. Without a majority nobody knows.
        let verdict = self.state.members().validate(&change);
        if let Err(why) = verdict
            && self.view.is_lone_leader()
        {
            let caller = self.pending.take(id);
            return self.refuse(caller, why);
        }
        let entry = convert::change_for_raft(change.encode_to_vec());
        let deadline_ms = Some(deadline);
        self.inbox.push_back(Queued { id, deadline_ms, only_in: None, entry });
    }

    /// A linearizable read: the caller is told when whatever was acknowledged before this call is
    /// applied here. Only for when [`View::is_lone_leader`] does not hold.
    pub fn read(&mut self, caller: T) {
        self.reads.push(caller, self.clock.now_ms + self.config.request_timeout_ms);
    }

    /// A message of another member's raft has come in. One that cannot be meant for us is passed over.
    pub fn step(&mut self, message: Message) {
        // What raft refuses here comes from a member that it does not know, or no more.
        let _ = self.raft.step(message);
    }

    /// Messages to this member do not get through.
    pub fn unreachable(&mut self, member: u64) {
        self.raft.report_unreachable(member);
    }

    /// Hands leadership to another voter. It is there once [`View::leader`] says so.
    pub fn transfer_leadership(&mut self, to: u64) -> Result<(), Error> {
        if self.raft.raft.state != StateRole::Leader {
            return Err(Error::NotLeader);
        }
        if !self.conf_state.voters.contains(&to) {
            return Err(Error::BadLeaderTransferee);
        }
        if to != self.config.id {
            self.raft.transfer_leader(to);
        }
        Ok(())
    }

    /// The WAL is durable up to and with this write of ours.
    pub fn log_written(&mut self, sequence: u64) {
        let mut ready = 0;
        while self.written.in_flight.front().is_some_and(|w| w.sequence <= sequence) {
            let Some(write) = self.written.in_flight.pop_front() else { break };
            self.written.commit = self.written.commit.max(write.commit.unwrap_or(0));
            ready = ready.max(write.ready);
        }
        if ready > 0 {
            self.raft.on_persist_ready(ready);
        }
    }

    /// The B+tree holds everything up to this commit; its raft snapshot, if it had one, is on disk.
    pub fn committed(&mut self, index: u64, revision: i64) {
        self.committed.busy = false;
        self.committed.index = index;
        self.state.committed(revision);
    }

    /// The caller is told when everything applied so far is in the B+tree.
    pub fn commit_all(&mut self, caller: T) {
        let pending = self.state.has_pending();
        let number = self.committed.taken + u64::from(pending);
        self.committed.hurry |= pending;
        self.deferred.committing.push((number, caller, self.state.empty_reply()));
    }

    /// A commit now, rather than when it is due.
    pub fn hurry_commit(&mut self) {
        self.committed.hurry = true;
    }

    /// Whether the write that was handed out last is the only one on its way, and nobody but the log waits for it.
    pub fn writes_alone(&self) -> bool {
        self.written.in_flight.len() == 1 && self.view.is_lone_leader()
    }

    /// True if everything applied is in the B+tree.
    pub fn is_settled(&self) -> bool {
        !self.committed.busy
            && !self.state.has_pending()
            && self.committed.index == self.state.index()
    }

    /// Ends the node: whoever waits is told that the server stops.
    pub fn stop(&mut self) {
        self.stopped = true;
        self.view.set_stopped();
        let early = &mut self.early;
        self.pending.drain(|caller| early.push((caller, Error::Stopped)));
        self.reads.expire(u64::MAX, |caller| early.push((caller, Error::Stopped)));
    }

    /// Hands raft as many of the proposals that wait as one write of the log may hold.
    pub(crate) fn submit_inbox(&mut self) {
        // Who is handing leadership on takes no proposals, and would drop them.
        let hands_on = self.is_leader() && self.raft.raft.lead_transferee.is_some();
        if self.inbox.is_empty() || self.leader() == 0 || hands_on {
            return;
        }
        let mut bytes = 0;
        let fits = |queued: &&Queued| {
            let before = bytes;
            bytes += queued.entry.data.len();
            before < WRITE_BYTES
        };
        let count = self.inbox.iter().take_while(fits).count();
        let ours = self.is_leader().then_some(self.raft.raft.term);
        let may = |queued: &Queued| queued.only_in.is_none() || queued.only_in == ours;
        let may = |queued: &Queued| may(queued) || mutants::on(Mutant::I15247);
        let entries: Vec<Entry> =
            self.inbox.drain(..count).filter(may).map(|queued| queued.entry).collect();
        if entries.is_empty() {
            return;
        }
        let mut message = raft::eraftpb::Message { from: self.config.id, ..Default::default() };
        message.set_msg_type(MessageType::MsgPropose);
        message.set_entries(entries.into());
        // A dropped proposal is told to nobody at once, as in etcd: its callers time out.
        let _ = self.raft.step(message);
    }

    pub(crate) fn leader(&self) -> u64 {
        self.raft.raft.leader_id
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.raft.raft.state == StateRole::Leader
    }

    fn admit(&self, kind: RequestKind) -> Result<(), Error> {
        if self.stopped {
            return Err(Error::Stopped);
        }
        // Ending leases and raising alarms must go through where everything else waits.
        let urgent = matches!(kind, RequestKind::LeaseRevoke | RequestKind::Alarm);
        let max = if urgent { 2 * PENDING_MAX } else { PENDING_MAX };
        let full = self.pending.len() >= max || self.pending.bytes() >= PENDING_BYTES_MAX;
        if full || (!urgent && self.state.pending_bytes() > TAIL_MAX) {
            return Err(Error::TooManyRequests);
        }
        Ok(())
    }

    fn refuse(&mut self, caller: Option<T>, why: Error) {
        if let Some(caller) = caller {
            self.early.push((caller, why));
        }
    }
}
