//! The requests of a bidirectional stream, as they are sent by its task.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::mpsc::UnboundedReceiver;

/// A channel's receiving end as a stream. What goes in is bounded by the watches or leases that there are.
pub(crate) struct Requests<T>(pub UnboundedReceiver<T>);

impl<T> Stream for Requests<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.poll_recv(cx)
    }
}
