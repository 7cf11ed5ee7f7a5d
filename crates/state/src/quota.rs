//! What a request costs of the quota: an estimate by etcd's own rule, so that both refuse at the same
//! point; and the quota itself, by which every net thread judges. Not here: the alarm (`alarm`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use etch_api::pb::etcdserverpb::{PutRequest, RequestOp, TxnRequest, request_op::Request};
use etch_disk::backend::Backend;

/// Bytes that a lease takes.
pub const LEASE_COST: u64 = 64;
/// Bytes that a key takes beside itself and its value.
const KEY_COST: u64 = 256;

/// Bytes that a put takes.
pub fn put_cost(request: &PutRequest) -> u64 {
    KEY_COST + request.key.len() as u64 + request.value.len() as u64
}

/// Bytes that a transaction takes: those of its larger branch. 0 if it puts nothing.
pub fn txn_cost(request: &TxnRequest) -> u64 {
    let branch = |ops: &[RequestOp]| ops.iter().map(op_cost).sum::<u64>();
    branch(&request.success).max(branch(&request.failure))
}

fn op_cost(op: &RequestOp) -> u64 {
    match &op.request {
        Some(Request::RequestPut(put)) => put_cost(put),
        Some(Request::RequestTxn(txn)) => txn_cost(txn),
        _ => 0,
    }
}

/// The space that the data may take. What counts is what is in use, not what the file has grown to: free
/// pages are room.
pub struct Quota {
    /// 0 is no limit.
    limit: u64,
    backend: Arc<dyn Backend>,
    /// Bytes in use as of the last commit.
    in_use: AtomicU64,
    /// Bytes that wait to be committed.
    pending: AtomicU64,
}

impl Quota {
    /// A quota over this file.
    pub fn new(limit: u64, backend: Arc<dyn Backend>) -> Self {
        let in_use = AtomicU64::new(backend.size_in_use());
        Self { limit, backend, in_use, pending: AtomicU64::new(0) }
    }

    /// The limit in bytes; 0 is none.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// True if there is room for a request of this cost.
    pub fn allows(&self, cost: u64) -> bool {
        let in_use = self.in_use.load(Ordering::Relaxed) + self.pending.load(Ordering::Relaxed);
        cost == 0 || self.limit == 0 || in_use + cost < self.limit
    }

    /// So much waits to be committed.
    pub(crate) fn spent(&self, pending_bytes: usize) {
        self.pending.store(pending_bytes as u64, Ordering::Relaxed);
    }

    /// A commit is done: the file is measured anew.
    pub(crate) fn measured(&self, pending_bytes: usize) {
        self.in_use.store(self.backend.size_in_use(), Ordering::Relaxed);
        self.spent(pending_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(value: usize) -> RequestOp {
        let put =
            PutRequest { key: "k".into(), value: vec![0; value].into(), ..PutRequest::default() };
        RequestOp { request: Some(Request::RequestPut(put)) }
    }

    #[test]
    fn a_transaction_costs_its_larger_branch_nested_ones_too() {
        let inner = TxnRequest { success: vec![put(9)], ..TxnRequest::default() };
        let nested = RequestOp { request: Some(Request::RequestTxn(inner)) };
        let txn = TxnRequest {
            success: vec![put(1)],
            failure: vec![put(0), nested],
            ..TxnRequest::default()
        };
        assert_eq!(txn_cost(&txn), 257 + 266);
        assert_eq!(txn_cost(&TxnRequest::default()), 0);
    }
}
