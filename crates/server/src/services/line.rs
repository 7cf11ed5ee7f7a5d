//! What the lock and the election service share: the requests of `etch_api::line`, made on the store in the
//! caller's own name, and waiting for one's turn. Nothing leaves the process. Not here: the services
//! themselves (`lock`, `election`).

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use etch_api::Error;
use etch_api::internal::RequestKind;
use etch_api::line::{self, Joined};
use etch_api::pb::etcdserverpb as pb;
use etch_api::pb::mvccpb::event::EventType;
use etch_rpc::{CallInfo, Code, Status};
use etch_state::auth::{View, Who};
use etch_state::watch::{OutMessage, StreamState};
use etch_state::{quota, txn};
use prost::Message as _;

use super::kv::guarded;
use super::watch::{BUDGET, Place, sleep, stream_config};
use super::{internal, read_status, status};
use crate::auth::claim::Claim;
use crate::net::Net;

/// The time to live of the lease that a caller without one gets.
const TTL: i64 = 60;

/// The errors of these services have no code of their own: etcd's come out of a client, which has none.
pub fn plain(error: Status) -> Status {
    match error.code {
        Code::DeadlineExceeded | Code::Cancelled => error,
        _ => Status::new(Code::Unknown, error.message),
    }
}

/// Whoever called, and the store.
#[derive(Clone)]
pub struct Caller {
    pub(super) net: Rc<Net>,
    pub(super) claim: Claim,
}

impl Caller {
    /// Whoever made this call.
    pub fn new(net: &Rc<Net>, call: &CallInfo) -> Self {
        Self { net: Rc::clone(net), claim: Claim::of(net, call) }
    }

    /// The same, later: by the permissions of that time.
    pub fn renewed(&self) -> Self {
        Self { net: Rc::clone(&self.net), claim: self.claim.renewed(&self.net) }
    }

    /// A transaction through the log.
    pub async fn txn(&self, request: &pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
        let member = &self.net.member;
        txn::check_txn(request, member.limits.max_txn_ops).map_err(status)?;
        self.room(quota::txn_cost(request)).await?;
        let body = request.encode_to_vec().into();
        let done = member.propose_as(&self.claim, RequestKind::Txn, body).await.map_err(status)?;
        self.answer(&done)
    }

    /// Deletes a key.
    pub async fn delete(&self, key: Bytes) -> Result<pb::DeleteRangeResponse, Status> {
        let request = pb::DeleteRangeRequest { key, ..pb::DeleteRangeRequest::default() };
        txn::check_delete(&request).map_err(status)?;
        let (kind, body) = (RequestKind::DeleteRange, request.encode_to_vec().into());
        let done = self.net.member.propose_as(&self.claim, kind, body).await.map_err(status)?;
        self.answer(&done)
    }

    /// A linearizable read.
    pub async fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
        let net = &self.net;
        net.member.linearize().await.map_err(status)?;
        let found = guarded(
            net,
            &self.claim,
            |view, who| view.check_range(who, request),
            || net.member.store.range(request).map_err(|error| read_status(&error)),
        )?;
        let encoded = net.encode_range(found).map_err(|error| internal(&error))?.into_bytes()?;
        decoded(encoded)
    }

    /// The lease that was asked for, or a new one.
    pub async fn lease(&self, asked: i64) -> Result<i64, Status> {
        if asked != 0 {
            return Ok(asked);
        }
        let member = &self.net.member;
        self.room(quota::LEASE_COST).await?;
        self.claim.require_user(&self.net).map_err(status)?;
        let id = member.next_lease_id();
        let body = pb::LeaseGrantRequest { id, ttl: TTL }.encode_to_vec().into();
        member.propose_as(&self.claim, RequestKind::LeaseGrant, body).await.map_err(status)?;
        Ok(id)
    }

    async fn room(&self, cost: u64) -> Result<(), Status> {
        if self.net.member.quota.allows(cost) {
            return Ok(());
        }
        self.net.member.raise_no_space().await;
        Err(status(Error::NoSpace))
    }

    fn answer<M: prost::Message + Default>(&self, done: &etch_state::Reply) -> Result<M, Status> {
        let mut out = BytesMut::new();
        self.net.member.encode(done, &mut out);
        decoded(out.freeze())
    }
}

/// An answer of our own: that it cannot be read would be a fault of ours.
fn decoded<M: prost::Message + Default>(answer: Bytes) -> Result<M, Status> {
    M::decode(answer).map_err(|error| Status::new(Code::Internal, error.to_string()))
}

/// A key in a line. Whoever made it and stops waiting takes it away again; one that was there before stays.
pub struct Standing {
    pub(super) caller: Caller,
    pub(super) key: Bytes,
    pub(super) created: i64,
    leaves: bool,
}

impl Standing {
    /// Stands in line with the lease's key; with it what was found, and the header of the answer.
    pub async fn join(
        caller: Caller,
        prefix: &Bytes,
        value: Bytes,
        lease: i64,
    ) -> Result<(Self, Joined, Option<pb::ResponseHeader>), Status> {
        let key = line::key(prefix, lease);
        let answer = caller.txn(&line::join(prefix, &key, value, lease)).await?;
        let no_answer = || Status::new(Code::Internal, "an answer that is none");
        let joined = line::joined(&answer).ok_or_else(no_answer)?;
        let standing =
            Self { caller, key, created: joined.created, leaves: joined.before.is_none() };
        Ok((standing, joined, answer.header))
    }

    /// Waits until nobody stands before us. False if our key has gone meanwhile, or goes now: its lease has
    /// died, and what died is not granted anything (11456, 9921). The header is of the last look.
    pub async fn wait(&self, prefix: &Bytes) -> Result<(bool, Option<pb::ResponseHeader>), Status> {
        loop {
            let caller = self.caller.renewed();
            let before = caller.range(&line::before(prefix, self.created)).await?;
            // After the look at those before us: only then is the key that stands the one whose turn it is.
            let mine = caller.range(&line::whole(&self.key)).await?;
            if !line::still_stands(&mine, self.created) {
                return Ok((false, mine.header));
            }
            let Some(older) = before.kvs.into_iter().next() else {
                return Ok((true, mine.header));
            };
            let mut watching = Watching::new(&caller.net);
            watching.key(&caller, &older.key, revision(before.header.as_ref()) + 1)?;
            watching.key(&caller, &self.key, revision(mine.header.as_ref()) + 1)?;
            while !watching.next().await?.iter().any(ends_wait) {}
        }
    }

    /// Lets the key be from now on.
    pub fn keep(mut self) {
        self.leaves = false;
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        if !self.leaves {
            return;
        }
        let caller = self.caller.renewed();
        let leave = line::leave(&self.key, self.created);
        tokio::task::spawn_local(async move {
            // If it cannot be done, the key goes with its lease.
            let _ = caller.txn(&leave).await;
        });
    }
}

/// The revision of an answer.
pub fn revision(header: Option<&pb::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

/// Whether there is reason to look again: a key has gone, or its watcher has.
fn ends_wait(response: &pb::WatchResponse) -> bool {
    response.canceled || response.events.iter().any(|event| event.r#type() == EventType::Delete)
}

/// A watch stream of our own.
pub struct Watching {
    place: Place,
    state: StreamState,
    out: Vec<OutMessage>,
}

impl Watching {
    /// One that watches nothing yet.
    pub fn new(net: &Rc<Net>) -> Self {
        let place = Place::new(Rc::clone(net));
        let config = stream_config(net, place.token);
        let now = net.member.clock.now_ms();
        let state = StreamState::new(&net.member.hub, net.doorbell(), place.token, now, config);
        Self { place, state, out: Vec::new() }
    }

    /// Watches a key from a revision on, if the caller may.
    pub fn key(&mut self, caller: &Caller, key: &Bytes, from: i64) -> Result<(), Status> {
        self.range(caller, key, &Bytes::new(), from)
    }

    /// Watches a range from a revision on, if the caller may.
    pub fn range(
        &mut self,
        caller: &Caller,
        key: &Bytes,
        range_end: &Bytes,
        from: i64,
    ) -> Result<(), Status> {
        let create = pb::WatchCreateRequest {
            key: key.clone(),
            range_end: range_end.clone(),
            start_revision: from,
            ..pb::WatchCreateRequest::default()
        };
        let check = |view: &View, who: Who<'_>| view.check_watch(who, key, range_end);
        caller.claim.require(&caller.net, check).map_err(status)?;
        self.state.create(&create, Ok(()), caller.net.member.store.as_ref());
        Ok(())
    }

    /// What there is, once there is something.
    pub async fn next(&mut self) -> Result<Vec<pb::WatchResponse>, Status> {
        let member = &self.place.net.member;
        loop {
            self.state.tick(member.clock.now_ms());
            let more = self
                .state
                .poll(member.store.as_ref(), BUDGET, &mut self.out)
                .map_err(|e| Status::new(Code::Unavailable, e.to_string()))?;
            if !self.out.is_empty() {
                return self
                    .out
                    .drain(..)
                    .map(|message| whole(&self.place.net, &message))
                    .collect();
            }
            if more {
                tokio::task::yield_now().await;
                continue;
            }
            let patience =
                self.state.next_tick().map(|at| at.saturating_sub(member.clock.now_ms()));
            tokio::select! {
                () = self.place.rung.notified() => {}
                () = sleep(patience) => {}
            }
        }
    }
}

/// A message as a client would see it.
fn whole(net: &Net, message: &OutMessage) -> Result<pb::WatchResponse, Status> {
    let mut out = BytesMut::new();
    net.member.header.encode(message.revision, net.member.view.term(), &mut out, 1);
    message.encode_fields(&mut out);
    message.pieces().iter().for_each(|piece| out.extend_from_slice(piece));
    decoded(out.freeze())
}
