//! A server for the tests, and a client that speaks plain `h2` to it.
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod raw;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;

use bytes::{BufMut, Bytes, BytesMut};
use etch_rpc::*;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Request, Response};
use tokio::io::DuplexStream;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

pub const LAZY_LEN: usize = 50 * 1024 * 1024;

/// What the tests want to know of the server.
#[derive(Default)]
pub struct Server {
    pub stats: Stats,
    /// Unary calls since the last `batch_end`, and the sizes of batches.
    pub batch: Cell<usize>,
    pub batches: RefCell<Vec<usize>>,
    /// Replies of `/t.S/Later`.
    pub later: RefCell<Vec<Reply>>,
    pub changed: Notify,
    /// How far lazy replies have been made, and streams have come.
    pub made: Rc<Cell<usize>>,
    pub streams_dropped: Rc<Cell<usize>>,
    pub received: Rc<Cell<usize>>,
}

const METHODS: [&str; 8] = ["Echo", "Later", "Lazy", "Fail", "Drop", "Meta", "Pieces", "Short"];
const STREAMS: [&str; 5] = ["Bidi", "Count", "Hang", "Slow", "Refuse"];

struct Zeros {
    made: Rc<Cell<usize>>,
    left: usize,
    /// Ends so many bytes before its length.
    short: usize,
}

impl PayloadSource for Zeros {
    fn total_len(&self) -> usize {
        LAZY_LEN
    }

    fn next(&mut self, max: usize) -> Option<Result<Bytes, Status>> {
        let n = max.min(self.left - self.short);
        if n == 0 {
            return None;
        }
        self.left -= n;
        self.made.set(self.made.get() + n);
        Some(Ok(Bytes::from(vec![0; n])))
    }
}

struct CountsDrop(Rc<Cell<usize>>);

impl Drop for CountsDrop {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

impl Handler for Server {
    fn route(&self, path: &str) -> Route {
        let Some(method) = path.strip_prefix("/t.S/") else { return Route::UnknownService };
        let at = |list: &[&str]| list.iter().position(|m| *m == method).map(|n| n as u16);
        match (at(&METHODS), at(&STREAMS)) {
            (Some(n), _) => Route::Unary(n),
            (_, Some(n)) => Route::Stream(n),
            _ => Route::UnknownMethod,
        }
    }

    fn unary(&self, method: u16, call: CallInfo, message: Bytes, reply: Reply) {
        self.batch.set(self.batch.get() + 1);
        let lazy = |short| {
            let made = self.made.clone();
            Payload::lazy(Box::new(Zeros { made, left: LAZY_LEN, short }))
        };
        match METHODS[usize::from(method)] {
            "Echo" => reply.ok(message),
            "Later" => {
                self.later.borrow_mut().push(reply);
                self.changed.notify_one();
            }
            "Lazy" => reply.ok(lazy(0)),
            "Short" => reply.ok(lazy(1)),
            "Fail" => reply.err(Status::new(Code::NotFound, "50% not found: é")),
            "Meta" => {
                let token = call.metadata("token").unwrap_or(b"none").to_vec();
                reply.ok(token);
            }
            "Pieces" => {
                let halves = message.len() / 2;
                reply.ok(Payload::pieces(vec![message.slice(..halves), message.slice(halves..)]));
            }
            _ => drop(reply),
        }
    }

    fn batch_end(&self) {
        self.batches.borrow_mut().push(self.batch.take());
    }

    fn stream(
        self: Rc<Self>,
        method: u16,
        _call: CallInfo,
        mut messages: MessageStream,
        sender: StreamSender,
    ) -> LocalFuture<Status> {
        let dropped = CountsDrop(self.streams_dropped.clone());
        Box::pin(async move {
            let _dropped = dropped;
            match STREAMS[usize::from(method)] {
                "Bidi" => loop {
                    match messages.next().await {
                        Ok(Some(message)) => {
                            self.received.set(self.received.get() + 1);
                            if let Err(status) = sender.send(message).await {
                                return status;
                            }
                        }
                        Ok(None) => return Status::new(Code::Aborted, "done"),
                        Err(status) => return status,
                    }
                },
                "Count" => {
                    let payloads = (0..1000u32).map(|n| {
                        let mut buf = MessageBuf::default();
                        buf.begin().put_u32(n);
                        buf.end()
                    });
                    match sender.send_batch(payloads).await {
                        Ok(()) => Status::OK,
                        Err(status) => status,
                    }
                }
                "Slow" => loop {
                    if let Err(status) = sender.send(vec![0; 10_000]).await {
                        return status;
                    }
                    self.made.set(self.made.get() + 10_000);
                },
                "Refuse" => Status::new(Code::Unauthenticated, "no"),
                _ => std::future::pending().await,
            }
        })
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }
}

/// Runs on one thread, with the clock standing still unless all wait for it.
pub fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("runtime");
    LocalSet::new().block_on(&runtime, future)
}

/// A server on one end of a pipe.
pub struct Served {
    pub server: Rc<Server>,
    pub closed: JoinHandle<Closed>,
    pub drain: Rc<Notify>,
}

pub fn serve(limits: Limits) -> (Served, DuplexStream) {
    let (client, io) = tokio::io::duplex(64 * 1024);
    let server = Rc::new(Server::default());
    let drain = Rc::new(Notify::new());
    let draining = drain.clone();
    let serving =
        serve_connection(io, server.clone(), Peer::default(), Rc::new(limits), async move {
            draining.notified().await
        });
    let closed = spawn_local(serving);
    (Served { server, closed, drain }, client)
}

/// A server, and a client that has shaken hands with it.
pub async fn connect(limits: Limits) -> (Served, SendRequest<Bytes>) {
    let (served, io) = serve(limits);
    let (client, connection) = h2::client::handshake(io).await.expect("handshake");
    spawn_local(async move { drop(connection.await) });
    (served, client)
}

pub fn request(method: &str) -> http::request::Builder {
    Request::post(format!("http://localhost/t.S/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

pub fn frame(message: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(0);
    out.put_u32(message.len() as u32);
    out.put_slice(message);
    out.freeze()
}

/// Sends a whole request and gives the future of its response.
pub async fn send(
    client: &SendRequest<Bytes>,
    request: Request<()>,
    body: Bytes,
) -> ResponseFuture {
    let mut client = client.clone().ready().await.expect("ready");
    let (response, mut stream) = client.send_request(request, false).expect("send");
    stream.send_data(body, true).expect("body");
    response
}

/// The end of a call as a client sees it: HTTP status, body, code and text.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    pub http: u16,
    pub body: Bytes,
    pub code: String,
    pub message: String,
    /// Status in the head, without any trailers.
    pub trailers_only: bool,
}

pub async fn outcome(response: Response<h2::RecvStream>) -> Outcome {
    let (head, mut stream) = response.into_parts();
    assert_eq!(head.headers["content-type"], "application/grpc");
    let mut body = BytesMut::new();
    while let Some(data) = stream.data().await {
        let data = data.expect("data");
        stream.flow_control().release_capacity(data.len()).expect("release");
        body.extend_from_slice(&data);
    }
    let trailers = stream.trailers().await.expect("trailers");
    let trailers_only = trailers.is_none();
    let end = trailers.unwrap_or(head.headers);
    let text = |map: &HeaderMap, name| {
        map.get(name).map_or(String::new(), |v| v.to_str().expect("text").to_string())
    };
    Outcome {
        http: head.status.as_u16(),
        body: body.freeze(),
        code: text(&end, "grpc-status"),
        message: text(&end, "grpc-message"),
        trailers_only,
    }
}

/// One unary call from beginning to end.
pub async fn call(client: &SendRequest<Bytes>, method: &str, body: Bytes) -> Outcome {
    let request = request(method).body(()).expect("request");
    outcome(send(client, request, body).await.await.expect("response")).await
}

/// Lets everything that can run without the clock run.
pub async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}
