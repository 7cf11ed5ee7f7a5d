//! A small store that does what etcd's guarantees say, written to be obviously right rather than fast: every
//! change of every key is kept for ever, and what anybody may see is looked up in that list.
//!
//! It shares no line with `etch_state`, which it is there to judge. Here: keys, leases, alarms and compactions
//! as the log changes them. Not here: selecting (`range`), transactions (`txn`), hashes (`hash`), reading a log
//! (`replay`); files, time, and who leads.

pub mod hash;
mod range;
pub mod replay;
#[cfg(test)]
mod tests;
mod txn;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use etch_api::pb::etcdserverpb as pb;
use etch_api::pb::mvccpb::KeyValue;
use etch_api::{Error, KeyRange};
use pb::AlarmType;
use pb::alarm_request::AlarmAction;

use crate::history::{Request, Response};
pub use txn::{is_read_only, is_serializable};

/// The largest TTL that a lease can have, in seconds.
const MAX_TTL: i64 = 9_000_000_000;

/// One change to one key.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Its place among the changes of its revision.
    pub sub: i64,
    /// What the key is from here on; key and mod revision alone if it was deleted.
    pub kv: KeyValue,
    /// Whether it was deleted.
    pub deleted: bool,
    /// What the key was before this revision, if it was alive.
    pub previous: Option<KeyValue>,
}

impl Change {
    /// The revision.
    pub fn revision(&self) -> i64 {
        self.kv.mod_revision
    }

    /// Whether the key was not alive before.
    pub fn is_create(&self) -> bool {
        !self.deleted && self.kv.create_revision == self.kv.mod_revision
    }
}

/// The store. It starts at revision 1, never compacted.
#[derive(Clone, Debug)]
pub struct Model {
    /// The revision of the last transaction that changed a key.
    revision: i64,
    /// To which revision it is compacted; -1 before the first compaction.
    compacted: i64,
    /// Every change since the beginning, in order.
    changes: Vec<Change>,
    /// Where in `changes` each key's changes are.
    keys: BTreeMap<Bytes, Vec<usize>>,
    /// The leases that are granted. Marks share them until they change: a search sets a mark before each step.
    leases: Arc<Leases>,
    /// The alarms that are up.
    alarms: BTreeSet<(i32, u64)>,
    /// Shorter TTLs are raised to it.
    min_ttl: i64,
    /// The hash of all changes up to each.
    chain: Vec<u64>,
}

/// Where a model was, to go back to.
#[derive(Clone, Debug)]
pub struct Mark {
    revision: i64,
    compacted: i64,
    changes: usize,
    leases: Arc<Leases>,
}

/// Leases with their TTL.
#[derive(Clone, Debug, Default)]
struct Leases {
    ttls: BTreeMap<i64, i64>,
    /// The hashes of all that are there, each of a lease and its TTL, added up.
    print: u64,
}

impl Leases {
    fn insert(&mut self, id: i64, ttl: i64) {
        self.print = self.print.wrapping_add(hash_of((id, ttl)));
        self.ttls.insert(id, ttl);
    }

    fn remove(&mut self, id: i64) {
        if let Some(ttl) = self.ttls.remove(&id) {
            self.print = self.print.wrapping_sub(hash_of((id, ttl)));
        }
    }
}

fn hash_of(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

pub(crate) fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..pb::ResponseHeader::default() })
}

impl Model {
    /// An empty store.
    pub fn new(min_ttl: i64) -> Model {
        Model {
            revision: 1,
            compacted: -1,
            changes: Vec::new(),
            keys: BTreeMap::new(),
            leases: Arc::default(),
            alarms: BTreeSet::new(),
            min_ttl,
            chain: Vec::new(),
        }
    }

    /// The newest revision.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The revision that it is compacted to, or -1.
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// Every change there ever was.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The TTL of a lease that is granted.
    pub fn lease(&self, id: i64) -> Option<i64> {
        self.leases.ttls.get(&id).copied()
    }

    /// The keys attached to a lease: those that carry its id.
    pub fn keys_of(&self, lease: i64) -> Vec<Bytes> {
        let all = self.range_at(&KeyRange::All, i64::MAX);
        all.into_iter().filter(|kv| kv.lease == lease).map(|kv| kv.key.clone()).collect()
    }

    /// A hash of everything that ever happened to keys, and of who has a lease.
    pub fn fingerprint(&self) -> u64 {
        hash_of((self.chain.last(), self.leases.print))
    }

    /// Where it is now.
    pub fn mark(&self) -> Mark {
        Mark {
            revision: self.revision,
            compacted: self.compacted,
            changes: self.changes.len(),
            leases: Arc::clone(&self.leases),
        }
    }

    /// Back to where it was.
    pub fn back_to(&mut self, mark: &Mark) {
        for change in self.changes.drain(mark.changes..).rev() {
            if let Some(places) = self.keys.get_mut(&change.kv.key) {
                places.pop();
                if places.is_empty() {
                    self.keys.remove(&change.kv.key);
                }
            }
        }
        self.chain.truncate(mark.changes);
        (self.revision, self.compacted) = (mark.revision, mark.compacted);
        self.leases = Arc::clone(&mark.leases);
    }

    /// The key as it stands at a revision.
    pub fn get(&self, key: &[u8], at: i64) -> Option<&KeyValue> {
        let places = self.keys.get(key)?;
        let found = places.iter().rev().map(|&i| &self.changes[i]);
        found.into_iter().find(|c| c.revision() <= at).filter(|c| !c.deleted).map(|c| &c.kv)
    }

    /// The keys of a range as they stand at a revision, in order.
    pub fn range_at(&self, range: &KeyRange, at: i64) -> Vec<&KeyValue> {
        let keys = self.keys.range::<[u8], _>(range.bounds());
        keys.filter_map(|(key, _)| self.get(key, at)).collect()
    }

    /// Does what an entry of the log asks, and says what its caller is told. A request that is refused
    /// changes nothing. Requests that never stand in the log are not for it.
    pub fn apply(&mut self, request: &Request) -> Result<Response, Error> {
        if self.is_up(AlarmType::Corrupt) {
            return Err(Error::Corrupt);
        }
        match request {
            Request::Range(request) => {
                self.range(request, self.revision, true).map(Response::Range)
            }
            Request::Put(request) => {
                self.check_room(true)?;
                self.put(request).map(Response::Put)
            }
            Request::DeleteRange(request) => Ok(Response::DeleteRange(self.delete_range(request))),
            Request::Txn(request) => {
                self.check_room(txn::puts(request))?;
                self.txn(request).map(Response::Txn)
            }
            Request::Compact(request) => self.compact(request).map(Response::Compact),
            Request::LeaseGrant(request) => {
                self.check_room(true)?;
                self.grant(request).map(Response::LeaseGrant)
            }
            Request::LeaseRevoke(request) => self.revoke(request).map(Response::LeaseRevoke),
            other => unreachable!("{other:?} does not go through the log"),
        }
    }

    /// An alarm goes up or down.
    pub fn alarm(&mut self, request: &pb::AlarmRequest) {
        let alarm = (request.alarm, request.member_id);
        if request.action == AlarmAction::Activate as i32 {
            self.alarms.insert(alarm);
        } else if request.action == AlarmAction::Deactivate as i32 {
            self.alarms.remove(&alarm);
        }
    }

    fn is_up(&self, kind: AlarmType) -> bool {
        self.alarms.iter().any(|(alarm, _)| *alarm == kind as i32)
    }

    fn check_room(&self, needs: bool) -> Result<(), Error> {
        if needs && self.is_up(AlarmType::Nospace) { Err(Error::NoSpace) } else { Ok(()) }
    }

    /// What a put needs to be there: its lease, and the key that it keeps a part of.
    fn check_put(&self, request: &pb::PutRequest) -> Result<(), Error> {
        if request.lease != 0 && !self.leases.ttls.contains_key(&request.lease) {
            return Err(Error::LeaseNotFound);
        }
        let keeps = request.ignore_value || request.ignore_lease;
        if keeps && self.get(&request.key, i64::MAX).is_none() {
            return Err(Error::KeyNotFound);
        }
        Ok(())
    }

    fn put(&mut self, request: &pb::PutRequest) -> Result<pb::PutResponse, Error> {
        self.check_put(request)?;
        let main = self.revision + 1;
        let previous = self.write(request, main, 0);
        self.revision = main;
        let prev_kv = previous.filter(|_| request.prev_kv);
        Ok(pb::PutResponse { header: header(main), prev_kv })
    }

    /// Writes a key at a revision, and says what was there.
    fn write(&mut self, request: &pb::PutRequest, main: i64, sub: i64) -> Option<KeyValue> {
        let old = self.get(&request.key, i64::MAX).cloned();
        let kept = old.clone().unwrap_or_default();
        let kv = KeyValue {
            key: request.key.clone(),
            create_revision: if old.is_some() { kept.create_revision } else { main },
            mod_revision: main,
            version: kept.version + 1,
            value: if request.ignore_value { kept.value } else { request.value.clone() },
            lease: if request.ignore_lease { kept.lease } else { request.lease },
        };
        self.change(kv, sub, false);
        old
    }

    /// Deletes a range at a revision, and says what was there.
    fn delete(&mut self, range: &KeyRange, main: i64, mut sub: i64) -> Vec<KeyValue> {
        let gone: Vec<_> = self.range_at(range, i64::MAX).into_iter().cloned().collect();
        for kv in &gone {
            let key = kv.key.clone();
            let kv = KeyValue { key, mod_revision: main, ..KeyValue::default() };
            self.change(kv, sub, true);
            sub += 1;
        }
        gone
    }

    fn delete_range(&mut self, request: &pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        let range = KeyRange::new(request.key.clone(), request.range_end.clone());
        let gone = self.delete(&range, self.revision + 1, 0);
        self.revision += i64::from(!gone.is_empty());
        deleted(request, gone, self.revision)
    }

    fn change(&mut self, kv: KeyValue, sub: i64, deleted: bool) {
        let mut hasher = DefaultHasher::new();
        (self.chain.last(), &kv.key, kv.mod_revision, &kv.value, kv.lease, deleted)
            .hash(&mut hasher);
        self.chain.push(hasher.finish());
        let previous = self.get(&kv.key, kv.mod_revision - 1).cloned();
        self.keys.entry(kv.key.clone()).or_default().push(self.changes.len());
        self.changes.push(Change { sub, kv, deleted, previous });
    }

    fn compact(
        &mut self,
        request: &pb::CompactionRequest,
    ) -> Result<pb::CompactionResponse, Error> {
        if request.revision <= self.compacted {
            return Err(Error::Compacted);
        }
        if request.revision > self.revision {
            return Err(Error::FutureRev);
        }
        self.compacted = request.revision;
        Ok(pb::CompactionResponse { header: header(self.revision) })
    }

    fn grant(&mut self, request: &pb::LeaseGrantRequest) -> Result<pb::LeaseGrantResponse, Error> {
        if request.id == 0 {
            return Err(Error::LeaseNotFound);
        }
        if request.ttl > MAX_TTL {
            return Err(Error::LeaseTtlTooLarge);
        }
        if self.leases.ttls.contains_key(&request.id) {
            return Err(Error::LeaseExist);
        }
        let ttl = request.ttl.max(self.min_ttl);
        Arc::make_mut(&mut self.leases).insert(request.id, ttl);
        let error = String::new();
        Ok(pb::LeaseGrantResponse { header: header(self.revision), id: request.id, ttl, error })
    }

    /// The lease goes, and its keys with it, in one revision.
    fn revoke(
        &mut self,
        request: &pb::LeaseRevokeRequest,
    ) -> Result<pb::LeaseRevokeResponse, Error> {
        // Looked at first: to change what a mark shares makes a copy.
        self.lease(request.id).ok_or(Error::LeaseNotFound)?;
        Arc::make_mut(&mut self.leases).remove(request.id);
        let keys = self.keys_of(request.id);
        let main = self.revision + 1;
        for (sub, key) in keys.iter().enumerate() {
            self.delete(&KeyRange::Single(key.clone()), main, sub as i64);
        }
        self.revision += i64::from(!keys.is_empty());
        Ok(pb::LeaseRevokeResponse { header: header(self.revision) })
    }
}

fn deleted(
    request: &pb::DeleteRangeRequest,
    gone: Vec<KeyValue>,
    revision: i64,
) -> pb::DeleteRangeResponse {
    pb::DeleteRangeResponse {
        header: header(revision),
        deleted: gone.len() as i64,
        prev_kvs: if request.prev_kv { gone } else { Vec::new() },
    }
}
