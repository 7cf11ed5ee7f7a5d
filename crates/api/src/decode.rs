//! Decoding requests as a Go server decodes them, whatever a client sends.
//!
//! prost does it, in one pass, and for what honest clients send that is all. It refuses two things that Go's
//! decoder takes: a field of another wire type than its own, which for Go is a field that it does not know, and
//! messages nested deeper than 100 levels, of which Go takes 10,000. So what prost refuses is looked at a second
//! time, slowly, by the table of fields that the build script makes: either it is broken for Go as well, and the
//! error says so in Go's words, or what Go would pass over is taken out and the rest is decoded.
//!
//! Nothing here recurses: a client chooses how deep its message is, and must not choose how much stack it takes.
//!
//! Not here: integers and fields one by one (`wire`), and the raft entry around a request (`internal`).

use std::ops::Range;

use bytes::{Buf, Bytes};
use prost::{Message, Name};

use crate::pb::etcdserverpb::request_op::Request;
use crate::pb::etcdserverpb::{Compare, RequestOp, TxnRequest};
use crate::wire;

use Kind::{Blob, Nested, Text, Varint, Varints};

/// Messages within messages, the outermost counted: Go's limit.
pub const MAX_DEPTH: usize = 10_000;
/// Groups within groups in a field that is passed over: Go's limit.
const MAX_GROUPS: usize = 10_001;
/// The highest number of a field.
const MAX_FIELD: u64 = (1 << 29) - 1;
/// The highest number that Go lets stand inside of a group that it passes over.
const MAX_GROUP_FIELD: u64 = i32::MAX as u64;
/// Messages within messages that prost decodes.
const PROST_DEPTH: usize = 100;

/// Why bytes are no message, in Go's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// They are not protobuf.
    Format,
    /// Text that is not UTF-8.
    Utf8,
    /// Messages nested deeper than [`MAX_DEPTH`].
    Depth,
}

impl Broken {
    /// What Go's decoder says.
    pub const fn message(self) -> &'static str {
        match self {
            Broken::Format => "proto: cannot parse invalid wire-format data",
            Broken::Utf8 => "string field contains invalid UTF-8",
            Broken::Depth => "proto: exceeded maximum recursion depth",
        }
    }
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for Broken {}

/// Decodes a message as Go would.
pub fn decode<M: Message + Default + Name>(bytes: &Bytes) -> Result<M, Broken> {
    M::decode(bytes.clone()).or_else(|_| {
        let clean = Clean::new::<M>(bytes)?;
        // No message but a transaction can hold itself.
        M::decode(clean.bytes()).map_err(|_| Broken::Depth)
    })
}

/// Decodes a transaction as Go would, however deep others are nested in it. Whoever drops one needs the stack for
/// it: `etch_state::txn::STACK`.
pub fn decode_txn(bytes: &Bytes) -> Result<TxnRequest, Broken> {
    TxnRequest::decode(bytes.clone()).or_else(|_| {
        let clean = Clean::new::<TxnRequest>(bytes)?;
        if clean.depth < PROST_DEPTH {
            return TxnRequest::decode(clean.bytes()).map_err(|_| Broken::Format);
        }
        deep_txn(clean.bytes())
    })
}

/// What a field holds, as far as its wire type goes.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Varint,
    /// A list of such: one by one, or all in one value.
    Varints,
    Blob,
    /// Bytes that must be UTF-8.
    Text,
    /// A message: its place in [`SCHEMA`].
    Nested(usize),
}

/// A message's full name and its fields.
type Fields = (&'static str, &'static [(u64, Kind)]);

/// Every message, in the order of their names.
static SCHEMA: &[Fields] = include!(concat!(env!("OUT_DIR"), "/schema.rs"));

/// A message without anything in it that Go's decoder passes over.
struct Clean<'a> {
    source: &'a [u8],
    pieces: Vec<Piece>,
    /// Messages within messages, the outermost counted.
    depth: usize,
}

enum Piece {
    /// These bytes as they are.
    Keep(Range<usize>),
    /// A message's key, and how long the message is without what is left out.
    Enter { key: Range<usize>, len: usize },
}

/// A message that is being walked through.
struct Level {
    fields: &'static [(u64, Kind)],
    end: usize,
    /// Where its [`Piece::Enter`] is; none for the outermost.
    piece: Option<usize>,
    len: usize,
}

impl<'a> Clean<'a> {
    fn new<M: Name>(source: &'a [u8]) -> Result<Self, Broken> {
        let name = M::full_name();
        let at = SCHEMA.binary_search_by_key(&&name[..], |(name, _)| name);
        let (_, fields) = SCHEMA[at.expect("every message is in the table")];
        let mut clean = Self { source, pieces: Vec::new(), depth: 1 };
        let mut levels = vec![Level { fields, end: source.len(), piece: None, len: 0 }];
        let mut at = 0;
        while let Some(level) = levels.last_mut() {
            if at == level.end {
                clean.leave(&mut levels);
                continue;
            }
            let start = at;
            let (number, wire_type) = take_key(source, &mut at, level.end, MAX_FIELD)?;
            let key = start..at;
            let known = level.fields.iter().find(|(known, _)| *known == number);
            match (known.map(|(_, kind)| *kind), wire_type) {
                (Some(Nested(message)), 2) => {
                    let value = take_value(source, &mut at, level.end)?;
                    if levels.len() == MAX_DEPTH {
                        return Err(Broken::Depth);
                    }
                    at = value.start;
                    clean.enter(&mut levels, key, message, value.end);
                    continue;
                }
                (Some(kind @ (Blob | Text | Varints)), 2) => {
                    check(kind, &source[take_value(source, &mut at, level.end)?])?;
                }
                (Some(Varint | Varints), 0) => {
                    skip(source, &mut at, level.end, number, wire_type)?;
                }
                // Unknown, or of a wire type that makes it so.
                _ => {
                    skip(source, &mut at, level.end, number, wire_type)?;
                    continue;
                }
            }
            level.len += at - start;
            clean.keep(start..at);
        }
        Ok(clean)
    }

    fn keep(&mut self, range: Range<usize>) {
        match self.pieces.last_mut() {
            Some(Piece::Keep(last)) if last.end == range.start => last.end = range.end,
            _ => self.pieces.push(Piece::Keep(range)),
        }
    }

    fn enter(&mut self, levels: &mut Vec<Level>, key: Range<usize>, message: usize, end: usize) {
        let piece = Some(self.pieces.len());
        self.pieces.push(Piece::Enter { key, len: 0 });
        levels.push(Level { fields: SCHEMA[message].1, end, piece, len: 0 });
        self.depth = self.depth.max(levels.len());
    }

    fn leave(&mut self, levels: &mut Vec<Level>) {
        let Some(level) = levels.pop() else { return };
        let (Some(at), Some(outer)) = (level.piece, levels.last_mut()) else { return };
        if let Piece::Enter { key, len } = &mut self.pieces[at] {
            *len = level.len;
            outer.len += key.len() + wire::varint_len(*len as u64) + *len;
        }
    }

    fn bytes(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.source.len());
        for piece in &self.pieces {
            match piece {
                Piece::Keep(range) => out.extend_from_slice(&self.source[range.clone()]),
                Piece::Enter { key, len } => {
                    out.extend_from_slice(&self.source[key.clone()]);
                    wire::put_varint(*len as u64, &mut out);
                }
            }
        }
        out.into()
    }
}

/// Whether a known field's bytes are what they should be.
fn check(kind: Kind, value: &[u8]) -> Result<(), Broken> {
    match kind {
        Text if std::str::from_utf8(value).is_err() => Err(Broken::Utf8),
        Varints => {
            let mut at = 0;
            while at < value.len() {
                take_varint(value, &mut at, value.len())?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn take_varint(source: &[u8], at: &mut usize, end: usize) -> Result<u64, Broken> {
    let mut rest = &source[*at..end];
    let before = rest.len();
    let value = prost::encoding::decode_varint(&mut rest).map_err(|_| Broken::Format)?;
    *at += before - rest.remaining();
    Ok(value)
}

/// A field's number and wire type.
fn take_key(source: &[u8], at: &mut usize, end: usize, max: u64) -> Result<(u64, u8), Broken> {
    let key = take_varint(source, at, end)?;
    let number = key >> 3;
    if number == 0 || number > max {
        return Err(Broken::Format);
    }
    Ok((number, (key & 7) as u8))
}

/// Where a value with its length in front of it lies.
fn take_value(source: &[u8], at: &mut usize, end: usize) -> Result<Range<usize>, Broken> {
    let len = take_varint(source, at, end)?;
    match usize::try_from(len) {
        Ok(len) if len <= end - *at => {
            let value = *at..*at + len;
            *at = value.end;
            Ok(value)
        }
        _ => Err(Broken::Format),
    }
}

/// Passes over the value of a field, of any wire type and however many groups within groups it is.
fn skip(
    source: &[u8],
    at: &mut usize,
    end: usize,
    number: u64,
    wire_type: u8,
) -> Result<(), Broken> {
    let mut groups = Vec::new();
    let mut field = (number, wire_type);
    loop {
        match field.1 {
            0 => {
                take_varint(source, at, end)?;
            }
            1 | 5 => {
                let len = if field.1 == 1 { 8 } else { 4 };
                if end - *at < len {
                    return Err(Broken::Format);
                }
                *at += len;
            }
            2 => {
                take_value(source, at, end)?;
            }
            3 if groups.len() < MAX_GROUPS => groups.push(field.0),
            4 if groups.last() == Some(&field.0) => {
                groups.pop();
            }
            _ => return Err(Broken::Format),
        }
        if groups.is_empty() {
            return Ok(());
        }
        field = take_key(source, at, end, MAX_GROUP_FIELD)?;
    }
}

/// A message of a transaction that is being put together.
enum Building {
    Txn(TxnRequest),
    Op { op: RequestOp, number: u64 },
}

/// Decodes a transaction that is known to be sound.
fn deep_txn(source: Bytes) -> Result<TxnRequest, Broken> {
    let mut at = 0;
    let mut ends = vec![source.len()];
    let mut building = vec![Building::Txn(TxnRequest::default())];
    while let Some(&end) = ends.last() {
        if at == end {
            ends.pop();
            if let Some(whole) = put_into_outer(&mut building) {
                return Ok(whole);
            }
            continue;
        }
        let start = at;
        let (number, _) = take_key(&source, &mut at, end, MAX_FIELD)?;
        let value = take_value(&source, &mut at, end)?;
        let next = match building.last_mut() {
            Some(Building::Txn(txn)) if number == 1 => {
                let compare = Compare::decode(source.slice(value));
                txn.compare.push(compare.map_err(|_| Broken::Format)?);
                continue;
            }
            Some(Building::Txn(_)) => Building::Op { op: RequestOp::default(), number },
            Some(Building::Op { op, .. }) if number != 4 => {
                op.merge(source.slice(start..at)).map_err(|_| Broken::Format)?;
                continue;
            }
            // A field that comes twice is one message.
            Some(Building::Op { op, .. }) => match op.request.take() {
                Some(Request::RequestTxn(first)) => Building::Txn(first),
                _ => Building::Txn(TxnRequest::default()),
            },
            None => return Err(Broken::Format),
        };
        at = value.start;
        ends.push(value.end);
        building.push(next);
    }
    Err(Broken::Format)
}

/// What is done goes into what it is a part of; the outermost comes out.
fn put_into_outer(building: &mut Vec<Building>) -> Option<TxnRequest> {
    let done = building.pop();
    match (done, building.last_mut()) {
        (Some(Building::Txn(txn)), None) => return Some(txn),
        (Some(Building::Txn(txn)), Some(Building::Op { op, .. })) => {
            op.request = Some(Request::RequestTxn(txn));
        }
        (Some(Building::Op { op, number }), Some(Building::Txn(txn))) => {
            if number == 2 { &mut txn.success } else { &mut txn.failure }.push(op);
        }
        _ => {}
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::etcdserverpb::{LeaseGrantRequest, MemberAddRequest, WatchRequest};
    use crate::pb::etcdserverpb::{
        PutRequest, RangeRequest, WatchCreateRequest, compare::TargetUnion, watch_request,
    };
    use crate::pb::raftpb::ConfState;

    fn varint(number: u64, value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        wire::put_varint(number << 3, &mut out);
        wire::put_varint(value, &mut out);
        out
    }

    fn field(number: u32, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        wire::field_bytes(number, value, &mut out);
        out
    }

    fn put(bytes: &[&[u8]]) -> Result<PutRequest, Broken> {
        decode(&bytes.concat().into())
    }

    #[test]
    fn a_known_field_of_another_wire_type_is_unknown() {
        let want = PutRequest { key: "k".into(), lease: 7, ..PutRequest::default() };
        let (key, lease) = (field(1, b"k"), varint(3, 7));
        let fixed64 = [&[3 << 3 | 1][..], &[0; 8]].concat();
        let fixed32 = [&[1 << 3 | 5][..], &[0; 4]].concat();
        let group = [1 << 3 | 3, 0x12, 1, b'x', 1 << 3 | 4];
        for odd in [&varint(1, 5), &field(3, b"x"), &fixed64, &fixed32, &group.to_vec()] {
            assert_eq!(put(&[odd, &key, &lease]), Ok(want.clone()), "{odd:x?}");
            assert_eq!(put(&[&key, &lease, odd]), Ok(want.clone()), "{odd:x?}");
        }
    }

    #[test]
    fn lengths_around_what_is_left_out_are_mended() {
        let odd = varint(1, 300);
        let mut create = [&odd[..], &field(1, b"key"), &field(5, &[0, 1]), &odd].concat();
        create.extend(varint(5, 1));
        let request: WatchRequest =
            decode(&[field(2, b""), field(1, &create), varint(9, 1)].concat().into()).unwrap();
        let want = WatchCreateRequest {
            key: "key".into(),
            filters: vec![0, 1, 1],
            ..WatchCreateRequest::default()
        };
        assert_eq!(request.request_union, Some(watch_request::RequestUnion::CreateRequest(want)));
    }

    #[test]
    fn what_is_broken_for_go_stays_broken() {
        let odd = varint(1, 5);
        let after_odd = |broken: &[u8]| put(&[&odd, broken]);
        for broken in [
            &[0x0a][..],
            &[0x0a, 5, b'a'],
            &[0x02, 1, b'a'],
            &[0x0c],
            &[0x0b],
            &[0x0b, 0x14],
            &[0x0f],
            &[0x0e],
            &[0x09, 1, 2, 3],
            &[0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
            &[0x80, 0x80, 0x80, 0x80, 0x10, 0],
        ] {
            assert_eq!(after_odd(broken), Err(Broken::Format), "{broken:x?}");
        }
        // A longer number than needed is no fault, nor is a number of a field that ends just below.
        assert!(after_odd(&[0x18, 0x81, 0x80, 0x80, 0x00]).is_ok());
        assert!(after_odd(&[0xf8, 0xff, 0xff, 0xff, 0x0f, 0]).is_ok());
        let text = field(1, b"\xff");
        let add: Result<MemberAddRequest, _> = decode(&text.into());
        assert_eq!(add, Err(Broken::Utf8));
        let packed: Result<WatchCreateRequest, _> = decode(&field(5, &[1, 0x80]).into());
        assert_eq!(packed, Err(Broken::Format));
    }

    #[test]
    fn groups_may_be_as_deep_as_for_go_and_take_no_stack() {
        let nested = |n: usize| {
            let groups = [vec![9 << 3 | 3; n], vec![9 << 3 | 4; n]].concat();
            decode::<LeaseGrantRequest>(&[varint(1, 9), groups].concat().into())
        };
        let grant = LeaseGrantRequest { ttl: 9, id: 0 };
        assert_eq!(nested(10), Ok(grant));
        assert_eq!(nested(10_001), Ok(grant));
        assert_eq!(nested(10_002), Err(Broken::Format));
        assert_eq!(nested(1_000_000), Err(Broken::Format));
    }

    /// `n` transactions within one another, with something in each, before and behind.
    fn bomb(n: usize, within: &[u8]) -> Bytes {
        // Built from the inside, backwards, so that it takes no time by the square of the depth.
        let mut backwards: Vec<u8> = within.iter().rev().copied().collect();
        for _ in 0..n {
            for key in [4 << 3 | 2, 2 << 3 | 2] {
                let mut head = Vec::new();
                wire::put_varint(backwards.len() as u64, &mut head);
                backwards.extend(head.iter().rev());
                backwards.push(key);
            }
            backwards.extend(varint(1, 5).iter().rev());
        }
        backwards.reverse();
        backwards.into()
    }

    fn levels(mut txn: &TxnRequest) -> (usize, &TxnRequest) {
        let mut levels = 0;
        while let Some(Some(Request::RequestTxn(inner))) = txn.success.first().map(|op| &op.request)
        {
            (txn, levels) = (inner, levels + 1);
        }
        (levels, txn)
    }

    #[test]
    fn transactions_may_be_as_deep_as_for_go() {
        let test = || {
            let compare = field(1, &[field(3, b"k"), varint(4, 3), varint(7, 1)].concat());
            let two_ops = [
                field(2, &field(1, &field(1, b"a"))),
                field(3, &[field(2, &field(1, b"b")), field(2, &field(2, b"v"))].concat()),
            ];
            let within = [compare, two_ops.concat()].concat();
            for n in [1, 48, 49, 50, 51, 3000, 4998] {
                let txn = decode_txn(&bomb(n, &within)).unwrap();
                let (levels, inner) = levels(&txn);
                assert_eq!(levels, n);
                assert_eq!(inner.compare[0].target_union, Some(TargetUnion::Version(3)));
                let range = RangeRequest { key: "a".into(), ..RangeRequest::default() };
                assert_eq!(inner.success[0].request, Some(Request::RequestRange(range)));
                let put =
                    PutRequest { key: "b".into(), value: "v".into(), ..PutRequest::default() };
                assert_eq!(inner.failure[0].request, Some(Request::RequestPut(put)));
            }
            assert_eq!(decode_txn(&bomb(4999, &field(2, b""))).map(|t| levels(&t).0), Ok(4999));
            assert_eq!(decode_txn(&bomb(4999, &within)), Err(Broken::Depth));
            assert_eq!(decode_txn(&bomb(5000, b"")), Err(Broken::Depth));
            assert_eq!(decode_txn(&bomb(300_000, b"")), Err(Broken::Depth));
        };
        // To let go of what is deep takes stack; decoding itself does not.
        let thread = std::thread::Builder::new().stack_size(32 << 20).spawn(test);
        thread.unwrap().join().unwrap();
    }

    #[test]
    fn an_operation_that_comes_twice_is_one_however_deep() {
        let inner = |key: &[u8]| field(4, &field(2, &field(2, &field(1, key))));
        let twice = field(2, &[inner(b"a"), inner(b"b")].concat());
        let shallow = decode_txn(&twice.clone().into()).unwrap();
        let thread = std::thread::Builder::new().stack_size(32 << 20).spawn(move || {
            let txn = decode_txn(&bomb(200, &twice)).unwrap();
            assert_eq!(*levels_to(&txn, 200), shallow);
            let Some(Request::RequestTxn(merged)) = &shallow.success[0].request else {
                panic!("{shallow:?}")
            };
            assert_eq!(merged.success.len(), 2);
        });
        thread.unwrap().join().unwrap();
    }

    fn levels_to(mut txn: &TxnRequest, n: usize) -> &TxnRequest {
        for _ in 0..n {
            let Some(Request::RequestTxn(inner)) = &txn.success[0].request else {
                panic!("too shallow")
            };
            txn = inner;
        }
        txn
    }

    #[test]
    fn what_prost_takes_is_left_as_it_is_by_the_second_look() {
        let state =
            ConfState { voters: vec![1, 1 << 40], auto_leave: Some(false), ..Default::default() };
        let bytes = Bytes::from(state.encode_to_vec());
        let clean = Clean::new::<ConfState>(&bytes).unwrap();
        assert_eq!(clean.bytes(), bytes);
        let txn = bomb(3, &field(1, &field(3, b"key")));
        let honest = TxnRequest::encode_to_vec(&decode_txn(&txn).unwrap());
        let bytes = Bytes::from(honest);
        assert_eq!(Clean::new::<TxnRequest>(&bytes).unwrap().bytes(), bytes);
    }
}
