//! Layers over the client, mirrors, and names, through a real server.

use std::collections::BTreeMap;

use etch_client::mirror::Syncer;
use etch_client::naming::{Endpoint, Manager, Update};
use etch_client::{Compare, EtcdError, HasHeader, delete, get, put};
use futures_util::StreamExt;

use crate::common::{each, until};

#[test]
fn a_namespace_hides_its_prefix_everywhere() {
    each(async |server| {
        let client = server.client().await;
        let inner = client.namespaced("ns/");
        client.put("outside", "x").await.expect("put");
        let mut watch = inner.watch("").prefix().prev_kv().await.expect("watch");
        inner.put("a", "1").await.expect("put");
        inner.put("b", "2").await.expect("put");
        assert_eq!(client.get("ns/a").await.expect("get").count, 1);
        let all = inner.get("").prefix().await.expect("get");
        let keys: Vec<_> = all.kvs.iter().map(|kv| &kv.key[..]).collect();
        assert_eq!(keys, [b"a", b"b"]);
        let event = &watch.next().await.expect("goes on").expect("no error").events[0];
        assert_eq!(event.kv.as_ref().expect("a key").key, "a");
        let moved = inner
            .txn()
            .when(Compare::value("a").equal("1"))
            .then(delete("a").prev_kv())
            .then(get("b"))
            .await
            .expect("txn");
        assert!(moved.succeeded);
        let text = format!("{moved:?}");
        assert!(!text.contains("ns/"), "{text}");
        let lease = inner.lease_grant(60).await.expect("grant").id;
        inner.put("l", "").lease(lease).await.expect("put");
        client.put("outside", "").lease(lease).await.expect("put");
        assert_eq!(inner.lease_keys(lease).await.expect("keys").keys, ["l"]);
        assert!(inner.get("").await.expect_err("no key").is(EtcdError::EmptyKey));
        let mut pieces = inner.get("").prefix().stream();
        let piece = pieces.next().await.expect("one").expect("no error");
        assert_eq!(piece.kvs[0].key, "b");
        assert_eq!(inner.delete("").prefix().await.expect("delete").deleted, 2);
        assert_eq!(client.get("").prefix().await.expect("get").count, 1);
    });
}

#[test]
fn ordered_reads_work_as_ever() {
    each(async |server| {
        let client = server.client().await.ordered(5);
        let written = client.put("a", "1").await.expect("put").revision();
        assert!(client.get("a").serializable().await.expect("get").revision() >= written);
        let read = client.txn().then(get("a")).await.expect("txn");
        assert!(read.revision() >= written);
        let mut pieces = client.get("").prefix().stream();
        assert_eq!(pieces.next().await.expect("one").expect("no error").kvs.len(), 1);
    });
}

#[test]
fn owned_keys_are_answered_from_memory_and_given_back_for_writes() {
    each(async |server| {
        let client = server.client().await;
        let one = client.leasing("own/").await.expect("leasing");
        let two = server.client().await.leasing("own/").await.expect("leasing");
        two.put("k", "1").await.expect("put");
        assert_eq!(one.get("k").await.expect("get").kvs[0].value, "1");
        assert_eq!(client.get("own/k").await.expect("get").count, 1, "it is owned");
        // Past the layer: the owner does not know, which shows that it answers from memory.
        client.put("k", "past").await.expect("put");
        assert_eq!(one.get("k").await.expect("get").kvs[0].value, "1");
        for n in 2..10 {
            two.put("k", n.to_string()).await.expect("put");
            let read = one.get("k").await.expect("get");
            assert_eq!(read.kvs[0].value, n.to_string());
            one.put("k", format!("own {n}")).await.expect("put");
            let read = two.get("k").await.expect("get");
            assert_eq!(read.kvs[0].value, format!("own {n}"));
        }
        one.get("k").await.expect("get");
        let txn = two.txn().when(Compare::version("k").greater(0)).then(delete("").prefix());
        assert!(txn.await.expect("txn").succeeded);
        assert_eq!(one.get("k").await.expect("get").count, 0);
        // An owner that is gone holds nobody up for longer than it takes to notice.
        drop(one);
        two.put("k", "after").await.expect("put");
        drop(two);
        until("nothing is owned", || async {
            client.get("own/").prefix().await.is_ok_and(|all| all.count == 0)
        })
        .await;
    });
}

#[test]
fn a_mirror_misses_nothing_between_base_and_updates() {
    each(async |server| {
        let client = server.client().await;
        for n in 0..5 {
            client.put(format!("m/{n}"), "base").await.expect("put");
        }
        let mut syncer = Syncer::new(&client, "m/");
        let mut copy = BTreeMap::new();
        let mut base = syncer.base().await.expect("base");
        client.put("m/5", "update").await.expect("put");
        while let Some(piece) = base.next().await {
            copy.extend(piece.expect("a piece").kvs.into_iter().map(|kv| (kv.key, kv.value)));
        }
        assert_eq!(copy.len(), 5);
        let mut updates = syncer.updates().await.expect("updates");
        let response = updates.next().await.expect("goes on").expect("no error");
        assert_eq!(response.events[0].kv.as_ref().expect("a key").key, "m/5");
        let early = Syncer::new(&client, "m/").updates().await;
        assert!(early.is_err(), "from which revision?");
    });
}

#[test]
fn services_are_found_followed_and_forgotten() {
    each(async |server| {
        let client = server.client().await;
        let service = Manager::new(&client, "svc").expect("a name");
        let mut sets = service.resolve();
        assert!(sets.next().await.expect("a set").expect("no error").is_empty());
        let lease = client.lease_grant(60).await.expect("grant").id;
        let alive = Endpoint::new(server.endpoint.clone());
        service.add("svc/one", alive.clone(), lease).await.expect("added");
        let set = sets.next().await.expect("a set").expect("no error");
        assert_eq!(set.get("svc/one"), Some(&alive));
        client.put("svc/broken", "no JSON").await.expect("put");
        let wrong = service.add("elsewhere/one", alive.clone(), 0).await;
        assert!(wrong.is_err(), "not under the service's name");

        let follower = crate::common::client("127.0.0.1:1").await;
        let following = tokio::spawn({
            let (service, follower) = (service.clone(), follower.clone());
            async move { service.follow(&follower).await }
        });
        until("the endpoint is taken", || async {
            follower.endpoints() == std::slice::from_ref(&server.endpoint)
        })
        .await;
        follower.get("a").await.expect("reached by name");
        client.lease_revoke(lease).await.expect("revoke");
        let set = sets.next().await.expect("a set").expect("no error");
        assert!(set.is_empty(), "it went with its lease");
        assert_eq!(follower.endpoints().len(), 1, "the last ones are kept");
        following.abort();

        let mut changes = service.watch(None).await.expect("watch");
        let both = [Update::Add("svc/a".into(), alive.clone()), Update::Delete("svc/b".into())];
        service.update(both, 0).await.expect("updated");
        let seen = changes.next().await.expect("goes on").expect("no error");
        assert_eq!(seen, [Update::Add("svc/a".into(), alive)]);
        service.delete("svc/a").await.expect("deleted");
        assert!(service.list().await.expect("list").is_empty());
    });
}

#[test]
fn a_put_in_a_namespace_of_a_namespace() {
    each(async |server| {
        let client = server.client().await;
        let inner = client.namespaced("a/").namespaced("b/");
        inner.txn().then(put("c", "1")).await.expect("txn");
        assert_eq!(client.get("a/b/c").await.expect("get").count, 1);
    });
}
