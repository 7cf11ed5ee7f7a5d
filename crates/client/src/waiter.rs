//! Whoever waits for something that a task will put into a mutex.

use std::task::{Context, Poll, Waker};

/// At most one reader, waiting.
#[derive(Default)]
pub(crate) struct Waiter(Option<Waker>);

impl Waiter {
    /// There is nothing yet: the reader is to be woken.
    pub fn wait<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        match &mut self.0 {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// There is something.
    pub fn wake(&mut self) {
        if let Some(waker) = self.0.take() {
            waker.wake();
        }
    }
}
