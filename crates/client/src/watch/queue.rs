//! The queue between a stream's task and one watch's reader. Bounded by the task, which asks before it pushes.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::mpsc::UnboundedSender;

use super::WatchResponse;
use super::stream::Command;
use crate::error::{Error, Result};
use crate::waiter::Waiter;

/// Shared by the task and the reader.
#[derive(Default)]
pub(super) struct Queue(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    responses: VecDeque<WatchResponse>,
    /// Events in `responses`.
    events: usize,
    reader: Waiter,
    /// What comes after the responses.
    end: Option<Error>,
    /// The watch is off the server until the reader has read what is here.
    parked: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether these many events fit. One response always does.
    pub fn fits(&self, events: usize, bound: usize) -> bool {
        let inner = self.lock();
        inner.responses.is_empty() || inner.events + events <= bound
    }

    /// Adds a response.
    pub fn push(&self, response: WatchResponse) {
        let mut inner = self.lock();
        inner.events += response.events.len();
        inner.responses.push_back(response);
        inner.reader.wake();
    }

    /// Ends the watch once the reader has read what is here.
    pub fn end(&self, error: Error) {
        let mut inner = self.lock();
        inner.end.get_or_insert(error);
        inner.reader.wake();
    }

    /// Notes that nothing comes before the reader has read what is here. False if it already has.
    pub fn park(&self) -> bool {
        let mut inner = self.lock();
        inner.parked = !inner.responses.is_empty();
        inner.parked
    }
}

/// The reader's end.
pub(super) struct Reader {
    pub queue: Arc<Queue>,
    /// The watch's number in its stream's task.
    pub key: u64,
    pub commands: UnboundedSender<Command>,
    pub ended: bool,
}

impl Stream for Reader {
    type Item = Result<WatchResponse>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let queue = self.queue.clone();
        let mut inner = queue.lock();
        if let Some(response) = inner.responses.pop_front() {
            inner.events -= response.events.len();
            if inner.parked && inner.responses.is_empty() {
                inner.parked = false;
                let _ = self.commands.send(Command::Unpark(self.key));
            }
            return Poll::Ready(Some(Ok(response)));
        }
        if let Some(error) = inner.end.take() {
            self.ended = true;
            return Poll::Ready(Some(Err(error)));
        }
        inner.reader.wait(cx)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Cancel(self.key));
    }
}
