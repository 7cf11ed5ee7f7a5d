//! A message to send, in pieces, so that what lies encoded elsewhere is not
//! copied together first. Not here: when it is sent; that is `pump`.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::status::{Code, Status};

/// Compression flag and length, in front of each message.
pub(crate) const PREFIX: usize = 5;

pub(crate) fn prefix(len: usize) -> [u8; PREFIX] {
    let n = (len as u32).to_be_bytes();
    [0, n[0], n[1], n[2], n[3]]
}

/// A message that is made while it is sent, a piece at a time as the client's
/// window opens, so that only a window's worth of it exists at once.
pub trait PayloadSource {
    /// Length of the whole message; it is announced before the first byte.
    fn total_len(&self) -> usize;

    /// The next piece, of at most `max` bytes if that is practical; `None`
    /// when all is out. An error, or an end that does not agree with
    /// `total_len`, ends the call with an error.
    fn next(&mut self, max: usize) -> Option<Result<Bytes, Status>>;
}

/// One message to send.
pub struct Payload(pub(crate) Kind);

pub(crate) enum Kind {
    /// Message without its prefix.
    One(Bytes),
    /// Prefix and message, as [`MessageBuf`] makes them.
    Framed(Bytes),
    /// Several messages, each behind its prefix.
    Run(Run),
    Pieces(Vec<Bytes>),
    Lazy(Box<dyn PayloadSource>),
}

/// Several messages of one stream, encoded behind each other, that may go out on many streams: a clone shares the bytes.
#[derive(Clone, Debug)]
pub struct Run {
    bytes: Bytes,
    messages: usize,
}

impl Run {
    /// Bytes of all of it, prefixes included.
    #[expect(clippy::len_without_is_empty, reason = "nobody makes a run of nothing")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

impl From<Run> for Payload {
    fn from(run: Run) -> Payload {
        Payload(Kind::Run(run))
    }
}

/// Room to encode a [`Run`] in.
#[derive(Debug, Default)]
pub struct RunBuf {
    bytes: BytesMut,
    messages: usize,
}

impl RunBuf {
    /// Bytes that a message takes besides its own.
    pub const LEAST: usize = PREFIX;

    /// With room for so many bytes, [`RunBuf::LEAST`] for each message included.
    pub fn with_capacity(n: usize) -> RunBuf {
        RunBuf { bytes: BytesMut::with_capacity(n), messages: 0 }
    }

    /// Begins a message, of exactly `len` bytes that are to be added to what this gives.
    pub fn begin(&mut self, len: usize) -> &mut BytesMut {
        self.messages += 1;
        self.bytes.put_slice(&prefix(len));
        &mut self.bytes
    }

    /// All of it.
    pub fn end(self) -> Run {
        Run { bytes: self.bytes.freeze(), messages: self.messages }
    }
}

impl Payload {
    /// The message of no bytes.
    pub fn empty() -> Payload {
        Payload(Kind::One(Bytes::new()))
    }

    /// A message of these pieces, one after the other, none of them copied.
    pub fn pieces(pieces: Vec<Bytes>) -> Payload {
        Payload(Kind::Pieces(pieces))
    }

    /// A message that is made while it is sent.
    pub fn lazy(source: Box<dyn PayloadSource>) -> Payload {
        Payload(Kind::Lazy(source))
    }

    /// Length of the message, without framing.
    pub fn message_len(&self) -> usize {
        match &self.0 {
            Kind::One(b) => b.len(),
            Kind::Framed(b) => b.len() - PREFIX,
            Kind::Run(run) => run.len() - PREFIX * run.messages,
            Kind::Pieces(p) => p.iter().map(Bytes::len).sum(),
            Kind::Lazy(s) => s.total_len(),
        }
    }

    /// How many messages this is.
    pub fn messages(&self) -> usize {
        match &self.0 {
            Kind::Run(run) => run.messages,
            _ => 1,
        }
    }

    /// One by one, if it is several messages.
    pub fn split(self) -> impl Iterator<Item = Payload> {
        let (mut run, mut one) = match self.0 {
            Kind::Run(run) => (run.bytes, None),
            kind => (Bytes::new(), Some(Payload(kind))),
        };
        std::iter::from_fn(move || {
            if run.len() < PREFIX {
                return one.take();
            }
            let len = u32::from_be_bytes([run[1], run[2], run[3], run[4]]) as usize;
            Some(Payload(Kind::Framed(run.split_to(run.len().min(PREFIX + len)))))
        })
    }

    /// The message in one piece, copied together where it lies in several.
    pub fn into_bytes(self) -> Result<Bytes, Status> {
        match self.0 {
            Kind::One(message) => Ok(message),
            Kind::Framed(mut framed) => {
                framed.advance(PREFIX);
                Ok(framed)
            }
            Kind::Run(_) => Err(Status::internal("several messages are not one")),
            Kind::Pieces(pieces) => Ok(pieces.concat().into()),
            Kind::Lazy(mut source) => {
                let mut whole = BytesMut::with_capacity(source.total_len());
                while let Some(piece) = source.next(usize::MAX) {
                    whole.extend_from_slice(&piece?);
                }
                Ok(whole.freeze())
            }
        }
    }

    pub(crate) fn check(&self, max: usize) -> Result<usize, Status> {
        let len = self.message_len();
        if len > max {
            return Err(Status::new(
                Code::ResourceExhausted,
                format!("grpc: trying to send message larger than max ({len} vs. {max})"),
            ));
        }
        Ok(len)
    }
}

impl From<Bytes> for Payload {
    fn from(message: Bytes) -> Payload {
        Payload(Kind::One(message))
    }
}

impl From<Vec<u8>> for Payload {
    fn from(message: Vec<u8>) -> Payload {
        Payload(Kind::One(message.into()))
    }
}

/// Room to encode messages in, each behind its prefix, so that a small message
/// is built once, in place. One buffer serves a whole batch of replies:
///
/// ```
/// use bytes::BufMut;
/// let mut buf = etch_rpc::MessageBuf::with_capacity(4096);
/// for n in 0..3u8 {
///     buf.begin().put_u8(n);
///     let payload = buf.end();
///     assert_eq!(payload.message_len(), 1);
/// }
/// ```
#[derive(Debug, Default)]
pub struct MessageBuf(BytesMut);

impl MessageBuf {
    /// An empty buffer with room for `n` bytes, prefixes included.
    pub fn with_capacity(n: usize) -> MessageBuf {
        MessageBuf(BytesMut::with_capacity(n))
    }

    /// Begins a message; what was begun before and not ended is dropped.
    pub fn begin(&mut self) -> &mut BytesMut {
        self.0.clear();
        self.0.put_bytes(0, PREFIX);
        &mut self.0
    }

    /// The message begun last, whole; the rest of the room stays.
    pub fn end(&mut self) -> Payload {
        if self.0.len() < PREFIX {
            return Payload::empty();
        }
        let mut message = self.0.split();
        let head = prefix(message.len() - PREFIX);
        message[..PREFIX].copy_from_slice(&head);
        Payload(Kind::Framed(message.freeze()))
    }
}

/// What is handed to HTTP/2 for one DATA frame: a prefix, perhaps, and pieces.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    head: [u8; PREFIX],
    head_at: u8,
    first: Bytes,
    rest: VecDeque<Bytes>,
    left: usize,
}

impl Chunk {
    /// Pieces as they are.
    pub(crate) fn new(first: Bytes, rest: VecDeque<Bytes>) -> Chunk {
        let left = first.len() + rest.iter().map(Bytes::len).sum::<usize>();
        Chunk { head: [0; PREFIX], head_at: PREFIX as u8, first, rest, left }
    }

    /// A message's prefix and its pieces.
    pub(crate) fn message(len: usize, first: Bytes, rest: VecDeque<Bytes>) -> Chunk {
        let mut chunk = Chunk::new(first, rest);
        chunk.head = prefix(len);
        chunk.head_at = 0;
        chunk.left += PREFIX;
        chunk
    }

    /// The next bytes that lie together, at most `max` of them; pieces are
    /// sliced, not copied. To be called while something is left.
    pub(crate) fn piece(&mut self, max: usize) -> Bytes {
        let n = max.min(self.chunk().len());
        if self.head_left() == 0 && self.first.len() > n {
            self.left -= n;
            return self.first.split_to(n);
        }
        let piece = if self.head_left() > 0 {
            Bytes::copy_from_slice(&self.chunk()[..n])
        } else {
            let first = if self.first.is_empty() {
                self.rest.iter().find(|b| !b.is_empty())
            } else {
                Some(&self.first)
            };
            first.map_or(Bytes::new(), |b| b.slice(..n))
        };
        self.advance(n);
        piece
    }

    fn head_left(&self) -> usize {
        PREFIX - usize::from(self.head_at)
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.left
    }

    fn chunk(&self) -> &[u8] {
        if self.head_left() > 0 {
            &self.head[usize::from(self.head_at)..]
        } else if self.first.is_empty() {
            // Pieces may be empty, and a `Buf` with bytes left must show some.
            self.rest.iter().find(|b| !b.is_empty()).map_or(&[], |b| &b[..])
        } else {
            &self.first
        }
    }

    fn advance(&mut self, mut n: usize) {
        assert!(n <= self.left, "advance past the end");
        self.left -= n;
        let head = n.min(self.head_left());
        self.head_at += head as u8;
        n -= head;
        loop {
            let step = n.min(self.first.len());
            self.first.advance(step);
            n -= step;
            if !self.first.is_empty() || self.rest.is_empty() {
                return;
            }
            self.first = self.rest.pop_front().unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_gives_prefix_and_pieces_in_any_steps() {
        let want = [&[0u8, 0, 0, 0, 6][..], b"abcdef"].concat();
        for step in 1..12 {
            let rest = VecDeque::from([Bytes::new(), Bytes::from("cd"), Bytes::from("ef")]);
            let mut chunk = Chunk::message(6, Bytes::from("ab"), rest);
            let mut got = Vec::new();
            while chunk.has_remaining() {
                let n = step.min(chunk.chunk().len());
                assert!(n > 0, "bytes left but none shown");
                got.extend_from_slice(&chunk.chunk()[..n]);
                chunk.advance(n);
            }
            assert_eq!(got, want);
        }
    }

    #[test]
    fn chunk_gives_pieces() {
        for max in 1..8 {
            let rest = VecDeque::from([Bytes::new(), Bytes::from("cde")]);
            let mut chunk = Chunk::message(3, Bytes::new(), rest);
            let mut got = Vec::new();
            while chunk.has_remaining() {
                let piece = chunk.piece(max);
                assert!(!piece.is_empty() && piece.len() <= max);
                got.extend_from_slice(&piece);
            }
            assert_eq!(got, b"\0\0\0\0\x03cde");
        }
    }

    #[test]
    fn a_run_is_its_messages() {
        let mut run = RunBuf::with_capacity(64);
        for message in ["", "abc", "d"] {
            run.begin(message.len()).put_slice(message.as_bytes());
        }
        let payload = Payload::from(run.end());
        assert_eq!((payload.messages(), payload.message_len()), (3, 4));
        let each: Vec<Bytes> = payload.split().map(|p| p.into_bytes().expect("one")).collect();
        assert_eq!(each, ["", "abc", "d"]);
        let one = Payload::from(vec![1, 2]);
        assert_eq!((one.messages(), one.split().count()), (1, 1));
    }

    #[test]
    fn message_buf_frames_in_place() {
        let mut buf = MessageBuf::with_capacity(64);
        buf.begin().put_slice(b"abc");
        let Payload(Kind::Framed(b)) = buf.end() else { panic!("framed") };
        assert_eq!(&b[..], b"\0\0\0\0\x03abc");
        buf.begin().put_slice(b"dropped");
        buf.begin().put_slice(b"xy");
        let Payload(Kind::Framed(b)) = buf.end() else { panic!("framed") };
        assert_eq!(&b[..], b"\0\0\0\0\x02xy");
    }

    #[test]
    fn too_large_to_send() {
        let e = Payload::from(vec![0; 11]).check(10).unwrap_err();
        assert_eq!(e.message, "grpc: trying to send message larger than max (11 vs. 10)");
    }
}
