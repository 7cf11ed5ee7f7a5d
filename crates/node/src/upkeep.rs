//! What time brings about: raft's ticks, leases that end, steps of a compaction, callers whose time is up,
//! and the cluster version. Not here: inputs (`node`) and raft's output (`turn`).

use etch_api::Error;
use etch_api::internal::{Header, RequestKind};
use etch_api::pb::etcdserverpb::{LeaseCheckpoint, LeaseCheckpointRequest, LeaseRevokeRequest};
use etch_api::pb::membershippb::ClusterVersionSetRequest;
use etch_state::auth::ROOT;
use etch_state::members::Member;
use etch_state::mvcc::Step;
use etch_state::version::ETCD;
use prost::Message as _;

use crate::node::Node;
use crate::output::{Note, Output};
use crate::turn::settle_election_timeout;

/// Leases are looked at this often, and at most so many end each time: a thousand a second, as in etcd.
const LEASE_MS: u64 = 500;
const LEASES_MAX: usize = 500;
/// What was proposed in the cluster's own name and did not come through is proposed again after this long.
const RETRY_MS: u64 = 5000;

impl<T> Node<T> {
    /// The clock has come to `now_ms`. Never backwards.
    pub fn advance(&mut self, now_ms: u64) {
        let clock = &mut self.clock;
        clock.now_ms = clock.now_ms.max(now_ms);
        if clock.tick_due == 0 {
            clock.tick_due = clock.now_ms + self.config.heartbeat_ms;
        }
        if self.clock.now_ms >= self.clock.tick_due {
            // After a long pause one tick, not many: we have not listened meanwhile, so nobody may be
            // said to have been silent.
            self.clock.tick_due = self.clock.now_ms + self.config.heartbeat_ms;
            self.raft.tick();
            settle_election_timeout(self);
            self.expire();
        }
    }

    /// The time at which [`Node::advance`] and a turn are due if nothing else happens before.
    pub fn wake_at(&self) -> u64 {
        let mut at = self.clock.tick_due;
        if self.state.has_pending() && !self.committed.busy {
            at = at.min(self.clock.commit_due);
        }
        if self.state.is_compacting() {
            at = at.min(self.clock.compaction_due);
        }
        if let Some(reads) = self.reads.wake_at() {
            at = at.min(reads);
        }
        at
    }

    fn expire(&mut self) {
        let now = self.clock.now_ms;
        let mut gone = Vec::new();
        self.pending.expire(now, |id, deadline, caller| gone.push((id, deadline, caller)));
        let failed = gone.len() as u64;
        if !gone.is_empty() {
            self.deferred.physical.retain(|p| !gone.iter().any(|(id, ..)| id == p));
        }
        // Ids are given out in order: from this one on raft has seen none.
        let unseen = self.inbox.front().map_or(u64::MAX, |queued| queued.id);
        for (id, deadline, caller) in gone {
            let why = if id >= unseen { Error::DeadlineExceeded } else { self.why_late(deadline) };
            self.early.push((caller, why));
        }
        // What nobody waits for any more is not proposed any more.
        self.inbox.retain(|queued| queued.deadline_ms.is_none_or(|deadline| deadline > now));
        let early = &mut self.early;
        let late = self.deferred.no_space.extract_if(.., |(deadline, _)| *deadline <= now);
        early.extend(late.map(|(_, caller)| (caller, Error::NoSpace)));
        // If the alarm was lost, who is refused next raises it again.
        self.deferred.alarm_proposed &= !self.deferred.no_space.is_empty();
        self.reads.expire(now, |caller| early.push((caller, Error::Timeout)));
        self.view.set_failed(self.view.failed() + failed);
        self.view.set_pending(self.pending.len() as u64);
    }

    /// Why a proposal that raft has taken was not applied by its deadline, as far as we can tell.
    fn why_late(&self, deadline_ms: u64) -> Error {
        let began = deadline_ms.saturating_sub(self.config.request_timeout_ms);
        let led_since = self.clock.led_since;
        if began < led_since && began + 2 * self.config.election_ms > led_since {
            return Error::TimeoutDueToLeaderFail;
        }
        let alone = self.conf_state.voters == [self.config.id];
        if self.leader() == 0 || self.is_leader() && alone {
            Error::Timeout
        } else {
            Error::TimeoutDueToConnectionLost
        }
    }

    pub(crate) fn upkeep(&mut self, out: &mut Output<T>) {
        if self.stopped {
            return;
        }
        self.compact_step(out);
        if self.is_leader() {
            self.end_leases();
            self.publish_version();
        }
    }

    /// The only voter stands for election at once: there is nobody to wait for. Not before what is
    /// committed is applied, since a change of the membership may be in it.
    pub(crate) fn campaign_alone(&mut self) {
        let alone = self.conf_state.voters == [self.config.id];
        if alone && self.leader() == 0 && self.state.index() >= self.raft.raft.raft_log.committed {
            self.raft.campaign().unwrap_or_else(|e| panic!("raft refuses an election: {e}"));
        }
    }

    fn end_leases(&mut self) {
        if self.clock.now_ms < self.clock.lease_due {
            return;
        }
        self.clock.lease_due = self.clock.now_ms + LEASE_MS;
        self.state.auth().tokens().sweep(self.clock.now_ms);
        for id in self.state.lessor().expired(self.clock.now_ms, LEASES_MAX) {
            let revoke = LeaseRevokeRequest { id };
            let body = revoke.encode_to_vec();
            let header = self.own_header();
            self.propose_as_leader(&header, RequestKind::LeaseRevoke, &body);
        }
        self.write_down_leases();
    }

    /// The cluster's own requests are root's: nobody else may end every lease.
    fn own_header(&self) -> Header<'static> {
        let auth = self.state.auth();
        if auth.is_enabled() {
            Header { id: 0, username: ROOT, auth_revision: auth.revision() }
        } else {
            Header::default()
        }
    }

    /// What is left of long leases goes into the log from time to time, where the feature gate asks for it,
    /// so that a new leader does not begin their time anew.
    fn write_down_leases(&mut self) {
        let due = self.state.lessor().due_checkpoints(self.clock.now_ms, LEASES_MAX);
        if due.is_empty() {
            return;
        }
        let written = |(id, remaining_ttl)| LeaseCheckpoint { id, remaining_ttl };
        let checkpoints = due.iter().copied().map(written).collect();
        let body = LeaseCheckpointRequest { checkpoints }.encode_to_vec();
        if !self.propose_as_leader(&Header::default(), RequestKind::LeaseCheckpoint, &body) {
            self.state.lessor().forget_checkpoints(&due);
        }
    }

    /// A cluster whose members are all of this release is of this release's version, unless a downgrade is under
    /// way: then it is of the version that this leads to.
    fn publish_version(&mut self) {
        let members = self.state.members();
        let downgrade = members.downgrade();
        let target = if downgrade.enabled { downgrade.target_version.parse().ok() } else { None };
        let version = target.unwrap_or(ETCD.cluster());
        let agreed = members.version().is_some_and(|v| match target {
            Some(target) => v <= target,
            None => v >= version,
        });
        let alone = members.len() == 1;
        let started = members.get(self.config.id).is_some_and(Member::is_started);
        drop(members);
        let due = started && self.clock.now_ms >= self.clock.version_due;
        if agreed || !alone || !due {
            return;
        }
        self.clock.version_due = self.clock.now_ms + RETRY_MS;
        let body = ClusterVersionSetRequest { ver: version.to_string() }.encode_to_vec();
        self.propose_as_leader(&Header::default(), RequestKind::ClusterVersionSet, &body);
    }

    fn compact_step(&mut self, out: &mut Output<T>) {
        if !self.state.is_compacting() || self.clock.now_ms < self.clock.compaction_due {
            return;
        }
        self.clock.compaction_due = self.clock.now_ms + self.config.compaction_pause_ms;
        out.notes.push(Note::CompactionStep(self.state.compacts_index()));
        match self.state.compaction_step(self.config.compaction_batch) {
            Ok(Step::Again | Step::Idle) => {}
            Ok(Step::Waits) => self.committed.hurry = true,
            Ok(Step::Done(revision)) => self.compacted(revision, out),
            Err(error) => out.notes.push(Note::CompactionHashLost(error.to_string())),
        }
    }

    fn compacted(&mut self, revision: i64, out: &mut Output<T>) {
        out.notes.push(Note::Compacted(revision));
        // What the compaction deletes is in the next commit: callers who want it physical wait for that
        // one, not for one that is under way without it.
        let next = self.committed.taken + 1;
        let done = self.deferred.compactions.extract_if(.., |(at, ..)| *at <= revision);
        self.deferred.committing.extend(done.map(|(_, caller, reply)| (next, caller, reply)));
        self.committed.hurry |= !self.deferred.committing.is_empty();
    }
}
