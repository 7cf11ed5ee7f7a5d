//! Watches: who wants to hear of which keys, and how the events reach them.
//!
//! The node thread hands every batch of events to the [`Hub`], once, after the store has published its
//! revision. The hub finds the streams that watch the keys and puts the shared events into each stream's
//! bounded queue; it encodes nothing, waits for nobody and rings each net thread's [`Doorbell`] at most
//! once. Everything else happens in the [`StreamState`], which belongs to the net thread of its
//! connection: watchers come and go there, events get their wire form there (once, for all who share
//! them), and a watcher that is behind reads history there, through [`HistorySource`], at the pace of its
//! reader.
//!
//! What makes it right:
//!
//! - A *subscription* is one range of one stream, known to the hub. From the revision `since` that the hub
//!   gave it, every event in the range goes through the stream's queue, until the queue overflows.
//! - A watcher is *synced* if all that it still has to see comes through the queue; else it reads history
//!   up to the first revision that the queue still holds for it, and only then joins. There is neither a
//!   gap nor an overlap, because both sides are named by revision.
//! - A queue that overflows keeps what it has, drops the new batch whole and notes its first revision.
//!   When the stream has sent what was kept, its watchers fall back to history from there.
//! - A progress answer names a revision that the hub had finished before the queue was found empty, and
//!   stands behind everything that was taken from the queue.
//!
//! Not here: sockets, gRPC, threads, clocks, permissions (the caller decides them before `create`), and
//! the history itself (`mvcc`).

mod catchup;
mod deliver;
mod encode;
mod hub;
mod message;
mod permission;
mod queue;
mod ranges;
mod source;
mod stream;
#[cfg(test)]
pub(crate) mod tests;

use std::io;

use bytes::Bytes;
use etch_api::KeyRange;

use crate::mvcc::{Budget, Event, History};

pub use hub::{Counters, Hub};
pub use message::{EventBatch, OutMessage};
pub use queue::Doorbell;
pub use stream::{StreamConfig, StreamState};

/// How a thread that sleeps is told that there is something for it.
///
/// Called by the node thread, so it must not block. Calls may come while the thread is awake.
pub trait Wake: Send + Sync {
    /// Wakes the thread.
    fn wake(&self);
}

/// Why there is no history to be had.
#[derive(Debug)]
pub enum HistoryError {
    /// It was compacted; this is the compacted revision.
    Compacted(i64),
    /// The disk said no.
    Io(io::Error),
}

/// Where a watcher that is behind finds what it missed: `mvcc::Store`.
pub trait HistorySource {
    /// The revision that the store has published.
    fn revision(&self) -> i64;

    /// The revision of the last compaction. History starts *at* it.
    fn compact_revision(&self) -> i64;

    /// The events in `range` from revision `from` to revision `to`, both included.
    ///
    /// Stops between two revisions once the budget is used up, but never before it has covered one
    /// revision: its `next` is above `from`. `from` is at most `to`, and `to` at most [`revision`](Self::revision).
    ///
    /// # Errors
    ///
    /// If `from` is below the compacted revision, or was overtaken by a compaction; if the disk fails.
    fn history(
        &self,
        range: &KeyRange,
        from: i64,
        to: i64,
        budget: Budget,
    ) -> Result<History, HistoryError>;

    /// The encoded `mvccpb.KeyValue` of the version that the event replaced; `None` if there was none, or
    /// if it is compacted.
    ///
    /// # Errors
    ///
    /// If the disk fails.
    fn previous_kv(&self, event: &Event) -> io::Result<Option<Bytes>>;
}
