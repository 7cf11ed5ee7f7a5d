//! `v3electionpb.Election`: whoever's key under the name is the oldest leads, and its value is what it
//! proclaims. Not here: standing in line (`line`), which locks do as well.

use std::rc::Rc;

use bytes::Bytes;
use etch_api::line;
use etch_api::pb::etcdserverpb::ResponseHeader;
use etch_api::pb::mvccpb::KeyValue;
use etch_api::pb::mvccpb::event::EventType;
use etch_api::pb::v3electionpb as pb;
use etch_api::range::prefix_end;
use etch_rpc::{CallInfo, Code, MessageStream, Status, StreamSender};
use prost::Message as _;

use super::line::{Caller, Standing, Watching, plain, revision};
use super::methods::Method;
use super::{decode, decode_streamed};
use crate::net::Net;

const NO_LEADER: &str = "election: no leader";
const NOT_LEADER: &str = "election: not leader";
const NO_LEADER_KEY: &str = "\"leader\" field must be provided";
/// etcd's own service would announce the victory of a key that is gone.
const EXPIRED: &str = "election: session is expired";

fn refused(why: &'static str) -> Status {
    Status::new(Code::Unknown, why)
}

/// `Campaign`: answers once the caller leads.
pub async fn campaign(net: &Rc<Net>, call: &CallInfo, message: &Bytes) -> Result<Bytes, Status> {
    let request: pb::CampaignRequest = decode(message)?;
    stand(Caller::new(net, call), request).await.map_err(plain)
}

async fn stand(caller: Caller, request: pb::CampaignRequest) -> Result<Bytes, Status> {
    let lease = caller.lease(request.lease).await?;
    let prefix = line::prefix(&request.name);
    let (standing, joined, header) =
        Standing::join(caller, &prefix, request.value.clone(), lease).await?;
    if joined.before.is_some_and(|before| before != request.value) {
        let announce = line::proclaim(&standing.key, joined.created, request.value, lease);
        if !standing.caller.txn(&announce).await?.succeeded {
            return Err(refused(NOT_LEADER));
        }
    }
    if !joined.is_first && !standing.wait(&prefix).await?.0 {
        return Err(refused(EXPIRED));
    }
    let leader = pb::LeaderKey {
        name: request.name,
        key: standing.key.clone(),
        rev: standing.created,
        lease,
    };
    standing.keep();
    Ok(pb::CampaignResponse { header, leader: Some(leader) }.encode_to_vec().into())
}

/// `Proclaim`: another value, while the caller leads.
pub async fn proclaim(net: &Rc<Net>, call: &CallInfo, message: &Bytes) -> Result<Bytes, Status> {
    let request: pb::ProclaimRequest = decode(message)?;
    let leader = request.leader.ok_or_else(|| refused(NO_LEADER_KEY))?;
    let caller = Caller::new(net, call);
    let lease = caller.lease(leader.lease).await.map_err(plain)?;
    let announce = line::proclaim(&leader.key, leader.rev, request.value, lease);
    let answer = caller.txn(&announce).await.map_err(plain)?;
    if !answer.succeeded {
        return Err(refused(NOT_LEADER));
    }
    Ok(pb::ProclaimResponse { header: answer.header }.encode_to_vec().into())
}

/// `Resign`: the next one in line leads. Who does not lead has nothing to resign, and that is no error.
pub async fn resign(net: &Rc<Net>, call: &CallInfo, message: &Bytes) -> Result<Bytes, Status> {
    let request: pb::ResignRequest = decode(message)?;
    let leader = request.leader.ok_or_else(|| refused(NO_LEADER_KEY))?;
    let leave = line::leave(&leader.key, leader.rev);
    let answer = Caller::new(net, call).txn(&leave).await.map_err(plain)?;
    Ok(pb::ResignResponse { header: answer.header }.encode_to_vec().into())
}

/// `Leader`: who leads now, and what it proclaims.
pub async fn leader(net: &Rc<Net>, call: &CallInfo, message: &Bytes) -> Result<Bytes, Status> {
    let request: pb::LeaderRequest = decode(message)?;
    let head = line::head(&line::prefix(&request.name));
    let read = Caller::new(net, call).range(&head).await.map_err(plain)?;
    let kv = read.kvs.into_iter().next().ok_or_else(|| refused(NO_LEADER))?;
    Ok(encoded(read.header, kv))
}

fn encoded(header: Option<ResponseHeader>, kv: KeyValue) -> Bytes {
    pb::LeaderResponse { header, kv: Some(kv) }.encode_to_vec().into()
}

/// `Observe`: every leader from now on, and what it proclaims.
pub async fn observe(
    net: Rc<Net>,
    call: &CallInfo,
    mut messages: MessageStream,
    sender: StreamSender,
) -> Status {
    match follow(&net, call, &mut messages, &sender).await {
        Ok(()) => Status::OK,
        Err(status) => plain(status),
    }
}

async fn follow(
    net: &Rc<Net>,
    call: &CallInfo,
    messages: &mut MessageStream,
    sender: &StreamSender,
) -> Result<(), Status> {
    let no_request = || Status::new(Code::Internal, "no request");
    let message = messages.next().await?.ok_or_else(no_request)?;
    let counts = &net.member.metrics.grpc;
    counts.received(Method::Observe, 1);
    let request: pb::LeaderRequest = decode_streamed(&message)?;
    let prefix = line::prefix(&request.name);
    let first = Caller::new(net, call);
    loop {
        let caller = first.renewed();
        let read = caller.range(&line::head(&prefix)).await?;
        let from = revision(read.header.as_ref()) + 1;
        let Some(kv) = read.kvs.into_iter().next() else {
            somebody_stands(&caller, &prefix, from).await?;
            continue;
        };
        let key = kv.key.clone();
        sender.send(encoded(read.header, kv)).await?;
        counts.sent(Method::Observe, 1);
        until_gone(&first, &key, from, sender).await?;
    }
}

/// Waits until there is a key in the line, or reason to look again.
async fn somebody_stands(caller: &Caller, prefix: &Bytes, from: i64) -> Result<(), Status> {
    let mut watching = Watching::new(&caller.net);
    watching.range(caller, prefix, &prefix_end(prefix), from)?;
    loop {
        for response in watching.next().await? {
            if response.canceled || response.events.iter().any(|e| e.r#type() == EventType::Put) {
                return Ok(());
            }
        }
    }
}

/// Sends what the leader proclaims, until its key is gone or there is reason to look again.
async fn until_gone(
    first: &Caller,
    key: &Bytes,
    from: i64,
    sender: &StreamSender,
) -> Result<(), Status> {
    let mut watching = Watching::new(&first.net);
    watching.key(&first.renewed(), key, from)?;
    loop {
        for response in watching.next().await? {
            // It may have lost its permission since.
            first
                .renewed()
                .claim
                .require(&first.net, |view, who| view.check_watch(who, key, &[]))
                .map_err(super::status)?;
            if response.canceled {
                return Ok(());
            }
            for event in response.events {
                if event.r#type() == EventType::Delete {
                    return Ok(());
                }
                if let Some(kv) = event.kv {
                    sender.send(encoded(response.header, kv)).await?;
                    first.net.member.metrics.grpc.sent(Method::Observe, 1);
                }
            }
        }
    }
}
