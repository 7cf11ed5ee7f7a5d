//! What goes out: answers, written at once where they are small and there is room, and messages that wait for the
//! client's windows, a frame of each stream in turn. Not here: when it is written to the socket.

use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use http::HeaderMap;

use super::Mux;
use super::frame::{MAX_FRAME, Reason, flag, head, kind};
use super::hpack::encode::Encoder;
use super::item::{Item, STEP, write_chunks};
use super::output::Output;
use super::streams::{End, Key, More, Stream, remember};
use crate::http2::ContentType;
use crate::payload::{Kind, PREFIX, Payload, prefix};
use crate::reply::Inner;
use crate::status::{Code, Status};

/// What was found when a body was looked at.
pub(crate) enum Read {
    Data(Bytes),
    /// The client has ended its side.
    End,
    /// The stream is gone.
    Gone,
}

/// What a stream in the ring did with its turn.
enum Visit {
    /// It has more.
    Again,
    /// It has nothing more to send now, or is gone.
    Over,
    /// The connection's window is used up.
    Full,
}

impl Mux {
    /// Answers a unary call if the answer is small and may leave at once; gives it back if not.
    pub(crate) fn answer(
        &mut self,
        key: Key,
        content: &ContentType,
        payload: Payload,
        len: usize,
    ) -> Result<(), Payload> {
        let size = PREFIX + len;
        let window = self.send_window;
        let Some(stream) = self.streams.get(key) else { return Ok(()) };
        if size > MAX_FRAME || size as i64 > stream.send_window.min(window) {
            return Err(payload);
        }
        if matches!(payload.0, Kind::Lazy(_)) {
            return Err(payload);
        }
        self.send_window -= size as i64;
        self.put_response(key, content);
        self.out.put(&head(size, kind::DATA, 0, key.id));
        match payload.0 {
            Kind::Framed(framed) => self.out.put_piece(framed),
            Kind::Run(run) => self.out.put_piece(run.into_bytes()),
            Kind::One(message) => {
                self.out.put(&prefix(len));
                self.out.put_piece(message);
            }
            Kind::Pieces(pieces) => {
                self.out.put(&prefix(len));
                pieces.into_iter().for_each(|piece| self.out.put_piece(piece));
            }
            Kind::Lazy(_) => {}
        }
        self.sent.any = true;
        self.sent.bytes += size as u64;
        self.put_end(key, End::Status(Status::OK));
        Ok(())
    }

    /// Answers a unary call as the client's windows open. The call ends when all is out.
    pub(crate) fn answer_later(
        &mut self,
        key: Key,
        content: &ContentType,
        item: Item,
        call: Inner,
    ) {
        if !self.is_open(key) {
            return;
        }
        self.put_response(key, content);
        if let Some(more) = self.more(key) {
            more.call = Some(call);
            more.end = End::Status(Status::OK);
        }
        self.push(key, item);
    }

    /// Ends a call that has no message: head and status in one.
    pub(crate) fn refuse(&mut self, key: Key, http: u16, status: &Status, content: &ContentType) {
        if !self.is_open(key) {
            return;
        }
        let mut block = self.begin_block();
        self.encoder.status(http, &mut block);
        put_content_type(&mut self.encoder, content, &mut block);
        put_status(&mut self.encoder, status, &mut block);
        self.put_block(key.id, true, block);
        self.ended(key);
    }

    /// The head of an answer, unless it is out.
    pub(crate) fn put_response(&mut self, key: Key, content: &ContentType) {
        let Some(stream) = self.streams.get(key) else { return };
        if !std::mem::replace(&mut stream.opened, true) {
            let mut block = self.begin_block();
            self.encoder.status(200, &mut block);
            put_content_type(&mut self.encoder, content, &mut block);
            self.put_block(key.id, false, block);
        }
    }

    /// The head of an answer that is not gRPC.
    pub(crate) fn put_plain(&mut self, key: Key, head: &http::response::Parts, ended: bool) {
        let Some(stream) = self.streams.get(key) else { return };
        stream.opened = true;
        let mut block = self.begin_block();
        self.encoder.status(head.status.as_u16(), &mut block);
        put_fields(&mut self.encoder, &head.headers, &mut block);
        self.put_block(key.id, ended, block);
        if ended {
            self.ended(key);
        }
    }

    /// Queues a message. It leaves when the connection runs.
    pub(crate) fn push(&mut self, key: Key, item: Item) {
        let n = item.remaining();
        if n == 0 {
            return;
        }
        let Some(more) = self.more(key) else { return };
        more.queued += n;
        more.outbox.push_back(item);
        self.enter_ring(key);
    }

    /// Says how a call ended, after all that is queued.
    pub(crate) fn finish_call(&mut self, key: Key, status: Status, content: &ContentType) {
        let Some(stream) = self.streams.get(key) else { return };
        if stream.opened {
            self.finish(key, End::Status(status));
        } else {
            self.refuse(key, 200, &status, content);
        }
    }

    /// This end after all that is queued.
    pub(crate) fn finish(&mut self, key: Key, end: End) {
        let Some(stream) = self.streams.get(key) else { return };
        match &mut stream.more {
            Some(more) if more.queued > 0 => more.end = end,
            _ => self.put_end(key, end),
        }
    }

    /// Bytes queued on a stream.
    pub(crate) fn queued(&mut self, key: Key) -> usize {
        let more = self.streams.get(key).and_then(|stream| stream.more.as_ref());
        more.map_or(0, |more| more.queued)
    }

    /// Ready when the stream is gone: both sides have ended it, or one has reset it.
    pub(crate) fn poll_gone(&mut self, key: Key, cx: &Context<'_>) -> Poll<()> {
        let Some(more) = self.more(key) else { return Poll::Ready(()) };
        add(&mut more.gone, cx.waker());
        Poll::Pending
    }

    /// Wakes this when there is room on the stream, or it is gone.
    pub(crate) fn wait_for_room(&mut self, key: Key, waker: &Waker) {
        let Some(more) = self.more(key) else { return waker.wake_by_ref() };
        add(&mut more.room, waker);
    }

    /// Ready when nothing is queued on the stream, or it is gone.
    pub(crate) fn poll_drained(&mut self, key: Key, cx: &Context<'_>) -> Poll<()> {
        if self.queued(key) == 0 {
            return Poll::Ready(());
        }
        self.wait_for_room(key, cx.waker());
        Poll::Pending
    }

    /// From now on the data of a stream waits here to be read.
    pub(crate) fn attach(&mut self, key: Key) {
        if let Some(stream) = self.streams.get(key) {
            stream.attached = true;
            let more = stream.more.get_or_insert_default();
            more.inbox_ended = false;
        }
    }

    /// Data that came in before the stream was attached.
    pub(crate) fn put_unread(&mut self, key: Key, data: Bytes, ended: bool) {
        let stream = self.streams.get(key).filter(|stream| stream.attached);
        let Some(more) = stream.and_then(|stream| stream.more.as_mut()) else {
            // Nobody wants it.
            return self.release(data.len() as u32);
        };
        more.put_unread(data, ended);
    }

    /// The next part of a body. What is taken makes room for more.
    pub(crate) fn poll_read(&mut self, key: Key, cx: &Context<'_>) -> Poll<Read> {
        let Some(more) = self.more(key) else { return Poll::Ready(Read::Gone) };
        let Some(data) = more.take_unread() else {
            if more.inbox_ended {
                return Poll::Ready(Read::End);
            }
            remember(&mut more.reader, cx.waker());
            return Poll::Pending;
        };
        let len = data.len() as u32;
        self.release(len);
        self.release_stream(key, len);
        Poll::Ready(Read::Data(data))
    }

    /// Writes what the streams have, a step of each in turn, until so much waits for the socket.
    pub(crate) fn pump(&mut self, most: usize) {
        while self.out.pending() < most {
            let Some(key) = self.ring.pop_front() else { return };
            match self.visit(key) {
                Visit::Again => self.ring.push_back(key),
                Visit::Over => {
                    if let Some(stream) = self.streams.get(key) {
                        stream.in_ring = false;
                    }
                }
                Visit::Full => return self.ring.push_front(key),
            }
        }
    }

    fn visit(&mut self, key: Key) -> Visit {
        if self.send_window <= 0 {
            return Visit::Full;
        }
        let Some(stream) = self.streams.get(key) else { return Visit::Over };
        let Some(more) = &mut stream.more else { return Visit::Over };
        if stream.send_window <= 0 {
            return Visit::Over;
        }
        let window = stream.send_window.min(self.send_window).min(STEP as i64) as usize;
        let (n, written) = more.write(key.id, window, &mut self.out);
        stream.send_window -= n as i64;
        self.send_window -= n as i64;
        self.sent.bytes += n as u64;
        self.sent.any = true;
        if let Err(status) = written {
            // A source failed in the middle of its message: the status says so.
            more.outbox.clear();
            more.queued = 0;
            more.end = End::Status(status);
        }
        if more.queued < self.limits.stream_send_buffer {
            more.room.drain(..).for_each(Waker::wake);
        }
        if more.queued > 0 {
            return Visit::Again;
        }
        let end = std::mem::take(&mut more.end);
        self.put_end(key, end);
        Visit::Over
    }

    /// Puts a stream that has data and a window among those that send.
    pub(super) fn enter_ring(&mut self, key: Key) {
        if let Some(stream) = self.streams.get(key)
            && !stream.in_ring
            && stream.send_window > 0
            && stream.more.as_ref().is_some_and(|more| more.queued > 0)
        {
            stream.in_ring = true;
            self.ring.push_back(key);
        }
    }

    /// 431 for a head that is larger than we take.
    pub(super) fn refuse_large_head(&mut self, id: u32, ended: bool) {
        let mut block = self.begin_block();
        self.encoder.status(431, &mut block);
        self.put_block(id, true, block);
        if !ended {
            self.put_reset(id, Reason::NO_ERROR);
            self.early.insert(id);
        }
    }

    fn more(&mut self, key: Key) -> Option<&mut More> {
        Some(self.streams.get(key)?.more.get_or_insert_default())
    }

    fn put_end(&mut self, key: Key, end: End) {
        match end {
            End::Open => return,
            End::Bare => self.out.put(&head(0, kind::DATA, flag::END_STREAM, key.id)),
            End::Status(status) => {
                let mut block = self.begin_block();
                put_status(&mut self.encoder, &status, &mut block);
                self.put_block(key.id, true, block);
            }
            End::Trailers(fields) => {
                let mut block = self.begin_block();
                put_fields(&mut self.encoder, &fields, &mut block);
                self.put_block(key.id, true, block);
            }
        }
        self.ended(key);
    }

    /// Our side has ended, and with it the stream: what the client may still send is nothing to anybody.
    fn ended(&mut self, key: Key) {
        self.sent.any = true;
        if let Some(Stream { recv_ended: false, .. }) = self.remove(key) {
            self.put_reset(key.id, Reason::NO_ERROR);
            self.early.insert(key.id);
        }
    }

    fn begin_block(&mut self) -> Vec<u8> {
        let mut block = std::mem::take(&mut self.scratch);
        block.clear();
        self.encoder.begin(&mut block);
        block
    }

    /// Writes a header block, in as many frames as it takes.
    fn put_block(&mut self, id: u32, ended: bool, block: Vec<u8>) {
        let ended = if ended { flag::END_STREAM } else { 0 };
        let (first, mut rest) = block.split_at(block.len().min(MAX_FRAME));
        let last = |rest: &[u8]| if rest.is_empty() { flag::END_HEADERS } else { 0 };
        self.out.put(&head(first.len(), kind::HEADERS, ended | last(rest), id));
        self.out.put(first);
        while !rest.is_empty() {
            let part;
            (part, rest) = rest.split_at(rest.len().min(MAX_FRAME));
            self.out.put(&head(part.len(), kind::CONTINUATION, last(rest), id));
            self.out.put(part);
        }
        self.scratch = block;
    }
}

impl More {
    /// Writes of what is queued as much as the window lets through; says how many bytes.
    fn write(&mut self, id: u32, window: usize, out: &mut Output) -> (usize, Result<(), Status>) {
        let mut written = 0;
        while self.queued > 0 && written < window {
            match self.write_frame(id, window - written, out) {
                Ok(n) => {
                    self.queued -= n;
                    written += n;
                }
                Err(status) => return (written, Err(status)),
            }
        }
        (written, Ok(()))
    }

    fn write_frame(&mut self, id: u32, window: usize, out: &mut Output) -> Result<usize, Status> {
        let room = window.min(MAX_FRAME);
        let mut n = 0;
        for item in &self.outbox {
            let Item::Chunk(chunk) = item else { break };
            n += chunk.remaining();
            if n >= room {
                break;
            }
        }
        if n > 0 {
            n = n.min(room);
            write_chunks(&mut self.outbox, id, n, out);
        } else if let Some(Item::Lazy(lazy)) = self.outbox.front_mut() {
            n = lazy.write(id, window, out)?;
            if lazy.is_done() {
                self.outbox.pop_front();
            }
        }
        Ok(n)
    }
}

fn add(wakers: &mut Vec<Waker>, waker: &Waker) {
    if !wakers.iter().any(|there| there.will_wake(waker)) {
        wakers.push(waker.clone());
    }
}

fn put_content_type(encoder: &mut Encoder, content: &ContentType, block: &mut Vec<u8>) {
    match content {
        ContentType::Grpc => encoder.content_type(block),
        ContentType::With(value) => encoder.field(b"content-type", value.as_bytes(), block),
    }
}

fn put_status(encoder: &mut Encoder, status: &Status, block: &mut Vec<u8>) {
    if status.code == Code::Ok {
        encoder.good(block);
    } else {
        encoder.field(b"grpc-status", status.code.text().as_bytes(), block);
    }
    if !status.message.is_empty() {
        encoder.field(b"grpc-message", status.encoded_message().as_bytes(), block);
    }
}

fn put_fields(encoder: &mut Encoder, fields: &HeaderMap, block: &mut Vec<u8>) {
    for (name, value) in fields {
        encoder.field(name.as_str().as_bytes(), value.as_bytes(), block);
    }
}
