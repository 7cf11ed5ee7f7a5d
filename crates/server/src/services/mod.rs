//! The gRPC services: one file each, and here what they share: how a call reaches its method, and how an
//! outcome becomes an answer. Not here: connections (`net`), and what requests do (`etch_state`).

pub mod auth;
pub mod cluster;
pub mod election;
pub mod health;
pub mod kv;
pub mod lazy;
pub mod lease;
pub mod line;
pub mod lock;
pub mod maintenance;
pub mod metadata;
pub mod methods;
pub mod snapshot;
pub mod watch;

use std::rc::Rc;

use bytes::Bytes;
use etch_api::Error;
use etch_api::decode::{self, Broken};
use etch_rpc::{CallInfo, Code, MessageStream, Reply, Status, StreamSender};
use etch_state::Reply as Done;
use etch_state::mvcc::ReadError;
use prost::{Message, Name};

use self::metadata::Metadata;
use self::methods::Method;
use crate::auth::claim::{self, Claim};
use crate::log_warn;
use crate::member::Member;
use crate::net::{Flow, Net};

/// The table's error, as it is sent.
pub fn status(error: Error) -> Status {
    let message = match error {
        // It never reached raft. etcd then answers as Go's gRPC does for any call whose time is up.
        Error::DeadlineExceeded => "context deadline exceeded",
        other => other.message(),
    };
    Status::new(Code::from_u32(error.code() as u32), message)
}

/// Why a read failed, as it is sent.
pub fn read_status(error: &ReadError) -> Status {
    match error {
        ReadError::Request(error) => status(*error),
        ReadError::Io(error) => internal(error),
    }
}

/// An operational error of ours that a client gets to see.
pub fn internal(error: &std::io::Error) -> Status {
    Status::new(Code::Unknown, error.to_string())
}

/// Decodes a unary request, or says what a Go server would.
pub fn decode<M: Message + Default + Name>(message: &Bytes) -> Result<M, Status> {
    decode::decode(message).map_err(broken)
}

/// The same for a message of a stream.
pub fn decode_streamed<M: Message + Default + Name>(message: &Bytes) -> Result<M, Status> {
    decode::decode(message).map_err(|why| {
        let text = format!("grpc: failed to unmarshal the received message: {why}");
        Status::new(Code::Internal, text)
    })
}

/// What a client is told whose unary request is broken.
fn broken(why: Broken) -> Status {
    Status::new(Code::Internal, format!("grpc: error unmarshalling request: {why}"))
}

/// What every call is held to before its method sees it: the client's version must be text, and who asks
/// for a leader must find one.
pub fn admit(member: &Member, call: &CallInfo) -> Result<(), Error> {
    let said = Metadata::of(call);
    if std::str::from_utf8(&said.version).is_err() {
        return Err(Error::InvalidClientApiVersion);
    }
    if said.wants_leader && member.view.leader() == 0 {
        return Err(Error::NoLeader);
    }
    Ok(())
}

/// A unary call, whole: checked, answered here or sent on its way.
pub fn unary(net: &Rc<Net>, method: Method, call: CallInfo, message: Bytes, reply: Reply) {
    let began_ms = net.member.clock.now_ms();
    net.member.metrics.started(method);
    net.requested(&Metadata::of(&call).version, Flow::Unary);
    if let Err(error) = admit(&net.member, &call) {
        return net.fail(method, began_ms, reply, status(error));
    }
    let Some(index) = claim::ahead(net, &call) else {
        return answer(net, method, began_ms, call, message, reply);
    };
    let net = Rc::clone(net);
    tokio::task::spawn_local(async move {
        claim::catch_up(&net, index).await;
        answer(&net, method, began_ms, call, message, reply);
        net.send_now();
    });
}

fn answer(
    net: &Rc<Net>,
    method: Method,
    began_ms: u64,
    call: CallInfo,
    message: Bytes,
    reply: Reply,
) {
    match method {
        Method::Range => kv::range(net, began_ms, Claim::of(net, &call), message, reply),
        Method::Put => kv::put(net, began_ms, &Claim::of(net, &call), message, reply),
        Method::DeleteRange => {
            kv::delete_range(net, began_ms, &Claim::of(net, &call), message, reply);
        }
        Method::Txn => kv::txn(net, began_ms, Claim::of(net, &call), message, reply),
        Method::Compact => kv::compact(net, began_ms, &Claim::of(net, &call), message, reply),
        Method::LeaseGrant => lease::grant(net, began_ms, &Claim::of(net, &call), message, reply),
        Method::LeaseRevoke => {
            lease::revoke(net, began_ms, &Claim::of(net, &call), message, reply);
        }
        Method::LeaseTimeToLive if net.member.is_leader() => {
            let answer = lease::time_to_live(net, &Claim::of(net, &call), message);
            net.conclude(method, began_ms, reply, answer);
        }
        Method::LeaseLeases => {
            let answer = lease::leases(net, &Claim::of(net, &call));
            net.conclude(method, began_ms, reply, answer);
        }
        Method::Status => {
            let permitted = Claim::of(net, &call).require_user(net).map_err(status);
            let answer = permitted.map(|()| maintenance::member_status(net));
            net.conclude(method, began_ms, reply, answer);
        }
        _ => {
            let net = Rc::clone(net);
            tokio::task::spawn_local(async move {
                let mut reply = reply;
                let outcome = tokio::select! {
                    biased;
                    outcome = slow(&net, method, &call, message) => outcome,
                    () = gone(method, &call, &mut reply) => {
                        return net.handled(method, began_ms, Code::Cancelled);
                    }
                };
                match outcome {
                    Ok(Answer::Applied(done)) => net.finish(method, began_ms, reply, Ok(done)),
                    Ok(Answer::Whole(bytes)) => {
                        net.handled(method, began_ms, Code::Ok);
                        reply.ok(bytes);
                    }
                    Err(status) => net.fail(method, began_ms, reply, status),
                }
            });
        }
    }
}

/// Completes when nobody waits any more for a call that may wait for others; what others ask for is done.
async fn gone(method: Method, call: &CallInfo, reply: &mut Reply) {
    if !matches!(method, Method::Lock | Method::Campaign) {
        return std::future::pending().await;
    }
    match call.deadline() {
        None => reply.cancelled().await,
        // What passes the deadline is answered by the connection.
        Some(at) => drop(tokio::time::timeout_at(at.into(), reply.cancelled()).await),
    }
}

/// What the rarer methods answer with.
enum Answer {
    /// A body that goes behind a response header.
    Applied(Done),
    /// The whole message.
    Whole(Bytes),
}

/// The methods that wait for something and are not on a hot path: each runs as a task.
async fn slow(
    net: &Rc<Net>,
    method: Method,
    call: &CallInfo,
    message: Bytes,
) -> Result<Answer, Status> {
    let claim = || Claim::of(net, call);
    let admin = || claim().require_admin(net).map_err(status);
    Ok(match method {
        Method::LeaseTimeToLive => {
            // Only the leader knows. With another than us there is nobody to ask.
            net.member.wait_to_lead().await.map_err(status)?;
            Answer::Applied(lease::time_to_live(net, &claim(), message)?)
        }
        Method::Alarm => Answer::Applied(maintenance::alarm(net, &claim(), message).await?),
        Method::Hash => {
            admin()?;
            Answer::Applied(maintenance::hash(net).await?)
        }
        Method::HashKv => {
            admin()?;
            Answer::Applied(maintenance::hash_kv(net, message).await?)
        }
        Method::Downgrade => {
            admin()?;
            Answer::Applied(maintenance::downgrade(net, message).await?)
        }
        Method::Defragment => {
            admin()?;
            Answer::Whole(maintenance::defragment(net).await?)
        }
        Method::MoveLeader => {
            admin()?;
            Answer::Whole(maintenance::move_leader(net, message).await?)
        }
        Method::MemberList => Answer::Whole(cluster::list(net, &claim(), message).await?),
        Method::MemberAdd => Answer::Whole(cluster::add(net, &claim(), message).await?),
        Method::MemberRemove => Answer::Whole(cluster::remove(net, &claim(), message).await?),
        Method::MemberUpdate => Answer::Whole(cluster::update(net, &claim(), message).await?),
        Method::MemberPromote => Answer::Whole(cluster::promote(net, &claim(), message).await?),
        Method::AuthEnable
        | Method::AuthDisable
        | Method::AuthStatus
        | Method::Authenticate
        | Method::UserAdd
        | Method::UserGet
        | Method::UserList
        | Method::UserDelete
        | Method::UserChangePassword
        | Method::UserGrantRole
        | Method::UserRevokeRole
        | Method::RoleAdd
        | Method::RoleGet
        | Method::RoleList
        | Method::RoleDelete
        | Method::RoleGrantPermission
        | Method::RoleRevokePermission => {
            Answer::Applied(auth::call(net, method, call, message).await?)
        }
        Method::Lock => Answer::Whole(lock::lock(net, call, &message).await?),
        Method::Unlock => Answer::Whole(lock::unlock(net, call, &message).await?),
        Method::Campaign => Answer::Whole(election::campaign(net, call, &message).await?),
        Method::Proclaim => Answer::Whole(election::proclaim(net, call, &message).await?),
        Method::Leader => Answer::Whole(election::leader(net, call, &message).await?),
        Method::Resign => Answer::Whole(election::resign(net, call, &message).await?),
        Method::HealthCheck => Answer::Whole(health::check(&decode(&message)?)?),
        other => unreachable!("{other:?} is answered elsewhere"),
    })
}

/// A streaming call: the future that serves it, and the status that it ends with.
pub async fn stream(
    net: Rc<Net>,
    method: Method,
    call: CallInfo,
    messages: MessageStream,
    sender: StreamSender,
) -> Status {
    net.member.metrics.started(method);
    net.requested(&Metadata::of(&call).version, Flow::Stream);
    let counted = Counted { net: Rc::clone(&net), method, code: Code::Cancelled };
    let status = match admit(&net.member, &call) {
        Err(error) => status(error),
        Ok(()) if Metadata::of(&call).wants_leader => {
            tokio::select! {
                status = serve(&net, method, &call, messages, sender) => status,
                () = net.leader_lost() => status(Error::NoLeader),
            }
        }
        Ok(()) => serve(&net, method, &call, messages, sender).await,
    };
    counted.end(status)
}

async fn serve(
    net: &Rc<Net>,
    method: Method,
    call: &CallInfo,
    messages: MessageStream,
    sender: StreamSender,
) -> Status {
    let net = Rc::clone(net);
    if let Some(index) = claim::ahead(&net, call) {
        claim::catch_up(&net, index).await;
    }
    match method {
        Method::Watch => watch::watch(net, call, messages, sender).await,
        Method::LeaseKeepAlive => lease::keep_alive(net, call, messages, sender).await,
        Method::RangeStream => kv::range_stream(net, call, messages, sender).await,
        Method::Snapshot => snapshot::snapshot(net, call, messages, sender).await,
        Method::Observe => election::observe(net, call, messages, sender).await,
        Method::HealthWatch => health::watch(messages, sender).await,
        other => unreachable!("{other:?} is not a stream"),
    }
}

/// Counts a stream when it ends, also when its client is gone and it is dropped.
struct Counted {
    net: Rc<Net>,
    method: Method,
    code: Code,
}

impl Counted {
    fn end(mut self, status: Status) -> Status {
        self.code = status.code;
        status
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // A stream lives as long as its client likes: its length says nothing about us.
        self.net.member.metrics.handled(self.method, self.code, 0);
    }
}

/// Logs a call that took longer than `--warning-unary-request-duration`.
pub fn log_slow_call(member: &Member, method: Method, took_ms: u64) {
    let (service, name, _) = method.parts();
    log_warn!(
        member.log,
        "request stats",
        "path" => format!("/{service}/{name}"),
        "took" => format!("{took_ms}ms"),
    );
}
