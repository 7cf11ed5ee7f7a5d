//! One connection: its loop takes all calls that have come in, hands them to
//! the handler, and writes all answers that have come up, in turns. Not here:
//! what a call's headers mean (`http2`), bodies that come in parts (`body`),
//! large answers (`pump`), what a flood is (`flood`).

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use h2::server::SendResponse;
use h2::{PingPong, Reason, RecvStream};
use http::{Request, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Sleep;

use crate::body::{Call, Partial, Read, TurnWaker};
use crate::call::{CallInfo, Handler, Peer, Route};
use crate::deframe::Deframer;
use crate::flood::{Judge, Verdict};
use crate::http2::{ContentType, check_encoding, check_head, early_abort, unknown_path};
use crate::limits::Limits;
use crate::payload::Chunk;
use crate::plain;
use crate::reply::{Inner, Reply};
use crate::stats::Stats;
use crate::status::Status;
use crate::stream::{MessageStream, StreamTask};
use crate::wire::Wire;

/// How often a turn goes round again for answers given within it.
const ROUNDS: usize = 3;
/// How long a client that was cut off may take to read why.
const LINGER: Duration = Duration::from_secs(1);

/// Why a connection ended.
#[derive(Debug)]
pub enum Closed {
    /// The client closed it, or it was drained.
    Done,
    /// No valid HTTP/2 preface and settings in time.
    Handshake(Option<h2::Error>),
    /// HTTP/2 or the socket failed.
    Error(h2::Error),
    /// The socket failed while we wrote.
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

trait HasStats {
    fn stats(&self) -> &Stats;
}

impl<H: Handler> HasStats for H {
    fn stats(&self) -> &Stats {
        Handler::stats(self)
    }
}

/// What the connection, its replies and its streams know together.
pub(crate) struct Shared {
    pub(crate) limits: Rc<Limits>,
    pub(crate) peer: Rc<Peer>,
    handler: Rc<dyn HasStats>,
    /// Bytes handed to HTTP/2 since the socket last kept up.
    handed: Cell<usize>,
    waiting: RefCell<Vec<Waker>>,
    /// Headers or data went out since the client's last ping.
    has_sent: Cell<bool>,
    calls: Cell<u32>,
    partial: Cell<usize>,
    closed: Cell<bool>,
}

impl Shared {
    pub(crate) fn stats(&self) -> &Stats {
        self.handler.stats()
    }

    /// Headers, or this many bytes of data, were given to HTTP/2.
    pub(crate) fn sent(&self, bytes: usize) {
        self.handed.set(self.handed.get() + bytes);
        self.has_sent.set(true);
    }

    /// Whether the connection's buffer has room for large things.
    pub(crate) fn may_send(&self) -> bool {
        self.handed.get() < self.limits.send_buffer
    }

    /// Wakes this once the buffer has room again.
    pub(crate) fn wait_to_send(&self, waker: &Waker) {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|w| w.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    }

    /// The socket has taken everything.
    fn kept_up(&self) {
        self.handed.set(0);
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        waiting.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    fn call_began(&self) {
        self.calls.set(self.calls.get() + 1);
        self.stats().calls.add(1);
        self.stats().calls_in_flight.add(1);
    }

    pub(crate) fn call_ended(&self) {
        self.calls.set(self.calls.get() - 1);
        self.stats().calls_in_flight.sub(1);
    }

    /// Bytes that one unfinished request held before and holds now.
    pub(crate) fn partial(&self, before: usize, now: usize) {
        self.partial.set(self.partial.get() - before + now);
    }

    pub(crate) fn partial_is_full(&self) -> bool {
        self.partial.get() > self.limits.max_partial_bytes
    }
}

/// Serves one connection until it ends. `drain` is a future that completes
/// when the server wants to stop: the client is told to go elsewhere, calls
/// may end within the grace, and then the connection is closed.
///
/// To be run inside a `LocalSet` on a `current_thread` runtime.
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
    let wire = Wire::new(io, limits.read_per_turn);
    let mut h2 = match handshake(&wire, &limits).await {
        Ok(h2) => h2,
        Err(closed) => return closed,
    };
    let shared = Rc::new(Shared {
        limits: limits.clone(),
        peer: Rc::new(peer),
        handler: handler.clone(),
        handed: Cell::new(0),
        waiting: RefCell::new(Vec::new()),
        has_sent: Cell::new(false),
        calls: Cell::new(0),
        partial: Cell::new(0),
        closed: Cell::new(false),
    });
    let _open = Open::new(shared.clone());
    let turn = TurnWaker::new();
    let pings = h2.ping_pong();
    let mut connection = Connection {
        h2,
        wire: wire.clone(),
        partial: Partial::new(turn.clone()),
        turn,
        handler,
        shared,
        judge: Judge::new(&limits, Instant::now()),
        handed_over: false,
        clock: Clock::new(pings),
        drain: Some(Box::pin(drain)),
        drain_ends: None,
    };
    let closed = poll_fn(|cx| connection.poll(cx)).await;
    connection.wire.count(connection.handler.stats());
    if matches!(closed, Closed::TooManyPings | Closed::Flood) {
        let _ = tokio::time::timeout(LINGER, wire.linger()).await;
    }
    closed
}

async fn handshake<IO>(
    wire: &Wire<IO>,
    limits: &Limits,
) -> Result<h2::server::Connection<Wire<IO>, Chunk>, Closed>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let mut handshake = h2::server::Builder::new()
        .initial_window_size(limits.initial_stream_window)
        .initial_connection_window_size(limits.initial_connection_window)
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_header_list_size(limits.max_header_bytes)
        .max_send_buffer_size(limits.stream_send_buffer)
        .max_pending_accept_reset_streams(limits.max_pending_accept_reset)
        .max_local_error_reset_streams(Some(limits.max_local_error_reset))
        .handshake::<_, Chunk>(wire.clone());
    let done = poll_fn(|cx| {
        let done = Pin::new(&mut handshake).poll(cx);
        match wire.flush(cx) {
            Poll::Ready(Err(e)) => Poll::Ready(Err(Closed::Io(e))),
            _ => done.map_err(|e| Closed::Handshake(Some(e))),
        }
    });
    match tokio::time::timeout(limits.handshake_timeout, done).await {
        Ok(done) => done,
        Err(_) => Err(Closed::Handshake(None)),
    }
}

/// Counts the connection while it is open, and lets go of whoever waits for it
/// when it is not.
struct Open(Rc<Shared>);

impl Open {
    fn new(shared: Rc<Shared>) -> Open {
        shared.stats().connections_opened.add(1);
        shared.stats().connections.add(1);
        Open(shared)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.closed.set(true);
        self.0.kept_up();
        self.0.stats().connections.sub(1);
    }
}

struct Connection<IO, H> {
    h2: h2::server::Connection<Wire<IO>, Chunk>,
    wire: Wire<IO>,
    handler: Rc<H>,
    shared: Rc<Shared>,
    partial: Partial,
    turn: Arc<TurnWaker>,
    judge: Judge,
    /// Unary calls were given to the handler and `batch_end` not yet said.
    handed_over: bool,
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
        self.turn.enter(cx.waker());
        let waker = Waker::from(self.turn.clone());
        let polled = self.poll_turn(&mut Context::from_waker(&waker));
        self.turn.leave();
        polled
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        self.wire.begin_turn();
        self.poll_drain(cx);
        let mut over = None;
        for _ in 0..ROUNDS {
            self.turn.take_again();
            over = self.round(cx);
            if over.is_some() || !self.turn.take_again() {
                break;
            }
        }
        let written = match self.wire.flush(cx) {
            Poll::Ready(Err(e)) => return Poll::Ready(Closed::Io(e)),
            Poll::Ready(Ok(())) => true,
            Poll::Pending => false,
        };
        self.wire.count(self.handler.stats());
        if let Some(closed) = over {
            return Poll::Ready(closed);
        }
        self.balance(written);
        self.judge(cx)
    }

    /// Takes what has come in; says when the connection is over.
    fn round(&mut self, cx: &mut Context<'_>) -> Option<Closed> {
        let over = loop {
            match self.h2.poll_accept(cx) {
                Poll::Pending => break None,
                Poll::Ready(None) => break Some(Closed::Done),
                Poll::Ready(Some(Err(e))) => break Some(Closed::Error(e)),
                Poll::Ready(Some(Ok((request, respond)))) => self.accept(request, respond, cx),
            }
        };
        while let Some((call, read)) = self.partial.next_through(&self.shared) {
            self.settle(call, read);
        }
        if std::mem::take(&mut self.handed_over) {
            self.handler.batch_end();
        }
        over
    }

    /// While the socket keeps up, senders may go on; while it does not and
    /// there is much to write, nothing more is read.
    fn balance(&mut self, written: bool) {
        if written {
            self.shared.kept_up();
        }
        self.wire.pause(!written && !self.shared.may_send());
    }

    fn accept(
        &mut self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Chunk>,
        cx: &mut Context<'_>,
    ) {
        if self.shared.calls.get() >= self.shared.limits.max_concurrent_streams {
            return respond.send_reset(Reason::REFUSED_STREAM);
        }
        let Some(content) = ContentType::of(request.headers()) else {
            let task = plain::run(self.handler.clone(), self.shared.clone(), request, respond);
            tokio::task::spawn_local(task);
            return;
        };
        self.shared.call_began();
        let inner = Inner { respond, shared: self.shared.clone(), content };
        self.begin(request, inner, cx);
    }

    fn begin(&mut self, request: Request<RecvStream>, mut inner: Inner, cx: &mut Context<'_>) {
        let (head, body) = request.into_parts();
        let deadline = match check_head(&head.method, &head.headers) {
            Ok(deadline) => deadline,
            Err((http, status)) => return abort(inner, http, &status),
        };
        let path = head.uri.path();
        let route = match self.handler.route(path) {
            Route::UnknownMethod => return inner.refuse(&unknown_path(path, true)),
            Route::UnknownService => return inner.refuse(&unknown_path(path, false)),
            route => route,
        };
        if let Err(status) = check_encoding(&head.headers) {
            return inner.refuse(&status);
        }
        let info = CallInfo {
            headers: head.headers,
            authority: head.uri.into_parts().authority,
            peer: self.shared.peer.clone(),
            deadline,
        };
        match route {
            Route::Unary(method) => {
                let deframer = Deframer::new(self.shared.limits.max_recv_message);
                let mut call = Call { method, info, inner, body, deframer };
                match call.read(cx, &self.shared) {
                    Read::Wait => self.partial.insert(call),
                    read => self.settle(call, read),
                }
            }
            Route::Stream(method) => self.begin_stream(method, info, body, inner),
            Route::UnknownMethod | Route::UnknownService => {}
        }
    }

    /// A unary call whose body is through, one way or the other.
    fn settle(&mut self, call: Call, read: Read) {
        let Call { method, info, mut inner, .. } = call;
        match read {
            Read::Message(message) => {
                let stats = self.shared.stats();
                stats.messages_in.add(1);
                stats.message_bytes_in.add(message.len() as u64);
                self.handed_over = true;
                self.handler.unary(method, info, message, Reply::new(inner));
            }
            Read::Bad(status) => inner.refuse(&status),
            Read::Wait | Read::Gone => {}
        }
    }

    fn begin_stream(&mut self, method: u16, info: CallInfo, body: RecvStream, inner: Inner) {
        let messages = MessageStream::new(body, self.shared.clone());
        let (task, sender) = StreamTask::new(inner, info.deadline);
        let future = self.handler.clone().stream(method, info, messages, sender);
        tokio::task::spawn_local(task.run(future));
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) {
        if let Some(drain) = &mut self.drain
            && drain.as_mut().poll(cx).is_ready()
        {
            self.drain = None;
            self.drain_ends = Some(Instant::now() + self.shared.limits.drain_grace);
            self.h2.graceful_shutdown();
            // The GOAWAY is written by the round that follows.
        }
    }

    /// Holds the client to the limits, and looks at the clock.
    fn judge(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        let now = Instant::now();
        if self.wire.has_read() {
            self.clock.heard(now);
            let has_calls = self.shared.calls.get() > 0;
            let counts = self.wire.take_counts();
            match self.judge.judge(&counts, has_calls, &self.shared.has_sent, now) {
                Verdict::Fine => {}
                Verdict::TooManyPings => {
                    self.cut(counts.last_stream, b"too_many_pings", cx);
                    return Poll::Ready(Closed::TooManyPings);
                }
                Verdict::Flood => {
                    self.cut(counts.last_stream, b"too_many_control_frames", cx);
                    return Poll::Ready(Closed::Flood);
                }
            }
        }
        let blocked = self.wire.blocked_since();
        let limits = &self.shared.limits;
        let closed = self.clock.poll(cx, now, limits, blocked, self.drain_ends);
        if let Poll::Ready(closed) = &closed
            && !matches!(closed, Closed::DrainTimeout)
        {
            self.shared.stats().connections_cut.add(1);
        }
        closed
    }

    /// Says why before the connection is closed. `h2` has no way to put a text
    /// into its GOAWAY, and Go's client looks for it there.
    fn cut(&mut self, last_stream: u32, why: &[u8], cx: &mut Context<'_>) {
        self.shared.stats().connections_cut.add(1);
        if self.wire.blocked_since().is_some() {
            // Mid-frame, perhaps; and nobody reads.
            return;
        }
        let mut frame = Vec::with_capacity(17 + why.len());
        let len = (8 + why.len()) as u32;
        frame.extend_from_slice(&len.to_be_bytes()[1..]);
        frame.extend_from_slice(&[0x7, 0, 0, 0, 0, 0]);
        frame.extend_from_slice(&last_stream.to_be_bytes());
        frame.extend_from_slice(&u32::from(Reason::ENHANCE_YOUR_CALM).to_be_bytes());
        frame.extend_from_slice(why);
        self.wire.append(&frame);
        let _ = self.wire.flush(cx);
    }
}

fn abort(mut inner: Inner, http: StatusCode, status: &Status) {
    let response = early_abort(http, status, &inner.content);
    let _ = inner.respond.send_response(response, true);
    inner.shared.sent(0);
}

/// What happens by time alone: pings of ours, stalls, the end of a drain. The
/// timer is moved when it fires, not at each turn.
struct Clock {
    pings: Option<PingPong>,
    heard: Instant,
    pinged: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    armed: Option<Instant>,
}

impl Clock {
    fn new(pings: Option<PingPong>) -> Clock {
        Clock { pings, heard: Instant::now(), pinged: None, timer: None, armed: None }
    }

    fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.pinged = None;
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        limits: &Limits,
        blocked: Option<Instant>,
        drain_ends: Option<Instant>,
    ) -> Poll<Closed> {
        let stalls = blocked.zip(limits.write_stall_timeout).map(|(at, wait)| at + wait);
        let ping_ends = self.pinged.map(|at| at + limits.keepalive_timeout);
        for (at, closed) in [
            (stalls, Closed::WriteStall),
            (ping_ends, Closed::KeepaliveTimeout),
            (drain_ends, Closed::DrainTimeout),
        ] {
            if at.is_some_and(|at| at <= now) {
                return Poll::Ready(closed);
            }
        }
        let mut ping_due = None;
        if let (None, Some(interval)) = (ping_ends, limits.keepalive_interval) {
            ping_due = Some(self.heard + interval);
            if self.heard + interval <= now {
                self.ping(now, cx);
                ping_due = Some(now + limits.keepalive_timeout);
            }
        }
        let next = [stalls, ping_ends, drain_ends, ping_due].into_iter().flatten().min();
        self.arm(cx, now, next);
        Poll::Pending
    }

    fn ping(&mut self, now: Instant, cx: &Context<'_>) {
        if let Some(pings) = &mut self.pings {
            // The answer is seen as any byte read is; taking it makes room for
            // the next ping.
            let mut noop = Context::from_waker(Waker::noop());
            let _ = pings.poll_pong(&mut noop);
            let _ = pings.send_ping(h2::Ping::opaque());
            self.pinged = Some(now);
            // `h2` writes it in the next turn.
            cx.waker().wake_by_ref();
        }
    }

    fn arm(&mut self, cx: &mut Context<'_>, now: Instant, next: Option<Instant>) {
        let Some(next) = next else { return };
        // A timer that is set for earlier fires, finds nothing, and is moved.
        if self.armed.is_some_and(|armed| armed <= next && armed > now) {
            return;
        }
        self.armed = Some(next);
        match &mut self.timer {
            Some(timer) => timer.as_mut().reset(next.into()),
            None => self.timer = Some(Box::pin(tokio::time::sleep_until(next.into()))),
        }
        if let Some(timer) = &mut self.timer
            && timer.as_mut().poll(cx).is_ready()
        {
            cx.waker().wake_by_ref();
        }
    }
}
