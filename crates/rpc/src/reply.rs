//! The answer to a unary call: completed once, from wherever on the thread the
//! answer comes up. A small one goes into HTTP/2 at once, which wakes the
//! connection (once for a batch); a large one, or one that the client's window
//! has no room for, is sent by a small task of its own. Calls from within the
//! process are answered through the same type.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use tokio::sync::oneshot;

use crate::http2::{ContentType, error_response, response_head};
use crate::payload::{Chunk, Kind, PREFIX, Payload};
use crate::pump::{Item, Pump};
use crate::shared::Shared;
use crate::status::Status;

/// Up to here a reply is given to HTTP/2 without asking for the window first.
const SMALL: usize = 1024;

/// Where the answer of one unary call goes.
pub struct Reply {
    place: Place,
}

/// Where the call is until it is answered.
enum Place {
    Here(Inner),
    /// With the connection's deadlines, which may answer first.
    Kept(Rc<Shared>, usize),
    /// Who asked is in this process.
    Local(oneshot::Sender<Result<Payload, Status>>),
    Done,
}

pub(crate) struct Inner {
    pub(crate) respond: SendResponse<Chunk>,
    pub(crate) shared: Rc<Shared>,
    pub(crate) content: ContentType,
    pub(crate) deadline: Option<Instant>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.call_ended();
    }
}

impl Reply {
    pub(crate) fn new(inner: Inner) -> Reply {
        let Some(at) = inner.deadline else { return Reply { place: Place::Here(inner) } };
        let shared = inner.shared.clone();
        let slot = shared.deadlines.borrow_mut().insert(at, inner);
        Reply { place: Place::Kept(shared, slot) }
    }

    /// The request is here, whole, and goes to the handler.
    pub(crate) fn whole(&self) {
        if let Place::Kept(shared, slot) = &self.place {
            shared.deadlines.borrow_mut().whole(*slot);
        }
    }

    /// Lets go of a call that nobody waits for any more.
    pub(crate) fn abandon(mut self) {
        drop(self.take());
    }

    /// A call that did not come over a connection of this crate: where its
    /// answer goes, and where it is waited for.
    pub fn local() -> (Reply, LocalReply) {
        let (sender, receiver) = oneshot::channel();
        (Reply { place: Place::Local(sender) }, LocalReply(receiver))
    }

    fn take(&mut self) -> Option<Answerable> {
        match std::mem::replace(&mut self.place, Place::Done) {
            Place::Here(inner) => Some(Answerable::Remote(inner)),
            Place::Kept(shared, slot) => {
                shared.deadlines.borrow_mut().take(slot).map(Answerable::Remote)
            }
            Place::Local(sender) => Some(Answerable::Local(sender)),
            Place::Done => None,
        }
    }

    /// Waits until the client has gone or has reset the call. A deadline that
    /// passes is not seen here; who waits for long looks at it as well.
    pub async fn cancelled(&mut self) {
        poll_fn(|cx| self.poll_cancelled(cx)).await;
    }

    fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.place {
            Place::Here(inner) => inner.poll_cancelled(cx),
            Place::Kept(shared, slot) => match shared.deadlines.borrow_mut().get(*slot) {
                Some(inner) => inner.poll_cancelled(cx),
                None => Poll::Ready(()),
            },
            Place::Local(sender) => sender.poll_closed(cx),
            Place::Done => Poll::Ready(()),
        }
    }

    /// Whether the client has gone or has reset the call, or its deadline is
    /// over, so that no answer can reach it. Costs a lock; ask before
    /// expensive work, not always.
    pub fn is_cancelled(&mut self) -> bool {
        self.poll_cancelled(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// Ends the call with this message and a good status.
    pub fn ok(mut self, payload: impl Into<Payload>) {
        match self.take() {
            Some(Answerable::Remote(inner)) => inner.send(payload.into()),
            // Who has stopped waiting needs no answer.
            Some(Answerable::Local(sender)) => drop(sender.send(Ok(payload.into()))),
            None => {}
        }
    }

    /// Ends the call with an error.
    pub fn err(mut self, status: Status) {
        self.refuse(status);
    }

    fn refuse(&mut self, status: Status) {
        match self.take() {
            Some(Answerable::Remote(mut inner)) => inner.refuse(&status),
            Some(Answerable::Local(sender)) => drop(sender.send(Err(status))),
            None => {}
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !matches!(self.place, Place::Done) {
            self.refuse(Status::internal("the call was dropped without an answer"));
        }
    }
}

/// Who is to be answered.
enum Answerable {
    Remote(Inner),
    Local(oneshot::Sender<Result<Payload, Status>>),
}

/// The answer to a call from within the process, once it is there. Dropped,
/// it says that nobody waits any more.
pub struct LocalReply(oneshot::Receiver<Result<Payload, Status>>);

impl LocalReply {
    /// Waits for the answer: the message, in one piece.
    pub async fn answer(self) -> Result<Bytes, Status> {
        let gone = || Err(Status::internal("the call was dropped without an answer"));
        self.0.await.unwrap_or_else(|_| gone())?.into_bytes()
    }
}

impl Inner {
    fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.shared.is_closed() {
            return Poll::Ready(());
        }
        self.respond.poll_reset(cx).map(|_| ())
    }

    /// Ends the stream in both directions.
    pub(crate) fn reset(&mut self, reason: Reason) {
        self.shared.reset();
        self.respond.send_reset(reason);
    }

    /// Headers and status in one frame, as gRPC has it for an error without
    /// any message before it. A client that has gone needs no answer.
    pub(crate) fn refuse(&mut self, status: &Status) {
        let response = error_response(status, &self.content);
        let _ = self.respond.send_response(response, true);
        self.shared.sent(0);
    }

    fn send(mut self, payload: Payload) {
        let len = match payload.check(self.shared.limits.max_send_message) {
            Ok(len) => len,
            Err(status) => return self.refuse(&status),
        };
        self.shared.message_out(len);
        let head = response_head(&self.content);
        let Ok(mut send) = self.respond.send_response(head, false) else { return };
        let size = len + PREFIX;
        if size > SMALL {
            send.reserve_capacity(size);
        }
        let fits = size <= SMALL || (self.shared.may_send() && send.capacity() >= size);
        match into_chunk(payload, len) {
            Ok(chunk) if fits => {
                self.shared.sent(size);
                if send.send_data(chunk, false).is_ok() {
                    let _ = send.send_trailers(Status::OK.trailers());
                }
            }
            Ok(chunk) => self.send_in_task(send, Item::Chunk(chunk)),
            Err(lazy) => self.send_in_task(send, lazy),
        }
    }

    fn send_in_task(self, send: h2::SendStream<Chunk>, item: Item) {
        let mut pump = Pump::new(self.shared.clone(), send);
        pump.push(item);
        pump.finish(Status::OK.trailers());
        tokio::task::spawn_local(async move {
            let call = self;
            let sent = poll_fn(|cx| pump.poll_sent(cx));
            match call.deadline {
                None => sent.await,
                Some(at) => {
                    if tokio::time::timeout_at(at.into(), sent).await.is_err() {
                        pump.reset(Reason::CANCEL);
                    }
                }
            }
        });
    }
}

/// One chunk with its prefix, or the source that makes it bit by bit.
pub(crate) fn into_chunk(payload: Payload, len: usize) -> Result<Chunk, Item> {
    match payload.0 {
        Kind::One(message) => Ok(Chunk::message(len, message, VecDeque::new())),
        Kind::Framed(framed) => Ok(Chunk::new(framed, VecDeque::new())),
        Kind::Pieces(pieces) => Ok(Chunk::message(len, Bytes::new(), pieces.into())),
        Kind::Lazy(source) => Err(Item::lazy(source, len)),
    }
}
