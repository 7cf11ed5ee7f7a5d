//! Writes, reads, watches. Against a server on 127.0.0.1:2379, or where `ETCDCTL_ENDPOINTS` says.

use etch_client::{Client, Compare, Config, get, put};

#[tokio::main(flavor = "current_thread")]
async fn main() -> etch_client::Result<()> {
    let client = Client::connect(Config::from_env()?).await?;

    let mut watch = client.watch("fruit/").prefix().await?;

    client.put("fruit/apple", "3").await?;
    client.put("fruit/pear", "5").await?;
    let answer = client.get("fruit/").prefix().await?;
    for kv in &answer.kvs {
        println!("{} = {}", text(&kv.key), text(&kv.value));
    }

    // Only if nobody changed it meanwhile.
    let apple = &answer.kvs[0];
    let answer = client
        .txn()
        .when(Compare::mod_revision(&apple.key).equal(apple.mod_revision))
        .then(put(&apple.key, "4"))
        .otherwise(get(&apple.key))
        .await?;
    println!("changed: {}", answer.succeeded);

    let mut seen = 0;
    while seen < 3 {
        let Some(response) = watch.next().await else { break };
        for event in response?.events {
            let kv = event.kv.unwrap_or_default();
            println!("seen at {}: {} = {}", kv.mod_revision, text(&kv.key), text(&kv.value));
            seen += 1;
        }
    }
    println!("deleted: {}", client.delete("fruit/").prefix().await?.deleted);
    Ok(())
}

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}
