//! The socket as a connection sees it: large reads, the writing of what is gathered, and since when nothing has
//! moved. Not here: what the bytes mean.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::clock::now;
use crate::codec::Output;
use crate::stats::Stats;

/// One read of the socket, at most, unless something of the last is left.
const READ: usize = 32 * 1024;
/// What is left of a read and shorter is copied out of the buffer that it would keep.
const SHORT: usize = 4 * 1024;

thread_local! {
    /// The buffer for reads is one for all connections of a thread: none keeps it
    /// but while it holds a frame that has not come in whole.
    static INPUT: RefCell<BytesMut> = RefCell::default();
}

/// A socket.
pub(crate) struct Wire<IO> {
    io: IO,
    /// What was read and not used.
    input: BytesMut,
    /// It stands in the buffer of the thread.
    lent: bool,
    /// Bytes read and written that the counters have not seen.
    read: u64,
    written: u64,
    /// Since when the socket has taken nothing of what is to be written.
    blocked: Option<Instant>,
    /// Something was written and perhaps not sent; TLS takes what it has no way to send yet.
    unflushed: bool,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Wire<IO> {
    pub(crate) fn new(io: IO) -> Wire<IO> {
        Wire {
            io,
            input: BytesMut::new(),
            lent: false,
            read: 0,
            written: 0,
            blocked: None,
            unflushed: false,
        }
    }

    /// Since when the socket has taken nothing of what is to be written.
    pub(crate) fn blocked_since(&self) -> Option<Instant> {
        self.blocked
    }

    /// Reads once. What came in stands behind what was left of the last; nothing is the end.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.lend_input();
        let polled = {
            let reading = pin!(self.io.read_buf(&mut self.input));
            reading.poll(cx)
        };
        match &polled {
            Poll::Ready(Ok(n)) => self.read += *n as u64,
            _ => self.give_back_input(),
        }
        polled
    }

    /// What was read and not used.
    pub(crate) fn input(&mut self) -> &mut BytesMut {
        &mut self.input
    }

    fn lend_input(&mut self) {
        if self.input.capacity() - self.input.len() >= READ / 2 {
            return;
        }
        if self.input.len() <= SHORT {
            let mut buffer = INPUT.take();
            buffer.clear();
            buffer.reserve(READ);
            buffer.extend_from_slice(&self.input);
            self.input = buffer;
            self.lent = true;
        } else {
            self.input.reserve(READ);
        }
    }

    /// Keeps no more than what is left of a frame.
    pub(crate) fn give_back_input(&mut self) {
        if !self.lent || self.input.len() > SHORT {
            return;
        }
        self.lent = false;
        let rest = if self.input.is_empty() { BytesMut::new() } else { self.input[..].into() };
        INPUT.set(std::mem::replace(&mut self.input, rest));
    }

    /// Writes what is gathered. Ready when all of it is with the kernel.
    pub(crate) fn poll_write(
        &mut self,
        out: &mut Output,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let (n, mut polled) = out.poll_write(&mut self.io, cx);
        self.written += n as u64;
        if n > 0 {
            self.blocked = None;
            self.unflushed = true;
        }
        if self.unflushed && matches!(polled, Poll::Ready(Ok(()))) {
            polled = Pin::new(&mut self.io).poll_flush(cx);
            self.unflushed = polled.is_pending();
        }
        match polled {
            Poll::Pending => drop(self.blocked.get_or_insert_with(now)),
            Poll::Ready(_) => self.blocked = None,
        }
        polled
    }

    /// Adds what has been read and written to the counters.
    pub(crate) fn count(&mut self, stats: &Stats) {
        stats.wire_bytes_in.add(std::mem::take(&mut self.read));
        stats.wire_bytes_out.add(std::mem::take(&mut self.written));
    }

    /// Closes our side, and drops what the client still sends until it closes
    /// too, so that the last bytes arrive. To be run under a timeout.
    pub(crate) async fn linger(&mut self) -> io::Result<()> {
        self.io.shutdown().await?;
        loop {
            self.input.clear();
            if poll_fn(|cx| self.poll_read(cx)).await? == 0 {
                return Ok(());
            }
        }
    }
}
