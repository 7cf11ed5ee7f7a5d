//! A streaming call from within the process: the handler gets the same two
//! ends as one over HTTP/2, and whoever asked reads what it sends. Not here:
//! unary calls; those have `Reply::local`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::call::LocalFuture;
use crate::payload::Payload;
use crate::status::Status;

/// Bytes that may wait for the reader; the handler waits while there are more.
const ROOM: usize = 256 << 10;

/// What the handler has sent and the reader has not taken.
#[derive(Default)]
pub(crate) struct Outlet {
    queue: RefCell<VecDeque<Payload>>,
    queued: Cell<usize>,
    closed: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
    reader: RefCell<Option<Waker>>,
}

impl Outlet {
    pub(crate) fn push(&self, payload: Payload) {
        self.queued.set(self.queued.get() + payload.message_len());
        self.queue.borrow_mut().push_back(payload);
        if let Some(reader) = self.reader.borrow_mut().take() {
            reader.wake();
        }
    }

    pub(crate) fn queued(&self) -> usize {
        self.queued.get()
    }

    pub(crate) fn room(&self) -> usize {
        ROOM.saturating_sub(self.queued.get())
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    pub(crate) fn wait(&self, waker: &Waker) {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|w| w.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    }

    fn pop(&self) -> Option<Payload> {
        let payload = self.queue.borrow_mut().pop_front()?;
        self.queued.set(self.queued.get() - payload.message_len());
        self.wake_waiting();
        Some(payload)
    }

    fn wake_waiting(&self) {
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        waiting.into_iter().for_each(Waker::wake);
    }

    fn close(&self) {
        self.closed.set(true);
        self.wake_waiting();
    }
}

/// The reading end of a streaming call from within the process. It drives the
/// handler while it is read; dropped, it drops the handler.
pub struct LocalStream {
    outlet: Rc<Outlet>,
    handler: Option<LocalFuture<Status>>,
    end: Option<Status>,
}

impl LocalStream {
    pub(crate) fn new(outlet: Rc<Outlet>, handler: LocalFuture<Status>) -> LocalStream {
        LocalStream { outlet, handler: Some(handler), end: None }
    }

    /// The next message, whole; `None` when the call has ended well.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`LocalStream::next`], for futures written by hand.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        loop {
            if let Some(payload) = self.outlet.pop() {
                return Poll::Ready(payload.into_bytes().map(Some));
            }
            if let Some(status) = &self.end {
                let end = if status.is_ok() { Ok(None) } else { Err(status.clone()) };
                return Poll::Ready(end);
            }
            *self.outlet.reader.borrow_mut() = Some(cx.waker().clone());
            let Some(handler) = &mut self.handler else { return Poll::Ready(Ok(None)) };
            match handler.as_mut().poll(cx) {
                Poll::Ready(status) => {
                    self.handler = None;
                    self.end = Some(status);
                }
                // It may have sent something on its way.
                Poll::Pending if self.outlet.queued() == 0 && self.is_empty() => {
                    return Poll::Pending;
                }
                Poll::Pending => {}
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.outlet.queue.borrow().is_empty()
    }
}

impl Drop for LocalStream {
    fn drop(&mut self) {
        self.handler = None;
        self.outlet.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::{MessageStream, StreamSender, local_stream};
    use tokio::sync::mpsc;

    async fn echo(mut messages: MessageStream, sender: StreamSender) -> Status {
        loop {
            match messages.next().await {
                Ok(Some(message)) => {
                    if let Err(status) = sender.send(message).await {
                        return status;
                    }
                }
                Ok(None) => return Status::OK,
                Err(status) => return status,
            }
        }
    }

    #[tokio::test]
    async fn messages_come_through_in_order_and_the_end_after_them() {
        let (requests, receiver) = mpsc::channel(4);
        let mut stream = local_stream(receiver, |m, s| Box::pin(echo(m, s)));
        for n in 0..3u8 {
            requests.send(Bytes::from(vec![n])).await.expect("open");
            assert_eq!(stream.next().await, Ok(Some(Bytes::from(vec![n]))));
        }
        drop(requests);
        assert_eq!(stream.next().await, Ok(None));
        assert_eq!(stream.next().await, Ok(None));
    }

    #[tokio::test]
    async fn a_handler_ahead_of_its_reader_waits() {
        let sent = Rc::new(Cell::new(0));
        let count = sent.clone();
        let (_requests, receiver) = mpsc::channel(1);
        let mut stream = local_stream(receiver, |_, sender| {
            Box::pin(async move {
                for _ in 0..10 {
                    if let Err(status) = sender.send(vec![0; ROOM / 2]).await {
                        return status;
                    }
                    count.set(count.get() + 1);
                }
                Status::OK
            })
        });
        for read in 1..=10 {
            assert!(stream.next().await.expect("good").is_some());
            assert!(sent.get() <= read + 2, "{} sent, {read} read", sent.get());
        }
        assert_eq!(stream.next().await, Ok(None));
    }
}
