//! HTTP/2 requests that are not gRPC (curl, browsers): the body is read whole,
//! the handler answers, its answer is streamed. One task each; no hot path.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use h2::server::SendResponse;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;

use crate::call::Handler;
use crate::http2::{ContentType, early_abort};
use crate::payload::Chunk;
use crate::pump::{Item, Pump};
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
    let status = Status::new(Code::InvalidArgument, text);
    early_abort(StatusCode::UNSUPPORTED_MEDIA_TYPE, &status, &ContentType::Grpc)
        .map(|()| Box::pin(Empty) as PlainBody)
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

/// The whole of one such request. What fails ends the stream.
pub(crate) async fn run<H: Handler>(
    handler: Rc<H>,
    shared: Rc<Shared>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Chunk>,
) {
    let (head, body) = request.into_parts();
    let body = match read_whole(body, shared.limits.max_recv_message).await {
        Ok(Some(body)) => body,
        Ok(None) => {
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            let _ = respond.send_response(response, true);
            return shared.sent(0);
        }
        Err(_) => return,
    };
    let request = Request::from_parts(head, body);
    let mut answer = handler.plain(request, shared.peer.clone());
    let response = tokio::select! {
        response = &mut answer => response,
        _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
    };
    let (head, body) = response.into_parts();
    let ended = body.is_end_stream();
    let Ok(send) = respond.send_response(Response::from_parts(head, ()), ended) else { return };
    shared.sent(0);
    if !ended {
        send_body(Pump::new(shared, send), body).await;
    }
}

async fn read_whole(mut body: RecvStream, max: usize) -> Result<Option<Bytes>, h2::Error> {
    let mut whole = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        if whole.len() + data.len() > max {
            return Ok(None);
        }
        whole.extend_from_slice(&data);
    }
    Ok(Some(whole.freeze()))
}

async fn send_body(mut pump: Pump, mut body: PlainBody) {
    loop {
        let frame = tokio::select! {
            biased;
            frame = poll_fn(|cx| body.as_mut().poll_frame(cx)) => frame,
            () = poll_fn(|cx| pump.poll_reset(cx)) => return,
        };
        match frame {
            None => break,
            Some(Err(_)) => return pump.reset(h2::Reason::INTERNAL_ERROR),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => pump.push(Item::Chunk(Chunk::new(data, VecDeque::new()))),
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        pump.finish(trailers);
                    }
                    break;
                }
            },
        }
        poll_fn(|cx| pump.poll_drained(cx)).await;
    }
    pump.finish_bare();
    poll_fn(|cx| pump.poll_sent(cx)).await;
}
