//! `defrag`: members give back the space that is free in their files. Not here: the same on a directory that nobody
//! serves (`etch_utl`).

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use etch_cli::progress::Progress;
use etch_cli::{Command, Failure, Matches, go};
use etch_client::Client;

use crate::connect::Parts;
use crate::display::print;
use crate::fail::{not_connected, text};
use crate::{endpoint, exit, program};

/// How often the size of the file is asked for, on a terminal.
const PACE: Duration = Duration::from_millis(250);

/// The command.
pub fn command() -> Command {
    let short = "Defragments the storage of the etcd members with given endpoints";
    Command::new("defrag", short, run)
        .group(program::CLUSTER)
        .persistent(vec![endpoint::cluster_flag()])
}

/// One member after the other, so that never two of them are slow.
pub fn run(matches: &Matches) -> Result<(), Failure> {
    let parts = Parts::new(matches)?;
    let mut failures = 0;
    for endpoint in endpoint::all(&parts)? {
        let client = parts.runtime.block_on(parts.client_of(&endpoint)).map_err(not_connected)?;
        let client = client.with_timeout(parts.limit);
        let started = Instant::now();
        let outcome = parts.runtime.block_on(shown(&client, &endpoint));
        let took = go::duration(i64::try_from(started.elapsed().as_nanos()).unwrap_or(i64::MAX));
        match outcome {
            Ok(_) => {
                let said = format!("Finished defragmenting etcd member[{endpoint}]. took {took}\n");
                print(said.as_bytes())?;
            }
            Err(error) => {
                let why = text(&error);
                eprintln!("Failed to defragment etcd member[{endpoint}]. took {took}. ({why})");
                failures += 1;
            }
        }
    }
    if failures == 0 { Ok(()) } else { Err(Failure::silent(exit::ERROR)) }
}

/// Asks for it, and shows on a terminal how much of the file is gone meanwhile. A server that answers nothing until it
/// is done shows nothing.
async fn shown(
    client: &Client,
    endpoint: &str,
) -> etch_client::Result<etch_client::pb::DefragmentResponse> {
    let work = client.defragment(endpoint);
    if !std::io::stderr().is_terminal() {
        return work.await;
    }
    let size = async || client.status(endpoint).await.map(|s| (s.db_size, s.db_size_in_use));
    let Ok((before, in_use)) = size().await else { return work.await };
    let mut bar = Progress::new("defragmenting", u64::try_from(before - in_use).ok());
    bar.add(0);
    tokio::pin!(work);
    let mut smallest = before;
    loop {
        let look = async {
            tokio::time::sleep(PACE).await;
            size().await
        };
        tokio::select! {
            ended = &mut work => return ended,
            looked = look => {
                let now = looked.map_or(smallest, |(now, _)| now.min(smallest));
                bar.add(u64::try_from(smallest - now).unwrap_or_default());
                smallest = now;
            }
        }
    }
}
