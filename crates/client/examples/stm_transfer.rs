//! Transfer of money by transactions over memory: eight tasks move amounts about at the same time, and the sum stays.

use etch_client::concurrency::Stm;
use etch_client::{Client, Config, Error};

const ACCOUNTS: usize = 4;
const EACH: i64 = 100;

#[tokio::main(flavor = "current_thread")]
async fn main() -> etch_client::Result<()> {
    let client = Client::connect(Config::from_env()?).await?;
    for account in 0..ACCOUNTS {
        client.put(name(account), EACH.to_string()).await?;
    }
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let client = client.clone();
            tokio::spawn(async move {
                for n in 0..5 {
                    transfer(&client, (task + n) % ACCOUNTS, (task + 2 * n + 1) % ACCOUNTS, 7)
                        .await?;
                }
                Ok::<(), Error>(())
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap_or(Err(Error::Closed))?;
    }

    let (total, _) = client
        .stm()
        .run(|tx| async move {
            let mut total = 0;
            for account in 0..ACCOUNTS {
                let balance = balance(&tx, account).await?;
                println!("{}: {balance}", name(account));
                total += balance;
            }
            Ok(total)
        })
        .await?;
    println!("in all: {total}");
    client.delete("example/accounts/").prefix().await?;
    match total == EACH * ACCOUNTS as i64 {
        true => Ok(()),
        false => Err(Error::Malformed("money was made or lost".into())),
    }
}

/// Moves an amount, if it is there.
async fn transfer(client: &Client, from: usize, to: usize, amount: i64) -> etch_client::Result<()> {
    // If the answer to the commit is lost, the error says so, and is passed on: doing it again unseen could move the
    // amount twice.
    let (_moved, _answer) = client
        .stm()
        .run(|tx| async move {
            let left = balance(&tx, from).await? - amount;
            if left < 0 {
                return Ok(false);
            }
            tx.put(name(from), left.to_string());
            let more = balance(&tx, to).await? + amount;
            tx.put(name(to), more.to_string());
            Ok(true)
        })
        .await?;
    Ok(())
}

fn name(account: usize) -> String {
    format!("example/accounts/{account}")
}

async fn balance(tx: &Stm, account: usize) -> etch_client::Result<i64> {
    let value = tx.get(name(account)).await?;
    let text = String::from_utf8_lossy(&value).into_owned();
    text.parse().map_err(|_| Error::Malformed(format!("a balance of {text:?}")))
}
