//! The end of a world: the faults are gone, and everything has to come right within a bounded time. There is a
//! leader, a write and a read pass, watches have said all there is to say, leases that ran out are gone. Here
//! also what members are asked about themselves. Not here: whether what they say is right (`judge`).

use bytes::Bytes;
use etch_api::internal::RequestKind;
use etch_api::pb::etcdserverpb::{self as pb, AlarmType, alarm_request::AlarmAction};
use prost::Message as _;

use super::member::{Caller, Command};
use super::workload::TTL_MAX;
use super::{Event, World};
use crate::history::{Observation, Outcome, Request, Response};
use crate::params::{MS, SECOND};

/// How long after the end of the faults all must be well.
const BOUND: u64 = 40 * SECOND;
/// Between two looks, on average.
const LOOK: u64 = 250 * MS;
/// Between two looks after alarms.
const KEEP: u64 = 5 * SECOND;
/// Leases that live longer than this are not waited for.
const LONG_TTL: i64 = 1000;

/// The write and the read that must pass at the end.
#[derive(Debug, Default)]
pub struct Probe {
    /// Revision of the write, once it has passed.
    written: Option<i64>,
    /// The read has seen it.
    read: bool,
    /// The client that probes; it has been made.
    client: Option<usize>,
}

impl World {
    /// The faults end here.
    pub(super) fn heal(&mut self) {
        self.healed = true;
        self.history.healed_ns = Some(self.now);
        self.end_faults();
        self.wake_readers();
        for member in 0..self.members.len() {
            self.wake_node(member);
        }
        self.after(LOOK, Event::Look);
    }

    /// Somebody who keeps the cluster looks after it from time to time.
    pub(super) fn keep(&mut self) {
        if !self.healed {
            self.clear_alarms();
            self.after(KEEP, Event::Keep);
        }
    }

    /// Is all well by now?
    pub(super) fn look(&mut self) {
        self.clear_alarms();
        let waits = self.what_is_wrong();
        let healed = self.history.healed_ns.unwrap_or(0);
        match waits {
            None => {
                self.mark_drained();
                for member in 0..self.members.len() {
                    self.observe(member);
                }
                self.done = true;
            }
            Some(why) if self.now > self.due_since(healed) + BOUND => {
                self.violation(format!(
                    "{} s after the last fault {why}",
                    (self.now - healed) / SECOND
                ));
            }
            Some(_) => {
                // Not at even intervals: notices of progress come at such, and one would always be on its way.
                let delay = LOOK / 2 + self.rng.below(LOOK);
                self.after(delay, Event::Look);
            }
        }
    }

    /// Since when all should be well. Readers with small windows may have a long history before them: as long as
    /// they are told something they have not been forgotten, and the history has an end.
    fn due_since(&self, healed: u64) -> u64 {
        match self.undrained_stream() {
            Some(_) => healed.max(self.last_event),
            None => healed,
        }
    }

    /// What is still to come.
    fn what_is_wrong(&mut self) -> Option<String> {
        for (number, m) in self.members.iter().enumerate() {
            match &m.process {
                None => return Some(format!("member {number} does not run")),
                Some(process) if !process.serving => {
                    return Some(format!("member {number} does not serve"));
                }
                Some(_) => {}
            }
        }
        let leader = self
            .members
            .iter()
            .position(|m| m.process.as_ref().is_some_and(|p| p.node.view().leader() == m.row.id));
        let Some(leader) = leader else { return Some("there is no leader".into()) };
        if let Some(why) = self.probe(leader) {
            return Some(why);
        }
        // Every process had a chance to let leases run out.
        let process = self.members[leader].process.as_ref()?;
        let lessor = process.node.state().lessor();
        let left = lessor.leases(self.members[leader].now_ms(self.now));
        if let Some(id) = left.iter().find(|id| lessor.granted_ttl(**id).unwrap_or(0) < LONG_TTL) {
            return Some(format!("lease {id} has not ended"));
        }
        if let Some(why) = self.undrained_stream() {
            return Some(format!("a watch has something to say: {why}"));
        }
        let settled = self.members.iter().all(|m| {
            m.process.as_ref().is_some_and(|p| p.node.view().applied() == self.record.last())
        });
        if !settled {
            return Some("a member has not applied everything".into());
        }
        // Once all that is done, the events of the last moment are given time to arrive.
        let quiet = self.now > self.history.healed_ns.unwrap_or(0) + TTL_MAX as u64 * SECOND;
        if quiet { None } else { Some("there was no time yet".into()) }
    }

    /// A write and a read, by a client that comes for this alone.
    fn probe(&mut self, leader: usize) -> Option<String> {
        let client = match self.probe.client {
            Some(client) => client,
            None => {
                let client = self.clients.len() - 1;
                // Its last request may still be open: then it waits.
                if self.clients[client].waits_for.is_some() {
                    return Some("a client waits for an answer".into());
                }
                self.probe.client = Some(client);
                client
            }
        };
        let key = Bytes::from_static(b"probe");
        if self.clients[client].waits_for.is_some() {
            return Some("the probe waits for an answer".into());
        }
        match self.probe.written {
            None => {
                // No value is put twice, nor this one if its outcome is not known.
                let value = format!("alive at {}", self.now).into();
                let put = pb::PutRequest { key, value, ..Default::default() };
                self.ask(client, leader, Request::Put(put));
                Some("no write has passed".into())
            }
            Some(_) if !self.probe.read => {
                let range = pb::RangeRequest { key, ..Default::default() };
                let member = self.rng.below(self.members.len() as u64) as usize;
                self.ask(client, member, Request::Range(range));
                Some("no read has passed".into())
            }
            Some(_) => None,
        }
    }

    /// What came of a probe.
    pub(super) fn probed(&mut self, client: usize, operation: usize) {
        if self.probe.client != Some(client) {
            return;
        }
        let written = self.probe.written;
        match &self.history.operations[operation].outcome {
            Outcome::Ok(Response::Put(put)) => {
                self.probe.written = put.header.as_ref().map(|h| h.revision);
            }
            Outcome::Ok(Response::Range(range)) => {
                // What was asked before the end may still arrive, and delete the probe: which keys are there is
                // the judges' to say.
                let revision = range.header.as_ref().map(|h| h.revision);
                let found = range.kvs.first().map(|kv| kv.mod_revision);
                if revision < written || found.is_some() && found < written {
                    self.violation("a read does not see the write before it".into());
                }
                self.probe.read = true;
            }
            _ => {}
        }
    }

    /// Somebody who keeps the cluster makes room, and takes alarms back.
    fn clear_alarms(&mut self) {
        let leader = self.members.iter().position(|m| {
            m.process.as_ref().is_some_and(|p| p.serving && p.node.view().leader() == m.row.id)
        });
        let Some(leader) = leader else { return };
        let Some(process) = &self.members[leader].process else { return };
        let state = process.node.state();
        let alarms =
            state.shared_alarms().read().map(|a| a.list(AlarmType::None)).unwrap_or_default();
        let revision = state.store().revision();
        for alarm in alarms {
            self.stats.count("alarms taken back");
            let compact = pb::CompactionRequest { revision, physical: false }.encode_to_vec();
            let request = pb::AlarmRequest {
                action: AlarmAction::Deactivate.into(),
                member_id: alarm.member_id,
                alarm: alarm.alarm,
            };
            let body = request.encode_to_vec();
            let keeper = Caller::Keeper;
            self.tell(leader, Command::Propose(RequestKind::Compaction, compact.into(), keeper));
            self.tell(leader, Command::Propose(RequestKind::Alarm, body.into(), keeper));
        }
    }

    /// What a member says of itself.
    pub(super) fn observe(&mut self, member: usize) {
        let m = &self.members[member];
        let Some(process) = &m.process else { return };
        let store = process.node.state().store();
        let all = Bytes::from_static(b"\0");
        let request = pb::RangeRequest { key: all.clone(), range_end: all, ..Default::default() };
        let keys = store.range(&request).ok().and_then(|reply| reply.into_bytes().ok());
        let keys = keys.and_then(|body| pb::RangeResponse::decode(body).ok()).map(|r| r.kvs);
        let hash = store.hash_kv(0).ok();
        let observation = Observation {
            member: m.row.id,
            at_ns: self.now,
            revision: store.revision(),
            compact_revision: store.compact_revision(),
            hash: hash.map(|h| (h.hash_revision, h.compact_revision, h.hash)),
            keys,
        };
        if observation.keys.is_none() || observation.hash.is_none() {
            return self.violation(format!("member {member} cannot read its own keys"));
        }
        self.history.observations.push(observation);
    }
}
