//! Bodies: that of a request as it comes in, and that of an answer as the stream behind it gives lines. Not
//! here: what is in them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use etch_json::{Endpoint, error_line, result_line};
use etch_rpc::{BoxError, LocalStream, PlainBody, Status};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use tokio::sync::mpsc;

use crate::Common;

/// The body of a request, as it comes in.
pub struct RequestBody(PlainBody);

impl RequestBody {
    /// From a connection.
    pub fn new(body: PlainBody) -> Self {
        Self(body)
    }

    /// From elsewhere in the process.
    pub fn from_channel(receiver: mpsc::Receiver<Bytes>) -> Self {
        Self(Box::pin(Channel(receiver)))
    }

    /// The next bytes; none at the end, and where the client has gone.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            let frame = self.0.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                return Some(data);
            }
        }
    }
}

struct Channel(mpsc::Receiver<Bytes>);

impl Body for Channel {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.poll_recv(cx).map(|data| data.map(|data| Ok(Frame::data(data))))
    }
}

/// The lines of a stream, one for each message; they end with the stream, or with the server.
pub struct Lines {
    pub(super) common: Arc<Common>,
    pub(super) endpoint: Endpoint,
    /// The line that was read to know how the stream begins.
    pub(super) first: Option<Bytes>,
    pub(super) stream: Option<LocalStream>,
    pub(super) stopped: Pin<Box<dyn Future<Output = ()>>>,
}

/// The line of a message.
pub fn line(common: &Common, endpoint: &Endpoint, message: &[u8]) -> Result<Bytes, Status> {
    let line = result_line(&common.gateway.schema, endpoint.output, message);
    line.map(Bytes::from).map_err(|why| Status::new(etch_rpc::Code::Internal, why))
}

impl Body for Lines {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if self.stopped.as_mut().poll(cx).is_ready() {
            self.stream = None;
        }
        let Some(stream) = &mut self.stream else { return Poll::Ready(None) };
        let next = std::task::ready!(stream.poll_next(cx));
        let line = match next {
            Ok(None) => {
                self.stream = None;
                return Poll::Ready(None);
            }
            Ok(Some(message)) => line(&self.common, &self.endpoint, &message),
            Err(status) => Err(status),
        };
        let line = line.unwrap_or_else(|status| {
            self.stream = None;
            error_line(status.code as u32, &status.message).into()
        });
        Poll::Ready(Some(Ok(Frame::data(line))))
    }
}
