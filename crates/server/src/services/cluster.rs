//! `etcdserverpb.Cluster`: the member table, read and changed. Not here: the table (`etch_state::members`) and
//! raft's configuration (`etch_node`).

use std::rc::Rc;

use bytes::Bytes;
use etch_api::Error;
use etch_api::pb::etcdserverpb as pb;
use etch_api::pb::raftpb::ConfChangeType;
use etch_rpc::Status;
use etch_state::members::Member;
use prost::Message;

use super::{decode, status};
use crate::config::urls;
use crate::driver::clock::unix_ms;
use crate::driver::inbox::Command;
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
pub async fn list(net: &Rc<Net>, message: Bytes) -> Result<Bytes, Status> {
    let request: pb::MemberListRequest = decode(message)?;
    if request.linearizable {
        net.member.linearize().await.map_err(status)?;
    }
    Ok(encoded(&pb::MemberListResponse { header: header(net), members: members(net) }))
}

/// `MemberAdd`. A learner is added as in any cluster. A voter is not: it would take away the majority until
/// it has started, and members of this release cannot reach one another.
pub async fn add(net: &Rc<Net>, message: Bytes) -> Result<Bytes, Status> {
    let request: pb::MemberAddRequest = decode(message)?;
    let peer_urls =
        urls::parse_peer_urls(&request.peer_ur_ls).map_err(|_| status(Error::MemberBadUrls))?;
    let mut member = Member::new("", &peer_urls, "", Some(unix_ms() / 1000));
    member.is_learner = request.is_learner;
    check_add(net, &member).map_err(status)?;
    let kind = ConfChangeType::ConfChangeAddLearnerNode;
    change(net, kind, member.id, member.change_context(false)).await?;
    let response = pb::MemberAddResponse {
        header: header(net),
        member: Some(shown(&member)),
        members: members(net),
    };
    Ok(encoded(&response))
}

fn check_add(net: &Net, member: &Member) -> Result<(), Error> {
    let table = net.member.members();
    if table.iter().any(|m| m.peer_urls.iter().any(|url| member.peer_urls.contains(url))) {
        return Err(Error::PeerUrlExist);
    }
    if !member.is_learner {
        return Err(Error::NotCapable);
    }
    if table.iter().filter(|m| m.is_learner).count() >= net.member.limits.max_learners {
        return Err(Error::TooManyLearners);
    }
    Ok(())
}

/// `MemberRemove`.
pub async fn remove(net: &Rc<Net>, message: Bytes) -> Result<Bytes, Status> {
    let request: pb::MemberRemoveRequest = decode(message)?;
    if request.id == net.member.identity.member {
        // The only voter: without it no majority is left.
        return Err(status(Error::MemberNotEnoughStarted));
    }
    change(net, ConfChangeType::ConfChangeRemoveNode, request.id, Bytes::new()).await?;
    Ok(encoded(&pb::MemberRemoveResponse { header: header(net), members: members(net) }))
}

/// `MemberUpdate`.
pub async fn update(net: &Rc<Net>, message: Bytes) -> Result<Bytes, Status> {
    let request: pb::MemberUpdateRequest = decode(message)?;
    let member = Member { id: request.id, peer_urls: request.peer_ur_ls, ..Member::default() };
    let context = member.change_context(false);
    change(net, ConfChangeType::ConfChangeUpdateNode, request.id, context).await?;
    Ok(encoded(&pb::MemberUpdateResponse { header: header(net), members: members(net) }))
}

/// `MemberPromote`. A learner that nobody can reach is never in step.
pub async fn promote(net: &Rc<Net>, message: Bytes) -> Result<Bytes, Status> {
    let request: pb::MemberPromoteRequest = decode(message)?;
    let verdict = match net.member.members().get(request.id) {
        None => Error::MemberNotFound,
        Some(member) if member.is_learner => Error::LearnerNotReady,
        Some(_) => Error::MemberNotLearner,
    };
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
