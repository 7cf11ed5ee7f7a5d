//! The model beside the real store, which it was written without: the same requests get the same answers, and
//! the same keys the same hashes.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use etch_api::Error;
use etch_api::internal::{RequestKind, encode_entry};
use etch_api::pb::etcdserverpb as pb;
use etch_disk::backend::{Bolt, Options};
use etch_disk::fs::MemDisk;
use etch_state::lease::LessorConfig;
use etch_state::mvcc::Step;
use etch_state::{Reply, State, StateConfig};
use pb::compare::TargetUnion;
use prost::Message;

use super::{Model, header};
use crate::history::{Request, Response};

/// A small generator (SplitMix64); the test brings the seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn key(&mut self) -> Bytes {
        format!("k{}", self.below(6)).into()
    }

    fn end(&mut self) -> Bytes {
        match self.below(6) {
            0 => Bytes::from_static(b"\0"),
            1 => self.key(),
            2 => Bytes::from_static(b"k9"),
            _ => Bytes::new(),
        }
    }

    fn revision(&mut self, newest: i64) -> i64 {
        if self.one_in(2) { 0 } else { self.below(newest as u64 + 2) as i64 }
    }
}

fn put(chance: &mut Chance, number: u64) -> pb::PutRequest {
    let (ignore_value, ignore_lease) = (chance.one_in(8), chance.one_in(8));
    let value = if ignore_value { Bytes::new() } else { format!("v{number}").into() };
    let lease = if ignore_lease || chance.one_in(2) { 0 } else { 1 + chance.below(4) as i64 };
    let (key, prev_kv) = (chance.key(), chance.one_in(2));
    pb::PutRequest { key, value, lease, prev_kv, ignore_value, ignore_lease }
}

fn range(chance: &mut Chance, newest: i64) -> pb::RangeRequest {
    pb::RangeRequest {
        key: chance.key(),
        range_end: chance.end(),
        limit: chance.below(4) as i64,
        revision: chance.revision(newest),
        sort_order: chance.below(3) as i32,
        sort_target: chance.below(5) as i32,
        keys_only: chance.one_in(4),
        count_only: chance.one_in(6),
        min_mod_revision: if chance.one_in(6) { chance.revision(newest) } else { 0 },
        max_create_revision: if chance.one_in(6) { chance.revision(newest) } else { 0 },
        ..pb::RangeRequest::default()
    }
}

fn delete(chance: &mut Chance) -> pb::DeleteRangeRequest {
    let (key, range_end) = (chance.key(), chance.end());
    pb::DeleteRangeRequest { key, range_end, prev_kv: chance.one_in(2) }
}

fn compare(chance: &mut Chance, newest: i64) -> pb::Compare {
    let number = chance.below(newest as u64 + 1) as i64;
    let target_union = Some(match chance.below(5) {
        0 => TargetUnion::Version(chance.below(4) as i64),
        1 => TargetUnion::CreateRevision(number),
        2 => TargetUnion::ModRevision(number),
        3 => TargetUnion::Value(format!("v{number}").into()),
        _ => TargetUnion::Lease(chance.below(4) as i64),
    });
    pb::Compare {
        result: chance.below(4) as i32,
        target: chance.below(5) as i32,
        key: chance.key(),
        range_end: chance.end(),
        target_union,
    }
}

fn txn(chance: &mut Chance, number: u64, newest: i64, deep: u64) -> pb::TxnRequest {
    let compare = (0..chance.below(3)).map(|_| self::compare(chance, newest)).collect();
    let mut ops = |salt: u64| -> Vec<pb::RequestOp> {
        let count = chance.below(4);
        let op = |i| op(chance, number * 100 + salt + i, newest, deep);
        (0..count).map(op).collect()
    };
    let (success, failure) = (ops(0), ops(50));
    pb::TxnRequest { compare, success, failure }
}

fn op(chance: &mut Chance, number: u64, newest: i64, deep: u64) -> pb::RequestOp {
    use pb::request_op::Request as Asked;
    let request = match chance.below(if deep > 0 { 4 } else { 3 }) {
        0 => Asked::RequestPut(put(chance, number)),
        1 => Asked::RequestRange(range(chance, newest)),
        2 => Asked::RequestDeleteRange(delete(chance)),
        _ => Asked::RequestTxn(txn(chance, number, newest, deep - 1)),
    };
    pb::RequestOp { request: Some(request) }
}

fn request(chance: &mut Chance, number: u64, newest: i64) -> Request {
    match chance.below(20) {
        0..=5 => Request::Put(put(chance, number)),
        6..=8 => Request::DeleteRange(delete(chance)),
        9..=12 => Request::Txn(txn(chance, number, newest, 2)),
        13..=15 => Request::Range(range(chance, newest)),
        16 => Request::LeaseRevoke(pb::LeaseRevokeRequest { id: 1 + chance.below(4) as i64 }),
        17 => {
            let revision = newest - chance.below(8) as i64;
            Request::Compact(pb::CompactionRequest { revision, physical: false })
        }
        _ => {
            let (id, ttl) = (1 + chance.below(4) as i64, chance.below(9) as i64);
            Request::LeaseGrant(pb::LeaseGrantRequest { id, ttl })
        }
    }
}

fn encoded(request: &Request) -> (RequestKind, Vec<u8>) {
    match request {
        Request::Range(r) => (RequestKind::Range, r.encode_to_vec()),
        Request::Put(r) => (RequestKind::Put, r.encode_to_vec()),
        Request::DeleteRange(r) => (RequestKind::DeleteRange, r.encode_to_vec()),
        Request::Txn(r) => (RequestKind::Txn, r.encode_to_vec()),
        Request::Compact(r) => (RequestKind::Compaction, r.encode_to_vec()),
        Request::LeaseGrant(r) => (RequestKind::LeaseGrant, r.encode_to_vec()),
        Request::LeaseRevoke(r) => (RequestKind::LeaseRevoke, r.encode_to_vec()),
        other => panic!("{other:?} is not logged"),
    }
}

fn decoded(request: &Request, reply: Reply) -> Response {
    macro_rules! with_header {
        ($kind:ident, $message:ident) => {{
            let mut body = pb::$message::decode(reply.body).expect("an answer can be read");
            body.header = header(reply.revision);
            Response::$kind(body)
        }};
    }
    match request {
        Request::Range(_) => with_header!(Range, RangeResponse),
        Request::Put(_) => with_header!(Put, PutResponse),
        Request::DeleteRange(_) => with_header!(DeleteRange, DeleteRangeResponse),
        Request::Txn(_) => with_header!(Txn, TxnResponse),
        Request::Compact(_) => with_header!(Compact, CompactionResponse),
        Request::LeaseGrant(_) => with_header!(LeaseGrant, LeaseGrantResponse),
        Request::LeaseRevoke(_) => with_header!(LeaseRevoke, LeaseRevokeResponse),
        other => panic!("{other:?} is not logged"),
    }
}

/// Whether an operation meets a key that the transaction has already written: etcd refuses such a one before
/// it comes to the log.
fn is_sound(request: &Request) -> bool {
    match request {
        Request::Txn(txn) => etch_state::txn::check_txn(txn, 128).is_ok(),
        _ => true,
    }
}

fn real() -> State {
    let disk = Arc::new(MemDisk::new());
    let backend = Bolt::open(disk, Path::new("/db"), Options::default()).expect("memory opens");
    let leases = LessorConfig { min_ttl: 5, ..LessorConfig::default() };
    let config = StateConfig { quota_bytes: 0, leases, persist_checkpoints: false };
    State::open(backend, &config).expect("an empty file opens")
}

fn same(seed: u64) {
    let (mut chance, mut model, mut state) = (Chance(seed), Model::new(5), real());
    let mut index = 0;
    for number in 0..600 {
        let request = request(&mut chance, number, model.revision());
        if !is_sound(&request) {
            continue;
        }
        index += 1;
        let (kind, body) = encoded(&request);
        let data = encode_entry(index, kind, &body);
        let mut done = Vec::new();
        state.apply(std::iter::once((index, 1, &data)), &mut done);
        let told: Result<Response, Error> =
            done.remove(0).result.map(|reply| decoded(&request, reply));
        let before = model.mark();
        let right = model.apply(&request);
        assert_eq!(told, right, "seed {seed}, entry {index}: {request:?}");
        if chance.one_in(5) {
            // Taken back, it is as if it had not been.
            model.back_to(&before);
            assert_eq!(model.apply(&request), right);
        }
        while compaction_goes_on(&mut state) {}
        if chance.one_in(4) {
            commit(&mut state);
        }
        if chance.one_in(10) {
            hashes(&state, &model, model.revision() - chance.below(5) as i64, seed);
        }
    }
    assert!(model.changes().len() > 60 && model.compacted() > 0);
}

/// Does a step of a compaction; false once none is under way.
fn compaction_goes_on(state: &mut State) -> bool {
    let step = state.compaction_step(3).expect("memory can be read");
    if step == Step::Waits {
        commit(state);
    }
    step != Step::Idle
}

fn commit(state: &mut State) {
    let (mut batch, revision) = state.take_commit();
    state.store().backend().commit(&mut batch).expect("memory can be written");
    state.committed(revision);
}

fn hashes(state: &State, model: &Model, at: i64, seed: u64) {
    let Ok(told) = state.store().hash_kv(at) else { return };
    if let Some(right) = model.hash_kv(told.hash_revision, told.compact_revision) {
        assert_eq!(told.hash, right, "seed {seed}, revision {at}: {told:?}");
    }
}

#[test]
fn the_model_and_the_store_agree() {
    (1..40).for_each(same);
}
