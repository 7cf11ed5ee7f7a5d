//! A distributed lock, and why it needs fencing: what it protects refuses a holder whose time was over before it knew.

use etch_client::concurrency::{Mutex, Session};
use etch_client::{Client, Config, Error};

/// What the lock protects: somewhere outside of etcd, so that no transaction can check the lock.
#[derive(Default)]
struct Printer {
    newest: i64,
}

impl Printer {
    /// Takes a job with the number of the lock under which it was sent; older numbers than the newest are refused.
    fn print(&mut self, job: &str, fencing: i64) -> Result<(), String> {
        if fencing < self.newest {
            return Err(format!("{job:?} comes from a lock ({fencing}) that is over"));
        }
        self.newest = fencing;
        println!("printing {job:?} under lock {fencing}");
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> etch_client::Result<()> {
    let client = Client::connect(Config::from_env()?).await?;
    let mut printer = Printer::default();

    let slow = Session::new(&client).ttl(5).await?;
    let stale = Mutex::new(&slow, "example/printer").lock().await?;
    let stale_number = stale.fencing();
    // The first holder falls asleep. Its lease ends; here somebody revokes it.
    client.lease_revoke(slow.lease()).await?;

    let session = Session::new(&client).ttl(5).await?;
    let guard = Mutex::new(&session, "example/printer").lock().await?;
    let printed = printer.print("the second holder's page", guard.fencing());
    printed.map_err(Error::Invalid)?;

    // The first one wakes up, and still believes that it holds the lock.
    match printer.print("the first holder's page", stale_number) {
        Ok(()) => return Err(Error::Invalid("two holders at once".into())),
        Err(why) => println!("refused: {why}"),
    }
    guard.unlock().await?;
    session.close().await
}
