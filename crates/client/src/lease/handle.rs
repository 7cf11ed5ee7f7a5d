//! What the holder of a lease sees of its being kept alive.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use etch_api::pb::etcdserverpb as pb;
use futures_core::Stream;
use tokio::sync::mpsc::UnboundedSender;

use super::stream::Command;
use crate::error::{Error, Result};
use crate::waiter::Waiter;

/// Shared by the task and one holder. Only the newest answer waits for the holder: older ones say nothing more.
#[derive(Default)]
pub(super) struct Slot(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    latest: Option<pb::LeaseKeepAliveResponse>,
    lost: Option<Error>,
    holder: Waiter,
}

impl Slot {
    pub fn new() -> Arc<Slot> {
        Arc::default()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lease lives.
    pub fn alive(&self, response: pb::LeaseKeepAliveResponse) {
        let mut inner = self.lock();
        inner.latest = Some(response);
        inner.holder.wake();
    }

    /// The lease is lost, or can no longer be kept.
    pub fn lost(&self, error: Error) {
        let mut inner = self.lock();
        inner.latest = None;
        inner.lost = Some(error);
        inner.holder.wake();
    }

    #[cfg(test)]
    pub fn take_lost(&self) -> Option<Error> {
        self.lock().lost.take()
    }
}

/// A lease that is being kept alive, as long as this is not dropped. Reading from it is not needed for that.
///
/// ```
/// # etch_doctest::run(async |client| {
/// let lease = client.lease_grant(10).await?;
/// let mut alive = client.lease_keep_alive(lease.id).await?;
/// while let Some(event) = alive.next().await {
///     match event {
///         Ok(response) => println!("for {} s more", response.ttl),
///         Err(error) => println!("{error}"),
///     }
///     # break;
/// }
/// # Ok(())
/// # });
/// ```
#[must_use = "dropping it no longer keeps the lease alive"]
pub struct KeepAlive {
    pub(super) id: i64,
    pub(super) slot: Option<Arc<Slot>>,
    pub(super) commands: UnboundedSender<Command>,
    pub(super) ended: bool,
    /// The first answer.
    pub(super) first: pb::LeaseKeepAliveResponse,
}

impl KeepAlive {
    /// The lease.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// The answer that the lease began to be kept alive with; [`KeepAlive::next`] gives those after it.
    pub fn first(&self) -> &pb::LeaseKeepAliveResponse {
        &self.first
    }

    /// The newest answer of the server, once for each; an error when the lease is lost; then `None`.
    pub async fn next(&mut self) -> Option<Result<pb::LeaseKeepAliveResponse>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Resolves when the lease is lost, with the reason.
    pub async fn lost(&mut self) -> Error {
        loop {
            match self.next().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return error,
                None => return Error::LeaseLost(self.id),
            }
        }
    }
}

impl Stream for KeepAlive {
    type Item = Result<pb::LeaseKeepAliveResponse>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(slot) = self.slot.clone().filter(|_| !self.ended) else {
            return Poll::Ready(None);
        };
        let mut inner = slot.lock();
        if let Some(response) = inner.latest.take() {
            return Poll::Ready(Some(Ok(response)));
        }
        if let Some(error) = inner.lost.take() {
            self.ended = true;
            return Poll::Ready(Some(Err(error)));
        }
        inner.holder.wait(cx)
    }
}

impl Drop for KeepAlive {
    fn drop(&mut self) {
        // The task counts holders: this one must be gone before it looks.
        self.slot = None;
        let _ = self.commands.send(Command::Release(self.id));
    }
}
