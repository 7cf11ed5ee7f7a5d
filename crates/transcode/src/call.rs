//! A call that came as JSON: its values to the wire, the answer back, and streams in either direction. Not
//! here: HTTP's side of it.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use etch_json::{Endpoint, Spaces, Values, to_json, to_wire};
use etch_rpc::{
    CallInfo, Code, Handler, LocalStream, PlainBody, Reply, Route, Status, local_stream,
};
use http::{HeaderValue, Response, StatusCode};
use tokio::sync::{mpsc, watch};

use crate::body::{Lines, RequestBody, line};
use crate::{Common, GRPC_CONTENT, Gate, http_status, json, refused, whole};

/// Requests of a stream that may wait for it.
const WAITING: usize = 16;
/// What JSON makes of a message is so many times as long, at the most, if the client does not waste room.
const INFLATION: usize = 2;

fn too_large(len: usize, max: usize) -> Status {
    let text = format!("grpc: received message larger than max ({len} vs. {max})");
    Status::new(Code::ResourceExhausted, text)
}

/// The values of a request's body.
struct Requests {
    body: RequestBody,
    values: Values,
    ended: bool,
    limit: usize,
    max: usize,
}

impl Requests {
    fn new(common: &Common, body: RequestBody) -> Self {
        let max = common.max_message;
        Self { body, values: Values::default(), ended: false, limit: max * INFLATION, max }
    }

    /// The next request on the wire; none at the end.
    async fn next(
        &mut self,
        common: &Common,
        endpoint: &Endpoint,
    ) -> Result<Option<Bytes>, Status> {
        let invalid = |why: String| Status::new(Code::InvalidArgument, why);
        loop {
            let value = if self.ended { self.values.end() } else { self.values.take_next() };
            if let Some(value) = value.map_err(invalid)? {
                let wire =
                    to_wire(&common.gateway.schema, endpoint.input, &value).map_err(invalid)?;
                if wire.len() > self.max {
                    return Err(too_large(wire.len(), self.max));
                }
                return Ok(Some(wire.into()));
            }
            if self.ended {
                return Ok(None);
            }
            match self.body.next().await {
                Some(bytes) => self.values.push(&bytes),
                None => self.ended = true,
            }
            if self.values.held() > self.limit {
                return Err(too_large(self.values.held(), self.max));
            }
        }
    }
}

impl<H: Handler> Gate<H> {
    /// Makes the call.
    pub(super) async fn serve(
        &self,
        endpoint: &Endpoint,
        info: CallInfo,
        body: RequestBody,
    ) -> Response<PlainBody> {
        let number = match self.handler.route(&format!("/{}/{}", endpoint.service, endpoint.method))
        {
            Route::Unary(number) | Route::Stream(number) => number,
            Route::UnknownMethod | Route::UnknownService => {
                return refused(&Status::new(Code::Unimplemented, "Method Not Allowed"));
            }
        };
        let mut requests = Requests::new(&self.common, body);
        if endpoint.client_streams {
            let stream = self.open(number, info, self.feed(requests, endpoint.clone()));
            return self.lines(endpoint, stream).await;
        }
        let message = match requests.next(&self.common, endpoint).await {
            // No body at all is an empty message.
            Ok(message) => message.unwrap_or_default(),
            Err(status) => return refused(&status),
        };
        if endpoint.server_streams {
            let (sender, receiver) = mpsc::channel(1);
            // There is room for it.
            let _ = sender.try_send(message);
            drop(sender);
            let stream = self.open(number, info, receiver);
            return self.lines(endpoint, stream).await;
        }
        match self.unary(number, info, message).await {
            Ok(answer) => self.written(endpoint, &answer),
            Err(status) => refused(&status),
        }
    }

    async fn unary(&self, number: u16, info: CallInfo, message: Bytes) -> Result<Bytes, Status> {
        let (reply, answer) = Reply::local();
        let deadline = info.deadline();
        self.handler.unary(number, info, message, reply);
        self.handler.batch_end();
        let time_is_up = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            answer = answer.answer() => answer,
            () = time_is_up => Err(late()),
            () = stopped(&self.stop) => Err(Status::new(Code::Unavailable, "etcdserver: server stopped")),
        }
    }

    fn written(&self, endpoint: &Endpoint, answer: &[u8]) -> Response<PlainBody> {
        match to_json(&self.common.gateway.schema, endpoint.output, answer, Spaces::Behind) {
            Ok(text) => said(json(StatusCode::OK, text)),
            Err(why) => refused(&Status::new(Code::Internal, why)),
        }
    }

    fn open(&self, number: u16, info: CallInfo, messages: mpsc::Receiver<Bytes>) -> LocalStream {
        let handler = Rc::clone(&self.handler);
        let deadline = info.deadline();
        local_stream(messages, |messages, sender| {
            Box::pin(async move {
                let serving = handler.stream(number, info, messages, sender);
                match deadline {
                    None => serving.await,
                    Some(at) => {
                        let done = tokio::time::timeout_at(at.into(), serving).await;
                        done.unwrap_or_else(|_| late())
                    }
                }
            })
        })
    }

    /// The requests of a stream, as they come in. What is broken ends the client's side, as in etcd.
    fn feed(&self, mut requests: Requests, endpoint: Endpoint) -> mpsc::Receiver<Bytes> {
        let (sender, receiver) = mpsc::channel(WAITING);
        let common = Arc::clone(&self.common);
        tokio::task::spawn_local(async move {
            let feeding = async {
                while let Ok(Some(message)) = requests.next(&common, &endpoint).await {
                    if sender.send(message).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = feeding => {}
                () = sender.closed() => {}
            }
        });
        receiver
    }

    /// The answer of a stream: its status is that of how it begins.
    async fn lines(&self, endpoint: &Endpoint, mut stream: LocalStream) -> Response<PlainBody> {
        let first = tokio::select! {
            first = stream.next() => first,
            () = stopped(&self.stop) => Ok(None),
        };
        let first = match first {
            Ok(Some(message)) => line(&self.common, endpoint, &message),
            Ok(None) => return Response::new(whole("")),
            Err(status) => Err(status),
        };
        match first {
            Ok(first) => {
                let lines = Lines {
                    common: Arc::clone(&self.common),
                    endpoint: endpoint.clone(),
                    first: Some(first),
                    stream: Some(stream),
                    stopped: Box::pin(stopped(&self.stop)),
                };
                let mut response = said(json(StatusCode::OK, Vec::new()));
                *response.body_mut() = Box::pin(lines);
                response
            }
            Err(status) => {
                let body = etch_json::error_line(status.code as u32, &status.message);
                json(http_status(status.code), body)
            }
        }
    }
}

/// Completes when the process stops.
pub(crate) fn stopped(stop: &watch::Receiver<bool>) -> impl Future<Output = ()> + use<> {
    let mut stop = stop.clone();
    async move {
        // The sender goes only when all has stopped.
        let _ = stop.wait_for(|stopped| *stopped).await;
    }
}

fn late() -> Status {
    Status::new(Code::DeadlineExceeded, "context deadline exceeded")
}

/// An answer that the call itself gave.
fn said(mut response: Response<PlainBody>) -> Response<PlainBody> {
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(GRPC_CONTENT, grpc);
    response
}
