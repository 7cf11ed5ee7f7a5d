//! The comparisons of a transaction: which branch of it, and of each one nested in it, is to run. All are evaluated
//! before anything is written. Not here: running it.

use std::cmp::Ordering;
use std::io;
use std::ops::ControlFlow;

use etch_api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use etch_api::pb::etcdserverpb::request_op::Request;
use etch_api::pb::etcdserverpb::{Compare, RequestOp, TxnRequest};
use etch_api::range::KeyRange;

use crate::mvcc::{KeyValue, View};

/// A transaction's chosen branch, and what was chosen in the transactions nested in it, in their order.
pub(super) struct Choice<'a> {
    pub succeeded: bool,
    pub ops: &'a [RequestOp],
    pub nested: Vec<Choice<'a>>,
}

/// Chooses the branches of a transaction.
pub(super) fn choose<'a>(view: &impl View, request: &'a TxnRequest) -> io::Result<Choice<'a>> {
    let mut succeeded = true;
    for compare in &request.compare {
        if !holds(view, compare)? {
            succeeded = false;
            break;
        }
    }
    let ops = if succeeded { &request.success } else { &request.failure };
    let mut nested = Vec::new();
    for op in ops {
        if let Some(Request::RequestTxn(request)) = &op.request {
            nested.push(choose(view, request)?);
        }
    }
    Ok(Choice { succeeded, ops, nested })
}

fn holds(view: &impl View, compare: &Compare) -> io::Result<bool> {
    let range = KeyRange::new(compare.key.clone(), compare.range_end.clone());
    let target = CompareTarget::try_from(compare.target);
    let by_bytes = matches!(target, Ok(CompareTarget::Value | CompareTarget::Lease));
    let at = view.revision();
    let mut found = Vec::new();
    match &range {
        KeyRange::Single(key) => found.extend(view.get(key, at)),
        _ => view.walk(&range, at, &mut |_, version| {
            found.push(*version);
            ControlFlow::Continue(())
        }),
    }
    if found.is_empty() {
        // No value is not an empty value: it compares with nothing. Every other target compares as 0.
        let absent = KeyValue::default();
        return Ok(target != Ok(CompareTarget::Value) && passes(compare, &absent));
    }
    for version in &found {
        let stored = if by_bytes { view.value(version)? } else { bytes::Bytes::new() };
        let mut kv = KeyValue::decode(&stored).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "a stored KeyValue is damaged")
        })?;
        if !by_bytes {
            kv.created = version.created;
            kv.modified = version.modified.main;
            kv.version = version.version;
        }
        if !passes(compare, &kv) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Compares one key's side with the request's. Where the request brings no side of the target's kind, that is 0.
fn passes(compare: &Compare, kv: &KeyValue<'_>) -> bool {
    let given = compare.target_union.as_ref();
    let number = |number: Option<i64>| number.unwrap_or(0);
    let order = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Version) => kv.version.cmp(&number(match given {
            Some(TargetUnion::Version(n)) => Some(*n),
            _ => None,
        })),
        Ok(CompareTarget::Create) => kv.created.cmp(&number(match given {
            Some(TargetUnion::CreateRevision(n)) => Some(*n),
            _ => None,
        })),
        Ok(CompareTarget::Mod) => kv.modified.cmp(&number(match given {
            Some(TargetUnion::ModRevision(n)) => Some(*n),
            _ => None,
        })),
        Ok(CompareTarget::Lease) => kv.lease.cmp(&number(match given {
            Some(TargetUnion::Lease(n)) => Some(*n),
            _ => None,
        })),
        Ok(CompareTarget::Value) => kv.value.cmp(match given {
            Some(TargetUnion::Value(value)) => &value[..],
            _ => b"",
        }),
        Err(_) => Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => order.is_eq(),
        Ok(CompareResult::NotEqual) => order.is_ne(),
        Ok(CompareResult::Greater) => order.is_gt(),
        Ok(CompareResult::Less) => order.is_lt(),
        Err(_) => true,
    }
}
