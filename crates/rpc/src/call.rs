//! What the server implements ([`Handler`]) and what it is told of a call
//! ([`CallInfo`]). Not here: how bytes become a call; that is `http2`.

use std::any::Any;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;

use crate::codec::head::Head;
use crate::plain::{self, PlainBody};
use crate::reply::Reply;
use crate::stats::Stats;
use crate::status::Status;
use crate::stream::{MessageStream, StreamSender};

/// A boxed future that stays on its thread.
pub type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// What a path names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// One message in, one out; the number is the server's own.
    Unary(u16),
    /// Messages in either direction or both.
    Stream(u16),
    /// The service is known, the method is not.
    UnknownMethod,
    /// No such service.
    UnknownService,
}

/// The other end of a connection, as whoever accepted it knows it.
#[derive(Default)]
pub struct Peer {
    /// Its address; none on a Unix socket.
    pub remote: Option<SocketAddr>,
    /// Our own address.
    pub local: Option<SocketAddr>,
    /// Common name of the client certificate that was verified.
    pub common_name: Option<String>,
    /// Whatever else the server wants to find again at each call.
    pub extension: Option<Box<dyn Any>>,
}

/// A call's request headers, its connection's peer and its deadline.
pub struct CallInfo {
    pub(crate) head: Rc<Head>,
    pub(crate) peer: Rc<Peer>,
    pub(crate) deadline: Option<Instant>,
}

impl CallInfo {
    /// A call from elsewhere than a connection of this crate (the gateway for
    /// JSON, tests).
    pub fn new(headers: HeaderMap, peer: Rc<Peer>, deadline: Option<Instant>) -> CallInfo {
        CallInfo { head: Rc::new(Head::local(headers)), peer, deadline }
    }

    /// The first value under a name (in lower case).
    pub fn metadata(&self, name: &str) -> Option<&[u8]> {
        self.head.headers.get(name).map(http::HeaderValue::as_bytes)
    }

    /// The first value under a name, where it is visible ASCII.
    pub fn metadata_str(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// Every value under a name, in order.
    pub fn metadata_all(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.head.headers.get_all(name).iter().map(http::HeaderValue::as_bytes)
    }

    /// What the server makes of the request headers, which is made once for all calls of a connection that bear the same.
    ///
    /// # Panics
    /// If another type of it was asked for before.
    pub fn note<T: 'static>(&self, make: impl FnOnce(&HeaderMap) -> T) -> &T {
        let note = self.head.note.get_or_init(|| Box::new(make(&self.head.headers)));
        note.downcast_ref().expect("one type of notes")
    }

    /// All request headers but the pseudo-headers and the deadline.
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// The `:authority` of the request, or its `host`.
    pub fn authority(&self) -> Option<&str> {
        match self.head.uri.authority() {
            Some(a) => Some(a.as_str()),
            None => self.metadata_str("host"),
        }
    }

    /// The peer of the connection.
    pub fn peer(&self) -> &Rc<Peer> {
        &self.peer
    }

    /// When the client stops waiting. The call is ended by this crate then:
    /// a stream's future is dropped, a unary call's answer comes too late.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

/// The server behind the connections of one thread.
pub trait Handler: 'static {
    /// What this path (`/package.Service/Method`) names.
    fn route(&self, path: &str) -> Route;

    /// A unary call, whole. `reply` is to be completed now or later, on this
    /// thread; dropped without an answer it says `Internal`.
    fn unary(&self, method: u16, call: CallInfo, message: Bytes, reply: Reply);

    /// All unary calls that one turn of a connection brought are handed over.
    fn batch_end(&self) {}

    /// A streaming call. The future runs as a local task of its own, and what
    /// it gives is the status that the client gets once all messages sent
    /// before are out. It is dropped when the client resets the stream, the
    /// deadline passes, or the connection is lost: clean up by `Drop`.
    fn stream(
        self: Rc<Self>,
        method: u16,
        call: CallInfo,
        messages: MessageStream,
        sender: StreamSender,
    ) -> LocalFuture<Status>;

    /// A request that is not gRPC. By default it is refused as Go's gRPC
    /// server refuses it. The body is whole, of at most `max_recv_message`.
    fn plain(
        self: Rc<Self>,
        request: http::Request<Bytes>,
        _peer: Rc<Peer>,
    ) -> LocalFuture<http::Response<PlainBody>> {
        let answer = plain::not_grpc(request.headers());
        Box::pin(async move { answer })
    }

    /// The counters of this thread.
    fn stats(&self) -> &Stats;
}
