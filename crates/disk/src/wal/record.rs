//! One record of the log as bytes: the frame, the record, and the checksum that runs through all records.
//!
//! Not here: files, and what to do with a record that cannot be read (`read`).

use crc32c::crc32c_append;
use etch_api::pb::raftpb::{Entry, HardState};
use etch_api::pb::walpb::Snapshot;
use prost::Message;

use crate::mutants::{self, Mutant};

/// Metadata: whose log it is.
pub const METADATA: u8 = 1;
/// A raft entry.
pub const ENTRY: u8 = 2;
/// Raft's hard state.
pub const STATE: u8 = 3;
/// The running checksum, at the head of each segment.
pub const CRC: u8 = 4;
/// A note that a snapshot exists.
pub const SNAPSHOT: u8 = 5;

/// Length of a frame's header.
pub const FRAME: usize = 8;
/// The least that a device writes as a whole.
pub const SECTOR: usize = 512;

/// More than the head of any record: frame, type, checksum, tag and length, and an entry's own head.
const HEAD: usize = 96;

/// Bytes gathered on the stack before they go into the buffer at once.
struct Small {
    bytes: [u8; HEAD],
    len: usize,
}

impl Small {
    fn new() -> Self {
        Self { bytes: [0; HEAD], len: 0 }
    }

    fn byte(&mut self, b: u8) {
        self.bytes[self.len] = b;
        self.len += 1;
    }

    fn varint(&mut self, mut v: u64) {
        while v >= 0x80 {
            self.byte(v as u8 | 0x80);
            v >>= 7;
        }
        self.byte(v as u8);
    }

    fn field(&mut self, tag: u8, v: Option<u64>) {
        if let Some(v) = v {
            self.byte(tag);
            self.varint(v);
        }
    }

    fn get(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Appends an entry's record. `crc` is the checksum of the log so far, and is moved on.
pub fn put_entry(buf: &mut Vec<u8>, crc: &mut u32, entry: &Entry) {
    let mut head = Small::new();
    // A type that is set is written as int32 is: a negative one in ten bytes.
    head.field(0x08, entry.r#type.map(|t| i64::from(t) as u64));
    head.field(0x10, entry.term);
    head.field(0x18, entry.index);
    let data = entry.data.as_deref().unwrap_or_default();
    if entry.data.is_some() {
        head.byte(0x22);
        head.varint(data.len() as u64);
    }
    put(buf, crc, ENTRY, head.get(), data);
}

/// Appends the record of a hard state.
pub fn put_state(buf: &mut Vec<u8>, crc: &mut u32, state: &HardState) {
    let mut body = Small::new();
    body.field(0x08, state.term);
    body.field(0x10, state.vote);
    body.field(0x18, state.commit);
    put(buf, crc, STATE, body.get(), &[]);
}

/// Appends the record of a snapshot.
pub fn put_snapshot(buf: &mut Vec<u8>, crc: &mut u32, snapshot: &Snapshot) {
    put(buf, crc, SNAPSHOT, &[], &snapshot.encode_to_vec());
}

/// Appends the metadata record.
pub fn put_metadata(buf: &mut Vec<u8>, crc: &mut u32, metadata: &[u8]) {
    put(buf, crc, METADATA, &[], metadata);
}

/// Appends the record that opens a segment; it states the checksum and does not move it.
pub fn put_crc(buf: &mut Vec<u8>, crc: u32) {
    let mut crc = crc;
    put(buf, &mut crc, CRC, &[], &[]);
}

/// Appends one frame whose data is `head` and `tail` in a row, with one pass of the checksum over them.
fn put(buf: &mut Vec<u8>, crc: &mut u32, kind: u8, head: &[u8], tail: &[u8]) {
    let size = head.len() + tail.len();
    *crc = crc32c_append(crc32c_append(*crc, head), tail);
    let mut top = Small::new();
    top.len = FRAME;
    top.byte(0x08);
    top.byte(kind);
    top.byte(0x10);
    top.varint(u64::from(*crc));
    if size > 0 {
        top.byte(0x1a);
        top.varint(size as u64);
    }
    let record = top.len - FRAME + size;
    let pad = padding(record);
    let mut header = record as u64;
    if pad > 0 {
        header |= (0x80 | pad as u64) << 56;
    }
    top.bytes[..FRAME].copy_from_slice(&header.to_le_bytes());
    buf.reserve(FRAME + record + pad);
    buf.extend_from_slice(top.get());
    buf.extend_from_slice(head);
    buf.extend_from_slice(tail);
    buf.extend_from_slice(&[0; 8][..pad]);
}

/// Bytes that fill a record up to a multiple of eight, so that no header ever spans two sectors.
fn padding(record: usize) -> usize {
    record.wrapping_neg() % 8
}

/// What a frame header says: bytes of the record, and bytes of padding. `None` if no writer writes such a one.
pub fn frame(header: u64) -> Option<(usize, usize)> {
    let len = usize::try_from(header & (u64::MAX >> 8)).ok()?;
    let pad = padding(len);
    let top = if pad > 0 { 0x80 | pad as u64 } else { 0 };
    (len > 0 && header >> 56 == top).then_some((len, pad))
}

/// A record taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Raw<'a> {
    /// One of [`METADATA`] to [`SNAPSHOT`].
    pub kind: u8,
    /// The checksum of the log up to here, as the record states it.
    pub crc: u32,
    /// The content.
    pub data: &'a [u8],
    /// Length of the record.
    pub len: usize,
}

/// Takes apart the record at the start of `bytes`, which may go on after it. Strict, because the checksum
/// covers the content alone: the fields are those that every etcd writes, in that order.
pub fn parse(bytes: &[u8]) -> Option<Raw<'_>> {
    let mut rest = bytes;
    let kind = u8::try_from(field(&mut rest, 0x08)?).ok()?;
    let crc = u32::try_from(field(&mut rest, 0x10)?).ok()?;
    let mut data: &[u8] = &[];
    if kind != CRC && rest.first() == Some(&0x1a) {
        let len = usize::try_from(field(&mut rest, 0x1a)?).ok()?;
        data = rest.get(..len)?;
        rest = &rest[len..];
    }
    let known = (METADATA..=SNAPSHOT).contains(&kind);
    known.then_some(Raw { kind, crc, data, len: bytes.len() - rest.len() })
}

/// The checksum after `raw`, if the one it states is right. A crc record states it and moves nothing.
pub fn verify(raw: &Raw<'_>, crc: u32) -> Option<u32> {
    if raw.kind == CRC {
        return Some(raw.crc);
    }
    let right = crc32c_append(crc, raw.data) == raw.crc || mutants::on(Mutant::I14102);
    right.then_some(raw.crc)
}

/// An entry out of its record. Strict: another record's content, should a flipped bit of the type pass it
/// off as an entry, is refused wherever it can be told apart.
pub fn entry(data: &[u8]) -> Option<Entry> {
    let mut rest = data;
    let mut entry = Entry::default();
    if rest.first() == Some(&0x08) {
        entry.r#type = Some(i32::try_from(field(&mut rest, 0x08)?).ok()?);
    }
    entry.term = Some(field(&mut rest, 0x10)?);
    entry.index = Some(field(&mut rest, 0x18)?);
    if rest.first() == Some(&0x22) {
        let len = usize::try_from(field(&mut rest, 0x22)?).ok()?;
        entry.data = Some(rest.get(..len)?.to_vec().into());
        rest = &rest[len..];
    }
    let is_change = entry.r#type == Some(1);
    let known = matches!(entry.r#type, None | Some(0..=2));
    (rest.is_empty() && known && !(is_change && entry.data.is_none())).then_some(entry)
}

/// A hard state out of its record: its three fields and nothing else.
pub fn state(data: &[u8]) -> Option<HardState> {
    let mut rest = data;
    let state = HardState {
        term: Some(field(&mut rest, 0x08)?),
        vote: Some(field(&mut rest, 0x10)?),
        commit: Some(field(&mut rest, 0x18)?),
    };
    rest.is_empty().then_some(state)
}

/// A snapshot's note out of its record.
pub fn snapshot(data: &[u8]) -> Option<Snapshot> {
    Snapshot::decode(data).ok()
}

/// A tag and the varint after it.
fn field(rest: &mut &[u8], tag: u8) -> Option<u64> {
    if rest.first() != Some(&tag) {
        return None;
    }
    *rest = &rest[1..];
    let mut value = 0u64;
    for i in 0..10 {
        let byte = *rest.get(i)?;
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            *rest = &rest[i + 1..];
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use etch_api::pb::raftpb::ConfState;

    /// The first records of a log that etcd 3.7.1 wrote, to the byte.
    #[test]
    fn the_bytes_are_those_of_etcd() {
        let mut buf = Vec::new();
        let mut crc = 0;
        put_crc(&mut buf, crc);
        assert_eq!(hex(&buf), "04000000000000840804100000000000");
        buf.clear();
        let metadata = unhex("08c8a5a0dcd782a0bc6610e0e7cef4aa9baea8dc01");
        put_metadata(&mut buf, &mut crc, &metadata);
        assert_eq!(
            hex(&buf),
            "1f00000000000081080110eac9d2fc091a1508c8a5a0dcd782a0bc6610e0e7cef4aa9baea8dc0100"
        );
        buf.clear();
        put_snapshot(&mut buf, &mut crc, &Snapshot::of(0, 0, None));
        assert_eq!(hex(&buf), "0e00000000000082080510ceb2b2a3051a04080010000000");
        buf.clear();
        let context =
            br#"{"id":7383792418829112008,"peerURLs":["http://127.0.0.1:42380"],"name":"n1"}"#;
        let change = [&unhex("100018c8a5a0dcd782a0bc66224c")[..], context].concat();
        let first =
            Entry { r#type: Some(1), term: Some(1), index: Some(1), data: Some(change.into()) };
        put_entry(&mut buf, &mut crc, &first);
        assert!(
            hex(&buf).starts_with("6c00000000000084080210f586abc9041a620801100118012"),
            "{}",
            hex(&buf)
        );
        buf.clear();
        put_state(&mut buf, &mut crc, &HardState::of(1, 0, 1));
        assert_eq!(hex(&buf), "100000000000000008031080bba5ab071a06080110001801");
        buf.clear();
        put_state(&mut buf, &mut crc, &HardState::of(2, 0x6678_8015_7b88_12c8, 1));
        put_entry(&mut buf, &mut crc, &Entry::normal(2, 2, Bytes::new()));
        assert!(
            hex(&buf).ends_with("0e00000000000082080210c9c585d30b1a04100218020000"),
            "{}",
            hex(&buf)
        );
    }

    #[test]
    fn what_is_put_is_parsed() {
        for size in (0..1100).step_by(7) {
            let data = vec![0xa5; size];
            let put = Entry::normal(size as u64 + 1, u64::MAX - size as u64, data.into());
            let (mut buf, mut crc) = (Vec::new(), 77);
            put_entry(&mut buf, &mut crc, &put);
            let (len, pad) = frame(u64::from_le_bytes(buf[..8].try_into().unwrap())).unwrap();
            assert_eq!(buf.len(), FRAME + len + pad);
            assert_eq!(buf.len() % 8, 0);
            let raw = parse(&buf[FRAME..]).unwrap();
            assert_eq!((raw.kind, raw.len), (ENTRY, len));
            assert_eq!(verify(&raw, 77), Some(crc));
            assert_eq!(verify(&raw, 78), None);
            assert_eq!(entry(raw.data).unwrap(), put);
        }
    }

    #[test]
    fn the_hand_written_bytes_are_those_of_the_schema() {
        let cases = [
            Entry::normal(3, 4, Bytes::from_static(b"x")),
            Entry::normal(0, 0, Bytes::new()),
            Entry { r#type: Some(0), term: Some(0), index: Some(0), data: Some(Bytes::new()) },
            Entry { r#type: Some(2), term: Some(u64::MAX), index: Some(1 << 40), data: None },
        ];
        for put in cases {
            let (mut buf, mut crc) = (Vec::new(), 0);
            put_entry(&mut buf, &mut crc, &put);
            let raw = parse(&buf[FRAME..]).unwrap();
            assert_eq!(raw.data, put.encode_to_vec());
            assert_eq!(entry(raw.data).unwrap(), put);
        }
        let conf = ConfState::simple(vec![1, 2], vec![3]);
        let note = Snapshot::of(9, 2, Some(conf));
        let (mut buf, mut crc) = (Vec::new(), 0);
        put_snapshot(&mut buf, &mut crc, &note);
        assert_eq!(snapshot(parse(&buf[FRAME..]).unwrap().data).unwrap(), note);
    }

    #[test]
    fn one_kind_does_not_pass_for_another() {
        let bytes = Entry::normal(5, 6, Bytes::from_static(b"data")).encode_to_vec();
        assert_eq!(state(&bytes), None);
        assert_eq!(state(&Entry::normal(5, 6, Bytes::new()).encode_to_vec()), None);
        assert_eq!(entry(&HardState::of(9, 1, 1).encode_to_vec()), None);
    }

    #[test]
    fn headers_that_no_writer_writes() {
        assert_eq!(frame(0), None);
        assert_eq!(frame(4), None, "not padded");
        assert_eq!(frame(0x83 << 56 | 4), None, "padded by too little");
        assert_eq!(frame(0x84 << 56 | 4), Some((4, 4)));
        assert_eq!(frame(0x80 << 56 | 8), None);
        assert_eq!(frame(8), Some((8, 0)));
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
            .collect()
    }
}
