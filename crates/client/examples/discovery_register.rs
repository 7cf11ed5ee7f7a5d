//! Service discovery, first half: registers an address under a service's name for as long as this program lives.
//!
//! `discovery_register services/kv 127.0.0.1:2379 [SECONDS]`

use std::time::Duration;

use etch_client::concurrency::Session;
use etch_client::naming::{Endpoint, Manager};
use etch_client::{Client, Config, Error};

#[tokio::main(flavor = "current_thread")]
async fn main() -> etch_client::Result<()> {
    let mut args = std::env::args().skip(1);
    let service = args.next().unwrap_or_else(|| "services/kv".into());
    let address = args.next().unwrap_or_else(|| "127.0.0.1:2379".into());
    let seconds: u64 = args.next().and_then(|s| s.parse().ok()).unwrap_or(u64::MAX / 1000);

    let client = Client::connect(Config::from_env()?).await?;
    let manager = Manager::new(&client, service.as_str())?;
    let until = tokio::time::Instant::now() + Duration::from_secs(seconds.min(1 << 30));
    while tokio::time::Instant::now() < until {
        // The entry goes with the session's lease: five seconds after a crash, at once at a proper end.
        let session = Session::new(&client).ttl(5).await?;
        let key = format!("{service}/{address}");
        manager.add(&key, Endpoint::new(&address), session.lease()).await?;
        println!("registered {key}");
        tokio::select! {
            why = session.lost() => println!("lost: {why}; registering again"),
            () = tokio::time::sleep_until(until) => {
                session.close().await?;
                println!("gone");
                return Ok(());
            }
            signal = tokio::signal::ctrl_c() => {
                signal.map_err(|e| Error::Invalid(e.to_string()))?;
                return session.close().await;
            }
        }
    }
    Ok(())
}
