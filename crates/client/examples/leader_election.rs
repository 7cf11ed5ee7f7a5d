//! Leader election: three candidates, one leads at a time, and each writes only while it leads.

use std::time::Duration;

use etch_client::concurrency::{Election, Session};
use etch_client::{Client, Config, Error, put};
use futures_util::StreamExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> etch_client::Result<()> {
    let client = Client::connect(Config::from_env()?).await?;
    let watching = tokio::spawn(observe(client.clone()));
    let candidates: Vec<_> = (1..=3).map(|n| tokio::spawn(candidate(client.clone(), n))).collect();
    for candidate in candidates {
        candidate.await.unwrap_or(Err(Error::Closed))?;
    }
    watching.abort();
    client.delete("example/").prefix().await?;
    Ok(())
}

async fn candidate(client: Client, number: u32) -> etch_client::Result<()> {
    let session = Session::new(&client).ttl(5).await?;
    let election = Election::new(&session, "example/election");
    let name = format!("candidate {number}");
    let leadership = election.campaign(name.as_str()).await?;
    println!("{name} leads, at revision {}", leadership.revision());
    tokio::select! {
        // A leader that lost its lease may find out late: so it writes under a condition, too.
        why = session.lost() => println!("{name} leads no longer: {why}"),
        done = work(&client, &leadership, &name) => done?,
    }
    leadership.resign().await?;
    session.close().await
}

async fn work(
    client: &Client,
    leadership: &etch_client::concurrency::Leadership,
    name: &str,
) -> etch_client::Result<()> {
    let write = client.txn().when(leadership.is_leader()).then(put("example/last-leader", name));
    if !write.await?.succeeded {
        return Err(Error::NotLeading);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    Ok(())
}

async fn observe(client: Client) -> etch_client::Result<()> {
    let session = Session::new(&client).ttl(5).await?;
    let mut leaders = Election::new(&session, "example/election").observe();
    while let Some(leader) = leaders.next().await {
        println!("observed: {}", String::from_utf8_lossy(&leader?.value));
    }
    Ok(())
}
