//! The encoded `mvccpb.KeyValue`: its length before it is written, writing it once, and reading numbers out of
//! it without copying. Not here: where the bytes are kept.

use bytes::{Bytes, BytesMut};
use etch_api::wire;
use prost::encoding::{WireType, decode_key, decode_varint};

const KEY: u32 = 1;
const CREATED: u32 = 2;
const MODIFIED: u32 = 3;
const VERSION: u32 = 4;
const VALUE: u32 = 5;
const LEASE: u32 = 6;

/// The fields of a `KeyValue`, borrowed from wherever they lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyValue<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The main revision that began its generation.
    pub created: i64,
    /// The main revision that wrote it.
    pub modified: i64,
    /// Its number in its generation, from 1.
    pub version: i64,
    /// The value.
    pub value: &'a [u8],
    /// The lease that it is attached to, or 0.
    pub lease: i64,
}

impl<'a> KeyValue<'a> {
    /// Reads an encoded `KeyValue`; fields that are not known are passed over. `None` if it is not one.
    pub fn decode(mut buf: &'a [u8]) -> Option<Self> {
        let mut kv = Self::default();
        while !buf.is_empty() {
            let (tag, wire) = decode_key(&mut buf).ok()?;
            match (tag, wire) {
                (KEY, WireType::LengthDelimited) => kv.key = take(&mut buf)?,
                (VALUE, WireType::LengthDelimited) => kv.value = take(&mut buf)?,
                (CREATED, WireType::Varint) => kv.created = decode_varint(&mut buf).ok()? as i64,
                (MODIFIED, WireType::Varint) => kv.modified = decode_varint(&mut buf).ok()? as i64,
                (VERSION, WireType::Varint) => kv.version = decode_varint(&mut buf).ok()? as i64,
                (LEASE, WireType::Varint) => kv.lease = decode_varint(&mut buf).ok()? as i64,
                (_, wire) => skip(&mut buf, wire)?,
            }
        }
        Some(kv)
    }

    /// Length of the encoding.
    pub fn encoded_len(&self) -> usize {
        bytes_len(KEY, self.key)
            + wire::field_varint_len(CREATED, self.created as u64)
            + wire::field_varint_len(MODIFIED, self.modified as u64)
            + wire::field_varint_len(VERSION, self.version as u64)
            + bytes_len(VALUE, self.value)
            + wire::field_varint_len(LEASE, self.lease as u64)
    }

    /// Appends the encoding.
    pub fn encode(&self, out: &mut BytesMut) {
        put_bytes(KEY, self.key, out);
        wire::field_varint(CREATED, self.created as u64, out);
        wire::field_varint(MODIFIED, self.modified as u64, out);
        wire::field_varint(VERSION, self.version as u64, out);
        put_bytes(VALUE, self.value, out);
        wire::field_varint(LEASE, self.lease as u64, out);
    }
}

fn bytes_len(tag: u32, value: &[u8]) -> usize {
    if value.is_empty() { 0 } else { wire::field_bytes_len(tag, value.len()) }
}

fn put_bytes(tag: u32, value: &[u8], out: &mut BytesMut) {
    if !value.is_empty() {
        wire::field_bytes(tag, value, out);
    }
}

fn take<'a>(buf: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(decode_varint(buf).ok()?).ok()?;
    let (head, rest) = buf.split_at_checked(len)?;
    *buf = rest;
    Some(head)
}

fn skip(buf: &mut &[u8], wire: WireType) -> Option<()> {
    match wire {
        WireType::Varint => decode_varint(buf).ok().map(drop),
        WireType::LengthDelimited => take(buf).map(drop),
        WireType::ThirtyTwoBit => buf.split_off(..4).map(drop),
        WireType::SixtyFourBit => buf.split_off(..8).map(drop),
        WireType::StartGroup | WireType::EndGroup => None,
    }
}

/// The stored form of a delete, which is the first part of its event's `KeyValue`.
pub fn stored_tombstone(event: &[u8], modified: i64) -> &[u8] {
    &event[..event.len() - wire::field_varint_len(MODIFIED, modified as u64)]
}

/// Where the encodings of new versions are written: large chunks, handed out as shared slices, so that the tail,
/// the watchers and the B+tree's batch keep the same bytes.
#[derive(Debug, Default)]
pub struct Arena {
    chunk: BytesMut,
}

/// Room of a chunk. A slice keeps its chunk alive, so it is small against what the tail may hold.
const CHUNK: usize = 256 << 10;

impl Arena {
    /// Encodes a version: the whole, and the key within it.
    pub fn encode(&mut self, kv: &KeyValue<'_>, len: usize) -> (Bytes, Bytes) {
        self.room(len);
        kv.encode(&mut self.chunk);
        self.cut(kv.key.len())
    }

    /// Encodes a delete: its event's `KeyValue` (key and mod revision), the key, and the stored form, which
    /// is the first part of the event's.
    pub fn encode_tombstone(&mut self, key: &[u8], modified: i64) -> (Bytes, Bytes, Bytes) {
        let event = KeyValue { key, modified, ..KeyValue::default() };
        self.room(event.encoded_len());
        event.encode(&mut self.chunk);
        let (whole, key) = self.cut(key.len());
        let stored = whole.slice_ref(stored_tombstone(&whole, modified));
        (whole, key, stored)
    }

    fn room(&mut self, len: usize) {
        if self.chunk.capacity() < len {
            self.chunk = BytesMut::with_capacity(CHUNK.max(len));
        }
    }

    fn cut(&mut self, key_len: usize) -> (Bytes, Bytes) {
        let whole = self.chunk.split().freeze();
        let key = if key_len == 0 {
            Bytes::new()
        } else {
            let start = 1 + wire::varint_len(key_len as u64);
            whole.slice(start..start + key_len)
        };
        (whole, key)
    }
}

#[cfg(test)]
mod tests {
    use etch_api::pb::mvccpb;
    use prost::Message;

    use super::*;

    fn samples() -> Vec<KeyValue<'static>> {
        let big = KeyValue {
            key: &[b'k'; 200],
            created: i64::MAX,
            modified: -1,
            version: 300,
            value: &[7; 5000],
            lease: -5,
        };
        let small =
            KeyValue { key: b"a", created: 2, modified: 3, version: 1, value: b"", lease: 0 };
        vec![big, small, KeyValue::default(), KeyValue { key: b"only", ..KeyValue::default() }]
    }

    #[test]
    fn encodes_as_prost_does_and_reads_it_back() {
        for kv in samples() {
            let message = mvccpb::KeyValue {
                key: Bytes::copy_from_slice(kv.key),
                create_revision: kv.created,
                mod_revision: kv.modified,
                version: kv.version,
                value: Bytes::copy_from_slice(kv.value),
                lease: kv.lease,
            };
            let mut out = BytesMut::new();
            kv.encode(&mut out);
            assert_eq!(out, message.encode_to_vec()[..]);
            assert_eq!(out.len(), kv.encoded_len());
            assert_eq!(KeyValue::decode(&out), Some(kv));
        }
    }

    #[test]
    fn passes_over_unknown_fields_and_refuses_what_is_cut() {
        let mut out = BytesMut::new();
        let kv = samples()[0];
        kv.encode(&mut out);
        let whole = out.len();
        wire::field_varint(99, 1, &mut out);
        wire::field_bytes(98, b"x", &mut out);
        assert_eq!(KeyValue::decode(&out), Some(kv));
        assert_eq!(KeyValue::decode(&out[..whole - 1]), None);
    }

    #[test]
    fn the_arena_shares_its_bytes() {
        let mut arena = Arena::default();
        for _ in 0..100 {
            for kv in samples() {
                let (whole, key) = arena.encode(&kv, kv.encoded_len());
                assert_eq!(KeyValue::decode(&whole), Some(kv));
                assert_eq!(key, kv.key);
                let (event, key, stored) = arena.encode_tombstone(kv.key, 9);
                assert_eq!(key, kv.key);
                assert_eq!(KeyValue::decode(&event).map(|kv| kv.modified), Some(9));
                let plain = KeyValue { key: kv.key, ..KeyValue::default() };
                assert_eq!(KeyValue::decode(&stored), Some(plain));
            }
        }
    }
}
