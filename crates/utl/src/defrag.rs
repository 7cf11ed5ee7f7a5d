//! `defrag`: gives back what is free in a database that nobody serves. Not here: the same on a running server,
//! which does it by itself.

use std::path::Path;
use std::time::Instant;

use etch_cli::{Command, Failure, Flag, Matches, go, human, progress::Progress};
use etch_disk::backend::{Backend as _, Bolt};
use serde_json::json;

use crate::{exit, files, log};

/// Pages that one commit moves.
const STEP: usize = 4096;
/// So many steps in a row that do not make the file smaller end it: a long value at the end may find no room in one
/// piece further down, and would move to and fro for ever.
const IDLE: u32 = 8;

/// The command.
pub fn command() -> Command {
    let data_dir = "Required. Defragments a data directory not in use by etcd.";
    Command::new("defrag", "Defragments the storage of the etcd", run)
        .flags(vec![Flag::text("data-dir", "", data_dir).required()])
}

/// Carries it out.
pub fn run(matches: &Matches) -> Result<(), Failure> {
    let dir = matches.text("data-dir");
    defrag(Path::new(dir), matches).map_err(|failure| {
        let why = format!("Failed to defragment etcd data[{dir}] ({})", failure.text);
        Failure::new(exit::ERROR, why)
    })
}

fn defrag(dir: &Path, matches: &Matches) -> Result<(), Failure> {
    let path = files::db_path(dir);
    let bolt = files::open_to_write(&path, matches)?;
    let started = Instant::now();
    let before = bolt.size();
    let fields = |size: u64| {
        [
            ("path", json!(path)),
            ("current-db-size-bytes", json!(size)),
            ("current-db-size", json!(human::bytes(size))),
            ("current-db-size-in-use-bytes", json!(bolt.size_in_use())),
            ("current-db-size-in-use", json!(human::bytes(bolt.size_in_use()))),
        ]
    };
    log::info("utl/defrag.rs", "defragmenting", &fields(before));
    shrink(&bolt)?;
    let took = i64::try_from(started.elapsed().as_nanos()).unwrap_or(i64::MAX);
    let mut done = fields(bolt.size()).to_vec();
    let freed = i128::from(bolt.size()) - i128::from(before);
    done.insert(1, ("current-db-size-bytes-diff", json!(freed as i64)));
    done.push(("took", json!(go::duration(took))));
    log::info("utl/defrag.rs", "finished defragmenting directory", &done);
    Ok(())
}

/// Steps until nothing more comes of them.
fn shrink(bolt: &Bolt) -> Result<(), Failure> {
    let free = bolt.size().saturating_sub(bolt.size_in_use());
    let mut bar = Progress::new("defragmenting", Some(free));
    let (mut smallest, mut idle) = (bolt.size(), 0);
    while idle < IDLE {
        let step = bolt.shrink(STEP).map_err(|e| Failure::new(exit::ERROR, e.to_string()))?;
        let cut = smallest.saturating_sub(bolt.size());
        bar.add(cut);
        idle = if cut > 0 { 0 } else { idle + 1 };
        smallest -= cut;
        if !step.more {
            break;
        }
    }
    Ok(())
}
