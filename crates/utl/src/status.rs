//! `snapshot status`: what a snapshot file holds. Not here: whether it can be restored (`restore` checks the
//! digest).

use std::io;
use std::path::Path;

use etch_cli::{Command, Failure, Matches};
use etch_disk::backend::{Bucket, Snapshot};
use etch_state::mvcc::survey::{LiveKeys, ROOM, Row, Survey};
use etch_state::offline;

use crate::print::{self, Status};
use crate::{exit, files};

/// The command.
pub fn command() -> Command {
    Command::new("status <filename>", "Gets backend snapshot status of a given file", run).long(
        "When --write-out is set to simple, this command prints out comma-separated status lists for each endpoint.
The items in the lists are hash, revision, total keys, total size.
",
    )
}

fn run(matches: &Matches) -> Result<(), Failure> {
    let [path] = &matches.args[..] else {
        let why = "snapshot status requires exactly one argument";
        return Err(Failure::new(exit::BAD_ARGS, why));
    };
    let path = Path::new(path);
    files::must_exist(path)?;
    print::check_format(matches)?;
    let (snapshot, _held) = files::open_to_read(path, matches)?;
    snapshot.check().map_err(|e| {
        let why = format!("snapshot file integrity check failed. 1 errors found.\n{e}");
        Failure::new(exit::ERROR, why)
    })?;
    let found = read(&snapshot).map_err(|e| files::invalid(&e))?;
    print::status(matches, &found)
}

/// Reads the whole file, one row after another; where there are very many keys, the history once more for each so
/// many of them.
pub fn read(snapshot: &Snapshot) -> io::Result<Status> {
    let mut crc = 0;
    let mut add = |bytes: &[u8]| crc = crc32c::crc32c_append(crc, bytes);
    let (mut revision, mut live) = (0, LiveKeys::new(ROOM));
    for name in snapshot.bucket_names()? {
        add(&name);
        let Some(mut rows) = snapshot.cursor_of(&name)? else { continue };
        while let Some((key, value)) = rows.next()? {
            add(key);
            add(value);
            if name == Bucket::Key.name() {
                let row = Row::read(key, value)?;
                revision = row.revision.main;
                live.see(&row);
            }
        }
    }
    Ok(Status {
        hash: crc,
        revision,
        total_keys: Survey::new(snapshot.clone(), ROOM)?.count(live)?,
        total_size: snapshot.size(),
        version: offline::storage_version(snapshot)?.map(|v| v.to_string()).unwrap_or_default(),
    })
}
