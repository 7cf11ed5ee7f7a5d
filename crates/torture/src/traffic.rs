//! What the clients of a run ask for, by profile; compactions and the operator's calls beside it. Not here:
//! Kubernetes' way (`kube`), watches (`watcher`), how a request is made and recorded (`client`).

use std::time::Duration;

use bytes::Bytes;
use etch_api::pb::etcdserverpb as pb;
use etch_api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use etch_api::pb::etcdserverpb::request_op::Request as Op;
use etch_sim::history::{Request, Response};
use tokio::time::sleep;

use crate::ask;
use crate::client::{Client, revision_of};
use crate::plan::Profile;
use crate::rng::Rng;

/// How many keys the clients fight over.
const KEYS: u64 = 10;
/// What all of them begin with.
pub const PREFIX: &str = "key-";
/// Leases live this long, or so short that they end within the run.
const TTLS: &[i64] = &[7200, 7200, 1, 2];

/// What a client asks next.
#[derive(Clone, Copy)]
enum Choice {
    Get,
    List,
    StaleGet,
    StaleList,
    Narrow,
    Put,
    PutOption,
    Delete,
    DeleteMany,
    ManyOps,
    Nested,
    CompareAndSet,
    Lease,
    LeasedPut,
    Revoke,
    KeepAlive,
    LeaseLeft,
}

const PUT: &[(u64, Choice)] = &[
    (15, Choice::Get),
    (12, Choice::List),
    (10, Choice::StaleGet),
    (10, Choice::StaleList),
    (5, Choice::Narrow),
    (10, Choice::ManyOps),
    (38, Choice::Put),
];
const PUT_DELETE_LEASE: &[(u64, Choice)] = &[
    (12, Choice::Get),
    (8, Choice::List),
    (8, Choice::StaleGet),
    (8, Choice::StaleList),
    (4, Choice::Narrow),
    (20, Choice::Put),
    (4, Choice::PutOption),
    (5, Choice::Delete),
    (2, Choice::DeleteMany),
    (8, Choice::ManyOps),
    (5, Choice::CompareAndSet),
    (3, Choice::Lease),
    (6, Choice::LeasedPut),
    (3, Choice::Revoke),
    (3, Choice::KeepAlive),
    (1, Choice::LeaseLeft),
];
const NESTED: &[(u64, Choice)] = &[
    (12, Choice::Get),
    (10, Choice::List),
    (8, Choice::StaleList),
    (10, Choice::Put),
    (4, Choice::Delete),
    (3, Choice::DeleteMany),
    (10, Choice::ManyOps),
    (30, Choice::Nested),
    (8, Choice::CompareAndSet),
    (5, Choice::LeasedPut),
];

/// Few lists: each is all of the values.
const LARGE: &[(u64, Choice)] = &[
    (45, Choice::Get),
    (2, Choice::List),
    (13, Choice::StaleGet),
    (5, Choice::ManyOps),
    (35, Choice::Put),
];

/// A client with what it remembers.
struct Worker {
    client: Client,
    large: bool,
    last_revision: i64,
    lease: i64,
}

/// Asks until the load ends.
pub async fn run(client: Client, profile: Profile) {
    let choices = match profile {
        Profile::Put => PUT,
        Profile::Large => LARGE,
        Profile::Nested => NESTED,
        Profile::PutDeleteLease | Profile::Kubernetes => PUT_DELETE_LEASE,
    };
    let large = profile == Profile::Large;
    let mut worker = Worker { client, large, last_revision: 0, lease: 0 };
    let mut well = true;
    while worker.client.world.loading() {
        // One that does not know how its last write ended reads first: few writes in a row are unknown.
        let choice = if well { worker.client.rng.weighted(choices) } else { Choice::List };
        well = worker.step(choice).await;
        let pause = worker.client.rng.between(1, 9);
        sleep(Duration::from_millis(pause)).await;
    }
}

impl Worker {
    async fn ask(&mut self, request: Request) -> Option<Response> {
        let response = self.client.ask(request).await?;
        self.last_revision = revision_of(&response);
        Some(response)
    }

    async fn step(&mut self, choice: Choice) -> bool {
        match choice {
            Choice::CompareAndSet => self.compare_and_set().await,
            Choice::LeasedPut => self.leased_put().await,
            Choice::Lease => self.grant().await,
            Choice::Revoke => self.revoke().await,
            _ => {
                let request = self.plain(choice);
                // A refusal is an answer too; only the unknown makes a client careful.
                self.ask(request).await.is_some()
            }
        }
    }

    /// Requests that need nothing but draws.
    fn plain(&mut self, choice: Choice) -> Request {
        let world = &self.client.world;
        let value = || value(world.unique(), self.large);
        let rng = &mut self.client.rng;
        let at = self.last_revision;
        match choice {
            Choice::Get => Request::Range(ask::get(&key(rng), 0)),
            Choice::List => Request::Range(ask::list(PREFIX, 0)),
            Choice::StaleGet => Request::Range(ask::get(&key(rng), at)),
            Choice::StaleList => Request::Range(ask::list(PREFIX, at)),
            Choice::Narrow => Request::Range(narrow(rng, at)),
            Choice::PutOption => Request::Put(put_option(rng, value())),
            Choice::Delete => {
                let prev_kv = rng.percent(50);
                Request::DeleteRange(pb::DeleteRangeRequest { prev_kv, ..ask::delete(&key(rng)) })
            }
            Choice::DeleteMany => Request::DeleteRange(delete_many(rng)),
            Choice::ManyOps => Request::Txn(many_ops(rng, value)),
            Choice::Nested => Request::Txn(nested(rng, &value, 2)),
            Choice::KeepAlive => {
                Request::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id: self.lease.max(1) })
            }
            Choice::LeaseLeft => {
                let keys = rng.percent(50);
                Request::LeaseTimeToLive(pb::LeaseTimeToLiveRequest { id: self.lease.max(1), keys })
            }
            _ => {
                let key = key(rng);
                let prev_kv = rng.percent(20);
                Request::Put(pb::PutRequest { prev_kv, ..ask::put(&key, value(), 0) })
            }
        }
    }

    async fn compare_and_set(&mut self) -> bool {
        let key = key(&mut self.client.rng);
        let Some(Response::Range(found)) = self.ask(Request::Range(ask::get(&key, 0))).await else {
            return false;
        };
        let at = found.kvs.first().map_or(0, |kv| kv.mod_revision);
        let value = value(self.client.world.unique(), self.large);
        let then = vec![Op::RequestPut(ask::put(&key, value, 0))];
        let otherwise = vec![Op::RequestRange(ask::get(&key, 0))];
        let txn = ask::txn(vec![ask::at_revision(&key, at)], then, otherwise);
        self.ask(Request::Txn(txn)).await.is_some()
    }

    async fn grant(&mut self) -> bool {
        let id = i64::try_from(self.client.world.unique()).unwrap_or(1);
        let ttl = *self.client.rng.pick(TTLS);
        let granted = self.ask(Request::LeaseGrant(pb::LeaseGrantRequest { ttl, id })).await;
        if granted.is_some() {
            self.lease = id;
        }
        granted.is_some()
    }

    async fn leased_put(&mut self) -> bool {
        if self.lease == 0 {
            return self.grant().await;
        }
        let key = key(&mut self.client.rng);
        let value = value(self.client.world.unique(), self.large);
        let put = ask::put(&key, value, self.lease);
        let done = self.ask(Request::Put(put)).await.is_some();
        if !done {
            // Perhaps it has ended: the next one is new.
            self.lease = 0;
        }
        done
    }

    async fn revoke(&mut self) -> bool {
        if self.lease == 0 {
            return true;
        }
        let id = std::mem::take(&mut self.lease);
        self.ask(Request::LeaseRevoke(pb::LeaseRevokeRequest { id })).await.is_some()
    }
}

/// A value that no other write has.
fn value(number: u64, large: bool) -> Bytes {
    let mut value = format!("v{number}");
    if large && number.is_multiple_of(4) {
        let len = 100_000 + (number as usize * 7919) % 900_000;
        value.extend(std::iter::repeat_n('.', len));
    }
    value.into()
}

fn key(rng: &mut Rng) -> String {
    format!("{PREFIX}{}", rng.between(0, KEYS - 1))
}

/// A range with one of its options.
fn narrow(rng: &mut Rng, at: i64) -> pb::RangeRequest {
    let mut range = ask::list(PREFIX, if rng.percent(50) { at } else { 0 });
    match rng.between(0, 6) {
        0 => range.limit = rng.range(1, 5),
        1 => range.keys_only = true,
        2 => range.count_only = true,
        3 => range.min_mod_revision = at - rng.range(0, 20),
        4 => range.max_create_revision = at - rng.range(0, 20),
        5 => range.serializable = true,
        _ => {
            range.sort_order = rng.range(0, 2) as i32;
            range.sort_target = rng.range(0, 4) as i32;
        }
    }
    range
}

fn put_option(rng: &mut Rng, value: Bytes) -> pb::PutRequest {
    let put = ask::put(&key(rng), value, 0);
    // Refused where there is no such key. One that keeps its value could not be told from others in the log.
    pb::PutRequest { ignore_lease: rng.percent(50), prev_kv: rng.percent(70), ..put }
}

fn delete_many(rng: &mut Rng) -> pb::DeleteRangeRequest {
    let prev_kv = rng.percent(50);
    let from = rng.between(0, KEYS - 1);
    let to = Bytes::from(format!("{PREFIX}{}", from + rng.between(1, 3)));
    pb::DeleteRangeRequest { range_end: to, prev_kv, ..ask::delete(&format!("{PREFIX}{from}")) }
}

/// Four operations on different keys, one of them a put.
fn many_ops(rng: &mut Rng, value: impl Fn() -> Bytes) -> pb::TxnRequest {
    let first = rng.between(0, KEYS - 1);
    let ops = (0..4).map(|i| {
        let key = format!("{PREFIX}{}", (first + i) % KEYS);
        match if i == 0 { 0 } else { rng.between(0, 2) } {
            0 => Op::RequestPut(ask::put(&key, value(), 0)),
            1 => Op::RequestRange(ask::get(&key, 0)),
            _ => Op::RequestDeleteRange(ask::delete(&key)),
        }
    });
    let ops = ops.collect();
    ask::txn(Vec::new(), ops, Vec::new())
}

/// Both branches put, on different keys of a half of their own, so that no key is put twice.
fn nested(rng: &mut Rng, value: &impl Fn() -> Bytes, depth: u64) -> pb::TxnRequest {
    let guard = key(rng);
    let compare = match rng.between(0, 3) {
        0 => ask::at_revision(&guard, 0),
        1 => {
            let union = TargetUnion::Version(rng.range(0, 4));
            ask::compare(&guard, CompareResult::Greater, CompareTarget::Version, union)
        }
        2 => {
            let union = TargetUnion::Value(Bytes::from_static(b"v5"));
            ask::compare(&guard, CompareResult::Less, CompareTarget::Value, union)
        }
        _ => pb::Compare {
            range_end: ask::prefix_end(PREFIX),
            ..ask::compare(
                PREFIX,
                CompareResult::Greater,
                CompareTarget::Create,
                TargetUnion::CreateRevision(1),
            )
        },
    };
    // At each depth a pair of keys of its own: a key may be put once in a transaction.
    let own = format!("{PREFIX}{}", depth * 2 + rng.between(0, 1));
    let mut branch = || {
        let mut ops = vec![
            Op::RequestPut(ask::put(&own, value(), 0)),
            Op::RequestRange(ask::list(PREFIX, 0)),
        ];
        if rng.percent(30) {
            ops.push(Op::RequestDeleteRange(ask::delete(&format!("{PREFIX}{}", 6 + depth))));
        }
        if depth > 0 {
            ops.insert(1, Op::RequestTxn(nested(rng, value, depth - 1)));
        }
        ops
    };
    let (then, otherwise) = (branch(), branch());
    ask::txn(vec![compare], then, otherwise)
}

/// Compacts every 200 ms, somewhere up to the newest revision and a little beyond.
pub async fn compact(mut client: Client) {
    let mut last = 2;
    while client.world.loading() {
        sleep(Duration::from_millis(200)).await;
        let newest = client.world.newest();
        let revision = client.rng.range(last.max(newest - 300), newest + 5);
        let physical = client.rng.percent(20);
        let request = Request::Compact(pb::CompactionRequest { revision, physical });
        if client.ask(request).await.is_some() {
            last = revision;
        }
    }
}

/// Hashes and defragments now and then.
pub async fn maintain(mut client: Client) {
    while client.world.loading() {
        let pause = client.rng.between(200, 500);
        sleep(Duration::from_millis(pause)).await;
        let request = if client.rng.percent(40) {
            Request::Defragment
        } else {
            let newest = client.world.newest();
            let revision =
                if client.rng.percent(50) { 0 } else { client.rng.range(newest - 50, newest + 1) };
            Request::HashKv(pb::HashKvRequest { revision: revision.max(0) })
        };
        client.ask_within(request, Duration::from_secs(2)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every key that a transaction puts or deletes, however deep, by the branches taken in turn.
    fn written(txn: &pb::TxnRequest, out: &mut Vec<Vec<u8>>) {
        for op in &txn.success {
            match op.request.as_ref().expect("has a request") {
                Op::RequestPut(put) => out.push(put.key.to_vec()),
                Op::RequestDeleteRange(delete) => out.push(delete.key.to_vec()),
                Op::RequestTxn(inner) => written(inner, out),
                Op::RequestRange(_) => {}
            }
        }
    }

    #[test]
    fn a_transaction_writes_no_key_twice() {
        let mut rng = Rng::new(3);
        for _ in 0..200 {
            for txn in [nested(&mut rng, &Bytes::new, 2), many_ops(&mut rng, Bytes::new)] {
                let mut keys = Vec::new();
                written(&txn, &mut keys);
                let count = keys.len();
                keys.sort();
                keys.dedup();
                assert_eq!(keys.len(), count, "etcd refuses a key that is put twice");
            }
        }
    }

    #[test]
    fn values_are_unique_and_some_are_large() {
        let values: Vec<Bytes> = (1..60).map(|n| value(n, true)).collect();
        assert!(values.iter().any(|v| v.len() > 500_000) && values.iter().any(|v| v.len() < 10));
        assert_eq!(value(6, false), "v6");
    }
}
