//! Configuration that reloads itself: read once, then kept up to date by a watch, without a gap between the two.
//! Change it from elsewhere (`etcdctl put app/config/level debug`); `stop` as the level ends the program.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use etch_client::{Client, Config, Error, EtcdError, EventType, HasHeader};

/// What the rest of the program reads.
type Settings = Arc<RwLock<BTreeMap<String, String>>>;

const PREFIX: &str = "app/config/";

#[tokio::main(flavor = "current_thread")]
async fn main() -> etch_client::Result<()> {
    let client = Client::connect(Config::from_env()?).await?;
    let settings = Settings::default();
    let reloading = tokio::spawn(keep_up_to_date(client.clone(), settings.clone()));

    // So that there is something to see: somebody else changes the configuration.
    for level in ["info", "debug", "stop"] {
        client.put(format!("{PREFIX}level"), level).await?;
    }
    let result = reloading.await.unwrap_or(Err(Error::Closed));
    println!("in the end: {:?}", settings.read().map(|s| s.clone()).unwrap_or_default());
    client.delete(PREFIX).prefix().await?;
    result
}

async fn keep_up_to_date(client: Client, settings: Settings) -> etch_client::Result<()> {
    loop {
        match load_and_watch(&client, &settings).await {
            // The history that the watch needs is gone: begin with what is there now.
            Err(error) if error.is(EtcdError::Compacted) => continue,
            other => return other,
        }
    }
}

async fn load_and_watch(client: &Client, settings: &Settings) -> etch_client::Result<()> {
    let now = client.get(PREFIX).prefix().await?;
    let mut all: BTreeMap<_, _> =
        now.kvs.iter().map(|kv| (name(&kv.key), text(&kv.value))).collect();
    let mut watch = client.watch(PREFIX).prefix().rev(now.revision() + 1).await?;
    loop {
        println!("settings: {all:?}");
        let stop = all.get("level").is_some_and(|level| level == "stop");
        if let Ok(mut settings) = settings.write() {
            settings.clone_from(&all);
        }
        if stop {
            return Ok(());
        }
        let Some(response) = watch.next().await else { return Ok(()) };
        for event in response?.events {
            let deleted = event.r#type() == EventType::Delete;
            let kv = event.kv.unwrap_or_default();
            match deleted {
                true => _ = all.remove(&name(&kv.key)),
                false => _ = all.insert(name(&kv.key), text(&kv.value)),
            }
        }
    }
}

fn name(key: &[u8]) -> String {
    text(key.strip_prefix(PREFIX.as_bytes()).unwrap_or(key))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
