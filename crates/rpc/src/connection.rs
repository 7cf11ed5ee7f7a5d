//! One connection: its loop takes all calls that have come in, hands them to
//! the handler, and writes all answers that have come up, in turns. Not here:
//! frames (`codec`), what a call's headers mean (`http2`), what a flood is
//! (`flood`).

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::call::{Handler, Peer};
use crate::clock::{Clock, Due, now};
use crate::codec::Event;
use crate::codec::frame::{FrameHead, HEAD, ProtocolError, Reason};
use crate::deadline::Open as Overdue;
use crate::flood::{Judge, Verdict};
use crate::intake::Intake;
use crate::limits::Limits;
use crate::shared::{Open, Shared};
use crate::sniff::PREFACE;
use crate::wire::Wire;

/// How long a client that was cut off may take to read why.
const LINGER: Duration = Duration::from_secs(1);
/// So much is gathered before it is written without waiting for more. Each write ends in a packet that is not full,
/// and wakes a client that has read all before it, which costs more than the copy of many packets: of large answers
/// there should be few writes. More than this would not stay in the processor's caches until the kernel copies it.
const GATHER: usize = 512 * 1024;
/// So much is written in a turn before others are due.
const TURN: usize = 1024 * 1024;

thread_local! {
    /// Room for what came in, one for all connections of a thread.
    static EVENTS: RefCell<Vec<Event>> = const { RefCell::new(Vec::new()) };
}

/// Why a connection ended.
#[derive(Debug)]
pub enum Closed {
    /// The client closed it, or it was drained.
    Done,
    /// No HTTP/2 preface and settings in time, or none at all.
    Handshake(Option<ProtocolError>),
    /// The client broke the rules of HTTP/2.
    Error(ProtocolError),
    /// The socket failed.
    Io(io::Error),
    /// Pings in haste.
    TooManyPings,
    /// Resets or control frames in masses.
    Flood,
    /// The client did not read what we wrote in the time allowed.
    WriteStall,
    /// Our ping was not answered in time.
    KeepaliveTimeout,
    /// Calls were still open when the grace of the drain was over.
    DrainTimeout,
}

/// Serves one connection until it ends. `drain` is a future that completes
/// when the server wants to stop: the client is told to go elsewhere, calls
/// may end within the grace, and then the connection is closed.
///
/// To be run where `spawn_local` works: on a `LocalRuntime`, or inside a `LocalSet`.
pub async fn serve_connection<IO, H>(
    io: IO,
    handler: Rc<H>,
    peer: Peer,
    limits: Rc<Limits>,
    drain: impl Future<Output = ()> + 'static,
) -> Closed
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
    H: Handler,
{
    let shared = Rc::new(Shared::new(limits.clone(), peer, handler.clone()));
    let mut wire = Wire::new(io);
    if let Err(closed) = handshake(&mut wire, &shared).await {
        return closed;
    }
    let _open = Open::new(shared.clone());
    let mut connection = Connection {
        wire,
        intake: Intake::new(handler.clone(), shared.clone()),
        handler,
        shared,
        judge: Judge::new(&limits, now()),
        paused: false,
        turn_read: 0,
        clock: Clock::new(),
        drain: Some(Box::pin(drain)),
        drain_ends: None,
    };
    let closed = poll_fn(|cx| connection.poll(cx)).await;
    connection.wire.count(connection.handler.stats());
    if matches!(closed, Closed::TooManyPings | Closed::Flood | Closed::Error(_)) {
        let _ = tokio::time::timeout(LINGER, connection.linger()).await;
    }
    closed
}

/// Our settings out, the client's preface and the whole of its settings in.
async fn handshake<IO>(wire: &mut Wire<IO>, shared: &Shared) -> Result<(), Closed>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let greeting = poll_fn(|cx| {
        if let Poll::Ready(Err(e)) = shared.quietly(|mux| wire.poll_write(&mut mux.out, cx)) {
            return Poll::Ready(Err(Closed::Io(e)));
        }
        loop {
            match has_greeted(wire.input()) {
                Some(true) => return Poll::Ready(Ok(())),
                Some(false) => return Poll::Ready(Err(Closed::Handshake(Some(NO_PREFACE)))),
                None => {}
            }
            match wire.poll_read(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Closed::Handshake(Some(NO_PREFACE)))),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(e)) => return Poll::Ready(Err(Closed::Io(e))),
            }
        }
    });
    let greeted = tokio::time::timeout(shared.limits.handshake_timeout, greeting).await;
    greeted.unwrap_or(Err(Closed::Handshake(None)))?;
    let _ = wire.input().split_to(PREFACE.len());
    Ok(())
}

const NO_PREFACE: ProtocolError =
    ProtocolError { reason: Reason::PROTOCOL_ERROR, text: "no preface of HTTP/2" };

/// Whether the preface and a frame behind it stand there; `None` while that is open.
fn has_greeted(input: &[u8]) -> Option<bool> {
    let n = input.len().min(PREFACE.len());
    if input[..n] != PREFACE[..n] {
        return Some(false);
    }
    let frame = input.get(PREFACE.len()..)?;
    let head = FrameHead::parse(frame)?;
    // One that is too large is refused as any frame is.
    (head.len > crate::codec::frame::MAX_FRAME || frame.len() >= HEAD + head.len).then_some(true)
}

struct Connection<IO, H> {
    wire: Wire<IO>,
    handler: Rc<H>,
    shared: Rc<Shared>,
    intake: Intake<H>,
    judge: Judge,
    /// Nothing is read: the client does not take our answers.
    paused: bool,
    /// Bytes read in this turn.
    turn_read: usize,
    clock: Clock,
    drain: Option<Pin<Box<dyn Future<Output = ()>>>>,
    drain_ends: Option<Instant>,
}

impl<IO, H> Connection<IO, H>
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
    H: Handler,
{
    /// One turn: read and hand over, answer, write, judge.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        self.shared.run(cx.waker());
        self.poll_drain(cx);
        let over = self.read(cx);
        self.intake.end_turn();
        self.shared.sleep();
        let written = match self.write(cx) {
            Ok(written) => written,
            Err(e) => return Poll::Ready(Closed::Io(e)),
        };
        self.wire.count(self.handler.stats());
        if let Some(closed) = over {
            return Poll::Ready(closed);
        }
        if written && self.shared.quietly(|mux| mux.is_drained()) {
            return Poll::Ready(Closed::Done);
        }
        self.balance(written, cx);
        self.judge(cx)
    }

    /// Takes what has come in; says when the connection is over.
    fn read(&mut self, cx: &mut Context<'_>) -> Option<Closed> {
        self.turn_read = 0;
        // The handshake may have read more than its part.
        let mut over = self.take_in();
        while over.is_none() && !self.paused {
            if self.turn_read >= self.shared.limits.read_per_turn {
                cx.waker().wake_by_ref();
                break;
            }
            match self.wire.poll_read(cx) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => over = Some(Closed::Done),
                Poll::Ready(Err(e)) => over = Some(Closed::Io(e)),
                Poll::Ready(Ok(n)) => {
                    self.turn_read += n;
                    over = self.take_in();
                }
            }
        }
        over
    }

    fn take_in(&mut self) -> Option<Closed> {
        if self.wire.input().len() < HEAD {
            return None;
        }
        let mut events = EVENTS.take();
        let received = self.shared.mux(|mux| mux.receive(self.wire.input(), &mut events));
        self.intake.take(&mut events);
        EVENTS.set(events);
        let error = received.err()?;
        self.shared.mux(|mux| {
            let last = mux.last_stream();
            mux.goaway(last, error.reason, error.text.as_bytes());
        });
        Some(Closed::Error(error))
    }

    /// Writes what there is; says whether the socket took it all.
    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let wire = &mut self.wire;
        self.shared.quietly(|mux| {
            let mut most = TURN;
            loop {
                mux.pump(GATHER);
                most = most.saturating_sub(mux.out.pending());
                match wire.poll_write(&mut mux.out, cx) {
                    Poll::Ready(Err(e)) => return Err(e),
                    Poll::Pending => {
                        // What is made now leaves as soon as there is room.
                        mux.pump(mux.send_buffer());
                        return Ok(false);
                    }
                    Poll::Ready(Ok(())) if !mux.wants_to_send() => return Ok(true),
                    Poll::Ready(Ok(())) if most == 0 => {
                        cx.waker().wake_by_ref();
                        return Ok(true);
                    }
                    Poll::Ready(Ok(())) => {}
                }
            }
        })
    }

    /// While the socket does not keep up and there is much to write, nothing
    /// more is read.
    fn balance(&mut self, written: bool, cx: &mut Context<'_>) {
        let full = self.shared.quietly(|mux| mux.out.pending() >= mux.send_buffer());
        let was_paused = std::mem::replace(&mut self.paused, !written && full);
        if was_paused && !self.paused {
            // Nobody has asked the socket meanwhile, so that it would wake nobody.
            cx.waker().wake_by_ref();
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) {
        if let Some(drain) = &mut self.drain
            && drain.as_mut().poll(cx).is_ready()
        {
            self.drain = None;
            self.drain_ends = Some(now() + self.shared.limits.drain_grace);
            self.shared.mux(|mux| mux.drain());
        }
    }

    /// Holds the client to the limits, and looks at the clock.
    fn judge(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        let now = now();
        if self.turn_read > 0 {
            self.clock.heard(now);
        }
        let calls = self.shared.calls();
        let judge = &mut self.judge;
        let verdict = self.shared.quietly(|mux| {
            let counts = std::mem::take(&mut mux.counts);
            judge.judge(&counts, calls, &mut mux.sent, now)
        });
        let (closed, why) = match verdict {
            Verdict::Fine => return self.look_at_clock(now, cx),
            Verdict::TooManyPings => (Closed::TooManyPings, &b"too_many_pings"[..]),
            Verdict::Flood => (Closed::Flood, &b"too_many_control_frames"[..]),
        };
        self.shared.stats().connections_cut.add(1);
        self.shared.mux(|mux| {
            let last = mux.last_stream();
            mux.goaway(last, Reason::ENHANCE_YOUR_CALM, why);
        });
        Poll::Ready(closed)
    }

    fn look_at_clock(&mut self, now: Instant, cx: &mut Context<'_>) -> Poll<Closed> {
        let over = self.shared.deadlines.borrow_mut().over(now);
        for key in over.into_iter().filter_map(Overdue::end) {
            self.intake.gone(key);
        }
        let due = Due {
            blocked: self.wire.blocked_since(),
            drain_ends: self.drain_ends,
            deadline: self.shared.deadlines.borrow().next(),
        };
        let closed = self.clock.poll(cx, now, &self.shared, &due);
        if let Poll::Ready(closed) = &closed
            && !matches!(closed, Closed::DrainTimeout)
        {
            self.shared.stats().connections_cut.add(1);
        }
        closed
    }

    /// Says goodbye so that the last bytes arrive. To be run under a timeout.
    async fn linger(&mut self) -> io::Result<()> {
        let (wire, shared) = (&mut self.wire, &self.shared);
        poll_fn(|cx| shared.quietly(|mux| wire.poll_write(&mut mux.out, cx))).await?;
        self.wire.linger().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_is_a_preface_and_a_frame() {
        let whole = [&PREFACE[..], &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1]].concat();
        for n in 0..whole.len() {
            assert_eq!(has_greeted(&whole[..n]), None, "{n}");
        }
        assert_eq!(has_greeted(&whole), Some(true));
        assert_eq!(has_greeted(b"PRI * HTTP/1"), Some(false));
    }
}
