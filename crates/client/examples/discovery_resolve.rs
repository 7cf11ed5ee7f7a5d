//! Service discovery, second half: finds a service by its name, follows its changes, and balances over what it finds.
//!
//! The service here is a key-value store, so the channel that balances is a second client, whose endpoints follow the
//! name: calls go round robin over the addresses that are registered, and elsewhere at once when one of them goes.
//!
//! `discovery_resolve services/kv [CALLS]`

use etch_client::naming::Manager;
use etch_client::{Client, Config};
use futures_util::StreamExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> etch_client::Result<()> {
    let mut args = std::env::args().skip(1);
    let service = args.next().unwrap_or_else(|| "services/kv".into());
    let calls: usize = args.next().and_then(|s| s.parse().ok()).unwrap_or(5);

    let directory = Client::connect(Config::from_env()?).await?;
    let manager = Manager::new(&directory, service.as_str())?;

    // Resolve: wait until the service is there at all.
    let mut sets = manager.resolve();
    let first = loop {
        match sets.next().await {
            Some(set) => {
                let set = set?;
                if !set.is_empty() {
                    break set;
                }
                println!("nobody offers {service} yet");
            }
            None => return Ok(()),
        }
    };
    for (key, endpoint) in &first {
        println!("found {key}: {}", endpoint.addr);
    }

    // Watch: the channel's endpoints are those of the name, from now on.
    let addresses: Vec<String> = first.into_values().map(|endpoint| endpoint.addr).collect();
    let channel = Client::connect(addresses).await?;
    let following = tokio::spawn({
        let channel = channel.clone();
        async move { manager.follow(&channel).await }
    });
    for n in 0..calls {
        let answer = channel.get("greeting").await?;
        let member = answer.header.map_or(0, |header| header.member_id);
        println!("call {n}: answered by member {member:x}");
    }
    following.abort();
    Ok(())
}
