//! The socket as `h2` sees it: reads are large and counted, writes are gathered
//! and leave when the connection's turn ends, not at each flush of `h2`. Not
//! here: what the bytes mean, beyond the counting of frames.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::clock::now;
use crate::flood::{Counts, FrameMeter};
use crate::stats::Stats;

/// One read of the socket, at most.
const READ: usize = 32 * 1024;
/// So much gathered output is written without waiting for the turn's end.
const GATHER: usize = 64 * 1024;

thread_local! {
    /// Read and write buffers change hands between connections: an idle one
    /// keeps none.
    static OUTPUT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static INPUT: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}
const POOLED: usize = 64;

fn lend_output() -> Vec<u8> {
    OUTPUT.with_borrow_mut(Vec::pop).unwrap_or_default()
}

fn give_back_output(buffer: &mut Vec<u8>) {
    let mut buffer = std::mem::take(buffer);
    if buffer.capacity() > 0 && buffer.capacity() <= 2 * GATHER {
        buffer.clear();
        OUTPUT.with_borrow_mut(|pool| {
            if pool.len() < POOLED {
                pool.push(buffer);
            }
        });
    }
}

fn lend_input() -> Box<[u8]> {
    INPUT.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; READ].into_boxed_slice())
}

fn give_back_input(buffer: &mut Option<Box<[u8]>>) {
    if let Some(buffer) = buffer.take() {
        INPUT.with_borrow_mut(|pool| {
            if pool.len() < POOLED {
                pool.push(buffer);
            }
        });
    }
}

/// A handle to the socket; `h2` holds one and the connection's loop another.
pub(crate) struct Wire<IO>(Rc<RefCell<State<IO>>>);

impl<IO> Clone for Wire<IO> {
    fn clone(&self) -> Self {
        Wire(self.0.clone())
    }
}

struct State<IO> {
    io: IO,
    /// Held only while something in it is unread.
    input: Option<Box<[u8]>>,
    input_at: usize,
    input_len: usize,
    output: Vec<u8>,
    output_at: usize,
    meter: FrameMeter,
    /// Bytes read since the turn began, and how many may be.
    turn_read: usize,
    turn_limit: usize,
    /// Total read and written, and how much of it the counters have seen.
    read: u64,
    written: u64,
    /// While set, nothing is read: the client does not take our answers.
    paused: bool,
    /// Since when the socket has taken nothing.
    blocked: Option<Instant>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Wire<IO> {
    pub(crate) fn new(io: IO, turn_limit: usize) -> Wire<IO> {
        Wire(Rc::new(RefCell::new(State {
            io,
            input: None,
            input_at: 0,
            input_len: 0,
            output: Vec::new(),
            output_at: 0,
            meter: FrameMeter::new(),
            turn_read: 0,
            turn_limit,
            read: 0,
            written: 0,
            paused: false,
            blocked: None,
        })))
    }

    /// A new turn: it may read its measure again.
    pub(crate) fn begin_turn(&self) {
        self.0.borrow_mut().turn_read = 0;
    }

    /// Whether anything was read since the turn began.
    pub(crate) fn has_read(&self) -> bool {
        self.0.borrow().turn_read > 0
    }

    pub(crate) fn take_counts(&self) -> Counts {
        self.0.borrow_mut().meter.take()
    }

    /// Stops or resumes reading; says whether it was stopped and goes on now.
    pub(crate) fn pause(&self, paused: bool) -> bool {
        std::mem::replace(&mut self.0.borrow_mut().paused, paused) && !paused
    }

    /// Since when the socket has taken nothing of what is to be written.
    pub(crate) fn blocked_since(&self) -> Option<Instant> {
        self.0.borrow().blocked
    }

    /// Adds bytes of our own behind what `h2` has written.
    pub(crate) fn append(&self, bytes: &[u8]) {
        self.0.borrow_mut().append(bytes);
    }

    /// Writes what is gathered. Ready when all of it is with the kernel.
    pub(crate) fn flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.0.borrow_mut();
        ready!(state.write_out(cx))?;
        // TLS takes what it has no way to send yet.
        let flushed = Pin::new(&mut state.io).poll_flush(cx);
        if flushed.is_pending() {
            state.blocked.get_or_insert_with(now);
        } else {
            state.blocked = None;
        }
        flushed
    }

    /// Adds what has been read and written to the counters.
    pub(crate) fn count(&self, stats: &Stats) {
        let mut state = self.0.borrow_mut();
        stats.wire_bytes_in.add(std::mem::take(&mut state.read));
        stats.wire_bytes_out.add(std::mem::take(&mut state.written));
    }

    /// Says goodbye so that the last bytes arrive: everything is written, our
    /// side is closed, and what the client still sends is read and dropped
    /// until it closes too. To be run under a timeout.
    pub(crate) async fn linger(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.flush(cx)).await?;
        std::future::poll_fn(|cx| Pin::new(&mut self.0.borrow_mut().io).poll_shutdown(cx)).await?;
        let mut sink = vec![0; READ];
        loop {
            let mut buf = ReadBuf::new(&mut sink);
            let read = |cx: &mut Context<'_>| {
                Pin::new(&mut self.0.borrow_mut().io).poll_read(cx, &mut buf)
            };
            let mut read = read;
            std::future::poll_fn(|cx| read(cx)).await?;
            if buf.filled().is_empty() {
                return Ok(());
            }
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> State<IO> {
    fn append(&mut self, bytes: &[u8]) {
        if self.output.capacity() == 0 {
            self.output = lend_output();
        }
        self.output.extend_from_slice(bytes);
    }

    fn write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.output_at < self.output.len() {
            let rest = &self.output[self.output_at..];
            match Pin::new(&mut self.io).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => {
                    self.output_at += n;
                    self.written += n as u64;
                    self.blocked = None;
                }
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => {
                    self.blocked.get_or_insert_with(now);
                    return Poll::Pending;
                }
            }
        }
        self.output_at = 0;
        give_back_output(&mut self.output);
        Poll::Ready(Ok(()))
    }

    /// Fills the input buffer from the socket; nothing read means the end.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let input = self.input.get_or_insert_with(lend_input);
        let mut buf = ReadBuf::new(input);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf))?;
        let read = buf.filled();
        self.meter.feed(read);
        self.input_at = 0;
        self.input_len = read.len();
        self.turn_read += read.len();
        self.read += read.len() as u64;
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let state = &mut *self.0.borrow_mut();
        if state.input_at == state.input_len {
            if state.paused {
                return Poll::Pending;
            }
            if state.turn_read >= state.turn_limit {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if state.fill(cx)?.is_pending() {
                give_back_input(&mut state.input);
                return Poll::Pending;
            }
        }
        let Some(input) = &state.input else { return Poll::Ready(Ok(())) };
        let left = &input[state.input_at..state.input_len];
        let n = left.len().min(buf.remaining());
        buf.put_slice(&left[..n]);
        state.input_at += n;
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let state = &mut *self.0.borrow_mut();
        if state.output.len() - state.output_at >= GATHER {
            ready!(state.write_out(cx))?;
        }
        state.append(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    /// What is gathered leaves at the turn's end.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.flush(cx))?;
        Pin::new(&mut self.0.borrow_mut().io).poll_shutdown(cx)
    }
}

impl<IO> Drop for State<IO> {
    fn drop(&mut self) {
        give_back_input(&mut self.input);
        give_back_output(&mut self.output);
    }
}
