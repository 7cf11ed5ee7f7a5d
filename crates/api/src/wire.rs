//! Protobuf by hand, for the paths where building a message first would cost: integers, fields, reply headers.
//!
//! Whole messages are prost's business; the raft entry is in [`crate::internal`].

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::DecodeError;
use prost::encoding::{self, WireType};

/// Appends a varint.
pub fn put_varint(value: u64, out: &mut impl BufMut) {
    encoding::encode_varint(value, out);
}

/// How many bytes [`put_varint`] would append.
pub const fn varint_len(value: u64) -> usize {
    // Seven bits a byte; 0 takes one as well.
    ((63 - (value | 1).leading_zeros() as usize) / 7) + 1
}

/// Appends the start of a length-delimited field, to be followed by `len` bytes.
pub fn field_head(tag: u32, len: usize, out: &mut impl BufMut) {
    encoding::encode_key(tag, WireType::LengthDelimited, out);
    put_varint(len as u64, out);
}

/// Appends bytes, a string or an encoded message as a field, even if they are empty.
pub fn field_bytes(tag: u32, value: &[u8], out: &mut impl BufMut) {
    field_head(tag, value.len(), out);
    out.put_slice(value);
}

/// How many bytes [`field_bytes`] would append.
pub const fn field_bytes_len(tag: u32, len: usize) -> usize {
    varint_len((tag as u64) << 3) + varint_len(len as u64) + len
}

/// Appends an integer field, or nothing for 0, as proto3 wants it. An `int64` goes in as `as u64`.
pub fn field_varint(tag: u32, value: u64, out: &mut impl BufMut) {
    if value != 0 {
        encoding::encode_key(tag, WireType::Varint, out);
        put_varint(value, out);
    }
}

/// How many bytes [`field_varint`] would append.
pub const fn field_varint_len(tag: u32, value: u64) -> usize {
    if value == 0 { 0 } else { varint_len((tag as u64) << 3) + varint_len(value) }
}

/// Takes the next length-delimited value off `buf`, sharing its memory.
pub fn take_bytes(buf: &mut Bytes) -> Result<Bytes, DecodeError> {
    let len = encoding::decode_varint(buf)?;
    match usize::try_from(len) {
        Ok(len) if len <= buf.remaining() => Ok(buf.split_to(len)),
        _ => Err(truncated()),
    }
}

/// The error for a value that reaches beyond its message.
fn truncated() -> DecodeError {
    // prost keeps its constructors to itself; reading a byte of nothing yields the error that is meant.
    encoding::decode_varint(&mut &[][..]).expect_err("a varint of no bytes")
}

/// The fields of `ResponseHeader` that never change while a member runs, already encoded.
#[derive(Debug, Clone)]
pub struct HeaderTemplate {
    fixed: Bytes,
}

impl HeaderTemplate {
    /// For this member of this cluster.
    pub fn new(cluster_id: u64, member_id: u64) -> HeaderTemplate {
        let mut fixed = BytesMut::new();
        field_varint(1, cluster_id, &mut fixed);
        field_varint(2, member_id, &mut fixed);
        HeaderTemplate { fixed: fixed.freeze() }
    }

    /// Appends the header as field `field_number` of a reply (1 in all of etcd's replies).
    pub fn encode(&self, revision: i64, term: u64, out: &mut BytesMut, field_number: u32) {
        let len = self.body_len(revision, term);
        out.reserve(field_bytes_len(field_number, len));
        field_head(field_number, len, out);
        out.put_slice(&self.fixed);
        field_varint(3, revision as u64, out);
        field_varint(4, term, out);
    }

    /// How many bytes [`HeaderTemplate::encode`] would append.
    pub fn encoded_len(&self, revision: i64, term: u64, field_number: u32) -> usize {
        field_bytes_len(field_number, self.body_len(revision, term))
    }

    fn body_len(&self, revision: i64, term: u64) -> usize {
        self.fixed.len() + field_varint_len(3, revision as u64) + field_varint_len(4, term)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::pb::etcdserverpb::{CompactionResponse, ResponseHeader};

    #[test]
    fn varint_lengths_are_right() {
        for bits in 0..=64u32 {
            for value in
                [(1u128 << bits) - 1, 1u128 << bits].map(|v| u64::try_from(v).unwrap_or(u64::MAX))
            {
                let mut out = Vec::new();
                put_varint(value, &mut out);
                assert_eq!(out.len(), varint_len(value), "{value}");
                assert_eq!(out.len(), encoding::encoded_len_varint(value));
            }
        }
    }

    #[test]
    fn field_lengths_are_right() {
        for tag in [1, 15, 16, 2047, 2048, 9900] {
            for len in [0, 1, 127, 128, 20_000] {
                let mut out = Vec::new();
                field_bytes(tag, &vec![7; len], &mut out);
                assert_eq!(out.len(), field_bytes_len(tag, len));
            }
            for value in [0, 1, 300, u64::MAX] {
                let mut out = Vec::new();
                field_varint(tag, value, &mut out);
                assert_eq!(out.len(), field_varint_len(tag, value));
            }
        }
    }

    #[test]
    fn header_is_what_prost_writes() {
        for (cluster_id, member_id, revision, raft_term) in
            [(0, 0, 0, 0), (1, 2, 3, 4), (u64::MAX, 1 << 63, i64::MAX, 9), (7, 0, -1, 0)]
        {
            let template = HeaderTemplate::new(cluster_id, member_id);
            let mut out = BytesMut::new();
            template.encode(revision, raft_term, &mut out, 1);
            let header = Some(ResponseHeader { cluster_id, member_id, revision, raft_term });
            assert_eq!(out, CompactionResponse { header }.encode_to_vec()[..]);
            assert_eq!(out.len(), template.encoded_len(revision, raft_term, 1));
        }
    }

    #[test]
    fn values_are_taken_without_copying_and_never_past_the_end() {
        let mut buf = Bytes::from_static(b"\x03abcd");
        let whole = buf.clone();
        let value = take_bytes(&mut buf).unwrap();
        assert_eq!(value, &b"abc"[..]);
        assert_eq!(value.as_ptr(), whole[1..].as_ptr());
        assert!(take_bytes(&mut Bytes::from_static(b"\x03ab")).is_err());
        assert!(
            take_bytes(&mut Bytes::from_static(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01a"))
                .is_err()
        );
        assert!(take_bytes(&mut Bytes::new()).is_err());
    }
}
