//! What is to be written: small things copied together, large ones as they are, in their order.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

/// Pieces of this size are passed on, smaller ones copied.
pub(crate) const LARGE: usize = 4 * 1024;
/// Pieces of one write, at most: those of what a connection gathers, in frames of 16 KiB with a head each.
const SLICES: usize = 96;

thread_local! {
    /// Buffers change hands between connections: an idle one keeps none.
    static POOL: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}
const POOLED: usize = 16;
/// Room that a buffer begins with, and beyond which it is not kept.
const ROOM: usize = 16 * 1024;
const MAX_ROOM: usize = 128 * 1024;

/// Bytes on their way to the socket.
#[derive(Default)]
pub(crate) struct Output {
    /// What comes first.
    pieces: VecDeque<Bytes>,
    /// And then this, but for what is written of it.
    tail: BytesMut,
    written: usize,
    pending: usize,
}

impl Output {
    /// Bytes that the socket has not taken.
    pub(crate) fn pending(&self) -> usize {
        self.pending
    }

    /// Adds bytes, copied.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        if self.tail.capacity() == 0 {
            self.tail = lend();
        }
        self.pending += bytes.len();
        self.tail.extend_from_slice(bytes);
    }

    /// Adds a piece, without copying it if it is large.
    pub(crate) fn put_piece(&mut self, piece: Bytes) {
        if piece.len() < LARGE {
            return self.put(&piece);
        }
        self.seal();
        self.pending += piece.len();
        self.pieces.push_back(piece);
    }

    fn seal(&mut self) {
        let mut sealed = self.tail.split();
        sealed.advance(std::mem::take(&mut self.written));
        if !sealed.is_empty() {
            self.pieces.push_back(sealed.freeze());
        }
    }

    /// Writes until all is written or the socket has no room; says how much it took.
    pub(crate) fn poll_write<IO>(
        &mut self,
        io: &mut IO,
        cx: &mut Context<'_>,
    ) -> (usize, Poll<io::Result<()>>)
    where
        IO: AsyncWrite + Unpin,
    {
        let before = self.pending;
        let polled = loop {
            if self.pending == 0 {
                self.give_back();
                break Poll::Ready(Ok(()));
            }
            match self.poll_some(io, cx) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => self.advance(n),
                Poll::Ready(Err(e)) => break Poll::Ready(Err(e)),
                Poll::Pending => break Poll::Pending,
            }
        };
        (before - self.pending, polled)
    }

    fn poll_some<IO>(&self, io: &mut IO, cx: &mut Context<'_>) -> Poll<io::Result<usize>>
    where
        IO: AsyncWrite + Unpin,
    {
        let tail = &self.tail[self.written..];
        let Some(first) = self.pieces.front() else { return Pin::new(io).poll_write(cx, tail) };
        if !io.is_write_vectored() {
            return Pin::new(io).poll_write(cx, first);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut used = 0;
        let all = self.pieces.iter().map(|piece| &piece[..]).chain([tail]);
        for (slice, piece) in slices.iter_mut().zip(all) {
            *slice = IoSlice::new(piece);
            used += 1;
        }
        Poll::Ready(ready!(Pin::new(io).poll_write_vectored(cx, &slices[..used])))
    }

    fn advance(&mut self, mut n: usize) {
        self.pending -= n;
        while let Some(first) = self.pieces.front_mut() {
            let step = n.min(first.len());
            first.advance(step);
            n -= step;
            if !first.is_empty() {
                return;
            }
            self.pieces.pop_front();
        }
        self.written += n;
    }

    /// All is written: the buffer goes to who needs one next.
    fn give_back(&mut self) {
        self.written = 0;
        if self.tail.capacity() == 0 {
            return;
        }
        let mut tail = std::mem::take(&mut self.tail);
        tail.clear();
        if tail.capacity() >= ROOM && tail.capacity() <= MAX_ROOM {
            POOL.with_borrow_mut(|pool| {
                if pool.len() < POOLED {
                    pool.push(tail);
                }
            });
        }
    }

    /// All of it in one, for tests.
    #[cfg(test)]
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.seal();
        self.pending = 0;
        let pieces = std::mem::take(&mut self.pieces);
        pieces.into_iter().flatten().collect()
    }
}

fn lend() -> BytesMut {
    POOL.with_borrow_mut(Vec::pop).unwrap_or_else(|| BytesMut::with_capacity(ROOM))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket that takes so many bytes and then none.
    struct Narrow {
        room: usize,
        step: usize,
        got: Vec<u8>,
        vectored: bool,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let n = bytes.len().min(self.room).min(self.step);
            if n == 0 {
                return Poll::Pending;
            }
            self.room -= n;
            self.got.extend_from_slice(&bytes[..n]);
            Poll::Ready(Ok(n))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            let n = all.len().min(self.room).min(self.step);
            if n == 0 {
                return Poll::Pending;
            }
            self.room -= n;
            self.got.extend_from_slice(&all[..n]);
            Poll::Ready(Ok(n))
        }

        fn is_write_vectored(&self) -> bool {
            self.vectored
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn order_is_kept_whatever_the_steps() {
        for (step, vectored) in [(1, false), (7, true), (5_000, true), (usize::MAX, false)] {
            let mut output = Output::default();
            let mut io = Narrow { room: 0, step, got: Vec::new(), vectored };
            let mut want = Vec::new();
            let mut cx = Context::from_waker(std::task::Waker::noop());
            for n in 0..60u8 {
                let piece = vec![n; if n % 3 == 0 { LARGE + usize::from(n) } else { 10 }];
                want.extend_from_slice(&piece);
                if n % 2 == 0 {
                    output.put_piece(piece.into());
                } else {
                    output.put(&piece);
                }
                io.room = 1_000;
                let (_, polled) = output.poll_write(&mut io, &mut cx);
                assert_eq!(polled.is_pending(), output.pending() > 0);
            }
            io.room = usize::MAX;
            assert!(matches!(output.poll_write(&mut io, &mut cx), (_, Poll::Ready(Ok(())))));
            assert!(io.got == want);
            assert_eq!(output.pending(), 0);
        }
    }
}
