//! `defrag`: members give back the space that is free in their files. Not here: the same on a directory that nobody
//! serves (`etch_utl`).

use std::time::Instant;

use etch_cli::{Command, Failure, Matches, go};

use crate::connect::Parts;
use crate::display::print;
use crate::fail::{not_connected, text};
use crate::{endpoint, exit, program};

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
        let outcome = parts.runtime.block_on(client.defragment(&endpoint));
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
