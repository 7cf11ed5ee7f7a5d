//! The wire form of one event: the `events` field of a watch response, encoded once for everybody. Not
//! here: the response around it (`message`).

use std::io;

use bytes::{Bytes, BytesMut};
use etch_api::wire;

use super::HistorySource;
use crate::mvcc::{Event, EventKind};

/// `WatchResponse.events`.
const EVENTS: u32 = 11;
/// The fields of `mvccpb.Event`.
const TYPE: u32 = 1;
const KV: u32 = 2;
const PREV_KV: u32 = 3;
/// `mvccpb.Event.DELETE`.
const DELETE: u64 = 1;

impl Event {
    /// What the event counts for in the bounds of queues and messages.
    pub(super) fn weight(&self) -> usize {
        self.kv.len() + 16
    }

    /// The event as a field of a response, without the previous value.
    pub(crate) fn field(&self) -> &Bytes {
        self.plain.get_or_init(|| encode(self, None))
    }

    /// The same with the previous value, if there was one and it is not compacted.
    ///
    /// # Errors
    ///
    /// If the previous value cannot be read.
    pub(crate) fn field_with_previous(&self, source: &dyn HistorySource) -> io::Result<&Bytes> {
        if self.previous.is_none() {
            return Ok(self.field());
        }
        if let Some(field) = self.with_previous.get() {
            return Ok(field);
        }
        let field = match source.previous_kv(self)? {
            Some(previous) => encode(self, Some(&previous)),
            None => self.field().clone(),
        };
        Ok(self.with_previous.get_or_init(|| field))
    }
}

fn encode(event: &Event, previous: Option<&[u8]>) -> Bytes {
    let kind = if event.kind == EventKind::Delete { DELETE } else { 0 };
    let body = wire::field_varint_len(TYPE, kind)
        + wire::field_bytes_len(KV, event.kv.len())
        + previous.map_or(0, |kv| wire::field_bytes_len(PREV_KV, kv.len()));
    let mut out = BytesMut::with_capacity(wire::field_bytes_len(EVENTS, body));
    wire::field_head(EVENTS, body, &mut out);
    wire::field_varint(TYPE, kind, &mut out);
    wire::field_bytes(KV, &event.kv, &mut out);
    if let Some(kv) = previous {
        wire::field_bytes(PREV_KV, kv, &mut out);
    }
    out.freeze()
}
