//! Bytes on the port: HTTP/1.1, HTTP/2 frames, and gRPC's messages within a good connection. Not here: what calls
//! do.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use etch_rpc::{
    CallInfo, Code, Handler, Limits, LocalFuture, MessageStream, Peer, Protocol, Reply, Route,
    Stats, Status, StreamSender, serve_connection, sniff,
};
#[cfg(feature = "server")]
use etch_server::http::{Http1Limits, serve_http1};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::task::LocalSet;

use crate::{Bits, Target};

/// Any bytes on the HTTP side.
#[cfg(feature = "server")]
pub const HTTP1: Target = Target { name: "http1", run: http1, seeds: some_http1, memory: 8 << 20 };
/// Any bytes behind HTTP/2's preface.
pub const HTTP2: Target =
    Target { name: "http2", run: http2, seeds: some_frames, memory: 16 << 20 };
/// Bytes of a call's body in good frames.
pub const GRPC: Target = Target { name: "grpc", run: grpc, seeds: some_bodies, memory: 16 << 20 };

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// No connection whose client is gone may stay for longer.
const PATIENCE: Duration = Duration::from_secs(8);

/// Answers every call with what it was sent.
#[derive(Default)]
struct Echo {
    stats: Stats,
}

impl Handler for Echo {
    fn route(&self, path: &str) -> Route {
        match path {
            "/t.S/Unary" => Route::Unary(0),
            "/t.S/Stream" => Route::Stream(0),
            _ => Route::UnknownMethod,
        }
    }

    fn unary(&self, _method: u16, _call: CallInfo, message: Bytes, reply: Reply) {
        reply.ok(message);
    }

    fn stream(
        self: Rc<Self>,
        _method: u16,
        _call: CallInfo,
        mut messages: MessageStream,
        sender: StreamSender,
    ) -> LocalFuture<Status> {
        Box::pin(async move {
            loop {
                match messages.next().await {
                    Ok(Some(message)) => {
                        if let Err(status) = sender.send(message).await {
                            return status;
                        }
                    }
                    Ok(None) => return Status::new(Code::Ok, ""),
                    Err(status) => return status,
                }
            }
        })
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }
}

/// A client that sends these bytes, takes whatever comes, and is gone.
async fn send(io: DuplexStream, bytes: &[u8]) {
    let (mut from, mut to) = split(io);
    let write = async {
        let _ = to.write_all(bytes).await;
        let _ = to.shutdown().await;
    };
    let read = async {
        let mut heap = [0; 4096];
        while matches!(from.read(&mut heap).await, Ok(n) if n > 0) {}
    };
    // The server need not close a connection that is half open.
    let _ = tokio::join!(write, tokio::time::timeout(Duration::from_millis(5), read));
}

fn talk(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    LocalSet::new().block_on(&runtime.expect("a runtime"), async {
        let (ours, theirs) = duplex(64 << 10);
        let served = tokio::task::spawn_local(serve(ours));
        send(theirs, bytes).await;
        let ended = tokio::time::timeout(PATIENCE, served).await;
        ended.expect("a connection whose client is gone ends").expect("no panic");
    });
}

/// What a port of both kinds does.
async fn serve(io: DuplexStream) {
    let Ok((protocol, io)) = sniff(io, Duration::from_secs(2)).await else { return };
    match protocol {
        Protocol::Http2 => {
            let limits = Rc::new(Limits::default());
            let drain = std::future::pending();
            serve_connection(io, Rc::new(Echo::default()), Peer::default(), limits, drain).await;
        }
        #[cfg(not(feature = "server"))]
        _ => drop(io),
        #[cfg(feature = "server")]
        _ => {
            let answer = |request: http::Request<Bytes>| async move {
                http::Response::new(request.into_body())
            };
            let _ = serve_http1(io, &Http1Limits::default(), std::future::pending(), answer).await;
        }
    }
}

#[cfg(feature = "server")]
fn http1(input: &[u8]) {
    talk(input);
}

fn http2(input: &[u8]) {
    talk(&[PREFACE, &frame(4, 0, 0, &[]), input].concat());
}

/// The first byte chooses the method and whether gzip is announced; pieces are frames of DATA.
fn grpc(input: &[u8]) {
    let mut bits = Bits(input);
    let how = bits.byte();
    let method = if how & 1 == 0 { "Unary" } else { "Stream" };
    let encoding = if how & 2 == 0 { "identity" } else { "gzip" };
    let mut bytes =
        [PREFACE, &frame(4, 0, 0, &[]), &frame(1, 4, 1, &head(method, encoding))].concat();
    while !bits.is_empty() {
        let piece = bits.piece();
        for part in piece.chunks(16_384) {
            bytes.extend(frame(0, u8::from(bits.is_empty()), 1, part));
        }
    }
    talk(&bytes);
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// POST, http, path and three headers, as literals.
fn head(method: &str, encoding: &str) -> Vec<u8> {
    let path = format!("/t.S/{method}");
    let mut block = vec![0x83, 0x86, 0x04, path.len() as u8];
    block.extend(path.as_bytes());
    for (name, value) in
        [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-encoding", encoding)]
    {
        block.push(0);
        for text in [name, value] {
            block.push(text.len() as u8);
            block.extend(text.as_bytes());
        }
    }
    block
}

#[cfg(feature = "server")]
fn some_http1() -> Vec<Vec<u8>> {
    [
        "GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /v3/kv/put HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "GET / HTTP/1.0\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

fn some_frames() -> Vec<Vec<u8>> {
    let message = [0, 0, 0, 0, 3, b'a', b'b', b'c'];
    let call = [frame(1, 4, 1, &head("Unary", "identity")), frame(0, 1, 1, &message)].concat();
    vec![
        call.clone(),
        [call, frame(6, 0, 0, &[0; 8]), frame(8, 0, 0, &[0, 0, 1, 0])].concat(),
        [frame(4, 0, 0, &[0, 4, 0, 1, 0, 0]), frame(3, 0, 1, &[0, 0, 0, 8])].concat(),
        [frame(1, 0, 3, &head("Stream", "gzip")), frame(9, 4, 3, &[])].concat(),
        frame(7, 0, 0, &[0; 8]),
        [frame(1, 4, 1, KEPT), frame(0, 1, 1, &message), frame(1, 5, 3, &[0x83, 0x86, 0xc0, 0xbf])]
            .concat(),
        [
            frame(4, 0, 0, &[0, 4, 0, 0, 0, 2, 0, 1, 0, 0, 0, 99]),
            frame(1, 0x2c, 1, &[&[2, 0, 0, 0, 0, 9], KEPT, &[0, 0]].concat()),
            frame(0, 9, 1, &[&[1], &message[..], &[0]].concat()),
            frame(8, 0, 1, &[0, 0, 0, 9]),
        ]
        .concat(),
    ]
}

/// A head whose path (packed) and content type are put into the table, behind a change of its size.
const KEPT: &[u8] =
    b"\x3f\xe1\x1f\x83\x86\x44\x88\x61\x2b\xee\x63\x85\x43\xb3\xd7\x5f\x10application/grpc";

fn some_bodies() -> Vec<Vec<u8>> {
    let message = [0, 0, 0, 0, 3, b'a', b'b', b'c'];
    // An empty block of deflate, as gzip frames it.
    let packed = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let packed = [&[1, 0, 0, 0, packed.len() as u8][..], &packed].concat();
    (0..4)
        .map(|how| {
            let mut input = vec![how];
            Bits::put(&mut input, &message[..6]);
            Bits::put(&mut input, &message[6..]);
            Bits::put(&mut input, if how & 2 == 0 { &message[..] } else { &packed[..] });
            input
        })
        .collect()
}
