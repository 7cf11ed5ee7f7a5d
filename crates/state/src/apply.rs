//! One entry after another: what each kind of request does to the tables, and what its caller is told.
//! Deterministic: it looks at the entry and the tables, never at the clock, the role, or who asked.
//!
//! Here: the dispatch, and what alarms and the quota refuse. Not here: transactions (`txn`), and how a
//! batch becomes durable (`state`).

use bytes::{Bytes, BytesMut};
use etch_api::Error;
use etch_api::internal::{InternalEntry, RequestKind, decode_entry};
use etch_api::pb::etcdserverpb::{
    AlarmRequest, AlarmResponse, AlarmType, CompactionRequest, DeleteRangeRequest, LeaseCheckpointRequest,
    LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest, PutRequest, RangeRequest, TxnRequest,
    alarm_request::AlarmAction,
};
use etch_api::pb::membershippb::{
    ClusterMemberAttrSetRequest, ClusterVersionSetRequest, DowngradeInfoSetRequest,
};
use prost::Message;

use crate::members::Downgrade;
use crate::quota;
use crate::state::State;
use crate::version::Version;

/// What a caller is told. The body is the response message without its header: a protobuf message may
/// be put together from pieces, and only who sends it knows the rest of the header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The store's revision after the request.
    pub revision: i64,
    /// The encoded response but for field 1.
    pub body: Bytes,
}

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
    /// A member has published itself.
    Published(u64),
    /// The cluster version was set.
    ClusterVersion(Version),
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
}

type Outcome = Result<(Reply, Effect), Error>;

impl State {
    /// Applies one entry inside the open batch. An entry without data is a leader's first.
    pub(crate) fn apply_entry(&mut self, data: &Bytes, now_ms: u64) -> Option<Done> {
        if data.is_empty() {
            return None;
        }
        let entry = decode_entry(data)
            .unwrap_or_else(|e| panic!("invariant I3: a committed entry is no request: {e}"));
        let outcome = self.dispatch(&entry, now_ms);
        let (result, effect) = match outcome {
            Ok((reply, effect)) => (Ok(reply), effect),
            Err(why) => (Err(why), Effect::None),
        };
        Some(Done { id: entry.id, result, effect })
    }

    fn dispatch(&mut self, entry: &InternalEntry, now_ms: u64) -> Outcome {
        let Some(kind) = entry.kind else { return Ok((self.reply(Bytes::new()), Effect::None)) };
        let body = entry.body.clone();
        if self.alarms().is_up(AlarmType::Corrupt) && is_refused_when_corrupt(kind) {
            return Err(Error::Corrupt);
        }
        match kind {
            RequestKind::Put => self.apply_put(&decode(body)),
            RequestKind::Range => self.apply_range(&decode(body)),
            RequestKind::DeleteRange => self.apply_delete(&decode(body)),
            RequestKind::Txn => self.apply_txn(&decode(body)),
            RequestKind::Compaction => self.apply_compaction(&decode(body)),
            RequestKind::LeaseGrant => self.apply_grant(&decode(body), now_ms),
            RequestKind::LeaseRevoke => self.apply_revoke(&decode(body)),
            RequestKind::LeaseCheckpoint => self.apply_checkpoint(&decode(body)),
            RequestKind::Alarm => Ok(self.apply_alarm(&decode(body))),
            RequestKind::ClusterVersionSet => Ok(self.apply_version(&decode(body))),
            RequestKind::ClusterMemberAttrSet => Ok(self.apply_attributes(decode(body))),
            RequestKind::DowngradeInfoSet => Ok(self.apply_downgrade(decode(body))),
            // For tests of etcd's own: it only has to be survived.
            RequestKind::DowngradeVersionTest => Ok((self.reply(Bytes::new()), Effect::None)),
            // Users and roles: no entry of theirs can be there, since a directory with auth in use is
            // refused at the start and none of these calls is offered.
            _ => Err(Error::NotCapable),
        }
    }

    fn reply(&self, body: Bytes) -> Reply {
        Reply { revision: self.writing_revision(), body }
    }

    /// Refuses under the NOSPACE alarm what would take room, and notes where the quota is passed.
    fn check_room(&self, cost: u64) -> Result<Effect, Error> {
        if cost == 0 {
            return Ok(Effect::None);
        }
        if self.alarms().is_up(AlarmType::Nospace) {
            return Err(Error::NoSpace);
        }
        Ok(if self.quota_allows(cost) { Effect::None } else { Effect::QuotaExceeded })
    }

    fn apply_put(&mut self, request: &PutRequest) -> Outcome {
        let effect = self.check_room(quota::put_cost(request))?;
        Ok((self.with_txn(|txn| txn.put(request))?, effect))
    }

    fn apply_range(&mut self, request: &RangeRequest) -> Outcome {
        Ok((self.with_txn(|txn| txn.range(request))?, Effect::None))
    }

    fn apply_delete(&mut self, request: &DeleteRangeRequest) -> Outcome {
        Ok((self.with_txn(|txn| txn.delete_range(request))?, Effect::None))
    }

    fn apply_txn(&mut self, request: &TxnRequest) -> Outcome {
        let effect = self.check_room(quota::txn_cost(request))?;
        Ok((self.with_txn(|txn| txn.txn(request))?, effect))
    }

    fn apply_compaction(&mut self, request: &CompactionRequest) -> Outcome {
        self.begin_compaction(request.revision)?;
        Ok((self.reply(Bytes::new()), Effect::Compaction(request.revision)))
    }

    fn apply_grant(&mut self, request: &LeaseGrantRequest, now_ms: u64) -> Outcome {
        let effect = self.check_room(quota::LEASE_COST)?;
        let ttl = self.grant(request.id, request.ttl, now_ms)?;
        let response = LeaseGrantResponse { id: request.id, ttl, ..LeaseGrantResponse::default() };
        Ok((self.reply(response.encode_to_vec().into()), effect))
    }

    fn apply_revoke(&mut self, request: &LeaseRevokeRequest) -> Outcome {
        self.revoke(request.id)?;
        Ok((self.reply(Bytes::new()), Effect::None))
    }

    fn apply_checkpoint(&mut self, request: &LeaseCheckpointRequest) -> Outcome {
        for checkpoint in &request.checkpoints {
            self.checkpoint(checkpoint.id, checkpoint.remaining_ttl)?;
        }
        Ok((self.reply(Bytes::new()), Effect::None))
    }

    fn apply_alarm(&mut self, request: &AlarmRequest) -> (Reply, Effect) {
        let kind = AlarmType::try_from(request.alarm).unwrap_or(AlarmType::None);
        let (alarms, effect) = match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Activate) if kind != AlarmType::None => {
                (vec![self.activate_alarm(request.member_id, kind)], Effect::AlarmsChanged)
            }
            Ok(AlarmAction::Deactivate) => {
                let down = self.deactivate_alarm(request.member_id, kind);
                (down.into_iter().collect(), Effect::AlarmsChanged)
            }
            Ok(AlarmAction::Get) => (self.alarms().list(kind), Effect::None),
            _ => (Vec::new(), Effect::None),
        };
        let response = AlarmResponse { alarms, ..AlarmResponse::default() };
        (self.reply(response.encode_to_vec().into()), effect)
    }

    fn apply_version(&mut self, request: &ClusterVersionSetRequest) -> (Reply, Effect) {
        let version = request
            .ver
            .parse()
            .unwrap_or_else(|()| panic!("`{}` was proposed as a cluster version", request.ver));
        self.set_cluster_version(version);
        (self.reply(Bytes::new()), Effect::ClusterVersion(version))
    }

    fn apply_attributes(&mut self, request: ClusterMemberAttrSetRequest) -> (Reply, Effect) {
        let attributes = request.member_attributes.unwrap_or_default();
        self.set_member_attributes(request.member_id, attributes.name, attributes.client_urls);
        (self.reply(Bytes::new()), Effect::Published(request.member_id))
    }

    fn apply_downgrade(&mut self, request: DowngradeInfoSetRequest) -> (Reply, Effect) {
        let target_version = if request.enabled { request.ver } else { String::new() };
        self.set_downgrade(Downgrade { target_version, enabled: request.enabled });
        (self.reply(Bytes::new()), Effect::None)
    }
}

/// A committed body was decoded before it was proposed, here or by whoever wrote the log.
fn decode<M: Message + Default>(body: Bytes) -> M {
    M::decode(body).unwrap_or_else(|e| panic!("invariant I3: a committed request is broken: {e}"))
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

/// The encoded response without its header, out of a whole message that has none set.
pub(crate) fn body_of(message: &impl Message) -> Bytes {
    let mut out = BytesMut::with_capacity(message.encoded_len());
    message.encode(&mut out).expect("the buffer grows");
    out.freeze()
}
