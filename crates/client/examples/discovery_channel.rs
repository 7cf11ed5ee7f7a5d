//! Service discovery for any gRPC service: a tonic channel that balances over what a name resolves to, and follows it
//! as endpoints come and go.
//!
//! The service here is a key-value store again, so that there is something to call; a client that tonic has generated
//! takes the same channel.
//!
//! `discovery_channel services/kv [CALLS]`

use std::collections::BTreeMap;

use etch_client::naming::{Endpoint, Manager};
use etch_client::{Client, Config, Error, pb};
use futures_util::StreamExt;
use http::uri::PathAndQuery;
use tokio::sync::mpsc::Sender;
use tonic::transport::Channel;
use tonic::transport::channel::Change;

/// What the channel is told: an endpoint to take, or to leave, by its key.
type Changes = Sender<Change<String, tonic::transport::Endpoint>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> etch_client::Result<()> {
    let mut args = std::env::args().skip(1);
    let service = args.next().unwrap_or_else(|| "services/kv".into());
    let calls: usize = args.next().and_then(|s| s.parse().ok()).unwrap_or(5);

    let directory = Client::connect(Config::from_env()?).await?;
    let manager = Manager::new(&directory, service.as_str())?;
    let (channel, changes) = Channel::balance_channel(16);
    let following = tokio::spawn(follow(manager, changes));

    // A call waits as long as nobody offers the service.
    let mut grpc = tonic::client::Grpc::new(channel);
    for n in 0..calls {
        grpc.ready().await.map_err(|e| Error::NoEndpoint(e.to_string()))?;
        let request = pb::RangeRequest { key: "greeting".into(), ..Default::default() };
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Range");
        let codec = tonic_prost::ProstCodec::<_, pb::RangeResponse>::default();
        match grpc.unary(tonic::Request::new(request), path, codec).await {
            Ok(answer) => {
                let member = answer.into_inner().header.map_or(0, |header| header.member_id);
                println!("call {n}: answered by member {member:x}");
            }
            // An endpoint that is gone is left as soon as its entry is; until then a call may meet it.
            Err(status) => println!("call {n}: {}", status.message()),
        }
    }
    following.abort();
    Ok(())
}

/// Tells the channel what to take and what to leave: the difference between each set of endpoints and the one before.
async fn follow(manager: Manager, changes: Changes) -> etch_client::Result<()> {
    let mut known: BTreeMap<String, Endpoint> = BTreeMap::new();
    let mut sets = manager.resolve();
    while let Some(set) = sets.next().await {
        let set = set?;
        for key in known.keys().filter(|key| !set.contains_key(*key)) {
            println!("leaving {key}");
            let _ = changes.send(Change::Remove(key.clone())).await;
        }
        for (key, endpoint) in set.iter().filter(|(key, e)| known.get(*key) != Some(*e)) {
            println!("taking {key}: {}", endpoint.addr);
            let address = format!("http://{}", endpoint.addr);
            let address =
                Channel::from_shared(address).map_err(|e| Error::Invalid(e.to_string()))?;
            let _ = changes.send(Change::Insert(key.clone(), address)).await;
        }
        known = set;
    }
    Ok(())
}
