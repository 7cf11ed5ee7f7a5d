//! Streaming calls: both directions, back pressure, cancelling, deadlines.

mod common;

use bytes::Bytes;
use common::*;
use etch_rpc::*;
use h2::client::{ResponseFuture, SendRequest};

async fn open(
    client: &SendRequest<Bytes>,
    method: &str,
) -> (ResponseFuture, h2::SendStream<Bytes>) {
    let mut client = client.clone().ready().await.expect("ready");
    client.send_request(request(method).body(()).expect("request"), false).expect("send")
}

#[test]
fn bidi() {
    run(async {
        let (_served, client) = connect(Limits::default()).await;
        let (response, mut send) = open(&client, "Bidi").await;
        send.send_data(frame(b"1"), false).expect("data");
        let mut body = response.await.expect("response").into_body();
        assert_eq!(body.data().await.expect("some").expect("data"), frame(b"1"));
        send.send_data(frame(b"2"), true).expect("data");
        assert_eq!(body.data().await.expect("some").expect("data"), frame(b"2"));
        assert!(body.data().await.is_none());
        let trailers = body.trailers().await.expect("trailers").expect("some");
        assert_eq!(trailers["grpc-status"], "10");
        assert_eq!(trailers["grpc-message"], "done");
    });
}

#[test]
fn a_stream_refused_at_once_is_trailers_only() {
    run(async {
        let (_served, client) = connect(Limits::default()).await;
        let got = call(&client, "Refuse", frame(b"")).await;
        assert_eq!((&*got.code, got.trailers_only), ("16", true));
    });
}

#[test]
fn messages_of_a_batch_share_frames() {
    run(async {
        let (_served, client) = connect(Limits::default()).await;
        let (response, _send) = open(&client, "Count").await;
        let mut body = response.await.expect("response").into_body();
        let (mut bytes, mut frames) = (Vec::new(), 0);
        while let Some(data) = body.data().await {
            bytes.extend_from_slice(&data.expect("data"));
            frames += 1;
        }
        let want: Vec<u8> = (0..1000u32).flat_map(|n| frame(&n.to_be_bytes())).collect();
        assert_eq!(bytes, want);
        assert!(frames < 10, "{frames} frames");
    });
}

#[test]
fn a_slow_reader_holds_the_sender() {
    run(async {
        let (served, client) = connect(Limits::default()).await;
        let (response, _send) = open(&client, "Slow").await;
        let mut body = response.await.expect("response").into_body();
        settle().await;
        let held = served.server.made.get();
        assert!(held < 1024 * 1024, "{held} bytes queued for a reader that does not read");
        let mut got = 0;
        while got < 10 * held {
            let n = body.data().await.expect("some").expect("data").len();
            got += n;
            body.flow_control().release_capacity(n).expect("release");
        }
    });
}

#[test]
fn a_slow_consumer_holds_the_client() {
    run(async {
        let limits = Limits { initial_stream_window: 100_000, ..Limits::default() };
        let (served, client) = connect(limits).await;
        let (_response, mut send) = open(&client, "Hang").await;
        settle().await;
        let mut sent = 0;
        loop {
            send.reserve_capacity(10_000);
            let sleep = tokio::time::sleep(std::time::Duration::from_secs(1));
            tokio::select! {
                room = std::future::poll_fn(|cx| send.poll_capacity(cx)) => {
                    let room = room.expect("open").expect("room");
                    send.send_data(Bytes::from(vec![0; room.min(10_000)]), false).expect("data");
                    sent += room.min(10_000);
                }
                () = sleep => break,
            }
        }
        assert_eq!(sent, 100_000, "the window and no more");
        assert_eq!(served.server.received.get(), 0);
    });
}

#[test]
fn cancelled_by_the_client() {
    run(async {
        let (served, client) = connect(Limits::default()).await;
        let (response, mut send) = open(&client, "Hang").await;
        settle().await;
        assert_eq!(served.server.streams_dropped.get(), 0);
        send.send_reset(h2::Reason::CANCEL);
        drop(response);
        settle().await;
        assert_eq!(served.server.streams_dropped.get(), 1);
        assert_eq!(served.server.stats.calls_in_flight.get(), 0);
    });
}

#[test]
fn ended_by_the_deadline() {
    run(async {
        let (served, client) = connect(Limits::default()).await;
        let head = request("Hang").header("grpc-timeout", "3S").body(()).expect("request");
        let e = send(&client, head, frame(b"")).await.await.expect_err("reset");
        assert_eq!(e.reason(), Some(h2::Reason::CANCEL));
        settle().await;
        assert_eq!(served.server.streams_dropped.get(), 1);
    });
}

#[test]
fn ended_with_the_connection() {
    run(async {
        let (served, client) = connect(Limits::default()).await;
        let (_response, _send) = open(&client, "Hang").await;
        let (_response2, _send2) = open(&client, "Slow").await;
        settle().await;
        served.closed.abort();
        settle().await;
        assert_eq!(served.server.streams_dropped.get(), 2);
    });
}

#[test]
fn malformed_messages() {
    run(async {
        let limits = Limits { max_recv_message: 10, ..Limits::default() };
        let (_served, client) = connect(limits).await;
        let got = call(&client, "Bidi", frame(&[0; 11])).await;
        let text = "grpc: received message larger than max (11 vs. 10)";
        assert_eq!((&*got.code, &*got.message), ("8", text));
        let got = call(&client, "Bidi", frame(b"half").slice(..6)).await;
        assert_eq!((&*got.code, &*got.message), ("13", "unexpected EOF"));
    });
}
