//! gRPC's framing on the way in: chunks of DATA become messages, unpacked where
//! the client packed them. Not here: HTTP/2, flow control.

use std::collections::VecDeque;
use std::io::Read;

use bytes::{Buf, Bytes, BytesMut};
use flate2::bufread::MultiGzDecoder;

use crate::payload::PREFIX;
use crate::status::{Code, Status};

/// Chunks below this are copied if they have to wait.
const OWN: usize = 8 * 1024;

/// Puts messages together from chunks. A message that lies in one chunk is
/// given out as a slice of it, not copied.
pub(crate) struct Deframer {
    max: usize,
    chunks: VecDeque<Bytes>,
    /// What comes after the chunks, copied together.
    tail: BytesMut,
    held: usize,
    /// Messages may be packed with gzip.
    gzip: bool,
}

impl Deframer {
    pub(crate) fn new(max: usize, gzip: bool) -> Deframer {
        Deframer { max, chunks: VecDeque::new(), tail: BytesMut::new(), held: 0, gzip }
    }

    pub(crate) fn push(&mut self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        self.held += chunk.len();
        if !self.tail.is_empty() && chunk.len() < OWN {
            return self.tail.extend_from_slice(&chunk);
        }
        self.close_tail();
        self.chunks.push_back(chunk);
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(std::mem::take(&mut self.tail).freeze());
        }
    }

    /// The rest may be long in coming, and a small chunk keeps the whole buffer
    /// that it was read into: it is copied out.
    fn wait(&mut self) {
        if self.tail.is_empty()
            && let Some(last) = self.chunks.pop_back_if(|last| last.len() < OWN)
        {
            self.tail.extend_from_slice(&last);
        }
    }

    /// Bytes held that are not yet a message.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// The next whole message, `None` while it is not there yet. The length is
    /// judged as soon as it is known, before the bytes are waited for.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(head) = self.head() else {
            self.wait();
            return Ok(None);
        };
        let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if len > self.max {
            return Err(Status::new(
                Code::ResourceExhausted,
                format!("grpc: received message larger than max ({len} vs. {})", self.max),
            ));
        }
        if self.held < PREFIX + len {
            self.wait();
            return Ok(None);
        }
        self.close_tail();
        self.skip(PREFIX);
        let message = self.take(len);
        match head[0] {
            0 => Ok(Some(message)),
            1 if self.gzip => self.unpack(&message).map(Some),
            1 => Err(Status::internal("grpc: compressed flag set with identity or empty encoding")),
            n => Err(Status::internal(format!("grpc: received unexpected payload format {n}"))),
        }
    }

    /// Never makes more than the largest message, however small its packing.
    fn unpack(&self, packed: &[u8]) -> Result<Bytes, Status> {
        let mut message = Vec::new();
        let mut unpacked = MultiGzDecoder::new(packed).take(self.max as u64 + 1);
        unpacked.read_to_end(&mut message).map_err(|e| {
            Status::internal(format!("grpc: failed to read decompressed data: {e}"))
        })?;
        if message.len() > self.max {
            return Err(Status::new(
                Code::ResourceExhausted,
                format!("grpc: received message after decompression larger than max {}", self.max),
            ));
        }
        Ok(message.into())
    }

    fn head(&self) -> Option<[u8; PREFIX]> {
        if let Some(head) = self.chunks.front().and_then(|first| first.first_chunk()) {
            return Some(*head);
        }
        if self.held < PREFIX {
            return None;
        }
        let mut head = [0; PREFIX];
        let bytes = self.chunks.iter().flat_map(|c| c.iter()).chain(&self.tail);
        for (to, from) in head.iter_mut().zip(bytes) {
            *to = *from;
        }
        Some(head)
    }

    fn skip(&mut self, mut n: usize) {
        self.held -= n;
        while let Some(first) = self.chunks.front_mut() {
            let step = n.min(first.len());
            first.advance(step);
            n -= step;
            if !first.is_empty() {
                return;
            }
            self.chunks.pop_front();
        }
    }

    fn take(&mut self, len: usize) -> Bytes {
        if len == 0 {
            return Bytes::new();
        }
        if let Some(first) = self.chunks.front_mut()
            && first.len() >= len
        {
            let message = first.split_to(len);
            self.skip(0);
            self.held -= len;
            return message;
        }
        let mut message = BytesMut::with_capacity(len);
        for chunk in &self.chunks {
            let step = (len - message.len()).min(chunk.len());
            message.extend_from_slice(&chunk[..step]);
        }
        self.skip(len);
        message.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn framed(messages: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for m in messages {
            out.extend_from_slice(&crate::payload::prefix(m.len()));
            out.extend_from_slice(m);
        }
        out
    }

    #[test]
    fn messages_come_out_whatever_the_chunks() {
        let messages: [&[u8]; 4] = [b"one", b"", b"three is longer", b"4"];
        let wire = framed(&messages);
        for step in 1..wire.len() + 1 {
            let mut d = Deframer::new(100, false);
            let mut got = Vec::new();
            for chunk in wire.chunks(step) {
                d.push(Bytes::copy_from_slice(chunk));
                while let Some(m) = d.next().expect("well framed") {
                    got.push(m);
                }
            }
            assert_eq!(got, messages, "step {step}");
            assert_eq!(d.held(), 0);
        }
    }

    #[test]
    fn what_waits_does_not_keep_the_buffer_that_it_came_in() {
        let mut d = Deframer::new(100_000, false);
        let wire = Bytes::from(framed(&[&[b'x'; 50_000]]));
        let mut read = Vec::new();
        for piece in [0..3, 3..7, 7..20, 20..30_000, 30_000..30_001, 30_001..30_300] {
            let buffer = Bytes::copy_from_slice(&wire);
            d.push(buffer.slice(piece.clone()));
            assert_eq!(d.next(), Ok(None));
            assert_eq!(buffer.is_unique(), piece.len() < OWN, "{piece:?}");
            read.push(buffer);
        }
        d.push(wire.slice(30_300..));
        assert_eq!(d.next(), Ok(Some(Bytes::from(vec![b'x'; 50_000]))));
        assert!(read.iter().all(Bytes::is_unique));
    }

    #[test]
    fn too_large_is_said_before_the_bytes_come() {
        let mut d = Deframer::new(3, false);
        d.push(Bytes::from_static(&[0, 0, 0, 0, 4]));
        let e = d.next().unwrap_err();
        assert_eq!(e.code, Code::ResourceExhausted);
        assert_eq!(e.message, "grpc: received message larger than max (4 vs. 3)");
    }

    fn packed(message: &[u8]) -> Vec<u8> {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(message).expect("pack");
        let mut out = framed(&[&gz.finish().expect("pack")]);
        out[0] = 1;
        out
    }

    #[test]
    fn packed_messages_are_unpacked_up_to_the_limit() {
        let mut d = Deframer::new(100, true);
        d.push(packed(&[b'x'; 100]).into());
        assert_eq!(d.next(), Ok(Some(Bytes::from(vec![b'x'; 100]))));
        d.push(packed(&[0; 2_000]).into());
        let e = d.next().unwrap_err();
        assert_eq!(e.message, "grpc: received message after decompression larger than max 100");
        let mut d = Deframer::new(100, true);
        d.push(Bytes::from_static(&[1, 0, 0, 0, 2, 9, 9]));
        assert_eq!(d.next().unwrap_err().code, Code::Internal);
    }

    #[test]
    fn flags_other_than_zero_are_refused() {
        for (flag, text) in [
            (1, "grpc: compressed flag set with identity or empty encoding"),
            (7, "grpc: received unexpected payload format 7"),
        ] {
            let mut d = Deframer::new(3, false);
            d.push(Bytes::copy_from_slice(&[flag, 0, 0, 0, 1, 9]));
            assert_eq!(d.next().unwrap_err(), Status::internal(text));
        }
    }
}
