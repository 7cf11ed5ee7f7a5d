//! One connection: its loop takes all calls that have come in, hands them to
//! the handler, and writes all answers that have come up, in turns. Not here:
//! what a call's headers mean (`http2`), bodies that come in parts (`body`),
//! large answers (`pump`), what a flood is (`flood`).

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::body::{Call, Partial, Read, TurnWaker};
use crate::call::{CallInfo, Handler, Peer, Route};
use crate::clock::{Clock, Due, now};
use crate::deadline::Open as Overdue;
use crate::deframe::Deframer;
use crate::flood::{Judge, Verdict};
use crate::http2::{ContentType, check_encoding, check_head, early_abort, unknown_path};
use crate::limits::Limits;
use crate::payload::Chunk;
use crate::plain;
use crate::reply::{Inner, Reply};
use crate::shared::{Held, Open, Shared};
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
    let shared = Rc::new(Shared::new(limits.clone(), peer, handler.clone()));
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
        judge: Judge::new(&limits, now()),
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
        .max_concurrent_reset_streams(limits.max_ended_early)
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
        for round in 1..=ROUNDS {
            self.turn.take_again();
            over = self.round(cx);
            if over.is_some() || !self.turn.take_again() {
                break;
            }
            if round == ROUNDS {
                // There is more to do, in a turn of its own: others are due first.
                cx.waker().wake_by_ref();
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
        self.balance(written, cx);
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
        while let Some((call, read)) = self.partial.next_through() {
            self.settle(call, read);
        }
        if std::mem::take(&mut self.handed_over) {
            self.handler.batch_end();
        }
        over
    }

    /// While the socket keeps up, senders may go on; while it does not and
    /// there is much to write, nothing more is read.
    fn balance(&mut self, written: bool, cx: &mut Context<'_>) {
        if written {
            self.shared.kept_up();
        }
        let resumed = self.wire.pause(!written && !self.shared.may_send());
        if resumed {
            // Nobody has asked the socket meanwhile, so that it would wake nobody.
            cx.waker().wake_by_ref();
        }
    }

    fn accept(
        &mut self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Chunk>,
        cx: &mut Context<'_>,
    ) {
        if self.shared.calls() >= self.shared.limits.max_concurrent_streams {
            self.shared.reset();
            return respond.send_reset(Reason::REFUSED_STREAM);
        }
        let Some(content) = ContentType::of(request.headers()) else {
            let task = plain::run(self.handler.clone(), self.shared.clone(), request, respond);
            tokio::task::spawn_local(task);
            return;
        };
        self.shared.call_began();
        let shared = self.shared.clone();
        let inner = Inner { respond, shared, content, deadline: None };
        self.begin(request, inner, cx);
    }

    fn begin(&mut self, request: Request<RecvStream>, mut inner: Inner, cx: &mut Context<'_>) {
        let (head, body) = request.into_parts();
        match check_head(&head.method, &head.headers) {
            Ok(deadline) => inner.deadline = deadline,
            Err((http, status)) => return abort(inner, http, &status),
        }
        let path = head.uri.path();
        let route = match self.handler.route(path) {
            Route::UnknownMethod => return inner.refuse(&unknown_path(path, true)),
            Route::UnknownService => return inner.refuse(&unknown_path(path, false)),
            route => route,
        };
        let gzip = match check_encoding(&head.headers) {
            Ok(gzip) => gzip,
            Err(status) => return inner.refuse(&status),
        };
        let deframer = Deframer::new(self.shared.limits.max_recv_message, gzip);
        let info = CallInfo {
            headers: head.headers,
            authority: head.uri.into_parts().authority,
            peer: self.shared.peer.clone(),
            deadline: inner.deadline,
        };
        match route {
            Route::Unary(method) => {
                let reply = Reply::new(inner);
                let held = Held::new(self.shared.clone());
                let mut call = Call { method, info, reply, body, deframer, held };
                match call.read(cx) {
                    Read::Wait => self.partial.insert(call),
                    read => self.settle(call, read),
                }
            }
            Route::Stream(method) => {
                let messages = MessageStream::new(body, deframer, self.shared.clone());
                let (task, sender) = StreamTask::new(inner, info.deadline);
                let future = self.handler.clone().stream(method, info, messages, sender);
                tokio::task::spawn_local(task.run(future));
            }
            Route::UnknownMethod | Route::UnknownService => {}
        }
    }

    /// A unary call whose body is through, one way or the other.
    fn settle(&mut self, call: Call, read: Read) {
        let Call { method, info, reply, .. } = call;
        match read {
            Read::Message(message) => {
                let stats = self.shared.stats();
                stats.messages_in.add(1);
                stats.message_bytes_in.add(message.len() as u64);
                self.handed_over = true;
                reply.whole();
                self.handler.unary(method, info, message, reply);
            }
            Read::Bad(status) => reply.err(status),
            Read::Wait | Read::Gone => reply.abandon(),
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) {
        if let Some(drain) = &mut self.drain
            && drain.as_mut().poll(cx).is_ready()
        {
            self.drain = None;
            self.drain_ends = Some(now() + self.shared.limits.drain_grace);
            self.h2.graceful_shutdown();
            // The GOAWAY is written by the round that follows.
        }
    }

    /// Holds the client to the limits, and looks at the clock.
    fn judge(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        let now = now();
        if self.wire.has_read() {
            self.clock.heard(now);
        }
        let mut counts = self.wire.take_counts();
        counts.resets += self.shared.resets.take();
        let verdict = self.judge.judge(&counts, self.shared.calls(), &self.shared.sent, now);
        let (closed, why) = match verdict {
            Verdict::Fine => return self.look_at_clock(now, cx),
            Verdict::TooManyPings => (Closed::TooManyPings, &b"too_many_pings"[..]),
            Verdict::Flood => (Closed::Flood, &b"too_many_control_frames"[..]),
        };
        self.cut(counts.last_stream, why, cx);
        Poll::Ready(closed)
    }

    fn look_at_clock(&mut self, now: Instant, cx: &mut Context<'_>) -> Poll<Closed> {
        let over = self.shared.deadlines.borrow_mut().over(now);
        over.into_iter().for_each(Overdue::end);
        let due = Due {
            blocked: self.wire.blocked_since(),
            drain_ends: self.drain_ends,
            deadline: self.shared.deadlines.borrow().next(),
        };
        let closed = self.clock.poll(cx, now, &self.shared.limits, &due);
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
