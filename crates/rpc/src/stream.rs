//! A streaming call: the messages that come in, the sender of those that go
//! out, and the local task that joins them to the handler's future. Not here:
//! how messages get into HTTP/2 (`pump`), and the reading end of a call from
//! within the process (`local`).

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::Bytes;
use h2::{Reason, RecvStream};
use tokio::sync::mpsc;
use tokio::time::Sleep;

use crate::call::LocalFuture;
use crate::deframe::Deframer;
use crate::http2::{error_response, response_head};
use crate::local::{LocalStream, Outlet};
use crate::payload::Payload;
use crate::pump::{Item, Pump};
use crate::reply::{Inner, into_chunk};
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
    recv: RecvStream,
    deframer: Deframer,
    shared: Rc<Shared>,
    held: Held,
    ended: bool,
}

impl MessageStream {
    pub(crate) fn new(recv: RecvStream, deframer: Deframer, shared: Rc<Shared>) -> MessageStream {
        let held = Held::new(shared.clone());
        MessageStream(Source::Connection(Received { recv, deframer, shared, held, ended: false }))
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
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(data)) => {
                    let _ = self.recv.flow_control().release_capacity(data.len());
                    self.deframer.push(data);
                }
                Some(Err(_)) => return Poll::Ready(Err(cancelled())),
                None => self.ended = true,
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
    Connection(Rc<RefCell<Core>>),
    Local(Rc<Outlet>),
}

struct Core {
    shared: Rc<Shared>,
    call: Inner,
    /// Once response headers are out.
    pump: Option<Pump>,
    /// The stream's own task, which alone is woken by HTTP/2.
    task: Option<Waker>,
    waiting: Vec<Waker>,
    closed: bool,
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
            To::Connection(core) => core.borrow_mut().open().map(|_| ()),
            To::Local(_) => Ok(()),
        }
    }

    /// Bytes queued here for want of room in the client's window.
    pub fn queued(&self) -> usize {
        match &self.to {
            To::Connection(core) => core.borrow().queued(),
            To::Local(outlet) => outlet.queued(),
        }
    }

    /// Whether nothing can be sent any more.
    pub fn is_closed(&self) -> bool {
        match &self.to {
            To::Connection(core) => {
                let core = core.borrow();
                core.closed || core.shared.is_closed()
            }
            To::Local(outlet) => outlet.is_closed(),
        }
    }

    /// Waits until nothing can be sent any more.
    pub async fn closed(&self) {
        poll_fn(|cx| {
            if self.is_closed() {
                return Poll::Ready(());
            }
            self.wait(cx);
            Poll::Pending
        })
        .await;
    }

    fn room(&self) -> usize {
        match &self.to {
            To::Connection(core) => {
                let core = core.borrow();
                core.shared.limits.stream_send_buffer.saturating_sub(core.queued())
            }
            To::Local(outlet) => outlet.room(),
        }
    }

    fn wait(&self, cx: &Context<'_>) {
        let core = match &self.to {
            To::Connection(core) => core,
            To::Local(outlet) => return outlet.wait(cx.waker()),
        };
        let mut core = core.borrow_mut();
        if !core.waiting.iter().any(|w| w.will_wake(cx.waker())) {
            core.waiting.push(cx.waker().clone());
        }
    }

    fn queue(&self, payloads: impl IntoIterator<Item = Payload>) -> Result<(), Status> {
        let core = match &self.to {
            To::Connection(core) => core,
            To::Local(outlet) if outlet.is_closed() => return Err(cancelled()),
            To::Local(outlet) => {
                payloads.into_iter().for_each(|payload| outlet.push(payload));
                return Ok(());
            }
        };
        let mut core = core.borrow_mut();
        let core = &mut *core;
        core.open()?;
        let Some(pump) = &mut core.pump else { return Err(cancelled()) };
        let mut failed = Ok(());
        for payload in payloads {
            match payload.check(core.shared.limits.max_send_message) {
                Ok(len) => {
                    core.shared.message_out(len);
                    pump.push(into_chunk(payload, len).map_or_else(|lazy| lazy, Item::Chunk));
                }
                Err(status) => {
                    failed = Err(status);
                    break;
                }
            }
        }
        if pump.push_out()
            && let Some(task) = &core.task
        {
            core.shared.wait_to_send(task);
        }
        failed
    }
}

impl Core {
    fn queued(&self) -> usize {
        self.pump.as_ref().map_or(0, Pump::queued)
    }

    fn open(&mut self) -> Result<(), Status> {
        if self.closed {
            return Err(cancelled());
        }
        if self.pump.is_none() {
            let head = response_head(&self.call.content);
            let send = self.call.respond.send_response(head, false).map_err(|_| cancelled())?;
            self.pump = Some(Pump::new(self.shared.clone(), send));
            self.shared.sent(0);
        }
        Ok(())
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.pump {
            Some(pump) => pump.poll_reset(cx),
            None => self.call.respond.poll_reset(cx).map(|_| ()),
        }
    }

    fn reset(&mut self, reason: Reason) {
        match &mut self.pump {
            Some(pump) => pump.reset(reason),
            None => {
                self.shared.reset();
                self.call.respond.send_reset(reason);
            }
        }
    }

    /// Says how the call ended, after all that is queued.
    fn finish(&mut self, status: &Status) {
        match &mut self.pump {
            Some(pump) => pump.finish(status.trailers()),
            None => {
                let _ = self
                    .call
                    .respond
                    .send_response(error_response(status, &self.call.content), true);
            }
        }
        self.shared.sent(0);
    }

    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.pump {
            Some(pump) => pump.poll_sent(cx),
            None => Poll::Ready(()),
        }
    }

    fn wake_waiting(&mut self) {
        if self.closed || self.queued() < self.shared.limits.stream_send_buffer {
            self.waiting.drain(..).for_each(Waker::wake);
        }
    }

    fn close(&mut self) {
        self.closed = true;
        self.wake_waiting();
    }
}

/// The task of one streaming call.
pub(crate) struct StreamTask {
    core: Rc<RefCell<Core>>,
    handler: Option<LocalFuture<Status>>,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl StreamTask {
    /// The sender to hand out, and the task to spawn once the handler's future
    /// is put in.
    pub(crate) fn new(call: Inner, deadline: Option<Instant>) -> (StreamTask, StreamSender) {
        let core = Rc::new(RefCell::new(Core {
            shared: call.shared.clone(),
            call,
            pump: None,
            task: None,
            waiting: Vec::new(),
            closed: false,
        }));
        let deadline = deadline.map(|at| Box::pin(tokio::time::sleep_until(at.into())));
        let sender = StreamSender { to: To::Connection(core.clone()) };
        (StreamTask { core, handler: None, deadline }, sender)
    }

    pub(crate) async fn run(mut self, handler: LocalFuture<Status>) {
        self.handler = Some(handler);
        poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.remember(cx.waker());
        if self.core.borrow_mut().poll_reset(cx).is_ready() {
            return Poll::Ready(());
        }
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            self.core.borrow_mut().reset(Reason::CANCEL);
            return Poll::Ready(());
        }
        let _ = self.pump(cx);
        if let Some(handler) = &mut self.handler {
            let status = ready!(handler.as_mut().poll(cx));
            self.handler = None;
            self.core.borrow_mut().finish(&status);
        }
        self.pump(cx)
    }

    fn remember(&self, waker: &Waker) {
        let mut core = self.core.borrow_mut();
        if !core.task.as_ref().is_some_and(|w| w.will_wake(waker)) {
            core.task = Some(waker.clone());
        }
    }

    fn pump(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut core = self.core.borrow_mut();
        let sent = core.poll_sent(cx);
        core.wake_waiting();
        sent
    }
}

impl Drop for StreamTask {
    fn drop(&mut self) {
        self.handler = None;
        self.core.borrow_mut().close();
    }
}
