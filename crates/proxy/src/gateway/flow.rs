//! One direction of a connection: bytes from one socket to another. Few bytes are copied through a buffer that
//! all connections of a thread share, many go through a pipe and never leave the kernel. What the receiver does
//! not take yet is held, one buffer or one pipe of it, and nothing more is read until it is gone. Not here: the
//! two directions together (`relay`).

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::pipe::{SpliceFlags, splice};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::pipes::{AT_ONCE, Pipe, Pipes};

/// What a thread lends to all its connections.
#[derive(Default)]
pub(super) struct Lent {
    /// Pipes that nobody uses.
    pub(super) pipes: Pipes,
    buffer: RefCell<Vec<u8>>,
}

/// The buffer's size. Who fills it has much to send.
const BUFFER: usize = 16 * 1024;
/// A flow goes on for so many rounds before others have their turn.
const ROUNDS: u32 = 16;
/// What moves less than this at a time is copied: moving pages costs more.
const WORTH_A_PIPE: usize = 4 * 1024;

/// One direction. It ends when its sender has, or when its receiver does not take any more.
#[derive(Default)]
pub(super) struct Flow {
    held: Held,
    /// Whether the sender has had much to send at the last look.
    much: bool,
    ended: bool,
    /// Bytes that were taken in, for whoever wants to see whether there is any traffic.
    pub(super) moved: u64,
}

/// What was read and not yet written.
#[derive(Default)]
enum Held {
    #[default]
    Nothing,
    Bytes(Box<[u8]>, usize),
    Pipe(Pipe, usize),
}

/// How a look at a flow went.
enum Step {
    More,
    Ended,
}

impl Flow {
    /// Whether bytes wait for the receiver.
    pub(super) fn holds(&self) -> bool {
        !matches!(self.held, Held::Nothing)
    }

    /// Moves what can be moved. Ready when nothing more will ever come; an error is one of the sender's, after
    /// which the whole connection is over.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TcpStream,
        to: &mut TcpStream,
        lent: &Lent,
    ) -> Poll<io::Result<()>> {
        for _ in 0..ROUNDS {
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_write(cx, to, lent)).is_err() {
                // The receiver takes no more; what it has said may still be on its way in the other direction.
                self.ended = true;
                continue;
            }
            match ready!(self.poll_read(cx, from, to, lent))? {
                Step::More => {}
                Step::Ended => {
                    self.ended = true;
                    // One that is gone needs no word that there is no more.
                    let _ = rustix::net::shutdown(&*to, rustix::net::Shutdown::Write);
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what is held.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut TcpStream,
        lent: &Lent,
    ) -> Poll<io::Result<()>> {
        loop {
            match &mut self.held {
                Held::Nothing => return Poll::Ready(Ok(())),
                Held::Bytes(bytes, at) => {
                    let written = ready!(Pin::new(&mut *to).poll_write(cx, &bytes[*at..]))?;
                    *at += written;
                    if *at == bytes.len() {
                        self.held = Held::Nothing;
                    }
                }
                Held::Pipe(pipe, left) => {
                    ready!(to.poll_write_ready(cx))?;
                    let moved = to.try_io(Interest::WRITABLE, || {
                        Ok(splice(&pipe.out, None, &*to, None, *left, flags())?)
                    });
                    match moved {
                        Ok(moved) => *left -= moved,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                        Err(error) => return Poll::Ready(Err(error)),
                    }
                    if *left == 0
                        && let Held::Pipe(pipe, _) = std::mem::take(&mut self.held)
                    {
                        lent.pipes.give(pipe);
                    }
                }
            }
        }
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TcpStream,
        to: &mut TcpStream,
        lent: &Lent,
    ) -> Poll<io::Result<Step>> {
        if self.much
            && let Some(pipe) = lent.pipes.take()
        {
            return self.poll_splice(cx, from, pipe, lent);
        }
        self.poll_copy(cx, from, to, lent)
    }

    /// From the sender into a pipe, without a copy.
    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        pipe: Pipe,
        lent: &Lent,
    ) -> Poll<io::Result<Step>> {
        loop {
            if let Poll::Ready(Err(error)) = from.poll_read_ready(cx) {
                lent.pipes.give(pipe);
                return Poll::Ready(Err(error));
            }
            let moved = from.try_io(Interest::READABLE, || {
                Ok(splice(from, None, &pipe.into, None, AT_ONCE, flags())?)
            });
            match moved {
                Ok(0) => {
                    lent.pipes.give(pipe);
                    return Poll::Ready(Ok(Step::Ended));
                }
                Ok(moved) => {
                    self.moved += moved as u64;
                    self.much = moved >= WORTH_A_PIPE;
                    self.held = Held::Pipe(pipe, moved);
                    return Poll::Ready(Ok(Step::More));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if from.poll_read_ready(cx).is_pending() {
                        lent.pipes.give(pipe);
                        return Poll::Pending;
                    }
                }
                Err(error) => {
                    lent.pipes.give(pipe);
                    return Poll::Ready(Err(error));
                }
            }
        }
    }

    /// From the sender into the thread's buffer, and on from there at once.
    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TcpStream,
        to: &mut TcpStream,
        lent: &Lent,
    ) -> Poll<io::Result<Step>> {
        let mut buffer = lent.buffer.borrow_mut();
        buffer.resize(BUFFER, 0);
        let mut read = ReadBuf::new(&mut buffer);
        ready!(Pin::new(from).poll_read(cx, &mut read))?;
        let bytes = read.filled();
        if bytes.is_empty() {
            return Poll::Ready(Ok(Step::Ended));
        }
        self.moved += bytes.len() as u64;
        self.much = bytes.len() == BUFFER;
        let written = match Pin::new(to).poll_write(cx, bytes) {
            Poll::Ready(Ok(written)) => written,
            // An error comes again when the rest is written.
            Poll::Ready(Err(_)) | Poll::Pending => 0,
        };
        if written < bytes.len() {
            self.held = Held::Bytes(bytes[written..].into(), 0);
        }
        Poll::Ready(Ok(Step::More))
    }
}

fn flags() -> SpliceFlags {
    SpliceFlags::NONBLOCK | SpliceFlags::MOVE
}

#[cfg(test)]
mod tests;
