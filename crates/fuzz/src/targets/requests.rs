//! Every message that a client or a member may send, as bytes. Not here: what comes of one.

use bytes::Bytes;
use etch_api::decode::{decode, decode_txn};
use etch_api::pb::etcdserverpb as pb;
use etch_api::pb::{membershippb, raftpb};
use etch_state::txn;
use prost::{Message, Name};

use crate::Target;

/// The first byte says which message it is; the rest is that message.
pub const TARGET: Target = Target { name: "requests", run, seeds, memory: 64 << 20 };

/// Decodes as a server does. What was decoded can be encoded, and then decodes to the same.
fn one<M: Message + Default + Name + PartialEq>(bytes: &Bytes) {
    if let Ok(message) = decode::<M>(bytes) {
        let again = M::decode(&message.encode_to_vec()[..]).expect("our own encoding");
        assert!(again == message, "a message changes on its way");
    }
}

/// The files' own messages, which prost decodes by itself.
fn plain<M: Message + Default>(bytes: &Bytes) {
    let _ = M::decode(bytes.clone());
}

const KINDS: &[fn(&Bytes)] = &[
    put,
    range,
    delete,
    transaction,
    one::<pb::CompactionRequest>,
    one::<pb::LeaseGrantRequest>,
    one::<pb::LeaseRevokeRequest>,
    one::<pb::LeaseKeepAliveRequest>,
    one::<pb::LeaseTimeToLiveRequest>,
    one::<pb::LeaseLeasesRequest>,
    one::<pb::WatchRequest>,
    one::<pb::MemberAddRequest>,
    one::<pb::MemberUpdateRequest>,
    one::<pb::AlarmRequest>,
    one::<pb::HashKvRequest>,
    one::<pb::DowngradeRequest>,
    one::<pb::AuthUserAddRequest>,
    one::<pb::AuthRoleGrantPermissionRequest>,
    one::<pb::AuthenticateRequest>,
    one::<pb::AuthUserChangePasswordRequest>,
    one::<pb::AuthUserGrantRoleRequest>,
    one::<pb::AuthUserRevokeRoleRequest>,
    one::<pb::AuthRoleRevokePermissionRequest>,
    one::<membershippb::ClusterMemberAttrSetRequest>,
    one::<membershippb::ClusterVersionSetRequest>,
    plain::<raftpb::Message>,
    plain::<raftpb::ConfChange>,
    plain::<raftpb::ConfChangeV2>,
];

fn run(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    KINDS[usize::from(*kind) % KINDS.len()](&Bytes::copy_from_slice(rest));
}

fn put(bytes: &Bytes) {
    one::<pb::PutRequest>(bytes);
    let _ = decode(bytes).map(|request| txn::check_put(&request));
}

fn range(bytes: &Bytes) {
    one::<pb::RangeRequest>(bytes);
    let _ = decode(bytes).map(|request| {
        (txn::check_range(&request).is_ok(), txn::check_range_stream(&request).is_ok())
    });
}

fn delete(bytes: &Bytes) {
    one::<pb::DeleteRangeRequest>(bytes);
    let _ = decode(bytes).map(|request| txn::check_delete(&request));
}

fn transaction(bytes: &Bytes) {
    if let Ok(request) = decode_txn(bytes) {
        let _ = txn::check_txn(&request, 128);
        let _ = (txn::is_read_only(&request), txn::is_serializable(&request));
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let put = pb::PutRequest { key: "k".into(), value: "v".into(), lease: 7, ..Default::default() };
    let range = pb::RangeRequest {
        key: "a".into(),
        range_end: "z".into(),
        limit: 3,
        sort_order: 1,
        sort_target: 2,
        ..Default::default()
    };
    let part = |request| pb::RequestOp { request: Some(request) };
    let inner = pb::TxnRequest {
        success: vec![part(pb::request_op::Request::RequestPut(put.clone()))],
        ..Default::default()
    };
    let txn = pb::TxnRequest {
        compare: vec![pb::Compare { key: "k".into(), result: 1, target: 2, ..Default::default() }],
        success: vec![part(pb::request_op::Request::RequestTxn(inner))],
        failure: vec![part(pb::request_op::Request::RequestRange(range.clone()))],
    };
    let bodies = [
        put.encode_to_vec(),
        range.encode_to_vec(),
        pb::DeleteRangeRequest { key: "k".into(), ..Default::default() }.encode_to_vec(),
        txn.encode_to_vec(),
    ];
    // Each message out of the bytes of others: fields of a wrong type and number.
    (0..KINDS.len() as u8)
        .map(|kind| [vec![kind], bodies[usize::from(kind) % bodies.len()].clone()].concat())
        .collect()
}
