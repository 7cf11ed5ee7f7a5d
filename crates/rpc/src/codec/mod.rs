//! HTTP/2 on the server's side (RFC 9113) as a machine without sockets: bytes go in ([`Mux::receive`]), requests
//! and their data come out as events, answers go in, and bytes to write come out ([`Mux::out`]). Made for many
//! small calls: a head that was seen before is not read again, and a small answer is written at once behind those
//! before it. Not here: sockets and time (`crate::connection`), what a request means (`crate::http2`), and how
//! much of what is too much (`crate::flood`).

pub(crate) mod frame;
pub(crate) mod head;
pub(crate) mod hpack;
pub(crate) mod item;
mod output;
mod recv;
pub(crate) mod send;
pub(crate) mod streams;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use http::HeaderValue;

use self::frame::{DEFAULT_WINDOW, Reason, kind, setting};
use self::head::{Head, Heads};
use self::hpack::decode::{Decoder, Fields};
use self::hpack::encode::Encoder;
pub(crate) use self::output::Output;
use self::recv::Block;
use self::streams::{EndedEarly, Key, Stream, Streams};
use crate::flood::{Counts, Sent};
use crate::limits::Limits;

/// What has come in.
pub(crate) enum Event {
    /// A request; whether a body follows is seen when it does.
    Request { key: Key, head: Rc<Head>, timeout: Option<HeaderValue>, ended: bool },
    /// A part of a body.
    Data { key: Key, data: Bytes, ended: bool },
    /// The client has let go of it, or was made to.
    Gone { key: Key },
}

/// How far an orderly end has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Drain {
    No,
    /// The client was told that there will be an end, and asked whether it has heard.
    Announced,
    /// Nothing that comes now is served.
    Last,
}

/// The payload of the ping behind the announcement of the end.
const DRAIN_PING: [u8; 8] = *b"the end?";
/// The payload of pings that ask whether the client lives.
const ALIVE_PING: [u8; 8] = *b"at home?";

/// One connection.
pub(crate) struct Mux {
    limits: Rc<Limits>,
    pub(crate) out: Output,
    /// What came in, for the judge.
    pub(crate) counts: Counts,
    /// What went out, for the judge.
    pub(crate) sent: Sent,
    streams: Streams,
    early: EndedEarly,
    /// The highest stream that the client has opened.
    last: u32,
    decoder: Decoder,
    fields: Fields,
    heads: Heads,
    /// A header block whose end has not come.
    block: Option<Block>,
    encoder: Encoder,
    scratch: Vec<u8>,
    /// The streams that have data and a window for it.
    ring: VecDeque<Key>,
    /// What the client lets us send on a new stream.
    initial_window: i64,
    /// The connection's windows.
    send_window: i64,
    recv_window: i64,
    unreleased: u32,
    /// The client's first settings have come.
    greeted: bool,
    /// The client knows ours.
    acknowledged: bool,
    /// Streams that we had to reset for the client's errors.
    errors: usize,
    drain: Drain,
}

impl Mux {
    /// A connection whose preface is yet to come. Our own settings go first.
    pub(crate) fn new(limits: Rc<Limits>) -> Mux {
        let mut mux = Mux {
            out: Output::default(),
            counts: Counts::default(),
            sent: Sent::default(),
            streams: Streams::new(),
            early: EndedEarly::new(limits.max_ended_early),
            last: 0,
            decoder: Decoder::new(),
            fields: Fields::new(limits.max_header_bytes as usize),
            heads: Heads::default(),
            block: None,
            encoder: Encoder::new(),
            scratch: Vec::new(),
            ring: VecDeque::new(),
            initial_window: i64::from(DEFAULT_WINDOW),
            send_window: i64::from(DEFAULT_WINDOW),
            recv_window: i64::from(DEFAULT_WINDOW),
            unreleased: 0,
            greeted: false,
            acknowledged: false,
            errors: 0,
            drain: Drain::No,
            limits,
        };
        mux.greet();
        mux
    }

    fn greet(&mut self) {
        let settings = [
            (setting::MAX_CONCURRENT_STREAMS, self.limits.max_concurrent_streams),
            (setting::INITIAL_WINDOW_SIZE, self.limits.initial_stream_window),
            (setting::MAX_HEADER_LIST_SIZE, self.limits.max_header_bytes),
        ];
        self.out.put(&frame::head(6 * settings.len(), kind::SETTINGS, 0, 0));
        for (id, value) in settings {
            self.out.put(&id.to_be_bytes());
            self.out.put(&value.to_be_bytes());
        }
        let window = self.limits.initial_connection_window;
        if window > DEFAULT_WINDOW {
            self.release_at(window - DEFAULT_WINDOW, 1);
        }
    }

    /// The highest stream that the client has opened.
    pub(crate) fn last_stream(&self) -> u32 {
        self.last
    }

    /// Whether a stream has not ended.
    pub(crate) fn is_open(&self, key: Key) -> bool {
        self.streams.contains(key)
    }

    /// Streams are there that have data and a window for it.
    pub(crate) fn wants_to_send(&self) -> bool {
        !self.ring.is_empty() && self.send_window > 0
    }

    /// A measure of what is to be done: when it grows, the connection has to run.
    pub(crate) fn work(&self) -> (usize, usize) {
        (self.out.pending(), self.ring.len())
    }

    /// Bytes that may wait for the socket.
    pub(crate) fn send_buffer(&self) -> usize {
        self.limits.send_buffer
    }

    /// Asks whether the client lives.
    pub(crate) fn ping(&mut self) {
        self.put_ping(ALIVE_PING);
    }

    fn put_ping(&mut self, payload: [u8; 8]) {
        self.out.put(&frame::head(8, kind::PING, 0, 0));
        self.out.put(&payload);
    }

    /// Begins the orderly end: what the client has sent before it hears of it is still served.
    pub(crate) fn drain(&mut self) {
        if self.drain == Drain::No {
            self.drain = Drain::Announced;
            self.goaway((1 << 31) - 1, Reason::NO_ERROR, b"");
            self.put_ping(DRAIN_PING);
        }
    }

    /// The orderly end has come.
    pub(crate) fn is_drained(&self) -> bool {
        self.drain == Drain::Last && self.streams.len() == 0
    }

    pub(crate) fn goaway(&mut self, last: u32, reason: Reason, text: &[u8]) {
        self.out.put(&frame::head(8 + text.len(), kind::GOAWAY, 0, 0));
        self.out.put(&last.to_be_bytes());
        self.out.put(&reason.0.to_be_bytes());
        self.out.put(text);
    }

    /// Ends a stream in both directions.
    pub(crate) fn reset(&mut self, key: Key, reason: Reason) {
        if let Some(stream) = self.remove(key) {
            self.put_reset(key.id, reason);
            self.counts.resets += 1;
            if !stream.recv_ended {
                self.early.insert(key.id);
            }
        }
    }

    fn put_reset(&mut self, id: u32, reason: Reason) {
        self.out.put(&frame::head(4, kind::RST_STREAM, 0, id));
        self.out.put(&reason.0.to_be_bytes());
    }

    /// Takes a stream out, and tells everybody who waits for it. What nobody will read is as good as read.
    fn remove(&mut self, key: Key) -> Option<Stream> {
        let mut stream = self.streams.remove(key)?;
        if let Some(more) = &mut stream.more {
            let unread = more.unread();
            more.wake_all();
            self.release(unread as u32);
        }
        Some(stream)
    }

    /// Every stream goes; for the end of the connection.
    pub(crate) fn close(&mut self) {
        let keys: Vec<Key> = self.streams.all().map(|(key, _)| key).collect();
        for key in keys {
            self.remove(key);
        }
        self.ring.clear();
    }

    /// So much of what came in has been used.
    pub(crate) fn release(&mut self, n: u32) {
        let window = self.limits.initial_connection_window.max(DEFAULT_WINDOW);
        self.release_at(n, window / 2);
    }

    fn release_at(&mut self, n: u32, least: u32) {
        self.unreleased += n;
        if self.unreleased >= least {
            let by = std::mem::take(&mut self.unreleased);
            self.recv_window += i64::from(by);
            self.put_window_update(0, by);
        }
    }

    /// The same for a stream alone.
    pub(crate) fn release_stream(&mut self, key: Key, n: u32) {
        let least = (self.limits.initial_stream_window / 2).max(1);
        let Some(stream) = self.streams.get(key) else { return };
        stream.unreleased += n;
        if stream.unreleased >= least && !stream.recv_ended {
            let by = std::mem::take(&mut stream.unreleased);
            stream.recv_window += i64::from(by);
            self.put_window_update(key.id, by);
        }
    }

    fn put_window_update(&mut self, stream: u32, by: u32) {
        self.out.put(&frame::head(4, kind::WINDOW_UPDATE, 0, stream));
        self.out.put(&by.to_be_bytes());
    }
}
