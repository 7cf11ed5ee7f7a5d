//! The B+tree: etcd's `db` file, in bbolt's format, read and written in place.
//!
//! Here: buckets, batches, snapshots, commits, and cutting the file while it serves. One writer copies
//! the pages that a batch changes to free pages and then turns to a new root; a [`Snapshot`] keeps an
//! older root, and its pages, for as long as it lives. No read takes a lock or waits for a commit.
//!
//! Not here: what the keys and values mean (`etch-state`), when to commit, and how the bytes reach a
//! device ([`crate::fs`]). `docs/format.md` draws the file.

mod batch;

pub use batch::{Batch, Key};

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
