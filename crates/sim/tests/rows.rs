//! Upstream's bugs that concern keys, leases and watches of one member, as scenarios under their numbers. With the
//! bug put back (`cargo xtask mutants` has the switches) the scenario fails. Not here: those of storage (`small`), and
//! those that have their test beside the code, under the same kind of name.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use etch_api::Error;
use etch_api::internal::{RequestKind, encode_entry};
use etch_api::pb::etcdserverpb as pb;
use etch_api::pb::mvccpb::Event;
use etch_api::range::KeyRange;
use etch_disk::backend::{Backend, Bolt, Options};
use etch_disk::fs::MemDisk;
use etch_disk::fs::mem::Crash;
use etch_sim::history::{History, Observation, Watch};
use etch_sim::judge::check;
use etch_state::lease::{LessorConfig, RenewError};
use etch_state::mvcc::{Budget, Event as WatchEvent, History as StoreHistory, Store};
use etch_state::watch::{Doorbell, HistoryError, HistorySource, StreamConfig, StreamState, Wake};
use etch_state::{Reply, State, StateConfig};
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use prost::Message;

/// A state over a disk in memory, and the log that it was given.
struct Machine {
    disk: MemDisk,
    backend: Arc<Bolt>,
    state: State,
    history: History,
    now_ns: u64,
}

struct Silent;

impl Wake for Silent {
    fn wake(&self) {}
}

fn open(disk: &MemDisk) -> (Arc<Bolt>, State) {
    let door = Arc::new(disk.clone());
    let backend = Bolt::open(door, Path::new("/db"), Options::default()).expect("memory opens");
    let config = StateConfig {
        quota_bytes: 0,
        leases: LessorConfig { min_ttl: 1, ..LessorConfig::default() },
        persist_checkpoints: false,
    };
    let state = State::open(Arc::clone(&backend) as Arc<dyn Backend>, &config).expect("it opens");
    (backend, state)
}

impl Machine {
    fn new() -> Machine {
        let disk = MemDisk::new();
        let (backend, state) = open(&disk);
        Machine { disk, backend, state, history: History::default(), now_ns: 1_000_000 }
    }

    fn apply(&mut self, kind: RequestKind, request: &impl Message) -> Result<Reply, Error> {
        self.now_ns += 1_000_000;
        let index = self.state.index() + 1;
        let data = encode_entry(index, kind, &request.encode_to_vec());
        let mut done = Vec::new();
        self.state.apply(std::iter::once((index, 1, &data)), &mut done);
        let (term, applied_ns) = (1, Some(self.now_ns));
        self.history.log.push(etch_sim::history::LogEntry { index, term, applied_ns, data });
        done.remove(0).result
    }

    fn put(&mut self, key: &str, value: &str, lease: i64) -> Result<Reply, Error> {
        self.apply(RequestKind::Put, &put(key, value, lease))
    }

    fn delete(&mut self, key: &str) {
        let request = pb::DeleteRangeRequest { key: bytes(key), ..Default::default() };
        self.apply(RequestKind::DeleteRange, &request).expect("a delete passes");
    }

    fn grant(&mut self, id: i64, ttl: i64) {
        self.apply(RequestKind::LeaseGrant, &pb::LeaseGrantRequest { ttl, id })
            .expect("a grant passes");
    }

    fn revoke(&mut self, id: i64) -> Result<Reply, Error> {
        self.apply(RequestKind::LeaseRevoke, &pb::LeaseRevokeRequest { id })
    }

    fn compact(&mut self, revision: i64) {
        let request = pb::CompactionRequest { revision, physical: false };
        self.apply(RequestKind::Compaction, &request).expect("a compaction passes");
    }

    /// Commits what waits.
    fn commit(&mut self) {
        let (mut batch, revision) = self.state.take_commit();
        self.backend.commit(&mut batch).expect("memory can be written");
        self.state.committed(revision);
    }

    /// What a member that starts again finds, if all is lost that was not flushed.
    fn restart(&mut self) {
        self.disk = self.disk.crash(Crash::LoseAll);
        (self.backend, self.state) = open(&self.disk);
    }

    fn stream(&self, config: StreamConfig) -> StreamState {
        let doorbell = Doorbell::new(Arc::new(Silent));
        StreamState::new(self.state.hub(), &doorbell, 0, 0, config)
    }

    /// Everything that a stream has to say, as responses with the time of now.
    fn read(&self, stream: &mut StreamState) -> Vec<(u64, pb::WatchResponse)> {
        self.read_from(stream, self.state.store().as_ref())
    }

    /// The same, where history comes from a source of its own.
    fn read_from(
        &self,
        stream: &mut StreamState,
        source: &dyn HistorySource,
    ) -> Vec<(u64, pb::WatchResponse)> {
        let mut out = Vec::new();
        while stream.poll(source, 1 << 20, &mut out).expect("it can be read") {}
        let response = |message: &etch_state::watch::OutMessage| {
            let mut bytes = bytes::BytesMut::new();
            message.encode_fields(&mut bytes);
            message.pieces().iter().for_each(|piece| bytes.extend_from_slice(piece));
            let mut response = pb::WatchResponse::decode(bytes.freeze()).expect("it can be read");
            let revision = message.revision;
            response.header = Some(pb::ResponseHeader { revision, ..Default::default() });
            (self.now_ns, response)
        };
        out.iter().map(response).collect()
    }

    /// Judges one watch, read to its end, beside the log.
    #[track_caller]
    fn judge(
        &mut self,
        request: &pb::WatchCreateRequest,
        responses: Vec<(u64, pb::WatchResponse)>,
    ) {
        self.history.watches.push(Watch {
            client: 1,
            member: 1,
            request: request.clone(),
            sent_ns: 0,
            responses,
            drained: true,
        });
        self.judge_all();
    }

    /// Judges what there is. What the clients of these scenarios ask is not in the history: entries that nobody
    /// asked for are passed over.
    #[track_caller]
    fn judge_all(&self) {
        let asked = |v: &etch_sim::judge::Violation| v.rule != etch_sim::judge::Rule::Twice;
        let wrong: Vec<_> =
            check(&self.history).err().into_iter().flatten().filter(asked).collect();
        assert!(wrong.is_empty(), "{}", wrong.iter().map(|v| format!("{v}\n")).collect::<String>());
    }

    /// Notes what the member holds.
    fn observe(&mut self) {
        let store = self.state.store();
        let hash = store.hash_kv(0).expect("it can be read");
        let request =
            pb::RangeRequest { key: bytes("\0"), range_end: bytes("\0"), ..Default::default() };
        let reply = store.range(&request).expect("it can be read");
        let revision = reply.revision;
        let body = reply.into_bytes().expect("it can be read");
        let keys = pb::RangeResponse::decode(body).expect("it can be read").kvs;
        self.now_ns += 1_000_000;
        self.history.observations.push(Observation {
            member: 1,
            at_ns: self.now_ns,
            revision,
            compact_revision: store.compact_revision(),
            hash: Some((hash.hash_revision, hash.compact_revision, hash.hash)),
            keys: Some(keys),
        });
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(key: &str, value: &str, lease: i64) -> pb::PutRequest {
    pb::PutRequest { key: bytes(key), value: bytes(value), lease, ..Default::default() }
}

fn op(request: pb::request_op::Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn everything_from(start_revision: i64) -> pb::WatchCreateRequest {
    let (key, range_end) = (bytes("\0"), bytes("\0"));
    pb::WatchCreateRequest { key, range_end, start_revision, prev_kv: true, ..Default::default() }
}

fn events(responses: &[(u64, pb::WatchResponse)]) -> Vec<&Event> {
    responses.iter().flat_map(|(_, response)| &response.events).collect()
}

/// A lease with a negative id, and the keys that it holds, outlive a restart (12535, 14239).
#[test]
fn i14239_a_negative_lease_and_its_keys_survive_a_restart() {
    let mut m = Machine::new();
    m.grant(-7, 60);
    m.put("a", "1", -7).expect("the lease is there");
    m.commit();
    m.observe();
    m.restart();
    m.observe();
    assert_eq!(m.state.lessor().keys(-7), Some(vec![bytes("a")]));
    m.put("b", "2", -7).expect("the lease is still there");
    m.revoke(-7).expect("it can be revoked");
    m.observe();
    m.judge_all();
}

/// A key written and deleted in one transaction looks the same from memory, from the file, and after a restart,
/// to readers and to watchers (17195, 17228, 17247).
#[test]
fn i17228_one_key_twice_in_a_transaction_looks_the_same_from_everywhere() {
    let mut m = Machine::new();
    m.put("a", "1", 0).expect("a put passes");
    let inner = pb::TxnRequest {
        success: vec![op(pb::request_op::Request::RequestPut(put("a", "2", 0)))],
        ..Default::default()
    };
    let delete = pb::DeleteRangeRequest { key: bytes("a"), ..Default::default() };
    let txn = pb::TxnRequest {
        success: vec![
            op(pb::request_op::Request::RequestTxn(inner)),
            op(pb::request_op::Request::RequestDeleteRange(delete)),
        ],
        ..Default::default()
    };
    m.apply(RequestKind::Txn, &txn).expect("it passes");
    m.put("b", "3", 0).expect("a put passes");
    let look = |m: &mut Machine| {
        m.observe();
        let request = everything_from(1);
        let mut stream = m.stream(StreamConfig::default());
        stream.create(&request, Ok(()), m.state.store().as_ref());
        let responses = m.read(&mut stream);
        assert_eq!(events(&responses).len(), 4);
        m.judge(&request, responses);
    };
    look(&mut m);
    let (mut batch, revision) = m.state.take_commit();
    look(&mut m);
    m.backend.commit(&mut batch).expect("memory can be written");
    look(&mut m);
    m.state.committed(revision);
    look(&mut m);
    m.restart();
    look(&mut m);
}

/// A stream that breaks and is opened again where it was brings each event once, wherever it broke, also while
/// it reads history (15248).
#[test]
fn i15248_a_stream_that_breaks_again_and_again_brings_each_event_once() {
    let mut m = Machine::new();
    let mut seen: Vec<(i64, Bytes)> = Vec::new();
    let mut number = 0;
    for round in 0..30 {
        let next = seen.last().map_or(1, |(revision, _)| revision + 1);
        let request = everything_from(next);
        let mut stream = m.stream(StreamConfig { queue_events: 3, ..StreamConfig::default() });
        stream.create(&request, Ok(()), m.state.store().as_ref());
        for _ in 0..round % 7 {
            number += 1;
            m.put(&format!("k{}", number % 3), &number.to_string(), 0).expect("a put passes");
            if number % 2 == 0 {
                let responses = m.read(&mut stream);
                seen.extend(events(&responses).into_iter().map(key));
            }
        }
        if round % 5 == 0 {
            m.commit();
        }
    }
    let mut once = seen.clone();
    once.sort();
    once.dedup();
    assert_eq!(once, seen, "in order, and each once");
    assert!(seen.len() > 40);
}

/// A store that changes whenever a watcher has looked how far it has come, as it may on another thread.
struct Busy {
    store: Arc<Store>,
    machine: RefCell<Machine>,
    changes: Cell<usize>,
}

impl HistorySource for Busy {
    fn revision(&self) -> i64 {
        if self.changes.get() > 0 {
            self.changes.set(self.changes.get() - 1);
            self.machine.borrow_mut().put("a", "new", 0).expect("a put passes");
        }
        self.store.revision()
    }

    fn compact_revision(&self) -> i64 {
        self.store.compact_revision()
    }

    fn history(
        &self,
        range: &KeyRange,
        from: i64,
        to: i64,
        budget: Budget,
    ) -> Result<StoreHistory, HistoryError> {
        HistorySource::history(self.store.as_ref(), range, from, to, budget)
    }

    fn previous_kv(&self, event: &WatchEvent) -> io::Result<Option<Bytes>> {
        self.store.previous_kv(event)
    }
}

/// What is put between a poll of the queue and the read of history is in both: a watcher that joins those on the
/// queue has it once (15248).
#[test]
fn i15248_what_comes_while_a_watcher_joins_comes_once() {
    for changes in 1..4 {
        let mut m = Machine::new();
        m.put("a", "old", 0).expect("a put passes");
        let store = Arc::clone(m.state.store());
        let mut stream = m.stream(StreamConfig::default());
        stream.create(&everything_from(0), Ok(()), store.as_ref());
        assert!(events(&m.read(&mut stream)).is_empty(), "the first watcher has joined");
        stream.create(&everything_from(1), Ok(()), store.as_ref());
        let busy = Busy { store, machine: RefCell::new(m), changes: Cell::new(changes) };
        let mut responses = Vec::new();
        let reader = Machine::new();
        for _ in 0..2 {
            responses.extend(reader.read_from(&mut stream, &busy));
        }
        let made = (changes - busy.changes.get()) as i64;
        assert!(made > 0);
        for id in 0..2 {
            let of_one: Vec<_> =
                responses.iter().filter(|(_, r)| r.watch_id == id).cloned().collect();
            let seen: Vec<i64> = events(&of_one).into_iter().map(key).map(|(at, _)| at).collect();
            let first = if id == 0 { 3 } else { 2 };
            assert_eq!(seen, (first..=2 + made).collect::<Vec<_>>(), "watch {id}");
        }
    }
}

fn key(event: &Event) -> (i64, Bytes) {
    let kv = event.kv.as_ref().expect("an event has a key");
    (kv.mod_revision, kv.key.clone())
}

/// A watch that is refused leaves the one with id 0 alone (14562).
#[test]
fn i14562_a_refused_watch_does_not_end_another() {
    let mut m = Machine::new();
    let request = everything_from(0);
    let mut stream = m.stream(StreamConfig::default());
    stream.create(&request, Ok(()), m.state.store().as_ref());
    let refused = pb::WatchCreateRequest { start_revision: -1, ..everything_from(0) };
    stream.create(&refused, Ok(()), m.state.store().as_ref());
    stream.create(&everything_from(0), Err(Error::PermissionDenied), m.state.store().as_ref());
    let mut responses = m.read(&mut stream);
    responses.retain(|(_, response)| response.watch_id == 0);
    assert_eq!(responses.len(), 1);
    m.put("a", "1", 0).expect("a put passes");
    responses.extend(m.read(&mut stream));
    assert_eq!(events(&responses).len(), 1);
    m.judge(&request, responses);
}

/// A transaction whose events do not fit into a response comes whole, or in parts that say that more follows
/// (9291, 19441).
#[test]
fn i9291_a_large_revision_is_whole_or_in_fragments() {
    for fragment in [false, true] {
        let mut m = Machine::new();
        let request = pb::WatchCreateRequest { fragment, ..everything_from(0) };
        let config = StreamConfig { fragment_limit: 300, ..StreamConfig::default() };
        let mut stream = m.stream(config);
        stream.create(&request, Ok(()), m.state.store().as_ref());
        let puts = (0..100).map(|i| put(&format!("k{i:03}"), &i.to_string(), 0));
        let success = puts.map(|put| op(pb::request_op::Request::RequestPut(put))).collect();
        let txn = pb::TxnRequest { success, ..Default::default() };
        m.apply(RequestKind::Txn, &txn).expect("it passes");
        let responses = m.read(&mut stream);
        assert_eq!(responses.iter().any(|(_, response)| response.fragment), fragment);
        assert_eq!(events(&responses).len(), 100);
        m.judge(&request, responses);
    }
}

/// Progress on a watch where nothing happens is answered, and speaks of the newest revision (17557, 20242).
#[test]
fn i17557_progress_of_a_quiet_watch() {
    let mut m = Machine::new();
    let request = pb::WatchCreateRequest { key: bytes("quiet"), ..Default::default() };
    let mut stream = m.stream(StreamConfig::default());
    stream.create(&request, Ok(()), m.state.store().as_ref());
    for i in 0..5 {
        m.put("loud", &i.to_string(), 0).expect("a put passes");
    }
    m.read(&mut stream);
    stream.request_progress();
    let responses = m.read(&mut stream);
    let told: Vec<i64> =
        responses.iter().filter_map(|(_, r)| Some(r.header.as_ref()?.revision)).collect();
    assert_eq!(told, [6]);
}

/// A lock: the key is there as long as its owner's lease, and nobody holds it by a lease that ended (11456, 9921).
#[test]
fn i11456_no_lock_by_a_lease_that_ended() {
    let lock = |lease: i64| pb::TxnRequest {
        compare: vec![pb::Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Create.into(),
            key: bytes("lock"),
            target_union: Some(TargetUnion::CreateRevision(0)),
            ..Default::default()
        }],
        success: vec![op(pb::request_op::Request::RequestPut(put(
            "lock",
            &lease.to_string(),
            lease,
        )))],
        failure: Vec::new(),
    };
    let taken =
        |reply: Reply| pb::TxnResponse::decode(reply.body).expect("it can be read").succeeded;
    let mut m = Machine::new();
    m.grant(1, 5);
    m.grant(2, 60);
    assert!(taken(m.apply(RequestKind::Txn, &lock(1)).expect("it passes")));
    assert!(!taken(m.apply(RequestKind::Txn, &lock(2)).expect("it passes")), "it is taken");
    m.revoke(1).expect("the lease was there");
    m.observe();
    assert_eq!(m.apply(RequestKind::Txn, &lock(1)), Err(Error::LeaseNotFound), "its lease ended");
    assert!(taken(m.apply(RequestKind::Txn, &lock(2)).expect("it passes")));
    m.observe();
    m.judge_all();
}

/// Renewals beside a grant and a revocation, at each step of both: one succeeds only on a lease that is there and
/// was not given up (13932, 14758, 20590).
#[test]
fn i20590_renewals_at_every_step_of_a_lease() {
    let mut m = Machine::new();
    let renew = |m: &Machine, at: u64| m.state.lessor().renew(1, at);
    assert_eq!(renew(&m, 1000), Err(RenewError::NotPrimary));
    m.state.lessor().promote(1000, 0);
    assert_eq!(renew(&m, 1000), Err(RenewError::NotFound), "it is not granted");
    m.grant(1, 2);
    assert_eq!(renew(&m, 1000), Ok(2), "its time does not run yet, but it is there");
    assert!(m.state.lessor().expired(1100, 10).is_empty());
    assert_eq!(renew(&m, 2000), Ok(2));
    assert!(m.state.lessor().expired(3900, 10).is_empty(), "it was renewed at 2000");
    assert_eq!(m.state.lessor().expired(4200, 10), [1]);
    assert_eq!(renew(&m, 4200), Err(RenewError::Expired), "it is about to be revoked");
    m.revoke(1).expect("it was there");
    assert_eq!(renew(&m, 4300), Err(RenewError::NotFound));
    m.grant(1, 2);
    assert_eq!(renew(&m, 4400), Ok(2), "it is another one");
    m.state.lessor().demote();
    assert_eq!(renew(&m, 4500), Err(RenewError::NotPrimary));
}

/// A compaction cut short after each of its steps: what it keeps is there after the restart, the deletion at its
/// own revision too, and what it promised to be gone stays gone (18089, 19179).
#[test]
fn i19179_a_compaction_cut_short_keeps_what_it_keeps() {
    for steps in 0..40 {
        let mut m = Machine::new();
        for i in 0..8 {
            m.put(&format!("k{}", i % 4), &i.to_string(), 0).expect("a put passes");
        }
        m.delete("k1");
        let at = m.state.store().revision();
        m.put("k2", "last", 0).expect("a put passes");
        m.commit();
        m.compact(at);
        for _ in 0..steps {
            m.state.compaction_step(1).expect("memory can be read");
        }
        m.commit();
        m.observe();
        m.restart();
        m.observe();
        let request = everything_from(at);
        let mut stream = m.stream(StreamConfig::default());
        stream.create(&request, Ok(()), m.state.store().as_ref());
        let responses = m.read(&mut stream);
        assert_eq!(events(&responses).len(), 2, "after {steps} steps");
        m.judge(&request, responses);
        let old = pb::RangeRequest { key: bytes("k0"), revision: at - 1, ..Default::default() };
        assert!(m.state.store().range(&old).is_err(), "revision {} is gone", at - 1);
    }
}

/// A transaction that is refused leaves nothing behind, wherever in it the reason lies (18679, 18667).
#[test]
fn i18679_a_refused_transaction_leaves_no_trace() {
    let mut m = Machine::new();
    for i in 0..5 {
        m.put("a", &i.to_string(), 0).expect("a put passes");
    }
    m.compact(4);
    let good = || op(pb::request_op::Request::RequestPut(put("b", "x", 0)));
    let range = |revision| {
        let range = pb::RangeRequest { key: bytes("a"), revision, ..Default::default() };
        op(pb::request_op::Request::RequestRange(range))
    };
    let nested = |ops: Vec<pb::RequestOp>| {
        let txn = pb::TxnRequest { success: ops, ..Default::default() };
        op(pb::request_op::Request::RequestTxn(txn))
    };
    let leased = || op(pb::request_op::Request::RequestPut(put("c", "y", 99)));
    let bad = [
        (leased(), Error::LeaseNotFound),
        (range(2), Error::Compacted),
        (range(99), Error::FutureRev),
        (nested(vec![leased()]), Error::LeaseNotFound),
        (nested(vec![range(2)]), Error::Compacted),
    ];
    let before = m.state.store().revision();
    for (bad, why) in bad {
        for success in [vec![good(), bad.clone()], vec![bad.clone(), good()]] {
            let txn = pb::TxnRequest { success, ..Default::default() };
            assert_eq!(m.apply(RequestKind::Txn, &txn), Err(why));
            assert_eq!(m.state.store().revision(), before);
        }
    }
    m.observe();
    m.judge_all();
}

/// The judges see these scenarios at all.
#[test]
fn the_judges_are_awake() {
    let mut m = Machine::new();
    m.put("a", "1", 0).expect("a put passes");
    m.observe();
    m.history.observations[0].keys.as_mut().expect("they were read").clear();
    assert!(check(&m.history).is_err());
}
