//! Unary calls: answers, errors and texts as Go's server gives them, large
//! answers, batches.

mod common;

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use common::*;
use etch_rpc::*;

fn err(code: &str, message: &str) -> Outcome {
    let (code, message) = (code.to_string(), message.to_string());
    Outcome { http: 200, body: Bytes::new(), code, message, trailers_only: true }
}

#[test]
fn ok_and_errors() {
    run(async {
        let (served, client) = connect(Limits::default()).await;
        let got = call(&client, "Echo", frame(b"hello")).await;
        assert_eq!((&got.body, &*got.code), (&frame(b"hello"), "0"));
        assert!(!got.trailers_only);
        let got = call(&client, "Echo", frame(b"")).await;
        assert_eq!((&got.body, &*got.code), (&frame(b""), "0"));
        let got = call(&client, "Fail", frame(b"")).await;
        assert_eq!(got, err("5", "50%25 not found: %C3%A9"));
        let got = call(&client, "Drop", frame(b"")).await;
        assert_eq!(got, err("13", "the call was dropped without an answer"));
        let got = call(&client, "Nope", frame(b"")).await;
        assert_eq!(got, err("12", "unknown method Nope for service t.S"));
        let stats = &served.server.stats;
        assert_eq!((stats.calls.get(), stats.messages_in.get()), (5, 4));
        assert_eq!((stats.calls_in_flight.get(), stats.message_bytes_out.get()), (0, 5));
    });
}

#[test]
fn pieces_arrive_as_one_message() {
    run(async {
        let (_served, client) = connect(Limits::default()).await;
        for len in [0, 1, 100, 5_000, 300_000] {
            let message: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let got = call(&client, "Pieces", frame(&message)).await;
            assert_eq!((got.body, &*got.code), (frame(&message), "0"), "{len}");
        }
    });
}

#[test]
fn calls_of_one_read_are_one_batch() {
    run(async {
        let (served, client) = connect(Limits::default()).await;
        let mut responses = Vec::new();
        for n in 0..64u8 {
            let request = request("Later").body(()).expect("request");
            responses.push(send(&client, request, frame(&[n])).await);
        }
        let server = &served.server;
        while server.later.borrow().len() < 64 {
            server.changed.notified().await;
        }
        settle().await;
        let batches = server.batches.borrow().clone();
        assert_eq!(batches.iter().sum::<usize>(), 64);
        assert!(batches.len() < 16, "calls come in batches: {batches:?}");
        assert_eq!(server.stats.calls_in_flight.get(), 64);
        for (n, reply) in server.later.borrow_mut().drain(..).enumerate() {
            reply.ok(vec![n as u8]);
        }
        for (n, response) in responses.into_iter().enumerate() {
            let got = outcome(response.await.expect("response")).await;
            assert_eq!(got.body, frame(&[n as u8]));
        }
        assert_eq!(server.stats.calls_in_flight.get(), 0);
    });
}

#[test]
fn bodies_in_parts_and_large() {
    run(async {
        let (_served, client) = connect(Limits::default()).await;
        let message = vec![9; 1_500_000];
        let got = call(&client, "Echo", frame(&message)).await;
        assert_eq!(got.body, frame(&message));
        // A byte at a time, other calls in between.
        let mut ready = client.clone().ready().await.expect("ready");
        let head = request("Echo").body(()).expect("request");
        let (response, mut stream) = ready.send_request(head, false).expect("send");
        let body = frame(b"slowly");
        for n in 0..body.len() {
            settle().await;
            stream.send_data(body.slice(n..n + 1), false).expect("data");
            assert_eq!(call(&client, "Echo", frame(b"x")).await.code, "0");
        }
        // The end of the stream is not waited for.
        assert_eq!(response.await.expect("response").status(), 200);
    });
}

/// All of it is there at once, and nothing comes later that would wake the connection again.
#[test]
fn a_message_longer_than_a_turn_reads_arrives() {
    run(async {
        let limits = Limits { read_per_turn: 512, ..Limits::default() };
        let (_served, client) = connect(limits).await;
        let message = vec![9; 60_000];
        let body = frame(&message);
        let answered = tokio::time::timeout(Duration::from_secs(60), call(&client, "Echo", body));
        let got = answered.await.expect("the connection goes on by itself");
        assert_eq!(got.body, frame(&message));
    });
}

#[test]
fn malformed_messages() {
    run(async {
        let limits = Limits { max_recv_message: 10, ..Limits::default() };
        let (_served, client) = connect(limits).await;
        let text = "grpc: received message larger than max (11 vs. 10)";
        assert_eq!(call(&client, "Echo", frame(&[0; 11])).await, err("8", text));
        assert_eq!(call(&client, "Echo", Bytes::new()).await, err("2", "EOF"));
        let half = frame(b"half").slice(..6);
        assert_eq!(call(&client, "Echo", half).await, err("2", "unexpected EOF"));
        let text = "grpc: compressed flag set with identity or empty encoding";
        let mut flagged = BytesMut::from(&frame(b"x")[..]);
        flagged[0] = 1;
        assert_eq!(call(&client, "Echo", flagged.freeze()).await, err("13", text));
        let mut two = BytesMut::from(&frame(b"one")[..]);
        two.put(frame(b"two"));
        assert_eq!(call(&client, "Echo", two.freeze()).await.body, frame(b"one"));
    });
}

#[test]
fn malformed_heads() {
    run(async {
        let (_served, client) = connect(Limits::default()).await;
        let ask = async |request: http::Request<()>| {
            outcome(send(&client, request, frame(b"")).await.await.expect("response")).await
        };
        let zstd = request("Echo").header("grpc-encoding", "zstd").body(()).expect("request");
        let text = "grpc: Decompressor is not installed for grpc-encoding \"zstd\"";
        assert_eq!(ask(zstd).await, err("12", text));
        let timeout = request("Echo").header("grpc-timeout", "5x").body(()).expect("request");
        let got = ask(timeout).await;
        let text = "malformed grpc-timeout: transport: timeout unit is not recognized: \"5x\"";
        assert_eq!((got.http, &*got.code, &*got.message), (400, "13", text));
        let zero = request("Echo").header("grpc-timeout", "0n").body(()).expect("request");
        assert_eq!(ask(zero).await, err("4", "context deadline exceeded"));
        let get = request("Echo").method("GET").body(()).expect("request");
        let got = ask(get).await;
        let text = "Received a HEADERS frame with :method \"GET\" which should be POST";
        assert_eq!((got.http, &*got.code, &*got.message), (405, "13", text));
        let mut plain = request("Echo").body(()).expect("request");
        plain.headers_mut().insert("content-type", "text/html".parse().expect("value"));
        let got = ask(plain).await;
        let text = "invalid gRPC request content-type \"text/html\"";
        assert_eq!((got.http, &*got.code, &*got.message), (415, "3", text));
        let mut service = request("Echo").body(()).expect("request");
        *service.uri_mut() = "http://localhost/a.B/C".parse().expect("uri");
        assert_eq!(ask(service).await, err("12", "unknown service a.B"));
    });
}

#[test]
fn metadata_and_content_type() {
    run(async {
        let (_served, client) = connect(Limits::default()).await;
        let mut head = request("Meta").header("token", "abc.1").body(()).expect("request");
        head.headers_mut().insert("content-type", "application/grpc+proto".parse().expect("value"));
        let response = send(&client, head, frame(b"")).await.await.expect("response");
        assert_eq!(response.headers()["content-type"], "application/grpc+proto");
        let mut body = response.into_body();
        assert_eq!(body.data().await.expect("some").expect("data"), frame(b"abc.1"));
    });
}

#[test]
fn a_lazy_answer_is_made_as_the_client_reads() {
    run(async {
        let (served, client) = connect(Limits::default()).await;
        let head = request("Lazy").body(()).expect("request");
        let response = send(&client, head, frame(b"")).await.await.expect("response");
        let made = served.server.made.clone();
        let mut body = response.into_body();
        let (mut got, mut most) = (0, 0);
        while let Some(data) = body.data().await {
            let n = data.expect("data").len();
            got += n;
            body.flow_control().release_capacity(n).expect("release");
            most = most.max(made.get() as i64 - got as i64);
        }
        assert_eq!(got, LAZY_LEN + 5);
        assert!(most < 2 * 1024 * 1024, "made {most} bytes ahead");
        let trailers = body.trailers().await.expect("trailers").expect("some");
        assert_eq!(trailers["grpc-status"], "0");
    });
}

#[test]
fn a_lazy_answer_that_falls_short_is_an_error() {
    run(async {
        let (_served, client) = connect(Limits::default()).await;
        let got = call(&client, "Short", frame(b"")).await;
        assert_eq!(got.code, "13");
        assert_eq!(got.message, "the reply ended before its length");
    });
}

#[test]
fn a_client_that_resets_is_told_to_the_reply() {
    run(async {
        let (served, client) = connect(Limits::default()).await;
        let head = request("Later").body(()).expect("request");
        let response = send(&client, head, frame(b"")).await;
        served.server.changed.notified().await;
        let mut reply = served.server.later.borrow_mut().pop().expect("a reply");
        assert!(!reply.is_cancelled());
        drop(response);
        settle().await;
        assert!(reply.is_cancelled());
        reply.ok(vec![1]);
        assert_eq!(call(&client, "Echo", frame(b"on")).await.code, "0");
        assert_eq!(served.server.stats.calls_in_flight.get(), 0);
    });
}

#[test]
fn replies_outlive_their_connection() {
    run(async {
        let (served, client) = connect(Limits::default()).await;
        let head = request("Later").body(()).expect("request");
        let response = send(&client, head, frame(b"")).await;
        served.server.changed.notified().await;
        let mut reply = served.server.later.borrow_mut().pop().expect("a reply");
        served.closed.abort();
        assert!(response.await.is_err());
        assert!(reply.is_cancelled());
        reply.ok(vec![0; 100_000]);
        settle().await;
        assert_eq!(served.server.stats.calls_in_flight.get(), 0);
        assert_eq!(served.server.stats.connections.get(), 0);
    });
}
