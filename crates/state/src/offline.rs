//! What tools do to the state in a file that nobody serves: the start of a new cluster from an old one's data,
//! a jump of the revision, the storage version. Not here: files (`etch_disk`), the tools (`etchutl`).
//!
//! Each is a [`Batch`] for one commit, so that a file has all of it or nothing.

use std::io;

use bytes::Bytes;
use etch_api::pb::mvccpb::KeyValue;
use etch_disk::backend::{Batch, Bucket, Snapshot};
use prost::Message as _;

use crate::members::{Member, key_of};
use crate::mvcc::{self, Revision};
use crate::state::{CONF_STATE, CONSISTENT_INDEX, STORAGE_VERSION, TERM, conf_state_json, number};
use crate::version::Version;

/// Makes the data that of a new cluster: the members are these and nobody was ever removed, and the log
/// begins with their addition, up to `index` in `term`.
pub fn new_cluster(
    snapshot: &Snapshot,
    members: &[Member],
    index: u64,
    term: u64,
) -> io::Result<Batch> {
    let mut batch = Batch::new();
    for bucket in [Bucket::Members, Bucket::MembersRemoved] {
        let mut rows = snapshot.cursor(bucket)?;
        while let Some((key, _)) = rows.next()? {
            batch.delete(bucket, key);
        }
    }
    for member in members {
        batch.put(Bucket::Members, key_of(member.id), member.to_json());
    }
    let mut voters: Vec<u64> = members.iter().map(|m| m.id).collect();
    voters.sort_unstable();
    batch.put(Bucket::Meta, CONF_STATE, conf_state_json(&voters, &[]));
    batch.put(Bucket::Meta, CONSISTENT_INDEX, Bytes::copy_from_slice(&index.to_be_bytes()));
    batch.put(Bucket::Meta, TERM, Bytes::copy_from_slice(&term.to_be_bytes()));
    Ok(batch)
}

/// Moves the revision up by `amount`, and compacts everything before: whoever watches or reads at an old
/// revision is told that it is compacted, and no revision is ever seen twice. Returns the old and the new one.
pub fn bump_revision(
    snapshot: &Snapshot,
    amount: u64,
    batch: &mut Batch,
) -> io::Result<(i64, i64)> {
    let latest = latest_revision(snapshot)?;
    let bumped =
        i64::try_from(amount).ok().and_then(|a| latest.checked_add(a)).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "the revision would pass 2^63")
        })?;
    batch.put(Bucket::Key, &Revision::new(bumped, 0).encode()[..], Bytes::new());
    mvcc::schedule_compaction(batch, bumped);
    Ok((latest, bumped))
}

/// Adds keys with revisions that they had elsewhere, each a row of its own, and moves the applied index to `index`
/// unless it is there already: no entry up to it is applied again.
///
/// # Errors
/// Another key was written at one of these revisions, or a revision is none.
pub fn import(snapshot: &Snapshot, keys: &[KeyValue], index: u64) -> io::Result<Batch> {
    let mut batch = Batch::new();
    for kv in keys {
        let wrong = |why: &str| {
            let key = String::from_utf8_lossy(&kv.key);
            let why = format!("key {key:?} at revision {}: {why}", kv.mod_revision);
            Err(io::Error::new(io::ErrorKind::InvalidInput, why))
        };
        if kv.mod_revision < 1 {
            return wrong("there is no such revision");
        }
        let row = Revision::new(kv.mod_revision, 0).encode();
        let value = Bytes::from(kv.encode_to_vec());
        if snapshot.get(Bucket::Key, &row[..])?.is_some_and(|held| held != &value[..]) {
            return wrong("the store has something else at this revision");
        }
        batch.put(Bucket::Key, &row[..], value);
    }
    if index > consistent_index(snapshot)? {
        batch.put(Bucket::Meta, CONSISTENT_INDEX, Bytes::copy_from_slice(&index.to_be_bytes()));
    }
    Ok(batch)
}

/// The newest revision in the file; 0 if there is none.
pub fn latest_revision(snapshot: &Snapshot) -> io::Result<i64> {
    let mut rows = snapshot.cursor(Bucket::Key)?;
    let Some((key, _)) = rows.last()? else { return Ok(0) };
    let revision = Revision::decode(key).map(|(revision, _)| revision.main);
    revision.ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "a key of the bucket `key` is no revision")
    })
}

/// The version of etcd that wrote the file, where it says so: from 3.6 on.
pub fn storage_version(snapshot: &Snapshot) -> io::Result<Option<Version>> {
    let Some(value) = snapshot.get(Bucket::Meta, STORAGE_VERSION)? else { return Ok(None) };
    let text = String::from_utf8_lossy(value);
    Ok(text.parse().ok())
}

/// Writes the storage version; etcd 3.5 and older know none.
pub fn set_storage_version(batch: &mut Batch, version: Option<Version>) {
    match version {
        Some(version) => {
            let text = version.cluster().to_string();
            batch.put(Bucket::Meta, STORAGE_VERSION, Bytes::from(text));
        }
        None => batch.delete(Bucket::Meta, STORAGE_VERSION),
    }
}

/// The term of the last entry that the file holds; 0 where it was written by etcd 3.4 or older.
pub fn term(snapshot: &Snapshot) -> io::Result<u64> {
    number(snapshot, TERM)
}

/// The index of the last entry that the file holds.
pub fn consistent_index(snapshot: &Snapshot) -> io::Result<u64> {
    number(snapshot, CONSISTENT_INDEX)
}
