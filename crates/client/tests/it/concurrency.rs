//! Sessions, locks, elections, transactions over memory, and the recipes made of them, through a real server.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use etch_client::concurrency::{Election, Isolation, Mutex, Session, Stm};
use etch_client::recipes::{Barrier, DoubleBarrier, PriorityQueue, Queue, RwLock};
use etch_client::{Client, Error, put};
use futures_util::StreamExt;

use crate::common::{Mode, Proxy, each, until};

#[test]
fn a_session_ends_with_its_scope_and_tells_when_it_is_lost() {
    each(async |server| {
        let client = server.client().await;
        let inside = Session::scope(&client, 10, async |session| {
            let lease = session.lease();
            session.client().put("s", "1").lease(lease).await?;
            Ok(lease)
        });
        let lease = inside.await.expect("done");
        assert_eq!(client.lease_time_to_live(lease).await.expect("ttl").ttl, -1);
        assert_eq!(client.get("s").await.expect("get").count, 0);

        let session = Session::new(&client).ttl(10).await.expect("session");
        client.lease_revoke(session.lease()).await.expect("revoke");
        assert_eq!(session.lost().await, Error::LeaseLost(session.lease()));
        let mutex = Mutex::new(&session, "m");
        assert!(matches!(mutex.lock().await.err(), Some(Error::LeaseLost(_))));

        let session = Session::new(&client).ttl(10).await.expect("session");
        let lease = session.lease();
        drop(session);
        until("a dropped session's lease is revoked", || async {
            client.lease_time_to_live(lease).await.is_ok_and(|left| left.ttl == -1)
        })
        .await;
        let session = Session::new(&client).ttl(10).await.expect("session");
        let lease = session.lease();
        session.orphan();
        let heir = Session::new(&client).ttl(10).lease(lease).await.expect("taken over");
        assert_eq!(heir.lease(), lease);
        heir.close().await.expect("closed");
    });
}

/// As Go writes it: a number below zero has a sign.
#[test]
fn places_in_line_bear_the_lease_as_go_writes_it() {
    each(async |server| {
        let client = server.client().await;
        for (lease, name) in [(0x2a, "2a"), (-0xff, "-ff")] {
            client.lease_grant(60).id(lease).await.expect("grant");
            let session = Session::new(&client).lease(lease).await.expect("session");
            let guard = Mutex::new(&session, "lock").lock().await.expect("lock");
            assert_eq!(&guard.key()[..], format!("lock/{name}").as_bytes());
            let leads = Election::new(&session, "vote").campaign("me").await.expect("elected");
            assert_eq!(&leads.key()[..], format!("vote/{name}").as_bytes());
            guard.unlock().await.expect("unlock");
            leads.resign().await.expect("resign");
        }
    });
}

#[test]
fn a_lock_is_held_by_one_at_a_time_with_growing_numbers() {
    each(async |server| {
        let inside = Arc::new(AtomicUsize::new(0));
        let last = Arc::new(AtomicI64::new(0));
        let mut tasks = Vec::new();
        for _ in 0..4 {
            let client = server.client().await;
            let (inside, last) = (inside.clone(), last.clone());
            tasks.push(tokio::spawn(async move {
                let session = Session::new(&client).ttl(20).await?;
                for _ in 0..5 {
                    let guard = Mutex::new(&session, "lock").lock().await?;
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two at once");
                    assert!(last.swap(guard.fencing(), Ordering::SeqCst) < guard.fencing());
                    let fenced = client.txn().when(guard.is_owner()).then(put("data", "x"));
                    assert!(fenced.await?.succeeded);
                    inside.fetch_sub(1, Ordering::SeqCst);
                    guard.unlock().await?;
                }
                session.close().await
            }));
        }
        for task in tasks {
            task.await.expect("the task").expect("no error");
        }
        assert_eq!(server.client().await.get("lock/").prefix().await.expect("get").count, 0);
    });
}

#[test]
fn try_lock_and_dropped_waiters_leave_nothing_in_line() {
    each(async |server| {
        let client = server.client().await;
        let one = Session::new(&client).ttl(20).await.expect("session");
        let two = Session::new(&client).ttl(20).await.expect("session");
        let held = Mutex::new(&one, "l").lock().await.expect("lock");
        let waiting = Mutex::new(&two, "l");
        assert_eq!(waiting.try_lock().await.err(), Some(Error::Locked));
        let line = || async { client.get("l/").prefix().await.map(|all| all.count) };
        assert_eq!(line().await, Ok(1));
        let impatient = tokio::time::timeout(Duration::from_millis(300), waiting.lock()).await;
        assert!(impatient.is_err(), "it is held");
        until("the waiter left the line", || async { line().await == Ok(1) }).await;
        drop(held);
        let held = waiting.lock().await.expect("the lock was let go");
        assert!(held.key().starts_with(b"l/"));
        held.unlock().await.expect("unlock");
        waiting.try_lock().await.expect("free").unlock().await.expect("unlock");
        assert_eq!(line().await, Ok(0));
    });
}

/// A turn that comes when the waiter's own lease is gone is none.
#[test]
fn i11456_no_lock_after_the_own_lease_is_gone() {
    each(async |server| {
        let client = server.client().await;
        let one = Session::new(&client).ttl(20).await.expect("session");
        let proxy = Proxy::start(server.address()).await;
        let far = crate::common::client(&proxy.endpoint).await;
        let two = Session::new(&far).ttl(20).await.expect("session");
        let held = Mutex::new(&one, "l").lock().await.expect("lock");
        let mutex = Mutex::new(&two, "l");
        let waiting = tokio::spawn(async move { mutex.lock().await.map(|guard| guard.fencing()) });
        until("both are in line", || async {
            client.get("l/").prefix().await.is_ok_and(|all| all.count == 2)
        })
        .await;
        proxy.set(Mode::Hang);
        client.lease_revoke(two.lease()).await.expect("revoke");
        held.unlock().await.expect("unlock");
        proxy.set(Mode::Pass);
        let error = waiting.await.expect("the task").expect_err("not the owner");
        assert!(matches!(error, Error::LeaseLost(_)), "{error:?}");
    });
}

#[test]
fn elections_have_one_leader_and_observers_see_each() {
    each(async |server| {
        let client = server.client().await;
        let one = Session::new(&client).ttl(20).await.expect("session");
        let two = Session::new(&client).ttl(20).await.expect("session");
        let (first, second) = (Election::new(&one, "e"), Election::new(&two, "e"));
        assert_eq!(first.leader().await.err(), Some(Error::NotLeading));
        let mut leaders = second.observe();
        let mut leader = first.campaign("one").await.expect("elected");
        let seen = |kv: Option<Result<etch_client::KeyValue, Error>>| {
            String::from_utf8(kv.expect("goes on").expect("no error").value.to_vec()).expect("text")
        };
        assert_eq!(seen(leaders.next().await), "one");
        leader.proclaim("one, again").await.expect("leads");
        assert_eq!(seen(leaders.next().await), "one, again");
        let waiting = tokio::spawn(async move { second.campaign("two").await });
        until("two candidates", || async {
            client.get("e/").prefix().await.is_ok_and(|all| all.count == 2)
        })
        .await;
        assert_eq!(first.leader().await.expect("a leader").value, "one, again");
        let (key, revision) = leader.keep();
        first.resume(key, revision).resign().await.expect("resigned");
        let mut leader = waiting.await.expect("the task").expect("elected");
        assert_eq!(seen(leaders.next().await), "two");
        assert!(leader.revision() > revision);
        client.lease_revoke(two.lease()).await.expect("revoke");
        assert_eq!(leader.proclaim("too late").await, Err(Error::NotLeading));
    });
}

async fn amount(tx: &Stm, key: &str) -> Result<i64, Error> {
    let value = tx.get(key).await?;
    let text = String::from_utf8_lossy(&value).into_owned();
    text.parse::<i64>().map_err(|e| Error::Malformed(e.to_string()))
}

async fn balance(client: &Client, account: usize) -> i64 {
    let read = client.get(format!("acc/{account}")).await.expect("get");
    std::str::from_utf8(&read.kvs[0].value).expect("text").parse().expect("a number")
}

#[test]
fn money_is_neither_made_nor_lost_by_transfers() {
    each(async |server| {
        for isolation in
            [Isolation::SerializableSnapshot, Isolation::Serializable, Isolation::RepeatableReads]
        {
            let client = server.client().await;
            for account in 0..3 {
                client.put(format!("acc/{account}"), "100").await.expect("put");
            }
            let mut tasks = Vec::new();
            for task in 0..3usize {
                let client = client.clone();
                tasks.push(tokio::spawn(async move {
                    for n in 0..10 {
                        let (from, to) = (format!("acc/{task}"), format!("acc/{}", (task + n) % 3));
                        let stm = client.stm().isolation(isolation).prefetch([&from]);
                        stm.run(|tx| {
                            let (from, to) = (&from, &to);
                            async move {
                                let left = amount(&tx, from).await? - 1;
                                tx.put(from, left.to_string());
                                let more = amount(&tx, to).await? + 1;
                                tx.put(to, more.to_string());
                                Ok(())
                            }
                        })
                        .await
                        .expect("a transfer");
                    }
                }));
            }
            for task in tasks {
                task.await.expect("the task");
            }
            let total =
                balance(&client, 0).await + balance(&client, 1).await + balance(&client, 2).await;
            assert_eq!(total, 300, "{isolation:?}");
        }
    });
}

#[test]
fn isolation_levels_differ_where_they_should() {
    each(async |server| {
        // What another writes between our read and our commit.
        for (isolation, read, blind) in [
            (Isolation::SerializableSnapshot, 2, 2),
            (Isolation::Serializable, 2, 1),
            (Isolation::RepeatableReads, 2, 1),
            (Isolation::ReadCommitted, 1, 1),
        ] {
            for (meddled, expected) in [("read", read), ("blind", blind)] {
                let client = server.client().await;
                client.put("read", "0").await.expect("put");
                client.put("blind", "0").await.expect("put");
                let runs = AtomicUsize::new(0);
                let runs = &runs;
                let meddler = &client;
                client
                    .stm()
                    .isolation(isolation)
                    .run(|tx| async move {
                        tx.get("read").await?;
                        if runs.fetch_add(1, Ordering::SeqCst) == 0 {
                            meddler.put(meddled, "meddled").await?;
                        }
                        tx.put("blind", "mine");
                        Ok(())
                    })
                    .await
                    .expect("goes through");
                assert_eq!(runs.load(Ordering::SeqCst), expected, "{isolation:?}, {meddled}");
            }
        }
    });
}

#[test]
fn a_transaction_s_error_writes_nothing_and_its_own_writes_are_read() {
    each(async |server| {
        let client = server.client().await;
        let refused = client
            .stm()
            .run(|tx| async move {
                tx.put("a", "1");
                assert_eq!(tx.get("a").await?, "1");
                tx.delete("a");
                assert_eq!(tx.get("a").await?, "");
                tx.put("a", "2");
                Err::<(), _>(Error::Invalid("changed my mind".into()))
            })
            .await;
        assert!(matches!(refused, Err(Error::Invalid(_))));
        assert_eq!(client.get("a").await.expect("get").count, 0);
    });
}

#[test]
fn queues_give_each_item_once_and_in_order() {
    each(async |server| {
        let client = server.client().await;
        let queue = Queue::new(&client, "q");
        let waiting = tokio::spawn({
            let queue = Queue::new(&client, "q");
            async move { queue.dequeue().await }
        });
        queue.enqueue("0").await.expect("enqueue");
        assert_eq!(waiting.await.expect("the task").expect("an item"), "0");
        for n in 1..5 {
            queue.enqueue(n.to_string()).await.expect("enqueue");
        }
        for n in 1..5 {
            assert_eq!(queue.dequeue().await.expect("an item"), n.to_string());
        }
        let urgent = PriorityQueue::new(&client, "pq");
        for (item, priority) in [("c", 7), ("a", 1), ("d", 7), ("b", 2)] {
            urgent.enqueue(item, priority).await.expect("enqueue");
        }
        for item in ["a", "b", "c", "d"] {
            assert_eq!(urgent.dequeue().await.expect("an item"), item);
        }
    });
}

#[test]
fn barriers_hold_and_let_go() {
    each(async |server| {
        let client = server.client().await;
        let barrier = Barrier::new(&client, "b");
        barrier.wait().await.expect("open");
        barrier.hold().await.expect("closed");
        assert_eq!(barrier.hold().await, Err(Error::Locked));
        let waiting = tokio::spawn({
            let client = client.clone();
            async move { Barrier::new(&client, "b").wait().await }
        });
        barrier.release().await.expect("released");
        waiting.await.expect("the task").expect("open");

        let inside = Arc::new(AtomicUsize::new(0));
        let mut tasks = Vec::new();
        for _ in 0..3 {
            let (client, inside) = (server.client().await, inside.clone());
            tasks.push(tokio::spawn(async move {
                let session = Session::new(&client).ttl(20).await?;
                let mut barrier = DoubleBarrier::new(&session, "d", 3);
                barrier.enter().await?;
                inside.fetch_add(1, Ordering::SeqCst);
                until("all are inside", || async { inside.load(Ordering::SeqCst) == 3 }).await;
                barrier.leave().await?;
                session.close().await
            }));
        }
        for task in tasks {
            task.await.expect("the task").expect("no error");
        }
        assert_eq!(client.get("d/").prefix().await.expect("get").count, 0);
    });
}

#[test]
fn readers_share_and_writers_wait() {
    each(async |server| {
        let client = server.client().await;
        let session = Session::new(&client).ttl(20).await.expect("session");
        let lock = RwLock::new(&session, "rw");
        let (one, two) = (lock.read().await.expect("read"), lock.read().await.expect("read"));
        assert!(one.fencing() < two.fencing());
        let waiting = tokio::spawn({
            let lock = RwLock::new(&session, "rw");
            async move { lock.write().await }
        });
        until("the writer is in line", || async {
            client.get("rw/").prefix().await.is_ok_and(|all| all.count == 3)
        })
        .await;
        assert!(!waiting.is_finished());
        one.unlock().await.expect("unlock");
        two.unlock().await.expect("unlock");
        let writing = waiting.await.expect("the task").expect("write");
        let late = tokio::time::timeout(Duration::from_millis(200), lock.read()).await;
        assert!(late.is_err(), "a writer is in there");
        writing.unlock().await.expect("unlock");
        lock.read().await.expect("read").unlock().await.expect("unlock");
    });
}
