//! A streaming call: the messages that come in, the sender of those that go
//! out, and the local task that joins them to the handler's future. Not here:
//! how messages get into frames (`codec`), and the reading end of a call from
//! within the process (`local`).

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Sleep;

use crate::call::LocalFuture;
use crate::codec::frame::Reason;
use crate::codec::send::Read;
use crate::codec::streams::Key;
use crate::deframe::Deframer;
use crate::local::{LocalStream, Outlet};
use crate::payload::Payload;
use crate::reply::{Inner, into_item};
use crate::shared::{Held, Shared};
use crate::status::{Code, Status};

/// The messages of one streaming call. Nothing is read ahead of the message
/// asked for, so a slow consumer holds the client back by its window.
pub struct MessageStream(Source);

enum Source {
    Connection(Received),
    Local(mpsc::Receiver<Bytes>),
}

/// The request's body, as it comes in.
struct Received {
    key: Key,
    deframer: Deframer,
    shared: Rc<Shared>,
    held: Held,
    ended: bool,
}

impl MessageStream {
    pub(crate) fn new(key: Key, deframer: Deframer, shared: Rc<Shared>) -> MessageStream {
        let held = Held::new(shared.clone());
        MessageStream(Source::Connection(Received { key, deframer, shared, held, ended: false }))
    }

    /// The next message; `None` when the client has ended its side.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`MessageStream::next`], for futures written by hand.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        match &mut self.0 {
            Source::Connection(received) => received.poll_next(cx),
            Source::Local(receiver) => receiver.poll_recv(cx).map(Ok),
        }
    }
}

/// A streaming call from within the process: `messages` are the client's, and
/// dropping their other end ends its side.
pub fn local_stream(
    messages: mpsc::Receiver<Bytes>,
    handler: impl FnOnce(MessageStream, StreamSender) -> LocalFuture<Status>,
) -> LocalStream {
    let outlet = Rc::new(Outlet::default());
    let sender = StreamSender { to: To::Local(outlet.clone()) };
    LocalStream::new(outlet, handler(MessageStream(Source::Local(messages)), sender))
}

impl Received {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        loop {
            let next = self.deframer.next()?;
            self.held.set(if next.is_none() { self.deframer.held() } else { 0 })?;
            if let Some(message) = next {
                let stats = self.shared.stats();
                stats.messages_in.add(1);
                stats.message_bytes_in.add(message.len() as u64);
                return Poll::Ready(Ok(Some(message)));
            }
            if self.ended {
                return Poll::Ready(self.end());
            }
            match ready!(self.shared.mux(|mux| mux.poll_read(self.key, cx))) {
                Read::Data(data) => self.deframer.push(data),
                Read::Gone => return Poll::Ready(Err(cancelled())),
                Read::End => self.ended = true,
            }
        }
    }

    fn end(&self) -> Result<Option<Bytes>, Status> {
        if self.deframer.held() > 0 {
            return Err(Status::internal("unexpected EOF"));
        }
        Ok(None)
    }
}

fn cancelled() -> Status {
    Status::new(Code::Cancelled, "context canceled")
}

/// Sends the messages of one streaming call. Clones send on the same stream.
#[derive(Clone)]
pub struct StreamSender {
    to: To,
}

#[derive(Clone)]
enum To {
    Connection(Rc<Link>),
    Local(Rc<Outlet>),
}

/// A streaming call of a connection.
struct Link {
    call: Inner,
    /// The handler is through with it.
    closed: Cell<bool>,
}

impl StreamSender {
    /// Queues a message once there is room for it; what has been queued leaves
    /// in the connection's next write. An error says that the stream is closed
    /// or the message too large.
    pub async fn send(&self, payload: impl Into<Payload>) -> Result<(), Status> {
        self.ready().await?;
        self.queue([payload.into()])
    }

    /// Queues messages, waiting before each one that finds no room; those that
    /// leave together share DATA frames.
    pub async fn send_batch(
        &self,
        payloads: impl IntoIterator<Item = Payload>,
    ) -> Result<(), Status> {
        let mut payloads = payloads.into_iter().peekable();
        while payloads.peek().is_some() {
            self.ready().await?;
            let mut room = self.room();
            let batch = std::iter::from_fn(|| {
                if room == 0 {
                    return None;
                }
                let payload = payloads.next()?;
                room = room.saturating_sub(payload.message_len());
                Some(payload)
            });
            self.queue(batch)?;
        }
        Ok(())
    }

    /// Queues a message if there is room now, and gives it back if not.
    pub fn try_send(&self, payload: Payload) -> Result<Option<Payload>, Status> {
        if self.room() == 0 && !self.is_closed() {
            return Ok(Some(payload));
        }
        self.queue([payload]).map(|()| None)
    }

    /// Waits until there is room for a message.
    pub async fn ready(&self) -> Result<(), Status> {
        poll_fn(|cx| self.poll_ready(cx)).await
    }

    /// As [`StreamSender::ready`], for futures written by hand.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        if self.is_closed() {
            return Poll::Ready(Err(cancelled()));
        }
        if self.room() > 0 {
            return Poll::Ready(Ok(()));
        }
        self.wait(cx);
        Poll::Pending
    }

    /// Sends the response headers now, before any message.
    pub fn send_headers(&self) -> Result<(), Status> {
        match &self.to {
            To::Connection(link) => link.open(),
            To::Local(_) => Ok(()),
        }
    }

    /// Bytes queued here for want of room in the client's window.
    pub fn queued(&self) -> usize {
        match &self.to {
            To::Connection(link) => link.queued(),
            To::Local(outlet) => outlet.queued(),
        }
    }

    /// Whether nothing can be sent any more.
    pub fn is_closed(&self) -> bool {
        match &self.to {
            To::Connection(link) => link.is_closed(),
            To::Local(outlet) => outlet.is_closed(),
        }
    }

    /// Waits until nothing can be sent any more.
    pub async fn closed(&self) {
        poll_fn(|cx| {
            if self.is_closed() {
                return Poll::Ready(());
            }
            match &self.to {
                To::Connection(link) => link.poll_gone(cx),
                To::Local(outlet) => {
                    outlet.wait(cx.waker());
                    Poll::Pending
                }
            }
        })
        .await;
    }

    fn room(&self) -> usize {
        match &self.to {
            To::Connection(link) => {
                let most = link.call.shared.limits.stream_send_buffer;
                most.saturating_sub(link.queued())
            }
            To::Local(outlet) => outlet.room(),
        }
    }

    fn wait(&self, cx: &Context<'_>) {
        match &self.to {
            To::Connection(link) => {
                let call = &link.call;
                call.shared.mux(|mux| mux.wait_for_room(call.key, cx.waker()));
            }
            To::Local(outlet) => outlet.wait(cx.waker()),
        }
    }

    fn queue(&self, payloads: impl IntoIterator<Item = Payload>) -> Result<(), Status> {
        match &self.to {
            To::Connection(link) => link.queue(payloads),
            To::Local(outlet) if outlet.is_closed() => Err(cancelled()),
            To::Local(outlet) => {
                payloads.into_iter().flat_map(Payload::split).for_each(|one| outlet.push(one));
                Ok(())
            }
        }
    }
}

impl Link {
    fn is_closed(&self) -> bool {
        self.closed.get() || !self.call.shared.mux(|mux| mux.is_open(self.call.key))
    }

    fn queued(&self) -> usize {
        self.call.shared.mux(|mux| mux.queued(self.call.key))
    }

    fn poll_gone(&self, cx: &Context<'_>) -> Poll<()> {
        self.call.shared.mux(|mux| mux.poll_gone(self.call.key, cx))
    }

    fn open(&self) -> Result<(), Status> {
        if self.is_closed() {
            return Err(cancelled());
        }
        self.call.shared.mux(|mux| mux.put_response(self.call.key, self.call.content()));
        Ok(())
    }

    fn queue(&self, payloads: impl IntoIterator<Item = Payload>) -> Result<(), Status> {
        self.open()?;
        let shared = &self.call.shared;
        for payload in payloads {
            let len = payload.check(shared.limits.max_send_message)?;
            shared.messages_out(payload.messages(), len);
            shared.mux(|mux| mux.push(self.call.key, into_item(payload, len)));
        }
        Ok(())
    }
}

/// The task of one streaming call.
pub(crate) struct StreamTask {
    link: Rc<Link>,
    handler: Option<LocalFuture<Status>>,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl StreamTask {
    /// The sender to hand out, and the task to spawn once the handler's future
    /// is put in.
    pub(crate) fn new(call: Inner, deadline: Option<Instant>) -> (StreamTask, StreamSender) {
        let link = Rc::new(Link { call, closed: Cell::new(false) });
        let deadline = deadline.map(|at| Box::pin(tokio::time::sleep_until(at.into())));
        let sender = StreamSender { to: To::Connection(link.clone()) };
        (StreamTask { link, handler: None, deadline }, sender)
    }

    pub(crate) async fn run(mut self, handler: LocalFuture<Status>) {
        self.handler = Some(handler);
        poll_fn(|cx| self.poll(cx)).await;
    }

    /// Until the stream is gone: reset, or its end is out.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let call = &self.link.call;
        if self.link.poll_gone(cx).is_ready() {
            return Poll::Ready(());
        }
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            call.reset(Reason::CANCEL);
            return Poll::Ready(());
        }
        if let Some(handler) = &mut self.handler {
            let status = ready!(handler.as_mut().poll(cx));
            self.handler = None;
            call.shared.mux(|mux| mux.finish_call(call.key, status, call.content()));
        }
        self.link.poll_gone(cx)
    }
}

impl Drop for StreamTask {
    fn drop(&mut self) {
        self.handler = None;
        self.link.closed.set(true);
        // Who waits for room waits for nothing.
        self.link.call.reset(Reason::CANCEL);
    }
}
