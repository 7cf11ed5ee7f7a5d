//! Frames that come in, and what each does. What breaks the rules ends its stream or, where nothing after it can
//! be trusted, the connection, by the codes of RFC 9113. Not here: header blocks (`hpack`, `head`).

use std::rc::Rc;

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderValue;

use super::frame::{
    DEFAULT_WINDOW, FrameHead, HEAD, MAX_FRAME, MAX_WINDOW, ProtocolError, Reason, fatal, flag,
    kind, number, setting, unpadded,
};
use super::head::{self, Head};
use super::streams::{Key, Stream};
use super::{DRAIN_PING, Drain, Event, Mux, frame};

type Done = Result<(), ProtocolError>;

/// A header block in more than one frame.
pub(super) struct Block {
    stream: u32,
    ended: bool,
    bytes: Vec<u8>,
    frames: usize,
}

/// Frames of one header block: more are no block but an attack.
const MAX_FRAMES: usize = 64;

impl Mux {
    /// Takes every whole frame out of `input`. After an error, what it has told of before stands.
    pub(crate) fn receive(&mut self, input: &mut BytesMut, events: &mut Vec<Event>) -> Done {
        while let Some(head) = FrameHead::parse(input) {
            if head.len > MAX_FRAME {
                return fatal(Reason::FRAME_SIZE_ERROR, "a frame is too large");
            }
            if input.len() < HEAD + head.len {
                return Ok(());
            }
            self.check_order(&head)?;
            self.count(&head);
            input.advance(HEAD);
            if head.kind == kind::DATA {
                let payload = input.split_to(head.len).freeze();
                self.data(&head, payload, events)?;
            } else {
                self.other(&head, &input[..head.len], events)?;
                input.advance(head.len);
            }
        }
        Ok(())
    }

    /// Settings come first, and nothing between the parts of a header block.
    fn check_order(&mut self, head: &FrameHead) -> Done {
        if !self.greeted {
            if head.kind != kind::SETTINGS || head.has(flag::ACK) {
                return fatal(Reason::PROTOCOL_ERROR, "the first frame is not SETTINGS");
            }
            self.greeted = true;
        }
        let inside = self.block.is_some();
        if inside != (head.kind == kind::CONTINUATION) {
            return fatal(Reason::PROTOCOL_ERROR, "a header block is not in one row");
        }
        Ok(())
    }

    /// Frames that cost us work and the client nothing.
    fn count(&mut self, head: &FrameHead) {
        let ack = head.has(flag::ACK);
        match head.kind {
            kind::DATA if head.len == 0 && !head.has(flag::END_STREAM) => self.counts.control += 1,
            kind::DATA if head.has(flag::PADDED) => self.counts.control += 1,
            kind::DATA | kind::CONTINUATION => {}
            kind::WINDOW_UPDATE => self.counts.windows += 1,
            kind::HEADERS => self.counts.headers += 1,
            kind::RST_STREAM => self.counts.resets += 1,
            kind::PING if ack => {}
            kind::PING => self.counts.pings += 1,
            kind::SETTINGS if ack => {}
            kind::SETTINGS => self.counts.settings += 1,
            _ => self.counts.control += 1,
        }
    }

    fn other(&mut self, head: &FrameHead, payload: &[u8], events: &mut Vec<Event>) -> Done {
        match head.kind {
            kind::HEADERS => self.headers(head, payload, events),
            kind::CONTINUATION => self.continuation(head, payload, events),
            kind::WINDOW_UPDATE => self.window_update(head, payload, events),
            kind::SETTINGS => self.settings(head, payload, events),
            kind::PING => self.pinged(head, payload),
            kind::RST_STREAM => self.was_reset(head, payload, events),
            kind::PRIORITY => self.priority(head, payload, events),
            kind::GOAWAY if head.stream != 0 || payload.len() < 8 => {
                fatal(Reason::PROTOCOL_ERROR, "a malformed GOAWAY")
            }
            kind::PUSH_PROMISE => fatal(Reason::PROTOCOL_ERROR, "clients push nothing"),
            // GOAWAY of a client says that we shall open no streams, which we never do.
            _ => Ok(()),
        }
    }

    fn data(&mut self, head: &FrameHead, mut data: Bytes, events: &mut Vec<Event>) -> Done {
        let len = head.len as i64;
        if len > self.recv_window {
            return fatal(Reason::FLOW_CONTROL_ERROR, "more data than the connection's window");
        }
        self.recv_window -= len;
        let Some(part) = unpadded(head, &data) else {
            return fatal(Reason::PROTOCOL_ERROR, "padding longer than its frame");
        };
        let Some(key) = self.streams.find(head.stream) else {
            self.release(head.len as u32);
            return self.data_of_none(head, events);
        };
        let Some(stream) = self.streams.get(key) else { return Ok(()) };
        let ended = head.has(flag::END_STREAM);
        if let Err(reason) = stream.take_data(len, part.len() as u64, ended) {
            self.release(head.len as u32);
            return self.stream_error(head.stream, reason, events);
        }
        let padding = head.len - part.len();
        if padding > 0 {
            data = data.slice(part);
        }
        if !stream.attached {
            events.push(Event::Data { key, data, ended });
        } else if let Some(more) = &mut stream.more {
            more.put_unread(data, ended);
        }
        if padding > 0 {
            self.release(padding as u32);
            self.release_stream(key, padding as u32);
        }
        Ok(())
    }

    /// Data of a stream that is not open.
    fn data_of_none(&mut self, head: &FrameHead, events: &mut Vec<Event>) -> Done {
        self.not_idle(head.stream)?;
        if !self.early.contains(head.stream) {
            return self.stream_error(head.stream, Reason::STREAM_CLOSED, events);
        }
        if head.has(flag::END_STREAM) {
            self.early.remove(head.stream);
        }
        Ok(())
    }

    /// A stream that nobody has opened can have nothing but a beginning.
    fn not_idle(&self, stream: u32) -> Done {
        if stream.is_multiple_of(2) || stream > self.last {
            return fatal(Reason::PROTOCOL_ERROR, "a frame of a stream that is not open");
        }
        Ok(())
    }

    fn headers(&mut self, head: &FrameHead, payload: &[u8], events: &mut Vec<Event>) -> Done {
        if head.stream.is_multiple_of(2) {
            return fatal(Reason::PROTOCOL_ERROR, "a stream that clients do not open");
        }
        let Some(mut part) = unpadded(head, payload) else {
            return fatal(Reason::PROTOCOL_ERROR, "padding longer than its frame");
        };
        let mut depends = None;
        if head.has(flag::PRIORITY) {
            depends = number(&payload[part.clone()]);
            part.start += 5;
            if part.start > part.end {
                return fatal(Reason::FRAME_SIZE_ERROR, "a priority cut short");
            }
        }
        let block = &payload[part];
        let ended = head.has(flag::END_STREAM);
        if !head.has(flag::END_HEADERS) {
            let bytes = block.to_vec();
            self.block = Some(Block { stream: head.stream, ended, bytes, frames: 1 });
            return Ok(());
        }
        self.block_ended(head.stream, ended, block, events)?;
        if depends == Some(head.stream) {
            return self.stream_error(head.stream, Reason::PROTOCOL_ERROR, events);
        }
        Ok(())
    }

    fn continuation(&mut self, head: &FrameHead, payload: &[u8], events: &mut Vec<Event>) -> Done {
        let Some(mut block) = self.block.take().filter(|block| block.stream == head.stream) else {
            return fatal(Reason::PROTOCOL_ERROR, "a header block is not in one row");
        };
        block.frames += 1;
        block.bytes.extend_from_slice(payload);
        let most = 2 * self.limits.max_header_bytes as usize + MAX_FRAME;
        if block.frames > MAX_FRAMES || block.bytes.len() > most {
            return fatal(Reason::ENHANCE_YOUR_CALM, "too_many_continuations");
        }
        if head.has(flag::END_HEADERS) {
            return self.block_ended(block.stream, block.ended, &block.bytes, events);
        }
        self.block = Some(block);
        Ok(())
    }

    fn block_ended(&mut self, id: u32, ended: bool, block: &[u8], events: &mut Vec<Event>) -> Done {
        if id <= self.last {
            return self.trailers(id, ended, block, events);
        }
        self.last = id;
        if let Some(head) = self.heads.by_block(block, self.decoder.generation()) {
            return self.open(id, head, None, ended, events);
        }
        let generation = self.decoder.generation();
        self.read_block(block)?;
        if self.fields.too_large() {
            self.refuse_large_head(id, ended);
            return Ok(());
        }
        let timeout = head::take_timeout(&mut self.fields.list);
        let again = timeout.is_none() && generation == self.decoder.generation();
        let head = self.heads.of(&self.fields.list, again.then_some((block, generation)));
        match head {
            Ok(head) => self.open(id, head, timeout, ended, events),
            Err(head::Malformed) => {
                if !ended {
                    self.early.insert(id);
                }
                self.stream_error(id, Reason::PROTOCOL_ERROR, events)
            }
        }
    }

    fn read_block(&mut self, block: &[u8]) -> Done {
        self.fields.clear();
        let read = self.decoder.decode(block, &mut self.fields);
        read.or(fatal(Reason::COMPRESSION_ERROR, "a header block that cannot be read"))
    }

    fn open(
        &mut self,
        id: u32,
        head: Rc<Head>,
        timeout: Option<HeaderValue>,
        ended: bool,
        events: &mut Vec<Event>,
    ) -> Done {
        if ended && head.length.is_some_and(|length| length > 0) {
            return self.stream_error(id, Reason::PROTOCOL_ERROR, events);
        }
        let full = self.streams.len() >= self.limits.max_concurrent_streams as usize;
        if full || self.drain == Drain::Last {
            if !ended {
                self.early.insert(id);
            }
            if full {
                self.put_reset(id, Reason::REFUSED_STREAM);
                self.counts.resets += 1;
            }
            return Ok(());
        }
        let mut recv_window = self.limits.initial_stream_window;
        if !self.acknowledged {
            // It may not know of a window that is smaller.
            recv_window = recv_window.max(DEFAULT_WINDOW);
        }
        let key = self.streams.insert(Stream {
            id,
            recv_ended: ended,
            send_window: self.initial_window,
            recv_window: i64::from(recv_window),
            length: head.length,
            ..Stream::default()
        });
        events.push(Event::Request { key, head, timeout, ended });
        Ok(())
    }

    /// Headers behind a body. Nothing in them is of use to us.
    fn trailers(&mut self, id: u32, ended: bool, block: &[u8], events: &mut Vec<Event>) -> Done {
        self.read_block(block)?;
        let Some(key) = self.streams.find(id) else {
            if !self.early.contains(id) {
                return fatal(Reason::STREAM_CLOSED, "headers of a stream that has ended");
            }
            if ended {
                self.early.remove(id);
            }
            return Ok(());
        };
        let good = !self.fields.too_large() && head::are_trailers(&self.fields.list);
        let Some(stream) = self.streams.get(key) else { return Ok(()) };
        let wrong = if stream.recv_ended {
            Some(Reason::STREAM_CLOSED)
        } else if !ended || !good || stream.length.is_some_and(|left| left > 0) {
            Some(Reason::PROTOCOL_ERROR)
        } else {
            None
        };
        if let Some(reason) = wrong {
            return self.stream_error(id, reason, events);
        }
        stream.recv_ended = true;
        if !stream.attached {
            events.push(Event::Data { key, data: Bytes::new(), ended });
        } else if let Some(more) = &mut stream.more {
            more.put_unread(Bytes::new(), ended);
        }
        Ok(())
    }

    /// The client's error in one stream. Whoever makes many of them has them all.
    fn stream_error(&mut self, id: u32, reason: Reason, events: &mut Vec<Event>) -> Done {
        self.errors += 1;
        if self.errors > self.limits.max_local_error_reset {
            return fatal(Reason::ENHANCE_YOUR_CALM, "too_many_internal_resets");
        }
        self.put_reset(id, reason);
        self.counts.resets += 1;
        if let Some(key) = self.streams.find(id)
            && let Some(stream) = self.remove(key)
        {
            events.push(Event::Gone { key });
            if !stream.recv_ended {
                self.early.insert(id);
            }
        }
        Ok(())
    }

    fn was_reset(&mut self, head: &FrameHead, payload: &[u8], events: &mut Vec<Event>) -> Done {
        if payload.len() != 4 {
            return fatal(Reason::FRAME_SIZE_ERROR, "a malformed RST_STREAM");
        }
        self.not_idle(head.stream)?;
        self.early.remove(head.stream);
        if let Some(key) = self.streams.find(head.stream) {
            self.remove(key);
            events.push(Event::Gone { key });
        }
        Ok(())
    }

    /// Priorities mean nothing to us, but have to be well formed.
    fn priority(&mut self, head: &FrameHead, payload: &[u8], events: &mut Vec<Event>) -> Done {
        if head.stream == 0 {
            return fatal(Reason::PROTOCOL_ERROR, "a malformed PRIORITY");
        }
        let wrong = match number(payload) {
            Some(on) if payload.len() == 5 && on == head.stream => Reason::PROTOCOL_ERROR,
            Some(_) if payload.len() == 5 => return Ok(()),
            _ => Reason::FRAME_SIZE_ERROR,
        };
        if self.not_idle(head.stream).is_err() {
            // No stream is there that could be reset.
            return fatal(wrong, "a malformed PRIORITY");
        }
        self.stream_error(head.stream, wrong, events)
    }

    fn pinged(&mut self, head: &FrameHead, payload: &[u8]) -> Done {
        if head.stream != 0 {
            return fatal(Reason::PROTOCOL_ERROR, "a PING of a stream");
        }
        if payload.len() != 8 {
            return fatal(Reason::FRAME_SIZE_ERROR, "a malformed PING");
        }
        if !head.has(flag::ACK) {
            self.out.put(&frame::head(8, kind::PING, flag::ACK, 0));
            self.out.put(payload);
        } else if payload == DRAIN_PING && self.drain == Drain::Announced {
            self.drain = Drain::Last;
            self.goaway(self.last, Reason::NO_ERROR, b"");
        }
        Ok(())
    }

    fn window_update(&mut self, head: &FrameHead, payload: &[u8], events: &mut Vec<Event>) -> Done {
        let Some(by) = number(payload).filter(|_| payload.len() == 4) else {
            return fatal(Reason::FRAME_SIZE_ERROR, "a malformed WINDOW_UPDATE");
        };
        if head.stream == 0 {
            if by == 0 {
                return fatal(Reason::PROTOCOL_ERROR, "a window update of nothing");
            }
            self.send_window += i64::from(by);
            if self.send_window > MAX_WINDOW {
                return fatal(Reason::FLOW_CONTROL_ERROR, "the connection's window is too large");
            }
            return Ok(());
        }
        let Some(key) = self.streams.find(head.stream) else {
            return self.not_idle(head.stream);
        };
        if by == 0 {
            return self.stream_error(head.stream, Reason::PROTOCOL_ERROR, events);
        }
        self.widen(key, i64::from(by), events)
    }

    /// A stream's window moves, either way.
    fn widen(&mut self, key: Key, by: i64, events: &mut Vec<Event>) -> Done {
        let Some(stream) = self.streams.get(key) else { return Ok(()) };
        stream.send_window += by;
        if stream.send_window > MAX_WINDOW {
            return self.stream_error(key.id, Reason::FLOW_CONTROL_ERROR, events);
        }
        self.enter_ring(key);
        Ok(())
    }

    fn settings(&mut self, head: &FrameHead, payload: &[u8], events: &mut Vec<Event>) -> Done {
        if head.stream != 0 {
            return fatal(Reason::PROTOCOL_ERROR, "SETTINGS of a stream");
        }
        if head.has(flag::ACK) {
            self.acknowledged = true;
            return if payload.is_empty() {
                Ok(())
            } else {
                fatal(Reason::FRAME_SIZE_ERROR, "a malformed SETTINGS")
            };
        }
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return fatal(Reason::FRAME_SIZE_ERROR, "a malformed SETTINGS");
        }
        let mut window = None;
        for [i0, i1, v0, v1, v2, v3] in settings {
            let value = u32::from_be_bytes([*v0, *v1, *v2, *v3]);
            match u16::from_be_bytes([*i0, *i1]) {
                setting::HEADER_TABLE_SIZE => self.encoder.resize(value),
                setting::ENABLE_PUSH if value > 1 => {
                    return fatal(Reason::PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1");
                }
                setting::INITIAL_WINDOW_SIZE if i64::from(value) > MAX_WINDOW => {
                    return fatal(Reason::FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is too large");
                }
                setting::INITIAL_WINDOW_SIZE => window = Some(i64::from(value)),
                setting::MAX_FRAME_SIZE if !(MAX_FRAME as u32..1 << 24).contains(&value) => {
                    return fatal(Reason::PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of bounds");
                }
                // Larger frames would win nothing, and lose fairness between streams.
                _ => {}
            }
        }
        self.out.put(&frame::head(0, kind::SETTINGS, flag::ACK, 0));
        window.map_or(Ok(()), |window| self.move_windows(window, events))
    }

    /// The windows of all streams move by as much as that of new ones.
    fn move_windows(&mut self, window: i64, events: &mut Vec<Event>) -> Done {
        let by = window - std::mem::replace(&mut self.initial_window, window);
        if by == 0 {
            return Ok(());
        }
        let keys: Vec<Key> = self.streams.all().map(|(key, _)| key).collect();
        for key in keys {
            let Some(stream) = self.streams.get(key) else { continue };
            if stream.send_window + by > MAX_WINDOW {
                return fatal(Reason::FLOW_CONTROL_ERROR, "a stream's window is too large");
            }
            self.widen(key, by, events)?;
        }
        Ok(())
    }
}

impl Stream {
    /// Takes note of a DATA frame of `len` bytes, `part` of them data.
    fn take_data(&mut self, len: i64, part: u64, ended: bool) -> Result<(), Reason> {
        if self.recv_ended {
            return Err(Reason::STREAM_CLOSED);
        }
        if len > self.recv_window {
            return Err(Reason::FLOW_CONTROL_ERROR);
        }
        self.recv_window -= len;
        if let Some(left) = &mut self.length {
            *left = left.checked_sub(part).ok_or(Reason::PROTOCOL_ERROR)?;
            if ended && *left > 0 {
                return Err(Reason::PROTOCOL_ERROR);
            }
        }
        self.recv_ended = ended;
        Ok(())
    }
}
