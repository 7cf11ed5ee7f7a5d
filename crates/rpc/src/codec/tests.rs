//! The machine by itself: bytes in, events and bytes out, and every way to break the rules.

use std::rc::Rc;

use bytes::{BufMut, Bytes, BytesMut};

use super::frame::{self, FrameHead, HEAD, MAX_FRAME, Reason, flag, kind};
use super::streams::{End, Key};
use super::{Event, Mux};
use crate::codec::item::Item;
use crate::http2::ContentType;
use crate::limits::Limits;
use crate::payload::{Chunk, Payload};
use crate::status::Status;

fn raw(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    [&frame::head(payload.len(), kind, flags, stream)[..], payload].concat()
}

/// POST, http, `/a.B/C`, and these as literals.
fn block(others: &[(&str, &str)]) -> Vec<u8> {
    let mut block = b"\x83\x86\x04\x06/a.B/C".to_vec();
    for (name, value) in [("content-type", "application/grpc")].iter().chain(others) {
        block.push(0);
        for text in [name, value] {
            block.push(text.len() as u8);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

fn open(id: u32, flags: u8) -> Vec<u8> {
    raw(kind::HEADERS, flags | flag::END_HEADERS, id, &block(&[]))
}

fn window(id: u32, by: u32) -> Vec<u8> {
    raw(kind::WINDOW_UPDATE, 0, id, &by.to_be_bytes())
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    raw(kind::SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

#[derive(Debug, PartialEq, Eq)]
struct Out {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

struct Test {
    mux: Mux,
    events: Vec<Event>,
}

impl Test {
    fn new(limits: Limits) -> Test {
        let mut test = Test { mux: Mux::new(Rc::new(limits)), events: Vec::new() };
        test.feed(&raw(kind::SETTINGS, 0, 0, &[])).expect("settings");
        test.out();
        test
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        let mut input = BytesMut::from(bytes);
        self.mux.receive(&mut input, &mut self.events).map_err(|e| e.reason)
    }

    fn out(&mut self) -> Vec<Out> {
        self.mux.pump(usize::MAX);
        let bytes = self.mux.out.take();
        let mut rest = &bytes[..];
        let mut frames = Vec::new();
        while let Some(head) = FrameHead::parse(rest) {
            let (payload, more) = rest[HEAD..].split_at(head.len);
            let FrameHead { kind, flags, stream, .. } = head;
            frames.push(Out { kind, flags, stream, payload: payload.to_vec() });
            rest = more;
        }
        assert!(rest.is_empty());
        frames
    }

    /// The code of the one reset that is there.
    fn reset(&mut self, id: u32) -> Option<Reason> {
        let out = self.out();
        let resets: Vec<&Out> = out.iter().filter(|f| f.kind == kind::RST_STREAM).collect();
        let [reset] = resets[..] else { return None };
        assert_eq!(reset.stream, id);
        Some(Reason(frame::number(&reset.payload).expect("a code")))
    }

    fn key(&self) -> Key {
        let key = self.events.iter().find_map(|event| match event {
            Event::Request { key, .. } => Some(*key),
            _ => None,
        });
        key.expect("a request")
    }
}

/// After a greeting, these bytes end the connection with this.
fn ends(want: Reason, frames: &[Vec<u8>]) {
    let mut test = Test::new(Limits::default());
    assert_eq!(test.feed(&frames.concat()), Err(want), "{frames:?}");
}

/// After a greeting, these bytes reset stream 1 with this, and the connection goes on.
fn resets(want: Reason, frames: &[Vec<u8>]) {
    let mut test = Test::new(Limits::default());
    assert_eq!(test.feed(&frames.concat()), Ok(()), "{frames:?}");
    assert_eq!(test.reset(1), Some(want), "{frames:?}");
    assert_eq!(test.feed(&open(3, 0)), Ok(()));
    assert!(test.mux.streams.find(3).is_some());
}

const END: u8 = flag::END_STREAM;

#[test]
fn frames_of_wrong_length_end_the_connection() {
    let size = Reason::FRAME_SIZE_ERROR;
    let head = frame::head(MAX_FRAME + 1, kind::DATA, 0, 1);
    ends(size, &[open(1, 0), head.to_vec()]);
    ends(size, &[raw(kind::PING, 0, 0, &[0; 7])]);
    ends(size, &[raw(kind::SETTINGS, 0, 0, &[0; 5])]);
    ends(size, &[raw(kind::SETTINGS, flag::ACK, 0, &[0; 6])]);
    ends(size, &[raw(kind::WINDOW_UPDATE, 0, 0, &[0; 3])]);
    ends(size, &[open(1, 0), raw(kind::RST_STREAM, 0, 1, &[0; 3])]);
    ends(size, &[raw(kind::PRIORITY, 0, 1, &[0; 4])]);
    let short = raw(kind::HEADERS, flag::END_HEADERS | flag::PRIORITY, 1, &[0; 4]);
    ends(size, &[short]);
    resets(size, &[open(1, 0), raw(kind::PRIORITY, 0, 1, &[0; 4])]);
}

#[test]
fn frames_where_they_do_not_belong_end_the_connection() {
    let wrong = Reason::PROTOCOL_ERROR;
    for id in [0, 2] {
        ends(wrong, &[open(id, 0)]);
        ends(wrong, &[raw(kind::DATA, 0, id, b"x")]);
        ends(wrong, &[raw(kind::RST_STREAM, 0, id, &[0; 4])]);
    }
    // Streams that nobody has opened.
    ends(wrong, &[raw(kind::DATA, 0, 1, b"x")]);
    ends(wrong, &[raw(kind::RST_STREAM, 0, 1, &[0; 4])]);
    ends(wrong, &[window(1, 1)]);
    ends(wrong, &[raw(kind::PRIORITY, 0, 1, &[0, 0, 0, 1, 0])]);
    // Of streams, or of none.
    ends(wrong, &[open(1, 0), raw(kind::PING, 0, 1, &[0; 8])]);
    ends(wrong, &[open(1, 0), raw(kind::SETTINGS, 0, 1, &[])]);
    ends(wrong, &[open(1, 0), raw(kind::GOAWAY, 0, 1, &[0; 8])]);
    ends(wrong, &[raw(kind::PRIORITY, 0, 0, &[0; 5])]);
    ends(wrong, &[raw(kind::PUSH_PROMISE, flag::END_HEADERS, 1, &[0; 4])]);
    ends(wrong, &[window(0, 0)]);
    let mut test = Test { mux: Mux::new(Rc::default()), events: Vec::new() };
    assert_eq!(test.feed(&open(1, 0)), Err(wrong), "settings come first");
}

#[test]
fn header_blocks_are_in_one_row() {
    let wrong = Reason::PROTOCOL_ERROR;
    let begun = raw(kind::HEADERS, 0, 1, &block(&[]));
    ends(wrong, &[begun.clone(), raw(kind::DATA, 0, 1, b"")]);
    ends(wrong, &[begun.clone(), raw(kind::CONTINUATION, 0, 3, b"")]);
    ends(wrong, &[begun.clone(), raw(0x77, 0, 0, b"")]);
    ends(wrong, &[raw(kind::CONTINUATION, flag::END_HEADERS, 1, b"")]);
    let mut test = Test::new(Limits::default());
    let rest = raw(kind::CONTINUATION, flag::END_HEADERS, 1, b"\x00\x01a\x01b");
    assert_eq!(test.feed(&[begun, rest].concat()), Ok(()));
    let Some(Event::Request { head, .. }) = test.events.first() else { panic!("a request") };
    assert_eq!(head.headers["a"], "b");
}

#[test]
fn blocks_that_cannot_be_read_end_the_connection() {
    ends(Reason::COMPRESSION_ERROR, &[raw(kind::HEADERS, flag::END_HEADERS, 1, &[0xff])]);
    let trailers = raw(kind::HEADERS, flag::END_HEADERS | END, 1, &[0x80]);
    ends(Reason::COMPRESSION_ERROR, &[open(1, 0), trailers]);
}

#[test]
fn padding_is_no_longer_than_its_frame() {
    let wrong = Reason::PROTOCOL_ERROR;
    ends(wrong, &[open(1, 0), raw(kind::DATA, flag::PADDED, 1, &[2, 0])]);
    ends(wrong, &[raw(kind::HEADERS, flag::PADDED | flag::END_HEADERS, 1, &[2, 0])]);
    let mut test = Test::new(Limits::default());
    let padded = [&[3][..], b"data", &[0; 3]].concat();
    let data = raw(kind::DATA, flag::PADDED | END, 1, &padded);
    let priority = [&[0, 0, 0, 0, 9][..], &block(&[])].concat();
    let flags = flag::PADDED | flag::PRIORITY | flag::END_HEADERS;
    let head = raw(kind::HEADERS, flags, 1, &[&[2][..], &priority, &[0; 2]].concat());
    assert_eq!(test.feed(&[head, data].concat()), Ok(()));
    let Some(Event::Data { data, ended: true, .. }) = test.events.get(1) else { panic!("data") };
    assert_eq!(data, "data");
}

#[test]
fn streams_that_have_ended() {
    let closed = Reason::STREAM_CLOSED;
    // The client has ended its side; ours is open.
    resets(closed, &[open(1, END), raw(kind::DATA, 0, 1, b"x")]);
    resets(closed, &[open(1, END), open(1, END)]);
    // Both are closed.
    let over = |frames: &[Vec<u8>]| {
        let mut test = Test::new(Limits::default());
        test.feed(&open(1, END)).expect("a request");
        test.mux.refuse(test.key(), 200, &Status::OK, &ContentType::Grpc);
        test.out();
        (test.feed(&frames.concat()), test.reset(1))
    };
    assert_eq!(over(&[raw(kind::DATA, 0, 1, b"x")]), (Ok(()), Some(closed)));
    assert_eq!(over(&[open(1, END)]), (Err(closed), None));
    assert_eq!(over(&[window(1, 9), raw(kind::RST_STREAM, 0, 1, &[0; 4])]), (Ok(()), None));
    assert_eq!(over(&[raw(kind::PRIORITY, 0, 1, &[0; 5])]), (Ok(()), None));
    // Reset by the client, who sends more.
    let gone = [open(1, 0), raw(kind::RST_STREAM, 0, 1, &[0; 4])].concat();
    resets(closed, &[gone.clone(), raw(kind::DATA, 0, 1, b"x")]);
    ends(closed, &[gone, open(1, END)]);
    // A number lower than the last.
    ends(closed, &[open(5, 0), open(3, 0)]);
}

#[test]
fn what_is_on_its_way_when_we_end_first_is_no_fault() {
    let mut test = Test::new(Limits::default());
    test.feed(&open(1, 0)).expect("a request");
    test.mux.refuse(test.key(), 200, &Status::OK, &ContentType::Grpc);
    assert_eq!(test.reset(1), Some(Reason::NO_ERROR));
    let trailers = raw(kind::HEADERS, flag::END_HEADERS | END, 1, b"\x00\x01a\x01b");
    let late = [raw(kind::DATA, 0, 1, b"x"), window(1, 1), trailers];
    assert_eq!(test.feed(&late.concat()), Ok(()));
    assert_eq!(test.out(), []);
    // And now it has ended.
    test.feed(&raw(kind::DATA, 0, 1, b"x")).expect("a stream's error");
    assert_eq!(test.reset(1), Some(Reason::STREAM_CLOSED));
}

#[test]
fn malformed_requests_reset_their_stream() {
    let wrong = Reason::PROTOCOL_ERROR;
    for bad in [("connection", "x"), ("Upper", "x"), (":status", "200"), ("te", "gzip")] {
        resets(wrong, &[raw(kind::HEADERS, flag::END_HEADERS, 1, &block(&[bad]))]);
    }
    resets(wrong, &[raw(kind::HEADERS, flag::END_HEADERS, 1, &[0x83, 0x86])]);
    let on_itself = [&[0, 0, 0, 1, 9][..], &block(&[])].concat();
    resets(wrong, &[raw(kind::HEADERS, flag::END_HEADERS | flag::PRIORITY, 1, &on_itself)]);
    resets(wrong, &[open(1, 0), raw(kind::PRIORITY, 0, 1, &[0, 0, 0, 1, 0])]);
    // Trailers that are no end, or no trailers.
    resets(wrong, &[open(1, 0), open(1, 0)]);
    resets(wrong, &[open(1, 0), open(1, END)]);
}

#[test]
fn bodies_are_as_long_as_was_said() {
    let sized = |flags| {
        let block = block(&[("content-length", "3")]);
        raw(kind::HEADERS, flag::END_HEADERS | flags, 1, &block)
    };
    let wrong = Reason::PROTOCOL_ERROR;
    resets(wrong, &[sized(END)]);
    resets(wrong, &[sized(0), raw(kind::DATA, 0, 1, b"four")]);
    resets(wrong, &[sized(0), raw(kind::DATA, END, 1, b"no")]);
    let trailers = raw(kind::HEADERS, flag::END_HEADERS | END, 1, &[]);
    resets(wrong, &[sized(0), raw(kind::DATA, 0, 1, b"no"), trailers.clone()]);
    let mut test = Test::new(Limits::default());
    let good = [sized(0), raw(kind::DATA, 0, 1, b"yes"), trailers];
    assert_eq!((test.feed(&good.concat()), test.reset(1)), (Ok(()), None));
}

#[test]
fn windows_that_the_client_opens_too_far() {
    let flow = Reason::FLOW_CONTROL_ERROR;
    let most = (1 << 31) - 1;
    ends(flow, &[window(0, most)]);
    ends(flow, &[setting(4, 1 << 31)]);
    resets(flow, &[open(1, 0), window(1, most)]);
    resets(Reason::PROTOCOL_ERROR, &[open(1, 0), window(1, 0)]);
    ends(flow, &[open(1, 0), window(1, 1_000), setting(4, most)]);
}

#[test]
fn settings_out_of_bounds() {
    let wrong = Reason::PROTOCOL_ERROR;
    ends(wrong, &[setting(2, 2)]);
    ends(wrong, &[setting(5, 16_383)]);
    ends(wrong, &[setting(5, 1 << 24)]);
    let mut test = Test::new(Limits::default());
    assert_eq!(test.feed(&[setting(5, 1 << 20), setting(0x99, 7), setting(2, 1)].concat()), Ok(()));
    assert_eq!(test.out().len(), 3, "each is acknowledged");
}

#[test]
fn more_data_than_our_windows() {
    let limits = Limits {
        initial_stream_window: 70_000,
        initial_connection_window: 100_000,
        ..Limits::default()
    };
    let full = |id| raw(kind::DATA, 0, id, &[0; MAX_FRAME]);
    let mut test = Test::new(limits.clone());
    test.feed(&[open(1, 0), open(3, 0), open(5, 0)].concat()).expect("requests");
    for _ in 0..4 {
        test.feed(&full(1)).expect("within its window");
    }
    test.feed(&full(1)).expect("a stream's error");
    assert_eq!(test.reset(1), Some(Reason::FLOW_CONTROL_ERROR));
    assert_eq!(test.feed(&full(3)), Ok(()));
    assert_eq!(test.feed(&full(5)), Err(Reason::FLOW_CONTROL_ERROR));
}

#[test]
fn windows_are_opened_by_halves() {
    let mut test = Test::new(Limits { initial_stream_window: 70_000, ..Limits::default() });
    test.feed(&open(1, 0)).expect("a request");
    let key = test.key();
    let mut told = Vec::new();
    for _ in 0..40 {
        test.feed(&raw(kind::DATA, 0, 1, &[0; 10_000])).expect("within the window");
        test.mux.release_stream(key, 10_000);
        told.extend(test.out());
    }
    assert_eq!(told.len(), 10);
    assert!(told.iter().all(|frame| *frame
        == Out {
            kind: kind::WINDOW_UPDATE,
            flags: 0,
            stream: 1,
            payload: 40_000u32.to_be_bytes().to_vec(),
        }));
}

#[test]
fn a_small_answer_is_three_frames_in_a_row() {
    let mut test = Test::new(Limits::default());
    for id in [1, 3] {
        test.events.clear();
        let call = [open(id, 0), raw(kind::DATA, END, id, b"\0\0\0\0\x01x")].concat();
        test.feed(&call).expect("a call");
        let payload = Payload::from(Bytes::from_static(b"hello"));
        let key = test.key();
        assert!(test.mux.answer(key, &ContentType::Grpc, payload, 5).is_ok());
        assert!(!test.mux.is_open(key));
        let out = test.out();
        let kinds: Vec<(u8, u8)> = out.iter().map(|f| (f.kind, f.flags)).collect();
        assert_eq!(kinds, [(kind::HEADERS, 4), (kind::DATA, 0), (kind::HEADERS, 5)]);
        assert_eq!(out[1].payload, b"\0\0\0\0\x05hello");
        assert!(out.iter().all(|f| f.stream == id));
        // From the second on the client knows all of it.
        assert_eq!(out[0].payload.len() + out[2].payload.len() == 3, id == 3);
    }
}

fn chunk(len: usize, byte: u8) -> Item {
    Item::Chunk(Chunk::new(Bytes::from(vec![byte; len]), Default::default()))
}

#[test]
fn streams_share_the_connections_window() {
    let mut test = Test::new(Limits::default());
    test.feed(&setting(4, 1 << 30)).expect("wide windows for streams");
    for id in [1, 3, 5] {
        test.events.clear();
        test.feed(&open(id, END)).expect("a request");
        let key = test.key();
        test.mux.push(key, chunk(500_000, id as u8));
        test.mux.finish(key, End::Bare);
    }
    let mut got = [0; 6];
    let mut rounds = 0;
    let mut ends = 0;
    while ends < 3 {
        rounds += 1;
        assert!(rounds < 100);
        for out in test.out() {
            if out.kind == kind::DATA {
                assert!(out.payload.len() <= MAX_FRAME);
                got[out.stream as usize] += out.payload.len();
                ends += usize::from(out.flags & END != 0);
            }
        }
        let (least, most) = (got[1].min(got[3]).min(got[5]), got[1].max(got[3]).max(got[5]));
        assert!(most - least <= 2 * 65_536, "{got:?}");
        test.feed(&window(0, 65_535)).expect("room");
    }
    assert_eq!(got, [0, 500_000, 0, 500_000, 0, 500_000]);
}

#[test]
fn a_streams_window_holds_it_alone() {
    let mut test = Test::new(Limits::default());
    test.feed(&[setting(4, 3), open(1, END)].concat()).expect("a request");
    let key = test.key();
    test.out();
    test.mux.push(key, chunk(10, 7));
    test.mux.finish(key, End::Bare);
    let lens = |test: &mut Test| -> Vec<usize> {
        test.out().iter().filter(|f| f.kind == kind::DATA).map(|f| f.payload.len()).collect()
    };
    assert_eq!(lens(&mut test), [3]);
    assert_eq!(lens(&mut test), []);
    test.feed(&window(1, 4)).expect("room");
    assert_eq!(lens(&mut test), [4]);
    // Moved below nothing, and above it again.
    test.feed(&setting(4, 0)).expect("less");
    test.feed(&window(1, 3)).expect("room");
    assert_eq!(lens(&mut test), []);
    test.feed(&setting(4, 1)).expect("more");
    assert_eq!(lens(&mut test), [1]);
    test.feed(&setting(4, 100)).expect("more");
    assert_eq!(lens(&mut test), [2, 0]);
}

#[test]
fn too_many_streams_are_refused() {
    let mut test = Test::new(Limits { max_concurrent_streams: 1, ..Limits::default() });
    test.feed(&[open(1, 0), open(3, END)].concat()).expect("requests");
    assert_eq!(test.reset(3), Some(Reason::REFUSED_STREAM));
    assert_eq!(test.mux.counts.resets, 1);
    assert_eq!(test.events.len(), 1);
}

#[test]
fn large_heads_are_431() {
    let mut test = Test::new(Limits { max_header_bytes: 1_000, ..Limits::default() });
    let long = "x".repeat(120);
    let large = block(&[("a", &long[..]); 8]);
    test.feed(&raw(kind::HEADERS, flag::END_HEADERS | END, 1, &large)).expect("refused");
    let out = test.out();
    assert_eq!((out.len(), out[0].kind, out[0].flags), (1, kind::HEADERS, 5));
    assert!(out[0].payload.ends_with(b"431"));
    assert!(test.events.is_empty());
}

#[test]
fn a_block_without_end_is_an_attack() {
    let calm = Reason::ENHANCE_YOUR_CALM;
    let begun = raw(kind::HEADERS, 0, 1, &block(&[]));
    for piece in [&[][..], &[0; MAX_FRAME]] {
        let mut frames = vec![begun.clone()];
        frames.extend(std::iter::repeat_n(raw(kind::CONTINUATION, 0, 1, piece), 100));
        ends(calm, &frames);
    }
}

#[test]
fn an_orderly_end() {
    let mut test = Test::new(Limits::default());
    test.feed(&open(1, END)).expect("a request");
    test.mux.drain();
    let out = test.out();
    assert_eq!((out[0].kind, out[1].kind, out.len()), (kind::GOAWAY, kind::PING, 2));
    assert_eq!(out[0].payload, [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    // A call that was on its way is served.
    test.feed(&open(3, END)).expect("a request");
    assert_eq!(test.events.len(), 2);
    test.feed(&raw(kind::PING, flag::ACK, 0, &out[1].payload)).expect("it has heard");
    assert_eq!(test.out()[0].payload, [0, 0, 0, 3, 0, 0, 0, 0]);
    test.feed(&open(5, END)).expect("not served");
    assert_eq!(test.events.len(), 2);
    assert!(!test.mux.is_drained());
    for event in std::mem::take(&mut test.events) {
        let Event::Request { key, .. } = event else { continue };
        test.mux.refuse(key, 200, &Status::OK, &ContentType::Grpc);
    }
    assert!(test.mux.is_drained());
}

/// Whatever the pieces, the same comes of it.
#[test]
fn frames_in_pieces() {
    let mut wire = BytesMut::new();
    for id in [1, 3, 5] {
        wire.put_slice(&open(id, 0));
        wire.put_slice(&raw(kind::DATA, END, id, &[id as u8; 300]));
        wire.put_slice(&raw(kind::PING, 0, 0, &[7; 8]));
    }
    for step in [1, 2, 9, 10, 100, wire.len()] {
        let mut test = Test::new(Limits::default());
        let mut input = BytesMut::new();
        for piece in wire.chunks(step) {
            input.extend_from_slice(piece);
            test.mux.receive(&mut input, &mut test.events).expect("good");
        }
        assert!(input.is_empty());
        let bodies: Vec<usize> = test
            .events
            .iter()
            .filter_map(|event| match event {
                Event::Data { data, ended: true, .. } => Some(data.len()),
                _ => None,
            })
            .collect();
        assert_eq!((bodies, test.out().len()), (vec![300; 3], 3));
    }
}
