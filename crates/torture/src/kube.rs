//! Traffic as Kubernetes makes it: create where there is none, update and delete by the revision last seen, list
//! in pages at one revision. Its watches from there are `watcher`'s.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etch_api::pb::etcdserverpb as pb;
use etch_api::pb::etcdserverpb::request_op::Request as Op;
use etch_sim::history::{Request, Response};
use tokio::time::sleep;

use crate::ask;
use crate::client::Client;

/// What all keys begin with.
pub const PREFIX: &str = "/registry/pods/";
/// About as many objects are kept.
const OBJECTS: usize = 10;

/// What was last read: keys with the revision of their last change.
#[derive(Clone, Default)]
pub struct Cache(Arc<Mutex<(i64, BTreeMap<String, i64>)>>);

impl Cache {
    fn with<T>(&self, look: impl FnOnce(&mut (i64, BTreeMap<String, i64>)) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn any(&self, client: &mut Client) -> Option<(String, i64)> {
        self.with(|(_, objects)| {
            let nth = client.rng.between(0, objects.len().max(1) as u64 - 1) as usize;
            objects.iter().nth(nth).map(|(key, revision)| (key.clone(), *revision))
        })
    }

    fn count(&self) -> usize {
        self.with(|(_, objects)| objects.len())
    }
}

/// Reads or writes until the load ends.
pub async fn run(mut client: Client, cache: Cache, writes: bool) {
    let mut well = true;
    while client.world.loading() {
        if writes && well {
            well = write(&mut client, &cache).await;
        } else {
            read(&mut client, &cache).await;
            well = true;
        }
        let pause = client.rng.between(1, 9);
        sleep(Duration::from_millis(pause)).await;
    }
}

async fn read(client: &mut Client, cache: &Cache) {
    let any = cache.any(client);
    match (client.rng.between(0, 9), any) {
        (0 | 1, Some((key, _))) => {
            client.ask(Request::Range(ask::get(&key, 0))).await;
        }
        (2, Some((key, _))) => {
            let at = cache.with(|(revision, _)| *revision);
            client.ask(Request::Range(ask::get(&key, at))).await;
        }
        (3, Some((_, revision))) => list(client, cache, revision).await,
        (4, _) => {
            let lease = pb::RangeRequest { count_only: true, ..ask::list(PREFIX, 0) };
            client.ask(Request::Range(lease)).await;
        }
        _ => list(client, cache, 0).await,
    }
}

/// A list in pages, all at the revision of the first.
async fn list(client: &mut Client, cache: &Cache, mut revision: i64) {
    let fresh = revision == 0;
    let mut from = PREFIX.as_bytes().to_vec();
    let mut found = BTreeMap::new();
    loop {
        let limit = client.rng.range(4, 12);
        let page =
            pb::RangeRequest { key: from.clone().into(), limit, ..ask::list(PREFIX, revision) };
        let Some(Response::Range(page)) = client.ask(Request::Range(page)).await else { return };
        if revision == 0 {
            revision = page.header.as_ref().map_or(0, |h| h.revision);
        }
        for kv in &page.kvs {
            found.insert(String::from_utf8_lossy(&kv.key).into_owned(), kv.mod_revision);
        }
        let Some(last) = page.kvs.last().filter(|_| page.more) else { break };
        from = last.key.to_vec();
        from.push(0);
    }
    if fresh {
        cache.with(|cached| {
            if cached.0 < revision {
                *cached = (revision, found);
            }
        });
    }
}

async fn write(client: &mut Client, cache: &Cache) -> bool {
    let count = cache.count();
    let any = cache.any(client);
    let choice = client.rng.between(0, 99);
    let value = format!("v{}", client.world.unique());
    let (key, compare, op) = match any {
        Some((key, at)) if count > OBJECTS * 3 / 2 || (count >= OBJECTS / 2 && choice < 10) => {
            let op = Op::RequestDeleteRange(ask::delete(&key));
            (key, at, op)
        }
        Some((key, at)) if count >= OBJECTS / 2 && choice < 90 => {
            let op = Op::RequestPut(ask::put(&key, value, 0));
            (key, at, op)
        }
        _ => {
            let key = format!("{PREFIX}default/{:05x}", client.rng.between(0, 0xf_ffff));
            let op = Op::RequestPut(ask::put(&key, value, 0));
            (key, 0, op)
        }
    };
    let removes = matches!(op, Op::RequestDeleteRange(_));
    let otherwise = vec![Op::RequestRange(ask::get(&key, 0))];
    let txn = ask::txn(vec![ask::at_revision(&key, compare)], vec![op], otherwise);
    let Some(Response::Txn(done)) = client.ask(Request::Txn(txn)).await else { return false };
    let revision = done.header.as_ref().map_or(0, |h| h.revision);
    cache.with(|(_, objects)| match (done.succeeded, removes) {
        (true, false) => drop(objects.insert(key, revision)),
        // Gone, or changed by somebody else: the next list says what it is.
        _ => drop(objects.remove(&key)),
    });
    true
}
