//! `etcdserverpb.KV`. Reads are answered here and now, on the thread of their connection; writes are checked
//! here and go through the log as the client's own bytes. Not here: what they do (`etch_state`).

use std::rc::Rc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use etch_api::Error;
use etch_api::decode::decode_txn;
use etch_api::internal::RequestKind;
use etch_api::pb::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest,
};
use etch_api::wire;
use etch_rpc::{CallInfo, Code, MessageStream, Payload, Reply, Status, StreamSender};
use etch_state::auth::{View, Who};
use etch_state::mvcc::Chunk;
use etch_state::{quota, txn};

use super::lazy::LazyRange;
use super::methods::Method;
use super::{broken, decode, decode_streamed, internal, read_status, status};
use crate::auth::claim::Claim;
use crate::driver::inbox::Command;
use crate::net::Net;

/// Answers up to this size are encoded whole; larger ones are made while they are sent.
const WHOLE: usize = 64 << 10;

/// `Range`.
pub fn range(net: &Rc<Net>, began_ms: u64, claim: Claim, message: Bytes, reply: Reply) {
    let request = match decode::<RangeRequest>(&message) {
        Ok(request) => request,
        Err(status) => return net.fail(Method::Range, began_ms, reply, status),
    };
    if let Err(error) = txn::check_range(&request) {
        return net.fail(Method::Range, began_ms, reply, status(error));
    }
    if request.serializable || net.member.view.is_lone_leader() {
        return answer_range(net, began_ms, &claim, &request, reply);
    }
    let net = Rc::clone(net);
    tokio::task::spawn_local(async move {
        match net.member.linearize().await {
            Ok(()) => answer_range(&net, began_ms, &claim, &request, reply),
            Err(error) => net.fail(Method::Range, began_ms, reply, status(error)),
        }
    });
}

fn answer_range(net: &Rc<Net>, began_ms: u64, claim: &Claim, request: &RangeRequest, reply: Reply) {
    let began = Instant::now();
    let found = guarded(
        net,
        claim,
        |view, who| view.check_range(who, request),
        || net.member.store.range(request).map_err(|error| read_status(&error)),
    );
    net.member.metrics.ops.ranged(found.is_ok(), began.elapsed());
    let found = match found {
        Ok(found) => found,
        Err(status) => return net.fail(Method::Range, began_ms, reply, status),
    };
    if found.encoded_len() > WHOLE {
        net.handled(Method::Range, began_ms, Code::Ok);
        return reply.ok(Payload::lazy(Box::new(LazyRange::new(net, found))));
    }
    match net.encode_range(found) {
        Ok(payload) => {
            net.handled(Method::Range, began_ms, Code::Ok);
            reply.ok(payload);
        }
        Err(error) => net.fail(Method::Range, began_ms, reply, internal(&error)),
    }
}

/// A read by somebody who may, under the permissions that were checked.
pub(super) fn guarded<T>(
    net: &Net,
    claim: &Claim,
    check: impl FnOnce(&View, Who<'_>) -> Result<(), Error>,
    read: impl FnOnce() -> Result<T, Status>,
) -> Result<T, Status> {
    claim.require(net, check).map_err(status)?;
    let found = read();
    claim.still(net).map_err(status)?;
    found
}

/// `Put`.
pub fn put(net: &Rc<Net>, began_ms: u64, claim: &Claim, message: Bytes, reply: Reply) {
    let request = match decode::<PutRequest>(&message) {
        Ok(request) => request,
        Err(status) => return net.fail(Method::Put, began_ms, reply, status),
    };
    if let Err(error) = txn::check_put(&request) {
        return net.fail(Method::Put, began_ms, reply, status(error));
    }
    if !net.member.quota.allows(quota::put_cost(&request)) {
        return refuse_for_space(net, Method::Put, began_ms, reply);
    }
    net.propose_as(claim, RequestKind::Put, message, Method::Put, reply);
}

/// No room: the alarm goes up, then the client is told.
pub fn refuse_for_space(net: &Rc<Net>, method: Method, began_ms: u64, reply: Reply) {
    let net = Rc::clone(net);
    tokio::task::spawn_local(async move {
        net.member.raise_no_space().await;
        net.fail(method, began_ms, reply, status(Error::NoSpace));
    });
}

/// `DeleteRange`.
pub fn delete_range(net: &Rc<Net>, began_ms: u64, claim: &Claim, message: Bytes, reply: Reply) {
    let checked = decode::<DeleteRangeRequest>(&message)
        .and_then(|request| txn::check_delete(&request).map_err(status));
    match checked {
        Ok(()) => {
            net.propose_as(claim, RequestKind::DeleteRange, message, Method::DeleteRange, reply)
        }
        Err(status) => net.fail(Method::DeleteRange, began_ms, reply, status),
    }
}

/// `Txn`. One that only reads does not go through the log.
pub fn txn(net: &Rc<Net>, began_ms: u64, claim: Claim, message: Bytes, reply: Reply) {
    let request = match decode_txn(&message) {
        Ok(request) => request,
        Err(error) => return net.fail(Method::Txn, began_ms, reply, broken(error)),
    };
    if let Err(error) = txn::check_txn(&request, net.member.limits.max_txn_ops) {
        return net.fail(Method::Txn, began_ms, reply, status(error));
    }
    if txn::is_read_only(&request) {
        return read_txn(net, began_ms, claim, request, reply);
    }
    if !net.member.quota.allows(quota::txn_cost(&request)) {
        return refuse_for_space(net, Method::Txn, began_ms, reply);
    }
    net.propose_as(&claim, RequestKind::Txn, message, Method::Txn, reply);
}

fn read_txn(net: &Rc<Net>, began_ms: u64, claim: Claim, request: TxnRequest, reply: Reply) {
    let answer = move |net: &Rc<Net>, claim: &Claim, request: &TxnRequest, reply: Reply| {
        let answer = guarded(
            net,
            claim,
            |view, who| view.check_txn(who, &net.member.lessor, request),
            || net.member.store.read_txn(request).map_err(|error| read_status(&error)),
        );
        net.conclude(Method::Txn, began_ms, reply, answer);
    };
    if txn::is_serializable(&request) || net.member.view.is_lone_leader() {
        return answer(net, &claim, &request, reply);
    }
    let net = Rc::clone(net);
    tokio::task::spawn_local(async move {
        match net.member.linearize().await {
            Ok(()) => answer(&net, &claim, &request, reply),
            Err(error) => net.fail(Method::Txn, began_ms, reply, status(error)),
        }
    });
}

/// `Compact`.
pub fn compact(net: &Rc<Net>, began_ms: u64, claim: &Claim, message: Bytes, reply: Reply) {
    let request = match decode::<CompactionRequest>(&message) {
        Ok(request) => request,
        Err(status) => return net.fail(Method::Compact, began_ms, reply, status),
    };
    if let Err(error) = claim.require_admin(net) {
        return net.fail(Method::Compact, began_ms, reply, status(error));
    }
    if request.physical {
        let caller = net.wait(Method::Compact, reply);
        net.command(Command::ProposePhysical(message, caller));
    } else {
        net.propose_as(claim, RequestKind::Compaction, message, Method::Compact, reply);
    }
}

/// `RangeStream`: the same answer in chunks, all of one revision.
pub async fn range_stream(
    net: Rc<Net>,
    call: &CallInfo,
    mut messages: MessageStream,
    sender: StreamSender,
) -> Status {
    match stream_chunks(&net, call, &mut messages, &sender).await {
        Ok(()) => Status::OK,
        Err(status) => status,
    }
}

async fn stream_chunks(
    net: &Rc<Net>,
    call: &CallInfo,
    messages: &mut MessageStream,
    sender: &StreamSender,
) -> Result<(), Status> {
    let Some(message) = messages.next().await? else {
        return Err(Status::new(
            Code::Internal,
            "cardinality violation: received no request message from non-server-streaming RPC",
        ));
    };
    net.member.metrics.grpc.received(Method::RangeStream, 1);
    let request: RangeRequest = decode_streamed(&message)?;
    txn::check_range_stream(&request).map_err(|refused| match refused {
        txn::StreamRefusal::Request(error) => status(error),
        txn::StreamRefusal::Unimplemented(why) => Status::new(Code::Unimplemented, why),
    })?;
    if !request.serializable {
        net.member.linearize().await.map_err(status)?;
    }
    let claim = Claim::of(net, call);
    claim.require(net, |view, who| view.check_range(who, &request)).map_err(status)?;
    let mut chunks = net.member.store.range_stream(&request, net.member.limits.max_request_bytes);
    while let Some(chunk) = chunks.next_chunk().map_err(|error| read_status(&error))? {
        // All chunks are of one revision; a caller whose permissions change gets no more of it.
        claim.still(net).map_err(status)?;
        sender.send(framed(net, chunk).map_err(|error| internal(&error))?).await?;
        net.member.metrics.grpc.sent(Method::RangeStream, 1);
    }
    claim.still(net).map_err(status)
}

/// One `RangeStreamResponse`: field 1 is a `RangeResponse`, whose header only the last one has.
fn framed(net: &Net, chunk: Chunk) -> std::io::Result<Payload> {
    let mut header = BytesMut::new();
    if let Some(revision) = chunk.header_revision {
        net.member.header.encode(revision, net.member.view.term(), &mut header, 1);
    }
    let mut head = BytesMut::with_capacity(header.len() + 11);
    wire::field_head(1, header.len() + chunk.reply.encoded_len(), &mut head);
    head.extend_from_slice(&header);
    Ok(Payload::pieces(vec![head.freeze(), chunk.reply.into_bytes()?]))
}
