//! One entry after another: what each kind of request does to the tables, and what its caller is told.
//! Deterministic: it looks at the entry and the tables, never at the clock, the role, or who asked.
//!
//! Here: the dispatch, and what alarms and the quota refuse. Not here: transactions (`txn`), and how a
//! batch becomes durable (`state`).

use std::sync::Arc;

use bytes::Bytes;
use etch_api::decode::{Broken, decode_txn};
use etch_api::internal::{InternalEntry, RequestKind, decode_entry};
use etch_api::pb::etcdserverpb::{
    AlarmRequest, AlarmResponse, AlarmType, CompactionRequest, DeleteRangeRequest,
    LeaseCheckpointRequest, LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest, PutRequest,
    RangeRequest, TxnRequest, alarm_request::AlarmAction,
};
use etch_api::pb::membershippb::{
    Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest, DowngradeInfoSetRequest,
};
use etch_api::{Error, KeyRange};
use prost::{Message, Name};

use crate::auth::{View, Who};
use crate::lease::Lessor;
use crate::members::Downgrade;
use crate::mvcc::WriteBatch;
use crate::state::Tables;
use crate::txn::Reply;
use crate::version::Version;
use crate::{quota, txn};

/// What an entry brings about beside its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// It was applied, but the quota is spent: the alarm is to be raised before the caller is told.
    QuotaExceeded,
    /// An alarm went up or down.
    AlarmsChanged,
    /// A compaction to this revision has begun.
    Compaction(i64),
    /// The cluster version was set.
    ClusterVersion {
        /// What it is now.
        version: Version,
        /// It was higher before.
        lowered: bool,
    },
}

/// The outcome of one entry.
#[derive(Clone, Debug)]
pub struct Done {
    /// Pairs it with its caller.
    pub id: u64,
    /// What the caller is told.
    pub result: Result<Reply, Error>,
    /// What else it brings about.
    pub effect: Effect,
    /// What was asked; none if we do not know such a request.
    pub kind: Option<RequestKind>,
}

pub(crate) type Outcome = Result<(Reply, Effect), Error>;

/// One batch being applied: the keys' writer, open, and the other tables.
pub(crate) struct Applying<'a> {
    pub batch: WriteBatch<'a>,
    pub tables: &'a Tables,
    /// Who may do what, as of the last entry.
    pub auth: Arc<View>,
}

impl Applying<'_> {
    /// Applies the entry at this index.
    pub fn apply(&mut self, index: u64, entry: &InternalEntry) -> Done {
        let (result, effect) = match self.dispatch(index, entry) {
            Ok((reply, effect)) => (Ok(reply), effect),
            Err(why) => (Err(why), Effect::None),
        };
        Done { id: entry.id, result, effect, kind: entry.kind }
    }

    fn dispatch(&mut self, index: u64, entry: &InternalEntry) -> Outcome {
        let Some(kind) = entry.kind else { return Ok((self.reply(Bytes::new()), Effect::None)) };
        if self.tables.is_corrupt() && is_refused_when_corrupt(kind) {
            return Err(Error::Corrupt);
        }
        let body = &entry.body;
        let who = Who { username: entry.username(), revision: entry.auth_revision };
        match kind {
            RequestKind::Put => self.put(who, &decode(body)),
            RequestKind::Range => self.range(who, &decode(body)),
            RequestKind::DeleteRange => self.delete_range(who, &decode(body)),
            RequestKind::Txn => self.txn(who, &sound(decode_txn(body))),
            RequestKind::Compaction => self.compact(&decode(body)),
            RequestKind::LeaseGrant => self.grant(&decode(body)),
            RequestKind::LeaseRevoke => self.revoke(who, &decode(body)),
            RequestKind::LeaseCheckpoint => self.checkpoint(&decode(body)),
            RequestKind::Alarm => Ok(self.alarm(&decode(body))),
            RequestKind::ClusterVersionSet => Ok(self.set_version(&decode(body))),
            RequestKind::ClusterMemberAttrSet => Ok(self.set_attributes(decode(body))),
            RequestKind::DowngradeInfoSet => Ok(self.set_downgrade(decode(body))),
            // For tests of etcd's own: it only has to be survived.
            RequestKind::DowngradeVersionTest => Ok((self.reply(Bytes::new()), Effect::None)),
            kind => self.auth_entry(kind, body, who, index),
        }
    }

    pub(crate) fn reply(&self, body: Bytes) -> Reply {
        Reply { revision: self.batch.revision(), body }
    }

    /// Refuses under the NOSPACE alarm what would take room, and notes where the quota is passed.
    fn check_room(&self, cost: u64) -> Result<Effect, Error> {
        if cost == 0 {
            return Ok(Effect::None);
        }
        if self.tables.is_out_of_space() {
            return Err(Error::NoSpace);
        }
        Ok(if self.tables.quota.allows(cost) { Effect::None } else { Effect::QuotaExceeded })
    }

    fn put(&mut self, who: Who<'_>, request: &PutRequest) -> Outcome {
        let effect = self.check_room(quota::put_cost(request))?;
        self.auth.check_put(who, &self.tables.lessor, request)?;
        let mut leases: &Lessor = &self.tables.lessor;
        Ok((txn::put(&mut self.batch, &mut leases, request)?, effect))
    }

    fn range(&mut self, who: Who<'_>, request: &RangeRequest) -> Outcome {
        self.auth.check_range(who, request)?;
        Ok((txn::range(&mut self.batch, request)?, Effect::None))
    }

    fn delete_range(&mut self, who: Who<'_>, request: &DeleteRangeRequest) -> Outcome {
        self.auth.check_delete(who, request)?;
        let mut leases: &Lessor = &self.tables.lessor;
        Ok((txn::delete_range(&mut self.batch, &mut leases, request)?, Effect::None))
    }

    fn txn(&mut self, who: Who<'_>, request: &TxnRequest) -> Outcome {
        let effect = self.check_room(quota::txn_cost(request))?;
        self.auth.check_txn(who, &self.tables.lessor, request)?;
        let mut leases: &Lessor = &self.tables.lessor;
        Ok((txn::txn(&mut self.batch, &mut leases, request)?, effect))
    }

    fn compact(&mut self, request: &CompactionRequest) -> Outcome {
        self.batch.compact(request.revision)?;
        // etcd learns the revision for its answer by reading a range, and counts that.
        self.batch.stats().ranges.add(1);
        Ok((self.reply(Bytes::new()), Effect::Compaction(request.revision)))
    }

    fn grant(&mut self, request: &LeaseGrantRequest) -> Outcome {
        let effect = self.check_room(quota::LEASE_COST)?;
        let lessor = &self.tables.lessor;
        let ttl = lessor.grant(request.id, request.ttl, self.batch.pending_mut())?;
        let response = LeaseGrantResponse { id: request.id, ttl, ..LeaseGrantResponse::default() };
        Ok((self.reply(response.encode_to_vec().into()), effect))
    }

    /// The lease goes, and all its keys with it, in one revision.
    fn revoke(&mut self, who: Who<'_>, request: &LeaseRevokeRequest) -> Outcome {
        let lessor = &self.tables.lessor;
        self.auth.check_lease_writes(who, lessor, request.id)?;
        let keys = lessor.revoke(request.id, self.batch.pending_mut())?;
        let mut leases: &Lessor = lessor;
        self.batch.txn_begin();
        for key in keys {
            self.batch.delete_range(&mut leases, &KeyRange::Single(key));
        }
        self.batch.txn_end();
        Ok((self.reply(Bytes::new()), Effect::None))
    }

    fn checkpoint(&mut self, request: &LeaseCheckpointRequest) -> Outcome {
        let lessor = &self.tables.lessor;
        for checkpoint in &request.checkpoints {
            let (id, remaining) = (checkpoint.id, checkpoint.remaining_ttl);
            if !lessor.exists(id) {
                return Err(Error::LeaseNotFound);
            }
            lessor.checkpoint(
                id,
                remaining,
                self.tables.persist_checkpoints,
                self.batch.pending_mut(),
            );
        }
        Ok((self.reply(Bytes::new()), Effect::None))
    }

    fn alarm(&mut self, request: &AlarmRequest) -> (Reply, Effect) {
        let kind = AlarmType::try_from(request.alarm).unwrap_or(AlarmType::None);
        let mut table = self.tables.alarms_mut();
        let batch = self.batch.pending_mut();
        let (alarms, effect) = match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Activate) if kind != AlarmType::None => {
                (vec![table.activate(request.member_id, kind, batch)], Effect::AlarmsChanged)
            }
            Ok(AlarmAction::Deactivate) => {
                let down = table.deactivate(request.member_id, kind, batch);
                (down.into_iter().collect(), Effect::AlarmsChanged)
            }
            Ok(AlarmAction::Get) => (table.list(kind), Effect::None),
            _ => (Vec::new(), Effect::None),
        };
        self.tables.flags.set(&table);
        drop(table);
        let response = AlarmResponse { alarms, ..AlarmResponse::default() };
        (self.reply(response.encode_to_vec().into()), effect)
    }

    fn set_version(&mut self, request: &ClusterVersionSetRequest) -> (Reply, Effect) {
        let version = request
            .ver
            .parse()
            .unwrap_or_else(|()| panic!("`{}` was proposed as a cluster version", request.ver));
        let mut members = self.tables.members_mut();
        let lowered = members.version().is_some_and(|before| version < before);
        members.set_version(version, self.batch.pending_mut());
        drop(members);
        (self.reply(Bytes::new()), Effect::ClusterVersion { version, lowered })
    }

    fn set_attributes(&mut self, request: ClusterMemberAttrSetRequest) -> (Reply, Effect) {
        let Attributes { name, client_urls } = request.member_attributes.unwrap_or_default();
        let batch = self.batch.pending_mut();
        self.tables.members_mut().set_attributes(request.member_id, name, client_urls, batch);
        (self.reply(Bytes::new()), Effect::None)
    }

    fn set_downgrade(&mut self, request: DowngradeInfoSetRequest) -> (Reply, Effect) {
        let target_version = if request.enabled { request.ver } else { String::new() };
        let downgrade = Downgrade { target_version, enabled: request.enabled };
        self.tables.members_mut().set_downgrade(downgrade, self.batch.pending_mut());
        (self.reply(Bytes::new()), Effect::None)
    }
}

/// An entry that was committed. One that cannot be read is a broken log.
pub(crate) fn read_entry(index: u64, data: &Bytes) -> InternalEntry {
    decode_entry(data)
        .unwrap_or_else(|e| panic!("invariant I3: entry {index} is committed and no request: {e}"))
}

pub(crate) fn decode<M: Message + Default + Name>(body: &Bytes) -> M {
    sound(etch_api::decode::decode(body))
}

/// A committed body was decoded before it was proposed, here or by whoever wrote the log.
fn sound<M>(decoded: Result<M, Broken>) -> M {
    decoded.unwrap_or_else(|e| panic!("invariant I3: a committed request is broken: {e}"))
}

/// With the CORRUPT alarm up no member may touch or show data; alarms themselves still work.
fn is_refused_when_corrupt(kind: RequestKind) -> bool {
    matches!(
        kind,
        RequestKind::Put
            | RequestKind::Range
            | RequestKind::DeleteRange
            | RequestKind::Txn
            | RequestKind::Compaction
            | RequestKind::LeaseGrant
            | RequestKind::LeaseRevoke
    )
}
