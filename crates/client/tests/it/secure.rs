//! Users and tokens, TLS, sockets in the file system.

use std::time::Duration;

use etch_client::concurrency::Session;
use etch_client::{Client, Config, Error, EtcdError, KeySpan, PermissionType, Tls};
use tokio::net::{TcpStream, UnixListener};

use crate::balance::field;
use crate::common::{Kind, Proxy, Server, each, run, server::free_port, until};
use crate::observe::observed;

/// Runs a test against a real etcd, where there is one.
fn etcd<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    if Kind::all().contains(&Kind::Etcd) {
        run(test());
    }
}

async fn with_users(server: &Server) {
    let root = server.client().await;
    root.user_add("root", "r").await.expect("user");
    root.user_grant_role("root", "root").await.expect("role");
    root.role_add("writer").await.expect("role");
    let keys = KeySpan::prefix("w/");
    root.role_grant_permission("writer", keys, PermissionType::Readwrite).await.expect("grant");
    root.user_add("alice", "a").await.expect("user");
    root.user_grant_role("alice", "writer").await.expect("role");
    root.auth_enable().await.expect("enabled");
}

#[test]
fn a_token_is_fetched_and_renewed_for_calls_and_streams() {
    etcd(async || {
        let mut server = Server::start(Kind::Etcd).await;
        with_users(&server).await;
        let endpoint = server.endpoint.clone();
        let at = || Config::new([endpoint.as_str()]);
        let nobody = Client::connect(at()).await.expect("a client");
        let error = nobody.put("w/a", "1").await.expect_err("no user");
        assert!(error.is(EtcdError::UserEmpty), "{error:?}");
        let error = Client::connect(at().user("alice", "wrong")).await.err().expect("refused");
        assert!(error.is(EtcdError::AuthFailed), "{error:?}");

        let alice = Client::connect(at().user("alice", "a")).await.expect("a client");
        alice.put("w/a", "1").await.expect("allowed");
        let error = alice.put("x", "1").await.expect_err("not hers");
        assert!(error.is(EtcdError::PermissionDenied), "{error:?}");
        let error = alice.watch("x").await.err().expect("not hers");
        assert!(error.is(EtcdError::PermissionDenied), "{error:?}");
        let mut watch = alice.watch("w/").prefix().await.expect("watch");
        let session = Session::new(&alice).ttl(30).await.expect("session");

        // Simple tokens do not outlive the server: all of this needs a new one.
        server.kill();
        server.spawn();
        let alice = alice.with_timeout(Duration::from_secs(20));
        alice.put("w/a", "2").await.expect("with a new token");
        let response = watch.next().await.expect("goes on").expect("no error");
        assert_eq!(response.events[0].kv.as_ref().expect("a key").value, "2");
        alice.put("w/b", "1").lease(session.lease()).await.expect("the lease lives");
        session.close().await.expect("closed");
        let root = Client::connect(at().user("root", "r")).await.expect("a client");
        assert!(root.auth_status().await.expect("status").enabled);
        root.auth_disable().await.expect("disabled");
        alice.put("x", "1").await.expect("no more auth");
    });
}

/// Other members may not have applied yet what gave it, and refuse it.
#[test]
fn a_new_token_is_shown_first_where_it_was_given() {
    const RENEWALS: usize = 5;
    let (spans, _) = observed(async {
        let server = Server::start(Kind::Etch).await;
        with_users(&server).await;
        let mut proxies = Vec::new();
        for _ in 0..3 {
            proxies.push(Proxy::start(server.address()).await);
        }
        let root = Config::new([server.endpoint.as_str()]).user("root", "r");
        let root = Client::connect(root).await.expect("a client");
        let all = Config::new(proxies.iter().map(|proxy| proxy.endpoint.clone()));
        let alice = Client::connect(all.user("alice", "a")).await.expect("a client");
        until("all three are connected", || async {
            // More than a greeting takes: a call has gone through it.
            alice.get("w/a").await.is_ok() && proxies.iter().all(|proxy| proxy.asked() > 2000)
        })
        .await;
        for _ in 0..RENEWALS {
            // The same password, and no token of hers is good any more.
            root.user_change_password("alice", "a").await.expect("changed");
            alice.put("w/a", "1").await.expect("with a new token");
            alice.put("w/b", "1").await.expect("with the same one");
        }
    });
    let puts: Vec<&String> = spans.iter().filter(|span| span.contains("KV/Put")).collect();
    assert_eq!(puts.len(), 2 * RENEWALS);
    for pair in puts.chunks(2) {
        assert_eq!(
            (field(pair[0], "attempts"), field(pair[1], "attempts")),
            (Some("2"), Some("1"))
        );
        assert_eq!(field(pair[0], "endpoint"), field(pair[1], "endpoint"), "{pair:?}");
    }
}

#[test]
fn tls_is_verified_unless_that_is_skipped_by_name() {
    etcd(async || {
        let port = free_port();
        let endpoint = format!("https://127.0.0.1:{port}");
        let peer = format!("http://127.0.0.1:{}", free_port());
        let server = Server::start_secured(&endpoint, &peer).await;
        let careless = Tls::new().dangerously_skip_verify();
        let config = Config::new([server.endpoint.as_str()]).tls(careless);
        let client = Client::connect(config).await.expect("a client");
        client.put("a", "1").await.expect("put");
        let config = Config::new([server.endpoint.as_str()])
            .tls(Tls::new())
            .dial_timeout(Duration::from_secs(2));
        let client = Client::connect(config).await.expect("a client");
        let error = client.put("a", "2").await.expect_err("signed by nobody");
        assert!(error.to_string().contains("certificate"), "{error}");
        let plain = format!("http://127.0.0.1:{port}");
        let config = Config::new([plain]).dial_timeout(Duration::from_secs(2));
        let client = Client::connect(config).await.expect("a client");
        let error = client.put("a", "2").await.expect_err("a TLS port");
        assert!(matches!(error, Error::NoEndpoint(_)), "{error:?}");
    });
}

#[test]
fn a_socket_in_the_file_system_is_an_endpoint() {
    each(async |server| {
        let dir = std::env::temp_dir().join(format!("etch-client-unix-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let path = dir.join(format!("{:?}.sock", server.kind));
        let listener = UnixListener::bind(&path).expect("a socket");
        let to = server.address().to_owned();
        let forward = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let to = to.clone();
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(to).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        for endpoint in [format!("unix:{}", path.display()), format!("unix://{}", path.display())] {
            let client = crate::common::client(&endpoint).await;
            client.put("a", "1").await.expect("put");
        }
        forward.abort();
        let _ = std::fs::remove_file(&path);
    });
}
