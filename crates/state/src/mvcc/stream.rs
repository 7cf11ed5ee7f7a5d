//! RangeStream: one range as a row of chunks at one revision. Not here: which requests it is refused for (a request
//! with an order or filters, see `is_default_order` and `has_revision_filters`), and sending.

use std::io;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use etch_api::pb::etcdserverpb::RangeRequest;
use etch_api::range::KeyRange;
use etch_api::wire;

use super::RangeReply;
use super::read::{ReadError, View, select};
use super::reply::Body;
use super::store::Store;
use super::value::KeyValue;

/// Keys of the first chunk.
const FIRST: i64 = 10;

/// One message's content.
#[derive(Debug)]
pub struct Chunk {
    /// The revision for the header, which only the last chunk has. It is the store's at the start.
    pub header_revision: Option<i64>,
    /// The `RangeResponse` without its header; all but the last chunk have keys alone.
    pub reply: RangeReply,
}

/// The chunks of a RangeStream. Between two of them nothing is held.
#[derive(Debug)]
pub struct RangeChunks {
    store: Arc<Store>,
    request: RangeRequest,
    target: usize,
    /// The store's revision when the first chunk was read; 0 before.
    header: i64,
    sent: i64,
    total: i64,
    done: bool,
}

impl Store {
    /// Starts a RangeStream whose chunks come near `target` bytes, which is the limit of requests. An error of the
    /// first chunk is the call's.
    pub fn range_stream(self: &Arc<Self>, request: &RangeRequest, target: usize) -> RangeChunks {
        let total = if request.limit == 0 { i64::MAX } else { request.limit };
        let request = RangeRequest { limit: FIRST.min(total), ..request.clone() };
        RangeChunks { store: self.clone(), request, target, header: 0, sent: 0, total, done: false }
    }
}

impl RangeChunks {
    /// The next chunk; `None` after the last. A compaction that overtakes the stream ends it with an error.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>, ReadError> {
        if self.done {
            return Ok(None);
        }
        let chunk = if self.request.count_only { self.count() } else { self.keys() };
        self.done |= chunk.is_err();
        chunk.map(Some)
    }

    fn count(&mut self) -> Result<Chunk, ReadError> {
        self.done = true;
        let reply = self.store.range(&self.request)?;
        Ok(Chunk { header_revision: Some(reply.revision), reply })
    }

    fn keys(&mut self) -> Result<Chunk, ReadError> {
        self.store.stats().ranges.add(1);
        let store = self.store.clone();
        let request = &self.request;
        let range = KeyRange::new(request.key.clone(), request.range_end.clone());
        let (revision, at, selection, last, mut body) =
            store.retry(request.revision, |view, at| {
                let selection = select(view, request, &range, at, false)?;
                let mut body = BytesMut::with_capacity(selection.kvs_len() + 16);
                selection.encode_kvs(view, &mut body)?;
                // The key to go on after: read from the index again, where only revisions were kept.
                let last = match (selection.more, selection.found.last()) {
                    (true, Some(version)) => Some(key_of(&view.value(version)?)?),
                    _ => None,
                };
                Ok((view.revision(), at, selection, last, body))
            })?;
        if self.header == 0 {
            self.header = revision;
            self.request.revision = at;
        }
        self.sent += selection.found.len() as i64;
        let (kvs, kvs_len) = (selection.found.len(), body.len());
        let mut chunk =
            |numbers| RangeReply::new(numbers, kvs, kvs_len, Body::Encoded(body.split().freeze()));
        let Some(key) = last else {
            self.done = true;
            let reply = chunk((self.header, self.sent, false));
            return Ok(Chunk { header_revision: Some(self.header), reply });
        };
        let mut next = BytesMut::with_capacity(key.len() + 1);
        next.put_slice(&key);
        next.put_u8(0);
        self.request.key = next.freeze();
        if self.sent == self.total {
            let rest = RangeRequest { limit: 0, count_only: true, ..self.request.clone() };
            let rest = store.range(&rest)?.count;
            self.done = true;
            let reply = chunk((self.header, self.sent + rest, true));
            return Ok(Chunk { header_revision: Some(self.header), reply });
        }
        let size = kvs_len + message_rest(revision, selection.count);
        let limit = adjust(self.request.limit, size, self.target);
        self.request.limit = limit.min(self.total - self.sent);
        Ok(Chunk { header_revision: None, reply: chunk((self.header, 0, false)) })
    }
}

fn key_of(kv: &[u8]) -> io::Result<Bytes> {
    let kv = KeyValue::decode(kv).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Bytes::copy_from_slice(kv.key))
}

/// What etcd counts beside the keys: a header with the revision, `more` and the count.
fn message_rest(revision: i64, count: i64) -> usize {
    2 + wire::field_varint_len(3, revision as u64) + 2 + wire::field_varint_len(4, count as u64)
}

/// The next chunk's limit: doubled where the last was less than half of what was aimed at, halved where it was
/// more than twice that.
fn adjust(limit: i64, size: usize, target: usize) -> i64 {
    let limit = if size < target / 2 {
        limit.saturating_mul(2)
    } else if size > target * 2 {
        limit / 2
    } else {
        limit
    };
    limit.max(1)
}
