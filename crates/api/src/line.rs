//! Standing in line: a lock and an election are the keys under a prefix, in the order in which they were
//! created, and whoever's key is the oldest is at the head. Here are the requests of which both consist, and
//! what their answers say; client and server send the same ones. Not here: who sends them, and waiting.

use bytes::Bytes;

use crate::pb::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest,
    TxnResponse,
    compare::{CompareResult, CompareTarget, TargetUnion},
    range_request::{SortOrder, SortTarget},
    request_op::Request,
    response_op::Response,
};
use crate::pb::mvccpb::KeyValue;
use crate::range::prefix_end;

/// The prefix of the keys of a line with this name.
pub fn prefix(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// The key of a lease in a line.
pub fn key(prefix: &[u8], lease: i64) -> Bytes {
    let sign = if lease < 0 { "-" } else { "" };
    let number = format!("{sign}{:x}", lease.unsigned_abs());
    [prefix, number.as_bytes()].concat().into()
}

/// Stands in line with a value, unless the key is there already; says in either case who is at the head.
pub fn join(prefix: &Bytes, key: &Bytes, value: Bytes, lease: i64) -> TxnRequest {
    let stand = PutRequest { key: key.clone(), value, lease, ..PutRequest::default() };
    let head = || op(Request::RequestRange(head(prefix)));
    TxnRequest {
        compare: vec![created_at(key, 0)],
        success: vec![op(Request::RequestPut(stand)), head()],
        failure: vec![op(Request::RequestRange(whole(key))), head()],
    }
}

/// What came of [`join`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The revision at which our key was created.
    pub created: i64,
    /// The value that was there before, if the key was.
    pub before: Option<Bytes>,
    /// Whether we are at the head.
    pub is_first: bool,
}

/// Reads the answer to [`join`]; none if it is no such answer.
pub fn joined(answer: &TxnResponse) -> Option<Joined> {
    let (created, before) = if answer.succeeded {
        (answer.header.as_ref()?.revision, None)
    } else {
        let ours = read(answer, 0)?.first()?;
        (ours.create_revision, Some(ours.value.clone()))
    };
    let is_first = read(answer, 1)?.first().is_none_or(|head| head.create_revision == created);
    Some(Joined { created, before, is_first })
}

/// Asks for whoever stands at the head.
pub fn head(prefix: &Bytes) -> RangeRequest {
    RangeRequest { sort_order: SortOrder::Ascend.into(), ..ordered(prefix) }
}

/// Asks for whoever stands directly before the key that was created at this revision.
pub fn before(prefix: &Bytes, created: i64) -> RangeRequest {
    RangeRequest {
        sort_order: SortOrder::Descend.into(),
        max_create_revision: created - 1,
        ..ordered(prefix)
    }
}

/// Asks for a key.
pub fn whole(key: &Bytes) -> RangeRequest {
    RangeRequest { key: key.clone(), ..RangeRequest::default() }
}

/// Whether the key that stood in line is still there, by the answer to [`whole`].
pub fn still_stands(answer: &RangeResponse, created: i64) -> bool {
    answer.kvs.first().is_some_and(|ours| ours.create_revision == created)
}

/// Puts another value, if the key is still the one that was created then.
pub fn proclaim(key: &Bytes, created: i64, value: Bytes, lease: i64) -> TxnRequest {
    let put = PutRequest { key: key.clone(), value, lease, ..PutRequest::default() };
    when_ours(key, created, Request::RequestPut(put))
}

/// Leaves the line, if the key is still the one that was created then.
pub fn leave(key: &Bytes, created: i64) -> TxnRequest {
    let gone = DeleteRangeRequest { key: key.clone(), ..DeleteRangeRequest::default() };
    when_ours(key, created, Request::RequestDeleteRange(gone))
}

fn when_ours(key: &Bytes, created: i64, then: Request) -> TxnRequest {
    TxnRequest {
        compare: vec![created_at(key, created)],
        success: vec![op(then)],
        failure: Vec::new(),
    }
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn created_at(key: &Bytes, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key: key.clone(),
        range_end: Bytes::new(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
    }
}

fn ordered(prefix: &Bytes) -> RangeRequest {
    RangeRequest {
        key: prefix.clone(),
        range_end: prefix_end(prefix),
        limit: 1,
        sort_target: SortTarget::Create.into(),
        ..RangeRequest::default()
    }
}

fn read(answer: &TxnResponse, at: usize) -> Option<&[KeyValue]> {
    match answer.responses.get(at)?.response.as_ref()? {
        Response::ResponseRange(range) => Some(&range.kvs),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::etcdserverpb::{PutResponse, ResponseHeader, ResponseOp};

    fn found(created: &[(i64, &'static str)]) -> ResponseOp {
        let kv = |(create_revision, value): &(i64, &'static str)| KeyValue {
            create_revision: *create_revision,
            value: Bytes::from_static(value.as_bytes()),
            ..KeyValue::default()
        };
        let kvs = created.iter().map(kv).collect();
        let range = RangeResponse { kvs, ..RangeResponse::default() };
        ResponseOp { response: Some(Response::ResponseRange(range)) }
    }

    fn put() -> ResponseOp {
        ResponseOp { response: Some(Response::ResponsePut(PutResponse::default())) }
    }

    fn answer(succeeded: bool, responses: Vec<ResponseOp>) -> TxnResponse {
        let header = Some(ResponseHeader { revision: 9, ..ResponseHeader::default() });
        TxnResponse { header, succeeded, responses }
    }

    #[test]
    fn keys_are_named_as_etcd_names_them() {
        let line = prefix(b"jobs");
        assert_eq!(key(&line, 0x1b4a), "jobs/1b4a");
        assert_eq!(key(&line, -5), "jobs/-5");
        assert_eq!(before(&line, 7).range_end, "jobs0");
        assert_eq!(before(&line, 7).max_create_revision, 6);
    }

    #[test]
    fn the_answer_says_who_is_first() {
        let first = joined(&answer(true, vec![put(), found(&[(9, "")])]));
        assert_eq!(first, Some(Joined { created: 9, before: None, is_first: true }));
        let second = joined(&answer(true, vec![put(), found(&[(4, "")])]));
        assert_eq!(second, Some(Joined { created: 9, before: None, is_first: false }));
        let again = joined(&answer(false, vec![found(&[(4, "v")]), found(&[(4, "v")])]));
        let value = Some(Bytes::from_static(b"v"));
        assert_eq!(again, Some(Joined { created: 4, before: value, is_first: true }));
        assert_eq!(joined(&answer(false, vec![found(&[]), found(&[])])), None);
        assert_eq!(joined(&answer(true, vec![])), None);
    }
}
