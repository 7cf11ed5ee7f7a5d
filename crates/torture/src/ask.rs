//! Requests, put together. Not here: which of them is made when (`traffic`, `kube`).

use bytes::Bytes;
use etch_api::pb::etcdserverpb as pb;
use etch_api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use etch_api::pb::etcdserverpb::request_op::Request as Op;

/// The end of the range of all keys that begin with this.
pub fn prefix_end(prefix: &str) -> Bytes {
    let mut end = prefix.as_bytes().to_vec();
    // Prefixes here end in plain letters or slashes.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end.into()
}

/// One key, or at a revision.
pub fn get(key: &str, revision: i64) -> pb::RangeRequest {
    pb::RangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), revision, ..Default::default() }
}

/// All keys that begin with this.
pub fn list(prefix: &str, revision: i64) -> pb::RangeRequest {
    pb::RangeRequest { range_end: prefix_end(prefix), ..get(prefix, revision) }
}

/// A put.
pub fn put(key: &str, value: impl Into<Bytes>, lease: i64) -> pb::PutRequest {
    let key = Bytes::copy_from_slice(key.as_bytes());
    pb::PutRequest { key, value: value.into(), lease, ..Default::default() }
}

/// A delete of one key.
pub fn delete(key: &str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..Default::default() }
}

/// A transaction.
pub fn txn(compare: Vec<pb::Compare>, then: Vec<Op>, otherwise: Vec<Op>) -> pb::TxnRequest {
    let ops =
        |ops: Vec<Op>| ops.into_iter().map(|op| pb::RequestOp { request: Some(op) }).collect();
    pb::TxnRequest { compare, success: ops(then), failure: ops(otherwise) }
}

/// Holds if the key was last changed at this revision; 0 if there is no such key.
pub fn at_revision(key: &str, revision: i64) -> pb::Compare {
    let union = TargetUnion::ModRevision(revision);
    compare(key, CompareResult::Equal, CompareTarget::Mod, union)
}

/// A comparison of a key.
pub fn compare(
    key: &str,
    result: CompareResult,
    target: CompareTarget,
    with: TargetUnion,
) -> pb::Compare {
    pb::Compare {
        result: result.into(),
        target: target.into(),
        key: Bytes::copy_from_slice(key.as_bytes()),
        target_union: Some(with),
        ..Default::default()
    }
}
