//! HTTP/2 requests that are not gRPC (curl, browsers): the body is read whole,
//! the handler answers, its answer is streamed. One task each; no hot path.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body::Body;

use crate::call::Handler;
use crate::codec::frame::Reason;
use crate::codec::head::Head;
use crate::codec::item::Item;
use crate::codec::send::Read;
use crate::codec::streams::{End, Key};
use crate::payload::Chunk;
use crate::shared::Shared;
use crate::status::{Code, Status};

/// Whatever went wrong in a response's body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer that is not gRPC.
pub type PlainBody = Pin<Box<dyn Body<Data = Bytes, Error = BoxError>>>;

/// How Go's gRPC server refuses what is not gRPC.
pub(crate) fn not_grpc(headers: &HeaderMap) -> Response<PlainBody> {
    let value = headers.get(CONTENT_TYPE).map_or(&b""[..], |v| v.as_bytes());
    let text = format!("invalid gRPC request content-type {:?}", String::from_utf8_lossy(value));
    let mut response = Response::new(Box::pin(Empty) as PlainBody);
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    Status::new(Code::InvalidArgument, text).write_to(headers);
    response
}

struct Empty;

impl Body for Empty {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
        std::task::Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}

/// One such request on its stream.
pub(crate) struct Plain {
    pub(crate) shared: Rc<Shared>,
    pub(crate) key: Key,
}

impl Drop for Plain {
    fn drop(&mut self) {
        // Nobody is left who would end it.
        self.shared.mux(|mux| mux.reset(self.key, Reason::CANCEL));
    }
}

impl Plain {
    /// The whole of one such request. What fails ends the stream.
    pub(crate) async fn run<H: Handler>(
        self,
        handler: Rc<H>,
        head: Rc<Head>,
        timeout: Option<HeaderValue>,
    ) {
        let body = match self.read_whole(self.shared.limits.max_recv_message).await {
            Ok(Some(body)) => body,
            Ok(None) => {
                let mut response = Response::new(());
                *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
                let (head, ()) = response.into_parts();
                return self.shared.mux(|mux| mux.put_plain(self.key, &head, true));
            }
            Err(Gone) => return,
        };
        let mut request = request(&head, body);
        if let Some(timeout) = timeout {
            // For us it is a header like any other.
            request.headers_mut().insert("grpc-timeout", timeout);
        }
        let mut answer = handler.plain(request, self.shared.peer.clone());
        let response = tokio::select! {
            response = &mut answer => response,
            () = self.gone() => return,
        };
        let (head, body) = response.into_parts();
        let ended = body.is_end_stream();
        self.shared.mux(|mux| mux.put_plain(self.key, &head, ended));
        if !ended {
            self.send_body(body).await;
        }
    }

    async fn gone(&self) {
        poll_fn(|cx| self.shared.mux(|mux| mux.poll_gone(self.key, cx))).await;
    }

    async fn read_whole(&self, max: usize) -> Result<Option<Bytes>, Gone> {
        let mut whole = BytesMut::new();
        loop {
            match poll_fn(|cx| self.shared.mux(|mux| mux.poll_read(self.key, cx))).await {
                Read::Data(data) if whole.len() + data.len() > max => return Ok(None),
                Read::Data(data) => whole.extend_from_slice(&data),
                Read::End => return Ok(Some(whole.freeze())),
                Read::Gone => return Err(Gone),
            }
        }
    }

    async fn send_body(&self, mut body: PlainBody) {
        let end = loop {
            let frame = tokio::select! {
                biased;
                frame = poll_fn(|cx| body.as_mut().poll_frame(cx)) => frame,
                () = self.gone() => return,
            };
            match frame {
                None => break End::Bare,
                Some(Err(_)) => {
                    return self.shared.mux(|mux| mux.reset(self.key, Reason::INTERNAL_ERROR));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.send(data).await,
                    Err(frame) => {
                        break frame.into_trailers().map_or(End::Bare, End::Trailers);
                    }
                },
            }
        };
        self.shared.mux(|mux| mux.finish(self.key, end));
        self.gone().await;
    }

    /// Queues data, and waits until all that is queued is out.
    async fn send(&self, data: Bytes) {
        let item = Item::Chunk(Chunk::new(data, VecDeque::new()));
        self.shared.mux(|mux| mux.push(self.key, item));
        poll_fn(|cx| self.shared.mux(|mux| mux.poll_drained(self.key, cx))).await;
    }
}

/// The client has let go of the request.
struct Gone;

fn request(head: &Head, body: Bytes) -> Request<Bytes> {
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = head.uri.clone();
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = head.headers.clone();
    request
}
