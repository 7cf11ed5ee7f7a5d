//! A message on its way into DATA frames: pieces that lie there, or a source that makes them as they are wanted.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

use super::frame;
use super::output::{LARGE, Output};
use crate::payload::{Chunk, PREFIX, PayloadSource, prefix};
use crate::status::Status;

/// At most this much leaves of a stream before it is another's turn, and is asked of a source at once.
pub(crate) const STEP: usize = 64 * 1024;

/// One message, or what is left of it.
pub(crate) enum Item {
    Chunk(Chunk),
    Lazy(Lazy),
}

/// A source, and what of it is announced and not yet out.
pub(crate) struct Lazy {
    source: Box<dyn PayloadSource>,
    /// The prefix, until it is out.
    head: Option<[u8; PREFIX]>,
    /// Whatever of a piece found no room.
    carry: Bytes,
    /// What the source has not made.
    left: usize,
}

impl Item {
    pub(crate) fn lazy(source: Box<dyn PayloadSource>, len: usize) -> Item {
        Item::Lazy(Lazy { source, head: Some(prefix(len)), carry: Bytes::new(), left: len })
    }

    pub(crate) fn remaining(&self) -> usize {
        match self {
            Item::Chunk(chunk) => chunk.remaining(),
            Item::Lazy(lazy) => lazy.remaining(),
        }
    }
}

impl Lazy {
    fn remaining(&self) -> usize {
        self.head.map_or(0, |head| head.len()) + self.carry.len() + self.left
    }

    /// Nothing of it is left to send.
    pub(crate) fn is_done(&self) -> bool {
        self.remaining() == 0
    }

    /// Writes one frame, of a window so wide; says how many bytes.
    pub(crate) fn write(
        &mut self,
        stream: u32,
        window: usize,
        out: &mut Output,
    ) -> Result<usize, Status> {
        if self.carry.is_empty() && self.left > 0 {
            self.carry = self.next(window)?;
        }
        let room = window.min(frame::MAX_FRAME);
        let head = self.head.map_or(0, |head| head.len());
        if room < head {
            // A window of a few bytes: the prefix goes out by itself.
            return Ok(self.write_part_of_head(stream, room, out));
        }
        let n = self.carry.len().min(room - head);
        out.put(&frame::head(head + n, frame::kind::DATA, 0, stream));
        if let Some(head) = self.head.take() {
            out.put(&head);
        }
        out.put_piece(self.carry.split_to(n));
        Ok(head + n)
    }

    fn next(&mut self, max: usize) -> Result<Bytes, Status> {
        loop {
            let Some(piece) = self.source.next(max) else {
                return Err(Status::internal("the reply ended before its length"));
            };
            let piece = piece?;
            if piece.len() > self.left {
                return Err(Status::internal("the reply is longer than its length"));
            }
            self.left -= piece.len();
            if !piece.is_empty() {
                return Ok(piece);
            }
        }
    }

    fn write_part_of_head(&mut self, stream: u32, room: usize, out: &mut Output) -> usize {
        let Some(head) = self.head.take() else { return 0 };
        out.put(&frame::head(room, frame::kind::DATA, 0, stream));
        out.put(&head[..room]);
        // What is left of it goes in front of the piece.
        self.carry = [&head[room..], &self.carry[..]].concat().into();
        room
    }
}

/// Writes one frame of the first `n` bytes of these chunks, which have as many.
pub(crate) fn write_chunks(items: &mut VecDeque<Item>, stream: u32, n: usize, out: &mut Output) {
    out.put(&frame::head(n, frame::kind::DATA, 0, stream));
    let mut left = n;
    while left > 0
        && let Some(Item::Chunk(chunk)) = items.front_mut()
    {
        let step = left.min(chunk.chunk().len());
        if step < LARGE {
            out.put(&chunk.chunk()[..step]);
            chunk.advance(step);
        } else {
            out.put_piece(chunk.piece(step));
        }
        left -= step;
        if !chunk.has_remaining() {
            items.pop_front();
        }
    }
}
