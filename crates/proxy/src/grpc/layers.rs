//! `--experimental-serializable-ordering` and `--experimental-leasing-prefix`: reads and writes of keys that go
//! through the layers of the Rust client instead of straight to the cluster. Not here: the layers themselves
//! (`etch_client`), and every other call.

use std::sync::Arc;

use bytes::Bytes;
use etch_api::pb::etcdserverpb as pb;
use etch_client::{CallOptions, Client, Kv};
use etch_host::log_info;
use etch_host::logging::Logger;
use etch_rpc::{CallInfo, Code, Status};
use prost::Message;

use super::config::Config;

/// How often a member is asked again that is behind what a client has already seen.
const ATTEMPTS: u32 = 20;

/// Keys, through the layers that were asked for.
pub(super) struct Layers(Arc<dyn Kv>);

impl Layers {
    /// The layers that the flags ask for, over a client of the cluster: first the order, then the namespace, and
    /// on top the leasing, whose own keys lie in the namespace, too.
    pub(super) async fn new(
        config: &Config,
        client: &Client,
        log: &Logger,
    ) -> Result<Option<Layers>, etch_client::Error> {
        if !config.ordering && config.leasing_prefix.is_empty() {
            return Ok(None);
        }
        let mut client = client.clone();
        if config.ordering {
            log_info!(log, "waiting for linearized read from cluster to recover ordering");
            client = client.ordered(ATTEMPTS);
        }
        if !config.namespace.is_empty() {
            client = client.namespaced(config.namespace.clone());
        }
        if !config.leasing_prefix.is_empty() {
            client = client.leasing(config.leasing_prefix.clone()).await?;
        }
        Ok(Some(Layers(client.kv())))
    }

    /// A call that a layer has a say in; none if it is any other.
    pub(super) async fn unary(
        &self,
        path: &str,
        call: &CallInfo,
        message: &Bytes,
    ) -> Option<Result<Bytes, Status>> {
        let (kv, message) = (&self.0, message.clone());
        Some(match path {
            "/etcdserverpb.KV/Range" => {
                answered(message, async |request| kv.range(options(call), request).await).await
            }
            "/etcdserverpb.KV/Put" => {
                answered(message, async |request| kv.put(options(call), request).await).await
            }
            "/etcdserverpb.KV/DeleteRange" => {
                answered(message, async |request| kv.delete_range(options(call), request).await)
                    .await
            }
            "/etcdserverpb.KV/Txn" => {
                answered(message, async |request: pb::TxnRequest| {
                    kv.txn(options(call), request).await
                })
                .await
            }
            _ => return None,
        })
    }
}

async fn answered<Q: Message + Default, A: Message>(
    message: Bytes,
    ask: impl AsyncFnOnce(Q) -> etch_client::Result<A>,
) -> Result<Bytes, Status> {
    let request = Q::decode(message).map_err(|error| {
        Status::new(Code::Internal, format!("grpc: error unmarshalling: {error}"))
    })?;
    let answer = ask(request).await.map_err(|error| super::status(&error))?;
    Ok(answer.encode_to_vec().into())
}

/// The client's token, its wish for a leader, and what is left of its time.
fn options(call: &CallInfo) -> CallOptions {
    let mut options = CallOptions::default();
    let token = call.metadata_str("token").or_else(|| call.metadata_str("authorization"));
    if let Some(token) = token {
        options = options.token(token);
    }
    if let Some(deadline) = call.deadline() {
        options = options.timeout(deadline.saturating_duration_since(std::time::Instant::now()));
    }
    options.require_leader(call.metadata_str("hasleader") == Some("true"))
}
