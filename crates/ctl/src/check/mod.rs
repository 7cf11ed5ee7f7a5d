//! `check`: what a cluster bears. What both checks have in common is here: loads, writers, tidying up. Not here: the
//! checks (`perf`, `datascale`), the figures (`report`).

mod datascale;
mod memory;
mod perf;
mod report;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etch_cli::{Command, Failure, Flag, Matches, go};
use etch_client::{Client, HasHeader as _};
use tokio::sync::{Mutex, mpsc};

use crate::connect::Ctl;
use crate::display::print;
use crate::fail::{failed, text};
use crate::line::invalid;
use crate::{bad_feature, program};
use report::Timed;

/// How long compacting and defragmenting may take.
const TIDYING: Duration = Duration::from_secs(30);

/// The command.
pub fn command() -> Command {
    let long = "commands for checking properties of the etcd cluster";
    let short = "commands for checking properties of the etcd cluster. Use `etcdctl check --help` to see subcommands";
    Command::parent("check <subcommand>", short, vec![perf::command(), datascale::command()])
        .long(long)
        .group(program::UTILITY)
}

/// The flags that both checks have.
fn flags(load: &'static str, prefix: &str, prefix_help: &'static str) -> Vec<Flag> {
    vec![
        Flag::text("load", "s", load),
        Flag::text("prefix", prefix, prefix_help),
        Flag::switch("auto-compact", "Compact storage with last revision after test is finished."),
        Flag::switch("auto-defrag", "Defragment storage after test is finished."),
    ]
}

/// Which load a check is asked for, as its place in a table.
fn load(matches: &Matches) -> Result<usize, Failure> {
    match matches.text("load") {
        "s" | "small" => Ok(0),
        "m" | "medium" => Ok(1),
        "l" | "large" => Ok(2),
        "xl" | "xLarge" => Ok(3),
        other => Err(bad_feature(format!("unknown load option {other}"))),
    }
}

/// Refuses to work under a prefix that somebody uses.
async fn must_be_empty(ctl: &Ctl, prefix: &Bytes, quote: &str) -> Result<(), Failure> {
    let found = ctl.client.get(prefix).prefix().limit(1).await.map_err(failed)?;
    if found.kvs.is_empty() {
        return Ok(());
    }
    let (quoted, plain) = (go::quote(prefix), String::from_utf8_lossy(prefix));
    let delete = format!("{quote}etcdctl del --prefix {plain}{quote}");
    Err(invalid(format!("prefix {quoted} has keys. Delete with {delete} first")))
}

/// A key under the prefix, so many bytes longer: a random number, then zeros.
fn key(prefix: &Bytes, length: usize) -> Bytes {
    let mut key = prefix.to_vec();
    // Go writes signed numbers of varying length: twice the number.
    prost::encoding::encode_varint(fastrand::u64(..1 << 63) << 1, &mut key);
    key.resize(prefix.len() + length, 0);
    key.into()
}

/// Writers with a connection each, who take keys from one queue.
struct Writers {
    /// Where keys go in; dropping it ends the writers.
    keys: mpsc::Sender<Bytes>,
    /// How each write went.
    timed: mpsc::UnboundedReceiver<Timed>,
}

impl Writers {
    fn start(clients: Vec<Client>, value: Bytes) -> Self {
        let (keys, queue) = mpsc::channel(clients.len());
        let (tell, timed) = mpsc::unbounded_channel();
        let queue = Arc::new(Mutex::new(queue));
        for client in clients {
            let (queue, tell, value) = (Arc::clone(&queue), tell.clone(), value.clone());
            tokio::spawn(async move {
                loop {
                    let Some(key) = queue.lock().await.recv().await else { return };
                    let begun = Instant::now();
                    let result = client.put(key, value.clone()).await;
                    let result = result.map(|_| begun.elapsed()).map_err(|e| text(&e));
                    if tell.send(result).is_err() {
                        return;
                    }
                }
            });
        }
        Self { keys, timed }
    }
}

/// So many clients like ours.
async fn clients(ctl: &Ctl, count: usize) -> Result<Vec<Client>, Failure> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        clients.push(ctl.another().await?);
    }
    Ok(clients)
}

/// Deletes the keys; gives back the revision at which they were.
async fn delete(client: &Client, prefix: &Bytes) -> etch_client::Result<i64> {
    client.with_timeout(TIDYING).delete(prefix).prefix().await.map(|answer| answer.revision())
}

async fn compact(client: &Client, revision: i64) -> Result<(), Failure> {
    print(format!("Compacting with revision {revision}\n").as_bytes())?;
    client.with_timeout(TIDYING).compact(revision).physical().await.map_err(failed)?;
    print(format!("Compacted with revision {revision}\n").as_bytes())
}

async fn defragment(client: &Client) -> Result<(), Failure> {
    for endpoint in client.endpoints() {
        let name = go::quote(&endpoint);
        print(format!("Defragmenting {name}\n").as_bytes())?;
        client.with_timeout(TIDYING).defragment(&endpoint).await.map_err(failed)?;
        print(format!("Defragmented {name}\n").as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_random_and_of_one_length() {
        let prefix = Bytes::from_static(b"/p/");
        let (one, other) = (key(&prefix, 256), key(&prefix, 256));
        assert_eq!((one.len(), other.len()), (259, 259));
        assert!(one.starts_with(b"/p/") && one != other);
    }
}
