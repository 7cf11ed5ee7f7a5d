//! Deadlines of unary calls: answered when they are over, whoever still works
//! on them, and never answered twice.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::raw::*;
use common::*;
use etch_rpc::*;
use http::Request;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

fn timed(method: &str, timeout: &str) -> Request<()> {
    let mut request = request(method).body(()).expect("request");
    request.headers_mut().insert("grpc-timeout", timeout.parse().expect("a value"));
    request
}

#[test]
fn a_call_that_nobody_answers_ends_at_its_deadline() {
    run(async {
        let (served, client) = connect(Limits::default()).await;
        let began = Instant::now();
        let slow = send(&client, timed("Later", "3S"), frame(b"")).await;
        let quick = send(&client, timed("Later", "250m"), frame(b"")).await;
        let endless = send(&client, request("Later").body(()).expect("request"), frame(b"")).await;
        let got = outcome(quick.await.expect("response")).await;
        assert_eq!((&got.code[..], &got.message[..]), ("4", "context deadline exceeded"));
        assert!(began.elapsed() >= Duration::from_millis(250));
        assert!(began.elapsed() < Duration::from_millis(300), "{:?}", began.elapsed());
        let got = outcome(slow.await.expect("response")).await;
        assert_eq!(got.code, "4");
        assert!(began.elapsed() < Duration::from_millis(3_050), "{:?}", began.elapsed());
        assert_eq!(served.server.stats.calls_in_flight.get(), 1);
        // The answers that come too late go nowhere, and the one that is waited for does not.
        let late: Vec<Reply> = served.server.later.take();
        assert_eq!(late.len(), 3);
        for mut reply in late {
            reply.is_cancelled();
            reply.ok(Bytes::from_static(b"late"));
        }
        assert_eq!(outcome(endless.await.expect("response")).await.body, frame(b"late"));
        assert_eq!(served.server.stats.calls_in_flight.get(), 0);
    });
}

#[test]
fn a_place_is_not_taken_before_its_late_answer_is_gone() {
    run(async {
        let (served, client) = connect(Limits::default()).await;
        let over = send(&client, timed("Later", "10m"), frame(b"")).await;
        assert_eq!(outcome(over.await.expect("response")).await.code, "4");
        let next = send(&client, timed("Later", "9S"), frame(b"")).await;
        settle().await;
        let mut replies = served.server.later.take();
        let second = replies.pop().expect("two");
        let mut first = replies.pop().expect("one");
        assert!(first.is_cancelled());
        first.ok(Bytes::from_static(b"for nobody"));
        second.ok(Bytes::from_static(b"for the second"));
        assert_eq!(outcome(next.await.expect("response")).await.body, frame(b"for the second"));
    });
}

#[test]
fn answers_in_time_are_answers() {
    run(async {
        let (served, client) = connect(Limits::default()).await;
        for _ in 0..100 {
            let echo = send(&client, timed("Echo", "1S"), frame(b"x")).await;
            assert_eq!(outcome(echo.await.expect("response")).await.code, "0");
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(call(&client, "Echo", frame(b"y")).await.body, frame(b"y"));
        assert_eq!(served.server.stats.calls_in_flight.get(), 0);
    });
}

/// A request that never comes in whole is reset, and nothing of it stays.
#[test]
fn half_a_request_ends_at_its_deadline() {
    run(async {
        let (served, mut io) = serve(Limits::default());
        greet(&mut io).await;
        for n in 0..50 {
            let id = 2 * n + 1;
            let block = head("Echo", &[("grpc-timeout", "20m")]);
            io.write_all(&raw(1, 4, id, &block)).await.expect("head");
            io.write_all(&raw(0, 0, id, &frame(b"whole")[..7])).await.expect("half");
        }
        let mut resets = 0;
        while resets < 50 {
            let frame = next_frame(&mut io).await.expect("not cut");
            if frame.kind == 3 {
                assert_eq!(frame.payload, 8u32.to_be_bytes());
                resets += 1;
            }
        }
        settle().await;
        assert_eq!(served.server.stats.calls_in_flight.get(), 0);
        // What comes in late is nothing to anybody.
        io.write_all(&raw(0, 1, 1, b"e")).await.expect("rest");
        io.write_all(&call_frames(201, "Echo", b"z", true)).await.expect("call");
        while !next_frame(&mut io).await.expect("not cut").ends_stream() {}
    });
}

/// An answer that the client takes too slowly is broken off.
#[test]
fn a_large_answer_ends_at_its_deadline() {
    run(async {
        let (served, mut io) = serve(Limits::default());
        greet(&mut io).await;
        let block = head("Lazy", &[("grpc-timeout", "1S")]);
        io.write_all(&raw(1, 4, 1, &block)).await.expect("head");
        io.write_all(&raw(0, 1, 1, &frame(b""))).await.expect("request");
        while next_frame(&mut io).await.expect("not cut").kind != 3 {}
        settle().await;
        assert_eq!(served.server.stats.calls_in_flight.get(), 0);
        assert!(served.server.made.get() < LAZY_LEN);
    });
}
