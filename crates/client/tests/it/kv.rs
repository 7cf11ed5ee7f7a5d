//! Keys through a real server: every option of a read, writes, deletions, transactions, pieces.

use crate::common::each;
use etch_client::{
    Code, Compare, Error, EtcdError, HasHeader, SortOrder, SortTarget, delete, get, put, txn,
};

fn keys(answer: &etch_client::GetResponse) -> Vec<&str> {
    answer.kvs.iter().map(|kv| std::str::from_utf8(&kv.key).expect("text")).collect()
}

#[test]
fn reads_with_each_option() {
    each(async |server| {
        let client = server.client().await;
        let first = client.put("k/a", "3").await.expect("put").revision();
        client.put("k/b", "2").await.expect("put");
        client.put("k/c", "1").await.expect("put");
        client.put("k/a", "4").await.expect("put");
        client.put("l", "").await.expect("put");

        let all = client.get("k/").prefix().await.expect("get");
        assert_eq!((keys(&all), all.count, all.more), (vec!["k/a", "k/b", "k/c"], 3, false));
        let some = client.get("k/").prefix().limit(2).await.expect("get");
        assert_eq!((keys(&some), some.count, some.more), (vec!["k/a", "k/b"], 3, true));
        assert_eq!(keys(&client.get("k/b").range("l").await.expect("get")), ["k/b", "k/c"]);
        assert_eq!(keys(&client.get("k/c").from_key().await.expect("get")), ["k/c", "l"]);
        assert_eq!(client.get("").prefix().count_only().await.expect("get").count, 4);
        let old = client.get("k/a").rev(first).await.expect("get");
        assert_eq!(old.kvs[0].value, "3");
        let by_value = client.get("k/").prefix().sort(SortTarget::Value, SortOrder::Descend);
        assert_eq!(keys(&by_value.await.expect("get")), ["k/a", "k/b", "k/c"]);
        let newest = client.get("k/").last(SortTarget::Mod).await.expect("get");
        assert_eq!(keys(&newest), ["k/a"]);
        let oldest = client.get("k/").first(SortTarget::Mod).await.expect("get");
        assert_eq!(keys(&oldest), ["k/b"]);
        let bare = client.get("k/a").keys_only().serializable().await.expect("get");
        assert_eq!((bare.kvs[0].value.len(), bare.kvs[0].version), (0, 2));
        let late = client.get("k/").prefix().min_mod_rev(first + 3).await.expect("get");
        assert_eq!(keys(&late), ["k/a"]);
        let early = client.get("k/").prefix().max_create_rev(first).await.expect("get");
        assert_eq!(keys(&early), ["k/a"]);
    });
}

#[test]
fn writes_deletes_and_compacts() {
    each(async |server| {
        let client = server.client().await;
        assert!(client.put("a", "1").prev_kv().await.expect("put").prev_kv.is_none());
        let before = client.put("a", "2").prev_kv().await.expect("put").prev_kv;
        assert_eq!(before.expect("a previous one").value, "1");
        client.put("a", "").ignore_value().await.expect("put");
        assert_eq!(client.get("a").await.expect("get").kvs[0].value, "2");
        let missing = client.put("b", "").ignore_value().await.expect_err("no such key");
        assert!(missing.is(EtcdError::KeyNotFound), "{missing:?}");

        client.put("b", "3").await.expect("put");
        let gone = client.delete("").prefix().prev_kv().await.expect("delete");
        assert_eq!((gone.deleted, gone.prev_kvs.len()), (2, 2));

        let revision = gone.revision();
        client.compact(revision).physical().await.expect("compact");
        let old = client.get("a").rev(1).await.expect_err("compacted");
        assert!(old.is(EtcdError::Compacted), "{old:?}");
        assert!(!old.may_have_happened());
        let future = client.get("a").rev(revision + 9).await.expect_err("not there yet");
        assert_eq!((future.etcd(), future.code()), (Some(EtcdError::FutureRev), Code::OutOfRange));
    });
}

#[test]
fn transactions_take_one_branch() {
    each(async |server| {
        let client = server.client().await;
        let claim = |who: &'static str| {
            client
                .txn()
                .when(Compare::version("owner").equal(0))
                .then(put("owner", who))
                .then(
                    txn().when(Compare::value("owner").equal("nobody")).otherwise(put("log", who)),
                )
                .otherwise(get("owner"))
        };
        let won = claim("alice").await.expect("txn");
        assert!(won.succeeded);
        let lost = claim("bob").await.expect("txn");
        assert!(!lost.succeeded);
        assert_eq!(client.get("owner").await.expect("get").kvs[0].value, "alice");
        assert_eq!(client.get("log").await.expect("get").kvs[0].value, "alice");

        let whole = client
            .txn()
            .when(Compare::mod_revision("").prefix().less(won.revision() + 1))
            .then(delete("").prefix());
        assert!(whole.await.expect("txn").succeeded);
        let twice = client.txn().then(put("a", "1")).then(put("a", "2")).await;
        assert!(twice.expect_err("twice the same key").is(EtcdError::DuplicateKey));
    });
}

#[test]
fn pieces_are_the_answer_in_one() {
    each(async |server| {
        let client = server.client().await;
        for n in 0..25 {
            client.put(format!("p/{n:02}"), vec![b'x'; 100]).await.expect("put");
        }
        let whole = client.get("p/").prefix().await.expect("get");
        let ways = [client.get("p/").prefix().stream(), {
            let request = client.get("p/").prefix().into_request();
            let kv = client.kv();
            etch_client::RangeStream::by_pages(kv, Default::default(), request).page(4)
        }];
        for mut pieces in ways {
            let mut kvs = Vec::new();
            let mut last = None;
            while let Some(piece) = pieces.next().await {
                let mut piece = piece.expect("a piece");
                kvs.append(&mut piece.kvs);
                last = Some(piece);
                // Written in between: the stream stays at its revision.
                client.put("p/zz", "late").await.expect("put");
            }
            let last = last.expect("at least one");
            let kvs: Vec<_> = kvs.into_iter().filter(|kv| kv.key != "p/zz").collect();
            assert_eq!(kvs.len(), 25);
            assert_eq!(kvs, whole.kvs);
            assert!(!last.more);
            client.delete("p/zz").await.expect("delete");
        }
        let request = client.get("p/").prefix().limit(7).into_request();
        let pages = etch_client::RangeStream::by_pages(client.kv(), Default::default(), request);
        let mut pages = pages.page(3);
        let mut sizes = Vec::new();
        let mut more = false;
        while let Some(page) = pages.next().await {
            let page = page.expect("a page");
            sizes.push(page.kvs.len());
            more = page.more;
        }
        assert_eq!((sizes, more), (vec![3, 3, 1], true));
    });
}

#[test]
fn what_is_too_large_is_refused_on_either_side() {
    each(async |server| {
        let client = server.client().await;
        let local = client.put("big", vec![0; 3 << 20]).await.expect_err("too large to send");
        assert_eq!(local.code(), Code::ResourceExhausted);
        assert!(!local.may_have_happened());
        let remote = client.put("big", vec![0; 1600 << 10]).await.expect_err("too large to take");
        assert!(remote.is(EtcdError::RequestTooLarge), "{remote:?}");
        assert!(matches!(client.get("").await, Err(Error::Refused(_))));
    });
}
