//! `etcdserverpb.Cluster`: the member table, read and changed. Not here: the table (`etch_state::members`) and
//! raft's configuration (`etch_node`).

use std::rc::Rc;

use bytes::Bytes;
use etch_api::Error;
use etch_api::pb::etcdserverpb as pb;
use etch_api::pb::raftpb::ConfChangeType;
use etch_rpc::Status;
use etch_state::members::{Member, Members};
use prost::Message;

use super::{decode, status};
use crate::auth::claim::Claim;
use crate::config::urls;
use crate::driver::clock::unix_ms;
use crate::driver::inbox::Command;
use crate::log_warn;
use crate::net::Net;

/// A member, as answers show it.
fn shown(member: &Member) -> pb::Member {
    pb::Member {
        id: member.id,
        name: member.name.clone(),
        peer_ur_ls: member.peer_urls.clone(),
        client_ur_ls: member.client_urls.clone(),
        is_learner: member.is_learner,
    }
}

fn members(net: &Net) -> Vec<pb::Member> {
    net.member.members().iter().map(shown).collect()
}

/// These answers' headers name no revision, as in etcd.
fn header(net: &Net) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader {
        cluster_id: net.member.identity.cluster,
        member_id: net.member.identity.member,
        raft_term: net.member.view.term(),
        ..pb::ResponseHeader::default()
    })
}

fn encoded(response: &impl Message) -> Bytes {
    response.encode_to_vec().into()
}

/// `MemberList`.
pub async fn list(net: &Rc<Net>, claim: &Claim, message: Bytes) -> Result<Bytes, Status> {
    let request: pb::MemberListRequest = decode(&message)?;
    if request.linearizable {
        net.member.linearize().await.map_err(status)?;
    }
    claim.require_user(net).map_err(status)?;
    Ok(encoded(&pb::MemberListResponse { header: header(net), members: members(net) }))
}

/// `MemberAdd`.
pub async fn add(net: &Rc<Net>, claim: &Claim, message: Bytes) -> Result<Bytes, Status> {
    let request: pb::MemberAddRequest = decode(&message)?;
    let peer_urls =
        urls::parse_peer_urls(&request.peer_ur_ls).map_err(|_| status(Error::MemberBadUrls))?;
    claim.require_admin(net).map_err(status)?;
    let mut member = Member::new("", &peer_urls, "", Some(unix_ms() / 1000));
    member.is_learner = request.is_learner;
    check_add(net, &member).map_err(|error| refused(net, "add", member.id, error))?;
    let kind = if member.is_learner {
        ConfChangeType::ConfChangeAddLearnerNode
    } else {
        ConfChangeType::ConfChangeAddNode
    };
    change(net, kind, member.id, member.change_context(false)).await?;
    let response = pb::MemberAddResponse {
        header: header(net),
        member: Some(shown(&member)),
        members: members(net),
    };
    Ok(encoded(&response))
}

/// Of the voters but for this one: how many have started, and how many there are.
fn voters(table: &Members, except: u64) -> (usize, usize) {
    let voters = table.iter().filter(|m| !m.is_learner && m.id != except);
    voters.fold((0, 0), |(started, all), m| (started + usize::from(m.is_started()), all + 1))
}

fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// Voters that we are connected to, ourselves included.
const CONNECTED: usize = 1;

fn check_add(net: &Net, member: &Member) -> Result<(), Error> {
    let table = net.member.members();
    let limits = &net.member.limits;
    let (started, all) = voters(&table, 0);
    if limits.strict_reconfig_check {
        // The one exception: a cluster of one has to begin somewhere.
        let first = started == 1 && all == 1;
        if !member.is_learner && !first && started < majority(all + 1) {
            return Err(Error::MemberNotEnoughStarted);
        }
        if all > 1 && CONNECTED < majority(all + 1) {
            return Err(Error::Unhealthy);
        }
    }
    let learners = table.iter().filter(|m| m.is_learner).count();
    let taken = |m: &Member| {
        m.id == member.id || m.peer_urls.iter().any(|url| member.peer_urls.contains(url))
    };
    // One that is there already is refused for that, and not here.
    if member.is_learner && learners >= limits.max_learners && !table.iter().any(taken) {
        return Err(Error::TooManyLearners);
    }
    Ok(())
}

/// `MemberRemove`.
pub async fn remove(net: &Rc<Net>, claim: &Claim, message: Bytes) -> Result<Bytes, Status> {
    let request: pb::MemberRemoveRequest = decode(&message)?;
    claim.require_admin(net).map_err(status)?;
    check_remove(net, request.id).map_err(|error| refused(net, "remove", request.id, error))?;
    change(net, ConfChangeType::ConfChangeRemoveNode, request.id, Bytes::new()).await?;
    Ok(encoded(&pb::MemberRemoveResponse { header: header(net), members: members(net) }))
}

fn check_remove(net: &Net, id: u64) -> Result<(), Error> {
    let table = net.member.members();
    if !net.member.limits.strict_reconfig_check || table.get(id).is_some_and(|m| m.is_learner) {
        return Ok(());
    }
    let (started, left) = voters(&table, id);
    if started < majority(left) {
        return Err(Error::MemberNotEnoughStarted);
    }
    // Whoever is not there may go: it is no part of a majority.
    let (_, all) = voters(&table, 0);
    if id == net.member.identity.member && CONNECTED <= majority(all - 1) {
        return Err(Error::Unhealthy);
    }
    Ok(())
}

/// Logs a refusal as etcd does, and makes it the answer.
fn refused(net: &Net, what: &str, member: u64, error: Error) -> Status {
    log_warn!(
        net.member.log,
        "rejecting member change request",
        "change" => what,
        "requested-member-id" => format!("{member:x}"),
        "error" => error.message(),
    );
    status(error)
}

/// `MemberUpdate`.
pub async fn update(net: &Rc<Net>, claim: &Claim, message: Bytes) -> Result<Bytes, Status> {
    let request: pb::MemberUpdateRequest = decode(&message)?;
    claim.require_admin(net).map_err(status)?;
    let member = Member { id: request.id, peer_urls: request.peer_ur_ls, ..Member::default() };
    let context = member.change_context(false);
    change(net, ConfChangeType::ConfChangeUpdateNode, request.id, context).await?;
    Ok(encoded(&pb::MemberUpdateResponse { header: header(net), members: members(net) }))
}

/// `MemberPromote`. Only the leader knows how far a learner is, and one that nobody can reach is never in
/// step.
pub async fn promote(net: &Rc<Net>, claim: &Claim, message: Bytes) -> Result<Bytes, Status> {
    let request: pb::MemberPromoteRequest = decode(&message)?;
    claim.require_admin(net).map_err(status)?;
    net.member.wait_to_lead().await.map_err(status)?;
    let verdict = match net.member.members().get(request.id) {
        None => Error::MemberNotFound,
        Some(member) if member.id == net.member.identity.member => Error::MemberNotLearner,
        Some(_) => Error::LearnerNotReady,
    };
    net.member.metrics.server.learner_promotions_failed.add([verdict.message()], 1);
    Err(status(verdict))
}

async fn change(
    net: &Rc<Net>,
    kind: ConfChangeType,
    member: u64,
    context: Bytes,
) -> Result<(), Status> {
    let ask = |caller| Command::ProposeChange(kind, member, context, caller);
    net.member.ask(ask).await.map(drop).map_err(status)
}
