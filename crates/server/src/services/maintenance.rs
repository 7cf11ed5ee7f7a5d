//! `etcdserverpb.Maintenance`. Not here: snapshots (`snapshot`), hashing and the file itself (`etch_state`, `etch_disk`).

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etch_api::Error;
use etch_api::internal::RequestKind;
use etch_api::pb::etcdserverpb as pb;
use etch_api::pb::etcdserverpb::alarm_request::AlarmAction;
use etch_api::pb::etcdserverpb::downgrade_request::DowngradeAction;
use etch_api::pb::membershippb::DowngradeInfoSetRequest;
use etch_disk::backend::Backend;
use etch_rpc::{Code, Status};
use etch_state::Reply;
use etch_state::version::{ETCD, Version};
use prost::Message as _;

use super::{decode, internal, read_status, status};
use crate::auth::claim::Claim;
use crate::driver::inbox::Command;
use crate::log_info;
use crate::net::Net;

fn reply(net: &Net, body: &impl prost::Message) -> Reply {
    Reply { revision: net.member.store.revision(), body: body.encode_to_vec().into() }
}

/// `Alarm`: through the log, also to list them, as in etcd.
pub async fn alarm(net: &Rc<Net>, claim: &Claim, message: Bytes) -> Result<Reply, Status> {
    let request: pb::AlarmRequest = decode(&message)?;
    let permitted = match AlarmAction::try_from(request.action) {
        Ok(AlarmAction::Get) => claim.require_user(net),
        _ => claim.require_admin(net),
    };
    permitted.map_err(status)?;
    net.member.propose_as(claim, RequestKind::Alarm, message).await.map_err(status)
}

/// `Status`.
pub fn member_status(net: &Net) -> Reply {
    let member = &net.member;
    let (size, in_use) = member.sizes();
    let members = member.members();
    let mut errors = Vec::new();
    if member.view.leader() == 0 {
        errors.push(Error::NoLeader.message().to_owned());
    }
    errors.extend(member.alarms().list(pb::AlarmType::None).iter().map(alarm_text));
    let downgrade = members.downgrade();
    reply(
        net,
        &pb::StatusResponse {
            header: None,
            version: ETCD.to_string(),
            db_size: size as i64,
            leader: member.view.leader(),
            raft_index: member.view.committed(),
            raft_term: member.view.term(),
            raft_applied_index: member.view.applied(),
            errors,
            db_size_in_use: in_use as i64,
            is_learner: false,
            storage_version: members.storage_version().map_or_else(String::new, |v| v.to_string()),
            db_size_quota: member.quota.limit() as i64,
            downgrade_info: Some(pb::DowngradeInfo {
                enabled: downgrade.enabled,
                target_version: downgrade.target_version.clone(),
            }),
        },
    )
}

/// An alarm as Go prints the message: it is text that people read in `errors`.
fn alarm_text(alarm: &pb::AlarmMember) -> String {
    let kind = pb::AlarmType::try_from(alarm.alarm).unwrap_or(pb::AlarmType::None);
    format!("memberID:{} alarm:{} ", alarm.member_id, kind.as_str_name())
}

/// What etcd says of a hand-over that does not come about.
const TRANSFER_TOO_LONG: &str = "etcdserver: request timed out, leader transfer took too long";
/// A hand-over is looked for this often.
const LOOK_FOR_LEADER: Duration = Duration::from_millis(100);

/// Pages moved in one step of a defragmentation: what a commit that comes meanwhile waits for at the most.
const SHRINK_PAGES: usize = 256;
/// The longest pause between two steps.
const SHRINK_PAUSE: Duration = Duration::from_millis(100);
/// So many steps in a row that do not make the file smaller end it.
const SHRINK_IDLE: u32 = 8;

/// `Defragment`: the file shrinks while it serves; this only hurries it along, and waits.
pub async fn defragment(net: &Rc<Net>) -> Result<Bytes, Status> {
    log_info!(net.member.log, "starting defragment");
    // Deletes that wait make room first.
    net.member.commit_everything().await.map_err(status)?;
    let backend = Arc::clone(&net.member.backend);
    let (began, disk) = (Instant::now(), &net.member.metrics.disk);
    disk.defrag_inflight.add(1);
    let shrunk = net.member.defragmenting.run(move || shrink_all(backend.as_ref())).await;
    disk.defrag_inflight.add(-1);
    disk.backend_defrag.observe(began.elapsed());
    match shrunk.flatten() {
        Ok(()) => {
            log_info!(net.member.log, "finished defragment");
            Ok(Bytes::new())
        }
        Err(error) => Err(internal(&error)),
    }
}

/// Steps until nothing more comes of them. A value over many pages at the end of the file may find no room in one
/// piece further down, and moves to and fro for ever. Between two steps the disk is the log's for as long as the
/// last one took: its flushes wait for those of a step.
fn shrink_all(backend: &dyn Backend) -> io::Result<()> {
    let (mut smallest, mut idle) = (backend.size(), 0);
    let mut began = Instant::now();
    while idle < SHRINK_IDLE && backend.shrink(SHRINK_PAGES)?.more {
        let size = backend.size();
        idle = if size < smallest { 0 } else { idle + 1 };
        smallest = smallest.min(size);
        std::thread::sleep(began.elapsed().min(SHRINK_PAUSE));
        began = Instant::now();
    }
    Ok(())
}

/// `Hash`: of the whole file, with everything that is applied in it.
pub async fn hash(net: &Rc<Net>) -> Result<Reply, Status> {
    net.member.commit_everything().await.map_err(status)?;
    let store = Arc::clone(&net.member.store);
    let began = Instant::now();
    let hashed = tokio::task::spawn_blocking(move || store.hash()).await;
    net.member.metrics.mvcc.hash.observe(began.elapsed());
    let hashed = hashed.map_err(|_| status(Error::Stopped))?;
    let (hash, revision) = hashed.map_err(|e| internal(&e))?;
    let body = pb::HashResponse { header: None, hash }.encode_to_vec().into();
    Ok(Reply { revision, body })
}

/// `HashKV`.
pub async fn hash_kv(net: &Rc<Net>, message: Bytes) -> Result<Reply, Status> {
    let request: pb::HashKvRequest = decode(&message)?;
    let store = Arc::clone(&net.member.store);
    let began = Instant::now();
    let hashed = tokio::task::spawn_blocking(move || store.hash_kv(request.revision)).await;
    net.member.metrics.mvcc.hash_rev.observe(began.elapsed());
    let hashed = hashed.map_err(|_| status(Error::Stopped))?;
    let hashed = hashed.map_err(|error| read_status(&error))?;
    let response = pb::HashKvResponse {
        header: None,
        hash: hashed.hash,
        compact_revision: hashed.compact_revision,
        hash_revision: hashed.hash_revision,
    };
    Ok(Reply { revision: hashed.current_revision, body: response.encode_to_vec().into() })
}

/// `MoveLeader`. Only a voter of the cluster can lead, and only the leader hands over.
pub async fn move_leader(net: &Rc<Net>, message: Bytes) -> Result<Bytes, Status> {
    let request: pb::MoveLeaderRequest = decode(&message)?;
    let (sender, receiver) = tokio::sync::oneshot::channel();
    net.member.inbox.push(Command::TransferLeader(request.target_id, sender));
    receiver.await.unwrap_or(Err(Error::Stopped)).map_err(status)?;
    let limits = &net.member.limits;
    let deadline = net.member.clock.now_ms() + limits.request_timeout_ms;
    while net.member.view.leader() != request.target_id {
        if net.member.clock.now_ms() >= deadline {
            return Err(Status::new(Code::Unavailable, TRANSFER_TOO_LONG));
        }
        tokio::time::sleep(LOOK_FOR_LEADER).await;
    }
    Ok(Bytes::new())
}

/// `Downgrade`.
pub async fn downgrade(net: &Rc<Net>, message: Bytes) -> Result<Reply, Status> {
    let request: pb::DowngradeRequest = decode(&message)?;
    let action = DowngradeAction::try_from(request.action)
        .map_err(|_| Status::new(Code::Unknown, "etcdserver: unknown method"))?;
    let current = net.member.members().version();
    if action != DowngradeAction::Cancel {
        validate_downgrade(net, &request.version).await.map_err(status)?;
    }
    match action {
        DowngradeAction::Validate => {}
        DowngradeAction::Enable => {
            let target = cluster_version(&request.version).map_err(status)?;
            set_downgrade(net, true, target.to_string()).await.map_err(status)?;
        }
        DowngradeAction::Cancel => {
            if net.member.members().downgrade().enabled {
                set_downgrade(net, false, String::new()).await.map_err(status)?;
            }
        }
    }
    let version = current.map_or_else(String::new, |v| format!("{}.{}", v.major, v.minor));
    Ok(reply(net, &pb::DowngradeResponse { header: None, version }))
}

async fn validate_downgrade(net: &Rc<Net>, version: &str) -> Result<(), Error> {
    let target = cluster_version(version)?;
    net.member.linearize().await?;
    let members = net.member.members();
    let current = members.version().ok_or(Error::ClusterVersionUnavailable)?;
    if current.one_minor_lower() != Some(target) {
        return Err(Error::InvalidDowngradeTargetVersion);
    }
    if members.downgrade().enabled {
        return Err(Error::DowngradeInProcess);
    }
    Ok(())
}

async fn set_downgrade(net: &Rc<Net>, enabled: bool, ver: String) -> Result<(), Error> {
    let body = DowngradeInfoSetRequest { enabled, ver }.encode_to_vec().into();
    net.member.propose(RequestKind::DowngradeInfoSet, body).await.map(drop)
}

/// `3.6` or `3.6.x`: what counts is the first two numbers.
fn cluster_version(text: &str) -> Result<Version, Error> {
    let parsed = text.parse().or_else(|()| format!("{text}.0").parse());
    parsed.map(Version::cluster).map_err(|()| Error::WrongDowngradeVersionFormat)
}
