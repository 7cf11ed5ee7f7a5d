//! The B+tree: etcd's `db` file, in bbolt's format, read and written in place.
//!
//! Here: buckets, batches, snapshots, commits, and cutting the file while it serves. One writer copies
//! the pages that a batch changes to free pages and then turns to a new root; a [`Snapshot`] keeps an
//! older root, and its pages, for as long as it lives. No read takes a lock or waits for a commit.
//!
//! Not here: what the keys and values mean (`etch-state`), when to commit, and how the bytes reach a
//! device ([`crate::fs`]). `docs/format.md` draws the file.

mod batch;
mod bits;
mod bolt;
mod commit;
mod cursor;
mod meta;
mod open;
mod output;
mod page;
mod shrink;
mod snapshot;
mod space;
mod tree;
mod walk;

#[cfg(test)]
mod tests;

use std::io;

pub use batch::{Batch, Key};
pub use bolt::Bolt;
pub use cursor::{Cursor, Row};
pub use open::{Options, open_read_only};
pub use snapshot::Snapshot;

/// A store of buckets: one writer at a time, and any number of readers that never wait for it.
pub trait Backend: Send + Sync {
    /// The newest committed root.
    fn snapshot(&self) -> Snapshot;
    /// Writes a batch, makes it durable, and turns to the new root. All of it or nothing is there after a
    /// crash. The batch comes back empty, its room kept; on an error it keeps its writes.
    ///
    /// An error of kind `StorageFull`, or of any write before the flush, leaves the store as it was. After
    /// an error of a flush nobody knows what the device holds: every later commit is refused.
    fn commit(&self, batch: &mut Batch) -> io::Result<Committed>;
    /// Length in bytes of the newest root's file: what etcd calls the size of the database.
    fn size(&self) -> u64;
    /// The part of [`Backend::size`] that is not free.
    fn size_in_use(&self) -> u64;
    /// Moves up to `pages` pages from the end of the file to free pages further down, in a commit of its
    /// own, and cuts the file where nobody reads its end, 16 MiB and more at a time and the rest with the last
    /// step. Readers go on. Call it until there is no more.
    fn shrink(&self, pages: usize) -> io::Result<Shrunk>;
}

/// What a commit did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Number of the transaction.
    pub txid: u64,
    /// Pages written, the meta page apart.
    pub pages: u64,
    /// Pages of the end of the file that were moved down on the way.
    pub moved: u64,
}

/// What a step of shrinking did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shrunk {
    /// Pages moved.
    pub moved: u64,
    /// Whether another step can do more. Not where a reader of an older root holds the rest.
    pub more: bool,
}

/// The buckets that etcd keeps, in the order of [`Bucket::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Bucket {
    /// Revisions: every stored version of every key.
    Key,
    /// The applied index, its term, the configuration state and the progress of compaction.
    Meta,
    /// Leases.
    Lease,
    /// Raised alarms.
    Alarm,
    /// The cluster version, and a downgrade in progress.
    Cluster,
    /// Members.
    Members,
    /// Identifiers of removed members, never to be used again.
    MembersRemoved,
    /// Whether authentication is on, and its revision.
    Auth,
    /// Users.
    AuthUsers,
    /// Roles.
    AuthRoles,
}

impl Bucket {
    /// Every bucket, in a fixed order.
    pub const ALL: [Bucket; 10] = [
        Bucket::Key,
        Bucket::Meta,
        Bucket::Lease,
        Bucket::Alarm,
        Bucket::Cluster,
        Bucket::Members,
        Bucket::MembersRemoved,
        Bucket::Auth,
        Bucket::AuthUsers,
        Bucket::AuthRoles,
    ];

    /// The name in the file.
    pub const fn name(self) -> &'static [u8] {
        match self {
            Bucket::Key => b"key",
            Bucket::Meta => b"meta",
            Bucket::Lease => b"lease",
            Bucket::Alarm => b"alarm",
            Bucket::Cluster => b"cluster",
            Bucket::Members => b"members",
            Bucket::MembersRemoved => b"members_removed",
            Bucket::Auth => b"auth",
            Bucket::AuthUsers => b"authUsers",
            Bucket::AuthRoles => b"authRoles",
        }
    }
}
