//! Requests and their answers in tables: what etcd 3.7 says to each. Not here: the store beneath (`mvcc`).

use bytes::{Bytes, BytesMut};
use etch_api::Error;
use etch_api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use etch_api::pb::etcdserverpb::request_op::Request;
use etch_api::pb::etcdserverpb::response_op::Response;
use etch_api::pb::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest,
    RequestOp, ResponseHeader, TxnRequest, TxnResponse,
};
use prost::Message;

use super::{Reply, StreamRefusal};
use crate::mvcc::testing::World;

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: bytes(key), value: bytes(value), ..PutRequest::default() }
}

fn get(key: &str, end: &str) -> RangeRequest {
    RangeRequest { key: bytes(key), range_end: bytes(end), ..RangeRequest::default() }
}

fn del(key: &str, end: &str) -> DeleteRangeRequest {
    DeleteRangeRequest { key: bytes(key), range_end: bytes(end), prev_kv: true }
}

fn op(request: impl Into<Op>) -> RequestOp {
    RequestOp { request: Some(request.into().0) }
}

struct Op(Request);

impl From<PutRequest> for Op {
    fn from(request: PutRequest) -> Self {
        Self(Request::RequestPut(request))
    }
}
impl From<RangeRequest> for Op {
    fn from(request: RangeRequest) -> Self {
        Self(Request::RequestRange(request))
    }
}
impl From<DeleteRangeRequest> for Op {
    fn from(request: DeleteRangeRequest) -> Self {
        Self(Request::RequestDeleteRange(request))
    }
}
impl From<TxnRequest> for Op {
    fn from(request: TxnRequest) -> Self {
        Self(Request::RequestTxn(request))
    }
}

fn then(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest { success, ..TxnRequest::default() }
}

fn either(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> TxnRequest {
    TxnRequest { success, failure, ..TxnRequest::default() }
}

impl World {
    fn txn(&mut self, request: &TxnRequest) -> Result<(i64, TxnResponse), Error> {
        let mut batch = self.writer.begin();
        let reply = super::txn(&mut batch, &mut self.leases, request);
        batch.finish();
        reply.map(decode)
    }

    fn put(&mut self, request: &PutRequest) -> Result<(i64, PutResponse), Error> {
        let mut batch = self.writer.begin();
        let reply = super::put(&mut batch, &mut self.leases, request);
        batch.finish();
        reply.map(decode)
    }

    fn delete(&mut self, request: &DeleteRangeRequest) -> (i64, DeleteRangeResponse) {
        let mut batch = self.writer.begin();
        let reply = super::delete_range(&mut batch, &mut self.leases, request).unwrap();
        batch.finish();
        decode(reply)
    }

    fn value(&self, key: &str) -> Option<(String, i64)> {
        let body = self.store.range(&get(key, "")).unwrap().into_bytes().unwrap();
        let response = etch_api::pb::etcdserverpb::RangeResponse::decode(body).unwrap();
        let kv = response.kvs.first()?;
        Some((String::from_utf8_lossy(&kv.value).into_owned(), kv.lease))
    }
}

fn decode<M: Message + Default>(reply: Reply) -> (i64, M) {
    (reply.revision, M::decode(reply.body).unwrap())
}

#[test]
fn put_answers_and_refuses() {
    let mut world = World::new();
    world.leases.granted.insert(7);
    assert_eq!(world.put(&put("a", "1")), Ok((2, PutResponse::default())));
    let (revision, response) = world.put(&PutRequest { prev_kv: true, ..put("a", "2") }).unwrap();
    let previous = response.prev_kv.unwrap();
    assert_eq!((revision, &previous.value[..], previous.version), (3, &b"1"[..], 1));
    assert_eq!(world.put(&PutRequest { prev_kv: true, ..put("b", "") }).unwrap().1.prev_kv, None);

    let missing = PutRequest { ignore_value: true, ..put("zz", "") };
    assert_eq!(world.put(&missing), Err(Error::KeyNotFound));
    let unknown = PutRequest { lease: 8, ..put("a", "3") };
    assert_eq!(world.put(&unknown), Err(Error::LeaseNotFound));
    // The lease is looked at first.
    assert_eq!(world.put(&PutRequest { lease: 8, ..missing }), Err(Error::LeaseNotFound));
    assert_eq!(world.store.revision(), 4, "what is refused changes nothing");

    world.put(&PutRequest { lease: 7, ignore_value: true, ..put("a", "") }).unwrap();
    assert_eq!(world.value("a"), Some(("2".into(), 7)));
    world.put(&PutRequest { ignore_lease: true, ..put("a", "4") }).unwrap();
    assert_eq!(world.value("a"), Some(("4".into(), 7)));
    world.put(&put("a", "5")).unwrap();
    assert_eq!((world.value("a"), world.leases.keys.len()), (Some(("5".into(), 0)), 0));
}

#[test]
fn deletes_count_and_show_what_was_there() {
    let mut world = World::new();
    for key in ["a", "b", "c"] {
        world.put(&put(key, key)).unwrap();
    }
    let (revision, response) = world.delete(&del("x", ""));
    assert_eq!((revision, response), (4, DeleteRangeResponse::default()));
    let (revision, response) = world.delete(&del("a", "c"));
    let previous: Vec<_> = response.prev_kvs.iter().map(|kv| kv.value.clone()).collect();
    assert_eq!((revision, response.deleted, previous), (5, 2, vec![bytes("a"), bytes("b")]));
    assert_eq!(world.delete(&del("\0", "\0")).1.deleted, 1);
    assert_eq!(world.store.current_keys(), 0);
}

#[test]
fn a_transaction_sees_its_own_writes_and_answers_each_part() {
    let mut world = World::new();
    world.put(&put("a", "old")).unwrap();
    let nested = either(vec![op(get("a", "")), op(put("n", "1"))], vec![]);
    let parts = vec![
        op(get("a", "")),
        op(PutRequest { prev_kv: true, ..put("a", "new") }),
        op(get("a", "")),
        op(nested),
        op(del("zzz", "")),
    ];
    let (revision, response) = world.txn(&then(parts)).unwrap();
    assert_eq!((revision, response.succeeded, response.header), (3, true, None));
    let header = |revision| Some(ResponseHeader { revision, ..ResponseHeader::default() });
    let parts: Vec<_> = response.responses.into_iter().map(|part| part.response.unwrap()).collect();
    let Response::ResponseRange(before) = &parts[0] else { panic!() };
    assert_eq!((before.header, &before.kvs[0].value[..]), (header(2), &b"old"[..]));
    let Response::ResponsePut(put) = &parts[1] else { panic!() };
    assert_eq!((put.header, &put.prev_kv.as_ref().unwrap().value[..]), (header(3), &b"old"[..]));
    let Response::ResponseRange(after) = &parts[2] else { panic!() };
    assert_eq!((after.header, &after.kvs[0].value[..], after.count), (header(3), &b"new"[..], 1));
    let Response::ResponseTxn(nested) = &parts[3] else { panic!() };
    assert_eq!((nested.header, nested.responses.len()), (Some(ResponseHeader::default()), 2));
    let Response::ResponseDeleteRange(gone) = &parts[4] else { panic!() };
    assert_eq!((gone.header, gone.deleted), (header(3), 0));
}

#[test]
fn changing_nothing_is_no_revision() {
    let mut world = World::new();
    world.put(&put("a", "1")).unwrap();
    let (revision, _) = world.txn(&then(vec![op(del("x", "")), op(get("a", ""))])).unwrap();
    assert_eq!((revision, world.store.revision()), (2, 2));
}

/// Upstream 18679: a transaction that is refused leaves no trace. Upstream 18667: a range at a compacted revision
/// refuses it on every member.
#[test]
fn i18667_i18679_checks_come_before_the_first_write() {
    let mut world = World::new();
    for value in ["1", "2", "3"] {
        world.put(&put("a", value)).unwrap();
    }
    let refused = |world: &mut World, last: RequestOp| {
        let result = world.txn(&then(vec![op(put("b", "1")), last]));
        assert_eq!((world.value("b"), world.store.revision()), (None, 4));
        result.unwrap_err()
    };
    let at = |revision| op(RangeRequest { revision, ..get("a", "") });
    assert_eq!(
        refused(&mut world, op(PutRequest { lease: 9, ..put("c", "") })),
        Error::LeaseNotFound
    );
    let keeps = PutRequest { ignore_lease: true, ..put("c", "1") };
    assert_eq!(refused(&mut world, op(keeps.clone())), Error::KeyNotFound);
    assert_eq!(refused(&mut world, op(then(vec![op(keeps)]))), Error::KeyNotFound);
    assert_eq!(refused(&mut world, at(5)), Error::FutureRev);
    // A store that was never compacted counts as compacted to -1.
    assert_eq!(refused(&mut world, at(-5)), Error::Compacted);
    let mut batch = world.writer.begin();
    batch.compact(3).unwrap();
    batch.finish();
    assert_eq!(refused(&mut world, at(2)), Error::Compacted);
    assert!(world.txn(&then(vec![op(put("b", "1")), at(3)])).is_ok());
}

fn compare(key: &str, target: CompareTarget, result: CompareResult, side: TargetUnion) -> Compare {
    Compare {
        key: bytes(key),
        target: target as i32,
        result: result as i32,
        target_union: Some(side),
        ..Compare::default()
    }
}

#[test]
fn comparisons() {
    use CompareResult::{Equal, Greater, Less, NotEqual};
    use CompareTarget::{Create, Lease, Mod, Value, Version};
    let mut world = World::new();
    world.leases.granted.insert(7);
    world.put(&PutRequest { lease: 7, ..put("a", "m") }).unwrap();
    world.put(&PutRequest { lease: 7, ..put("a", "n") }).unwrap();
    world.put(&put("b", "n")).unwrap();
    let range = |compare: Compare, end: &str| Compare { range_end: bytes(end), ..compare };
    let value = |text: &str| TargetUnion::Value(bytes(text));
    let cases = [
        (compare("a", Version, Equal, TargetUnion::Version(2)), true),
        (compare("a", Version, Greater, TargetUnion::Version(2)), false),
        (compare("a", Create, Less, TargetUnion::CreateRevision(3)), true),
        (compare("a", Mod, Equal, TargetUnion::ModRevision(3)), true),
        (compare("a", Mod, NotEqual, TargetUnion::ModRevision(3)), false),
        (compare("a", Value, Equal, value("n")), true),
        (compare("a", Value, Greater, value("m")), true),
        (compare("a", Lease, Equal, TargetUnion::Lease(7)), true),
        (compare("b", Lease, Equal, TargetUnion::Lease(7)), false),
        // The side that is given is of another kind: it counts as 0.
        (compare("a", Version, Greater, value("zzz")), true),
        // An absent key has no value, and is 0 in everything else.
        (compare("x", Value, NotEqual, value("n")), false),
        (compare("x", Value, Equal, value("")), false),
        (compare("x", Version, Equal, TargetUnion::Version(0)), true),
        (compare("x", Lease, Less, TargetUnion::Lease(1)), true),
        // All keys of a range have to pass.
        (range(compare("a", Value, Equal, value("n")), "c"), true),
        (range(compare("a", Version, Equal, TargetUnion::Version(2)), "c"), false),
        (range(compare("a", Version, Greater, TargetUnion::Version(0)), "\0"), true),
        (range(compare("x", Create, Equal, TargetUnion::CreateRevision(0)), "z"), true),
        (range(compare("x", Value, NotEqual, value("n")), "z"), false),
    ];
    for (compare, expected) in cases {
        let request = TxnRequest { compare: vec![compare], ..TxnRequest::default() };
        assert_eq!(world.txn(&request).unwrap().1.succeeded, expected, "{request:?}");
        let read = world.store.read_txn(&request).unwrap();
        assert_eq!(TxnResponse::decode(read.body).unwrap().succeeded, expected, "{request:?}");
    }
}

/// Nested comparisons are made before the first write, though that would change them.
#[test]
fn nested_comparisons_come_first() {
    use CompareResult::Equal;
    let mut world = World::new();
    let absent = compare("a", CompareTarget::Version, Equal, TargetUnion::Version(0));
    let nested = TxnRequest {
        compare: vec![absent],
        success: vec![op(put("b", "yes"))],
        failure: vec![op(put("b", "no"))],
    };
    world.txn(&then(vec![op(put("a", "1")), op(nested)])).unwrap();
    assert_eq!(world.value("b"), Some(("yes".into(), 0)));
}

#[test]
fn a_read_transaction_is_the_same_beside_the_writer() {
    let mut world = World::new();
    for key in ["a", "b", "c"] {
        world.put(&put(key, "1")).unwrap();
    }
    let parts = vec![
        op(RangeRequest { limit: 1, ..get("a", "\0") }),
        op(RangeRequest { revision: 2, count_only: true, ..get("a", "\0") }),
        op(RangeRequest { keys_only: true, ..get("b", "") }),
    ];
    let request = then(parts);
    assert!(super::is_read_only(&request) && !super::is_serializable(&request));
    let beside = world.store.read_txn(&request).unwrap();
    let mut batch = world.writer.begin();
    let through = super::txn(&mut batch, &mut world.leases, &request).unwrap();
    batch.finish();
    assert_eq!(beside, through);
    assert_eq!(beside.revision, 4);
}

#[test]
fn wrong_requests() {
    use super::{check_delete, check_put, check_range, check_range_stream};
    assert_eq!(check_range(&get("", "x")), Err(Error::EmptyKey));
    let unsorted = RangeRequest { sort_order: 9, ..get("a", "") };
    assert_eq!(check_range(&unsorted), Err(Error::InvalidSortOption));
    assert_eq!(
        check_range(&RangeRequest { sort_target: 5, ..get("a", "") }),
        Err(Error::InvalidSortOption)
    );
    assert_eq!(check_put(&put("", "x")), Err(Error::EmptyKey));
    let both = PutRequest { ignore_value: true, ignore_lease: true, lease: 1, ..put("a", "x") };
    assert_eq!(check_put(&both), Err(Error::ValueProvided));
    assert_eq!(check_put(&PutRequest { value: Bytes::new(), ..both }), Err(Error::LeaseProvided));
    assert_eq!(check_delete(&del("", "a")), Err(Error::EmptyKey));
    let sorted = RangeRequest { sort_order: 2, ..get("a", "") };
    assert!(matches!(check_range_stream(&sorted), Err(StreamRefusal::Unimplemented(_))));
    let filtered = RangeRequest { min_mod_revision: 1, ..get("a", "") };
    assert!(matches!(check_range_stream(&filtered), Err(StreamRefusal::Unimplemented(_))));
    assert_eq!(check_range_stream(&get("a", "b")), Ok(()));
    let by_mod = RangeRequest { sort_target: 3, ..get("a", "b") };
    assert_eq!(check_range_stream(&by_mod), Ok(()), "an order without a direction is none");
}

#[test]
fn wrong_transactions() {
    let check = super::check_txn;
    let puts = |n: usize| (0..n).map(|i| op(put(&format!("k{i}"), ""))).collect::<Vec<_>>();
    assert_eq!(check(&then(puts(128)), 128), Ok(()));
    assert_eq!(check(&then(puts(129)), 128), Err(Error::TooManyOps));
    // The outer one has one operation; what is left is for the inner.
    assert_eq!(check(&then(vec![op(then(puts(127)))]), 128), Ok(()));
    assert_eq!(check(&then(vec![op(then(puts(128)))]), 128), Err(Error::TooManyOps));
    assert_eq!(check(&then(vec![RequestOp::default()]), 128), Err(Error::KeyNotFound));
    let nameless = TxnRequest { compare: vec![Compare::default()], ..TxnRequest::default() };
    assert_eq!(check(&nameless, 128), Err(Error::EmptyKey));

    let twice = Err(Error::DuplicateKey);
    let cases = [
        (then(vec![op(put("a", "")), op(put("a", ""))]), twice),
        (either(vec![op(put("a", ""))], vec![op(put("a", ""))]), Ok(())),
        (then(vec![op(put("a", "")), op(del("a", ""))]), twice),
        (then(vec![op(del("a", "c")), op(put("b", ""))]), twice),
        (then(vec![op(del("a", "c")), op(put("c", ""))]), Ok(())),
        (then(vec![op(del("a", "c")), op(del("b", "d"))]), Ok(())),
        (then(vec![op(del("a", "c")), op(del("b", "d")), op(put("cc", ""))]), twice),
        // A delete without an end meets nothing.
        (then(vec![op(del("a", "\0")), op(put("b", ""))]), Ok(())),
        (then(vec![op(put("a", "")), op(then(vec![op(put("a", ""))]))]), twice),
        (then(vec![op(either(vec![op(put("a", ""))], vec![op(put("a", ""))]))]), Ok(())),
        (then(vec![op(then(vec![op(put("a", ""))])), op(then(vec![op(put("a", ""))]))]), twice),
        (then(vec![op(then(vec![op(del("a", ""))])), op(put("a", ""))]), twice),
        (then(vec![op(then(vec![op(put("a", ""))])), op(del("a", ""))]), twice),
        // The later nested delete is not held against the earlier nested put.
        (then(vec![op(then(vec![op(put("a", ""))])), op(then(vec![op(del("a", ""))]))]), Ok(())),
        (then(vec![op(then(vec![op(del("a", ""))])), op(then(vec![op(put("a", ""))]))]), twice),
    ];
    for (request, expected) in cases {
        assert_eq!(check(&request, 128), expected, "{request:?}");
        let mirrored = TxnRequest { success: request.failure, failure: request.success, ..request };
        assert_eq!(check(&mirrored, 128), expected, "{mirrored:?}");
    }
}

#[test]
fn an_empty_transaction_is_answered() {
    let mut world = World::new();
    let (revision, response) = world.txn(&TxnRequest::default()).unwrap();
    assert_eq!((revision, response.succeeded), (1, true));
    let mut expected = BytesMut::new();
    TxnResponse { succeeded: true, ..TxnResponse::default() }.encode(&mut expected).unwrap();
    assert_eq!(world.store.read_txn(&TxnRequest::default()).unwrap().body, expected.freeze());
}

/// A transaction in as many others as a decoder takes, with a put on the way in each and a compare.
fn deepest() -> Bytes {
    use etch_api::wire;
    let own = TxnRequest {
        compare: vec![Compare { key: bytes("k"), ..Compare::default() }],
        success: vec![op(put("k", "v"))],
        failure: vec![op(put("k", "v"))],
    };
    // From the inside, backwards: each level's own operations stand behind the one that it nests.
    let mut backwards = BytesMut::new();
    for level in 0..etch_api::decode::MAX_DEPTH / 2 - 1 {
        let mut own = own.clone();
        own.success.clear();
        if level % 100 > 0 {
            own.failure.clear();
        }
        for tag in [4, 2] {
            let mut head = Vec::new();
            wire::field_head(tag, backwards.len(), &mut head);
            backwards.extend(head.iter().rev());
        }
        let mut behind = own.encode_to_vec();
        behind.reverse();
        let nested = std::mem::replace(&mut backwards, BytesMut::from(&behind[..]));
        backwards.unsplit(nested);
    }
    backwards.reverse();
    backwards.freeze()
}

#[test]
fn the_deepest_transaction_has_stack_enough() {
    let all = || {
        let request = etch_api::decode::decode_txn(&deepest()).expect("as deep as may be");
        assert_eq!(super::check_txn(&request, 128), Err(Error::TooManyOps));
        assert_eq!(super::check_txn(&request, usize::MAX), Ok(()));
        assert!(!super::is_read_only(&request));
        crate::quota::txn_cost(&request);
        let mut world = World::new();
        let mut batch = world.writer.begin();
        let reply = super::txn(&mut batch, &mut world.leases, &request).expect("it applies");
        batch.finish();
        assert!(reply.body.len() > etch_api::decode::MAX_DEPTH);
    };
    // A compiler that spends four times as much on each call leaves it standing.
    let thread = std::thread::Builder::new().stack_size(super::STACK / 4).spawn(all);
    thread.expect("a thread").join().expect("enough");
}
