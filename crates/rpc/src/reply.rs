//! The answer to a unary call: completed once, from wherever on the thread the
//! answer comes up. A small one is put behind what is to be written at once,
//! which wakes the connection (once for a batch); a large one, or one that the
//! client's window has no room for, leaves as there is room. Calls from within
//! the process are answered through the same type.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::oneshot;

use crate::codec::frame::Reason;
use crate::codec::head::Head;
use crate::codec::item::Item;
use crate::codec::streams::Key;
use crate::http2::ContentType;
use crate::payload::{Chunk, Kind, Payload};
use crate::shared::Shared;
use crate::status::Status;

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

/// A call of a connection. It counts until this is dropped.
pub(crate) struct Inner {
    pub(crate) shared: Rc<Shared>,
    pub(crate) key: Key,
    pub(crate) head: Rc<Head>,
    pub(crate) deadline: Option<Instant>,
    /// Where its answer stands among the deadlines while it is on its way.
    pub(crate) sending: Option<usize>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.call_ended();
        if let Some(slot) = self.sending {
            self.shared.deadlines.borrow_mut().sent(slot);
        }
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
            Some(Answerable::Remote(inner)) => inner.refuse(&status),
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
    /// The response's content type.
    pub(crate) fn content(&self) -> &ContentType {
        self.head.content.as_ref().unwrap_or(&ContentType::Grpc)
    }

    fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // A stream is gone at the latest with its connection.
        self.shared.mux(|mux| mux.poll_gone(self.key, cx))
    }

    /// Ends the stream in both directions.
    pub(crate) fn reset(&self, reason: Reason) {
        self.shared.mux(|mux| mux.reset(self.key, reason));
    }

    /// Headers and status in one frame, as gRPC has it for an error without
    /// any message before it. A client that has gone needs no answer.
    pub(crate) fn refuse(&self, status: &Status) {
        self.refuse_with(StatusCode::OK, status);
    }

    /// The same for a call that was not even looked at, with its HTTP status.
    pub(crate) fn refuse_with(&self, http: StatusCode, status: &Status) {
        self.shared.mux(|mux| mux.refuse(self.key, http.as_u16(), status, self.content()));
    }

    fn send(self, payload: Payload) {
        let len = match payload.check(self.shared.limits.max_send_message) {
            Ok(len) => len,
            Err(status) => return self.refuse(&status),
        };
        self.shared.messages_out(payload.messages(), len);
        let answered = self.shared.mux(|mux| mux.answer(self.key, self.content(), payload, len));
        if let Err(payload) = answered {
            self.send_later(into_item(payload, len));
        }
    }

    fn send_later(mut self, item: Item) {
        let (shared, key, head) = (self.shared.clone(), self.key, self.head.clone());
        if let Some(at) = self.deadline {
            let slot = shared.deadlines.borrow_mut().sending(at, shared.clone(), key);
            self.sending = Some(slot);
        }
        let content = head.content.as_ref().unwrap_or(&ContentType::Grpc);
        shared.mux(|mux| mux.answer_later(key, content, item, self));
    }
}

/// One chunk with its prefix, or the source that makes it bit by bit.
pub(crate) fn into_item(payload: Payload, len: usize) -> Item {
    match payload.0 {
        Kind::One(message) => Item::Chunk(Chunk::message(len, message, VecDeque::new())),
        Kind::Framed(framed) => Item::Chunk(Chunk::new(framed, VecDeque::new())),
        Kind::Run(run) => Item::Chunk(Chunk::new(run.into_bytes(), VecDeque::new())),
        Kind::Pieces(pieces) => Item::Chunk(Chunk::message(len, Bytes::new(), pieces.into())),
        Kind::Lazy(source) => Item::lazy(source, len),
    }
}
