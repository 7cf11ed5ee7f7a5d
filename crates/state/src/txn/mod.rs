//! What requests on keys mean: put, delete, range and transaction, as etcd 3.7 does them, with the checks that come
//! before and the encoded answers. Not here: how keys are kept (`mvcc`), who may do what, and the quota.
//!
//! A request is refused before it writes anything; once it writes it cannot fail. It looks at the store alone,
//! so that every member answers, and refuses, alike.

mod check;
mod compare;
mod execute;
#[cfg(test)]
mod tests;

use bytes::{Bytes, BytesMut};
use etch_api::pb::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest};
use etch_api::range::KeyRange;
use etch_api::{Error, wire};
use etch_disk::mutants::{self, Mutant};

use crate::mvcc::{KeyValue, LeaseHook, ReadError, Store, View, WriteBatch, resolve, select};

pub use check::{
    StreamRefusal, check_delete, check_put, check_range, check_range_stream, check_txn,
    is_read_only, is_serializable,
};

/// The stack of a thread that handles requests: enough for the transactions that a client nests deepest.
///
/// Decoding takes any depth and no stack (`etch_api::decode`), and lets at most half of 10,000 messages be
/// transactions within one another; `--max-txn-ops` decides how many of them are looked at. Checking, running and
/// dropping recurse: 5,000 deep that takes 4 MiB. What is not touched of a stack is no memory.
pub const STACK: usize = 32 << 20;

/// What a caller is told. The body is the response message without its header: a protobuf message may be put
/// together from pieces, and only who sends it knows the rest of the header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The store's revision after the request.
    pub revision: i64,
    /// The encoded response but for field 1.
    pub body: Bytes,
}

/// Applies a put.
pub fn put(
    batch: &mut WriteBatch<'_>,
    leases: &mut dyn LeaseHook,
    request: &PutRequest,
) -> Result<Reply, Error> {
    check_put_state(batch, leases, request)?;
    let previous = previous(batch, request);
    batch.txn_begin();
    write(batch, leases, request, previous.as_ref());
    let revision = batch.txn_end();
    let mut body = BytesMut::new();
    put_response(request, previous.as_ref(), &mut body);
    Ok(Reply { revision, body: body.freeze() })
}

/// Applies a delete.
pub fn delete_range(
    batch: &mut WriteBatch<'_>,
    leases: &mut dyn LeaseHook,
    request: &DeleteRangeRequest,
) -> Result<Reply, Error> {
    batch.txn_begin();
    let mut body = BytesMut::new();
    delete(batch, leases, request, &mut body);
    Ok(Reply { revision: batch.txn_end(), body: body.freeze() })
}

/// Applies a range that came through the log.
pub fn range(batch: &mut WriteBatch<'_>, request: &RangeRequest) -> Result<Reply, Error> {
    resolve(batch, request.revision)?;
    batch.stats().ranges.add(1);
    let mut body = BytesMut::new();
    range_response(batch, request, &mut body).expect("apply reads the keys that it decides by");
    Ok(Reply { revision: batch.revision(), body: body.freeze() })
}

/// Applies a transaction.
pub fn txn(
    batch: &mut WriteBatch<'_>,
    leases: &mut dyn LeaseHook,
    request: &TxnRequest,
) -> Result<Reply, Error> {
    execute::apply(batch, leases, request)
}

impl Store {
    /// Answers a transaction that holds ranges alone, beside the writer. All its parts see one revision.
    pub fn read_txn(&self, request: &TxnRequest) -> Result<Reply, ReadError> {
        execute::read(self, request)
    }
}

/// Checks a put against the tables: its lease must be there, and the key of which it keeps a part.
fn check_put_state(
    batch: &WriteBatch<'_>,
    leases: &dyn LeaseHook,
    request: &PutRequest,
) -> Result<(), Error> {
    let bound = request.lease != 0 && !mutants::on(Mutant::I11456);
    if bound && !leases.exists(request.lease) {
        return Err(Error::LeaseNotFound);
    }
    let keeps = request.ignore_value || request.ignore_lease;
    if keeps && batch.get(&request.key, i64::MAX).is_none() {
        return Err(Error::KeyNotFound);
    }
    Ok(())
}

/// The version that a put replaces, if the request needs it.
fn previous(batch: &WriteBatch<'_>, request: &PutRequest) -> Option<Bytes> {
    if !(request.ignore_value || request.ignore_lease || request.prev_kv) {
        return None;
    }
    let version = batch.get(&request.key, i64::MAX)?;
    Some(batch.value(version.modified))
}

fn write(
    batch: &mut WriteBatch<'_>,
    leases: &mut dyn LeaseHook,
    request: &PutRequest,
    previous: Option<&Bytes>,
) {
    let old = match previous {
        Some(kv) => KeyValue::decode(kv).expect("a stored KeyValue can be read"),
        None => KeyValue::default(),
    };
    let value = if request.ignore_value { old.value } else { &request.value[..] };
    let lease = if request.ignore_lease { old.lease } else { request.lease };
    if !mutants::on(Mutant::Canary) {
        batch.put(leases, &request.key, value, lease);
    }
}

fn put_response(request: &PutRequest, previous: Option<&Bytes>, out: &mut BytesMut) {
    if let (true, Some(kv)) = (request.prev_kv, previous) {
        wire::field_bytes(2, kv, out);
    }
}

/// Deletes, and appends the response without its header.
fn delete(
    batch: &mut WriteBatch<'_>,
    leases: &mut dyn LeaseHook,
    request: &DeleteRangeRequest,
    out: &mut BytesMut,
) {
    let range = KeyRange::new(request.key.clone(), request.range_end.clone());
    let mut previous = Vec::new();
    if request.prev_kv {
        let all = RangeRequest::default();
        let found = select(batch, &all, &range, batch.read_revision(), true)
            .expect("apply reads the keys that it decides by");
        previous = found.found.iter().map(|version| batch.value(version.modified)).collect();
    }
    let deleted = batch.delete_range(leases, &range);
    wire::field_varint(2, deleted, out);
    for kv in &previous {
        wire::field_bytes(3, kv, out);
    }
}

/// Appends the response to a range without its header.
fn range_response(
    view: &impl View,
    request: &RangeRequest,
    out: &mut BytesMut,
) -> std::io::Result<()> {
    let at = if request.revision <= 0 { view.revision() } else { request.revision };
    let range = KeyRange::new(request.key.clone(), request.range_end.clone());
    if request.count_only {
        wire::field_varint(4, view.count(&range, at), out);
        return Ok(());
    }
    let selection = select(view, request, &range, at, true)?;
    out.reserve(selection.kvs_len() + 16);
    selection.encode_kvs(view, out)?;
    wire::field_varint(3, u64::from(selection.more), out);
    wire::field_varint(4, selection.count as u64, out);
    Ok(())
}
