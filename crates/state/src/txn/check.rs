//! What is wrong with a request by itself, before anybody looks at the keys. Not here: what depends on them
//! (leases, revisions, keys that are missing).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Included, Unbounded};

use etch_api::Error;
use etch_api::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use etch_api::pb::etcdserverpb::request_op::Request;
use etch_api::pb::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

use crate::mvcc::{has_revision_filters, is_default_order};

/// Checks a range request.
pub fn check_range(request: &RangeRequest) -> Result<(), Error> {
    if request.key.is_empty() {
        return Err(Error::EmptyKey);
    }
    if SortOrder::try_from(request.sort_order).is_err()
        || SortTarget::try_from(request.sort_target).is_err()
    {
        return Err(Error::InvalidSortOption);
    }
    Ok(())
}

/// Why a RangeStream is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamRefusal {
    /// As a range request it is wrong already.
    Request(Error),
    /// A stream cannot do this; the text of an `Unimplemented`.
    Unimplemented(&'static str),
}

/// Checks a RangeStream's request.
pub fn check_range_stream(request: &RangeRequest) -> Result<(), StreamRefusal> {
    check_range(request).map_err(StreamRefusal::Request)?;
    if !is_default_order(request) {
        let text = "RangeStream does not support custom sort orders";
        return Err(StreamRefusal::Unimplemented(text));
    }
    if has_revision_filters(request) {
        let text = "RangeStream does not support revision filters";
        return Err(StreamRefusal::Unimplemented(text));
    }
    Ok(())
}

/// Checks a put.
pub fn check_put(request: &PutRequest) -> Result<(), Error> {
    if request.key.is_empty() {
        return Err(Error::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Error::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Error::LeaseProvided);
    }
    Ok(())
}

/// Checks a delete.
pub fn check_delete(request: &DeleteRangeRequest) -> Result<(), Error> {
    if request.key.is_empty() { Err(Error::EmptyKey) } else { Ok(()) }
}

/// Checks a transaction: each operation, their number, and that no key is written twice.
pub fn check_txn(request: &TxnRequest, max_ops: usize) -> Result<(), Error> {
    check_ops(request, max_ops)?;
    // After the number of operations, which bounds this.
    Writes::of(&request.success)?;
    Writes::of(&request.failure)?;
    Ok(())
}

fn check_ops(request: &TxnRequest, max_ops: usize) -> Result<(), Error> {
    let ops = request.compare.len().max(request.success.len()).max(request.failure.len());
    let Some(left) = max_ops.checked_sub(ops) else { return Err(Error::TooManyOps) };
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Error::EmptyKey);
    }
    request.success.iter().chain(&request.failure).try_for_each(|op| check_op(op, left))
}

fn check_op(op: &RequestOp, max_ops: usize) -> Result<(), Error> {
    match &op.request {
        Some(Request::RequestRange(request)) => check_range(request),
        Some(Request::RequestPut(request)) => check_put(request),
        Some(Request::RequestDeleteRange(request)) => check_delete(request),
        Some(Request::RequestTxn(request)) => check_ops(request, max_ops),
        None => Err(Error::KeyNotFound),
    }
}

/// The keys that a branch of a transaction writes.
#[derive(Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a [u8]>,
    /// Deleted ranges, apart from each other: the end by the start.
    deletes: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl<'a> Writes<'a> {
    /// Gathers a branch's writes, or says that a put meets another write.
    ///
    /// A nested transaction's own deletes are looked at only by what comes after it: a put in an earlier one and
    /// a delete of the key in a later one pass, as in etcd.
    fn of(ops: &'a [RequestOp]) -> Result<Self, Error> {
        let mut writes = Self::default();
        for op in ops {
            if let Some(Request::RequestDeleteRange(request)) = &op.request {
                writes.delete(&request.key, &request.range_end);
            }
        }
        for op in ops {
            if let Some(Request::RequestTxn(request)) = &op.request {
                writes.nested(request)?;
            }
        }
        for op in ops {
            if let Some(Request::RequestPut(request)) = &op.request {
                writes.put(&request.key, None)?;
            }
        }
        Ok(writes)
    }

    /// Only one of the two branches will run, so that a key may be put in both.
    fn nested(&mut self, request: &'a TxnRequest) -> Result<(), Error> {
        let yes = Self::of(&request.success)?;
        let no = Self::of(&request.failure)?;
        for key in &yes.puts {
            self.put(key, None)?;
        }
        for key in &no.puts {
            self.put(key, Some(&yes.puts))?;
        }
        for (start, end) in yes.deletes.into_iter().chain(no.deletes) {
            self.insert(start, end);
        }
        Ok(())
    }

    fn put(&mut self, key: &'a [u8], except: Option<&BTreeSet<&[u8]>>) -> Result<(), Error> {
        let again = !self.puts.insert(key);
        let excused = except.is_some_and(|keys| keys.contains(key));
        if (again && !excused) || self.deletes_key(key) {
            return Err(Error::DuplicateKey);
        }
        Ok(())
    }

    fn delete(&mut self, key: &[u8], range_end: &[u8]) {
        if range_end.is_empty() {
            let mut end = key.to_vec();
            end.push(0);
            self.insert(key.to_vec(), end);
        } else {
            // etcd takes an end of one zero byte literally here, so that a delete without an end meets no put.
            self.insert(key.to_vec(), range_end.to_vec());
        }
    }

    /// Adds a range, joining it with those that it touches.
    fn insert(&mut self, mut start: Vec<u8>, mut end: Vec<u8>) {
        if end <= start {
            return;
        }
        while let Some((s, e)) =
            self.deletes.range::<[u8], _>((Unbounded, Included(&end[..]))).next_back()
            && *e >= start
        {
            let s = s.clone();
            let e = self.deletes.remove(&s).expect("it was just found");
            start = start.min(s);
            end = end.max(e);
        }
        self.deletes.insert(start, end);
    }

    fn deletes_key(&self, key: &[u8]) -> bool {
        let below = self.deletes.range::<[u8], _>((Unbounded, Included(key))).next_back();
        below.is_some_and(|(_, end)| key < &end[..])
    }
}

/// Whether a transaction holds ranges alone: then it needs no place in the log.
pub fn is_read_only(request: &TxnRequest) -> bool {
    ops(request).all(|op| matches!(op.request, Some(Request::RequestRange(_))))
}

/// Whether a read-only transaction may be answered from this member's own state, however old.
pub fn is_serializable(request: &TxnRequest) -> bool {
    ops(request)
        .all(|op| matches!(&op.request, Some(Request::RequestRange(range)) if range.serializable))
}

fn ops(request: &TxnRequest) -> impl Iterator<Item = &RequestOp> {
    request.success.iter().chain(&request.failure)
}
