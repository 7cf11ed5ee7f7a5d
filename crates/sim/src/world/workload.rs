//! What clients ask, by the world's profile. Not here: how it is sent and what comes back (`client`).

use bytes::Bytes;
use etch_api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use etch_api::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use etch_api::pb::etcdserverpb::request_op::Request as Op;
use etch_api::pb::etcdserverpb::{self as pb, Compare, RequestOp};

use super::World;
use super::client::Client;
use crate::history::Request;
use crate::params::Profile;
use crate::rng::Rng;

/// The kinds of requests.
#[derive(Clone, Copy, Debug)]
enum What {
    Get,
    GetAt,
    GetStale,
    Put,
    Delete,
    DeleteRange,
    Txn,
    Update,
    Grant,
    Revoke,
    KeepAlive,
    TimeToLive,
    Compact,
    Defragment,
    Hash,
}

const PUT: &[(What, u64)] =
    &[(What::Put, 60), (What::Get, 30), (What::GetAt, 5), (What::GetStale, 5)];
const LEASES: &[(What, u64)] = &[
    (What::Put, 40),
    (What::Get, 15),
    (What::Delete, 8),
    (What::DeleteRange, 3),
    (What::Grant, 10),
    (What::Revoke, 4),
    (What::KeepAlive, 15),
    (What::TimeToLive, 5),
];
const KUBERNETES: &[(What, u64)] =
    &[(What::Update, 60), (What::Get, 20), (What::GetAt, 15), (What::Hash, 1)];
const TXN: &[(What, u64)] =
    &[(What::Txn, 70), (What::Get, 10), (What::Put, 10), (What::Grant, 5), (What::Delete, 5)];
const MIXED: &[(What, u64)] = &[
    (What::Get, 10),
    (What::GetAt, 10),
    (What::GetStale, 5),
    (What::Put, 25),
    (What::Delete, 5),
    (What::DeleteRange, 3),
    (What::Txn, 15),
    (What::Update, 10),
    (What::Grant, 4),
    (What::Revoke, 2),
    (What::KeepAlive, 5),
    (What::TimeToLive, 3),
    (What::Compact, 2),
    (What::Defragment, 1),
    (What::Hash, 2),
];

/// One key of so many.
pub fn key(rng: &mut Rng, keys: u64) -> Bytes {
    format!("k{:02}", rng.below(keys)).into()
}

/// A range: one key, a few, all from one on, or all.
pub fn range(rng: &mut Rng, keys: u64) -> (Bytes, Bytes) {
    match rng.below(10) {
        0..=4 => (key(rng, keys), Bytes::new()),
        5..=6 => {
            let (a, b) = (key(rng, keys), key(rng, keys));
            if a < b { (a, b) } else { (b, a) }
        }
        7 => (key(rng, keys), Bytes::from_static(b"\0")),
        8 => (Bytes::from_static(b"k"), Bytes::from_static(b"l")),
        _ => (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")),
    }
}

/// Longest life of a lease that clients ask for, in seconds.
pub const TTL_MAX: i64 = 8;

impl World {
    /// What this client asks next.
    pub(super) fn next_request(&mut self, client: usize) -> Request {
        let profile = self.params.profile;
        let seen = self.seen_revision;
        let drawer = Drawer {
            keys: self.params.keys,
            value_bytes: self.params.value_bytes,
            seen,
            c: &mut self.clients[client],
        };
        drawer.draw(profile)
    }
}

struct Drawer<'a> {
    keys: u64,
    value_bytes: u64,
    seen: i64,
    c: &'a mut Client,
}

impl Drawer<'_> {
    fn draw(mut self, profile: Profile) -> Request {
        if self.c.compacts {
            return self.compact();
        }
        let table = match profile {
            Profile::Put => PUT,
            Profile::PutDeleteLease => LEASES,
            Profile::Kubernetes => KUBERNETES,
            Profile::Txn => TXN,
            Profile::Mixed => MIXED,
        };
        match self.c.rng.weighted(table) {
            What::Get => Request::Range(self.get()),
            What::GetAt => {
                let revision = (self.seen + self.c.rng.around(-60, 3)).max(0);
                Request::Range(pb::RangeRequest { revision, ..self.get() })
            }
            What::GetStale => Request::Range(pb::RangeRequest { serializable: true, ..self.get() }),
            What::Put => Request::Put(self.put()),
            What::Delete => {
                let key = self.key();
                let prev_kv = self.c.rng.chance(500);
                Request::DeleteRange(pb::DeleteRangeRequest { key, prev_kv, ..Default::default() })
            }
            What::DeleteRange => Request::DeleteRange(self.delete()),
            What::Txn => Request::Txn(self.txn(2)),
            What::Update => Request::Txn(self.update()),
            What::Grant => {
                let rng = &mut self.c.rng;
                let sign = if rng.chance(100) { -1 } else { 1 };
                let id = sign * rng.around(1, 1 << 40);
                let ttl = if rng.chance(100) { 100_000 } else { rng.around(1, TTL_MAX) };
                Request::LeaseGrant(pb::LeaseGrantRequest { ttl, id })
            }
            What::Revoke => Request::LeaseRevoke(pb::LeaseRevokeRequest { id: self.lease() }),
            What::KeepAlive => {
                Request::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id: self.lease() })
            }
            What::TimeToLive => {
                let keys = self.c.rng.chance(500);
                Request::LeaseTimeToLive(pb::LeaseTimeToLiveRequest { id: self.lease(), keys })
            }
            What::Compact => self.compact(),
            What::Defragment => Request::Defragment,
            What::Hash => {
                let back = self.c.rng.around(-30, 1);
                let revision = if self.c.rng.chance(500) { 0 } else { (self.seen + back).max(1) };
                Request::HashKv(pb::HashKvRequest { revision })
            }
        }
    }

    fn key(&mut self) -> Bytes {
        key(&mut self.c.rng, self.keys)
    }

    /// A value that nobody else writes.
    fn value(&mut self) -> Bytes {
        self.c.values += 1;
        let mut value = format!("{}-{}", self.c.number, self.c.values).into_bytes();
        let length = self.c.rng.below(self.value_bytes) as usize;
        value.resize(value.len().max(length), b'.');
        value.into()
    }

    fn lease(&mut self) -> i64 {
        if self.c.leases.is_empty() || self.c.rng.chance(30) {
            return self.c.rng.around(1, 99);
        }
        let faded = self.c.rng.chance(200) && !self.c.fading.is_empty();
        let leases = if faded { &self.c.fading } else { &self.c.leases };
        self.c.rng.pick(leases)
    }

    fn compact(&mut self) -> Request {
        let revision = (self.seen + self.c.rng.around(-80, 2)).max(1);
        Request::Compact(pb::CompactionRequest { revision, physical: self.c.rng.chance(300) })
    }

    fn get(&mut self) -> pb::RangeRequest {
        let rng = &mut self.c.rng;
        let (key, range_end) = range(rng, self.keys);
        let mut request = pb::RangeRequest { key, range_end, ..Default::default() };
        if rng.chance(200) {
            request.limit = rng.around(1, 4);
        }
        if rng.chance(100) {
            let orders = [SortOrder::None, SortOrder::Ascend, SortOrder::Descend];
            let targets = [
                SortTarget::Key,
                SortTarget::Version,
                SortTarget::Create,
                SortTarget::Mod,
                SortTarget::Value,
            ];
            request.sort_order = rng.pick(&orders).into();
            request.sort_target = rng.pick(&targets).into();
        }
        request.keys_only = rng.chance(80);
        request.count_only = rng.chance(80);
        if rng.chance(50) {
            request.min_mod_revision = (self.seen + rng.around(-30, 0)).max(0);
        }
        if rng.chance(50) {
            request.max_create_revision = (self.seen + rng.around(-30, 0)).max(0);
        }
        request
    }

    fn put(&mut self) -> pb::PutRequest {
        let key = self.key();
        let value = self.value();
        let lease =
            if self.c.rng.chance(250) && !self.c.leases.is_empty() { self.lease() } else { 0 };
        let rng = &mut self.c.rng;
        let mut put =
            pb::PutRequest { key, value, lease, prev_kv: rng.chance(300), ..Default::default() };
        if rng.chance(40) {
            (put.ignore_value, put.value) = (true, Bytes::new());
        }
        if rng.chance(40) {
            (put.ignore_lease, put.lease) = (true, 0);
        }
        put
    }

    fn delete(&mut self) -> pb::DeleteRangeRequest {
        let (key, range_end) = range(&mut self.c.rng, self.keys);
        pb::DeleteRangeRequest { key, range_end, prev_kv: self.c.rng.chance(500) }
    }

    /// As Kubernetes writes: on condition of the revision that was last seen, with a read where it fails.
    fn update(&mut self) -> pb::TxnRequest {
        let key = self.key();
        let seen = self.c.seen.get(&key).copied().unwrap_or(0);
        let compare = vec![Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key: key.clone(),
            target_union: Some(TargetUnion::ModRevision(seen)),
            ..Default::default()
        }];
        let op = if seen > 0 && self.c.rng.chance(200) {
            Op::RequestDeleteRange(pb::DeleteRangeRequest {
                key: key.clone(),
                ..Default::default()
            })
        } else {
            let lease =
                if self.c.rng.chance(100) && !self.c.leases.is_empty() { self.lease() } else { 0 };
            let value = self.value();
            Op::RequestPut(pb::PutRequest { key: key.clone(), value, lease, ..Default::default() })
        };
        let read = Op::RequestRange(pb::RangeRequest { key: key.clone(), ..Default::default() });
        // What came of it is not known here: the next read of the key says.
        self.c.seen.remove(&key);
        pb::TxnRequest { compare, success: vec![wrap(op)], failure: vec![wrap(read)] }
    }

    fn txn(&mut self, depth: u64) -> pb::TxnRequest {
        let compares = self.c.rng.below(3);
        let compare = (0..compares).map(|_| self.compare()).collect();
        // No key may be put twice on one path; each operation of a path has keys of its own.
        let mut free: Vec<u64> = (0..self.keys).collect();
        pb::TxnRequest {
            compare,
            success: self.operations(depth, &mut free.clone()),
            failure: self.operations(depth, &mut free),
        }
    }

    fn operations(&mut self, depth: u64, free: &mut Vec<u64>) -> Vec<RequestOp> {
        let count = self.c.rng.below(4);
        (0..count).filter_map(|_| self.operation(depth, free)).map(wrap).collect()
    }

    fn operation(&mut self, depth: u64, free: &mut Vec<u64>) -> Option<Op> {
        let at = self.c.rng.below(free.len() as u64) as usize;
        Some(match self.c.rng.below(10) {
            0..=4 if !free.is_empty() => {
                let key = format!("k{:02}", free.swap_remove(at)).into();
                Op::RequestPut(pb::PutRequest { key, ..self.put() })
            }
            5 if !free.is_empty() => {
                let key = format!("k{:02}", free.swap_remove(at)).into();
                let prev_kv = self.c.rng.chance(500);
                Op::RequestDeleteRange(pb::DeleteRangeRequest {
                    key,
                    range_end: Bytes::new(),
                    prev_kv,
                })
            }
            6 if depth > 0 => {
                let compare = vec![self.compare()];
                let success = self.operations(depth - 1, free);
                let failure = self.operations(depth - 1, free);
                Op::RequestTxn(pb::TxnRequest { compare, success, failure })
            }
            7 => Op::RequestDeleteRange(self.delete()),
            _ => {
                let back = self.c.rng.around(-30, 1);
                let revision = if self.c.rng.chance(100) { (self.seen + back).max(0) } else { 0 };
                Op::RequestRange(pb::RangeRequest { revision, ..self.get() })
            }
        })
    }

    fn compare(&mut self) -> Compare {
        let key = self.key();
        let seen = self.seen;
        let known = self.c.seen.get(&key).copied().unwrap_or(0);
        let lease = self.lease();
        let rng = &mut self.c.rng;
        let results = [
            CompareResult::Equal,
            CompareResult::Greater,
            CompareResult::Less,
            CompareResult::NotEqual,
        ];
        let revision = if rng.chance(500) { known } else { (seen + rng.around(-20, 0)).max(0) };
        let (target, union) = match rng.below(5) {
            0 => (CompareTarget::Version, TargetUnion::Version(rng.around(0, 3))),
            1 => (CompareTarget::Create, TargetUnion::CreateRevision(revision)),
            2 => (CompareTarget::Mod, TargetUnion::ModRevision(revision)),
            3 => (CompareTarget::Value, TargetUnion::Value("5".into())),
            _ => {
                (CompareTarget::Lease, TargetUnion::Lease(if rng.chance(500) { 0 } else { lease }))
            }
        };
        let (key, range_end) =
            if rng.chance(250) { range(rng, self.keys) } else { (key, Bytes::new()) };
        Compare {
            result: rng.pick(&results).into(),
            target: target.into(),
            key,
            range_end,
            target_union: Some(union),
        }
    }
}

fn wrap(op: Op) -> RequestOp {
    RequestOp { request: Some(op) }
}
