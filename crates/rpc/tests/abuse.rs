//! Limits: floods, silence, readers that do not read, and the orderly end.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::raw::*;
use common::*;
use etch_rpc::*;
use tokio::io::{AsyncWriteExt, DuplexStream};

#[test]
fn ping_flood() {
    run(async {
        let (served, mut io) = serve(Limits::default());
        greet(&mut io).await;
        for _ in 0..10 {
            io.write_all(&raw(6, 0, 0, &[0; 8])).await.expect("ping");
        }
        assert_eq!(goaway(&mut io).await, Some((11, b"too_many_pings".to_vec())));
        drop(io);
        assert!(matches!(served.closed.await.expect("joined"), Closed::TooManyPings));
        assert_eq!(served.server.stats.connections_cut.get(), 1);
    });
}

#[test]
fn settings_flood() {
    run(async {
        let limits = Limits { max_control_per_second: 50, ..Limits::default() };
        let (served, mut io) = serve(limits);
        greet(&mut io).await;
        for _ in 0..200 {
            if io.write_all(&raw(4, 0, 0, &[])).await.is_err() {
                break;
            }
        }
        assert_eq!(goaway(&mut io).await.map(|g| g.0), Some(11));
        drop(io);
        assert!(matches!(served.closed.await.expect("joined"), Closed::Flood));
    });
}

#[test]
fn rapid_reset() {
    run(async {
        let limits = Limits { max_resets_per_second: 100, ..Limits::default() };
        let (served, client) = connect(limits).await;
        let mut client = client.ready().await.expect("ready");
        for _ in 0..1000 {
            let head = request("Later").body(()).expect("request");
            let Ok((_, mut stream)) = client.send_request(head, false) else { break };
            if stream.send_data(frame(b""), false).is_err() {
                break;
            }
            settle().await;
            stream.send_reset(h2::Reason::CANCEL);
        }
        assert!(matches!(served.closed.await.expect("joined"), Closed::Flood));
        assert!(served.server.later.borrow().len() <= 202);
    });
}

#[test]
fn calls_that_were_reset_still_count() {
    run(async {
        let limits = Limits { max_concurrent_streams: 3, ..Limits::default() };
        let (served, client) = connect(limits).await;
        for _ in 0..3 {
            let head = request("Later").body(()).expect("request");
            let response = send(&client, head, frame(b"")).await;
            served.server.changed.notified().await;
            drop(response);
            settle().await;
        }
        let head = request("Echo").body(()).expect("request");
        let e = send(&client, head, frame(b"")).await.await.expect_err("refused");
        assert_eq!(e.reason(), Some(h2::Reason::REFUSED_STREAM));
        served.server.later.borrow_mut().clear();
        assert_eq!(call(&client, "Echo", frame(b"")).await.code, "0");
    });
}

#[test]
fn no_preface_in_time() {
    run(async {
        let (served, mut io) = serve(Limits::default());
        io.write_all(&PREFACE[..5]).await.expect("write");
        assert!(matches!(served.closed.await.expect("joined"), Closed::Handshake(None)));
    });
}

#[test]
fn silence_is_pinged_and_then_closed() {
    run(async {
        let (served, mut io) = serve(Limits::default());
        let start = tokio::time::Instant::now();
        greet(&mut io).await;
        let closed = served.closed.await.expect("joined");
        assert!(matches!(closed, Closed::KeepaliveTimeout), "{closed:?}");
        assert_eq!(start.elapsed().as_secs(), 2 * 60 * 60 + 20);
    });
}

#[test]
fn a_client_that_answers_pings_stays() {
    run(async {
        let (served, client) = connect(Limits::default()).await;
        tokio::time::sleep(Duration::from_secs(24 * 60 * 60)).await;
        assert!(!served.closed.is_finished());
        assert_eq!(call(&client, "Echo", frame(b"")).await.code, "0");
    });
}

/// Opens streams with huge windows and reads nothing.
async fn ask_and_not_read(io: &mut DuplexStream, n: u32) {
    greet_with_huge_windows(io).await;
    let block = head("Lazy", &[]);
    for id in 0..n {
        let id = id * 2 + 1;
        io.write_all(&raw(1, 4, id, &block)).await.expect("head");
        io.write_all(&raw(0, 1, id, &frame(b""))).await.expect("data");
    }
}

#[test]
fn a_reader_that_reads_nothing_is_held_and_cut() {
    run(async {
        let limits =
            Limits { write_stall_timeout: Some(Duration::from_secs(30)), ..Limits::default() };
        let bound = limits.send_buffer + limits.stream_send_buffer;
        let (served, mut io) = serve(limits);
        ask_and_not_read(&mut io, 100).await;
        let server = served.server.clone();
        let closed = served.closed.await.expect("joined");
        assert!(matches!(closed, Closed::WriteStall), "{closed:?}");
        let made = server.made.get();
        assert!(made > 0 && made < 2 * bound, "{made} bytes made for nobody");
        drop(io);
        settle().await;
        assert_eq!(server.stats.calls_in_flight.get(), 0);
    });
}

#[test]
fn unfinished_requests_are_bounded() {
    let one = Limits { max_partial_bytes: 200_000, ..Limits::default() };
    unfinished("Echo", one.clone());
    unfinished("Bidi", one);
    // Where others hold much, a connection may hold its fair part.
    let fair = 200_000;
    let all =
        Limits { max_partial_bytes_all: 150_000, fair_partial_bytes: fair, ..Limits::default() };
    unfinished("Bidi", all);
    // And beyond that nothing.
    let all = Limits { max_partial_bytes_all: 100_000, ..Limits::default() };
    unfinished("Echo", all);
}

fn unfinished(method: &'static str, limits: Limits) {
    run(async {
        let (served, client) = connect(limits).await;
        let mut held = Vec::new();
        let mut refused = 0;
        for _ in 0..4 {
            let mut ready = client.clone().ready().await.expect("ready");
            let head = request(method).body(()).expect("request");
            let (response, mut stream) = ready.send_request(head, false).expect("send");
            stream.send_data(frame(&[0; 100_000]).slice(..90_000), false).expect("data");
            settle().await;
            let sleep = tokio::time::sleep(Duration::from_secs(1));
            tokio::select! {
                response = response => {
                    let code = response.expect("response").headers()["grpc-status"].clone();
                    assert_eq!(code, "8");
                    refused += 1;
                }
                () = sleep => held.push(stream),
            }
        }
        assert_eq!((held.len(), refused), (2, 2));
        assert_eq!(served.server.stats.calls_in_flight.get(), 2);
        assert_eq!(served.server.stats.partial_bytes.get(), 180_000);
        drop((held, client));
        served.closed.await.expect("joined");
        settle().await;
        assert_eq!(served.server.stats.partial_bytes.get(), 0);
    });
}

#[test]
fn drain_lets_calls_end() {
    run(async {
        let (served, client) = connect(Limits::default()).await;
        let head = request("Later").body(()).expect("request");
        let response = send(&client, head, frame(b"")).await;
        served.server.changed.notified().await;
        served.drain.notify_one();
        settle().await;
        assert!(client.clone().ready().await.is_err(), "the client was told to go elsewhere");
        let reply = served.server.later.borrow_mut().pop().expect("a reply");
        reply.ok(Bytes::from_static(b"late"));
        let got = outcome(response.await.expect("response")).await;
        assert_eq!(got.body, frame(b"late"));
        drop(client);
        assert!(matches!(served.closed.await.expect("joined"), Closed::Done));
    });
}

#[test]
fn drain_has_an_end() {
    run(async {
        let (served, client) = connect(Limits::default()).await;
        let head = request("Hang").body(()).expect("request");
        let _response = send(&client, head, frame(b"")).await;
        settle().await;
        served.drain.notify_one();
        assert!(matches!(served.closed.await.expect("joined"), Closed::DrainTimeout));
        settle().await;
        assert_eq!(served.server.streams_dropped.get(), 1);
    });
}
