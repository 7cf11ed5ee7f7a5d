//! Calls of clients, passed on to the cluster with their own token and deadline. Not here: calls that share
//! something of the cluster's (`watch`, `keepalive`).

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etch_api::pb::etcdserverpb::request_op::Request;
use etch_api::pb::etcdserverpb::{RangeRequest, TxnRequest};
use etch_rpc::{
    CallInfo, Code, Handler, LocalFuture, MessageStream, Payload, Peer, PlainBody, Reply, Route,
    Stats, Status, StreamSender,
};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use prost::Message as _;

use super::cache::Key;
use super::methods::{self, Kind, METHODS};
use super::wire::Answer;
use super::{Proxy, keepalive, watch};

/// The one method whose answers are kept.
const RANGE: &str = "/etcdserverpb.KV/Range";

/// A member's time for a call may be over so much earlier than ours: it is told what is left, in whole units.
const ROUNDING: Duration = Duration::from_millis(2);

/// How a call has failed: where its time is up, whatever the cluster's end did about it is no news.
fn failure(status: Status, deadline: Option<Instant>) -> Status {
    let is_late = deadline.is_some_and(|at| Instant::now() + ROUNDING >= at);
    if is_late && matches!(status.code, Code::Unavailable | Code::Cancelled) {
        return Status::new(Code::DeadlineExceeded, "context deadline exceeded");
    }
    status
}

/// What a client's metadata must not say in our name.
fn is_ours(name: &HeaderName) -> bool {
    const OURS: [HeaderName; 5] = [
        header::CONTENT_TYPE,
        header::TE,
        header::USER_AGENT,
        header::HOST,
        header::CONTENT_LENGTH,
    ];
    OURS.contains(name) || name.as_str().starts_with("grpc-")
}

/// The headers of a call that the proxy makes for itself.
pub(super) fn own_headers() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static("etch-grpc-proxy"));
    headers
}

/// The headers of a call that is passed on: the client's metadata, its token with it, and what is left of its
/// time.
pub(super) fn headers(call: &CallInfo) -> HeaderMap {
    let mut headers = own_headers();
    for (name, value) in call.headers() {
        if !is_ours(name) {
            headers.append(name, value.clone());
        }
    }
    if let Some(deadline) = call.deadline() {
        let left = deadline.saturating_duration_since(Instant::now());
        // At the most eight digits are allowed.
        let text = match left.as_micros() {
            micros @ 0..=99_999_999 => format!("{micros}u"),
            micros => format!("{}m", (micros / 1000).min(99_999_999)),
        };
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert("grpc-timeout", value);
        }
    }
    headers
}

/// The proxy behind one connection.
pub(super) struct Front {
    pub(super) proxy: Rc<Proxy>,
    /// Whether the port is for pages alone.
    pub(super) pages_only: bool,
}

impl Handler for Front {
    fn route(&self, path: &str) -> Route {
        if self.pages_only { Route::UnknownService } else { methods::route(path) }
    }

    fn unary(&self, method: u16, call: CallInfo, message: Bytes, reply: Reply) {
        let (path, kind) = METHODS[usize::from(method)];
        let proxy = Rc::clone(&self.proxy);
        let counts = proxy.calls.of(method);
        counts.started();
        counts.received();
        if path == RANGE && proxy.cache.len() > 0 {
            let key = Key::new(call.headers(), message.clone());
            if let Some(answer) = proxy.cache.get(&key) {
                counts.handled(Code::Ok);
                counts.sent(1);
                return reply.ok(answer);
            }
        }
        tokio::task::spawn_local(async move {
            let status = unary(&proxy, path, kind, call, message, reply).await;
            let counts = proxy.calls.of(method);
            counts.handled(status);
            if status == Code::Ok {
                counts.sent(1);
            }
        });
    }

    fn stream(
        self: Rc<Self>,
        method: u16,
        call: CallInfo,
        messages: MessageStream,
        sender: StreamSender,
    ) -> LocalFuture<Status> {
        let proxy = Rc::clone(&self.proxy);
        let (path, kind) = METHODS[usize::from(method)];
        Box::pin(async move {
            let stopped = proxy.stopped();
            let counted = Counted::new(&proxy, method);
            let serving = async {
                match kind {
                    Kind::Watch => watch::serve(Rc::clone(&proxy), call, messages, sender).await,
                    Kind::KeepAlive => {
                        keepalive::serve(Rc::clone(&proxy), call, messages, sender).await
                    }
                    _ => pass(&proxy, method, call, messages, sender).await,
                }
            };
            let status = tokio::select! {
                status = serving => status,
                // Whoever hears this asks somebody else, and goes on where it was.
                () = stopped => Status::new(Code::Unavailable, "etcdserver: server stopped"),
            };
            counted.ended(status.code);
            proxy.log_call(path, &status);
            status
        })
    }

    fn plain(
        self: Rc<Self>,
        request: http::Request<Bytes>,
        peer: Rc<Peer>,
    ) -> LocalFuture<http::Response<PlainBody>> {
        Box::pin(async move {
            let (head, body) = request.into_parts();
            super::pages::answer(&self, &peer, head, super::pages::whole(body)).await
        })
    }

    fn stats(&self) -> &Stats {
        &self.proxy.stats
    }
}

/// A stream, which is handled however it ends.
struct Counted {
    proxy: Rc<Proxy>,
    method: u16,
    code: Code,
}

impl Counted {
    fn new(proxy: &Rc<Proxy>, method: u16) -> Self {
        proxy.calls.of(method).started();
        Self { proxy: Rc::clone(proxy), method, code: Code::Cancelled }
    }

    fn ended(mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.proxy.calls.of(self.method).handled(self.code);
    }
}

/// Asks, answers, and says how it went.
async fn unary(
    proxy: &Rc<Proxy>,
    path: &'static str,
    kind: Kind,
    call: CallInfo,
    message: Bytes,
    mut reply: Reply,
) -> Code {
    let answer = tokio::select! {
        biased;
        answer = ask(proxy, path, kind, &call, message) => {
            answer.map_err(|status| failure(status, call.deadline()))
        }
        // Dropping the call takes it back from the cluster as well.
        () = reply.cancelled(), if kind == Kind::Wait => return Code::Cancelled,
    };
    if proxy.log_calls {
        let status = answer.as_ref().err().unwrap_or(&Status::OK);
        proxy.log_call(path, status);
    }
    match answer {
        Ok(answer) => {
            reply.ok(answer);
            Code::Ok
        }
        Err(status) => {
            let code = status.code;
            reply.err(status);
            code
        }
    }
}

async fn ask(
    proxy: &Rc<Proxy>,
    path: &'static str,
    kind: Kind,
    call: &CallInfo,
    message: Bytes,
) -> Result<Payload, Status> {
    if let Some(layers) = &proxy.layers
        && let Some(answer) = layers.unary(path, call, &message).await
    {
        return answer.map(Payload::from);
    }
    let headers = headers(call);
    let sent = proxy.keys.request(path, message.clone())?;
    if path == RANGE
        && let Ok(range) = RangeRequest::decode(sent.clone())
        && range.serializable
        && range.revision == 0
    {
        let answer = proxy.upstream.unary(path, &headers, &sent, true).await?;
        let answer = proxy.keys.answer(path, answer.bytes())?;
        let key = Key::new(call.headers(), message);
        proxy.cache.put(proxy, key, &range, &answer, &headers);
        return Ok(answer.into());
    }
    if kind == Kind::Members {
        return super::cluster::members(proxy, path, &headers, &sent).await.map(Payload::from);
    }
    let mut asked = proxy.upstream.unary(path, &headers, &sent, kind == Kind::Read).await;
    if asked.as_ref().is_err_and(|status| status.code == Code::OutOfRange)
        && let Some(sent) = linearizable(path, &sent)
    {
        // The revision may be one that another member has told of, which this one has not heard of yet.
        asked = proxy.upstream.unary(path, &headers, &sent, true).await;
    }
    if kind == Kind::Read {
        let answer = asked?;
        return match proxy.keys.namespace() {
            None => Ok(answer.payload()),
            Some(_) => proxy.keys.answer(path, answer.bytes()).map(Payload::from),
        };
    }
    let answer = asked.map(Answer::bytes);
    proxy.cache.wrote(proxy, path, &sent, answer.as_ref().ok());
    proxy.keys.answer(path, answer?).map(Payload::from)
}

/// A read that a member answers from what it has heard, as one that it answers from what there is. None if it is
/// something else.
fn linearizable(path: &str, message: &Bytes) -> Option<Bytes> {
    if path == RANGE {
        let range = RangeRequest::decode(message.clone()).ok()?;
        let linearizable = || RangeRequest { serializable: false, ..range.clone() };
        return range.serializable.then(|| linearizable().encode_to_vec().into());
    }
    if path != "/etcdserverpb.KV/Txn" {
        return None;
    }
    let mut txn = TxnRequest::decode(message.clone()).ok()?;
    let mut ranges = Vec::new();
    for op in txn.success.iter_mut().chain(&mut txn.failure) {
        match &mut op.request {
            Some(Request::RequestRange(range)) if range.serializable => ranges.push(range),
            _ => return None,
        }
    }
    // One that is not serializable makes the others wait with it.
    ranges.pop()?.serializable = false;
    Some(txn.encode_to_vec().into())
}

/// Messages in either direction, until the cluster ends the call or the client is gone.
async fn pass(
    proxy: &Proxy,
    method: u16,
    call: CallInfo,
    mut messages: MessageStream,
    sender: StreamSender,
) -> Status {
    let (path, _) = METHODS[usize::from(method)];
    let counts = proxy.calls.of(method);
    let deadline = call.deadline();
    let (mut out, mut incoming) = match proxy.upstream.stream(path, &headers(&call)).await {
        Ok(both) => both,
        Err(status) => return failure(status, deadline),
    };
    let up = async {
        while let Some(message) = messages.next().await? {
            counts.received();
            let message = proxy.keys.request(path, message)?;
            proxy.upstream.check(&message)?;
            out.send(&message).await?;
        }
        out.end();
        std::future::pending::<Result<(), Status>>().await
    };
    let down = async {
        while let Some(message) = incoming.next().await? {
            sender.send(proxy.keys.answer(path, message)?).await?;
            counts.sent(1);
        }
        Ok(())
    };
    let ended = tokio::select! {
        ended = down => ended,
        ended = up => ended,
    };
    match ended {
        Ok(()) => Status::OK,
        Err(status) if status.is_ok() => Status::new(Code::Internal, "the stream has ended"),
        Err(status) => failure(status, deadline),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etch_api::pb::etcdserverpb::RequestOp;

    #[test]
    fn reads_of_what_a_member_has_heard_can_be_asked_again() {
        let range = |serializable| RangeRequest { serializable, revision: 7, ..<_>::default() };
        let op =
            |serializable| RequestOp { request: Some(Request::RequestRange(range(serializable))) };
        let put = || RequestOp { request: Some(Request::RequestPut(<_>::default())) };
        let ask = |path, message: Vec<u8>| linearizable(path, &message.into());
        let again = ask(RANGE, range(true).encode_to_vec());
        assert_eq!(again, Some(range(false).encode_to_vec().into()));
        assert_eq!(ask(RANGE, range(false).encode_to_vec()), None);
        let txn = |success: Vec<RequestOp>, failure: Vec<RequestOp>| {
            ask(
                "/etcdserverpb.KV/Txn",
                TxnRequest { success, failure, ..<_>::default() }.encode_to_vec(),
            )
        };
        let again = txn(vec![op(true)], vec![op(true)]).expect("reads alone");
        let again = TxnRequest::decode(again).expect("a transaction");
        assert_eq!((again.success, again.failure), (vec![op(true)], vec![op(false)]));
        for other in [
            txn(vec![op(true), put()], vec![]),
            txn(vec![op(false)], vec![op(true)]),
            txn(vec![], vec![]),
        ] {
            assert_eq!(other, None);
        }
        assert_eq!(ask("/etcdserverpb.KV/Put", Vec::new()), None);
    }

    #[test]
    fn what_fails_when_its_time_is_up_was_too_late() {
        let cut = || Status::new(Code::Unavailable, "error reading from server");
        let (past, future) = (Instant::now(), Instant::now() + Duration::from_secs(60));
        assert_eq!(failure(cut(), Some(past)).code, Code::DeadlineExceeded);
        assert_eq!(failure(cut(), Some(future)), cut());
        assert_eq!(failure(cut(), None), cut());
        let refused = || Status::new(Code::PermissionDenied, "no");
        assert_eq!(failure(refused(), Some(past)), refused());
    }
}
