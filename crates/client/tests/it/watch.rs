//! Watches through a real server: history and live, resuming, many on a stream, slow readers, ends.

use std::time::Duration;

use crate::common::{Mode, Proxy, each, run, until};
use etch_client::{Client, Config, Error, EtcdError, EventType, HasHeader, Overflow, WatchStream};

/// Reads until this many events came; their values.
async fn values(watch: &mut WatchStream, count: usize) -> Vec<String> {
    let mut out = Vec::new();
    while out.len() < count {
        let response = watch.next().await.expect("goes on").expect("no error");
        for event in response.events {
            let value = event.kv.expect("a key").value;
            out.push(String::from_utf8(value.to_vec()).expect("text"));
        }
    }
    out
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

#[test]
fn history_then_live_with_each_option() {
    each(async |server| {
        let client = server.client().await;
        let first = client.put("w/a", "0").await.expect("put").revision();
        client.put("w/b", "1").await.expect("put");
        let mut all = client.watch("w/").prefix().rev(first).prev_kv().await.expect("watch");
        let mut live = client.watch("w/a").await.expect("watch");
        let mut deletes = client.watch("w/").prefix().no_put().await.expect("watch");
        let mut puts = client.watch("w/").prefix().no_delete().await.expect("watch");
        client.put("w/a", "2").await.expect("put");
        client.delete("w/b").await.expect("delete");
        let mut history = Vec::new();
        while history.len() < 4 {
            history.extend(all.next().await.expect("goes on").expect("no error").events);
        }
        let puts_of = |e: &etch_client::Event| e.kv.as_ref().map(|kv| kv.value.clone());
        let values_of: Vec<_> = history.iter().take(3).filter_map(puts_of).collect();
        assert_eq!(values_of, ["0", "1", "2"]);
        assert_eq!(history[3].r#type(), EventType::Delete);
        assert_eq!(history[3].prev_kv.as_ref().expect("before").value, "1");
        assert_eq!(values(&mut live, 1).await, ["2"]);
        assert_eq!(values(&mut puts, 1).await, ["2"]);
        let gone = deletes.next().await.expect("goes on").expect("no error");
        assert_eq!(gone.events[0].r#type(), EventType::Delete);
        let both =
            client.txn().then(etch_client::put("w/x", "3")).then(etch_client::put("w/y", "4"));
        both.await.expect("txn");
        let response = all.next().await.expect("goes on").expect("no error");
        assert_eq!(response.events.len(), 2, "one revision comes in one response");
    });
}

#[test]
fn resumes_without_loss_or_doubling_when_connections_break() {
    each(async |server| {
        let direct = server.client().await;
        let proxy = Proxy::start(server.address()).await;
        let client = crate::common::client(&proxy.endpoint).await;
        let mut watches = Vec::new();
        for _ in 0..20 {
            watches.push(client.watch("r/").prefix().await.expect("watch"));
        }
        for round in 0..5 {
            for n in 0..20 {
                let number = round * 20 + n;
                direct.put(format!("r/{n}"), number.to_string()).await.expect("put");
                if n == 10 {
                    proxy.cut_once().await;
                }
            }
        }
        for watch in &mut watches {
            assert_eq!(values(watch, 100).await, numbers(0..100));
        }
    });
}

#[test]
fn resumes_after_the_server_was_killed_and_started_again() {
    each(async |mut server| {
        let client = server.client().await;
        let mut watch = client.watch("k").await.expect("watch");
        client.put("k", "0").await.expect("put");
        assert_eq!(values(&mut watch, 1).await, ["0"]);
        server.kill();
        server.spawn();
        server.wait().await;
        let writer = server.client().await;
        writer.put("k", "1").await.expect("put");
        writer.put("k", "2").await.expect("put");
        assert_eq!(values(&mut watch, 2).await, ["1", "2"]);
    });
}

#[test]
fn compaction_while_away_is_told_with_its_revision() {
    each(async |server| {
        let direct = server.client().await;
        let proxy = Proxy::start(server.address()).await;
        let client = crate::common::client(&proxy.endpoint).await;
        let mut watch = client.watch("c").await.expect("watch");
        proxy.set(Mode::Cut);
        direct.put("c", "0").await.expect("put");
        direct.put("c", "1").await.expect("put");
        let last = direct.put("c", "2").await.expect("put").revision();
        direct.compact(last).await.expect("compact");
        proxy.set(Mode::Pass);
        let error = watch.next().await.expect("an error").expect_err("compacted");
        assert_eq!(error, Error::Compacted { revision: last });
        assert!(error.is(EtcdError::Compacted));
        assert!(watch.next().await.is_none());
    });
}

#[test]
fn a_slow_reader_waits_without_losing_or_holding_others() {
    each(async |server| {
        let client = server.client().await;
        let mut slow = client.watch("s").buffer(4, Overflow::Wait).await.expect("watch");
        let mut failing = client.watch("s").buffer(4, Overflow::Fail).await.expect("watch");
        let mut quick = client.watch("s").await.expect("watch");
        for n in 0..50 {
            client.put("s", n.to_string()).await.expect("put");
            assert_eq!(values(&mut quick, 1).await, [n.to_string()]);
        }
        assert_eq!(values(&mut slow, 50).await, numbers(0..50));
        client.put("s", "50").await.expect("put");
        assert_eq!(values(&mut slow, 1).await, ["50"]);
        let mut seen = 0;
        let error = loop {
            match failing.next().await.expect("goes on") {
                Ok(response) => seen += response.events.len(),
                Err(error) => break error,
            }
        };
        assert_eq!((error, seen), (Error::SlowConsumer, 4));
    });
}

#[test]
fn progress_on_request() {
    each(async |server| {
        let client = server.client().await;
        let mut watch = client.watch("p").await.expect("watch");
        let revision = client.put("elsewhere", "1").await.expect("put").revision();
        client.request_progress().await.expect("asked");
        let response = watch.next().await.expect("goes on").expect("no error");
        assert!(response.is_progress());
        assert_eq!(response.header.revision, revision);
    });
}

#[test]
fn large_responses_are_joined() {
    each(async |server| {
        let client = server.client().await;
        let first = client.put("f", "").await.expect("put").revision();
        let mut txn = client.txn();
        for n in 0..10 {
            txn = txn.then(etch_client::put(format!("f/{n}"), vec![b'x'; 100 << 10]));
        }
        txn.await.expect("txn");
        for n in 0..3 {
            client.put(format!("f/{n}"), vec![b'y'; 1 << 20]).await.expect("put");
        }
        let mut watch = client.watch("f").prefix().rev(first + 1).await.expect("watch");
        let mut events = Vec::new();
        while events.len() < 13 {
            events.extend(watch.next().await.expect("goes on").expect("no error").events);
        }
        let revisions: Vec<i64> =
            events.iter().map(|e| e.kv.as_ref().expect("a key").mod_revision - first).collect();
        assert_eq!(revisions, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 3, 4]);
    });
}

#[test]
fn what_cannot_be_watched_is_refused() {
    each(async |server| {
        let client = server.client().await;
        let error = client.watch("b").range("a").await.err().expect("an empty range");
        assert!(
            matches!(&error, Error::Refused(r) if r.message.contains("range is empty")),
            "{error:?}"
        );
        let config = Config::new([format!("127.0.0.1:{}", crate::common::server::free_port())])
            .dial_timeout(Duration::from_millis(200));
        let alone = Client::connect(config).await.expect("a client");
        let error = alone.watch("a").await.err().expect("nobody there");
        assert!(matches!(error, Error::NoEndpoint(_)), "{error:?}");
        let late = alone.watch("a").timeout(Duration::from_millis(20)).await.err();
        assert!(matches!(late, Some(Error::Deadline { .. })), "{late:?}");
    });
}

#[test]
fn dropping_the_watches_ends_stream_and_task_and_closing_says_so() {
    run(async {
        let server = crate::common::Server::start(crate::common::Kind::Etch).await;
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        until("the first client's tasks are gone", || async { tasks() == 0 }).await;
        let client = server.client().await;
        client.get("a").await.expect("get");
        let quiet = tasks();
        let mut watches = Vec::new();
        for _ in 0..10 {
            watches.push(client.watch("d").await.expect("watch"));
        }
        assert!(tasks() > quiet);
        drop(watches);
        until("the stream's tasks are gone", || async { tasks() <= quiet }).await;
        let mut watch = client.watch("d").await.expect("watch again");
        client.close();
        assert_eq!(watch.next().await, Some(Err(Error::Closed)));
        assert_eq!(watch.next().await, None);
        assert_eq!(client.watch("d").await.err(), Some(Error::Closed));
        drop(client);
        until("no task is left", || async { tasks() == 0 }).await;
    });
}
