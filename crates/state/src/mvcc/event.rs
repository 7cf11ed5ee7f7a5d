//! One change to one key, as apply hands it to the watchers. Not here: who watches, and the response
//! that it travels in.

use std::sync::OnceLock;

use bytes::Bytes;

use super::Revision;

/// What happened to the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It was written.
    Put,
    /// It was deleted.
    Delete,
}

/// One change to one key. Made once by apply (or once by a read of history), shared by everybody who
/// watches the key; the wire form is encoded at most once for each of its two shapes, by whoever needs
/// it first, and never by apply.
#[derive(Debug)]
pub struct Event {
    /// Where the change stands in history.
    pub revision: Revision,
    /// What happened.
    pub kind: EventKind,
    /// The key.
    pub key: Bytes,
    /// The encoded `mvccpb.KeyValue` of the event: as stored for a put; key and mod revision alone for
    /// a delete.
    pub kv: Bytes,
    /// The version that this change replaced or deleted, if the key was alive: what `prev_kv` shows.
    pub previous: Option<Revision>,
    /// The `events` field (tag, length, `mvccpb.Event`) without `prev_kv`.
    pub(crate) plain: OnceLock<Bytes>,
    /// The same with `prev_kv`.
    pub(crate) with_previous: OnceLock<Bytes>,
}

impl Event {
    /// A change that nobody has encoded yet.
    pub fn new(
        revision: Revision,
        kind: EventKind,
        key: Bytes,
        kv: Bytes,
        previous: Option<Revision>,
    ) -> Self {
        Self {
            revision,
            kind,
            key,
            kv,
            previous,
            plain: OnceLock::new(),
            with_previous: OnceLock::new(),
        }
    }
}
