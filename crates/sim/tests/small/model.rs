//! What the requests of these tests mean, written down a second time: keys with their whole history, leases,
//! an alarm, and the hash that members compare. Plain and slow. Not here: files and crashes.

use std::collections::BTreeMap;

use bytes::Bytes;
use etch_api::internal::RequestKind;
use etch_api::pb::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, DeleteRangeRequest, LeaseGrantRequest,
    LeaseRevokeRequest, PutRequest, RequestOp, TxnRequest, alarm_request::AlarmAction,
    request_op::Request as Part,
};
use etch_api::pb::mvccpb::KeyValue;
use prost::Message;

/// A request.
#[derive(Clone, Debug)]
pub enum Request {
    Put {
        key: &'static str,
        value: Vec<u8>,
        lease: i64,
    },
    Delete(&'static str),
    /// Two puts and a delete at one revision.
    Txn([&'static str; 3]),
    Grant(i64),
    Revoke(i64),
    Compact(i64),
    Alarm(bool),
}

/// The life of every lease that is granted here, in seconds: longer than any test's time.
pub const TTL: i64 = 100_000;

impl Request {
    pub fn encode(&self) -> (RequestKind, Vec<u8>) {
        match self {
            Request::Put { key, value, lease } => {
                (RequestKind::Put, put(key, value, *lease).encode_to_vec())
            }
            Request::Delete(key) => (RequestKind::DeleteRange, delete(key).encode_to_vec()),
            Request::Txn([a, b, c]) => {
                let part = |request| RequestOp { request: Some(request) };
                let success = vec![
                    part(Part::RequestPut(put(a, b"txn", 0))),
                    part(Part::RequestDeleteRange(delete(c))),
                    part(Part::RequestPut(put(b, b"txn", 0))),
                ];
                let txn = TxnRequest { success, ..TxnRequest::default() };
                (RequestKind::Txn, txn.encode_to_vec())
            }
            Request::Grant(id) => {
                let grant = LeaseGrantRequest { id: *id, ttl: TTL };
                (RequestKind::LeaseGrant, grant.encode_to_vec())
            }
            Request::Revoke(id) => {
                (RequestKind::LeaseRevoke, LeaseRevokeRequest { id: *id }.encode_to_vec())
            }
            Request::Compact(revision) => {
                let compact = CompactionRequest { revision: *revision, physical: false };
                (RequestKind::Compaction, compact.encode_to_vec())
            }
            Request::Alarm(up) => {
                let action = if *up { AlarmAction::Activate } else { AlarmAction::Deactivate };
                let alarm = AlarmRequest {
                    action: action.into(),
                    member_id: 7,
                    alarm: AlarmType::Nospace.into(),
                };
                (RequestKind::Alarm, alarm.encode_to_vec())
            }
        }
    }
}

fn put(key: &str, value: &[u8], lease: i64) -> PutRequest {
    let (key, value) = (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value));
    PutRequest { key, value, lease, ..PutRequest::default() }
}

fn delete(key: &str) -> DeleteRangeRequest {
    let key = Bytes::copy_from_slice(key.as_bytes());
    DeleteRangeRequest { key, ..DeleteRangeRequest::default() }
}

/// What may be seen of a member from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub revision: i64,
    pub compacted: i64,
    pub hash: u32,
    pub keys: Vec<KeyValue>,
    /// With TTL and keys.
    pub leases: Vec<(i64, i64, Vec<Bytes>)>,
    pub alarm: bool,
}

/// One change of a key; a delete has no value.
#[derive(Clone, Debug)]
struct Change {
    main: i64,
    sub: i64,
    kv: KeyValue,
    deleted: bool,
}

/// The keys, leases and alarms that there ought to be.
#[derive(Clone, Debug)]
pub struct Model {
    pub revision: i64,
    pub compacted: i64,
    changes: Vec<Change>,
    leases: BTreeMap<i64, ()>,
    alarm: bool,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            revision: 1,
            compacted: -1,
            changes: Vec::new(),
            leases: BTreeMap::new(),
            alarm: false,
        }
    }
}

impl Model {
    /// Does a request; false where it is refused and changes nothing.
    pub fn apply(&mut self, request: &Request) -> bool {
        if self.alarm
            && matches!(request, Request::Put { .. } | Request::Txn(_) | Request::Grant(_))
        {
            return false;
        }
        let main = self.revision + 1;
        match request {
            Request::Put { key, value, lease } => {
                if *lease != 0 && !self.leases.contains_key(lease) {
                    return false;
                }
                self.put(main, 0, key, value, *lease);
                self.revision = main;
            }
            Request::Delete(key) => {
                if self.delete(main, 0, key.as_bytes()) {
                    self.revision = main;
                }
            }
            Request::Txn([a, b, c]) => {
                self.put(main, 0, a, b"txn", 0);
                let deleted = self.delete(main, 1, c.as_bytes());
                self.put(main, 1 + i64::from(deleted), b, b"txn", 0);
                self.revision = main;
            }
            Request::Grant(id) => return self.leases.insert(*id, ()).is_none(),
            Request::Revoke(id) => {
                if self.leases.remove(id).is_none() {
                    return false;
                }
                for (sub, key) in self.attached(*id).iter().enumerate() {
                    self.delete(main, sub as i64, key);
                    self.revision = main;
                }
            }
            Request::Compact(at) => {
                if *at <= self.compacted || *at > self.revision {
                    return false;
                }
                self.compacted = *at;
            }
            Request::Alarm(up) => self.alarm = *up,
        }
        true
    }

    /// What is to be seen.
    pub fn seen(&self) -> Seen {
        let leases = self.leases.keys().map(|id| (*id, TTL, self.attached(*id))).collect();
        Seen {
            revision: self.revision,
            compacted: self.compacted,
            hash: self.hash(),
            keys: self.live().into_values().map(|change| change.kv.clone()).collect(),
            leases,
            alarm: self.alarm,
        }
    }

    /// Keys that are alive, with the change that made them so.
    fn live(&self) -> BTreeMap<&[u8], &Change> {
        let mut live = BTreeMap::new();
        for change in &self.changes {
            if change.deleted {
                live.remove(&change.kv.key[..]);
            } else {
                live.insert(&change.kv.key[..], change);
            }
        }
        live
    }

    fn attached(&self, lease: i64) -> Vec<Bytes> {
        let live = self.live();
        live.values().filter(|c| c.kv.lease == lease).map(|c| c.kv.key.clone()).collect()
    }

    fn put(&mut self, main: i64, sub: i64, key: &str, value: &[u8], lease: i64) {
        let old = self.live().get(key.as_bytes()).map(|c| (c.kv.create_revision, c.kv.version));
        let (create_revision, version) = old.unwrap_or((main, 0));
        let kv = KeyValue {
            key: Bytes::copy_from_slice(key.as_bytes()),
            create_revision,
            mod_revision: main,
            version: version + 1,
            value: Bytes::copy_from_slice(value),
            lease,
        };
        self.changes.push(Change { main, sub, kv, deleted: false });
    }

    fn delete(&mut self, main: i64, sub: i64, key: &[u8]) -> bool {
        if !self.live().contains_key(key) {
            return false;
        }
        let kv = KeyValue { key: Bytes::copy_from_slice(key), ..KeyValue::default() };
        self.changes.push(Change { main, sub, kv, deleted: true });
        true
    }

    /// HashKV at the newest revision. Some key is always alive in these tests; etcd hashes otherwise where
    /// none is.
    fn hash(&self) -> u32 {
        let live: Vec<(i64, i64)> = self.live().values().map(|c| (c.main, c.sub)).collect();
        assert!(!live.is_empty() || self.compacted < 0);
        let mut crc = crc32c::crc32c(b"key");
        for change in &self.changes {
            let compacted = change.main <= self.compacted;
            let gone = compacted && !live.contains(&(change.main, change.sub));
            if gone || (change.deleted && change.main == self.compacted) {
                continue;
            }
            let mut row = change.main.to_be_bytes().to_vec();
            row.push(b'_');
            row.extend(change.sub.to_be_bytes());
            if change.deleted {
                row.push(b't');
            }
            crc = crc32c::crc32c_append(crc, &row);
            crc = crc32c::crc32c_append(crc, &change.kv.encode_to_vec());
        }
        crc
    }
}
