//! Running a transaction: choose, check, then write; and its answer. Not here: comparing, and single requests.

use std::io;

use bytes::{BufMut, BytesMut};
use etch_api::pb::etcdserverpb::TxnRequest;
use etch_api::pb::etcdserverpb::request_op::Request;
use etch_api::{Error, wire};
use etch_disk::mutants::{self, Mutant};

use super::compare::{Choice, choose};
use super::{Reply, check_put_state, delete, previous, put_response, range_response, write};
use crate::mvcc::{LeaseHook, ReadError, Store, View, WriteBatch};

/// Applies a transaction. Everything that can refuse it comes before its first write.
pub(super) fn apply(
    batch: &mut WriteBatch<'_>,
    leases: &mut dyn LeaseHook,
    request: &TxnRequest,
) -> Result<Reply, Error> {
    let choice = choose(batch, request).expect("apply reads the keys that it decides by");
    let checked = check(batch, leases, &choice);
    if !mutants::on(Mutant::I18679) {
        checked?;
    }
    batch.txn_begin();
    let mut body = BytesMut::new();
    let ops = run(batch, leases, &choice, &mut body);
    if ops > 1 {
        batch.stats().txns.add(1);
    }
    let reply = Reply { revision: batch.txn_end(), body: body.freeze() };
    checked.map(|()| reply)
}

/// Answers a transaction of ranges alone, at one revision.
pub(super) fn read(store: &Store, request: &TxnRequest) -> Result<Reply, ReadError> {
    store.retry(0, |view, _| {
        let choice = choose(view, request)?;
        check_ranges(view, &choice)?;
        let mut body = BytesMut::new();
        wire::field_varint(2, u64::from(choice.succeeded), &mut body);
        for op in choice.ops {
            if let Some(Request::RequestRange(request)) = &op.request {
                store.stats().ranges.add(1);
                let mut response = header(view.revision());
                range_response(view, request, &mut response)?;
                put_op(1, &response, &mut body);
            }
        }
        // What it read at an older revision may have been compacted away meanwhile.
        check_ranges(view, &choice)?;
        Ok(Reply { revision: view.revision(), body: body.freeze() })
    })
}

fn check_ranges(view: &impl View, choice: &Choice<'_>) -> Result<(), Error> {
    choice.ops.iter().try_for_each(|op| match &op.request {
        Some(Request::RequestRange(request)) => check_revision(view, request.revision),
        _ => Ok(()),
    })
}

/// Whether a range inside a transaction may be read at a revision. The same on every member, whether or not it is
/// going to read it (upstream 18667). A negative revision below the compacted one, as which a store that was never
/// compacted counts -1, is refused too, as in etcd.
fn check_revision(view: &impl View, revision: i64) -> Result<(), Error> {
    if revision == 0 {
        Ok(())
    } else if revision > view.revision() {
        Err(Error::FutureRev)
    } else if revision < view.compact_revision() {
        Err(Error::Compacted)
    } else {
        Ok(())
    }
}

fn check(batch: &WriteBatch<'_>, leases: &dyn LeaseHook, choice: &Choice<'_>) -> Result<(), Error> {
    let mut nested = choice.nested.iter();
    for op in choice.ops {
        match &op.request {
            Some(Request::RequestRange(_)) if mutants::on(Mutant::I18667) => {}
            Some(Request::RequestRange(request)) => check_revision(batch, request.revision)?,
            Some(Request::RequestPut(request)) => check_put_state(batch, leases, request)?,
            Some(Request::RequestTxn(_)) => {
                check(batch, leases, nested.next().expect("each nested one has its choice"))?;
            }
            Some(Request::RequestDeleteRange(_)) | None => {}
        }
    }
    Ok(())
}

/// Runs the chosen operations, appends the response without its header, and answers how many operations ran.
fn run(
    batch: &mut WriteBatch<'_>,
    leases: &mut dyn LeaseHook,
    choice: &Choice<'_>,
    out: &mut BytesMut,
) -> usize {
    wire::field_varint(2, u64::from(choice.succeeded), out);
    let mut nested = choice.nested.iter();
    let mut ran = 0;
    for op in choice.ops {
        ran += 1;
        match &op.request {
            Some(Request::RequestRange(request)) => {
                batch.stats().ranges.add(1);
                let mut response = header(batch.read_revision());
                range_response(batch, request, &mut response).unwrap_or_else(broken);
                put_op(1, &response, out);
            }
            Some(Request::RequestPut(request)) => {
                // A delete before it may have taken the key that it was checked to keep a part of. There is no
                // going back now: it keeps nothing.
                let previous = previous(batch, request);
                write(batch, leases, request, previous.as_ref());
                let mut response = header(batch.read_revision());
                put_response(request, previous.as_ref(), &mut response);
                put_op(2, &response, out);
            }
            Some(Request::RequestDeleteRange(request)) => {
                let mut deleted = BytesMut::new();
                delete(batch, leases, request, &mut deleted);
                let mut response = header(batch.read_revision());
                response.put_slice(&deleted);
                put_op(3, &response, out);
            }
            Some(Request::RequestTxn(_)) => {
                let choice = nested.next().expect("each nested one has its choice");
                // Its header is there, and says nothing.
                let mut response = BytesMut::new();
                wire::field_head(1, 0, &mut response);
                // The nested one stands for what it runs.
                ran = ran - 1 + run(batch, leases, choice, &mut response);
                put_op(4, &response, out);
            }
            None => wire::field_head(3, 0, out),
        }
    }
    ran
}

fn broken(error: io::Error) {
    panic!("apply cannot read the keys that it decides by: {error}");
}

/// The header of an operation's response: a revision, and nothing else.
fn header(revision: i64) -> BytesMut {
    let mut out = BytesMut::with_capacity(32);
    wire::field_head(1, wire::field_varint_len(3, revision as u64), &mut out);
    wire::field_varint(3, revision as u64, &mut out);
    out
}

/// Appends an operation's response, of the kind `tag`, to those of its transaction.
fn put_op(tag: u32, response: &[u8], out: &mut BytesMut) {
    wire::field_head(3, wire::field_bytes_len(tag, response.len()), out);
    wire::field_bytes(tag, response, out);
}
