//! Moves queued messages of one stream into HTTP/2 as the client's window and
//! the connection's buffer have room. Not here: who queues them.

use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use h2::SendStream;
use http::HeaderMap;

use crate::payload::{Chunk, PayloadSource, prefix};
use crate::shared::Shared;
use crate::status::Status;

/// At most this much goes to HTTP/2 in one step.
const STEP: usize = 64 * 1024;
/// Pieces below this are copied together; larger ones are passed on.
const COPY: usize = 1024;

pub(crate) enum Item {
    Chunk(Chunk),
    Lazy(Lazy),
}

/// A source, and what of it is announced and not yet out.
pub(crate) struct Lazy {
    source: Box<dyn PayloadSource>,
    /// The prefix, and then whatever of a piece found no room.
    carry: Bytes,
    left: usize,
}

impl Item {
    pub(crate) fn lazy(source: Box<dyn PayloadSource>, len: usize) -> Item {
        let carry = Bytes::copy_from_slice(&prefix(len));
        Item::Lazy(Lazy { source, carry, left: len })
    }

    fn remaining(&self) -> usize {
        match self {
            Item::Chunk(chunk) => chunk.remaining(),
            Item::Lazy(lazy) => lazy.carry.len() + lazy.left,
        }
    }

    /// Its next piece of at most `room` bytes; `None` when it is used up.
    fn piece(&mut self, room: usize) -> Result<Option<Bytes>, Status> {
        match self {
            Item::Chunk(chunk) if chunk.has_remaining() => Ok(Some(chunk.piece(room))),
            Item::Chunk(_) => Ok(None),
            Item::Lazy(lazy) => lazy.piece(room),
        }
    }
}

impl Lazy {
    fn piece(&mut self, room: usize) -> Result<Option<Bytes>, Status> {
        if self.carry.is_empty() {
            if self.left == 0 {
                return Ok(None);
            }
            let piece = match self.source.next(room) {
                Some(piece) => piece?,
                None => return Err(Status::internal("the reply ended before its length")),
            };
            if piece.len() > self.left {
                return Err(Status::internal("the reply is longer than its length"));
            }
            self.left -= piece.len();
            self.carry = piece;
        }
        Ok(Some(self.carry.split_to(room.min(self.carry.len()))))
    }
}

/// What comes after the last message.
enum End {
    Open,
    Trailers(HeaderMap),
    /// END_STREAM without trailers, for what is not gRPC.
    Bare,
    Done,
}

/// Why moving stopped.
#[derive(PartialEq, Eq, Debug)]
enum Stop {
    Drained,
    /// The client's window has no room.
    Window,
    /// The connection holds as much as it may.
    Connection,
    /// Nothing more can be sent on this stream.
    Dead,
}

pub(crate) struct Pump {
    shared: Rc<Shared>,
    send: SendStream<Chunk>,
    queue: VecDeque<Item>,
    queued: usize,
    end: End,
    dead: bool,
}

impl Pump {
    pub(crate) fn new(shared: Rc<Shared>, send: SendStream<Chunk>) -> Pump {
        Pump { shared, send, queue: VecDeque::new(), queued: 0, end: End::Open, dead: false }
    }

    pub(crate) fn push(&mut self, item: Item) {
        self.queued += item.remaining();
        self.queue.push_back(item);
    }

    /// Bytes queued and not yet with HTTP/2.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// These trailers after all that is queued.
    pub(crate) fn finish(&mut self, trailers: HeaderMap) {
        if matches!(self.end, End::Open) {
            self.end = End::Trailers(trailers);
        }
    }

    /// The end of the stream after all that is queued.
    pub(crate) fn finish_bare(&mut self) {
        if matches!(self.end, End::Open) {
            self.end = End::Bare;
        }
    }

    pub(crate) fn reset(&mut self, reason: h2::Reason) {
        self.shared.reset();
        self.send.send_reset(reason);
        self.give_up();
    }

    pub(crate) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.send.poll_reset(cx).map(|_| self.give_up())
    }

    fn give_up(&mut self) {
        self.dead = true;
        self.queue.clear();
        self.queued = 0;
        self.end = End::Done;
    }

    /// Moves what there is room for, now, without registering to be woken.
    /// Says whether it has to wait for the connection (not the window).
    pub(crate) fn push_out(&mut self) -> bool {
        self.step() == Stop::Connection
    }

    /// Ready when all that is queued is with HTTP/2, or never can be.
    pub(crate) fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.step() {
                Stop::Drained | Stop::Dead => return Poll::Ready(()),
                Stop::Connection => {
                    self.shared.wait_to_send(cx.waker());
                    return Poll::Pending;
                }
                Stop::Window => match self.send.poll_capacity(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(_) => self.give_up(),
                },
            }
        }
    }

    /// Ready when everything and its end is with HTTP/2, or never can be.
    pub(crate) fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        std::task::ready!(self.poll_drained(cx));
        match self.end {
            End::Done => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }

    fn step(&mut self) -> Stop {
        while self.queued > 0 {
            if self.dead {
                return Stop::Dead;
            }
            if !self.shared.may_send() {
                return Stop::Connection;
            }
            let want = self.queued.min(STEP);
            self.send.reserve_capacity(want);
            let room = self.send.capacity().min(STEP);
            if room == 0 {
                return Stop::Window;
            }
            match self.collect(room) {
                Ok(chunk) => self.hand_over(chunk),
                Err(status) => self.break_off(&status),
            }
        }
        self.queue.clear();
        self.send_end();
        Stop::Drained
    }

    fn hand_over(&mut self, chunk: Chunk) {
        let n = chunk.remaining();
        self.queued -= n;
        self.shared.sent(n);
        if self.send.send_data(chunk, false).is_err() {
            self.give_up();
        }
    }

    /// A source failed in the middle of its message: the status says so.
    fn break_off(&mut self, status: &Status) {
        self.queue.clear();
        self.queued = 0;
        self.end = End::Trailers(status.trailers());
    }

    fn send_end(&mut self) {
        let sent = match std::mem::replace(&mut self.end, End::Done) {
            End::Open => {
                self.end = End::Open;
                return;
            }
            End::Done => return,
            End::Trailers(trailers) => self.send.send_trailers(trailers),
            End::Bare => self.send.send_data(Chunk::default(), true),
        };
        self.shared.sent(0);
        if sent.is_err() {
            self.give_up();
        }
    }

    /// As much of the queue as there is room for, as one chunk.
    fn collect(&mut self, room: usize) -> Result<Chunk, Status> {
        if let Some(Item::Chunk(chunk)) = self.queue.front_mut()
            && chunk.remaining() == self.queued
            && self.queued <= room
        {
            return Ok(std::mem::take(chunk));
        }
        let mut pieces = VecDeque::new();
        let mut small = BytesMut::new();
        let mut left = room;
        while left > 0
            && let Some(item) = self.queue.front_mut()
        {
            let Some(piece) = item.piece(left)? else {
                self.queue.pop_front();
                continue;
            };
            left -= piece.len();
            if piece.len() < COPY {
                if small.capacity() == 0 {
                    small.reserve(room.min(self.queued).min(4 * COPY));
                }
                small.extend_from_slice(&piece);
            } else {
                if !small.is_empty() {
                    pieces.push_back(small.split().freeze());
                }
                pieces.push_back(piece);
            }
        }
        if !small.is_empty() {
            pieces.push_back(small.freeze());
        }
        Ok(Chunk::new(Bytes::new(), pieces))
    }
}
