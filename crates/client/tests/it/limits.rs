//! Ends in time, and nothing left behind: a leader lost, a server that stops in mid-reply, a clock that jumps, streams
//! and tasks counted on both sides.

use std::time::Duration;

use crate::common::{Kind, LIMIT, Mode, Proxy, Server, each, run, until};
use etch_client::{Client, Config, Error, EtcdError, HasHeader};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[test]
fn a_lost_leader_is_told_to_who_requires_one_and_to_nobody_else() {
    for kind in Kind::all() {
        run(async {
            let quick = ["--heartbeat-interval=50", "--election-timeout=500"];
            let server = Server::start_with(kind, &quick).await;
            let client = server.client().await;
            let strict = client.with_require_leader();
            let mut told = strict.watch("a").await.expect("watch");
            let mut untold = client.watch("a").await.expect("watch");
            let lease = client.lease_grant(60).await.expect("grant").id;
            let mut kept = strict.lease_keep_alive(lease).await.expect("kept");
            // A second voter that never comes: no quorum, and soon no leader.
            client.member_add(["http://127.0.0.1:9"]).await.expect("added");
            let error = told.next().await.expect("an end").expect_err("no leader");
            assert!(error.is(EtcdError::NoLeader), "{kind:?}: {error:?}");
            assert!(told.next().await.is_none());
            let error = kept.lost().await;
            assert!(error.is(EtcdError::NoLeader), "{kind:?}: {error:?}");
            let error = strict.put("a", "1").await.expect_err("no leader");
            assert!(error.is(EtcdError::NoLeader), "{kind:?}: {error:?}");
            client.get("a").serializable().await.expect("from its own state");
            let waiting = tokio::time::timeout(Duration::from_millis(100), untold.next()).await;
            assert!(waiting.is_err(), "{kind:?}: {waiting:?}");
        });
    }
}

#[test]
fn a_server_that_stops_in_mid_reply_holds_nobody_up() {
    each(async |server| {
        let proxy = Proxy::start(server.address()).await;
        // Who waited this long for each of a hundred attempts would be at the test's own limit.
        let config = Config::new([proxy.endpoint.as_str()])
            .dial_timeout(LIMIT / 80)
            .dial_keep_alive_time(Duration::from_millis(500))
            .dial_keep_alive_timeout(Duration::from_secs(2));
        let client = Client::connect(config).await.expect("a client");
        client.put("a", vec![b'x'; 300 << 10]).await.expect("put");
        let mut watch = client.watch("w").await.expect("watch");

        proxy.set(Mode::Halve);
        let late = client.get("a").timeout(Duration::from_millis(50)).await;
        assert_eq!(late.expect_err("half an answer"), Error::Deadline { sent: true });
        // Without a limit of its own: the connection is found dead; a read is tried again, a write is not.
        let read = client.get("a").await.expect_err("nobody left");
        assert!(matches!(read, Error::NoEndpoint(_)), "{read:?}");

        proxy.set(Mode::Pass);
        client.get("a").await.expect("get");
        proxy.set(Mode::Halve);
        let write = client.put("a", "2").prev_kv().await.expect_err("half an answer");
        assert!(matches!(write, Error::Unknown(_)), "{write:?}");
        proxy.set(Mode::Pass);
        let answer = client.get("a").await.expect("get");
        assert_eq!((&answer.kvs[0].value[..], answer.kvs[0].version), (&b"2"[..], 2));

        // A range in pieces breaks off with an error, and is never taken for whole.
        client.put("b", vec![b'x'; 1 << 20]).await.expect("put");
        let mut pieces = client.get("").from_key().stream();
        proxy.set(Mode::Halve);
        let mut ended = None;
        while let Some(piece) = pieces.next().await {
            ended = piece.err();
        }
        assert!(ended.is_some_and(|e| matches!(e, Error::Unknown(_) | Error::NoEndpoint(_))));

        // And the watch has missed nothing.
        proxy.set(Mode::Pass);
        client.put("w", "1").await.expect("put");
        let event = watch.next().await.expect("goes on").expect("no error");
        assert_eq!(event.events[0].kv.as_ref().expect("a key").value, "1");
    });
}

/// A page of the client port.
async fn page(address: &str, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("connected");
    let request = format!("GET {path} HTTP/1.0\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("read");
    text
}

/// The sum of all series that begin with this.
fn sum(page: &str, name: &str) -> i64 {
    let series = page.lines().filter(|line| line.starts_with(name));
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as i64
}

/// Whether the server has neither streams nor watches nor calls under way.
fn nothing_runs(page: &str) -> bool {
    sum(page, "etcd_debugging_mvcc_watcher_total") == 0
        && sum(page, "etcd_debugging_mvcc_watch_stream_total") == 0
        && sum(page, "grpc_server_started_total") == sum(page, "grpc_server_handled_total")
}

/// What that was decided by.
fn counts(page: &str) -> String {
    let told = ["etcd_debugging_mvcc_watch", "grpc_server_started", "grpc_server_handled"];
    let line = |line: &&str| told.iter().any(|t| line.starts_with(t)) && !line.ends_with(" 0");
    page.lines().filter(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn nothing_is_left_on_either_side() {
    each(async |server| {
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let proxy = Proxy::start(server.address()).await;
        let client = crate::common::client(&proxy.endpoint).await;
        client.put("a", vec![b'x'; 100 << 10]).await.expect("put");
        until("the first client's tasks are gone", || async { proxy.open() == 1 }).await;
        let quiet = tasks();
        let lease = client.lease_grant(600).await.expect("grant").id;
        for round in 0..30 {
            let watch = client.watch("a").rev(1).await.expect("watch");
            let kept = client.lease_keep_alive(lease).await.expect("kept");
            let mut pieces = client.get("").from_key().stream();
            let _ = tokio::time::timeout(Duration::from_micros(50), pieces.next()).await;
            let snapshot = client.snapshot().await.expect("snapshot");
            // Dropped at any moment: before it is sent, under way, answered.
            let soon = Duration::from_micros(100 * round);
            let _ = tokio::time::timeout(soon, client.put("b", round.to_string())).await;
            let _ = tokio::time::timeout(soon, client.watch("b")).await;
            let _ = tokio::time::timeout(soon, client.lease_keep_alive(lease)).await;
            let _ = client.get("a").timeout(soon).await;
            if round % 10 == 9 {
                proxy.cut_once().await;
            }
            drop((watch, kept, pieces, snapshot));
        }
        client.get("a").await.expect("get");
        until("our tasks are gone", || async { tasks() <= quiet }).await;
        let mut seen = String::new();
        for _ in 0..1000 {
            seen = page(server.address(), "/metrics").await;
            assert!(seen.contains("grpc_server_started_total"), "{seen}");
            if nothing_runs(&seen) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(nothing_runs(&seen), "{:?}: {}", server.kind, counts(&seen));
        assert_eq!(proxy.open(), 1);
    });
}

/// A process that was asleep for longer than its lease has lost it, and is told at once; its watch goes on.
#[test]
fn who_was_asleep_for_too_long_is_told_at_once() {
    each(async |server| {
        let client = server.client().await;
        let session =
            etch_client::concurrency::Session::new(&client).ttl(1).await.expect("session");
        let mut watch = client.watch("a").await.expect("watch");
        let at = client.put("a", "1").lease(session.lease()).await.expect("put").revision();
        watch.next().await.expect("goes on").expect("an event");
        // Every thread of this runtime sleeps, as in a process that is stopped.
        let other = server.client().await;
        let asleep = |_| std::thread::sleep(Duration::from_millis(3500));
        let sleepers: Vec<_> =
            (0..crate::common::THREADS).map(|n| tokio::spawn(async move { asleep(n) })).collect();
        for sleeper in sleepers {
            sleeper.await.expect("slept");
        }
        let told = tokio::time::timeout(Duration::from_secs(2), session.lost()).await;
        let told = told.expect("told at once");
        assert!(matches!(told, Error::LeaseLost(_)), "{told:?}");
        let gone = watch.next().await.expect("goes on").expect("no error");
        assert!(gone.events[0].kv.as_ref().expect("a key").mod_revision > at);
        assert_eq!(other.get("a").await.expect("get").count, 0);
    });
}
