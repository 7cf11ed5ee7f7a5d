//! What clients see as the cluster's members: the proxies, so that a client which asks for endpoints stays with
//! them. A proxy registers under a prefix with a lease that it renews. Not here: other calls about members.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use etch_api::pb::etcdserverpb::{Member, MemberListRequest, MemberListResponse};
use etch_client::naming::{Endpoint, Manager};
use etch_client::{Client, Error};
use etch_host::logging::Logger;
use etch_host::{log_info, log_warn};
use etch_rpc::{Code, Status};
use futures_util::StreamExt as _;
use http::HeaderMap;
use prost::Message as _;

use super::Proxy;
use super::config::addresses;

/// Between attempts to register.
const PAUSE: Duration = Duration::from_secs(1);
/// The cluster may take so long to name its members.
const SYNC_WITHIN: Duration = Duration::from_secs(5);

/// What is said about members.
pub(super) struct Members {
    /// Where clients find this proxy; empty to show them the cluster's own members.
    pub(super) advertised: String,
    /// The host's name.
    pub(super) host: String,
    /// The proxies that are registered, where there is a prefix for it.
    pub(super) registered: RefCell<Vec<Member>>,
}

/// The answer to a client's question for the members. The cluster is asked, too, so that the answer has a true
/// header and only those hear it who may.
pub(super) async fn members(
    proxy: &Proxy,
    path: &'static str,
    headers: &HeaderMap,
    message: &Bytes,
) -> Result<Bytes, Status> {
    let answer = proxy.upstream.unary(path, headers, message, true).await?.bytes();
    let shown = &proxy.members;
    if shown.advertised.is_empty() {
        return Ok(answer);
    }
    let theirs = MemberListResponse::decode(answer)
        .map_err(|error| Status::new(Code::Internal, error.to_string()))?;
    let mut members = shown.registered.borrow().clone();
    if members.is_empty() {
        members.push(member(shown.host.clone(), shown.advertised.clone()));
    }
    let ours = MemberListResponse { header: theirs.header, members };
    Ok(ours.encode_to_vec().into())
}

/// Keeps the list of the proxies that are registered.
pub(super) async fn follow(proxy: Rc<Proxy>, manager: Manager, log: Logger) {
    loop {
        let mut sets = manager.resolve();
        while let Some(set) = sets.next().await {
            match set {
                Ok(set) => {
                    *proxy.members.registered.borrow_mut() = set.into_values().map(shown).collect()
                }
                Err(error) => {
                    log_warn!(log, "failed to establish endpoint watch", "error" => error.to_string());
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A proxy as a member. Go's proxy keeps its metadata as a text that is JSON itself.
fn shown(endpoint: Endpoint) -> Member {
    let meta = match endpoint.metadata {
        serde_json::Value::String(text) => serde_json::from_str(&text).unwrap_or_default(),
        other => other,
    };
    member(meta["name"].as_str().unwrap_or_default().to_owned(), endpoint.addr)
}

/// Takes the members' client URLs as endpoints, again and again.
pub(super) async fn sync(proxy: Rc<Proxy>, every: Duration, has_tls: bool, log: Logger) {
    let path = "/etcdserverpb.Cluster/MemberList";
    let request: Bytes = MemberListRequest { linearizable: true }.encode_to_vec().into();
    loop {
        tokio::time::sleep(every).await;
        let headers = super::forward::own_headers();
        let asked = proxy.upstream.unary(path, &headers, &request, true);
        let answer = match tokio::time::timeout(SYNC_WITHIN, asked).await {
            Ok(Ok(answer)) => answer.bytes(),
            Ok(Err(status)) => {
                log_warn!(log, "failed to sync endpoints", "error" => status.to_string());
                continue;
            }
            Err(_) => continue,
        };
        let Ok(list) = MemberListResponse::decode(answer) else { continue };
        let started = list.members.into_iter().filter(|m| !m.name.is_empty() && !m.is_learner);
        let urls: Vec<String> = started.flat_map(|member| member.client_ur_ls).collect();
        match addresses(&urls, has_tls) {
            Ok(addresses) if !addresses.is_empty() => proxy.upstream.replace(addresses),
            Ok(_) => {}
            Err(why) => log_warn!(log, "failed to sync endpoints", "error" => why),
        }
    }
}

fn member(name: String, address: String) -> Member {
    Member { name, client_ur_ls: vec![address], ..Member::default() }
}

/// How a proxy registers.
pub(super) struct Registration {
    /// Under which prefix.
    pub(super) prefix: String,
    /// For how long without a renewal, in seconds.
    pub(super) ttl: i64,
}

/// Keeps this proxy registered.
pub(super) async fn register(
    proxy: Rc<Proxy>,
    client: Client,
    registration: Registration,
    log: Logger,
) {
    loop {
        match register_once(&proxy, &client, &registration, &log).await {
            Ok(()) => {
                log_warn!(log, "session expired; possible network partition or server restart")
            }
            Err(error) => {
                log_warn!(log, "failed to create a session", "error" => error.to_string());
            }
        }
        tokio::time::sleep(PAUSE).await;
        log_warn!(log, "creating a new session to rejoin");
    }
}

/// Registers, and returns when the lease is lost.
async fn register_once(
    proxy: &Proxy,
    client: &Client,
    registration: &Registration,
    log: &Logger,
) -> Result<(), Error> {
    let Members { advertised, host, .. } = &proxy.members;
    let lease = client.lease_grant(registration.ttl).await?.id;
    let mut kept = client.lease_keep_alive(lease).await?;
    let manager = Manager::new(client, registration.prefix.clone())?;
    let metadata = serde_json::Value::String(serde_json::json!({ "name": host }).to_string());
    let endpoint = Endpoint { addr: advertised.clone(), metadata };
    manager.add(format!("{}/{advertised}", registration.prefix), endpoint, lease).await?;
    log_info!(log, "registered session with lease", "addr" => advertised, "lease-ttl" => registration.ttl);
    // Why it was lost does not change what is to be done.
    let _ = kept.lost().await;
    Ok(())
}
