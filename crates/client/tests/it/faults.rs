//! What breaks, and which error it is: nothing hangs, no write is sent twice, every outcome is told apart.

use std::time::Duration;

use crate::common::{Kind, Mode, Proxy, Server, each, run, server::free_port, until};
use etch_client::{Client, Code, Config, Error, EtcdError, Tls};

const SHORT: Duration = Duration::from_secs(2);

#[test]
fn nobody_there_is_no_endpoint() {
    run(async {
        let config = Config::new([format!("127.0.0.1:{}", free_port())]).dial_timeout(SHORT);
        let client = Client::connect(config).await.expect("a client");
        for error in [
            client.get("a").await.expect_err("nobody"),
            client.put("a", "1").await.expect_err("nobody"),
        ] {
            assert!(
                matches!(&error, Error::NoEndpoint(why) if why.contains("refused")),
                "{error:?}"
            );
            assert!(!error.may_have_happened());
        }
        let late = client.put("a", "1").timeout(Duration::from_millis(50)).await;
        assert_eq!(late, Err(Error::Deadline { sent: false }));
    });
}

#[test]
fn a_time_limit_of_nothing_sends_nothing() {
    each(async |server| {
        let client = server.client().await;
        client.put("a", "1").await.expect("put");
        for _ in 0..20 {
            let late = client.put("a", "2").timeout(Duration::ZERO).await;
            assert_eq!(late, Err(Error::Deadline { sent: false }));
        }
        assert_eq!(client.get("a").await.expect("get").kvs[0].version, 1);
    });
}

/// A port that says this to everybody.
async fn answering(hello: &'static [u8]) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move {
        // Held open: a connection that is closed with our greeting unread is reset, and takes the answer with it.
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, hello).await;
            held.push(stream);
        }
    });
    at
}

/// A port that ends every connection.
async fn hanging_up() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.readable().await;
        }
    });
    at
}

#[test]
fn a_port_that_speaks_something_else_is_no_endpoint() {
    run(async {
        let server = Server::start(Kind::Etch).await;
        // TLS to a plain port.
        let secured = format!("https://{}", server.address());
        let config = Config::new([secured]).tls(Tls::new()).dial_timeout(SHORT);
        let client = Client::connect(config).await.expect("a client");
        let error = client.put("a", "1").await.expect_err("no TLS there");
        assert!(matches!(error, Error::NoEndpoint(_)), "{error:?}");
        // TLS to what greets in the clear, and in the clear to what answers with a TLS alert.
        let greets = answering(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
        let config = Config::new([format!("https://{greets}")]).tls(Tls::new());
        let client = Client::connect(config.dial_timeout(SHORT)).await.expect("a client");
        let error = client.put("a", "1").await.expect_err("no TLS there");
        assert!(error.to_string().contains("does not speak TLS"), "{error}");
        let alerts = answering(&[21, 3, 1, 0, 2, 2, 70]).await;
        let config = Config::new([alerts]).dial_timeout(SHORT);
        let client = Client::connect(config).await.expect("a client");
        let error = client.put("a", "1").await.expect_err("TLS there");
        assert!(error.to_string().contains("the endpoint needs https"), "{error}");
        // Both to what hangs up: closed unread, the greeting makes a reset of it.
        let rude = hanging_up().await;
        let client = Client::connect(Config::new([rude.clone()]).dial_timeout(SHORT)).await;
        let error = client.expect("a client").put("a", "1").await.expect_err("no greeting");
        assert!(
            error.to_string().contains("speaks TLS (the endpoint then needs https)"),
            "{error}"
        );
        let config = Config::new([format!("https://{rude}")]).tls(Tls::new());
        let client = Client::connect(config.dial_timeout(SHORT)).await.expect("a client");
        let error = client.put("a", "1").await.expect_err("no handshake");
        assert!(error.to_string().contains("as one does that does not speak TLS"), "{error}");
        // HTTP/2 to what answers nothing, and to what answers nonsense.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = listener.local_addr().expect("an address").to_string();
        let config = Config::new([at.clone()]).dial_timeout(SHORT);
        let client = Client::connect(config).await.expect("a client");
        let error = client.put("a", "1").await.expect_err("silence");
        assert!(matches!(error, Error::NoEndpoint(_)), "{error:?}");
        let mail = answering(b"220 mail.example.org ESMTP").await;
        let config = Config::new([mail]).dial_timeout(SHORT);
        let client = Client::connect(config).await.expect("a client");
        let error = client.put("a", "1").await.expect_err("nonsense");
        assert!(error.to_string().contains("does not speak HTTP/2"), "{error}");
    });
}

/// The promise of reliability row 40 (jetcd, 14890): a write whose answer is lost is never sent again.
#[test]
fn i14890_a_write_whose_answer_is_lost_is_unknown_and_happens_once() {
    each(async |server| {
        let direct = server.client().await;
        let proxy = Proxy::start(server.address()).await;
        let client = crate::common::client(&proxy.endpoint).await;
        client.get("warm").await.expect("get");
        proxy.set(Mode::HoldReplies);
        let write = tokio::spawn({
            let client = client.clone();
            async move { client.put("once", "1").await }
        });
        until("the write arrives", || async {
            direct.get("once").await.is_ok_and(|answer| answer.count == 1)
        })
        .await;
        proxy.set(Mode::Cut);
        let error = write.await.expect("the task").expect_err("no answer");
        assert!(matches!(error, Error::Unknown(_)), "{error:?}");
        assert!(error.may_have_happened());
        proxy.set(Mode::Pass);
        // The connection comes back; nothing is repeated over it.
        let answer = client.get("once").await.expect("get");
        assert_eq!(answer.kvs[0].version, 1);
    });
}

#[test]
fn a_read_is_repeated_when_its_answer_is_lost() {
    each(async |server| {
        let proxy = Proxy::start(server.address()).await;
        let client = crate::common::client(&proxy.endpoint).await;
        client.put("a", "1").await.expect("put");
        proxy.set(Mode::Hang);
        let read = tokio::spawn({
            let client = client.clone();
            async move { client.get("a").await }
        });
        tokio::task::yield_now().await;
        proxy.cut_once().await;
        assert_eq!(read.await.expect("the task").expect("an answer").kvs[0].value, "1");
    });
}

#[test]
fn a_server_that_hangs_is_a_deadline_or_a_dead_connection() {
    each(async |server| {
        let proxy = Proxy::start(server.address()).await;
        let client = crate::common::client(&proxy.endpoint).await;
        client.get("warm").await.expect("get");
        proxy.set(Mode::Hang);
        let late = client.put("a", "1").timeout(Duration::from_millis(100)).await;
        assert_eq!(late.expect_err("late"), Error::Deadline { sent: true });
        proxy.set(Mode::Pass);

        let config = Config::new([proxy.endpoint.as_str()])
            .dial_keep_alive_time(Duration::from_millis(500))
            .dial_keep_alive_timeout(Duration::from_secs(2));
        let client = Client::connect(config).await.expect("a client");
        client.get("warm").await.expect("get");
        proxy.set(Mode::Hang);
        let error = client.put("a", "1").await.expect_err("no sign of life");
        assert!(matches!(error, Error::Unknown(_)), "{error:?}");
    });
}

#[test]
fn calls_go_on_elsewhere_at_once() {
    each(async |server| {
        let (one, two) =
            (Proxy::start(server.address()).await, Proxy::start(server.address()).await);
        let config = Config::new([one.endpoint.as_str(), two.endpoint.as_str()]);
        let client = Client::connect(config).await.expect("a client");
        until("both are connected", || async {
            client.get("a").await.is_ok() && one.open() == 1 && two.open() == 1
        })
        .await;
        one.set(Mode::Cut);
        for n in 0..20 {
            // A write may meet the dying connection, and is then unknown; a read never fails.
            client.get("a").await.unwrap_or_else(|e| panic!("read {n}: {e}"));
        }
    });
}

#[test]
fn writes_wait_for_a_server_that_restarts() {
    each(async |mut server| {
        let client = server.client().await;
        client.put("a", "1").await.expect("put");
        server.kill();
        until("the connection is gone", || async {
            let short = Duration::from_millis(20);
            client.put("b", "1").timeout(short).await == Err(Error::Deadline { sent: false })
        })
        .await;
        server.spawn();
        client.put("a", "2").await.expect("put");
        let answer = client.get("a").await.expect("get");
        assert_eq!((&answer.kvs[0].value[..], answer.kvs[0].version), (&b"2"[..], 2));
    });
}

#[test]
fn another_cluster_at_the_same_address_is_noticed() {
    each(async |server| {
        let other = Server::start(server.kind).await;
        let (kind, client) = (server.kind, server.client().await);
        client.put("a", "1").await.expect("put");
        client.set_endpoints([other.endpoint.as_str()]).expect("an endpoint");
        let error = client.get("a").await.expect_err("another cluster");
        assert!(matches!(error, Error::ClusterMismatch { .. }), "{kind:?}: {error:?}");
    });
}

#[test]
fn a_closed_client_says_so() {
    run(async {
        let server = Server::start(Kind::Etch).await;
        let proxy = Proxy::start(server.address()).await;
        let client = crate::common::client(&proxy.endpoint).await;
        client.get("warm").await.expect("get");
        proxy.set(Mode::Hang);
        let under_way = tokio::spawn({
            let client = client.clone();
            async move { client.get("a").await }
        });
        client.close();
        assert_eq!(under_way.await.expect("the task"), Err(Error::Closed));
        assert_eq!(client.put("a", "1").await, Err(Error::Closed));
        proxy.set(Mode::Pass);
        until("the connection is gone", || async { proxy.open() == 0 }).await;
    });
}

#[test]
fn the_last_clone_ends_connections_and_tasks() {
    run(async {
        let server = Server::start(Kind::Etch).await;
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        until("the first client's tasks are gone", || async { tasks() == 0 }).await;
        let client = server.client().await;
        client.get("a").await.expect("get");
        assert!(tasks() > 0);
        drop(client);
        until("no task is left", || async { tasks() == 0 }).await;
    });
}

#[test]
fn endpoints_follow_the_members_and_never_vanish() {
    each(async |server| {
        let client = server.client().await;
        client.sync().await.expect("sync");
        assert_eq!(client.endpoints(), std::slice::from_ref(&server.endpoint));
        let none: [&str; 0] = [];
        assert!(matches!(client.set_endpoints(none), Err(Error::Invalid(_))));
        assert!(matches!(client.set_endpoints(["nonsense"]), Err(Error::Invalid(_))));
        assert_eq!(client.endpoints(), std::slice::from_ref(&server.endpoint));
        client.get("a").await.expect("get");
    });
}

#[test]
fn old_clusters_are_refused_only_on_request() {
    each(async |server| {
        let config = Config::new([server.endpoint.as_str()]).reject_old_cluster(true);
        Client::connect(config).await.expect("new enough");
        let status = server.client().await.status(&server.endpoint).await.expect("status");
        assert!(status.version.starts_with("3."), "{}", status.version);
    });
}

#[test]
fn maintenance_and_members() {
    each(async |server| {
        let client = server.client().await;
        let members = client.member_list().await.expect("members").members;
        assert_eq!((members.len(), &members[0].name[..]), (1, "m0"));
        client.member_list_serializable().await.expect("members");
        assert!(client.alarm_list().await.expect("alarms").alarms.is_empty());
        client.alarm_disarm(Default::default()).await.expect("nothing to disarm");
        assert_ne!(client.hash_kv(&server.endpoint, 0).await.expect("hash").hash, 0);
        client.defragment(&server.endpoint).await.expect("defragment");
        let error = client.member_remove(1).await.expect_err("no such member");
        assert!(error.is(EtcdError::MemberNotFound), "{error:?}");
        let error = client.move_leader(1).await.expect_err("no such member");
        assert!(error.is(EtcdError::BadLeaderTransferee), "{error:?}");
    });
}

#[test]
fn a_snapshot_reads_to_its_digest() {
    each(async |server| {
        let client = server.client().await;
        client.put("a", "1").await.expect("put");
        let mut snapshot = client.snapshot().await.expect("snapshot");
        let mut bytes = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut snapshot, &mut bytes).await.expect("all of it");
        assert_eq!(bytes.len() % 512, 32);
        assert_eq!(snapshot.remaining(), 0);
    });
}

#[test]
fn leases_as_calls() {
    each(async |server| {
        let client = server.client().await;
        let lease = client.lease_grant(60).id(77).await.expect("grant");
        assert_eq!((lease.id, lease.ttl), (77, 60));
        client.put("a", "1").lease(77).await.expect("put");
        let left = client.lease_keys(77).await.expect("time to live");
        assert_eq!((left.granted_ttl, &left.keys[0][..]), (60, &b"a"[..]));
        assert_eq!(client.leases().await.expect("leases").leases[0].id, 77);
        client.lease_revoke(77).await.expect("revoke");
        assert_eq!(client.get("a").await.expect("get").count, 0);
        assert_eq!(client.lease_time_to_live(77).await.expect("time to live").ttl, -1);
        let error = client.lease_revoke(77).await.expect_err("gone");
        assert_eq!((error.etcd(), error.code()), (Some(EtcdError::LeaseNotFound), Code::NotFound));
    });
}
