//! A script of requests, each answered as the model says and written into the log: histories to tamper with.

use bytes::Bytes;
use etch_api::KeyRange;
use etch_api::internal::{RequestKind, encode_entry};
use etch_api::pb::etcdserverpb as pb;
use etch_api::pb::mvccpb;
use prost::Message;

use crate::history::{
    History, LogEntry, Observation, Operation, Outcome, Request, Response, Watch,
};
use crate::model::{Change, Model};

pub const MS: u64 = 1_000_000;
pub const MEMBER: u64 = 0xa;

/// One client that asks one thing after another of a perfect member.
pub struct Script {
    pub history: History,
    pub model: Model,
    pub now: u64,
    index: u64,
}

impl Script {
    pub fn new() -> Script {
        let mut script =
            Script { history: History::default(), model: Model::new(0), now: MS, index: 0 };
        script.log(None);
        script
    }

    /// Appends an entry.
    pub fn log(&mut self, request: Option<&Request>) {
        self.index += 1;
        let data = request.map_or(Bytes::new(), |request| {
            let (kind, body) = encoded(request);
            encode_entry(self.index, kind, &body)
        });
        let entry = LogEntry { index: self.index, term: 2, applied_ns: Some(self.now), data };
        self.history.log.push(entry);
    }

    /// Asks, and is answered. Returns the operation's number.
    pub fn ask(&mut self, request: Request) -> usize {
        self.now += MS;
        let sent_ns = self.now;
        self.now += MS;
        let outcome = self.answer(&request);
        self.now += MS;
        self.operation(sent_ns, request, outcome)
    }

    fn operation(&mut self, sent_ns: u64, request: Request, outcome: Outcome) -> usize {
        self.history.operations.push(Operation {
            client: 1,
            member: MEMBER,
            sent_ns,
            ended_ns: self.now,
            request,
            outcome,
        });
        self.history.operations.len() - 1
    }

    /// Asks and never learns what became of it, which is that it was done, or was not.
    pub fn ask_in_vain(&mut self, request: Request, done: bool) -> usize {
        self.now += MS;
        let sent_ns = self.now;
        self.now += MS;
        if done {
            let _ = self.answer(&request);
        }
        self.now += MS;
        self.operation(sent_ns, request, Outcome::Unknown)
    }

    fn answer(&mut self, request: &Request) -> Outcome {
        let revision = self.model.revision();
        let header = Some(pb::ResponseHeader { revision, ..Default::default() });
        let answer = match request {
            Request::Range(range) => self.model.range(range, revision, true).map(Response::Range),
            Request::Txn(txn) if crate::model::is_read_only(txn) => {
                self.model.read_txn(txn, revision).map(Response::Txn)
            }
            Request::LeaseKeepAlive(asked) => {
                let ttl = self.model.lease(asked.id).unwrap_or(0);
                let told = pb::LeaseKeepAliveResponse { header, id: asked.id, ttl };
                Ok(Response::LeaseKeepAlive(told))
            }
            Request::LeaseTimeToLive(asked) => {
                let ttl = self.model.lease(asked.id);
                Ok(Response::LeaseTimeToLive(pb::LeaseTimeToLiveResponse {
                    header,
                    id: asked.id,
                    ttl: ttl.unwrap_or(-1),
                    granted_ttl: ttl.unwrap_or(0),
                    keys: self.model.keys_of(asked.id),
                }))
            }
            Request::HashKv(asked) => {
                let to = if asked.revision > 0 { asked.revision } else { revision };
                let compact_revision = self.model.compacted();
                let hash = self.model.hash_kv(to, compact_revision).unwrap_or(0);
                let hash_revision = to;
                let told = pb::HashKvResponse { header, hash, compact_revision, hash_revision };
                Ok(Response::HashKv(told))
            }
            Request::Defragment => Ok(Response::Defragment),
            write => {
                self.log(Some(write));
                self.model.apply(write)
            }
        };
        match answer {
            Ok(response) => Outcome::Ok(response),
            Err(why) => Outcome::failed(why.message()),
        }
    }

    pub fn put(&mut self, key: &str, value: &str) -> usize {
        self.ask(put(key, value, 0))
    }

    pub fn get(&mut self, key: &str) -> usize {
        self.ask(get(key, 0))
    }

    pub fn delete(&mut self, key: &str) -> usize {
        self.ask(delete(key))
    }

    /// The member says what it holds.
    pub fn observe(&mut self) {
        self.now += MS;
        let revision = self.model.revision();
        let compact_revision = self.model.compacted();
        let hash = self.model.hash_kv(revision, compact_revision);
        let keys = self.model.range_at(&KeyRange::All, revision).into_iter().cloned().collect();
        self.history.observations.push(Observation {
            member: MEMBER,
            at_ns: self.now,
            revision,
            compact_revision,
            hash: hash.map(|hash| (revision, compact_revision, hash)),
            keys: Some(keys),
        });
    }

    /// Adds a watch over keys from a revision on that saw all there is, one response a revision.
    pub fn watch(&mut self, key: &str, end: &str, start_revision: i64) -> &mut Watch {
        let request = pb::WatchCreateRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            range_end: Bytes::copy_from_slice(end.as_bytes()),
            start_revision,
            prev_kv: true,
            ..Default::default()
        };
        let range = KeyRange::new(request.key.clone(), request.range_end.clone());
        let revision = self.model.revision();
        let created = response(revision, Vec::new());
        let mut responses = vec![(self.now, pb::WatchResponse { created: true, ..created })];
        let due = self.model.changes().iter().filter(|change| {
            change.revision() >= start_revision.max(1) && range.contains(&change.kv.key)
        });
        let due: Vec<&Change> = due.collect();
        for changes in due.chunk_by(|a, b| a.revision() == b.revision()) {
            let events = changes.iter().map(|change| event(change)).collect();
            responses.push((self.now, response(changes[0].revision(), events)));
        }
        let (sent_ns, drained) = (self.now, true);
        self.history.watches.push(Watch {
            client: 9,
            member: MEMBER,
            request,
            sent_ns,
            responses,
            drained,
        });
        self.history.watches.last_mut().expect("it was just added")
    }
}

pub fn response(revision: i64, events: Vec<mvccpb::Event>) -> pb::WatchResponse {
    let header = Some(pb::ResponseHeader { revision, ..Default::default() });
    pb::WatchResponse { header, events, ..Default::default() }
}

pub fn event(change: &Change) -> mvccpb::Event {
    mvccpb::Event {
        r#type: i32::from(change.deleted),
        kv: Some(change.kv.clone()),
        prev_kv: change.previous.clone().filter(|_| !change.is_create()),
    }
}

fn encoded(request: &Request) -> (RequestKind, Vec<u8>) {
    match request {
        Request::Put(r) => (RequestKind::Put, r.encode_to_vec()),
        Request::DeleteRange(r) => (RequestKind::DeleteRange, r.encode_to_vec()),
        Request::Txn(r) => (RequestKind::Txn, r.encode_to_vec()),
        Request::Compact(r) => (RequestKind::Compaction, r.encode_to_vec()),
        Request::LeaseGrant(r) => (RequestKind::LeaseGrant, r.encode_to_vec()),
        Request::LeaseRevoke(r) => (RequestKind::LeaseRevoke, r.encode_to_vec()),
        other => panic!("{other:?} is not logged"),
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub fn put(key: &str, value: &str, lease: i64) -> Request {
    let (key, value) = (bytes(key), bytes(value));
    Request::Put(pb::PutRequest { key, value, lease, ..Default::default() })
}

pub fn get(key: &str, revision: i64) -> Request {
    Request::Range(pb::RangeRequest { key: bytes(key), revision, ..Default::default() })
}

pub fn delete(key: &str) -> Request {
    Request::DeleteRange(pb::DeleteRangeRequest { key: bytes(key), ..Default::default() })
}

pub fn compact(revision: i64) -> Request {
    Request::Compact(pb::CompactionRequest { revision, physical: false })
}

pub fn grant(id: i64, ttl: i64) -> Request {
    Request::LeaseGrant(pb::LeaseGrantRequest { id, ttl })
}

pub fn revoke(id: i64) -> Request {
    Request::LeaseRevoke(pb::LeaseRevokeRequest { id })
}

pub fn renew(id: i64) -> Request {
    Request::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id })
}

pub fn ttl(id: i64) -> Request {
    Request::LeaseTimeToLive(pb::LeaseTimeToLiveRequest { id, keys: true })
}

/// A transaction: if the key is at this mod revision, the one list, else the other.
pub fn txn(key: &str, modified: i64, success: &[Request], failure: &[Request]) -> Request {
    let compare = pb::Compare {
        result: pb::compare::CompareResult::Equal.into(),
        target: pb::compare::CompareTarget::Mod.into(),
        key: bytes(key),
        range_end: Bytes::new(),
        target_union: Some(pb::compare::TargetUnion::ModRevision(modified)),
    };
    let ops = |requests: &[Request]| requests.iter().map(op).collect();
    Request::Txn(pb::TxnRequest {
        compare: vec![compare],
        success: ops(success),
        failure: ops(failure),
    })
}

fn op(request: &Request) -> pb::RequestOp {
    use pb::request_op::Request as Asked;
    let asked = match request.clone() {
        Request::Range(r) => Asked::RequestRange(r),
        Request::Put(r) => Asked::RequestPut(r),
        Request::DeleteRange(r) => Asked::RequestDeleteRange(r),
        Request::Txn(r) => Asked::RequestTxn(r),
        other => panic!("{other:?} in a transaction"),
    };
    pb::RequestOp { request: Some(asked) }
}

/// A history with something of everything.
pub fn everything() -> Script {
    let mut s = Script::new();
    s.put("a", "1");
    s.put("b", "2");
    s.get("a");
    s.delete("a");
    s.delete("a");
    s.delete("a");
    s.ask(grant(7, 60));
    s.ask(put("b", "3", 7));
    s.ask(put("c", "4", 7));
    s.ask(ttl(7));
    s.ask(renew(7));
    s.ask(txn("b", 5, &[put("b", "5", 7), get("b", 4), put("d", "6", 0)], &[delete("b")]));
    s.ask(txn("b", 5, &[put("b", "7", 0)], &[get("b", 0), delete("c"), put("e", "8", 7)]));
    s.ask(get("b", 3));
    s.ask(txn("b", 0, &[], &[get("b", 0), get("b", 5)]));
    s.ask_in_vain(put("f", "9", 0), true);
    s.ask_in_vain(put("g", "10", 0), false);
    s.get("f");
    s.ask(compact(5));
    s.ask(compact(3));
    s.ask(get("b", 3));
    s.ask(Request::HashKv(pb::HashKvRequest { revision: 0 }));
    s.observe();
    s.ask(revoke(7));
    s.ask(ttl(7));
    s.ask(renew(7));
    s.put("a", "11");
    s.ask(Request::HashKv(pb::HashKvRequest { revision: 7 }));
    s.observe();
    s.watch("\0", "\0", 1);
    s.watch("b", "", 3);
    s
}
