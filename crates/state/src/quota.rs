//! What a request costs of the quota: an estimate by etcd's own rule, so that both refuse at the same
//! point. Not here: the quota itself (`state`).

use etch_api::pb::etcdserverpb::{PutRequest, RequestOp, TxnRequest, request_op::Request};

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
