//! The answer to a range: its length is known before its first byte, and it is written piece by piece as there
//! is room for it. Not here: which keys are in it (`read`), and its header.

use std::io;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use etch_api::wire;

use super::store::Store;
use super::tree::{Tree, corrupt};
use super::{Event, Revision};

const KVS: u32 = 2;
const MORE: u32 = 3;
const COUNT: u32 = 4;

/// A version that is to be sent, by where it is stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub revision: Revision,
    pub size: u32,
}

impl Item {
    /// The length was promised.
    fn check(&self, kv: &[u8]) -> io::Result<()> {
        if kv.len() == self.size as usize {
            return Ok(());
        }
        Err(corrupt(self.revision, "is not as long as it was"))
    }
}

/// What is to be sent of a range.
pub(super) enum Body {
    /// No key.
    Empty,
    /// One version, found among the newest changes.
    Recent(Bytes),
    /// One version, to be found in this root.
    Tree(Tree, Item),
    /// Versions in the order of the answer.
    Items(Items),
    /// `kvs` fields that are encoded already.
    Encoded(Bytes),
}

/// Versions, and where they are found. The root stays alive until the last is sent.
pub(super) struct Items {
    pub items: Vec<Item>,
    /// Those of the items that are not in `tree`, in the items' order.
    pub recent: std::vec::IntoIter<Arc<Event>>,
    /// Items from this main revision on are in `recent`.
    pub boundary: i64,
    pub tree: Option<Tree>,
    pub next: usize,
    /// The bytes of the next item, where it has been begun: a part of it is sent.
    pub begun: Option<Bytes>,
}

/// The answer to a range request, all of it but its header.
pub struct RangeReply {
    /// The store's revision when it was asked: what the header says.
    pub revision: i64,
    /// How many keys match, whatever the limit.
    pub count: i64,
    /// The limit cut keys off.
    pub more: bool,
    /// How many keys are in the answer.
    pub kvs: usize,
    /// The revision that is read.
    pub(super) at: i64,
    len: usize,
    filled: usize,
    body: Body,
}

impl std::fmt::Debug for RangeReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RangeReply")
            .field("revision", &self.revision)
            .field("count", &self.count)
            .field("more", &self.more)
            .field("kvs", &self.kvs)
            .field("encoded_len", &self.len)
            .finish_non_exhaustive()
    }
}

/// How many bytes a `kvs` field takes.
pub(super) fn field_len(size: u32) -> usize {
    wire::field_bytes_len(KVS, size as usize)
}

/// Appends the start of a `kvs` field.
pub(super) fn field_head(size: usize, out: &mut BytesMut) {
    wire::field_head(KVS, size, out);
}

impl RangeReply {
    /// An answer whose `kvs` fields take `kvs_len` bytes.
    pub(super) fn new(
        (revision, count, more): (i64, i64, bool),
        kvs: usize,
        kvs_len: usize,
        body: Body,
    ) -> Self {
        let len = kvs_len
            + wire::field_varint_len(MORE, u64::from(more))
            + wire::field_varint_len(COUNT, count as u64);
        Self { revision, count, more, kvs, at: revision, len, filled: 0, body }
    }

    /// Length of the whole body: the encoded `RangeResponse` without its header.
    pub fn encoded_len(&self) -> usize {
        self.len
    }

    /// How many bytes are still to come.
    pub fn remaining(&self) -> usize {
        self.len - self.filled
    }

    /// Appends the next bytes of the body, at most `max`, and answers whether there are more to come. An error means that the B+tree cannot be read; the answer is lost then.
    pub fn fill(&mut self, out: &mut BytesMut, max: usize) -> io::Result<bool> {
        let max = max.min(self.remaining());
        out.reserve(max);
        let target = out.len() + max;
        match &mut self.body {
            Body::Items(items) => items.fill(out, target)?,
            Body::Encoded(bytes) => put_part(bytes, out, target),
            Body::Recent(kv) => self.body = begin(kv, out, target),
            Body::Tree(tree, item) => {
                let kv = tree.get(item.revision)?;
                item.check(kv)?;
                self.body = begin(kv, out, target);
            }
            Body::Empty => {}
        }
        self.filled += max - (target - out.len());
        self.trailer(out, target);
        Ok(self.filled < self.len)
    }

    /// The fields after the last key, once there is room for them; they are a few bytes, written at once.
    fn trailer(&mut self, out: &mut BytesMut, target: usize) {
        if out.len() == target {
            return;
        }
        if self.remaining() <= target - out.len() && self.remaining() == self.trailer_len() {
            wire::field_varint(MORE, u64::from(self.more), out);
            wire::field_varint(COUNT, self.count as u64, out);
            self.filled = self.len;
            return;
        }
        let mut rest = BytesMut::new();
        wire::field_varint(MORE, u64::from(self.more), &mut rest);
        wire::field_varint(COUNT, self.count as u64, &mut rest);
        let sent = rest.len() - self.remaining();
        let part = &rest[sent..(sent + target - out.len()).min(rest.len())];
        out.put_slice(part);
        self.filled += part.len();
    }

    fn trailer_len(&self) -> usize {
        wire::field_varint_len(MORE, u64::from(self.more))
            + wire::field_varint_len(COUNT, self.count as u64)
    }

    /// The whole body at once.
    pub fn into_bytes(mut self) -> io::Result<Bytes> {
        let mut out = BytesMut::with_capacity(self.remaining());
        while self.fill(&mut out, usize::MAX)? {}
        Ok(out.freeze())
    }

    /// Goes on from the B+tree's newest root, which has whatever is still to be sent, and lets go of the one
    /// that it was read from: for readers so slow that that one would keep its pages from being used again.
    /// False, and nothing has changed, if a compaction has overtaken the answer.
    pub fn renew(&mut self, store: &Store) -> bool {
        let tree = match &mut self.body {
            Body::Items(Items { tree: Some(tree), .. }) | Body::Tree(tree, _) => tree,
            _ => return true,
        };
        let newest = Tree::new(store.backend().snapshot());
        // Asked after the root was taken: whatever may be missing there is known to be compacted.
        if self.at < store.compact_revision() {
            return false;
        }
        *tree = newest;
        true
    }

    /// Copies what is still to be sent, and lets go of the B+tree's root: where [`renew`](Self::renew) does
    /// not help.
    pub fn detach(&mut self) -> io::Result<()> {
        let rest = self.remaining().saturating_sub(self.trailer_len());
        let copied = match &mut self.body {
            Body::Items(items) => {
                let mut out = BytesMut::with_capacity(rest);
                items.fill(&mut out, rest)?;
                Body::Encoded(out.freeze())
            }
            Body::Tree(tree, item) => {
                let kv = tree.get(item.revision)?;
                item.check(kv)?;
                Body::Recent(Bytes::copy_from_slice(kv))
            }
            Body::Recent(_) | Body::Encoded(_) | Body::Empty => return Ok(()),
        };
        self.body = copied;
        Ok(())
    }
}

/// Moves the first bytes of `bytes` to `out`, until that is `target` long.
fn put_part(bytes: &mut Bytes, out: &mut BytesMut, target: usize) {
    let room = (target - out.len()).min(bytes.len());
    out.put_slice(&bytes.split_to(room));
}

/// Appends a version's field, or as much of it as there is room for: the rest is the body that is left.
fn begin(kv: &[u8], out: &mut BytesMut, target: usize) -> Body {
    if wire::field_bytes_len(KVS, kv.len()) <= target - out.len() {
        wire::field_bytes(KVS, kv, out);
        return Body::Empty;
    }
    let mut field = BytesMut::with_capacity(wire::field_bytes_len(KVS, kv.len()));
    wire::field_bytes(KVS, kv, &mut field);
    let mut field = field.freeze();
    put_part(&mut field, out, target);
    Body::Encoded(field)
}

impl Items {
    /// Appends items until `out` is `target` bytes long or all are there.
    fn fill(&mut self, out: &mut BytesMut, target: usize) -> io::Result<()> {
        if let Some(begun) = &mut self.begun {
            put_part(begun, out, target);
            if !begun.is_empty() {
                return Ok(());
            }
            self.begun = None;
        }
        let mut reader = self.tree.as_ref().map(Tree::reader).transpose()?;
        while out.len() < target && self.next < self.items.len() {
            let item = self.items[self.next];
            self.next += 1;
            let event;
            let kv = if item.revision.main >= self.boundary {
                event = self.recent.next().expect("each recent item brought its event");
                &event.kv[..]
            } else {
                reader.as_mut().expect("an older item brought a root").get(item.revision)?
            };
            item.check(kv)?;
            if let Body::Encoded(rest) = begin(kv, out, target) {
                self.begun = Some(rest);
            }
        }
        Ok(())
    }
}
