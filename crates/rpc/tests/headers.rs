//! Headers of all kinds as `h2`'s client packs them, beside what arrives.

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use common::{frame, outcome, run};
use etch_rpc::*;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use tokio::task::spawn_local;

#[derive(Default)]
struct Keeper {
    stats: Stats,
    seen: RefCell<Vec<(String, HeaderMap)>>,
}

impl Handler for Keeper {
    fn route(&self, path: &str) -> Route {
        if path.starts_with("/t.S/") { Route::Unary(0) } else { Route::UnknownService }
    }

    fn unary(&self, _method: u16, call: CallInfo, message: Bytes, reply: Reply) {
        let authority = call.authority().unwrap_or("none").to_string();
        self.seen.borrow_mut().push((authority, call.headers().clone()));
        reply.ok(message);
    }

    fn stream(
        self: Rc<Self>,
        _method: u16,
        _call: CallInfo,
        _messages: MessageStream,
        _sender: StreamSender,
    ) -> LocalFuture<Status> {
        Box::pin(async { Status::OK })
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }

    fn name(&mut self) -> HeaderName {
        const KNOWN: [&str; 8] =
            ["accept", "cookie", "user-agent", "authorization", "token", "etag", "range", "x"];
        if self.below(2) == 0 {
            return HeaderName::from_static(KNOWN[self.below(KNOWN.len())]);
        }
        const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789-_.!#$%&'*+^`|~";
        let len = 1 + self.below(30);
        let name: Vec<u8> = (0..len).map(|_| LETTERS[self.below(LETTERS.len())]).collect();
        HeaderName::from_bytes(&[b"n", &name[..]].concat()).expect("a name")
    }

    fn value(&mut self) -> HeaderValue {
        let len = [0, 1, 10, 100, 1_000, 6_000][self.below(6)];
        let any = self.below(2) == 0;
        let byte = |dice: &mut Dice| match dice.below(224) as u8 + 32 {
            127 => b'\t',
            b if any => b,
            b => b'a' + b % 26,
        };
        let value: Vec<u8> = (0..len).map(|_| byte(self)).collect();
        HeaderValue::from_bytes(&value).expect("a value")
    }
}

#[test]
fn what_is_sent_arrives() {
    run(async {
        let (client, io) = tokio::io::duplex(64 * 1024);
        let keeper = Rc::new(Keeper::default());
        let never = std::future::pending();
        let limits = Rc::new(Limits::default());
        let serving = serve_connection(io, keeper.clone(), Peer::default(), limits, never);
        spawn_local(serving);
        let (client, connection) = h2::client::handshake(client).await.expect("handshake");
        spawn_local(async move { drop(connection.await) });
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        let mut kept: Vec<(HeaderName, HeaderValue)> = Vec::new();
        for n in 0..2_000 {
            let mut want = HeaderMap::new();
            want.insert("content-type", HeaderValue::from_static("application/grpc"));
            // Some that the table may hold, some that it cannot know.
            for _ in 0..dice.below(6) {
                if kept.len() < 20 || dice.below(3) == 0 {
                    kept.push((dice.name(), dice.value()));
                }
                let (name, value) = kept[dice.below(kept.len())].clone();
                want.append(name, value);
            }
            kept.truncate(40);
            let authority = format!("host-{}", dice.below(3));
            let uri = format!("http://{authority}/t.S/M{}", dice.below(4));
            let mut request = Request::post(uri).body(()).expect("request");
            *request.headers_mut() = want.clone();
            if n % 2 == 0 {
                // It is told apart, so that calls need not differ for it.
                let timeout = HeaderValue::from_str(&format!("{}S", 1_000 + n)).expect("a value");
                request.headers_mut().append("grpc-timeout", timeout);
            }
            let answer = common::send(&client, request, frame(b"x")).await;
            assert_eq!(outcome(answer.await.expect("response")).await.body, frame(b"x"));
            let (seen_authority, seen) = keeper.seen.borrow_mut().pop().expect("a call");
            assert_eq!(seen_authority, authority);
            assert_eq!(seen, want, "call {n}");
        }
    });
}

/// A page gets all that was said, the deadline too.
#[test]
fn pages_see_all_headers() {
    struct Page(Stats);

    impl Handler for Page {
        fn route(&self, _path: &str) -> Route {
            Route::UnknownService
        }

        fn unary(&self, _method: u16, _call: CallInfo, _message: Bytes, _reply: Reply) {}

        fn stream(
            self: Rc<Self>,
            _method: u16,
            _call: CallInfo,
            _messages: MessageStream,
            _sender: StreamSender,
        ) -> LocalFuture<Status> {
            Box::pin(async { Status::OK })
        }

        fn plain(
            self: Rc<Self>,
            request: Request<Bytes>,
            _peer: Rc<Peer>,
        ) -> LocalFuture<http::Response<PlainBody>> {
            let mut said = format!("{} {}", request.method(), request.uri());
            for (name, value) in request.headers() {
                said += &format!("\n{name}: {}", value.to_str().expect("text"));
            }
            let whole = [said.as_bytes(), b"\n", request.body()].concat();
            let body = http_body_util::Full::new(Bytes::from(whole));
            let body =
                http_body_util::BodyExt::map_err(body, |never| -> BoxError { match never {} });
            let answer = http::Response::new(Box::pin(body) as PlainBody);
            Box::pin(async move { answer })
        }

        fn stats(&self) -> &Stats {
            &self.0
        }
    }

    run(async {
        let (client, io) = tokio::io::duplex(64 * 1024);
        let page = Rc::new(Page(Stats::default()));
        let never = std::future::pending();
        spawn_local(serve_connection(io, page, Peer::default(), Rc::default(), never));
        let (client, connection) = h2::client::handshake(client).await.expect("handshake");
        spawn_local(async move { drop(connection.await) });
        let request = Request::post("http://host:1/page?x=y").header("grpc-timeout", "1S");
        let request = request.header("a", "b").body(()).expect("request");
        let answer = common::send(&client, request, Bytes::from_static(b"the body")).await;
        let mut body = answer.await.expect("response").into_body();
        let mut said = Vec::new();
        while let Some(data) = body.data().await {
            said.extend_from_slice(&data.expect("data"));
        }
        let want = "POST http://host:1/page?x=y\na: b\ngrpc-timeout: 1S\nthe body";
        assert_eq!(String::from_utf8_lossy(&said), want);
    });
}
