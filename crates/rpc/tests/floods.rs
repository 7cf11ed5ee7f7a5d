//! The known attacks on HTTP/2 servers that `abuse` has not, one by one, and
//! the honest clients that look a little like them.

mod common;

use std::time::Duration;

use common::raw::*;
use common::*;
use etch_rpc::*;
use tokio::io::{AsyncWriteExt, DuplexStream, ReadHalf};

const HANG: &str = "Hang";

/// Writes in the background, so that reading and writing do not wait for each
/// other; the writing ends when the server closes.
async fn flood(
    io: DuplexStream,
    frames: impl IntoIterator<Item = Vec<u8>> + 'static,
) -> ReadHalf<DuplexStream> {
    let (read, mut write) = tokio::io::split(io);
    let frames = frames.into_iter();
    tokio::task::spawn_local(async move {
        for frame in frames {
            if write.write_all(&frame).await.is_err() {
                return;
            }
        }
        // Left open: who floods does not say goodbye.
        std::future::pending::<()>().await;
    });
    read
}

/// The code and the text of the GOAWAY that ends the connection.
async fn cut(mut read: ReadHalf<DuplexStream>) -> Option<(u32, String)> {
    let mut found = None;
    while let Some(frame) = next_frame(&mut read).await {
        if frame.kind == 7 {
            let code = u32::from_be_bytes(frame.payload[4..8].try_into().expect("four"));
            found = Some((code, String::from_utf8_lossy(&frame.payload[8..]).into_owned()));
        }
    }
    found
}

/// Greets, floods, and expects to be told to calm down.
fn calms(limits: Limits, frames: impl IntoIterator<Item = Vec<u8>> + 'static) {
    run(async {
        let (served, mut io) = serve(limits);
        greet(&mut io).await;
        let goodbye = cut(flood(io, frames).await).await;
        assert_eq!(goodbye.as_ref().map(|g| g.0), Some(11), "{goodbye:?}");
        served.closed.await.expect("joined");
        settle().await;
        assert_eq!(served.server.stats.calls_in_flight.get(), 0);
    });
}

fn window(stream: u32, by: u32) -> Vec<u8> {
    raw(8, 0, stream, &by.to_be_bytes())
}

#[test]
fn window_update_flood() {
    calms(Limits::default(), (0..1_000_000).map(|_| window(0, 1)));
    let open = call_frames(1, HANG, b"", false);
    calms(Limits::default(), std::iter::once(open).chain((0..1_000_000).map(|_| window(1, 1))));
}

/// CVE-2019-9511: a large answer, asked for byte by byte.
#[test]
fn data_dribble() {
    let tiny = raw(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let open = call_frames(1, "Lazy", b"", true);
    calms(Limits::default(), [tiny, open].into_iter().chain((0..1_000_000).map(|_| window(1, 1))));
}

/// CVE-2019-9513 and 9515: priorities shuffled, settings changed; the latter
/// with many streams whose windows they move.
#[test]
fn priorities_and_settings() {
    calms(Limits::default(), (0..1_000_000).map(|_| raw(2, 0, 1, &[0, 0, 0, 3, 9])));
    let calls = (0..1_000).map(|n| call_frames(2 * n + 1, HANG, b"", false));
    let settings = (0..400).map(|n| raw(4, 0, 0, &[0, 4, 0, 0, 0, n as u8]));
    calms(Limits::default(), calls.chain(settings));
}

/// CVE-2019-9518: frames with nothing in them, padded ones too.
#[test]
fn empty_and_padded_data() {
    for frame in [raw(0, 0, 1, b""), raw(0, 8, 1, &[3, 0, 0, 0])] {
        let open = raw(1, 4, 1, &head("Bidi", &[]));
        calms(
            Limits::default(),
            std::iter::once(open).chain((0..100_000).map(move |_| frame.clone())),
        );
    }
}

/// CVE-2024-27316 and 2019-9518: a header block that never ends.
#[test]
fn continuation_flood() {
    for piece in [vec![], b"\0\x01a\x01b".to_vec()] {
        let open = raw(1, 0, 1, &head("Echo", &[]));
        calms(
            Limits::default(),
            std::iter::once(open).chain((0..1_000_000).map(move |_| raw(9, 0, 1, &piece))),
        );
    }
}

/// CVE-2025-8671: the client makes the server reset, by frames that are errors.
#[test]
fn resets_of_our_own_making() {
    let mistakes: [fn(u32) -> Vec<u8>; 4] = [
        |id| window(id, 0),
        |id| [window(id, 0x7fff_ffff), window(id, 0x7fff_ffff)].concat(),
        |id| [raw(0, 1, id, b""), raw(0, 0, id, b"more")].concat(),
        |id| raw(2, 0, id, &[&id.to_be_bytes()[..], &[1]].concat()),
    ];
    for mistake in mistakes {
        run(async move {
            let limits = Limits::default();
            let most = limits.max_local_error_reset;
            let (served, mut io) = serve(limits);
            greet(&mut io).await;
            let calls = (0..100_000).map(move |n| {
                let open = call_frames(2 * n + 1, "Later", b"", false);
                [open, mistake(2 * n + 1)].concat()
            });
            let goodbye = cut(flood(io, calls).await).await;
            assert!(goodbye.as_ref().is_none_or(|g| g.0 != 0), "{goodbye:?}");
            served.closed.await.expect("joined");
            let begun = served.server.later.borrow().len();
            assert!(begun <= most + 1, "{begun} calls for nothing");
        });
    }
}

/// Streams beyond what may be open are refused, and that is a reset too.
#[test]
fn refusals_are_counted() {
    let limits =
        Limits { max_concurrent_streams: 2, max_resets_per_second: 50, ..Limits::default() };
    let calls = (0..100_000).map(|n| {
        let id = 2 * n + 1;
        [call_frames(id, "Later", b"", true), raw(3, 0, id, &[0, 0, 0, 8])].concat()
    });
    run(async {
        let (served, mut io) = serve(limits);
        greet(&mut io).await;
        assert_eq!(cut(flood(io, calls).await).await.map(|g| g.0), Some(11));
        served.closed.await.expect("joined");
        assert!(served.server.later.borrow().len() <= 2);
    });
}

/// Deadlines so short that nothing comes of the calls are resets as well.
#[test]
fn streams_that_end_by_their_deadline_are_counted() {
    run(async {
        let limits = Limits { max_resets_per_second: 50, ..Limits::default() };
        let (served, mut io) = serve(limits);
        greet(&mut io).await;
        let (read, mut write) = tokio::io::split(io);
        let goodbye = tokio::task::spawn_local(cut(read));
        for n in 0..10_000 {
            let id = 2 * n + 1;
            let call =
                [raw(1, 4, id, &head(HANG, &[("grpc-timeout", "1m")])), raw(0, 0, id, &frame(b""))];
            if write.write_all(&call.concat()).await.is_err() {
                break;
            }
            if n % 50 == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        assert_eq!(goodbye.await.expect("joined").map(|g| g.0), Some(11));
        served.closed.await.expect("joined");
        settle().await;
        assert!(served.server.streams_dropped.get() < 1_000);
    });
}

/// Fifty megabytes through the smallest window there is, with two updates for
/// each frame: honest, if not clever.
#[test]
fn who_takes_much_in_small_steps_stays() {
    run(async {
        let limits = Limits { max_window_updates_per_second: 5, ..Limits::default() };
        let (_served, mut io) = serve(limits);
        greet(&mut io).await;
        io.write_all(&call_frames(1, "Lazy", b"", true)).await.expect("call");
        let mut got = 0;
        loop {
            let frame = next_frame(&mut io).await.expect("not cut");
            if frame.kind == 0 {
                got += frame.payload.len();
                let by = frame.payload.len() as u32;
                if by > 0 {
                    let updates = [window(0, by), window(1, by)].concat();
                    io.write_all(&updates).await.expect("update");
                }
            }
            if frame.ends_stream() {
                break;
            }
        }
        assert_eq!(got, LAZY_LEN + 5);
    });
}

/// Thousands of small messages, each of which is acknowledged twice.
#[test]
fn who_takes_many_small_messages_stays() {
    run(async {
        let limits = Limits { max_window_updates_per_second: 5, ..Limits::default() };
        let (_served, mut io) = serve(limits);
        greet(&mut io).await;
        for round in 0..20 {
            let id = 2 * round + 1;
            io.write_all(&call_frames(id, "Count", b"", true)).await.expect("call");
            let mut messages = 0;
            loop {
                let frame = next_frame(&mut io).await.expect("not cut");
                if frame.kind == 0 && !frame.payload.is_empty() {
                    for _ in 0..frame.payload.len() / 9 {
                        messages += 1;
                        let updates = [window(0, 9), window(id, 9)].concat();
                        io.write_all(&updates).await.expect("update");
                    }
                }
                if frame.ends_stream() {
                    break;
                }
            }
            assert_eq!(messages, 1000);
        }
    });
}

/// A client may end its side of a call in a frame of its own, which comes when
/// the answer is out already: that is no fault, however often.
#[test]
fn late_ends_are_forgiven() {
    run(async {
        let (served, mut io) = serve(Limits::default());
        greet_with_huge_windows(&mut io).await;
        for batch in 0..6u32 {
            let ids = move || (0..500u32).map(move |n| 2 * (batch * 500 + n) + 1);
            let mut answered = 0;
            for id in ids() {
                io.write_all(&call_frames(id, "Echo", b"x", false)).await.expect("call");
                loop {
                    let frame = next_frame(&mut io).await.expect("not cut");
                    if frame.kind == 1 && frame.flags & 1 != 0 && frame.stream == id {
                        answered += 1;
                        break;
                    }
                }
            }
            assert_eq!(answered, 500);
            for id in ids() {
                io.write_all(&raw(0, 1, id, b"")).await.expect("end");
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        drop(io);
        assert!(matches!(served.closed.await.expect("joined"), Closed::Done | Closed::Error(_)));
    });
}

/// While a client takes nothing, its requests wait; when it has taken all, they
/// are read, even though nothing else happens.
#[test]
fn reading_goes_on_once_the_client_has_caught_up() {
    run(async {
        let limits = Limits { send_buffer: 100_000, ..Limits::default() };
        let (served, mut io) = serve(limits);
        greet_with_huge_windows(&mut io).await;
        let large = vec![7; 200_000];
        let first = call_frames(1, "Echo", &large, true);
        // The server's window is there once its settings are acknowledged.
        while next_frame(&mut io).await.expect("settings").kind != 4 {}
        io.write_all(&raw(4, 1, 0, b"")).await.expect("acknowledged");
        let (mut read, mut write) = tokio::io::split(&mut io);
        write.write_all(&first).await.expect("first");
        settle().await;
        assert_eq!(served.server.stats.messages_out.get(), 1);
        // The answer fills the pipe, so nothing more is read for now.
        write.write_all(&call_frames(3, "Echo", b"second", true)).await.expect("second");
        settle().await;
        assert_eq!(served.server.stats.messages_in.get(), 1);
        let answer = async {
            loop {
                let frame = next_frame(&mut read).await.expect("not cut");
                if frame.stream == 3 && frame.ends_stream() {
                    break;
                }
            }
        };
        let patience = Duration::from_secs(60);
        tokio::time::timeout(patience, answer).await.expect("an answer to the second call");
    });
}
