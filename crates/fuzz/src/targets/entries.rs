//! Entries of the raft log: their envelope as bytes, and what they do to a state, whatever they ask. Not here: the
//! log's own records.

use std::sync::Arc;

use bytes::Bytes;
use etch_api::decode::{decode, decode_txn};
use etch_api::internal::{self, RequestKind};
use etch_api::pb::etcdserverpb as pb;
use etch_api::pb::membershippb as mb;
use etch_api::pb::raftpb::{ConfChange, ConfChangeType};
use etch_disk::backend::Backend;
use etch_disk::fs::MemDisk;
use etch_state::State;
use etch_state::members::Member;
use etch_state::txn;
use prost::Message;

use super::db;
use crate::{Bits, Target};

/// An entry's content of any bytes.
pub const TARGET: Target =
    Target { name: "entries", run: envelope, seeds: || vec![entry()], memory: 8 << 20 };

/// A sequence of requests of any content, as far as a server would let them into the log, applied to a state that
/// is committed and opened again.
pub const APPLY: Target = Target { name: "apply", run: apply, seeds: sequences, memory: 64 << 20 };

fn envelope(input: &[u8]) {
    if let Ok(entry) = internal::decode_entry(&Bytes::copy_from_slice(input))
        && let Some(kind) = entry.kind
    {
        let header = internal::Header {
            id: entry.id,
            username: entry.username(),
            auth_revision: entry.auth_revision,
        };
        let again = internal::encode_entry_from(&header, kind, &entry.body);
        assert_eq!(internal::decode_entry(&again), Ok(entry), "an entry changes on its way");
    }
}

/// The requests that are tried, by number.
const KINDS: [RequestKind; 13] = [
    RequestKind::Put,
    RequestKind::Range,
    RequestKind::DeleteRange,
    RequestKind::Txn,
    RequestKind::Compaction,
    RequestKind::LeaseGrant,
    RequestKind::LeaseRevoke,
    RequestKind::LeaseCheckpoint,
    RequestKind::Alarm,
    RequestKind::ClusterMemberAttrSet,
    RequestKind::DowngradeInfoSet,
    RequestKind::DowngradeVersionTest,
    RequestKind::ClusterVersionSet,
];

/// Whether a server would propose this: it decodes, and its checks let it pass.
fn is_admitted(kind: RequestKind, body: &Bytes) -> bool {
    match kind {
        RequestKind::Put => decode(body).is_ok_and(|r| txn::check_put(&r).is_ok()),
        RequestKind::Range => decode(body).is_ok_and(|r| txn::check_range(&r).is_ok()),
        RequestKind::DeleteRange => decode(body).is_ok_and(|r| txn::check_delete(&r).is_ok()),
        RequestKind::Txn => decode_txn(body).is_ok_and(|r| txn::check_txn(&r, 128).is_ok()),
        RequestKind::Compaction => decode::<pb::CompactionRequest>(body).is_ok(),
        RequestKind::LeaseGrant => decode::<pb::LeaseGrantRequest>(body).is_ok(),
        RequestKind::LeaseRevoke => decode::<pb::LeaseRevokeRequest>(body).is_ok(),
        RequestKind::LeaseCheckpoint => decode::<pb::LeaseCheckpointRequest>(body).is_ok(),
        RequestKind::Alarm => decode::<pb::AlarmRequest>(body).is_ok(),
        RequestKind::ClusterMemberAttrSet => {
            decode::<mb::ClusterMemberAttrSetRequest>(body).is_ok()
        }
        RequestKind::DowngradeInfoSet => decode::<mb::DowngradeInfoSetRequest>(body).is_ok(),
        // A cluster version is of the cluster's own making.
        RequestKind::ClusterVersionSet => {
            decode::<mb::ClusterVersionSetRequest>(body).is_ok_and(|r| r.ver == "3.7.0")
        }
        _ => true,
    }
}

fn apply(input: &[u8]) {
    let disk = MemDisk::new();
    let tree: Arc<dyn Backend> = db::open(&disk).expect("a new file");
    let mut state = State::open(tree, &db::config()).expect("a new file");
    let mut bits = Bits(input);
    while !bits.is_empty() {
        let number = bits.below(KINDS.len() + 3);
        let body = Bytes::copy_from_slice(bits.piece());
        let index = state.index() + 1;
        match KINDS.get(number) {
            Some(kind) if is_admitted(*kind, &body) => {
                let entry = internal::encode_entry(index, *kind, &body);
                state.apply([(index, 1, &entry)].into_iter(), &mut Vec::new());
            }
            Some(_) => {}
            None if number == KINDS.len() => change(&mut state, &body),
            None => commit(&mut state),
        }
        let _ = state.compaction_step(3);
    }
    commit(&mut state);
    let (revision, hash) =
        (state.store().revision(), state.store().hash_kv(state.store().revision()));
    drop(state);
    let tree: Arc<dyn Backend> = db::open(&disk).expect("what was committed can be opened");
    let again = State::open(tree, &db::config()).expect("what was committed is good");
    assert_eq!(again.store().revision(), revision, "the revision over a restart");
    // Where no key is alive etcd's hash takes in what a compaction has yet to delete, and so does ours.
    if again.store().current_keys() == 0 {
        return;
    }
    // The hash of a compaction is remembered, as in etcd, and is over another start.
    if let (Ok(hash), Ok(after)) = (hash, again.store().hash_kv(revision))
        && hash.compact_revision == after.compact_revision
    {
        assert_eq!(hash.hash, after.hash, "the keys over a restart");
    }
}

/// A change of the membership, if it is one that a server would propose. Members write the context of a change
/// themselves, so it is always whole.
fn change(state: &mut State, body: &Bytes) {
    let mut bits = Bits(body);
    let kind = match bits.below(4) {
        0 => ConfChangeType::ConfChangeAddNode,
        1 => ConfChangeType::ConfChangeAddLearnerNode,
        2 => ConfChangeType::ConfChangeRemoveNode,
        _ => ConfChangeType::ConfChangeUpdateNode,
    };
    let id = u64::from(bits.byte() % 5);
    let urls = [String::from_utf8_lossy(bits.piece()).into_owned()];
    let mut member = Member::new("n", &urls, "token", None);
    member.id = id;
    let context = member.change_context(bits.byte() & 1 == 1);
    let change = ConfChange::of(1, kind, id, context);
    if state.members().validate(&change).is_ok() {
        let _ = state.apply_change(state.index() + 1, 1, &change);
    }
}

fn commit(state: &mut State) {
    let (mut batch, revision) = state.take_commit();
    state.store().backend().commit(&mut batch).expect("memory");
    state.committed(revision);
}

fn entry() -> Vec<u8> {
    let header = internal::Header { id: 7, username: "ann", auth_revision: 2 };
    internal::encode_entry_from(&header, RequestKind::Put, b"\x0a\x01k\x12\x01v").to_vec()
}

fn sequences() -> Vec<Vec<u8>> {
    let put = |key: &str, lease| pb::PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: "some value".into(),
        lease,
        prev_kv: true,
        ..Default::default()
    };
    let delete = pb::DeleteRangeRequest { key: "a".into(), range_end: "z".into(), prev_kv: true };
    let part = |request| pb::RequestOp { request: Some(request) };
    let txn = pb::TxnRequest {
        success: vec![
            part(pb::request_op::Request::RequestPut(put("k", 0))),
            part(pb::request_op::Request::RequestDeleteRange(delete.clone())),
        ],
        ..Default::default()
    };
    let mut add = vec![0, 3];
    Bits::put(&mut add, b"http://a:2380");
    let mut out = Vec::new();
    let mut add_one = |number: usize, body: Vec<u8>| {
        out.push(number as u8);
        Bits::put(&mut out, &body);
    };
    add_one(13, add);
    add_one(5, pb::LeaseGrantRequest { id: 7, ttl: 100 }.encode_to_vec());
    add_one(0, put("k", 7).encode_to_vec());
    add_one(3, txn.encode_to_vec());
    add_one(14, Vec::new());
    add_one(4, pb::CompactionRequest { revision: 2, physical: true }.encode_to_vec());
    add_one(2, delete.encode_to_vec());
    add_one(
        1,
        pb::RangeRequest { key: "k".into(), revision: 2, ..Default::default() }.encode_to_vec(),
    );
    add_one(6, pb::LeaseRevokeRequest { id: 7 }.encode_to_vec());
    add_one(8, pb::AlarmRequest { action: 1, member_id: 1, alarm: 1 }.encode_to_vec());
    add_one(12, mb::ClusterVersionSetRequest { ver: "3.7.0".into() }.encode_to_vec());
    vec![out]
}
