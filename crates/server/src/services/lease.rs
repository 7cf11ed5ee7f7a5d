//! `etcdserverpb.Lease`. Grants and revokes go through the log; a keep-alive touches only memory, on the
//! thread of its connection. Not here: leases themselves (`etch_state::lease`).

use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use etch_api::Error;
use etch_api::internal::RequestKind;
use etch_api::pb::etcdserverpb as pb;
use etch_rpc::{CallInfo, MessageStream, Reply, Status, StreamSender};
use etch_state::Reply as Done;
use etch_state::auth::{View, Who};
use etch_state::lease::RenewError;
use etch_state::quota;
use etch_state::watch::Wake;
use prost::Message as _;
use tokio::sync::Notify;

use super::kv::refuse_for_space;
use super::methods::Method;
use super::{decode, decode_streamed, status};
use crate::auth::claim::Claim;
use crate::net::Net;

/// `LeaseGrant`. A lease without an id gets one here, so that the entry names it for every member.
pub fn grant(net: &Rc<Net>, began_ms: u64, claim: &Claim, message: Bytes, reply: Reply) {
    let mut request = match decode::<pb::LeaseGrantRequest>(&message) {
        Ok(request) => request,
        Err(status) => return net.fail(Method::LeaseGrant, began_ms, reply, status),
    };
    if !net.member.quota.allows(quota::LEASE_COST) {
        return refuse_for_space(net, Method::LeaseGrant, began_ms, reply);
    }
    if let Err(error) = claim.require_user(net) {
        return net.fail(Method::LeaseGrant, began_ms, reply, status(error));
    }
    let mut body = message;
    if request.id == 0 {
        request.id = net.member.next_lease_id();
        body = request.encode_to_vec().into();
    }
    net.propose_as(claim, RequestKind::LeaseGrant, body, Method::LeaseGrant, reply);
}

/// `LeaseRevoke`.
pub fn revoke(net: &Rc<Net>, began_ms: u64, claim: &Claim, message: Bytes, reply: Reply) {
    let checked = decode::<pb::LeaseRevokeRequest>(&message)
        .and_then(|_| claim.require_user(net).map_err(status));
    match checked {
        Ok(()) => {
            net.propose_as(claim, RequestKind::LeaseRevoke, message, Method::LeaseRevoke, reply);
        }
        Err(status) => net.fail(Method::LeaseRevoke, began_ms, reply, status),
    }
}

/// `LeaseTimeToLive`. An unknown lease has -1 seconds to live, and that is no error.
pub fn time_to_live(net: &Net, claim: &Claim, message: Bytes) -> Result<Done, Status> {
    let request: pb::LeaseTimeToLiveRequest = decode(&message)?;
    let lessor = &net.member.lessor;
    claim.require_user(net).map_err(status)?;
    if request.keys {
        let check = |view: &View, who: Who<'_>| view.check_lease_reads(who, lessor, request.id);
        claim.require(net, check).map_err(status)?;
    }
    let ttl = lessor.time_to_live(request.id, net.member.clock.now_ms());
    let response = pb::LeaseTimeToLiveResponse {
        header: None,
        id: request.id,
        ttl: ttl.unwrap_or(-1),
        granted_ttl: lessor.granted_ttl(request.id).unwrap_or(0),
        keys: if request.keys { lessor.keys(request.id).unwrap_or_default() } else { Vec::new() },
    };
    if request.keys {
        claim.still(net).map_err(status)?;
    }
    Ok(Done { revision: net.member.store.revision(), body: response.encode_to_vec().into() })
}

/// `LeaseLeases`: for those who may see every key of every lease.
pub fn leases(net: &Net, claim: &Claim) -> Result<Done, Status> {
    let lessor = &net.member.lessor;
    let ids = lessor.leases(net.member.clock.now_ms());
    let check = |view: &View, who: Who<'_>| {
        ids.iter().try_for_each(|id| view.check_lease_reads(who, lessor, *id))
    };
    claim.require_user(net).and_then(|()| claim.require(net, check)).map_err(status)?;
    claim.still(net).map_err(status)?;
    let leases = ids.into_iter().map(|id| pb::LeaseStatus { id }).collect();
    let response = pb::LeaseLeasesResponse { header: None, leases };
    Ok(Done { revision: net.member.store.revision(), body: response.encode_to_vec().into() })
}

/// `LeaseKeepAlive`: an answer for each request, with 0 seconds for a lease that is not there.
pub async fn keep_alive(
    net: Rc<Net>,
    call: &CallInfo,
    mut messages: MessageStream,
    sender: StreamSender,
) -> Status {
    match keep_alives(&net, call, &mut messages, &sender).await {
        Ok(()) => Status::OK,
        Err(status) => status,
    }
}

async fn keep_alives(
    net: &Rc<Net>,
    call: &CallInfo,
    messages: &mut MessageStream,
    sender: &StreamSender,
) -> Result<(), Status> {
    let counts = &net.member.metrics.grpc;
    while let Some(message) = messages.next().await? {
        counts.received(Method::LeaseKeepAlive, 1);
        let request: pb::LeaseKeepAliveRequest = decode_streamed(&message)?;
        let claim = Claim::of(net, call);
        let lessor = &net.member.lessor;
        let check = |view: &View, who: Who<'_>| view.check_lease_writes(who, lessor, request.id);
        claim.require_user(net).and_then(|()| claim.require(net, check)).map_err(status)?;
        let ttl = renew(net, request.id).await.map_err(status)?;
        let response = pb::LeaseKeepAliveResponse { header: None, id: request.id, ttl };
        let done =
            Done { revision: net.member.store.revision(), body: response.encode_to_vec().into() };
        let mut out = BytesMut::new();
        net.member.encode(&done, &mut out);
        sender.send(out.freeze()).await?;
        counts.sent(Method::LeaseKeepAlive, 1);
    }
    Ok(())
}

/// Renews a lease. One that has run out is being revoked, and is gone once that is done: to answer before
/// that would tell the client of a lease that it does not have, or of none while its keys are still there.
async fn renew(net: &Rc<Net>, id: i64) -> Result<i64, Error> {
    loop {
        // Only the leader renews, and one that does not know yet that another leads must not: that one would
        // not hear of it, and end the lease before its time.
        net.member.wait_to_lead().await?;
        net.member.linearize().await?;
        match net.member.lessor.renew(id, net.member.clock.now_ms()) {
            Ok(ttl) => return Ok(ttl),
            Err(RenewError::NotFound) => return Ok(0),
            Err(RenewError::NotPrimary) => {}
            Err(RenewError::Expired) => revoked(net, id).await,
            Err(RenewError::Checkpointed) => forget_checkpoint(net, id).await?,
        }
    }
}

async fn revoked(net: &Rc<Net>, id: i64) {
    let notified = Arc::new(Revoked::default());
    if net.member.lessor.wait_revoked(id, Arc::clone(&notified) as Arc<dyn Wake>) {
        notified.0.notified().await;
    }
}

/// Wakes a task when a lease is gone.
#[derive(Default)]
struct Revoked(Notify);

impl Wake for Revoked {
    fn wake(&self) {
        self.0.notify_one();
    }
}

/// A lease that is renewed has its whole time again: the note of what was left goes first.
async fn forget_checkpoint(net: &Rc<Net>, id: i64) -> Result<(), Error> {
    let checkpoints = vec![pb::LeaseCheckpoint { id, remaining_ttl: 0 }];
    let body = pb::LeaseCheckpointRequest { checkpoints }.encode_to_vec().into();
    net.member.propose(RequestKind::LeaseCheckpoint, body).await.map(drop)
}
