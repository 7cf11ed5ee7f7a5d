//! Leases kept alive through a real server: pace, loss, many holders, broken and stuck streams.

use std::time::Duration;

use crate::common::{Mode, Proxy, each, run, until};
use etch_client::{Client, Config, Error, EtcdError};

#[test]
fn a_lease_lives_while_it_is_kept_and_no_longer() {
    each(async |server| {
        let client = server.client().await;
        let lease = client.lease_grant(2).await.expect("grant").id;
        client.put("l", "1").lease(lease).await.expect("put");
        let mut one = client.lease_keep_alive(lease).await.expect("kept");
        let two = client.lease_keep_alive(lease).await.expect("kept twice");
        // Longer than its TTL, by its own renewals.
        for _ in 0..4 {
            one.next().await.expect("goes on").expect("alive");
        }
        drop(two);
        one.next().await.expect("goes on").expect("alive");
        let mut watch = client.watch("l").await.expect("watch");
        drop(one);
        let gone = watch.next().await.expect("goes on").expect("no error");
        assert_eq!(gone.events.len(), 1);
    });
}

#[test]
fn loss_is_told() {
    each(async |server| {
        let client = server.client().await;
        let missing = client.lease_keep_alive(12345).await.err().expect("no such lease");
        assert!(missing.is(EtcdError::LeaseNotFound), "{missing:?}");
        let lease = client.lease_grant(3).await.expect("grant").id;
        assert_eq!(client.lease_keep_alive_once(lease).await, Ok(3));
        let mut kept = client.lease_keep_alive(lease).await.expect("kept");
        client.lease_revoke(lease).await.expect("revoke");
        assert_eq!(kept.lost().await, Error::LeaseLost(lease));
        assert!(kept.next().await.is_none());
    });
}

#[test]
fn a_broken_stream_is_opened_again_and_a_stuck_one_is_left() {
    each(async |server| {
        let (one, two) =
            (Proxy::start(server.address()).await, Proxy::start(server.address()).await);
        let config = Config::new([one.endpoint.as_str(), two.endpoint.as_str()]);
        let client = Client::connect(config).await.expect("a client");
        until("both are connected", || async {
            client.get("a").await.is_ok() && one.open() == 1 && two.open() == 1
        })
        .await;
        let lease = client.lease_grant(3).await.expect("grant").id;
        let mut kept = client.lease_keep_alive(lease).await.expect("kept");
        one.cut_once().await;
        kept.next().await.expect("goes on").expect("alive");
        two.cut_once().await;
        kept.next().await.expect("goes on").expect("alive");
        // One of the two hangs; whichever the stream is on, it ends up on the other in time.
        for hung in [&one, &two] {
            hung.set(Mode::Hang);
            for _ in 0..2 {
                kept.next().await.expect("goes on").expect("alive");
            }
            hung.set(Mode::Pass);
        }
    });
}

#[test]
fn nobody_to_keep_it_is_a_lost_lease_in_time() {
    each(async |server| {
        let proxy = Proxy::start(server.address()).await;
        let client = crate::common::client(&proxy.endpoint).await;
        let lease = client.lease_grant(2).await.expect("grant").id;
        let mut kept = client.lease_keep_alive(lease).await.expect("kept");
        proxy.set(Mode::Cut);
        assert_eq!(kept.lost().await, Error::LeaseLost(lease));
        let config =
            Config::new([proxy.endpoint.as_str()]).dial_timeout(Duration::from_millis(100));
        let client = Client::connect(config).await.expect("a client");
        let error = client.lease_keep_alive(lease).await.err().expect("nobody there");
        assert!(matches!(error, Error::Deadline { .. } | Error::NoEndpoint(_)), "{error:?}");
    });
}

#[test]
fn many_leases_share_a_stream_and_leave_nothing_behind() {
    run(async {
        let server = crate::common::Server::start(crate::common::Kind::Etch).await;
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        until("the first client's tasks are gone", || async { tasks() == 0 }).await;
        let client = server.client().await;
        client.get("a").await.expect("get");
        let quiet = tasks();
        let mut kept = Vec::new();
        for _ in 0..200 {
            let lease = client.lease_grant(60).await.expect("grant").id;
            kept.push(client.lease_keep_alive(lease).await.expect("kept"));
        }
        assert!(tasks() <= quiet + 4, "{} tasks", tasks());
        drop(kept);
        until("the stream's tasks are gone", || async { tasks() <= quiet }).await;
        let lease = client.lease_grant(60).await.expect("grant").id;
        let mut one = client.lease_keep_alive(lease).await.expect("kept");
        client.close();
        assert_eq!(one.lost().await, Error::Closed);
    });
}
