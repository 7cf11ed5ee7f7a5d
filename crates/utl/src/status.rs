//! `snapshot status`: what a snapshot file holds. Not here: whether it can be restored (`restore` checks the
//! digest).

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hasher as _};
use std::io;
use std::path::Path;

use etch_cli::{Command, Failure, Matches};
use etch_disk::backend::{Bucket, Snapshot};
use etch_state::mvcc::{KeyValue, Revision};
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

/// Reads the whole file, one row after another.
pub fn read(snapshot: &Snapshot) -> io::Result<Status> {
    let mut crc = 0;
    let mut add = |bytes: &[u8]| crc = crc32c::crc32c_append(crc, bytes);
    let (mut revision, mut keys) = (0, LiveKeys::default());
    for name in snapshot.bucket_names()? {
        add(&name);
        let Some(mut rows) = snapshot.cursor_of(&name)? else { continue };
        while let Some((key, value)) = rows.next()? {
            add(key);
            add(value);
            if name == Bucket::Key.name() {
                revision = keys.see(key, value)?;
            }
        }
    }
    Ok(Status {
        hash: crc,
        revision,
        total_keys: keys.0.len() as u64,
        total_size: snapshot.size(),
        version: offline::storage_version(snapshot)?.map(|v| v.to_string()).unwrap_or_default(),
    })
}

/// The keys that live, by a hash of 128 bits each: what a file of many gigabytes holds fits into memory.
#[derive(Default)]
struct LiveKeys(HashSet<u128>);

impl LiveKeys {
    /// Takes a row of the history, oldest first, and returns its revision.
    fn see(&mut self, row: &[u8], value: &[u8]) -> io::Result<i64> {
        let (revision, tombstone) = Revision::decode(row)
            .ok_or_else(|| damaged("a key of the bucket `key` is no revision"))?;
        // The mark that a jump of the revision leaves has no value and is a key without a name.
        let kv = KeyValue::decode(value).ok_or_else(|| damaged("a value is no KeyValue"))?;
        let id = identity(kv.key);
        if tombstone {
            self.0.remove(&id);
        } else {
            self.0.insert(id);
        }
        Ok(revision.main)
    }
}

fn identity(key: &[u8]) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        hasher.write_u8(salt);
        hasher.write(key);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

fn damaged(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
