//! What the index is asked with and answers with. Not here: how it finds it.

use crate::mvcc::Revision;

/// One version of a key that is (or was) alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Where it was written: the key of its value in the backend.
    pub modified: Revision,
    /// The main revision that began its generation.
    pub created: i64,
    /// Its number in its generation, from 1.
    pub version: i64,
    /// Length of the encoded `mvccpb.KeyValue`.
    pub size: u32,
}

/// The numbers of a version that is about to be written, for whoever encodes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewVersion {
    /// The main revision that began its generation.
    pub created: i64,
    /// Its number in its generation, from 1.
    pub version: i64,
}

/// What a put did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Put {
    /// The main revision that began the generation.
    pub created: i64,
    /// The new version's number in its generation, from 1.
    pub version: i64,
    /// The version that it replaced, if the key was alive.
    pub previous: Option<Version>,
}

/// One change in a key's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where it stands.
    pub revision: Revision,
    /// It is a delete.
    pub tombstone: bool,
    /// The version that it replaced or deleted, if that was alive and is not compacted.
    pub previous: Option<Revision>,
}

/// A change as it is found in the backend when a member starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Where it stands; later than every change restored before it.
    pub revision: Revision,
    /// It is a delete; the numbers below mean nothing then.
    pub tombstone: bool,
    /// `create_revision` of the stored KeyValue.
    pub created: i64,
    /// `version` of the stored KeyValue.
    pub version: i64,
    /// Length of the encoded KeyValue.
    pub size: u32,
}

/// How a pass over keys ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Walked {
    /// Every key was seen.
    End,
    /// The visitor had enough.
    Stopped,
    /// The budget is spent: go on after this key.
    More(Vec<u8>),
}

/// A compaction under way. Begin one with [`Compaction::new`] and hand it to `Index::compact_step`
/// until that says it is done. A caller finishes one before it begins the next; an interrupted one
/// may be dropped, and one to a higher revision does its work.
#[derive(Clone, Debug)]
pub struct Compaction {
    pub(super) at: i64,
    /// The key to go on from.
    pub(super) from: Option<Vec<u8>>,
}

impl Compaction {
    /// A compaction to the main revision `at`, from the first key.
    pub fn new(at: i64) -> Self {
        Self { at, from: None }
    }

    /// The revision that it compacts to.
    pub fn revision(&self) -> i64 {
        self.at
    }
}
