//! One root of the B+tree, as the store reads it: versions by revision. Not here: the tail that comes before it.

use std::io;
use std::ops::ControlFlow;

use etch_disk::backend::{Bucket, Cursor, Snapshot};

use super::Revision;

/// Is shown stored changes: the revision, whether it is a tombstone, the key in the bucket, and the value.
pub(super) type Visit<'v> = &'v mut dyn FnMut(Revision, bool, &[u8], &[u8]) -> ControlFlow<()>;

/// A root of the B+tree.
pub(super) struct Tree(Snapshot);

/// The error for a stored version that is missing or damaged.
pub(super) fn corrupt(revision: Revision, what: &str) -> io::Error {
    let Revision { main, sub } = revision;
    let text = format!("the stored version of revision {main}_{sub} {what}");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

impl Tree {
    pub fn new(snapshot: Snapshot) -> Self {
        Self(snapshot)
    }

    /// The encoded `KeyValue` of a version.
    pub fn get(&self, revision: Revision) -> io::Result<&[u8]> {
        let found = self.0.get(Bucket::Key, &revision.encode())?;
        found.ok_or_else(|| corrupt(revision, "is missing"))
    }

    /// Visits changes from a revision on, in order: revision, tombstone, the key in the bucket, the value.
    pub fn scan(&self, from: Revision, f: Visit<'_>) -> io::Result<()> {
        let mut cursor = self.0.cursor(Bucket::Key)?;
        let mut row = cursor.seek(&from.encode())?;
        while let Some((key, value)) = row {
            let Some((revision, tombstone)) = Revision::decode(key) else {
                let text = format!("{key:02x?} in the bucket `key` is not a revision");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            };
            if f(revision, tombstone, key, value).is_break() {
                break;
            }
            row = cursor.next()?;
        }
        Ok(())
    }

    /// A reader of many versions, quick where they lie near each other.
    pub fn reader(&self) -> io::Result<Reader<'_>> {
        self.0.cursor(Bucket::Key).map(Reader)
    }

    /// A revision in the meta bucket.
    pub fn meta_revision(&self, key: &[u8]) -> io::Result<Option<i64>> {
        let Some(value) = self.0.get(Bucket::Meta, key)? else { return Ok(None) };
        match Revision::decode(value) {
            Some((revision, _)) => Ok(Some(revision.main)),
            None => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} in the bucket `meta` is not a revision", String::from_utf8_lossy(key)),
            )),
        }
    }
}

/// Reads versions one after another.
pub(super) struct Reader<'t>(Cursor<'t>);

impl<'t> Reader<'t> {
    /// The encoded `KeyValue` of a version.
    pub fn get(&mut self, revision: Revision) -> io::Result<&'t [u8]> {
        self.0.get(&revision.encode())?.ok_or_else(|| corrupt(revision, "is missing"))
    }
}
