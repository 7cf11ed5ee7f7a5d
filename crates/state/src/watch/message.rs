//! One response of a watch stream on its way out, and how it is cut where the client wants fragments. Not
//! here: the response header, which only the server knows.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::{BufMut, Bytes};
use etch_api::wire;
use etch_disk::mutants::{self, Mutant};

/// The events of a response: encoded, in order, shared by all watchers that see the same ones.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct EventBatch {
    /// Each one an `events` field with its tag and length, so that they follow one another as they are.
    pub pieces: Vec<Bytes>,
    /// Their length together.
    pub len: usize,
    /// The revision of the last one.
    pub last: i64,
}

/// A `WatchResponse` but for its header: few numbers, and the shared events.
///
/// The reply on the wire is the header with [`revision`](Self::revision), then
/// [`encode_fields`](Self::encode_fields), then the pieces of [`events`](Self::events).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutMessage {
    /// The revision in the response's header.
    pub revision: i64,
    /// The watcher; -1 where no single one is meant.
    pub watch_id: i64,
    /// Says that the watcher was created.
    pub created: bool,
    /// Says that the watcher is no more.
    pub canceled: bool,
    /// The compacted revision, if that is why.
    pub compact_revision: i64,
    /// Why, in words.
    pub cancel_reason: Cow<'static, str>,
    /// More of the same follows.
    pub fragment: bool,
    /// The events, if there are any.
    pub events: Option<Arc<EventBatch>>,
}

impl OutMessage {
    /// The encoded events.
    pub fn pieces(&self) -> &[Bytes] {
        self.events.as_deref().map_or(&[], |batch| &batch.pieces)
    }

    /// The length of the whole message but for the header field.
    pub fn encoded_len(&self) -> usize {
        let mut len = wire::field_varint_len(2, self.watch_id as u64)
            + wire::field_varint_len(3, u64::from(self.created))
            + wire::field_varint_len(4, u64::from(self.canceled))
            + wire::field_varint_len(5, self.compact_revision as u64)
            + wire::field_varint_len(7, u64::from(self.fragment));
        if !self.cancel_reason.is_empty() {
            len += wire::field_bytes_len(6, self.cancel_reason.len());
        }
        len + self.events.as_ref().map_or(0, |batch| batch.len)
    }

    /// Appends all fields between the header and the events.
    pub fn encode_fields(&self, out: &mut impl BufMut) {
        wire::field_varint(2, self.watch_id as u64, out);
        wire::field_varint(3, u64::from(self.created), out);
        wire::field_varint(4, u64::from(self.canceled), out);
        wire::field_varint(5, self.compact_revision as u64, out);
        if !self.cancel_reason.is_empty() {
            wire::field_bytes(6, self.cancel_reason.as_bytes(), out);
        }
        wire::field_varint(7, u64::from(self.fragment), out);
    }
}

/// Cuts a message with events into fragments below `limit` bytes, `header` of them for the header field.
///
/// An event that is too large by itself travels alone. All parts but the last say that more follows.
pub(super) fn fragments(
    message: OutMessage,
    header: usize,
    limit: usize,
    out: &mut Vec<OutMessage>,
) {
    let pieces = message.pieces();
    if pieces.len() < 2 || header + message.encoded_len() < limit {
        out.push(message);
        return;
    }
    let whole = message.events.clone().expect("a message with pieces has a batch");
    let bare = OutMessage { events: None, fragment: true, ..message };
    let fixed = header + bare.encoded_len();
    let mut start = 0;
    while start < whole.pieces.len() {
        let mut end = start + 1;
        let mut len = whole.pieces[start].len();
        while end < whole.pieces.len() && fixed + len + whole.pieces[end].len() < limit {
            len += whole.pieces[end].len();
            end += 1;
        }
        let pieces = whole.pieces[start..end].to_vec();
        out.push(OutMessage {
            fragment: end < whole.pieces.len() && !mutants::on(Mutant::I9291),
            events: Some(Arc::new(EventBatch { pieces, len, last: whole.last })),
            ..bare.clone()
        });
        start = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(sizes: &[usize]) -> OutMessage {
        let pieces: Vec<_> = sizes.iter().map(|&n| Bytes::from(vec![0x5a; n])).collect();
        let len = sizes.iter().sum();
        let events = Some(Arc::new(EventBatch { pieces, len, last: 9 }));
        OutMessage { revision: 9, watch_id: 3, events, ..OutMessage::default() }
    }

    fn cut(sizes: &[usize], limit: usize) -> Vec<Vec<usize>> {
        let mut out = Vec::new();
        fragments(message(sizes), 10, limit, &mut out);
        let last = out.len() - 1;
        for (at, part) in out.iter().enumerate() {
            assert_eq!(part.fragment, at != last);
            assert_eq!((part.revision, part.watch_id), (9, 3));
        }
        out.iter().map(|part| part.pieces().iter().map(Bytes::len).collect()).collect()
    }

    #[test]
    fn cuts_below_the_limit_and_keeps_order() {
        // Header 10, watch id 2, fragment flag 2: fourteen bytes beside the events.
        assert_eq!(cut(&[50, 20, 10], 93), [[50, 20, 10]]);
        assert_eq!(cut(&[50, 20, 10], 92), [&[50, 20][..], &[10]]);
        assert_eq!(cut(&[50, 20, 10], 84), [&[50][..], &[20, 10]]);
        assert_eq!(cut(&[500, 1, 500], 100), [[500], [1], [500]]);
        assert_eq!(cut(&[500], 100), [[500]]);
    }

    #[test]
    fn the_length_is_what_is_written() {
        let mut all = message(&[5, 6]);
        all.created = true;
        all.canceled = true;
        all.compact_revision = 300;
        all.cancel_reason = "because".into();
        all.fragment = true;
        all.watch_id = -1;
        let mut out = Vec::new();
        all.encode_fields(&mut out);
        assert_eq!(out.len() + 11, all.encoded_len());
    }
}
